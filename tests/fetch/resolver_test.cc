#include "fetch/resolver.h"

#include <gtest/gtest.h>
#include <netdb.h>

#include <atomic>
#include <semaphore>
#include <thread>

namespace ocifs::fetch {
namespace {

using store::ErrorCode;

TEST(ResolverTest, TellsAbsentFromUnknown) {
  Resolver resolver([](const std::string& host) {
    if (host == "there") return 0;
    if (host == "absent") return EAI_NONAME;
    if (host == "empty") return EAI_NODATA;
    return EAI_AGAIN;
  });
  EXPECT_TRUE(resolver.Find("there", {}));
  EXPECT_EQ(resolver.Find("absent", {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(resolver.Find("empty", {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(resolver.Find("broken", {}).error().code, ErrorCode::kUnavailable);
}

TEST(ResolverTest, KeepsAnswersButNotFailures) {
  auto calls = std::make_shared<std::atomic<int>>(0);
  Resolver resolver([calls](const std::string& host) {
    ++*calls;
    return host == "absent" ? EAI_NONAME : EAI_AGAIN;
  });
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(resolver.Find("absent", {}));
  EXPECT_EQ(*calls, 1);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(resolver.Find("broken", {}));
  EXPECT_EQ(*calls, 4);
}

struct Gate {
  std::binary_semaphore entered{0};
  std::binary_semaphore leave{0};
};

TEST(ResolverTest, StopWakesTheCallerOfAResolverThatHangs) {
  auto gate = std::make_shared<Gate>();
  Resolver resolver(
      [gate](const std::string&) {
        gate->entered.release();
        gate->leave.acquire();
        return 0;
      },
      std::chrono::hours(1));
  std::stop_source stop;
  std::thread stopper([&] {
    gate->entered.acquire();
    stop.request_stop();
  });
  EXPECT_EQ(resolver.Find("slow", stop.get_token()).error().code, ErrorCode::kCancelled);
  stopper.join();
  // The lookup that was left behind still answers the next caller.
  gate->leave.release();
  EXPECT_TRUE(resolver.Find("slow", {}));
}

TEST(ResolverTest, DeadlinePasses) {
  auto gate = std::make_shared<Gate>();
  Resolver resolver(
      [gate](const std::string&) {
        gate->leave.acquire();
        return 0;
      },
      std::chrono::milliseconds(1));
  EXPECT_EQ(resolver.Find("slow", {}).error().code, ErrorCode::kTimedOut);
  gate->leave.release();
}

TEST(ResolverTest, HangingResolverDoesNotCollectThreads) {
  auto leave = std::make_shared<std::counting_semaphore<>>(0);
  Resolver resolver(
      [leave](const std::string&) {
        leave->acquire();
        return 0;
      },
      std::chrono::milliseconds(1));
  for (size_t i = 0; i < Resolver::kMaxLookups; ++i) {
    EXPECT_EQ(resolver.Find("slow" + std::to_string(i), {}).error().code, ErrorCode::kTimedOut);
  }
  EXPECT_EQ(resolver.Find("one more", {}).error().code, ErrorCode::kUnavailable);
  leave->release(Resolver::kMaxLookups);
}

}  // namespace
}  // namespace ocifs::fetch
