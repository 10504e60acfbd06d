#include "fetch/failure.h"

#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

using std::chrono::seconds;
using store::Error;
using store::ErrorCode;

const auto kNow = std::chrono::system_clock::from_time_t(1'700'000'000);  // 2023-11-14 22:13:20

TEST(FailureTest, RetryAfterInSecondsAndAsADate) {
  EXPECT_EQ(ParseRetryAfter("3", kNow), seconds(3));
  EXPECT_EQ(ParseRetryAfter("0", kNow), seconds(0));
  EXPECT_EQ(ParseRetryAfter("86400", kNow), seconds(86'400));
  EXPECT_EQ(ParseRetryAfter("4000000000", kNow), seconds(86'400)) << "at most a day";
  EXPECT_EQ(ParseRetryAfter("Tue, 14 Nov 2023 22:14:20 GMT", kNow), seconds(60));
  EXPECT_EQ(ParseRetryAfter("Tue, 14 Nov 2023 22:00:00 GMT", kNow), seconds(0));
  for (const char* nonsense : {"", "-1", "1.5", "soon", "99999999999999999999"}) {
    EXPECT_EQ(ParseRetryAfter(nonsense, kNow), std::nullopt) << nonsense;
  }
}

TEST(FailureTest, AnswersThatPassByThemselves) {
  for (const int status : {408, 429, 500, 502, 503, 504}) {
    HttpHead head{.status = status};
    EXPECT_EQ(FailureOfAnswer(head, Error{}, kNow).tries, kTransientTries) << status;
  }
  for (const int status : {400, 401, 403, 404, 405, 410, 501, 505}) {
    HttpHead head{.status = status};
    EXPECT_EQ(FailureOfAnswer(head, Error{}, kNow).tries, 1) << status;
  }
}

TEST(FailureTest, OnlyThoseThatSpeakOfWaitingAreBelieved) {
  for (const int status : {429, 503, 500, 404}) {
    HttpHead head{.status = status};
    head.headers.Add("retry-after", "7");
    const Failure failure = FailureOfAnswer(head, Error{}, kNow);
    EXPECT_EQ(failure.retry_after.has_value(), status == 429 || status == 503) << status;
  }
}

TEST(FailureTest, TransportSaysWhetherTheServerIsThere) {
  for (const ErrorCode code : {ErrorCode::kUnavailable, ErrorCode::kTimedOut}) {
    EXPECT_TRUE(FailureOfTransport({code, ""}, Contact::kSilent).unreachable());
    EXPECT_EQ(FailureOfTransport({code, ""}, Contact::kSilent).tries, 2);
    for (const Contact contact : {Contact::kAnswered, Contact::kNone}) {
      EXPECT_FALSE(FailureOfTransport({code, ""}, contact).unreachable());
      EXPECT_EQ(FailureOfTransport({code, ""}, contact).tries, kTransientTries);
    }
  }
  for (const ErrorCode code : {ErrorCode::kDenied, ErrorCode::kCancelled}) {
    EXPECT_FALSE(FailureOfTransport({code, ""}, Contact::kSilent).unreachable());
    EXPECT_EQ(FailureOfTransport({code, ""}, Contact::kSilent).tries, 1);
  }
}

TEST(FailureTest, OurOwnMistakesAreNoMissingNames) {
  EXPECT_EQ(FailureOfTransport({ErrorCode::kInvalid, "no PEM"}, Contact::kNone).error.code,
            ErrorCode::kDenied);
}

}  // namespace
}  // namespace ocifs::fetch
