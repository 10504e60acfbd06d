#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class ReadLinkTest : public Mounted {};

TEST_F(ReadLinkTest, TargetsAreExactAndKept) {
  TarWriter tar;
  const std::string longest(4095, 'x');
  tar.Symlink("absolute", "/etc/passwd").Symlink("dangling", "../../nowhere");
  tar.Pax({{"linkpath", longest}}).Symlink("long", "short").End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  Mount();
  const std::pair<std::string, std::string> cases[] = {
      {"absolute", "/etc/passwd"}, {"dangling", "../../nowhere"}, {"long", longest}};
  for (const auto& [name, target] : cases) {
    char buffer[8192];
    const std::string path = At("reg.example/app/web/1.0/" + name);
    const ssize_t size = readlink(path.c_str(), buffer, sizeof buffer);
    ASSERT_GE(size, 0) << name;
    EXPECT_EQ(std::string(buffer, static_cast<size_t>(size)), target);
    EXPECT_EQ(static_cast<size_t>(Stat("reg.example/app/web/1.0/" + name).st_size), target.size());
    const uint64_t before = session().counts().of(Operation::kReadLink);
    EXPECT_GE(readlink(path.c_str(), buffer, sizeof buffer), 0);
    EXPECT_EQ(session().counts().of(Operation::kReadLink), before) << "the kernel keeps it";
  }
  EXPECT_EQ(StatErrno("reg.example/app/web/1.0/dangling"), 0);
}

}  // namespace
}  // namespace ocifs::fs::testing
