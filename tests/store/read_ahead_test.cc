#include "store/read_ahead.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "store/mutex.h"
#include "tests/harness/byte_streams.h"

namespace ocifs::store {
namespace {

using harness::ReadAll;
using harness::StreamOf;
using harness::StreamThatFails;

// What a scripted stream saw, to be looked at from the test's thread.
class Observed {
 public:
  void Count() {
    MutexLock lock(mutex_);
    ++calls_;
    changed_.NotifyAll();
  }
  void Destroyed() {
    MutexLock lock(mutex_);
    destroyed_on_ = std::this_thread::get_id();
    changed_.NotifyAll();
  }
  void WaitForCalls(int calls) {
    MutexLock lock(mutex_);
    while (calls_ < calls) changed_.Wait(mutex_);
  }
  int calls() {
    MutexLock lock(mutex_);
    return calls_;
  }
  std::thread::id destroyed_on() {
    MutexLock lock(mutex_);
    return destroyed_on_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int calls_ OCIFS_GUARDED_BY(mutex_) = 0;
  std::thread::id destroyed_on_ OCIFS_GUARDED_BY(mutex_);
};

// Never ends; each piece is one full buffer of the test.
class EndlessStream final : public ByteStream {
 public:
  EndlessStream(Observed& observed, size_t piece_bytes)
      : observed_(observed), piece_(piece_bytes, 'x') {}
  ~EndlessStream() override { observed_.Destroyed(); }
  Result<std::span<const std::byte>> Next() override {
    observed_.Count();
    return std::as_bytes(std::span(piece_.data(), piece_.size()));
  }

 private:
  Observed& observed_;
  const std::string piece_;
};

class ThrowingStream final : public ByteStream {
 public:
  Result<std::span<const std::byte>> Next() override { throw std::bad_alloc(); }
};

TEST(ReadAheadTest, GivesTheSameBytesForAnySizes) {
  std::string bytes;
  std::minstd_rand random(3);
  for (int i = 0; i < 3000; ++i) bytes.push_back(static_cast<char>(random()));
  for (const size_t piece_bytes : {1, 7, 1000, 100'000}) {
    for (const size_t buffer_bytes : {1, 64, 999, 1'000'000}) {
      for (const int buffers : {1, 2, 5}) {
        const auto stream = ReadAhead(StreamOf(bytes, piece_bytes), buffer_bytes, buffers);
        const Result<std::string> all = ReadAll(*stream);
        ASSERT_TRUE(all);
        ASSERT_TRUE(*all == bytes);
        const auto again = stream->Next();
        ASSERT_TRUE(again);
        EXPECT_TRUE(again->empty()) << "the end stays the end";
      }
    }
  }
}

TEST(ReadAheadTest, GathersSmallPiecesUntilABufferIsFull) {
  const auto stream = ReadAhead(StreamOf(std::string(2500, 'x'), 10), 1000, 4);
  for (const size_t expected : {1000, 1000, 500, 0}) {
    const auto piece = stream->Next();
    ASSERT_TRUE(piece);
    EXPECT_EQ(piece->size(), expected);
  }
}

TEST(ReadAheadTest, AnEmptyStreamIsEmpty) {
  const auto stream = ReadAhead(StreamOf(""));
  const auto piece = stream->Next();
  ASSERT_TRUE(piece);
  EXPECT_TRUE(piece->empty());
}

TEST(ReadAheadTest, AnErrorComesAfterTheBytesBeforeIt) {
  for (const size_t buffer_bytes : {1, 4, 1000}) {
    const auto stream = ReadAhead(
        StreamThatFails("abcdefghij", {ErrorCode::kTimedOut, "too slow"}, 3), buffer_bytes, 2);
    std::string before;
    while (true) {
      const auto piece = stream->Next();
      if (!piece) {
        EXPECT_EQ(piece.error().code, ErrorCode::kTimedOut);
        EXPECT_EQ(piece.error().message, "too slow");
        break;
      }
      ASSERT_FALSE(piece->empty());
      before.append(reinterpret_cast<const char*>(piece->data()), piece->size());
    }
    EXPECT_EQ(before, "abcdefghij");
  }
}

TEST(ReadAheadTest, OutOfMemoryUpstreamIsAnError) {
  const auto stream = ReadAhead(std::make_unique<ThrowingStream>());
  const auto piece = stream->Next();
  ASSERT_FALSE(piece);
  EXPECT_EQ(piece.error().code, ErrorCode::kOutOfMemory);
}

TEST(ReadAheadTest, RunsAheadByItsBuffersAndNoMore) {
  Observed observed;
  {
    const auto stream = ReadAhead(std::make_unique<EndlessStream>(observed, 100), 100, 3);
    // Three buffers full without a reader, and a fourth piece in hand that fits nowhere.
    observed.WaitForCalls(4);
    EXPECT_EQ(observed.calls(), 4);
    // The first buffer stays the reader's until the next call.
    ASSERT_TRUE(stream->Next());
    EXPECT_EQ(observed.calls(), 4);
    ASSERT_TRUE(stream->Next());
    observed.WaitForCalls(5);
    EXPECT_EQ(observed.calls(), 5);
  }
  EXPECT_EQ(observed.calls(), 5);
}

TEST(ReadAheadTest, UpstreamIsDestroyedOnItsThreadBeforeTheStreamIsGone) {
  Observed observed;
  {
    const auto stream = ReadAhead(std::make_unique<EndlessStream>(observed, 10), 100, 2);
  }
  EXPECT_NE(observed.destroyed_on(), std::thread::id());
  EXPECT_NE(observed.destroyed_on(), std::this_thread::get_id());
}

}  // namespace
}  // namespace ocifs::store
