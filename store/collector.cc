#include "store/collector.h"

#include <algorithm>
#include <ctime>
#include <unordered_map>
#include <utility>

#include "store/blob_store.h"
#include "store/log.h"
#include "store/pack.h"
#include "store/package.h"
#include "store/space.h"
#include "store/store.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

// How long readers of an older state are waited for. They hold it for one read of the disk.
constexpr auto kReaderPatience = std::chrono::seconds(10);
// A raw blob that no package names may be on its way to one.
constexpr int64_t kOrphanSeconds = 3600;
// Below this share of the limit a collection that had to free something stops.
constexpr uint64_t kLowPercent = 90;
constexpr uint64_t kFreeSlackBytes = uint64_t{64} << 20;

// Calls `visit` for each chunk of a tree that is kept somewhere.
template <typename Visit>
void ForEachChunk(const Tree& tree, Visit visit) {
  for (uint32_t number = 0; number < tree.chunk_count(); ++number) {
    const ChunkRef chunk = tree.ChunkByNumber(number);
    if (!chunk.is_hole) visit(chunk);
  }
}

}  // namespace

// --- what there is -------------------------------------------------------------------------------

// Manifests of packages that a pin keeps: what it stood for when it was made, and what its
// reference stands for now.
Result<std::unordered_set<Digest, DigestHash>> Collector::Pinned() {
  std::unordered_set<Digest, DigestHash> pinned;
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PinRecord> pins, store_.index().Pins());
  for (const PinRecord& pin : pins) {
    OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> then, ManifestsBehind(store_, pin.digest));
    pinned.insert(then.begin(), then.end());
    const Result<Reference> reference = Reference::Parse(pin.reference);
    if (!reference) continue;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> now,
                           OrMissing(store_.index().FindRef(*reference)));
    if (now && now->digest != pin.digest) {
      OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> later, ManifestsBehind(store_, now->digest));
      pinned.insert(later.begin(), later.end());
    }
  }
  return pinned;
}

// All packages, the least recently used first.
Result<std::vector<Collector::Candidate>> Collector::Candidates() {
  OCIFS_ASSIGN_OR_RETURN(const auto pinned, Pinned());
  OCIFS_ASSIGN_OR_RETURN(std::vector<PackageEntry> packages, store_.index().PackageEntries());
  std::vector<Candidate> candidates;
  candidates.reserve(packages.size());
  for (auto& [manifest, record, has_inline_tree] : packages) {
    candidates.push_back(Candidate{.manifest = manifest,
                                   .record = record,
                                   .pinned = pinned.contains(manifest),
                                   .layers = {},
                                   .documents = {manifest}});
    Candidate& candidate = candidates.back();
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                           store_.blobs().ReadDocument(manifest));
    if (!bytes) continue;
    const Result<std::variant<Manifest, ImageIndex>> parsed = ParseDocument(manifest, *bytes, {});
    if (!parsed || !std::holds_alternative<Manifest>(*parsed)) continue;
    const auto& document = std::get<Manifest>(*parsed);
    candidate.documents.push_back(document.config.digest);
    for (const Descriptor& layer : document.layers) candidate.layers.push_back(layer.digest);
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.record.used_at < b.record.used_at;
  });
  return candidates;
}

// --- evicting ------------------------------------------------------------------------------------

Result<void> Collector::EvictBlobs(const std::vector<Candidate>& all, uint64_t wanted, bool dry_run,
                                   Collected& result) {
  // A blob is used as recently as the package that was used last among those that name it.
  struct Use {
    int64_t used_at = 0;
    bool pinned = false;
  };
  std::unordered_map<Digest, Use, DigestHash> uses;
  for (const Candidate& candidate : all) {
    for (const Digest& layer : candidate.layers) {
      Use& use = uses[layer];
      use.used_at = std::max(use.used_at, candidate.record.used_at);
      use.pinned = use.pinned || candidate.pinned;
    }
  }
  struct File {
    int64_t used_at = 0;
    Digest digest;
    uint64_t size = 0;
  };
  std::vector<File> files;
  const int64_t now = std::time(nullptr);
  OCIFS_ASSIGN_OR_RETURN(const auto blobs, store_.index().Blobs());
  for (const auto& [digest, record] : blobs) {
    if (record.content) continue;
    const auto use = uses.find(digest);
    if (use == uses.end()) {
      OCIFS_ASSIGN_OR_RETURN(const int64_t made, store_.blobs().ModifiedAt(digest));
      if (now - made >= kOrphanSeconds || made > now) files.push_back(File{0, digest, record.size});
    } else if (!use->second.pinned) {
      files.push_back(File{use->second.used_at, digest, record.size});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.used_at < b.used_at; });
  IndexBatch batch;
  std::vector<std::unique_ptr<Store::Lock>> locks;  // nobody pulls what goes
  uint64_t bytes = 0;
  for (const File& file : files) {
    if (bytes >= wanted) break;
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Store::Lock> lock, store_.TryLockPull(file.digest));
    if (lock == nullptr) continue;
    locks.push_back(std::move(lock));
    batch.DeleteBlob(file.digest);
    bytes += file.size;
    ++result.blobs;
  }
  if (dry_run) {
    result.bytes += bytes;
    return {};
  }
  if (batch.empty()) return {};
  OCIFS_RETURN_IF_ERROR(store_.index().Commit(std::move(batch)));
  return RemoveFiles(result);
}

void Collector::Spare(const Digest& manifest, const PackageRecord& record, Dead& dead) {
  if (dead.empty()) return;
  const Result<std::unique_ptr<const Tree>> tree = OpenTree(store_.trees_fd(), manifest, record);
  if (!tree) {
    // It is made again with all of its content when somebody wants it.
    Log(LogLevel::kWarning, "package " + manifest.ToString() + ": " + tree.error().message);
    return;
  }
  ForEachChunk(**tree, [&](const ChunkRef& chunk) { dead.erase(chunk.digest); });
}

// Gives the bytes that the records say, which hole punching may not give back to the last.
Result<uint64_t> Collector::EvictPackages(const std::vector<Candidate>& all,
                                          const std::vector<const Candidate*>& victims,
                                          bool dry_run, Collected& result) {
  if (victims.empty()) return 0;
  Dead dead;
  std::unordered_set<Digest, DigestHash> going;
  std::vector<std::unique_ptr<Store::Lock>> locks;  // nobody pulls what goes
  for (const Candidate* victim : victims) {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Store::Lock> lock, store_.TryLockPull(victim->manifest));
    if (lock == nullptr) continue;
    locks.push_back(std::move(lock));
    going.insert(victim->manifest);
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                           OrMissing(store_.index().FindPackage(victim->manifest)));
    if (!record) continue;
    const Result<std::unique_ptr<const Tree>> tree =
        OpenTree(store_.trees_fd(), victim->manifest, *record);
    if (!tree) continue;
    ForEachChunk(**tree, [&](const ChunkRef& chunk) { dead.insert(chunk.digest); });
  }
  std::unordered_set<Digest, DigestHash> known;
  std::unordered_set<Digest, DigestHash> documents;  // that somebody else needs
  OCIFS_ASSIGN_OR_RETURN(const auto refs, store_.index().Refs(""));
  for (const auto& [name, ref] : refs) documents.insert(ref.digest);
  for (const Candidate& candidate : all) {
    known.insert(candidate.manifest);
    if (going.contains(candidate.manifest)) continue;
    documents.insert(candidate.documents.begin(), candidate.documents.end());
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                           OrMissing(store_.index().FindPackage(candidate.manifest)));
    if (record) Spare(candidate.manifest, *record, dead);
  }

  uint64_t bytes = 0;
  Collected evicted;
  auto decide = [&](const IndexSnapshot& index, IndexBatch& batch) -> Result<void> {
    // Once more, and now nobody can come in between: packages that arrived since we looked, and
    // victims that somebody has used or pulled again.
    // (Counted anew: the transaction may be made more than once.)
    bytes = 0;
    evicted = Collected();
    OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> now, index.Packages());
    for (const Digest& manifest : now) {
      if (known.contains(manifest)) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                             OrMissing(index.FindPackage(manifest)));
      if (record) Spare(manifest, *record, dead);
    }
    for (const Candidate* victim : victims) {
      if (!going.contains(victim->manifest)) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                             OrMissing(index.FindPackage(victim->manifest)));
      if (record && (record->used_at != victim->record.used_at ||
                     record->fetched_at != victim->record.fetched_at)) {
        Spare(victim->manifest, *record, dead);
        continue;
      }
      batch.DeletePackage(victim->manifest);
      for (const Digest& document : victim->documents) {
        if (!documents.contains(document)) batch.DeleteBlob(document);
      }
      bytes += victim->record.tree_bytes;
      ++evicted.packages;
      evicted.evicted.push_back(victim->manifest);
    }
    for (const ChunkDigest& digest : dead) {
      OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                             OrMissing(index.FindChunk(digest)));
      if (!location) continue;
      batch.DeleteChunkAt(digest, *location);
      bytes += RecordBytes(location->length);
      ++evicted.chunks;
    }
    return {};
  };
  if (dry_run) {
    OCIFS_ASSIGN_OR_RETURN(const IndexSnapshot now, store_.index().Snapshot());
    IndexBatch unused;
    OCIFS_RETURN_IF_ERROR(decide(now, unused));
  } else {
    OCIFS_RETURN_IF_ERROR(store_.index().Commit(IndexBatch(), decide));
  }
  result.packages += evicted.packages;
  result.chunks += evicted.chunks;
  result.evicted.insert(result.evicted.end(), evicted.evicted.begin(), evicted.evicted.end());
  if (dry_run) result.bytes += bytes;
  return bytes;
}

// --- giving back ---------------------------------------------------------------------------------

Result<void> Collector::RemoveFiles(Collected& result) {
  OCIFS_ASSIGN_OR_RETURN(const uint64_t bytes, store_.RemoveUnnamedFiles());
  result.bytes += bytes;
  return {};
}

// Packs that hold clearly more than what is wanted of them; with `all`, those that hold anything.
Result<void> Collector::ReclaimPacks(bool all, Collected& result) {
  constexpr uint64_t kSlack = uint64_t{1} << 20;
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, store_.index().Packs());
  for (const PackRecord& pack : packs) {
    if (pack.length == PackRecord::kUnknownLength) continue;
    OCIFS_ASSIGN_OR_RETURN(const uint64_t disk, store_.packs().DiskBytes(pack.id));
    const uint64_t slack = all ? 0 : pack.live_bytes / 8 + kSlack;
    if (pack.live_bytes > 0 && disk <= pack.live_bytes + slack) continue;
    const Result<Reclaimed> reclaimed = store_.packs().Reclaim(pack.id, kReaderPatience);
    if (!reclaimed) {
      // The next pack may do better: a full disk has no room to move anything.
      Log(LogLevel::kWarning,
          "pack " + PackSet::FileName(pack.id) + ": " + reclaimed.error().message);
      continue;
    }
    result.bytes += reclaimed->bytes;
    result.moved_bytes += reclaimed->moved;
    result.busy_packs += reclaimed->busy || reclaimed->postponed ? 1 : 0;
  }
  return {};
}

Result<Collected> Collector::Collect(const CollectRequest& request) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock, store_.TryLockCollector());
  if (lock == nullptr) return Fail(ErrorCode::kWouldBlock, "another process collects garbage");
  OCIFS_RETURN_IF_ERROR(store_.FlushUses());
  Collected result;
  store_.packs().CloseIdle();
  if (!request.dry_run) {
    OCIFS_RETURN_IF_ERROR(RemoveFiles(result));
    OCIFS_RETURN_IF_ERROR(ReclaimPacks(false, result));
    if (Result<void> compacted = store_.index().CompactJournal(); !compacted) {
      Log(LogLevel::kWarning, compacted.error().message);
    }
  }
  OCIFS_ASSIGN_OR_RETURN(const std::vector<Candidate> all, Candidates());
  std::vector<const Candidate*> victims;
  std::unordered_set<Digest, DigestHash> gone;
  auto evict = [&]() -> Result<uint64_t> {
    OCIFS_ASSIGN_OR_RETURN(const uint64_t bytes,
                           EvictPackages(all, victims, request.dry_run, result));
    for (const Candidate* victim : victims) gone.insert(victim->manifest);
    if (!request.dry_run && !victims.empty()) {
      OCIFS_RETURN_IF_ERROR(RemoveFiles(result));
      OCIFS_RETURN_IF_ERROR(ReclaimPacks(false, result));
    }
    victims.clear();
    return bytes;
  };
  if (request.packages) {
    const std::unordered_set<Digest, DigestHash> named(request.packages->begin(),
                                                       request.packages->end());
    for (const Candidate& candidate : all) {
      if (named.contains(candidate.manifest)) victims.push_back(&candidate);
    }
    OCIFS_RETURN_IF_ERROR(evict());
    return result;
  }

  const StoreLimits limits = store_.space().limits();
  std::optional<int64_t> since = request.unused_since;
  if (limits.max_age > 0) {
    const int64_t oldest = std::time(nullptr) - limits.max_age;
    since = since ? std::max(*since, oldest) : oldest;
  }
  if (since) {
    for (const Candidate& candidate : all) {
      if (!candidate.pinned && candidate.record.used_at < *since) victims.push_back(&candidate);
    }
    OCIFS_RETURN_IF_ERROR(evict());
  }

  // Down to the low mark when a limit is passed or would be.
  auto wanted = [&]() -> Result<uint64_t> {
    OCIFS_ASSIGN_OR_RETURN(const Space::State state, store_.space().Measure());
    uint64_t bytes = 0;
    if (state.used_bytes + request.free_bytes > state.max_bytes) {
      const uint64_t low = state.max_bytes / 100 * kLowPercent;
      const uint64_t target = low > request.free_bytes ? low - request.free_bytes : 0;
      bytes = state.used_bytes - std::min(state.used_bytes, target);
    }
    const uint64_t free = limits.min_free_bytes + request.free_bytes;
    if (state.free_bytes < free) {
      const uint64_t slack = std::min(kFreeSlackBytes, state.used_bytes / 10);
      bytes = std::max(bytes, free - state.free_bytes + slack);
    }
    return bytes;
  };
  OCIFS_ASSIGN_OR_RETURN(uint64_t left, wanted());
  if (left == 0) return result;
  const uint64_t before = result.bytes;
  OCIFS_RETURN_IF_ERROR(EvictBlobs(all, left, request.dry_run, result));
  if (request.dry_run) {
    left -= std::min(left, result.bytes - before);
  } else {
    OCIFS_ASSIGN_OR_RETURN(left, wanted());
  }
  auto next = all.begin();
  while (left > 0 && next != all.end()) {
    uint64_t guessed = 0;  // shared content does not go, so this may take several rounds
    for (; next != all.end() && guessed < left; ++next) {
      if (next->pinned || gone.contains(next->manifest)) continue;
      victims.push_back(&*next);
      guessed += next->record.tree_bytes + next->record.content_bytes;
    }
    if (victims.empty()) break;
    OCIFS_ASSIGN_OR_RETURN(const uint64_t bytes, evict());
    if (request.dry_run) {
      left -= std::min(left, bytes);
    } else {
      OCIFS_ASSIGN_OR_RETURN(left, wanted());
    }
  }
  return result;
}

}  // namespace ocifs::store
