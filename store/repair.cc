#include "store/repair.h"

#include <array>
#include <memory>
#include <set>
#include <utility>

#include "store/blob_store.h"
#include "store/index.h"
#include "store/log.h"
#include "store/pack.h"
#include "store/package.h"
#include "store/reference.h"
#include "store/space.h"
#include "store/store.h"
#include "store/text.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

struct AbsentChunk {
  NodeIndex file = 0;
  ChunkRef chunk;
};

class Repairer {
 public:
  Repairer(PullThrough& cache, const CheckReport& found, const RequestContext& context)
      : cache_(cache),
        store_(cache.store()),
        index_(store_.index()),
        found_(found),
        context_(context) {}

  Result<RepairReport> Run() {
    OCIFS_RETURN_IF_ERROR(DropChunksAndTrees());
    OCIFS_RETURN_IF_ERROR(DropBlobs());
    MoveChunks();
    for (const PackageFindings& package : found_.findings) {
      if (package.is_damaged()) OCIFS_RETURN_IF_ERROR(Restore(package));
    }
    OCIFS_RETURN_IF_ERROR(RestoreIndexDocuments());
    OCIFS_RETURN_IF_ERROR(LookAgain());
    return std::move(report_);
  }

 private:
  // --- dropping ---

  Result<void> DropChunksAndTrees() {
    uint64_t chunks = 0;
    uint64_t packages = 0;
    auto decide = [&](const IndexSnapshot& now, IndexBatch& batch) -> Result<void> {
      chunks = 0;
      packages = 0;
      for (const DamagedChunk& damage : found_.chunk_damage) {
        if (damage.flaw != DamagedChunk::Flaw::kContent) continue;
        OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                               OrMissing(now.FindChunk(damage.digest)));
        if (location != damage.location) continue;  // it was mended, or went
        batch.DeleteChunkAt(damage.digest, damage.location);
        ++chunks;
      }
      for (const PackageFindings& package : found_.findings) {
        if (!package.is_damaged()) continue;
        OCIFS_ASSIGN_OR_RETURN(std::optional<PackageRecord> record,
                               OrMissing(now.FindPackage(package.manifest)));
        if (!record) continue;
        if (!package.tree_error.empty() &&
            !OpenTree(store_.trees_fd(), package.manifest, *record)) {
          batch.DeletePackage(package.manifest);
          ++packages;
        } else if (record->complete && (package.damaged_files > 0 || package.claims_too_much)) {
          record->complete = false;
          batch.PutPackage(package.manifest, *record);
        }
      }
      return {};
    };
    OCIFS_RETURN_IF_ERROR(index_.Commit(IndexBatch(), decide));
    report_.dropped_chunks = chunks;
    report_.dropped_packages = packages;
    return {};
  }

  Result<void> DropBlobs() {
    for (const DamagedBlob& damage : found_.blob_damage) {
      // Nobody writes it meanwhile. Who pulls it now brings it whole.
      OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock,
                             store_.TryLockPull(damage.digest));
      if (lock == nullptr) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::string reason, CheckBlob(store_, damage.digest));
      if (reason.empty()) continue;
      OCIFS_RETURN_IF_ERROR(store_.blobs().Drop(damage.digest));
      ++report_.dropped_blobs;
    }
    return {};
  }

  // --- records whose headers are damaged ---

  // What cannot be moved now is found again at the end.
  void MoveChunks() {
    std::vector<const DamagedChunk*> whole;
    for (const DamagedChunk& damage : found_.chunk_damage) {
      if (damage.flaw == DamagedChunk::Flaw::kHeader) whole.push_back(&damage);
    }
    if (whole.empty()) return;
    Result<std::unique_ptr<PackWriter>> writer = store_.packs().Acquire();
    if (!writer) return Log(LogLevel::kWarning, writer.error().message);
    const uint64_t start = (*writer)->length();
    if (const Result<uint64_t> moved = Move(**writer, whole); !moved) {
      Log(LogLevel::kWarning, moved.error().message);
      // A pack that cannot be cut is not written any more by this process.
      if (const Result<void> cut = (*writer)->RollBackTo(start); !cut) return;
    } else {
      report_.moved_chunks = *moved;
    }
    store_.packs().Release(*std::move(writer));
  }

  // Gives their number.
  Result<uint64_t> Move(PackWriter& writer, const std::vector<const DamagedChunk*>& whole) {
    IndexBatch batch;
    uint64_t count = 0;
    std::vector<std::byte> content;
    for (const DamagedChunk* chunk : whole) {
      content.resize(static_cast<size_t>(chunk->location.length));
      const Result<void> read = store_.packs().Read(chunk->location, 0, content);
      Hasher hasher;
      hasher.Update(content);
      // Else it went meanwhile, or is damaged by now.
      if (!read || hasher.FinishChunk() != chunk->digest) continue;
      writer.Begin();
      OCIFS_RETURN_IF_ERROR(writer.Append(content));
      batch.MoveChunk(chunk->digest, chunk->location, writer.Keep(chunk->digest));
      ++count;
      if (writer.WantsFlush()) OCIFS_RETURN_IF_ERROR(writer.Flush());
    }
    OCIFS_RETURN_IF_ERROR(writer.Flush());
    OCIFS_RETURN_IF_ERROR(store_.packs().Sync(writer.pack()));
    batch.RaisePack(writer.pack(), writer.length());
    OCIFS_RETURN_IF_ERROR(index_.Commit(std::move(batch)));
    return count;
  }

  // --- getting things again ---

  // Through any reference that leads to it.
  Result<void> Restore(const PackageFindings& package) {
    std::optional<Error> error;
    for (const std::string& name : package.references) {
      Result<void> restored = RestoreThrough(name, package);
      if (restored) return {};
      error = std::move(restored).error();
      if (error->code == ErrorCode::kCancelled) return Fail(*std::move(error));
    }
    if (error) errors_.emplace_back(package.manifest, *std::move(error));
    return {};
  }

  Result<void> RestoreThrough(const std::string& name, const PackageFindings& package) {
    OCIFS_ASSIGN_OR_RETURN(const Reference reference, Reference::Parse(name));
    OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> ref,
                           OrMissing(index_.FindRef(reference)));
    if (!ref) return Fail(ErrorCode::kNotFound, name + " is not in the store any more");
    OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const Package> opened,
                           cache_.Open(reference.repository(), ref->digest, context_));
    if (opened->manifest_digest() != package.manifest) {
      return Fail(ErrorCode::kUnsupported, name + ": the package is that of another platform");
    }
    // A tree that was made anew is on its way.
    OCIFS_RETURN_IF_ERROR(cache_.Flush(context_));
    if (package.damaged_files > 0 || package.claims_too_much || !package.tree_error.empty()) {
      OCIFS_RETURN_IF_ERROR(RestoreContent(*opened));
      OCIFS_RETURN_IF_ERROR(MarkIfComplete(package.manifest));
    }
    if (!cache_.options().offline) OCIFS_RETURN_IF_ERROR(RestoreBlobs(*opened, package));
    return {};
  }

  // Only of the layers that something was lost of: reading a part of a chunk brings its layer back.
  Result<void> RestoreContent(const Package& package) {
    std::set<uint32_t> restored;
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const std::optional<AbsentChunk> absent,
                             FirstAbsent(package.tree(), restored));
      if (!absent) return {};
      std::array<std::byte, 1> byte;
      OCIFS_RETURN_IF_ERROR(
          cache_.Read(package, absent->file, absent->chunk.file_offset, byte, context_));
      OCIFS_RETURN_IF_ERROR(cache_.Flush(context_));
      restored.insert(absent->chunk.layer);
    }
  }

  // The first chunk that the index lacks, of another layer than these.
  Result<std::optional<AbsentChunk>> FirstAbsent(const Tree& tree,
                                                 const std::set<uint32_t>& but) const {
    for (NodeIndex node = 0; node < tree.node_count(); ++node) {
      if (tree.Attributes(node).type != NodeType::kRegular) continue;
      for (uint32_t position = 0; position < tree.ChunkCount(node); ++position) {
        const ChunkRef chunk = tree.ChunkAt(node, position);
        if (chunk.is_hole || but.contains(chunk.layer)) continue;
        OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                               OrMissing(index_.FindChunk(chunk.digest)));
        if (!location) return AbsentChunk{node, chunk};
      }
    }
    return std::optional<AbsentChunk>();
  }

  Result<void> RestoreBlobs(const Package& package, const PackageFindings& findings) {
    const std::set<Digest> damaged(findings.damaged_blobs.begin(), findings.damaged_blobs.end());
    for (const Descriptor& layer : package.manifest().layers) {
      if (!damaged.contains(layer.digest) || layer.size == 0) continue;
      std::array<std::byte, 1> byte;
      OCIFS_RETURN_IF_ERROR(cache_.ReadBlob(package, layer, 0, byte, context_));
    }
    return {};
  }

  // Documents that a reference stands for, but no package's: indexes.
  Result<void> RestoreIndexDocuments() {
    for (const DamagedBlob& damage : found_.blob_damage) {
      for (const std::string& name : damage.references) {
        const Result<Reference> reference = Reference::Parse(name);
        if (!reference) continue;
        OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> there,
                               OrMissing(index_.FindBlob(damage.digest)));
        if (there) break;
        const auto opened = cache_.Open(reference->repository(), damage.digest, context_);
        const Result<void> kept = opened ? cache_.Flush(context_) : Result<void>();
        if (opened && kept) break;
        const Error& error = opened ? kept.error() : opened.error();
        if (error.code == ErrorCode::kCancelled) return Fail(error);
        Log(LogLevel::kWarning, name + ": " + error.message);
      }
    }
    return {};
  }

  // Enters that a package has all of its content, if it has.
  Result<void> MarkIfComplete(const Digest& manifest) {
    auto decide = [&](const IndexSnapshot& now, IndexBatch& batch) -> Result<void> {
      OCIFS_ASSIGN_OR_RETURN(std::optional<PackageRecord> record,
                             OrMissing(now.FindPackage(manifest)));
      if (!record || record->complete) return {};
      OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<const Tree> tree,
                             OpenTree(store_.trees_fd(), manifest, *record));
      for (uint32_t number = 0; number < tree->chunk_count(); ++number) {
        const ChunkRef chunk = tree->ChunkByNumber(number);
        if (chunk.is_hole) continue;
        OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                               OrMissing(now.FindChunk(chunk.digest)));
        if (!location) return {};
      }
      record->complete = true;
      batch.PutPackage(manifest, *record);
      return {};
    };
    OCIFS_RETURN_IF_ERROR(index_.Commit(IndexBatch(), decide));
    return {};
  }

  // --- what is left ---

  Result<void> LookAgain() {
    for (const DamagedChunk& damage : found_.chunk_damage) {
      OCIFS_ASSIGN_OR_RETURN(const CheckedChunk now, CheckChunk(store_, damage.digest));
      if (now.state == ChunkState::kDamaged || now.state == ChunkState::kDamagedHeader) {
        report_.uncorrected.push_back("chunk " + ToHex(damage.digest.bytes) + " in pack " +
                                      PackSet::FileName(now.location.pack));
      }
    }
    for (const DamagedBlob& damage : found_.blob_damage) {
      OCIFS_ASSIGN_OR_RETURN(const std::string reason, CheckBlob(store_, damage.digest));
      OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> record,
                             OrMissing(index_.FindBlob(damage.digest)));
      if (!reason.empty()) {
        report_.uncorrected.push_back("blob " + damage.digest.ToString() + ": " + reason);
      } else if (!record) {
        report_.lacking_blobs.push_back(damage.digest);
      }
    }
    for (const PackageFindings& package : found_.findings) {
      if (package.is_damaged()) OCIFS_RETURN_IF_ERROR(LookAgainAt(package));
    }
    return {};
  }

  Result<void> LookAgainAt(const PackageFindings& package) {
    LackingPackage lacking{
        .manifest = package.manifest, .references = package.references, .error = std::nullopt};
    for (auto& [manifest, error] : errors_) {
      if (manifest == package.manifest) lacking.error = error;
    }
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                           OrMissing(index_.FindPackage(package.manifest)));
    if (!record) {
      lacking.is_forgotten = true;
      report_.lacking.push_back(std::move(lacking));
      return {};
    }
    const Result<std::unique_ptr<const Tree>> tree =
        OpenTree(store_.trees_fd(), package.manifest, *record);
    if (!tree) {
      report_.uncorrected.push_back("package " + package.manifest.ToString() + ": " +
                                    tree.error().message);
      return {};
    }
    for (uint32_t number = 0; number < (*tree)->chunk_count(); ++number) {
      const ChunkRef chunk = (*tree)->ChunkByNumber(number);
      if (chunk.is_hole) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                             OrMissing(index_.FindChunk(chunk.digest)));
      if (!location) lacking.bytes += chunk.length;
    }
    const bool has_documents = !IsLacking(package.manifest);
    if (lacking.bytes > 0 || lacking.error || !has_documents) {
      report_.lacking.push_back(std::move(lacking));
    } else {
      ++report_.restored_packages;
    }
    return {};
  }

  bool IsLacking(const Digest& blob) const {
    for (const Digest& digest : report_.lacking_blobs) {
      if (digest == blob) return true;
    }
    return false;
  }

  PullThrough& cache_;
  Store& store_;
  Index& index_;
  const CheckReport& found_;
  const RequestContext& context_;
  RepairReport report_;
  std::vector<std::pair<Digest, Error>> errors_;  // by manifest
};

}  // namespace

Result<RepairReport> RepairStore(PullThrough& cache, const CheckReport& report,
                                 const RequestContext& context) {
  return Repairer(cache, report, context).Run();
}

}  // namespace ocifs::store
