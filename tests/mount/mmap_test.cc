#include <sys/mman.h>
#include <sys/wait.h>

#include <fstream>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class MmapTest : public Mounted {};

TEST_F(MmapTest, MappedFilesShowTheirBytes) {
  const std::string content = Noise((5 << 20) + 77);
  TarWriter tar;
  tar.File("big", content).End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  Mount();
  const int fd = open(At("reg.example/app/web/1.0/big").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  void* const shared = mmap(nullptr, content.size(), PROT_READ, MAP_SHARED, fd, 0);
  void* const own = mmap(nullptr, content.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  ASSERT_NE(shared, MAP_FAILED);
  ASSERT_NE(own, MAP_FAILED);
  close(fd);
  EXPECT_EQ(std::string_view(static_cast<const char*>(shared), content.size()), content);
  static_cast<char*>(own)[0] ^= 1;
  EXPECT_EQ(std::string_view(static_cast<const char*>(shared), 1), content.substr(0, 1));
  munmap(shared, content.size());
  munmap(own, content.size());
}

TEST_F(MmapTest, ProgramsRun) {
  std::ifstream file("/bin/true", std::ios::binary);
  const std::string program((std::istreambuf_iterator<char>(file)), {});
  ASSERT_FALSE(program.empty());
  TarWriter tar;
  TarFields fields;
  fields.name = "true";
  fields.mode = 0755;
  fields.size = program.size();
  tar.Header(fields).Content(program).End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  Mount();
  const std::string path = At("reg.example/app/web/1.0/true");
  const pid_t child = fork();
  if (child == 0) {
    execl(path.c_str(), "true", nullptr);
    _exit(99);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ocifs::fs::testing
