// The small parts: listings, memories, queues, pools.
#include <gtest/gtest.h>

#include <atomic>
#include <latch>

#include "fs/cold_pool.h"
#include "fs/failures.h"
#include "fs/listing.h"
#include "fs/mount_table.h"
#include "fs/negative_cache.h"
#include "fs/notification_queue.h"
#include "fs/oci_view.h"
#include "fs/stat.h"
#include "store/log.h"
#include "tests/fs/world.h"

namespace ocifs::fs::testing {
namespace {

using store::Error;
using store::ErrorCode;

TEST(ListingTest, IsInTheOrderOfItsCookiesAndKnowsItsNames) {
  std::vector<std::string> names;
  names.reserve(10002);
  for (int i = 0; i < 10000; ++i) names.push_back("tag-" + std::to_string(i));
  names.push_back("tag-7");                // twice
  names.push_back(std::string(300, 'x'));  // longer than the kernel takes
  const Listing listing(names);
  ASSERT_EQ(listing.items().size(), 10000u);
  uint64_t last = Listing::kFirstCookie - 1;
  for (const Listing::Item& item : listing.items()) {
    ASSERT_GT(item.cookie, last);
    last = item.cookie;
    ASSERT_TRUE(listing.Contains(item.name));
  }
  EXPECT_FALSE(listing.Contains("tag-10000"));
  EXPECT_EQ(listing.After(0), 0u);
  EXPECT_EQ(listing.After(listing.items()[41].cookie), 42u);
  EXPECT_EQ(listing.After(last), listing.items().size());
}

TEST(ListingTest, CookiesDependOnTheNameAlone) {
  const Listing one({"a", "b", "c"});
  const Listing two({"b"});
  for (const Listing::Item& item : one.items()) {
    if (item.name == "b") {
      EXPECT_EQ(item.cookie, two.items()[0].cookie);
    }
  }
  EXPECT_FALSE(one.SameNames(two));
  EXPECT_TRUE(one.SameNames(Listing({"c", "b", "a"})));
}

TEST(NegativeCacheTest, RemembersForAWhile) {
  NegativeCache cache(std::chrono::hours(1), 100);
  EXPECT_FALSE(cache.Contains(1, "a"));
  cache.Insert(1, "a");
  EXPECT_TRUE(cache.Contains(1, "a"));
  EXPECT_FALSE(cache.Contains(2, "a"));
  cache.Erase(1, "a");
  EXPECT_FALSE(cache.Contains(1, "a"));
  NegativeCache brief(std::chrono::nanoseconds(0), 100);
  brief.Insert(1, "a");
  EXPECT_FALSE(brief.Contains(1, "a"));
}

TEST(NegativeCacheTest, IsBoundedAndForgetsTheOldestFirst) {
  NegativeCache cache(std::chrono::hours(1), 100);
  for (int i = 0; i < 100; ++i) cache.Insert(1, std::to_string(i));
  cache.Insert(1, "0");  // renewed
  for (int i = 100; i < 150; ++i) cache.Insert(1, std::to_string(i));
  EXPECT_LE(cache.size(), 100u);
  EXPECT_TRUE(cache.Contains(1, "149"));
  EXPECT_TRUE(cache.Contains(1, "0"));
  EXPECT_FALSE(cache.Contains(1, "1"));
}

class CapturedLog {
 public:
  CapturedLog() {
    store::SetLogSink([this](store::LogLevel, std::string_view text) {
      store::MutexLock lock(mutex_);
      lines_.emplace_back(text);
    });
  }
  ~CapturedLog() { store::SetLogSink({}); }
  std::vector<std::string> lines() const {
    store::MutexLock lock(mutex_);
    return lines_;
  }

 private:
  mutable store::Mutex mutex_;
  std::vector<std::string> lines_ OCIFS_GUARDED_BY(mutex_);
};

TEST(FailureMemoryTest, SaysEachFailureOnceAndWhatToDo) {
  CapturedLog log;
  FailureMemory memory(std::chrono::hours(1), 10);
  const InodeNumber inode = InodeNumber::Of(3, 4);
  for (int i = 0; i < 100; ++i) {
    memory.Remember(inode, "/ghcr.io/a", Error{ErrorCode::kUnavailable, "no route"});
  }
  EXPECT_EQ(memory.Last(inode), "unavailable: no route");
  ASSERT_EQ(log.lines().size(), 1u);
  EXPECT_NE(log.lines()[0].find("/ghcr.io/a"), std::string::npos);
  EXPECT_NE(log.lines()[0].find("check the network"), std::string::npos);
  memory.Remember(inode, "/ghcr.io/a", Error{ErrorCode::kCorrupt, "wrong digest"});
  EXPECT_EQ(memory.Last(inode), "corrupt: wrong digest");
  EXPECT_EQ(log.lines().size(), 2u);
}

TEST(FailureMemoryTest, WhatIsNoNewsIsNotKept) {
  CapturedLog log;
  FailureMemory memory(std::chrono::hours(1), 10);
  for (const ErrorCode code : {ErrorCode::kNotFound, ErrorCode::kInvalid, ErrorCode::kCancelled,
                               ErrorCode::kWouldBlock, ErrorCode::kShuttingDown}) {
    memory.Remember(InodeNumber::Of(1), "/x", Error{code, "text"});
  }
  EXPECT_EQ(memory.Last(InodeNumber::Of(1)), std::nullopt);
  EXPECT_TRUE(log.lines().empty());
}

TEST(FailureMemoryTest, IsBounded) {
  CapturedLog log;
  FailureMemory memory(std::chrono::hours(1), 10);
  for (uint32_t i = 1; i <= 100; ++i) {
    memory.Remember(InodeNumber::Of(i), "/x", Error{ErrorCode::kRemote, std::string(5000, 'x')});
  }
  EXPECT_EQ(memory.Last(InodeNumber::Of(1)), std::nullopt);
  ASSERT_TRUE(memory.Last(InodeNumber::Of(100)));
  EXPECT_LE(memory.Last(InodeNumber::Of(100))->size(), 2000u);
}

TEST(NotificationQueueTest, SendsFromItsOwnThreadEachOnce) {
  std::latch started(1);
  std::latch go(1);
  std::atomic<int> sent{0};
  NotificationQueue queue([&](const Notification&) {
    if (sent++ == 0) {
      started.count_down();
      go.wait();
    }
  });
  queue.InvalidateInode(InodeNumber::Of(1));
  started.wait();
  // While one is being sent, others line up; repetitions do not.
  for (int i = 0; i < 100; ++i) {
    queue.InvalidateInode(InodeNumber::Of(2));
    queue.InvalidateEntry(InodeNumber::Of(2), "name");
  }
  go.count_down();
  EXPECT_TRUE(Eventually([&] { return sent == 3; }));
  queue.Stop();
  EXPECT_EQ(sent, 3);
}

TEST(NotificationQueueTest, StopDropsWhatIsInLine) {
  std::latch started(1);
  std::latch go(1);
  std::atomic<int> sent{0};
  NotificationQueue queue([&](const Notification&) {
    if (sent++ == 0) {
      started.count_down();
      go.wait();
    }
  });
  queue.InvalidateInode(InodeNumber::Of(1));
  started.wait();
  queue.InvalidateInode(InodeNumber::Of(2));
  std::thread stopper([&] { queue.Stop(); });
  go.count_down();
  stopper.join();
  EXPECT_LE(sent, 2);
  queue.InvalidateInode(InodeNumber::Of(3));  // too late, and harmless
}

TEST(ColdPoolTest, GrowsOnDemandAndShrinks) {
  std::latch all(16);
  std::atomic<int> done{0};
  ColdPool pool({.max_threads = 16, .idle_time = std::chrono::milliseconds(1)});
  for (int i = 0; i < 16; ++i) {
    ASSERT_TRUE(pool.Submit(std::make_shared<ColdPool::Task>([&](const std::stop_token&) {
      all.arrive_and_wait();  // only if they really run at once
      ++done;
    })));
  }
  EXPECT_TRUE(Eventually([&] { return done == 16; }));
  EXPECT_TRUE(Eventually([&] { return pool.thread_count() == 0; }));
  ASSERT_TRUE(
      pool.Submit(std::make_shared<ColdPool::Task>([&](const std::stop_token&) { ++done; })));
  EXPECT_TRUE(Eventually([&] { return done == 17; }));
}

TEST(ColdPoolTest, ACancelledTaskDoesNotWaitInLine) {
  std::latch go(1);
  std::atomic<bool> answered{false};
  std::atomic<bool> second{false};
  ColdPool pool({.max_threads = 2});
  for (int i = 0; i < 2; ++i) {
    pool.Submit(std::make_shared<ColdPool::Task>([&](const std::stop_token&) { go.wait(); }));
  }
  auto waiting = std::make_shared<ColdPool::Task>([&](const std::stop_token& stop) {
    EXPECT_TRUE(stop.stop_requested());
    answered = true;
  });
  pool.Submit(waiting);
  pool.Cancel(waiting);
  EXPECT_TRUE(Eventually([&] { return answered.load(); })) << "it stood behind those who wait";
  // Cancelled before it came.
  auto early = std::make_shared<ColdPool::Task>([&](const std::stop_token&) { second = true; });
  pool.Cancel(early);
  pool.Submit(early);
  EXPECT_TRUE(Eventually([&] { return second.load(); }));
  go.count_down();
}

TEST(ColdPoolTest, StopCancelsAndRunsEverything) {
  std::atomic<int> cancelled{0};
  {
    ColdPool pool({.max_threads = 2});
    for (int i = 0; i < 20; ++i) {
      pool.Submit(std::make_shared<ColdPool::Task>([&](const std::stop_token& stop) {
        EXPECT_TRUE(Eventually([&] { return stop.stop_requested(); }));
        ++cancelled;
      }));
    }
    pool.Stop();
    EXPECT_EQ(cancelled, 20);
    EXPECT_FALSE(pool.Submit(std::make_shared<ColdPool::Task>([](const std::stop_token&) {})));
  }
}

TEST(MountTableTest, FindsTheTopmostMount) {
  constexpr std::string_view kTable =
      "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
      "40 22 0:35 / /mnt/oci ro,nosuid - fuse.ocifs ocifs ro\n"
      "41 22 0:36 / /mnt/with\\040space ro - fuse.ocifs ocifs ro\n"
      "42 40 0:37 / /mnt/oci ro - fuse.ocifs ocifs ro\n"
      "rubbish\n";
  EXPECT_EQ(FindMountDevice(kTable, "/mnt/oci"), "0:37");
  EXPECT_EQ(FindMountDevice(kTable, "/mnt/with space"), "0:36");
  EXPECT_EQ(FindMountDevice(kTable, "/mnt"), std::nullopt);
}

TEST(AnnotationFileNameTest, IsAlwaysAFileName) {
  EXPECT_EQ(AnnotationFileName("org.opencontainers.image.title"), "org.opencontainers.image.title");
  EXPECT_EQ(AnnotationFileName("a/b"), "a%2Fb");
  EXPECT_EQ(AnnotationFileName("."), "%2E");
  EXPECT_EQ(AnnotationFileName(".."), "%2E.");
  EXPECT_EQ(AnnotationFileName("a\nb"), "a%0Ab");
  EXPECT_EQ(AnnotationFileName(std::string_view("a\0b", 3)), "a%00b");
  EXPECT_EQ(AnnotationFileName(""), "");
  EXPECT_EQ(AnnotationFileName(std::string(256, 'a')), "");
}

TEST(StatTest, CarriesEverything) {
  Attributes attributes;
  attributes.inode = InodeNumber::Of(5, 6);
  attributes.link_count = 3;
  attributes.node = {.type = store::NodeType::kRegular,
                     .mode = 06755,
                     .uid = 1,
                     .gid = 2,
                     .mtime_sec = -5,
                     .mtime_nsec = 999'999'999,
                     .size = 1025};
  const struct stat stat = ToStat(attributes);
  EXPECT_EQ(stat.st_ino, InodeNumber::Of(5, 6).value());
  EXPECT_EQ(stat.st_mode, static_cast<mode_t>(S_IFREG | 06755));
  EXPECT_EQ(stat.st_nlink, 3u);
  EXPECT_EQ(stat.st_size, 1025);
  EXPECT_EQ(stat.st_blocks, 3);
  EXPECT_EQ(stat.st_mtim.tv_sec, -5);
  EXPECT_EQ(stat.st_mtim.tv_nsec, 999'999'999);
  EXPECT_EQ(stat.st_ctim.tv_nsec, stat.st_mtim.tv_nsec);
  const std::pair<store::NodeType, mode_t> types[] = {
      {store::NodeType::kRegular, S_IFREG},     {store::NodeType::kDirectory, S_IFDIR},
      {store::NodeType::kSymlink, S_IFLNK},     {store::NodeType::kCharDevice, S_IFCHR},
      {store::NodeType::kBlockDevice, S_IFBLK}, {store::NodeType::kFifo, S_IFIFO}};
  for (const auto& [type, bits] : types) EXPECT_EQ(TypeBits(type), bits);
}

}  // namespace
}  // namespace ocifs::fs::testing
