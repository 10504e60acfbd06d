#include "fetch/child_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/fetch/helper_program.h"

namespace ocifs::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using store::ErrorCode;

constexpr milliseconds kNever{600'000};

class ChildProcessTest : public ::testing::Test {
 protected:
  ChildProgram Program(std::string_view body) const {
    return {.file = dir_.Script("program", body), .arguments = {"program"}, .timeout = kNever};
  }
  // Notes that it has begun, and stays with a child of its own.
  ChildProgram Hanging(milliseconds timeout) const {
    ChildProgram program =
        Program("exec 9>'" + (dir_ / "life") + "'\ntrap '' TERM\nprintf x >&9\nsleep 1000 &\nwait");
    program.timeout = timeout;
    return program;
  }

  const HelperDirectory dir_;
};

TEST_F(ChildProcessTest, GivesInputArgumentsAndOutput) {
  ChildProgram program = Program("printf '%s,%s,%s,' \"$#\" \"$1\" \"$2\"; cat; exit 3");
  program.arguments = {"program", "two words", "$(id)"};
  program.input = "in\nput";
  const auto end = RunChild(program, {});
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->exit_status, 3);
  EXPECT_EQ(end->output, "2,two words,$(id),in\nput");
}

TEST_F(ChildProcessTest, SignalIsNoStatus) {
  const auto end = RunChild(Program("echo said; kill -KILL $$"), {});
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->exit_status, std::nullopt);
  EXPECT_EQ(end->output, "said\n");
}

TEST_F(ChildProcessTest, InputThatIsNotReadHarmsNobody) {
  ChildProgram program = Program("exit 0");
  program.input = std::string(size_t{1} << 20, 'x');
  const auto end = RunChild(program, {});
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->exit_status, 0);
}

TEST_F(ChildProcessTest, TakesNoDescriptorOrSignalSettingOfOurs) {
  constexpr int kLeaked = 77;
  ASSERT_EQ(dup2(STDERR_FILENO, kLeaked), kLeaked);  // without close-on-exec
  sigset_t all;
  sigset_t old;
  sigfillset(&all);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &all, &old), 0);
  auto* const old_handler = signal(SIGPIPE, SIG_IGN);
  const auto end = RunChild(
      Program("[ -e /proc/$$/fd/77 ] && echo leaked; grep -E 'Sig(Blk|Ign)' /proc/self/status; "
              "cut -d ' ' -f 5 /proc/$$/stat | grep -qx $$ && echo leads"),
      {});
  signal(SIGPIPE, old_handler);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  close(kLeaked);
  ASSERT_TRUE(end) << end.error().message;
  // The C library keeps signals 32 and 33 for itself.
  EXPECT_THAT(end->output,
              ::testing::MatchesRegex("SigBlk:\t0{16}\nSigIgn:\t0{7}[01][08]0{7}\nleads\n"));
}

TEST_F(ChildProcessTest, OwnStandardErrorIsDiscarded) {
  ::testing::internal::CaptureStderr();
  const auto end = RunChild(Program("echo hunter2 >&2; echo out"), {});
  const std::string said = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->output, "out\n");
  EXPECT_EQ(said, "");
  ChildProgram program = Program("echo told >&2");
  program.standard_error = ChildStderr::kInherit;
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(RunChild(program, {}));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "told\n");
}

TEST_F(ChildProcessTest, HangingGroupIsKilledWhenTheTimeIsOver) {
  const LifeLine life(dir_ / "life");
  const auto end = RunChild(Hanging(milliseconds(300)), {});
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::kTimedOut);
  EXPECT_TRUE(life.Ended());
}

TEST_F(ChildProcessTest, StopKillsTheGroupAtOnce) {
  const LifeLine life(dir_ / "life");
  std::stop_source stop;
  std::optional<store::Result<ChildEnd>> end;
  steady_clock::time_point over;
  std::thread runner([&] {
    end = RunChild(Hanging(kNever), stop.get_token());
    over = steady_clock::now();
  });
  EXPECT_TRUE(life.Began());
  const auto asked = steady_clock::now();
  stop.request_stop();
  runner.join();
  ASSERT_TRUE(end && !*end);
  EXPECT_EQ(end->error().code, ErrorCode::kCancelled);
  EXPECT_LT(over - asked, seconds(1));  // 100 ms, on a machine that has other things to do
  EXPECT_TRUE(life.Ended());
}

TEST_F(ChildProcessTest, StoppedBeforeItBeganNothingStarts) {
  std::stop_source stop;
  stop.request_stop();
  const auto end =
      RunChild(Program("touch '" + (dir_ / "ran") + "'; exec sleep 1000"), stop.get_token());
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::kCancelled);
  EXPECT_NE(access((dir_ / "ran").c_str(), F_OK), 0);
}

TEST_F(ChildProcessTest, FloodIsKilled) {
  const LifeLine life(dir_ / "life");
  ChildProgram program =
      Program("exec 9>'" + (dir_ / "life") + "'\nwhile :; do echo hunter2 || exit; done");
  program.max_output = 1000;
  const auto end = RunChild(program, {});
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(end.error().message.find("hunter2"), std::string::npos);
  EXPECT_TRUE(life.Ended());
}

TEST_F(ChildProcessTest, OutputUpToTheLimitIsWhole) {
  ChildProgram program = Program("head -c 70000 /dev/zero");
  program.max_output = 70000;
  const auto end = RunChild(program, {});
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->output, std::string(70000, '\0'));
}

TEST_F(ChildProcessTest, AnAgentThatItStartedIsNotWaitedFor) {
  // The agent holds the output open until our end of the FIFO goes.
  ASSERT_EQ(mkfifo((dir_ / "agent").c_str(), 0600), 0);
  const store::UniqueFd agent(open((dir_ / "agent").c_str(), O_RDWR | O_CLOEXEC));
  const auto end = RunChild(
      Program("exec 9<'" + (dir_ / "agent") + "'\n{ read -r line <&9; } &\necho done"), {});
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->exit_status, 0);
  EXPECT_EQ(end->output, "done\n");
}

TEST_F(ChildProcessTest, WhatCannotBeStarted) {
  ChildProgram program = Program("exit 0");
  program.file = dir_ / "absent";
  auto end = RunChild(program, {});
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(end.error().message.find(dir_ / "absent"), std::string::npos);
}

TEST_F(ChildProcessTest, FindsExecutables) {
  const HelperDirectory other;
  const std::string second = other.Script("tool", "");
  // A directory and a file that may not be executed are no programs.
  ASSERT_EQ(mkdir((dir_ / "tool").c_str(), 0700), 0);
  EXPECT_EQ(FindExecutable("tool", dir_.path() + ":" + other.path()), second);
  const std::string first = dir_.Script("tool2", "");
  other.Script("tool2", "");
  EXPECT_EQ(FindExecutable("tool2", dir_.path() + ":" + other.path()), first);
  ASSERT_EQ(chmod(first.c_str(), 0600), 0);
  EXPECT_EQ(FindExecutable("tool2", dir_.path() + ":" + other.path()), other / "tool2");
  EXPECT_EQ(FindExecutable("tool3", dir_.path()), std::nullopt);
  EXPECT_EQ(FindExecutable("tool", ""), std::nullopt);
  // Relative directories mean another program wherever one stands.
  ASSERT_EQ(chdir(other.path().c_str()), 0);
  EXPECT_EQ(FindExecutable("tool", ".::"), std::nullopt);
  ASSERT_EQ(chdir("/"), 0);
}

}  // namespace
}  // namespace ocifs::fetch
