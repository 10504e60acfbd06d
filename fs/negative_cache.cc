#include "fs/negative_cache.h"

namespace ocifs::fs {

using store::MutexLock;

std::string NegativeCache::Key(uint32_t directory, std::string_view name) {
  std::string key = std::to_string(directory);
  key += '/';
  key += name;
  return key;
}

bool NegativeCache::Contains(uint32_t directory, std::string_view name) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(Key(directory, name));
  return found != entries_.end() && Clock::now() < found->second.until;
}

void NegativeCache::Insert(uint32_t directory, std::string_view name) {
  MutexLock lock(mutex_);
  std::string key = Key(directory, name);
  const uint64_t generation = ++generation_;
  entries_[key] = Entry{Clock::now() + ttl_, generation};
  order_.push_back(Place{std::move(key), generation});
  // Places of entries that were renewed or erased are skipped; they are bounded with the rest.
  while (order_.size() > max_entries_) {
    const auto oldest = entries_.find(order_.front().key);
    if (oldest != entries_.end() && oldest->second.generation == order_.front().generation) {
      entries_.erase(oldest);
    }
    order_.pop_front();
  }
}

void NegativeCache::Erase(uint32_t directory, std::string_view name) {
  MutexLock lock(mutex_);
  entries_.erase(Key(directory, name));
}

size_t NegativeCache::size() const {
  MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace ocifs::fs
