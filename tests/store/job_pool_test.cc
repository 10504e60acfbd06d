#include "store/job_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

TEST(JobPool, RunsAllJobs) {
  std::atomic<int> ran = 0;
  {
    JobPool pool(3);
    for (int i = 0; i < 1000; ++i) pool.Submit([&] { ++ran; });
  }
  EXPECT_EQ(ran, 1000) << "what was queued before the end too";
}

TEST(JobPool, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    JobPool pool(1);
    for (int i = 0; i < 100; ++i) pool.Submit([&order, i] { order.push_back(i); });
  }
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(JobPool, ManyJobsRunAtOnceUpToTheLimit) {
  constexpr int kThreads = 8;
  std::latch all_there(kThreads);
  JobPool pool(kThreads);
  for (int i = 0; i < kThreads; ++i) pool.Submit([&] { all_there.arrive_and_wait(); });
  pool.Drain();
  std::atomic<int> running = 0;
  std::atomic<int> most = 0;
  for (int i = 0; i < 500; ++i) {
    pool.Submit([&] {
      const int now = ++running;
      int seen = most;
      while (now > seen && !most.compare_exchange_weak(seen, now)) {
      }
      --running;
    });
  }
  pool.Drain();
  EXPECT_LE(most, kThreads);
}

TEST(JobPool, DrainWaitsForWhatRuns) {
  JobPool pool(2);
  std::atomic<bool> done = false;
  std::latch started(1);
  std::latch go_on(1);
  pool.Submit([&] {
    started.count_down();
    go_on.wait();
    done = true;
  });
  started.wait();
  std::thread release([&] { go_on.count_down(); });
  pool.Drain();
  EXPECT_TRUE(done);
  release.join();
}

TEST(JobPool, AJobsOwnThingsAreGoneWhenItIsDrained) {
  JobPool pool(1);
  auto held = std::make_shared<int>(1);
  pool.Submit([held] {});
  pool.Drain();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace ocifs::store
