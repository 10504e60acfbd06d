// What went wrong where: the text behind `user.oci.error`, and the one log line for it.
#ifndef OCIFS_FS_FAILURES_H_
#define OCIFS_FS_FAILURES_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>

#include "fs/inode.h"
#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fs {

// Thread-safe. Remembers the last failure of an inode for a while; bounded, the oldest goes first.
// Failures that are no news (a name that does not exist, an interrupted reader) are not kept.
class FailureMemory {
 public:
  FailureMemory(std::chrono::nanoseconds ttl, size_t max_entries)
      : ttl_(ttl), max_entries_(max_entries) {}

  // `what` names the path for the log. The same failure of the same inode is logged once in a ttl,
  // however often readers run into it.
  void Remember(InodeNumber inode, std::string_view what, const store::Error& error);
  std::optional<std::string> Last(InodeNumber inode) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::string text;
    Clock::time_point until;
    uint64_t generation = 0;
  };
  struct Place {
    uint64_t inode = 0;
    uint64_t generation = 0;
  };

  const std::chrono::nanoseconds ttl_;
  const size_t max_entries_;
  mutable store::Mutex mutex_;
  std::unordered_map<uint64_t, Entry> entries_ OCIFS_GUARDED_BY(mutex_);
  std::deque<Place> order_ OCIFS_GUARDED_BY(mutex_);
  uint64_t generation_ OCIFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_FAILURES_H_
