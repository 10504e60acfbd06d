// A content store: one directory with the LMDB index, packs, raw blobs and trees (FORMAT.md).
#ifndef OCIFS_STORE_STORE_H_
#define OCIFS_STORE_STORE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/error.h"
#include "store/index.h"

namespace ocifs::store {

class PackSet;
class BlobStore;
class Space;
struct StoreLimits;

struct StoreUsage {
  uint64_t packages = 0;
  uint64_t pack_bytes = 0;       // plain content of all packages, each distinct chunk once
  uint64_t filesystem_size = 0;  // of the filesystem below the store
  uint64_t filesystem_free = 0;
};

// Thread-safe. Several processes may have the same store open.
class Store {
 public:
  // Opens the store in `root`, creating it (mode 0700) if the directory is absent or empty.
  // kInvalid, naming the reason and what to do: not a directory of ocifs, another format version,
  // open to other users, owned by somebody else, on a network filesystem.
  //
  // An index that is damaged is made anew, which may take minutes for a large store (rebuild.h);
  // but kIndexDamaged while another process has the store open, which then has to end first. A
  // store on a read-only filesystem can be read; whatever would write gives kNoSpace.
  struct OpenOptions {
    // Makes the index anew, damaged or not. kInvalid while another process has the store open.
    bool rebuild_index = false;
  };
  static Result<std::unique_ptr<Store>> Open(const std::string& root, const OpenOptions& options);
  static Result<std::unique_ptr<Store>> Open(const std::string& root) { return Open(root, {}); }
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::string& root() const;
  Result<StoreUsage> Usage();

  // Slots of the mounts of this store. Saving is durable when the call returns.
  Result<std::vector<SlotRecord>> LoadSlots();
  Result<void> SaveSlots(std::span<const SlotRecord> records);

  // A lock across processes. It ends with the object, or with the process. The Try functions do not
  // wait; null: somebody has it. A store that cannot be written needs no locks: they are given.
  class Lock {
   public:
    virtual ~Lock() = default;
  };
  // On one digest, so that two that want the same package pull it once.
  Result<std::unique_ptr<Lock>> TryLockPull(const Digest& digest);
  // Of the one daemon that mounts the store.
  Result<std::unique_ptr<Lock>> TryLockDaemon();
  // One collects garbage at a time.
  Result<std::unique_ptr<Lock>> TryLockCollector();
  // Shared while files get their names and are then committed, exclusive while files that the index
  // does not know are removed. Waits.
  enum class PublishMode { kShared, kExclusive };
  Result<std::unique_ptr<Lock>> LockPublish(PublishMode mode);

  // What the store may take. Without this call there is no limit.
  void SetLimits(const StoreLimits& limits);
  Space& space();
  // Evicts until so many bytes may be added, if that can be done. One thread does it, others wait
  // for it. Never called by who holds a lock of this store but pull locks.
  void MakeRoom(uint64_t bytes);

  // Notes that a package is used, in memory. The collector writes down what was used before it
  // looks at ages, and so does the end of a pull-through cache.
  void Use(const Digest& manifest, int64_t now);
  Result<void> FlushUses();

  // Removes trees and blobs that the index does not name; gives the bytes that they took.
  Result<uint64_t> RemoveUnnamedFiles();
  // Whether something could be kept now: writes, syncs and removes a file without a name.
  Result<void> TryWrite();

  // The parts, for the pull-through cache and for tools that inspect a store.
  Index& index();
  PackSet& packs();
  BlobStore& blobs();
  int trees_fd() const;
  static std::string TreeFileName(const Digest& manifest);

 private:
  void CollectFor(uint64_t bytes);

  class Rep;
  explicit Store(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_STORE_H_
