#include "fetch/host_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fetch/source_fixture.h"

namespace ocifs::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using store::Error;
using store::ErrorCode;
using ::testing::HasSubstr;

constexpr milliseconds kPatience{20'000};

Failure Unreachable() {
  return {.error = {ErrorCode::kUnavailable, "refused"}, .tries = 2, .unreachable = true};
}

class HostHealthTest : public ::testing::Test {
 protected:
  void BreakDown() {
    for (int i = 0; i < HostHealth::kMaxUnreachable; ++i) {
      ASSERT_TRUE(health_.Admit(kPatience));
      health_.Failed(Unreachable());
    }
  }
  ErrorCode Refusal(milliseconds patience = kPatience) {
    const auto admission = health_.Admit(patience);
    return admission ? ErrorCode::kInternal : admission.error().code;
  }

  FakeTimer timer_;
  HostHealth health_{"r.example", false, timer_};
};

TEST_F(HostHealthTest, AServerThatIsDownIsLeftAloneUntilALookIsDue) {
  BreakDown();
  EXPECT_FALSE(health_.IsClear());
  const auto refused = health_.Admit(kPatience);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("r.example"));
  EXPECT_THAT(refused.error().message, HasSubstr("refused")) << "why it is thought to be down";
  timer_.Advance(HostHealth::kFirstPause);
  const auto look = health_.Admit(kPatience);
  ASSERT_TRUE(look);
  EXPECT_TRUE(look->probe);
  EXPECT_EQ(Refusal(), ErrorCode::kUnavailable) << "one look at a time";
  health_.Answered();
  const auto after = health_.Admit(kPatience);
  ASSERT_TRUE(after);
  EXPECT_FALSE(after->probe);
}

TEST_F(HostHealthTest, ALookGivenUpLeavesRoomForTheNext) {
  BreakDown();
  timer_.Advance(HostHealth::kFirstPause);
  ASSERT_TRUE(health_.Admit(kPatience));
  health_.GaveUp();
  const auto look = health_.Admit(kPatience);
  ASSERT_TRUE(look);
  EXPECT_TRUE(look->probe);
}

TEST_F(HostHealthTest, PausesGrowToAFewSecondsForARegistryAndToAMinuteForAMirror) {
  HostHealth mirror("m.example", true, timer_);
  auto longest_pause = [&](HostHealth& health) {
    for (int i = 0; i < HostHealth::kMaxUnreachable; ++i) health.Failed(Unreachable());
    milliseconds pause{0};
    for (int round = 0; round < 20; ++round) {
      pause = milliseconds(0);
      while (!health.Admit(kPatience)) {
        timer_.Advance(milliseconds(250));
        pause += milliseconds(250);
      }
      health.Failed(Unreachable());
    }
    return pause;
  };
  EXPECT_EQ(longest_pause(health_), HostHealth::kLongestPause);
  EXPECT_EQ(longest_pause(mirror), HostHealth::kLongestMirrorPause);
}

TEST_F(HostHealthTest, ManyFailuresAtOnceOpenItOnce) {
  BreakDown();
  for (int i = 0; i < 50; ++i) health_.Failed(Unreachable());
  timer_.Advance(HostHealth::kFirstPause);
  EXPECT_TRUE(health_.Admit(kPatience)) << "late failures do not lengthen the pause";
}

TEST_F(HostHealthTest, AnswersThatAreErrorsKeepItClosed) {
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(health_.Admit(kPatience));
    health_.Failed({.error = {ErrorCode::kRemote, "500"}, .tries = 5});
  }
  EXPECT_TRUE(health_.IsClear());
}

TEST_F(HostHealthTest, RetryAfterIsWaitedForByThePatientAndRefusedToTheOthers) {
  health_.Failed({.error = {ErrorCode::kRateLimited, "429"}, .retry_after = seconds(3)});
  EXPECT_FALSE(health_.IsClear());
  const auto admission = health_.Admit(kPatience);
  ASSERT_TRUE(admission);
  EXPECT_GE(admission->wait, seconds(3));
  EXPECT_EQ(Refusal(milliseconds(2'000)), ErrorCode::kRateLimited);
  health_.Failed({.error = {ErrorCode::kRateLimited, "429"}, .retry_after = seconds(86'400)});
  EXPECT_EQ(Refusal(), ErrorCode::kRateLimited);
  timer_.Advance(seconds(86'401));
  EXPECT_TRUE(health_.IsClear());
}

TEST_F(HostHealthTest, NewsIsNewsOnceAMinute) {
  EXPECT_TRUE(health_.IsNews(ErrorCode::kRemote));
  EXPECT_FALSE(health_.IsNews(ErrorCode::kRemote));
  EXPECT_TRUE(health_.IsNews(ErrorCode::kTimedOut));
  timer_.Advance(HostHealth::kLogInterval);
  EXPECT_TRUE(health_.IsNews(ErrorCode::kRemote));
}

}  // namespace
}  // namespace ocifs::fetch
