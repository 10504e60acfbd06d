#include "store/disk_usage.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <variant>

#include "store/blob_store.h"
#include "store/file.h"
#include "store/index.h"
#include "store/log.h"
#include "store/manifest.h"
#include "store/package.h"
#include "store/reference.h"
#include "store/store.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

// Who uses what. An open-addressing hash table; keys are the first 64 bits of digests, which are
// spread evenly as they are.
class SharingTable {
 public:
  struct Slot {
    uint64_t fingerprint = 0;  // 0: free
    // The only package that uses it, or, once it is shared, the last one that was seen to.
    uint32_t package = 0;
    bool shared = false;
    bool present = false;
  };
  static_assert(sizeof(Slot) == 16);

  // The slot of a digest, and whether it is new.
  std::pair<Slot*, bool> Find(std::span<const std::byte> digest) {
    if (used_ * 4 >= slots_.size() * 3) Grow();
    uint64_t fingerprint;
    std::memcpy(&fingerprint, digest.data(), sizeof fingerprint);
    if (fingerprint == 0) fingerprint = 1;
    Slot& slot = At(slots_, fingerprint);
    if (slot.fingerprint != 0) return {&slot, false};
    slot.fingerprint = fingerprint;
    ++used_;
    return {&slot, true};
  }

 private:
  static Slot& At(std::vector<Slot>& slots, uint64_t fingerprint) {
    const size_t mask = slots.size() - 1;
    size_t position = fingerprint & mask;
    while (slots[position].fingerprint != 0 && slots[position].fingerprint != fingerprint) {
      position = (position + 1) & mask;
    }
    return slots[position];
  }
  void Grow() {
    std::vector<Slot> larger(std::max<size_t>(slots_.size() * 2, 1024));
    for (const Slot& slot : slots_) {
      if (slot.fingerprint != 0) At(larger, slot.fingerprint) = slot;
    }
    slots_ = std::move(larger);
  }

  std::vector<Slot> slots_;  // a power of two
  size_t used_ = 0;
};

class Measurement {
 public:
  explicit Measurement(Store& store) : store_(store), index_(store.index()) {}

  Result<DiskUsage> Run() {
    OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> packages, index_.Packages());
    for (const Digest& manifest : packages) {
      position_.emplace(manifest, usage_.packages.size());
      usage_.packages.push_back(PackageUsage{.manifest = manifest, .references = {}, .roots = {}});
    }
    indexes_.resize(packages.size());
    OCIFS_RETURN_IF_ERROR(TakeReferences());
    OCIFS_RETURN_IF_ERROR(TakePins());
    for (uint32_t i = 0; i < packages.size(); ++i) OCIFS_RETURN_IF_ERROR(TakePackage(i));
    for (PackageUsage& package : usage_.packages) {
      if (!package.pinned) package.reclaimable = package.stored - package.shared;
      usage_.apparent += package.apparent;
    }
    std::sort(usage_.packages.begin(), usage_.packages.end(),
              [](const PackageUsage& a, const PackageUsage& b) {
                return a.reclaimable != b.reclaimable ? a.reclaimable > b.reclaimable
                                                      : a.manifest < b.manifest;
              });
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd root,
                           OpenAt(AT_FDCWD, store_.root(), O_RDONLY | O_DIRECTORY));
    OCIFS_ASSIGN_OR_RETURN(usage_.on_disk, BlocksBelow(root.get(), 0));
    return std::move(usage_);
  }

 private:
  // Which packages references lead to, and through which indexes.
  Result<void> TakeReferences() {
    OCIFS_ASSIGN_OR_RETURN(const auto refs, index_.Refs(""));
    std::set<std::string> tagged;
    for (const auto& [name, record] : refs) {
      const Result<Reference> reference = Reference::Parse(name);
      if (!reference || !reference->tag()) continue;
      tagged.insert(Reference(reference->repository(), record.digest).ToString());
    }
    std::map<Digest, std::set<size_t>> found;  // by root
    for (const auto& [name, record] : refs) {
      auto packages = found.find(record.digest);
      if (packages == found.end()) {
        packages = found.emplace(record.digest, std::set<size_t>()).first;
        std::vector<Digest> path;
        followed_.clear();
        OCIFS_RETURN_IF_ERROR(Follow(record.digest, path, packages->second));
        for (const size_t package : packages->second) {
          usage_.packages[package].roots.push_back(record.digest);
        }
      }
      if (tagged.contains(name)) continue;
      for (const size_t package : packages->second) {
        usage_.packages[package].references.push_back(name);
      }
    }
    return {};
  }

  // A pin keeps what its reference stood for when it was made, and what it stands for now.
  Result<void> TakePins() {
    OCIFS_ASSIGN_OR_RETURN(const std::vector<PinRecord> pins, index_.Pins());
    for (const PinRecord& pin : pins) {
      std::set<size_t> kept;
      std::vector<Digest> path;
      followed_.clear();
      OCIFS_RETURN_IF_ERROR(Follow(pin.digest, path, kept));
      if (const Result<Reference> reference = Reference::Parse(pin.reference)) {
        OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> now,
                               OrMissing(index_.FindRef(*reference)));
        if (now) OCIFS_RETURN_IF_ERROR(Follow(now->digest, path, kept));
      }
      for (const size_t package : kept) usage_.packages[package].pinned = true;
    }
    return {};
  }

  // `path`: the indexes that led to `digest`.
  Result<void> Follow(const Digest& digest, std::vector<Digest>& path, std::set<size_t>& packages) {
    if (const auto package = position_.find(digest); package != position_.end()) {
      packages.insert(package->second);
      indexes_[package->second].insert(path.begin(), path.end());
      return {};
    }
    if (path.size() == kMaxIndexDepth || !followed_.insert(digest).second) return {};
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                           store_.blobs().ReadDocument(digest));
    if (!bytes) return {};
    const auto parsed = ParseDocument(digest, *bytes, {});
    const ImageIndex* const index = parsed ? std::get_if<ImageIndex>(&*parsed) : nullptr;
    if (index == nullptr) return {};
    path.push_back(digest);
    for (const Descriptor& child : index->manifests) {
      OCIFS_RETURN_IF_ERROR(Follow(child.digest, path, packages));
    }
    path.pop_back();
    return {};
  }

  Result<void> TakePackage(uint32_t package) {
    const Digest manifest_digest = usage_.packages[package].manifest;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                           OrMissing(index_.FindPackage(manifest_digest)));
    if (!record) return {};
    usage_.packages[package].apparent = record->content_bytes;
    usage_.packages[package].stored += record->tree_bytes;
    usage_.stored += record->tree_bytes;
    for (const Digest& index : indexes_[package]) OCIFS_RETURN_IF_ERROR(TakeBlob(package, index));
    OCIFS_RETURN_IF_ERROR(TakeBlob(package, manifest_digest));
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                           store_.blobs().ReadDocument(manifest_digest));
    if (bytes) {
      const auto parsed = ParseDocument(manifest_digest, *bytes, {});
      const Manifest* const manifest = parsed ? std::get_if<Manifest>(&*parsed) : nullptr;
      if (manifest != nullptr) {
        OCIFS_RETURN_IF_ERROR(TakeBlob(package, manifest->config.digest));
        for (const Descriptor& layer : manifest->layers) {
          OCIFS_RETURN_IF_ERROR(TakeBlob(package, layer.digest));
        }
      }
    }
    const Result<std::unique_ptr<const Tree>> tree =
        OpenTree(store_.trees_fd(), manifest_digest, *record);
    if (!tree) {
      Log(LogLevel::kWarning, "package " + manifest_digest.ToString() + ": " +
                                  tree.error().message + "; its chunks are not counted");
      return {};
    }
    for (uint32_t i = 0; i < (*tree)->chunk_count(); ++i) {
      const ChunkRef chunk = (*tree)->ChunkByNumber(i);
      if (!chunk.is_hole) OCIFS_RETURN_IF_ERROR(TakeChunk(package, chunk));
    }
    return {};
  }

  Result<void> TakeBlob(uint32_t package, const Digest& digest) {
    const auto [slot, is_new] = blobs_.Find(digest.bytes());
    OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> record,
                           OrMissing(index_.FindBlob(digest)));
    if (is_new) slot->present = record.has_value();
    Count(package, *slot, is_new, record ? record->size : 0);
    return {};
  }

  Result<void> TakeChunk(uint32_t package, const ChunkRef& chunk) {
    const auto [slot, is_new] = chunks_.Find(chunk.digest.bytes);
    if (is_new) {
      OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                             OrMissing(index_.FindChunk(chunk.digest)));
      slot->present = location.has_value();
    }
    Count(package, *slot, is_new, chunk.length);
    return {};
  }

  // One use of `bytes` by a package. Packages come one after the other, so the slot knows whether
  // this one has been counted.
  void Count(uint32_t package, SharingTable::Slot& slot, bool is_new, uint64_t bytes) {
    if (!slot.present || (!is_new && slot.package == package)) return;
    PackageUsage& user = usage_.packages[package];
    user.stored += bytes;
    if (is_new) {
      usage_.stored += bytes;
    } else {
      user.shared += bytes;
      if (!std::exchange(slot.shared, true)) {
        usage_.packages[slot.package].shared += bytes;
        usage_.shared += bytes;
      }
    }
    slot.package = package;
  }

  // Of a file by its blocks, as sparse ones and LMDB's map are larger than what they take.
  static Result<uint64_t> BlocksBelow(int directory, int depth) {
    constexpr int kMaxDepth = 8;  // blobs/sha256/… is 2
    uint64_t bytes = 0;
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
    for (const std::string& name : names) {
      struct stat status{};
      if (fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;  // it went meanwhile
        return Fail(ErrorFromErrno(errno, "looking at " + name));
      }
      bytes += static_cast<uint64_t>(status.st_blocks) * 512;
      if (!S_ISDIR(status.st_mode) || depth == kMaxDepth) continue;
      OCIFS_ASSIGN_OR_RETURN(const UniqueFd below, OpenAt(directory, name, O_RDONLY | O_DIRECTORY));
      OCIFS_ASSIGN_OR_RETURN(const uint64_t inside, BlocksBelow(below.get(), depth + 1));
      bytes += inside;
    }
    return bytes;
  }

  Store& store_;
  Index& index_;
  DiskUsage usage_;
  std::map<Digest, size_t> position_;      // of a package in usage_
  std::vector<std::set<Digest>> indexes_;  // that lead to it, by position
  std::set<Digest> followed_;              // from one root, as an index may name one often
  SharingTable chunks_;
  SharingTable blobs_;
};

}  // namespace

Result<DiskUsage> MeasureDiskUsage(Store& store) { return Measurement(store).Run(); }

}  // namespace ocifs::store
