#include "store/unkept_chunks.h"

#include <algorithm>
#include <iterator>

namespace ocifs::store {

UnkeptChunks::Want::Want(UnkeptChunks& chunks, const ChunkDigest& digest)
    : chunks_(chunks), digest_(digest) {
  const MutexLock lock(chunks_.mutex_);
  ++chunks_.wanted_[digest_].waiting;
  chunks_.wanted_count_.store(chunks_.wanted_.size(), std::memory_order_release);
}

UnkeptChunks::Want::~Want() {
  const MutexLock lock(chunks_.mutex_);
  const auto wanted = chunks_.wanted_.find(digest_);
  if (--wanted->second.waiting > 0) return;
  const bool arrived = wanted->second.arrived;
  chunks_.wanted_.erase(wanted);
  chunks_.wanted_count_.store(chunks_.wanted_.size(), std::memory_order_release);
  if (!arrived) return;
  // It stays as any other, if there is room.
  const auto chunk = chunks_.chunks_.find(digest_);
  if (chunk == chunks_.chunks_.end()) return;
  if (chunks_.bytes_ + chunk->second.size() > chunks_.max_bytes_) {
    chunks_.chunks_.erase(chunk);
    chunks_.count_.store(chunks_.chunks_.size(), std::memory_order_release);
  } else {
    chunks_.bytes_ += chunk->second.size();
  }
}

bool UnkeptChunks::IsWanted(const ChunkDigest& digest) const {
  if (wanted_count_.load(std::memory_order_acquire) == 0) return false;
  const MutexLock lock(mutex_);
  return wanted_.contains(digest);
}

void UnkeptChunks::Add(const ChunkDigest& digest, std::span<const std::byte> bytes) {
  const MutexLock lock(mutex_);
  const auto wanted = wanted_.find(digest);
  if (chunks_.contains(digest)) return;
  if (wanted != wanted_.end()) {
    // Room for what follows.
    for (auto chunk = chunks_.begin(); chunk != chunks_.end();) {
      const auto other = wanted_.find(chunk->first);
      const bool stays = other != wanted_.end() && other->second.arrived;
      chunk = stays ? std::next(chunk) : chunks_.erase(chunk);
    }
    bytes_ = 0;
    wanted->second.arrived = true;
  } else {
    if (bytes.size() > max_bytes_ - std::min(max_bytes_, bytes_)) return;
    bytes_ += bytes.size();
  }
  chunks_.emplace(digest, Bytes(bytes.begin(), bytes.end()));
  count_.store(chunks_.size(), std::memory_order_release);
}

bool UnkeptChunks::Read(const ChunkDigest& digest, uint64_t skip, std::span<std::byte> out) const {
  if (count_.load(std::memory_order_acquire) == 0) return false;
  const MutexLock lock(mutex_);
  const auto chunk = chunks_.find(digest);
  if (chunk == chunks_.end() || skip > chunk->second.size() ||
      out.size() > chunk->second.size() - skip) {
    return false;
  }
  std::copy_n(chunk->second.begin() + static_cast<std::ptrdiff_t>(skip), out.size(), out.begin());
  return true;
}

}  // namespace ocifs::store
