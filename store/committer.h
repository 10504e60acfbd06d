// Commits of pulled packages, behind the backs of their readers.
#ifndef OCIFS_STORE_COMMITTER_H_
#define OCIFS_STORE_COMMITTER_H_

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "store/blob_store.h"
#include "store/ingest.h"
#include "store/job_pool.h"
#include "store/mutex.h"
#include "store/package.h"
#include "store/staged_file.h"
#include "store/store.h"

namespace ocifs::store {

// Chunks that are in a pack but not yet in the index. Thread-safe; a reader that finds none pays
// one atomic load.
class PendingChunks {
 public:
  void Add(std::shared_ptr<const ChunkMap> chunks);
  void Remove(const std::shared_ptr<const ChunkMap>& chunks);
  std::optional<ChunkLocation> Find(const ChunkDigest& digest) const;

 private:
  std::atomic<size_t> count_ = 0;  // of maps; read without the lock on the hot path
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const ChunkMap>> maps_ OCIFS_GUARDED_BY(mutex_);
};

// Commits in order, on a thread of their own. Thread-safe.
//
// A pull answers its readers once its content is verified and in the page cache. What follows here
// makes it durable: sync packs, blobs and tree, then one index commit. A crash before that costs
// a download. A store that cannot be written costs no reader anything: the package stays with this
// process, and its commit is tried again with the next one.
class Committer {
 public:
  explicit Committer(Store& store) : store_(store) {}

  struct Work {
    // Of the package and of the blobs it brought: until others can find them in the index.
    std::vector<std::unique_ptr<Store::Lock>> locks;
    std::shared_ptr<const StoredPackage> package;
    PackageRecord record;
    struct Written {
      uint32_t pack = 0;
      uint64_t length = 0;
      PackLock lock;
    };
    std::vector<Written> packs;
    std::vector<std::pair<Digest, StagedBlob>> blobs;
    std::vector<std::shared_ptr<const ChunkMap>> chunks;
    std::optional<StagedFile> tree;  // else it is in the record, or in the store already
    IndexBatch batch;                // documents
    // The store's count when the pull began to look for what it need not write again.
    uint64_t evictions = 0;
    // Why some of the content is in no pack, or the tree nowhere.
    std::optional<Error> unkept;
    std::optional<Error> no_tree;
    // Something was not synced when it should have been, and is not believed to be there later.
    bool lost = false;
  };
  // The chunks are pending until the commit is done, and while it can be tried again.
  void Submit(std::unique_ptr<Work> work);

  // Waits for all work submitted before.
  void Drain() { thread_.Drain(); }
  // The same, and the error of the last package that could not be kept whole since the last call.
  Result<void> Flush();
  // Packages that were committed without all of their content since the last call, because what
  // they shared with others was evicted under them.
  std::vector<std::shared_ptr<const StoredPackage>> TakeIncomplete();

  const PendingChunks& pending() const { return pending_; }
  // A package on its way, or that could not be kept; null when there is none of that root and
  // repository.
  std::shared_ptr<const StoredPackage> Find(const Repository& origin, const Digest& root) const;

 private:
  // What a failed commit left to be tried again, the oldest first; only on the thread.
  static constexpr size_t kMaxFailed = 64;

  void Run(std::shared_ptr<Work> work);
  Result<void> Commit(Work& work);
  Result<void> CommitOnce(Work& work);
  void Forget(const Work& work);

  Store& store_;
  PendingChunks pending_;
  std::deque<std::shared_ptr<Work>> failed_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const StoredPackage>> packages_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<const StoredPackage>> incomplete_ OCIFS_GUARDED_BY(mutex_);
  std::optional<Error> failure_ OCIFS_GUARDED_BY(mutex_);
  JobPool thread_{1};  // last: its job uses the members above
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_COMMITTER_H_
