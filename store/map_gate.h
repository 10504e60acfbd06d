// Keeps a memory map in its place while somebody uses it.
#ifndef OCIFS_STORE_MAP_GATE_H_
#define OCIFS_STORE_MAP_GATE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>

#include "store/mutex.h"

namespace ocifs::store {

// Many may pass, or one may close it for the moment that a map moves. Passing costs two atomic
// additions to a line that few threads share; a std::shared_mutex would be a line that all readers
// write. Thread-safe; must not be passed twice by one thread at a time.
class MapGate {
 public:
  // The pass to give back.
  size_t Enter() {
    const size_t slot = std::hash<std::thread::id>()(std::this_thread::get_id()) % kSlots;
    while (true) {
      // Sequentially consistent, as is Close: one of the two sees the other.
      slots_[slot].count.fetch_add(1);
      if (!closed_.load()) return slot;
      Leave(slot);
      closed_.wait(true);
    }
  }
  void Leave(size_t slot) { slots_[slot].count.fetch_sub(1, std::memory_order_release); }

  // Calls `work` when nobody is inside, and nobody gets in before it returns.
  template <typename Work>
  auto Closed(Work work) {
    const MutexLock lock(mutex_);
    closed_.store(true);
    for (const Slot& slot : slots_) {
      while (slot.count.load() != 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    struct Reopen {
      ~Reopen() {
        closed.store(false);
        closed.notify_all();
      }
      std::atomic<bool>& closed;
    } const reopen{closed_};
    return work();
  }

 private:
  static constexpr size_t kSlots = 64;
  struct alignas(64) Slot {
    std::atomic<uint32_t> count = 0;
  };
  Mutex mutex_;  // one closes at a time
  std::array<Slot, kSlots> slots_;
  std::atomic<bool> closed_ = false;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_MAP_GATE_H_
