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
  static Result<std::unique_ptr<Store>> Open(const std::string& root);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::string& root() const;
  Result<StoreUsage> Usage();

  // Slots of the mounts of this store. Saving is durable when the call returns.
  Result<std::vector<SlotRecord>> LoadSlots();
  Result<void> SaveSlots(std::span<const SlotRecord> records);

  // A lock on one digest across processes, so that two that want the same package pull it once. It
  // ends with the object, or with the process. TryLockPull does not wait; null: somebody has it.
  class PullLock {
   public:
    virtual ~PullLock() = default;
  };
  Result<std::unique_ptr<PullLock>> TryLockPull(const Digest& digest);

  // The parts, for the pull-through cache and for tools that inspect a store.
  Index& index();
  PackSet& packs();
  BlobStore& blobs();
  int trees_fd() const;
  static std::string TreeFileName(const Digest& manifest);

 private:
  class Rep;
  explicit Store(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_STORE_H_
