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

Failure Silence() {
  return {.error = {ErrorCode::kUnavailable, "refused"}, .tries = 2, .contact = Contact::kSilent};
}
Failure RateLimit(seconds wait) {
  return {.error = {ErrorCode::kRateLimited, "429"},
          .contact = Contact::kAnswered,
          .retry_after = wait};
}

class HostHealthTest : public ::testing::Test {
 protected:
  static void Fail(HostHealth& health) {
    const auto admission = health.Admit(kPatience);
    ASSERT_TRUE(admission);
    health.Failed(*admission, Silence());
  }
  void BreakDown() {
    for (int i = 0; i < HostHealth::kMaxSilent; ++i) Fail(health_);
  }
  ErrorCode Refusal(milliseconds patience = kPatience) {
    const auto admission = health_.Admit(patience);
    return admission ? ErrorCode::kInternal : admission.error().code;
  }

  FakeTimer timer_;
  HostHealth health_{"r.example", false, timer_};
};

TEST_F(HostHealthTest, AServerThatIsDownIsLeftAloneUntilALookIsDue) {
  EXPECT_FALSE(health_.HasAnswered());
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
  health_.Answered(*look);
  const auto after = health_.Admit(kPatience);
  ASSERT_TRUE(after);
  EXPECT_FALSE(after->probe);
  EXPECT_TRUE(health_.HasAnswered());
}

TEST_F(HostHealthTest, ALookGivenUpLeavesRoomForTheNext) {
  const auto before = health_.Admit(kPatience);
  ASSERT_TRUE(before);
  BreakDown();
  timer_.Advance(HostHealth::kFirstPause);
  const auto look = health_.Admit(kPatience);
  ASSERT_TRUE(look);
  health_.GaveUp(*before);
  EXPECT_EQ(Refusal(), ErrorCode::kUnavailable)
      << "the end of another request is not that of the look";
  health_.GaveUp(*look);
  const auto next = health_.Admit(kPatience);
  ASSERT_TRUE(next);
  EXPECT_TRUE(next->probe);
}

TEST_F(HostHealthTest, PausesGrowToAFewSecondsForARegistryAndToAMinuteForAMirror) {
  HostHealth mirror("m.example", true, timer_);
  auto longest_pause = [&](HostHealth& health) {
    for (int i = 0; i < HostHealth::kMaxSilent; ++i) Fail(health);
    milliseconds pause{0};
    for (int round = 0; round < 20; ++round) {
      pause = milliseconds(0);
      auto look = health.Admit(kPatience);
      for (; !look; look = health.Admit(kPatience)) {
        timer_.Advance(milliseconds(250));
        pause += milliseconds(250);
      }
      EXPECT_EQ(look->quick, round < 1 || (&health == &mirror && round < 5)) << round;
      health.Failed(*look, Silence());
    }
    return pause;
  };
  EXPECT_EQ(longest_pause(health_), HostHealth::kLongestPause);
  EXPECT_EQ(longest_pause(mirror), HostHealth::kLongestMirrorPause);
}

TEST_F(HostHealthTest, RequestsThatWereUnderWayTogetherFailTogether) {
  std::vector<HostHealth::Admission> admissions;
  for (int i = 0; i < 50; ++i) admissions.push_back(*health_.Admit(kPatience));
  for (const auto& admission : admissions) health_.Failed(admission, Silence());
  EXPECT_TRUE(health_.IsClear()) << "a short break is one silence, whoever was waiting";
}

TEST_F(HostHealthTest, AnswersThatAreErrorsKeepItClosedAndCloseIt) {
  for (int i = 0; i < 10; ++i) {
    const auto admission = health_.Admit(kPatience);
    ASSERT_TRUE(admission);
    health_.Failed(
        *admission,
        {.error = {ErrorCode::kRemote, "500"}, .tries = 5, .contact = Contact::kAnswered});
  }
  EXPECT_TRUE(health_.IsClear());
  BreakDown();
  timer_.Advance(HostHealth::kFirstPause);
  const auto look = health_.Admit(kPatience);
  ASSERT_TRUE(look);
  health_.Failed(*look, RateLimit(seconds(1)));
  timer_.Advance(seconds(2));
  EXPECT_TRUE(health_.IsClear());
}

TEST_F(HostHealthTest, FailuresOfOurOwnSayNothing) {
  for (int i = 0; i < 10; ++i) {
    const auto admission = health_.Admit(kPatience);
    ASSERT_TRUE(admission);
    health_.Failed(*admission, {.error = {ErrorCode::kTimedOut, "no token"}});
  }
  EXPECT_TRUE(health_.IsClear());
  BreakDown();
  timer_.Advance(HostHealth::kFirstPause);
  const auto look = health_.Admit(kPatience);
  ASSERT_TRUE(look);
  health_.Failed(*look, {.error = {ErrorCode::kUnauthenticated, "no login"}});
  EXPECT_FALSE(health_.IsClear());
  EXPECT_TRUE(health_.Admit(kPatience)) << "the next may look";
}

TEST_F(HostHealthTest, RetryAfterIsWaitedForByThePatientAndRefusedToTheOthers) {
  health_.Failed(*health_.Admit(kPatience), RateLimit(seconds(3)));
  EXPECT_FALSE(health_.IsClear());
  const auto admission = health_.Admit(kPatience);
  ASSERT_TRUE(admission);
  EXPECT_GE(admission->wait, seconds(3));
  EXPECT_EQ(Refusal(milliseconds(2'000)), ErrorCode::kRateLimited);
  timer_.Advance(seconds(4));
  health_.Failed(*health_.Admit(kPatience), RateLimit(seconds(86'400)));
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
