#include "store/committer.h"

#include <algorithm>
#include <utility>

#include "store/log.h"
#include "store/pack.h"
#include "store/space.h"
#include "store/tree.h"

namespace ocifs::store {

// --- PendingChunks -------------------------------------------------------------------------------

void PendingChunks::Add(std::shared_ptr<const ChunkMap> chunks) {
  const MutexLock lock(mutex_);
  maps_.push_back(std::move(chunks));
  count_.store(maps_.size(), std::memory_order_release);
}

void PendingChunks::Remove(const std::shared_ptr<const ChunkMap>& chunks) {
  const MutexLock lock(mutex_);
  std::erase(maps_, chunks);
  count_.store(maps_.size(), std::memory_order_release);
}

std::optional<ChunkLocation> PendingChunks::Find(const ChunkDigest& digest) const {
  if (count_.load(std::memory_order_acquire) == 0) return std::nullopt;
  const MutexLock lock(mutex_);
  // The newest first: it may have restored what an older one could not commit.
  for (auto map = maps_.rbegin(); map != maps_.rend(); ++map) {
    if (const auto found = (*map)->find(digest); found != (*map)->end()) return found->second;
  }
  return std::nullopt;
}

// --- Committer -----------------------------------------------------------------------------------

void Committer::Submit(std::unique_ptr<Work> work) {
  for (const auto& chunks : work->chunks) pending_.Add(chunks);
  {
    const MutexLock lock(mutex_);
    packages_.push_back(work->package);
  }
  // std::function wants a copyable job.
  thread_.Submit([this, shared = std::shared_ptr<Work>(std::move(work))] { Run(shared); });
}

void Committer::Run(std::shared_ptr<Work> work) {
  failed_.push_back(std::move(work));
  // In the order they came, so that no pack's length passes what was not committed.
  while (!failed_.empty()) {
    Work& next = *failed_.front();
    const Result<void> committed = Commit(next);
    if (!committed) {
      store_.space().NotKept(committed.error());
      {
        const MutexLock lock(mutex_);
        failure_ = committed.error();
      }
      // Who waits for the package or its blobs shall not wait for the disk.
      for (const auto& waiting : failed_) waiting->locks.clear();
      // The disk may do better later, but not with what it was asked to sync and did not.
      if (!next.lost && !next.no_tree && failed_.size() <= kMaxFailed) return;
    } else if (next.unkept) {
      store_.space().NotKept(*next.unkept);
      const MutexLock lock(mutex_);
      failure_ = next.unkept;
    } else {
      store_.space().Kept();
    }
    Forget(next);
    failed_.pop_front();
  }
}

void Committer::Forget(const Work& work) {
  for (const auto& chunks : work.chunks) pending_.Remove(chunks);
  const MutexLock lock(mutex_);
  std::erase(packages_, work.package);
}

Result<void> Committer::Commit(Work& work) {
  Result<void> committed = CommitOnce(work);
  if (committed || committed.error().code != ErrorCode::kNoSpace) return committed;
  store_.MakeRoom(work.record.tree_bytes + (uint64_t{1} << 20));
  return CommitOnce(work);
}

Result<void> Committer::CommitOnce(Work& work) {
  if (work.no_tree) return Fail(*work.no_tree);
  IndexBatch batch = work.batch;
  for (const Work::Written& pack : work.packs) {
    Result<void> synced = store_.packs().Sync(pack.pack);
    if (!synced) {
      // The kernel may have thrown away what it could not write: nothing of it is believed, or
      // synced again.
      for (const auto& chunks : work.chunks) pending_.Remove(chunks);
      work.chunks.clear();
      work.packs.clear();
      work.lost = true;
      work.package->ClearAllVerified();
      return synced;
    }
    batch.RaisePack(pack.pack, pack.length);
  }
  // Names are given and committed in one go: a collector does not come in between.
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock,
                         store_.LockPublish(Store::PublishMode::kShared));
  for (auto blob = work.blobs.begin(); blob != work.blobs.end();) {
    const Result<void> published = store_.blobs().Publish(blob->second, blob->first, batch);
    if (!published && !CannotKeep(published.error())) return published;
    // Nothing needs a raw blob but exports and repairs.
    if (!published) work.unkept = published.error();
    blob = published ? blob + 1 : work.blobs.erase(blob);
  }
  const Digest& manifest = work.package->manifest_digest();
  if (work.tree) {
    if (Result<void> published = work.tree->Publish(Store::TreeFileName(manifest)); !published) {
      work.lost = published.error().code != ErrorCode::kNoSpace;
      return published;
    }
    OCIFS_RETURN_IF_ERROR(SyncDirectory(store_.trees_fd(), "trees"));
  }
  for (const auto& chunks : work.chunks) {
    for (const auto& [digest, location] : *chunks) batch.PutChunk(digest, location);
  }
  bool whole = !work.unkept;
  auto check = [&](const IndexSnapshot& index, IndexBatch& changes) -> Result<void> {
    OCIFS_ASSIGN_OR_RETURN(const IndexTotals totals, index.Totals());
    if (whole && totals.evictions != work.evictions) {
      // What the pull found in the store and did not write again may have been evicted since.
      const Tree& tree = work.package->tree();
      for (uint32_t number = 0; whole && number < tree.chunk_count(); ++number) {
        const ChunkRef chunk = tree.ChunkByNumber(number);
        if (chunk.is_hole) continue;
        const bool own = std::any_of(work.chunks.begin(), work.chunks.end(),
                                     [&](const auto& map) { return map->contains(chunk.digest); });
        if (own) continue;
        OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> found,
                               OrMissing(index.FindChunk(chunk.digest)));
        whole = found.has_value();
      }
    }
    PackageRecord record = work.record;
    record.complete = record.complete && whole;
    changes.PutPackage(manifest, record);
    return {};
  };
  OCIFS_RETURN_IF_ERROR(store_.index().Commit(std::move(batch), check));
  if (!whole && !work.unkept) {
    const MutexLock package_lock(mutex_);
    incomplete_.push_back(work.package);
  }
  return {};
}

Result<void> Committer::Flush() {
  thread_.Drain();
  const MutexLock lock(mutex_);
  if (!failure_) return {};
  return Fail(*std::exchange(failure_, std::nullopt));
}

std::vector<std::shared_ptr<const StoredPackage>> Committer::TakeIncomplete() {
  const MutexLock lock(mutex_);
  return std::exchange(incomplete_, {});
}

std::shared_ptr<const StoredPackage> Committer::Find(const Repository& origin,
                                                     const Digest& root) const {
  const MutexLock lock(mutex_);
  for (const auto& package : packages_) {
    if (package->root_digest() == root && package->origin() == origin) return package;
  }
  return nullptr;
}

}  // namespace ocifs::store
