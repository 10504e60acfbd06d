#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class InterruptTest : public Mounted {
 protected:
  // A child that stats a path and reports the errno as its exit status (200: success).
  pid_t StatInChild(std::string_view path, bool handle_signal) {
    const std::string absolute = At(path);
    const pid_t child = fork();
    if (child != 0) {
      children_.push_back(child);
      return child;
    }
    // A copy of the session's descriptor would keep the mount alive after its end.
    close_range(3, ~0u, 0);
    if (handle_signal) {
      struct sigaction action = {};
      action.sa_handler = [](int) {};
      sigaction(SIGINT, &action, nullptr);
    } else {
      signal(SIGINT, SIG_DFL);
    }
    struct stat stat = {};
    _exit(lstat(absolute.c_str(), &stat) == 0 ? 200 : errno);
  }
  // Waits for the child, at most `limit`; -1 if it is still there.
  static int StatusOf(pid_t child, std::chrono::milliseconds limit) {
    int status = -1;
    const bool ended = Eventually([&] { return waitpid(child, &status, WNOHANG) == child; }, limit);
    return ended ? status : -1;
  }
  void TearDown() override {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, WNOHANG);
    }
    Mounted::TearDown();
  }
  std::vector<pid_t> children_;
  static constexpr std::chrono::milliseconds kSoon{2000};  // 100 ms, on a busy machine
};

TEST_F(InterruptTest, AWaitingLookupEndsAtOnceWithASignal) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  source().Hold(Call::kManifest);
  const pid_t child = StatInChild("reg.example/app/web:1.0", true);
  ASSERT_TRUE(Eventually([&] { return source().waiting(Call::kManifest) == 1; }));
  const auto start = std::chrono::steady_clock::now();
  kill(child, SIGINT);
  const int status = StatusOf(child, kSoon);
  ASSERT_NE(status, -1) << "it is still waiting";
  EXPECT_LT(std::chrono::steady_clock::now() - start, kSoon);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), EINTR);
  EXPECT_EQ(session().counts().interrupted, 1u);
}

TEST_F(InterruptTest, AWaitingProcessCanBeKilled) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  source().Hold(Call::kManifest);
  for (const int signal_number : {SIGINT, SIGTERM, SIGKILL}) {
    const pid_t child = StatInChild("reg.example/app/web:1.0", false);
    ASSERT_TRUE(Eventually([&] { return session().counts().cold > 0; }));
    kill(child, signal_number);
    ASSERT_NE(StatusOf(child, kSoon), -1) << "signal " << signal_number;
  }
}

TEST_F(InterruptTest, WhatOthersWaitForGoesOn) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  source().Hold(Call::kBlob);
  const pid_t impatient = StatInChild("reg.example/app/web:1.0/greeting", true);
  ASSERT_TRUE(Eventually([&] { return source().waiting(Call::kBlob) >= 1; }));
  std::string content;
  std::thread patient([&] { content = Read("reg.example/app/web:1.0/greeting"); });
  kill(impatient, SIGINT);
  const int status = StatusOf(impatient, kSoon);
  ASSERT_NE(status, -1);
  EXPECT_EQ(WEXITSTATUS(status), EINTR);
  source().Release(Call::kBlob);
  patient.join();
  EXPECT_EQ(content, "hello\n");
  EXPECT_EQ(source().count(Call::kBlob), 2u) << "config and layer, once each";
}

TEST_F(InterruptTest, CachedReadsDoNotStandBehindWaitingOnes) {
  session_options_.cold.max_threads = 4;
  source().AddImage("reg.example/app/warm:1.0", {SmallTar()});
  for (int i = 0; i < 32; ++i) {
    source().AddImage("reg.example/app/cold:" + std::to_string(i), {SmallTar()});
  }
  Mount();
  EXPECT_EQ(Read("reg.example/app/warm/1.0/greeting"), "hello\n");
  source().Hold(Call::kManifest);
  std::vector<pid_t> children;
  children.reserve(32);
  for (int i = 0; i < 32; ++i) {
    children.push_back(StatInChild("reg.example/app/cold:" + std::to_string(i), false));
  }
  ASSERT_TRUE(Eventually([&] { return session().counts().cold >= 32; }))
      << session().counts().cold << " wait";
  ASSERT_TRUE(Eventually([&] { return source().waiting(Call::kManifest) >= 4; }));
  EXPECT_EQ(source().waiting(Call::kManifest), 4u);
  // More wait than there are threads to wait with; what is in the store is still served.
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Read("reg.example/app/warm/1.0/dir/inner"), "inside\n");
  EXPECT_EQ(List("reg.example/app/warm/1.0").size(), 3u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, kSoon);
  // Those who stand in line can leave it.
  for (const pid_t child : children) kill(child, SIGKILL);
  for (const pid_t child : children) ASSERT_NE(StatusOf(child, kSoon), -1);
}

}  // namespace
}  // namespace ocifs::fs::testing
