// What the store gives up, and in which order: the garbage collector.
//
// Raw blobs of unpacked packages go before content; the least recently used package goes first.
// Pinned packages stay, and so does what a pull is getting. An eviction takes away records of the
// index first (one commit), and what they pointed to when nobody can be looking at it any more, so
// that a crash at any point leaves leftovers and no loss, and no reader in any process sees bytes
// change.
//
// Which chunks die with a package is found by marking: the trees of all packages that stay are read
// once. That costs 80 bytes of reading per chunk of the store and memory for the victims' chunks
// only, and it cannot be wrong by a lost count.
#ifndef OCIFS_STORE_COLLECTOR_H_
#define OCIFS_STORE_COLLECTOR_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/index.h"

namespace ocifs::store {

class Store;

struct CollectRequest {
  bool dry_run = false;  // tell what would go; change nothing
  // Free so much at least, if it can be done; on top of what is over the limits.
  uint64_t free_bytes = 0;
  // Let go what was not used since (seconds since the epoch).
  std::optional<int64_t> unused_since;
  // Let go these packages (manifests), whatever their age, and nothing else.
  std::optional<std::vector<Digest>> packages;
};

struct Collected {
  uint64_t packages = 0;
  uint64_t blobs = 0;  // raw ones that were files
  uint64_t chunks = 0;
  uint64_t bytes = 0;           // that the filesystem got back; of a dry run, what the records say
  uint64_t moved_bytes = 0;     // content written anew to empty a pack
  uint64_t busy_packs = 0;      // with dead bytes in them, but being written
  std::vector<Digest> evicted;  // manifests of the packages that went
};

// Thread-compatible; one at a time, in all processes (Store::TryLockCollector).
class Collector {
 public:
  explicit Collector(Store& store) : store_(store) {}

  // kWouldBlock when another collector is at work.
  Result<Collected> Collect(const CollectRequest& request);

 private:
  struct Candidate {
    Digest manifest;
    PackageRecord record;
    bool pinned = false;
    std::vector<Digest> layers;     // raw blobs that it has as files
    std::vector<Digest> documents;  // manifest and config, when nothing else names them
  };
  using Dead = std::unordered_set<ChunkDigest, ChunkDigestHash>;

  Result<std::vector<Candidate>> Candidates();
  Result<std::unordered_set<Digest, DigestHash>> Pinned();
  // Takes what is in the tree of a package from `dead`.
  void Spare(const Digest& manifest, const PackageRecord& record, Dead& dead);
  Result<void> EvictBlobs(const std::vector<Candidate>& all, uint64_t wanted, bool dry_run,
                          Collected& result);
  Result<uint64_t> EvictPackages(const std::vector<Candidate>& all,
                                 const std::vector<const Candidate*>& victims, bool dry_run,
                                 Collected& result);
  Result<void> RemoveFiles(Collected& result);
  Result<void> ReclaimPacks(bool all, Collected& result);

  Store& store_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_COLLECTOR_H_
