// Content that passed by and could not be kept, because the store is full or cannot be written: a
// bounded part of it stays in memory for those who read it now.
#ifndef OCIFS_STORE_UNKEPT_CHUNKS_H_
#define OCIFS_STORE_UNKEPT_CHUNKS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "store/digest.h"
#include "store/mutex.h"

namespace ocifs::store {

// Thread-safe. While nothing is unkept, a lookup costs one atomic load.
class UnkeptChunks {
 public:
  static constexpr size_t kDefaultBytes = size_t{64} << 20;
  explicit UnkeptChunks(size_t max_bytes = kDefaultBytes) : max_bytes_(max_bytes) {}

  // While it lives, a chunk is wanted: it is kept whatever the bound, and once it has come, what
  // comes behind it takes the place of what was there before. A stream that is read again from its
  // start for one chunk is so of use to who reads on.
  class Want {
   public:
    Want(UnkeptChunks& chunks, const ChunkDigest& digest);
    ~Want();
    Want(const Want&) = delete;
    Want& operator=(const Want&) = delete;

   private:
    UnkeptChunks& chunks_;
    const ChunkDigest digest_;
  };

  // Whether somebody waits for the chunk. Without any wants, one atomic load.
  bool IsWanted(const ChunkDigest& digest) const;
  // A chunk whose bytes have that digest. Copied if it is wanted or there is room.
  void Add(const ChunkDigest& digest, std::span<const std::byte> bytes);
  // Copies out.size() bytes from `skip` on; false when the chunk is not here.
  bool Read(const ChunkDigest& digest, uint64_t skip, std::span<std::byte> out) const;

 private:
  using Bytes = std::vector<std::byte>;
  const size_t max_bytes_;
  std::atomic<size_t> count_ = 0;         // of all chunks; read without the lock
  std::atomic<size_t> wanted_count_ = 0;  // of wanted_; the same
  mutable Mutex mutex_;
  std::unordered_map<ChunkDigest, Bytes, ChunkDigestHash> chunks_ OCIFS_GUARDED_BY(mutex_);
  size_t bytes_ OCIFS_GUARDED_BY(mutex_) = 0;  // of those that nobody waits for
  struct Wanted {
    size_t waiting = 0;
    bool arrived = false;
  };
  std::unordered_map<ChunkDigest, Wanted, ChunkDigestHash> wanted_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_UNKEPT_CHUNKS_H_
