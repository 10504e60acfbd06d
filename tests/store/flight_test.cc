#include "store/flight.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <new>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using namespace std::chrono_literals;

class Flights : public ::testing::Test {
 protected:
  RequestContext Stoppable() {
    return {{}, stop_.get_token(), RequestContext::Wait::kUntilStalled};
  }

  std::stop_source stop_;
  JobPool pool_{4};
  FlightTable<int> flights_{pool_, 1h};
};

TEST_F(Flights, ManyWhoWantTheSameShareOneFetch) {
  constexpr size_t kCallers = 32;
  std::atomic<int> fetches = 0;
  std::latch go_on(1);
  std::atomic<size_t> got = 0;
  std::vector<std::jthread> callers;
  callers.reserve(kCallers);
  for (size_t i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      const Result<int> result = flights_.Run("key", {}, [&](FlightProgress&) -> Result<int> {
        ++fetches;
        go_on.wait();
        return 7;
      });
      if (result && *result == 7) ++got;
    });
  }
  std::vector<FetchProgress> progress;
  while (progress.empty()) flights_.AppendProgress(progress);
  EXPECT_EQ(progress[0].what, "key");
  go_on.count_down();
  callers.clear();
  EXPECT_EQ(got, kCallers);
  // Whoever came after the end started another; nobody did while it was under way.
  EXPECT_GE(fetches, 1);
}

TEST_F(Flights, WhileOneIsUnderWayNoOtherStarts) {
  std::latch started(1);
  std::latch go_on(1);
  std::jthread leader([&] {
    EXPECT_THAT(flights_.Run("key", {},
                             [&](FlightProgress&) -> Result<int> {
                               started.count_down();
                               go_on.wait();
                               return 1;
                             }),
                IsOk());
  });
  started.wait();
  // Leaves at once, but joins before it does.
  stop_.request_stop();
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(
        flights_.Run("key", Stoppable(), [](FlightProgress&) -> Result<int> { std::abort(); }),
        FailsWith(ErrorCode::kCancelled));
  }
  EXPECT_EQ(Must(flights_.Run("other key", {}, [](FlightProgress&) -> Result<int> { return 2; })),
            2);
  go_on.count_down();
}

TEST_F(Flights, ACallerThatGoesAwayLeavesTheFetchRunning) {
  std::latch started(1);
  std::latch go_on(1);
  std::atomic<bool> finished = false;
  std::jthread caller([&] {
    EXPECT_THAT(flights_.Run("key", Stoppable(),
                             [&](FlightProgress&) -> Result<int> {
                               started.count_down();
                               go_on.wait();
                               finished = true;
                               return 1;
                             }),
                FailsWith(ErrorCode::kCancelled));
  });
  started.wait();
  stop_.request_stop();
  caller.join();
  EXPECT_FALSE(finished) << "it was answered before";
  go_on.count_down();
  pool_.Drain();
  EXPECT_TRUE(finished);
}

TEST_F(Flights, ErrorsReachAllAndAreNotKept) {
  EXPECT_THAT(
      flights_.Run("key", {},
                   [](FlightProgress&) -> Result<int> { return Fail(ErrorCode::kRemote, "x"); }),
      FailsWith(ErrorCode::kRemote));
  EXPECT_EQ(Must(flights_.Run("key", {}, [](FlightProgress&) -> Result<int> { return 3; })), 3);
  std::vector<FetchProgress> progress;
  flights_.AppendProgress(progress);
  EXPECT_TRUE(progress.empty());
}

TEST_F(Flights, WhatTheWorkThrowsIsAnError) {
  EXPECT_THAT(
      flights_.Run("key", {}, [](FlightProgress&) -> Result<int> { throw std::bad_alloc(); }),
      FailsWith(ErrorCode::kOutOfMemory));
}

TEST_F(Flights, NeverMeansNever) {
  EXPECT_THAT(flights_.Run("key", {{}, {}, RequestContext::Wait::kNever},
                           [](FlightProgress&) -> Result<int> { std::abort(); }),
              FailsWith(ErrorCode::kWouldBlock));
}

TEST_F(Flights, WhoWaitsForNothingIsToldSo) {
  FlightTable<int> impatient(pool_, 0ms);
  std::latch go_on(1);
  EXPECT_THAT(impatient.Run("key", {},
                            [&](FlightProgress&) -> Result<int> {
                              go_on.wait();
                              return 1;
                            }),
              FailsWith(ErrorCode::kTimedOut));
  go_on.count_down();
  pool_.Drain();
}

TEST_F(Flights, ProgressIsCounted) {
  std::latch go_on(1);
  std::latch moved(1);
  std::jthread caller([&] {
    Must(flights_.Run("key", {}, [&](FlightProgress& progress) -> Result<int> {
      progress.Expect(100);
      progress.Fetched(30);
      progress.Fetched(12);
      moved.count_down();
      go_on.wait();
      return 1;
    }));
  });
  moved.wait();
  std::vector<FetchProgress> progress;
  flights_.AppendProgress(progress);
  ASSERT_EQ(progress.size(), 1U);
  EXPECT_EQ(progress[0].bytes_fetched, 42U);
  EXPECT_EQ(progress[0].bytes_total, 100U);
  go_on.count_down();
}

}  // namespace
}  // namespace ocifs::store
