// Pulls one package: documents, layers, tree; verified, readable at once, durable soon after.
#ifndef OCIFS_STORE_PULLER_H_
#define OCIFS_STORE_PULLER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/flight.h"
#include "store/ingest.h"
#include "store/job_pool.h"
#include "store/mutex.h"
#include "store/package.h"
#include "store/pull_through.h"
#include "store/source.h"
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

// Commits of pulled packages, in order, on a thread of their own. Thread-safe.
//
// A pull answers its readers once its content is verified and in the page cache. What follows here
// makes it durable: sync packs, blobs and tree, then one index commit. A crash before that costs
// a download.
class Committer {
 public:
  explicit Committer(Store& store) : store_(store) {}

  struct Work {
    // Of the package and of the blobs it brought: until others can find them in the index.
    std::vector<std::unique_ptr<Store::PullLock>> locks;
    std::shared_ptr<const StoredPackage> package;
    std::vector<PackRecord> packs;
    std::vector<std::pair<Digest, StagedBlob>> blobs;
    std::vector<std::shared_ptr<const ChunkMap>> chunks;
    std::optional<StagedFile> tree;
    IndexBatch batch;
  };
  // The chunks are pending until the commit is done, and for the life of the process if it fails.
  void Submit(std::unique_ptr<Work> work);

  // Waits for all work submitted before.
  void Drain() { thread_.Drain(); }
  // The same, and the error of the last commit that failed since the last
  // call.
  Result<void> Flush();

  const PendingChunks& pending() const { return pending_; }
  // A package on its way; null when there is none of that root and repository.
  std::shared_ptr<const StoredPackage> Find(const Repository& origin, const Digest& root) const;

 private:
  Result<void> Commit(Work& work);

  Store& store_;
  PendingChunks pending_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const StoredPackage>> packages_ OCIFS_GUARDED_BY(mutex_);
  std::optional<Error> failure_ OCIFS_GUARDED_BY(mutex_);
  JobPool thread_{1};  // last: its job uses the members above
};

// Thread-safe.
class Puller {
 public:
  Puller(Store& store, Source& source, const PullThrough::Options& options, Committer& committer)
      : store_(store), source_(source), options_(options), committer_(committer) {}

  // Gets the package behind `root`, whatever the store has of it. Blocks; runs on a job thread.
  // `again`: even if the store seems to have it, go through all content (to restore chunks).
  enum class Mode { kIfMissing, kAgain };
  Result<std::shared_ptr<const StoredPackage>> Pull(const Repository& repository,
                                                    const Digest& root, Mode mode,
                                                    const FetchContext& context,
                                                    FlightProgress& progress);

  // Gets one blob into the store (already there: no-op).
  Result<void> PullBlob(const Repository& repository, const Descriptor& blob,
                        const FetchContext& context, FlightProgress& progress);

  // One document by digest, verified; from the store, or fetched and then entered in `batch`.
  Result<std::string> GetDocument(const Repository& repository, const Descriptor& descriptor,
                                  const FetchContext& context, IndexBatch& batch);

 private:
  struct LayerJob;
  class Layers;

  // `get` again while what it gets is not the blob's content and another server may have that.
  template <typename Function>
  auto FromAnyServer(const Repository& repository, const Descriptor& blob, Function get)
      -> decltype(get()) {
    auto got = get();
    while (!got && got.error().code == ErrorCode::kCorrupt &&
           source_.RejectBlob(repository, blob)) {
      got = get();
    }
    return got;
  }

  Result<std::unique_ptr<Store::PullLock>> Lock(const Digest& digest, const FetchContext& context,
                                                FlightProgress& progress);
  Result<PackageDocuments> GetDocuments(const Repository& repository, const Digest& root,
                                        const FetchContext& context, IndexBatch& batch);
  Result<std::unique_ptr<ByteStream>> OpenRemote(const Repository& repository,
                                                 const Descriptor& blob,
                                                 const FetchContext& context);

  Store& store_;
  Source& source_;
  const PullThrough::Options& options_;
  Committer& committer_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PULLER_H_
