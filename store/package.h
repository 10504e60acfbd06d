// The package object behind the Package interface, and reading one that the store has.
#ifndef OCIFS_STORE_PACKAGE_H_
#define OCIFS_STORE_PACKAGE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "store/blob_store.h"
#include "store/pull_through.h"
#include "store/store.h"
#include "store/text.h"

namespace ocifs::store {

// The documents that say what a package is, each verified against the digest that names it.
struct PackageDocuments {
  Repository origin;
  Digest root_digest;
  Digest manifest_digest;
  std::string index_bytes;  // empty: the root is the manifest itself
  std::string manifest_bytes;
  Manifest manifest;
  std::string config_bytes;
};

class StoredPackage final : public Package, public std::enable_shared_from_this<StoredPackage> {
 public:
  StoredPackage(PackageDocuments documents, std::unique_ptr<const Tree> tree)
      : documents_(std::move(documents)),
        tree_(std::move(tree)),
        verified_((tree_->chunk_count() + 63) / 64) {}

  const Repository& origin() const override { return documents_.origin; }
  const Digest& root_digest() const override { return documents_.root_digest; }
  const Digest& manifest_digest() const override { return documents_.manifest_digest; }
  const Manifest& manifest() const override { return documents_.manifest; }
  const std::string& manifest_bytes() const override { return documents_.manifest_bytes; }
  const std::string& config_bytes() const override { return documents_.config_bytes; }
  const std::string& index_bytes() const override { return documents_.index_bytes; }
  const Tree& tree() const override { return *tree_; }

  const PackageDocuments& documents() const { return documents_; }

  // Whether the chunk of that number passed its digest in this process.
  bool IsVerified(uint32_t chunk) const {
    return (verified_[chunk / 64].load(std::memory_order_relaxed) >> (chunk % 64) & 1) != 0;
  }
  void SetVerified(uint32_t chunk) const {
    verified_[chunk / 64].fetch_or(uint64_t{1} << (chunk % 64), std::memory_order_relaxed);
  }
  // What was verified may have been written anew since.
  void ClearAllVerified() const {
    for (auto& bits : verified_) bits.store(0, std::memory_order_relaxed);
  }
  // Whether it was used some time after the last call that said so: who counts uses need not count
  // each read.
  bool IsUseOfNote(int64_t now) const {
    const int64_t last = used_at_.load(std::memory_order_relaxed);
    if (now >= last && now - last < kUseSeconds) return false;
    used_at_.store(now, std::memory_order_relaxed);
    return true;
  }

 private:
  const PackageDocuments documents_;
  const std::unique_ptr<const Tree> tree_;
  // One bit a chunk. Relaxed: two readers may verify the same chunk, which costs time only.
  mutable std::vector<std::atomic<uint64_t>> verified_;
  static constexpr int64_t kUseSeconds = 60;
  mutable std::atomic<int64_t> used_at_ = 0;
};

// The tree of a package that the index has: from the record, or from its file in `trees_fd`.
// kIndexDamaged when it is not whole, or another package's.
Result<std::unique_ptr<const Tree>> OpenTree(int trees_fd, const Digest& manifest,
                                             const PackageRecord& record);

// A document parsed; `root` names it in errors.
Result<std::variant<Manifest, ImageIndex>> ParseDocument(const Digest& root, std::string_view bytes,
                                                         std::string_view media_type);

// An index may name an index; no real one does so more than once.
inline constexpr int kMaxIndexDepth = 3;

// `root`, and the manifests that it lists when it is an index that the store has.
Result<std::vector<Digest>> ManifestsBehind(Store& store, const Digest& root);

// Content that needs no fetch: carried by the descriptor, or known by its digest.
std::optional<std::string> KnownContent(const Descriptor& descriptor);

// The package behind `root` if the store has all of it: documents, package record, tree. Null when
// something is missing. A damaged tree is logged, its record dropped, and counts as missing.
Result<std::shared_ptr<const StoredPackage>> LoadPackage(Store& store, const Repository& origin,
                                                         const Digest& root,
                                                         const Platform& platform);

// How much of its content the store has; nullopt when the package was never pulled.
Result<std::optional<CacheState>> CachedContent(Store& store, const Digest& root,
                                                const Platform& platform);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PACKAGE_H_
