// Packs: files that hold the content of many packages, chunk after chunk, appended.
//
// Every record says what it is (FORMAT.md, section "Packs"), so the index can be rebuilt from the
// packs alone. A pack is written by one process at a time, which holds a lock (flock) on it until
// the index knows what it wrote; what lies beyond the length the index knows is a leftover, cut off
// by the next writer. Dead records are given back to the filesystem by Reclaim.
#ifndef OCIFS_STORE_PACK_H_
#define OCIFS_STORE_PACK_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/chunk_location.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/file.h"
#include "store/mutex.h"

namespace ocifs::store {

class Index;
class Space;

// Keeps everybody else from writing a pack, cutting it off or reclaiming its dead records.
using PackLock = std::shared_ptr<const UniqueFd>;

// Appends to one pack. Owned by one thread at a time; handed out by PackSet.
class PackWriter {
 public:
  ~PackWriter();
  PackWriter(const PackWriter&) = delete;
  PackWriter& operator=(const PackWriter&) = delete;

  uint32_t pack() const { return pack_; }
  // To be held until what was written is committed: the writer itself may be gone by then.
  PackLock lock() const { return fd_; }

  // A record is begun, gets its bytes (at most kMaxChunkBytes in all), and is then either kept
  // under its digest, which hashes nothing but is written down, or dropped.
  void Begin();
  Result<void> Append(std::span<const std::byte> bytes);
  ChunkLocation Keep(const ChunkDigest& digest);
  void Drop();
  // The bytes of the record begun last, until the next call.
  std::span<const std::byte> Pending() const;

  // Whether enough is buffered to be worth a write.
  bool WantsFlush() const;
  // Hands buffered records to the kernel, so that readers find them. kNoSpace when the store must
  // not or cannot grow; they are buffered still.
  Result<void> Flush();
  uint64_t length() const { return flushed_ + buffer_.size(); }
  uint64_t flushed() const { return flushed_; }
  // The content of a kept record that is still buffered.
  std::span<const std::byte> Buffered(const ChunkLocation& location) const;
  // Forgets all records from `length` on, on disk too.
  Result<void> RollBackTo(uint64_t length);

 private:
  friend class PackSet;
  PackWriter(uint32_t pack, PackLock fd, uint64_t length, Space* space);

  const uint32_t pack_;
  const PackLock fd_;
  Space* const space_;
  uint64_t flushed_;               // bytes in the file
  uint64_t write_back_from_;       // up to here the kernel was told to start writing
  std::vector<std::byte> buffer_;  // not yet written
  size_t record_ = 0;              // start of the open record in buffer_
};

// What one pack gave back.
struct Reclaimed {
  uint64_t bytes = 0;      // that the filesystem got back
  uint64_t moved = 0;      // bytes of content written anew elsewhere
  bool removed = false;    // the file is gone
  bool busy = false;       // another process writes it: nothing was done
  bool postponed = false;  // somebody still reads an older state: nothing was done
};

// All packs of a store. Thread-safe.
class PackSet {
 public:
  // No writer begins in a pack of that length: a sixteenth of what the store may take, so that
  // eviction finds packs that nobody writes; within these bounds.
  static constexpr uint64_t kFullBytes = uint64_t{1} << 30;
  static constexpr uint64_t kLeastFullBytes = uint64_t{4} << 20;
  uint64_t full_bytes() const;

  // `directory` is packs/. Without `space` there is no limit.
  PackSet(UniqueFd directory, Index& index, Space* space = nullptr);
  ~PackSet();

  // A writer that nobody else has: one given back, a pack that no process writes, or a new one.
  Result<std::unique_ptr<PackWriter>> Acquire();
  void Release(std::unique_ptr<PackWriter> writer);
  // Gives up the locks of writers that nobody uses.
  void CloseIdle();

  // Reads out.size() bytes of a chunk from `skip` on. One pread; no lock. kCorrupt when the pack is
  // gone or cut short. Call it while an IndexSnapshot that named the location is held, or for a
  // location that is not in the index yet.
  Result<void> Read(const ChunkLocation& location, uint64_t skip, std::span<std::byte> out) const;

  // Removes packs that no process writes and the index does not know.
  Result<void> RemoveLeftovers();

  // Calls `visit` for each record of a pack in order. Behind damage the scan goes on with the next
  // record whose content has its digest. Used to rebuild the index and by tools that inspect a
  // store.
  Result<void> Scan(
      uint32_t pack,
      const std::function<void(const ChunkDigest&, const ChunkLocation&)>& visit) const;

  // Gives the records of a pack that the index does not name back to the filesystem: the file is
  // removed when none is left; else holes are punched; and where little is left between the holes,
  // or the filesystem knows no holes, the rest is moved to another pack first. A pack that this
  // process writes only gets holes. Waits up to `patience` for readers of older states. Cost: reads
  // each record's header, and what it moves.
  Result<Reclaimed> Reclaim(uint32_t pack, std::chrono::milliseconds patience);

  // Bytes that the packs take on the disk. One fstatat a file.
  Result<uint64_t> DiskBytes() const;
  Result<uint64_t> DiskBytes(uint32_t pack) const;

  // Waits until all that was flushed to a pack is on the disk.
  Result<void> Sync(uint32_t pack) const;

  static std::string FileName(uint32_t pack);  // "00000001.pack"

 private:
  // Read descriptors, opened at first use and kept, in pages that are made at first use; -1 is not
  // open. Atomics, because a reader must not take a lock that others share.
  static constexpr size_t kPageEntries = 4096;
  static constexpr uint32_t kMaxPacks = uint32_t{kPageEntries} * kPageEntries;
  using DescriptorPage = std::array<std::atomic<int>, kPageEntries>;

  // A record, or a gap that dead records left, as a walk finds them.
  struct Extent {
    bool is_gap = false;
    uint64_t begin = 0;  // of the header
    uint64_t end = 0;    // of the padding
    ChunkDigest digest{};
    uint64_t length = 0;  // of the content
  };
  using Extents = std::vector<Extent>;

  Result<std::atomic<int>*> DescriptorSlot(uint32_t pack) const;
  Result<int> Descriptor(uint32_t pack) const;
  // Null when another process writes it.
  Result<PackLock> TryLock(uint32_t pack, int flags) const;
  PackLock OwnLock(uint32_t pack);
  Result<std::unique_ptr<PackWriter>> OpenForAppend(uint32_t pack, uint64_t length);
  Result<std::unique_ptr<PackWriter>> Create();
  Result<void> Walk(int fd, uint32_t pack, uint64_t size,
                    const std::function<void(const Extent&)>& visit) const;
  Result<Extents> DeadExtents(int fd, uint32_t pack, uint64_t length, Extents* live) const;
  Result<void> Punch(int fd, uint32_t pack, const Extents& dead) const;
  Result<uint64_t> MoveOut(uint32_t pack, const Extents& live);
  Result<bool> Remove(uint32_t pack, int fd, std::chrono::milliseconds patience);

  const UniqueFd directory_;
  Index& index_;
  Space* const space_;
  const std::unique_ptr<std::array<std::atomic<DescriptorPage*>, kPageEntries>> descriptors_;
  Mutex mutex_;
  std::vector<std::unique_ptr<PackWriter>> idle_ OCIFS_GUARDED_BY(mutex_);
  // Of packs that this process writes, or wrote and has not committed.
  std::unordered_map<uint32_t, std::weak_ptr<const UniqueFd>> own_locks_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PACK_H_
