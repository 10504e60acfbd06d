// A filesystem that is really mounted, for tests of what programs see.
#ifndef OCIFS_TESTS_MOUNT_MOUNTED_H_
#define OCIFS_TESTS_MOUNT_MOUNTED_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "fs/fuse_session.h"
#include "tests/fs/world.h"

namespace ocifs::fs::testing {

// Mounts in SetUp or in Mount(), unmounts in TearDown. Needs root and /dev/fuse: without them the
// tests fail, they are not skipped.
class Mounted : public ::testing::Test {
 protected:
  void SetUp() override {
    std::thread([] {}).join();  // sanitizers start a thread of their own with the first
    threads_before_ = Entries("/proc/self/task").size();
    descriptors_before_ = Entries("/proc/self/fd").size();
  }
  void TearDown() override {
    Unmount();
    world_.reset();
    EXPECT_EQ(Entries("/proc/self/fd").size(), descriptors_before_) << "descriptors leaked";
    EXPECT_TRUE(Eventually([this] { return Entries("/proc/self/task").size() == threads_before_; }))
        << "threads leaked";
  }

  World& world() { return *world_; }
  ScriptedSource& source() { return world_->source; }
  FuseSession& session() { return *session_; }

  void Mount() {
    if (world_->fs == nullptr) world_->Start();
    point_ = world_->directory / "mnt";
    std::filesystem::create_directory(point_);
    session_options_.mount_point = point_;
    session_options_.on_ready = [this] { ready_ = true; };
    auto session = FuseSession::Mount(session_options_, *world_->fs);
    ASSERT_TRUE(session) << "these tests need root and /dev/fuse: " << session.error().message;
    session_ = std::move(*session);
    runner_ = std::thread([this] {
      const auto result = session_->Run();
      EXPECT_TRUE(result) << result.error().message;
      finished_ = true;
    });
    ASSERT_TRUE(Eventually([this] { return ready_.load(); })) << "the mount did not get ready";
  }

  void Unmount() {
    if (session_ == nullptr) return;
    for (const ScriptedSource::Call call :
         {Call::kFindRegistry, Call::kManifest, Call::kBlob, Call::kTags}) {
      source().Release(call);
    }
    session_->Stop();
    runner_.join();
    session_.reset();
    world_->fs->SetNotifier(&world_->notifier);
    ready_ = false;
    finished_ = false;
  }

  // The daemon's next life.
  void Remount() {
    Unmount();
    world_->Restart();
    Mount();
  }

  std::string At(std::string_view path) const { return point_ + "/" + std::string(path); }

  static std::vector<std::string> Entries(const std::string& directory) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::vector<std::string> List(std::string_view path) const { return Entries(At(path)); }

  // The errno of stat(2), 0 when it worked.
  int StatErrno(std::string_view path) const {
    struct stat ignored = {};
    return lstat(At(path).c_str(), &ignored) == 0 ? 0 : errno;
  }
  struct stat Stat(std::string_view path) const {
    struct stat result = {};
    if (lstat(At(path).c_str(), &result) != 0) {
      ADD_FAILURE() << path << ": " << std::strerror(errno);
    }
    return result;
  }

  // Content, or "errno N".
  std::string Read(std::string_view path) const {
    const int fd = open(At(path).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return "errno " + std::to_string(errno);
    std::string content;
    std::string buffer(1 << 20, '\0');
    while (true) {
      const ssize_t count = read(fd, buffer.data(), buffer.size());
      if (count < 0) {
        content = "errno " + std::to_string(errno);
        break;
      }
      if (count == 0) break;
      content.append(buffer.data(), static_cast<size_t>(count));
    }
    close(fd);
    return content;
  }

  std::string Xattr(std::string_view path, const char* name) const {
    char value[4096];
    const ssize_t size = lgetxattr(At(path).c_str(), name, value, sizeof value);
    if (size < 0) return "errno " + std::to_string(errno);
    return {value, static_cast<size_t>(size)};
  }

  std::unique_ptr<World> world_ = std::make_unique<World>();
  FuseSession::Options session_options_;
  std::unique_ptr<FuseSession> session_;
  std::thread runner_;
  std::string point_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> finished_{false};
  size_t threads_before_ = 0;
  size_t descriptors_before_ = 0;
};

}  // namespace ocifs::fs::testing

#endif  // OCIFS_TESTS_MOUNT_MOUNTED_H_
