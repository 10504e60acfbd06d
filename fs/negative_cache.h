// Names that were found missing a moment ago.
#ifndef OCIFS_FS_NEGATIVE_CACHE_H_
#define OCIFS_FS_NEGATIVE_CACHE_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

#include "store/mutex.h"

namespace ocifs::fs {

// Thread-safe. Holds only definite answers ("there is none"), never failures to get one. Bounded:
// the oldest entry goes first. Used for names below registries, not on the way of a read.
class NegativeCache {
 public:
  NegativeCache(std::chrono::nanoseconds ttl, size_t max_entries)
      : ttl_(ttl), max_entries_(max_entries) {}

  bool Contains(uint32_t directory, std::string_view name) const;
  void Insert(uint32_t directory, std::string_view name);
  void Erase(uint32_t directory, std::string_view name);
  size_t size() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    Clock::time_point until;
    uint64_t generation = 0;  // of the place in order_ that may evict it
  };
  struct Place {
    std::string key;
    uint64_t generation = 0;
  };
  static std::string Key(uint32_t directory, std::string_view name);

  const std::chrono::nanoseconds ttl_;
  const size_t max_entries_;
  mutable store::Mutex mutex_;
  std::unordered_map<std::string, Entry> entries_ OCIFS_GUARDED_BY(mutex_);
  std::deque<Place> order_ OCIFS_GUARDED_BY(mutex_);
  uint64_t generation_ OCIFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_NEGATIVE_CACHE_H_
