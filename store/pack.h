// Packs: files that hold the content of many packages, chunk after chunk, appended.
//
// Every record says what it is (FORMAT.md, section "Packs"), so the index can be rebuilt from the
// packs alone. A pack is written by one process at a time, which holds a lock (flock) on it; what
// lies beyond the length the index knows is a leftover, cut off by the next writer.
#ifndef OCIFS_STORE_PACK_H_
#define OCIFS_STORE_PACK_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/chunk_location.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/file.h"
#include "store/mutex.h"

namespace ocifs::store {

class Index;

// Appends to one pack. Owned by one thread at a time; handed out by PackSet.
class PackWriter {
 public:
  ~PackWriter();
  PackWriter(const PackWriter&) = delete;
  PackWriter& operator=(const PackWriter&) = delete;

  uint32_t pack() const { return pack_; }

  // A record is begun, gets its bytes (at most kMaxChunkBytes in all), and is then either kept
  // under its digest, which hashes nothing but is written down, or dropped.
  void Begin();
  Result<void> Append(std::span<const std::byte> bytes);
  Result<ChunkLocation> Keep(const ChunkDigest& digest);
  void Drop();
  // The bytes of the record begun last, until the next call.
  std::span<const std::byte> Pending() const;

  // Hands buffered records to the kernel, so that readers find them.
  Result<void> Flush();
  uint64_t length() const { return flushed_ + buffer_.size(); }
  // Forgets all records from `length` on, on disk too.
  Result<void> RollBackTo(uint64_t length);

 private:
  friend class PackSet;
  PackWriter(uint32_t pack, UniqueFd fd, uint64_t length);

  const uint32_t pack_;
  const UniqueFd fd_;
  uint64_t flushed_;               // bytes in the file
  uint64_t write_back_from_;       // up to here the kernel was told to start writing
  std::vector<std::byte> buffer_;  // not yet written
  size_t record_ = 0;              // start of the open record in buffer_
};

// All packs of a store. Thread-safe.
class PackSet {
 public:
  static constexpr uint64_t kFullBytes = uint64_t{1} << 30;  // no record is begun beyond

  // `directory` is packs/.
  PackSet(UniqueFd directory, Index& index);
  ~PackSet();

  // A writer that nobody else has: one given back, a pack that no process writes, or a new one.
  Result<std::unique_ptr<PackWriter>> Acquire();
  void Release(std::unique_ptr<PackWriter> writer);

  // Reads out.size() bytes of a chunk from `skip` on. One pread; no lock. kCorrupt when the pack is
  // gone or cut short.
  Result<void> Read(const ChunkLocation& location, uint64_t skip, std::span<std::byte> out) const;

  // Removes packs that no process writes and the index does not know.
  Result<void> RemoveLeftovers();

  // Calls `visit` for each record of a pack in order until a record is not whole; used to rebuild
  // the index and by tools that inspect a store.
  Result<void> Scan(
      uint32_t pack,
      const std::function<void(const ChunkDigest&, const ChunkLocation&)>& visit) const;

  // Waits until all that was flushed to a pack is on the disk.
  Result<void> Sync(uint32_t pack) const;

  static std::string FileName(uint32_t pack);  // "00000001.pack"

 private:
  static constexpr uint32_t kMaxPacks = 65536;

  Result<int> Descriptor(uint32_t pack) const;
  Result<std::unique_ptr<PackWriter>> OpenForAppend(uint32_t pack, uint64_t length);
  Result<std::unique_ptr<PackWriter>> Create();

  const UniqueFd directory_;
  Index& index_;
  // Read descriptors, opened at first use and kept; -1 is not open. Atomics, because a reader must
  // not take a lock that others share.
  const std::unique_ptr<std::array<std::atomic<int>, kMaxPacks>> descriptors_;
  Mutex mutex_;
  std::vector<std::unique_ptr<PackWriter>> idle_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PACK_H_
