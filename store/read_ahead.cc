#include "store/read_ahead.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <new>
#include <optional>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "store/mutex.h"

namespace ocifs::store {
namespace {

// Owned by one thread, as every ByteStream; the thread inside is its own affair.
class ReadAheadStream final : public ByteStream {
 public:
  ReadAheadStream(size_t buffer_bytes, int buffers) : buffer_bytes_(buffer_bytes) {
    for (int i = 0; i < buffers; ++i) {
      free_.push_back({std::make_unique_for_overwrite<std::byte[]>(buffer_bytes), 0});
    }
  }

  ~ReadAheadStream() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
    }
    producer_wakes_.NotifyOne();
    if (thread_.joinable()) thread_.join();
  }

  // Starts the thread. When the machine has none left (std::system_error), `upstream` is untouched.
  void Start(std::unique_ptr<ByteStream>& upstream) {
    upstream_ = std::move(upstream);
    try {
      thread_ = std::thread([this] { Produce(std::move(upstream_)); });
    } catch (...) {
      upstream = std::move(upstream_);
      throw;
    }
  }

  Result<std::span<const std::byte>> Next() override {
    if (current_.bytes != nullptr) {
      {
        MutexLock lock(mutex_);
        free_.push_back(std::exchange(current_, {}));
      }
      producer_wakes_.NotifyOne();
    }
    MutexLock lock(mutex_);
    while (full_.empty() && !finished_) consumer_wakes_.Wait(mutex_);
    if (!full_.empty()) {
      current_ = std::move(full_.front());
      full_.pop_front();
      return std::span<const std::byte>(current_.bytes.get(), current_.size);
    }
    if (error_) return Fail(*error_);
    return std::span<const std::byte>();
  }

 private:
  struct Buffer {
    std::unique_ptr<std::byte[]> bytes;
    size_t size = 0;
  };

  // The thread. Destroys `upstream` before it says that it has finished.
  void Produce(std::unique_ptr<ByteStream> upstream) {
    std::optional<Error> error;
    try {
      error = Pump(*upstream);
    } catch (const std::bad_alloc&) {
      error = Error{ErrorCode::kOutOfMemory, "reading ahead: out of memory"};
    }
    upstream.reset();
    {
      MutexLock lock(mutex_);
      error_ = std::move(error);
      finished_ = true;
    }
    consumer_wakes_.NotifyOne();
  }

  // Fills buffers until the end, an error, or the order to stop.
  std::optional<Error> Pump(ByteStream& upstream) {
    Buffer buffer;
    while (true) {
      Result<std::span<const std::byte>> piece = upstream.Next();
      if (!piece || piece->empty()) {
        // What came before an error is given before it.
        if (buffer.size != 0) HandOver(std::move(buffer));
        if (!piece) return std::move(piece).error();
        return std::nullopt;
      }
      std::span<const std::byte> rest = *piece;
      while (!rest.empty()) {
        if (buffer.bytes == nullptr) {
          std::optional<Buffer> taken = TakeFree();
          if (!taken) return std::nullopt;
          buffer = std::move(*taken);
        }
        const size_t taken = std::min(rest.size(), buffer_bytes_ - buffer.size);
        std::memcpy(buffer.bytes.get() + buffer.size, rest.data(), taken);
        buffer.size += taken;
        rest = rest.subspan(taken);
        if (buffer.size == buffer_bytes_) HandOver(std::exchange(buffer, {}));
      }
      if (Stopping()) return std::nullopt;
    }
  }

  // A buffer to fill, waiting for the reader to give one back; nullopt to stop.
  std::optional<Buffer> TakeFree() OCIFS_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (free_.empty() && !stopping_) producer_wakes_.Wait(mutex_);
    if (stopping_) return std::nullopt;
    Buffer buffer = std::move(free_.back());
    free_.pop_back();
    buffer.size = 0;
    return buffer;
  }

  void HandOver(Buffer buffer) OCIFS_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      full_.push_back(std::move(buffer));
    }
    consumer_wakes_.NotifyOne();
  }

  bool Stopping() OCIFS_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return stopping_;
  }

  const size_t buffer_bytes_;
  std::unique_ptr<ByteStream> upstream_;  // the thread's, once it runs
  std::thread thread_;
  Buffer current_;  // the reader's: what Next gave last
  Mutex mutex_;
  CondVar producer_wakes_;  // a buffer became free, or stopping_
  CondVar consumer_wakes_;  // a buffer became full, or finished_
  std::vector<Buffer> free_ OCIFS_GUARDED_BY(mutex_);
  std::deque<Buffer> full_ OCIFS_GUARDED_BY(mutex_);
  std::optional<Error> error_ OCIFS_GUARDED_BY(mutex_);  // why upstream ended, when finished_
  bool finished_ OCIFS_GUARDED_BY(mutex_) = false;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<ByteStream> ReadAhead(std::unique_ptr<ByteStream> upstream, size_t buffer_bytes,
                                      int buffers) {
  auto stream =
      std::make_unique<ReadAheadStream>(std::max<size_t>(buffer_bytes, 1), std::max(buffers, 1));
  try {
    stream->Start(upstream);
  } catch (const std::system_error&) {
    // No thread to be had: reading without running ahead is slower and just as right.
    return upstream;
  }
  return stream;
}

}  // namespace ocifs::store
