#include <signal.h>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class UnmountTest : public Mounted {
 protected:
  bool IsMounted() const {
    struct stat inside = {};
    struct stat outside = {};
    if (stat(point_.c_str(), &inside) != 0) return true;  // a dead mount
    EXPECT_EQ(stat(world_->directory.path().c_str(), &outside), 0);
    return inside.st_dev != outside.st_dev;
  }
};

TEST_F(UnmountTest, UmountEndsTheSession) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  ASSERT_EQ(umount(point_.c_str()), 0) << std::strerror(errno);
  EXPECT_TRUE(Eventually([this] { return finished_.load(); }));
  EXPECT_FALSE(IsMounted());
}

TEST_F(UnmountTest, ABusyMountStays) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  const int fd = open(At("reg.example/app/web/1.0/greeting").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(umount(point_.c_str()), -1);
  EXPECT_EQ(errno, EBUSY);
  char byte = 0;
  EXPECT_EQ(read(fd, &byte, 1), 1);
  close(fd);
  EXPECT_FALSE(finished_);
}

TEST_F(UnmountTest, AfterALazyUnmountOpenFilesWorkUntilTheyAreClosed) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  const int fd = open(At("reg.example/app/web/1.0/greeting").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(umount2(point_.c_str(), MNT_DETACH), 0);
  EXPECT_FALSE(IsMounted());
  char buffer[16];
  EXPECT_EQ(read(fd, buffer, sizeof buffer), 6);
  EXPECT_FALSE(finished_);
  close(fd);
  EXPECT_TRUE(Eventually([this] { return finished_.load(); }));
}

TEST_F(UnmountTest, StopUnmounts) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  Unmount();
  EXPECT_FALSE(IsMounted());
}

TEST_F(UnmountTest, StopAnswersThoseWhoWait) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  source().Hold(Call::kManifest);
  int seen = 0;
  std::thread waiter([&] { seen = StatErrno("reg.example/app/web:1.0"); });
  ASSERT_TRUE(Eventually([&] { return source().waiting(Call::kManifest) == 1; }));
  session().Stop();
  waiter.join();
  EXPECT_EQ(seen, ESHUTDOWN);
  EXPECT_TRUE(Eventually([this] { return finished_.load(); }));
}

TEST_F(UnmountTest, SignalsEndTheSession) {
  session_options_.handle_signals = true;
  for (const int signal_number : {SIGTERM, SIGINT, SIGHUP}) {
    Mount();
    EXPECT_EQ(StatErrno(""), 0);
    // Handlers are in place once Run has begun, which the mount's first answer shows.
    kill(getpid(), signal_number);
    EXPECT_TRUE(Eventually([this] { return finished_.load(); }));
    EXPECT_FALSE(IsMounted());
    Unmount();
  }
}

TEST_F(UnmountTest, MountingOnWhatIsNoDirectoryFailsWithAReason) {
  world().Start();
  FuseSession::Options options;
  options.mount_point = world().directory / "absent";
  const auto session = FuseSession::Mount(options, *world().fs);
  ASSERT_FALSE(session);
  EXPECT_NE(session.error().message.find("absent"), std::string::npos) << session.error().message;
}

TEST_F(UnmountTest, MountingAgainWorks) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  for (int i = 0; i < 5; ++i) {
    Mount();
    EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
    Unmount();
  }
}

}  // namespace
}  // namespace ocifs::fs::testing
