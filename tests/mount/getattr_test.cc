#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class GetAttrTest : public Mounted {};

TEST_F(GetAttrTest, EverythingOfAnEntry) {
  TarWriter tar;
  TarFields file;
  file.name = "file";
  file.mode = 04640;
  file.uid = 1000;
  file.gid = 1001;
  file.size = 1025;
  tar.Pax({{"mtime", "1650000000.123456789"}}).Header(file).Content(std::string(1025, 'x'));
  tar.HardLink("second", "file");
  TarFields device;
  device.name = "null";
  device.type = '3';
  device.device_major = 1;
  device.device_minor = 3;
  tar.Header(device).End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  Mount();
  const struct stat stat = Stat("reg.example/app/web/1.0/file");
  EXPECT_EQ(stat.st_mode, static_cast<mode_t>(S_IFREG | 04640));
  EXPECT_EQ(stat.st_uid, 1000u);
  EXPECT_EQ(stat.st_gid, 1001u);
  EXPECT_EQ(stat.st_size, 1025);
  EXPECT_EQ(stat.st_blocks, 3);
  EXPECT_EQ(stat.st_nlink, 2u);
  EXPECT_EQ(stat.st_mtim.tv_sec, 1'650'000'000);
  EXPECT_EQ(stat.st_mtim.tv_nsec, 123'456'789);
  EXPECT_EQ(stat.st_ctim.tv_sec, stat.st_mtim.tv_sec);
  EXPECT_EQ(stat.st_blksize, 128 * 1024);
  EXPECT_EQ(Stat("reg.example/app/web/1.0/second").st_ino, stat.st_ino);
  const struct stat null = Stat("reg.example/app/web/1.0/null");
  EXPECT_TRUE(S_ISCHR(null.st_mode));
  EXPECT_EQ(null.st_rdev, makedev(1, 3));
  // The mount is nodev: it looks like a device and is none.
  EXPECT_EQ(Read("reg.example/app/web/1.0/null"), "errno " + std::to_string(EACCES));
}

TEST_F(GetAttrTest, WarmAttributesMakeNoRequest) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  const int root = open(At("reg.example/app/web/1.0").c_str(), O_PATH | O_CLOEXEC);
  ASSERT_GE(root, 0);
  struct stat stat = {};
  ASSERT_EQ(fstatat(root, "dir/inner", &stat, 0), 0);
  const RequestCounts before = session().counts();
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(fstatat(root, "greeting", &stat, 0), 0);
    ASSERT_EQ(fstatat(root, "dir/inner", &stat, 0), 0);
    ASSERT_EQ(fstat(root, &stat), 0);
  }
  const RequestCounts after = session().counts();
  EXPECT_EQ(after.total(), before.total());
  close(root);
}

TEST_F(GetAttrTest, ReadingKeepsAttributes) {
  // Without `ro`, the kernel would drop them after each read to see the access time.
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  const uint64_t before = session().counts().of(Operation::kGetAttributes);
  const int fd = open(At("reg.example/app/web/1.0/greeting").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  char byte = 0;
  struct stat stat = {};
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(pread(fd, &byte, 1, 0), 1);
    ASSERT_EQ(fstat(fd, &stat), 0);
  }
  close(fd);
  // One for the root, whose attributes became known when it was opened.
  EXPECT_LE(session().counts().of(Operation::kGetAttributes), before + 1);
}

TEST_F(GetAttrTest, ListingWithAttributesPullsNothing) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().AddImage("reg.example/app/web:2.0", {SmallTar()});
  Mount();
  for (const std::string& tag : List("reg.example/app/web")) {
    EXPECT_TRUE(S_ISDIR(Stat("reg.example/app/web/" + tag).st_mode));
  }
  EXPECT_EQ(source().count(Call::kBlob), 0u);
}

TEST_F(GetAttrTest, ARootIsWhatItIsFromTheFirstLookOn) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  const struct stat before = Stat("reg.example/app/web/1.0");
  EXPECT_TRUE(S_ISDIR(before.st_mode));
  EXPECT_EQ(List("reg.example/app/web/1.0").size(), 3u);
  const struct stat after = Stat("reg.example/app/web/1.0");
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_nlink, before.st_nlink);
  EXPECT_EQ(after.st_ctim.tv_sec, before.st_ctim.tv_sec);
}

TEST_F(GetAttrTest, InodeNumbersSurviveTheDaemon) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/dir/inner"), "inside\n");
  const ino_t before = Stat("reg.example/app/web/1.0/dir/inner").st_ino;
  const ino_t root = Stat("reg.example/app/web/1.0").st_ino;
  Remount();
  EXPECT_EQ(Stat("reg.example/app/web/1.0/dir/inner").st_ino, before);
  EXPECT_EQ(Stat("reg.example/app/web/1.0").st_ino, root);
}

TEST_F(GetAttrTest, PermissionsAreCheckedByTheKernel) {
  TarWriter tar;
  TarFields secret;
  secret.name = "secret";
  secret.mode = 0600;
  secret.size = 1;
  tar.Header(secret).Content("x").File("open", "y").End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  session_options_.allow_other = true;
  Mount();
  std::filesystem::permissions(world().directory.path(), std::filesystem::perms(0755));
  EXPECT_EQ(Read("reg.example/app/web/1.0/secret"), "x");
  const pid_t child = fork();
  if (child == 0) {
    close_range(3, ~0u, 0);  // above all the session's own descriptor
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(9);
    const int secret_fd = open(At("reg.example/app/web/1.0/secret").c_str(), O_RDONLY);
    const bool denied = secret_fd < 0 && errno == EACCES;
    const int open_fd = open(At("reg.example/app/web/1.0/open").c_str(), O_RDONLY);
    _exit(denied && open_fd >= 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ocifs::fs::testing
