#include "store/package.h"

#include "store/log.h"

namespace ocifs::store {
namespace {

// The empty JSON document that artifacts use for a config (image-spec, manifest.md, "Guidance for
// an Empty Descriptor"): its digest is known, so it is never fetched.
constexpr std::string_view kEmptyJson = "{}";

}  // namespace

Result<std::variant<Manifest, ImageIndex>> ParseDocument(const Digest& root, std::string_view bytes,
                                                         std::string_view media_type) {
  Result<std::variant<Manifest, ImageIndex>> parsed = ParseManifest(bytes, media_type);
  if (!parsed) return Fail(std::move(parsed).error().Wrap(root.ToString()));
  return parsed;
}

std::optional<std::string> KnownContent(const Descriptor& descriptor) {
  if (descriptor.data) return descriptor.data;
  if (descriptor.size == kEmptyJson.size() &&
      descriptor.digest == Digest::Of(AsBytes(kEmptyJson), descriptor.digest.algorithm())) {
    return std::string(kEmptyJson);
  }
  return std::nullopt;
}

namespace {

struct FoundManifest {
  std::string index_bytes;
  std::string manifest_bytes;
  Manifest manifest;
  Digest digest;
};

// From the root to the manifest for the platform, as far as the store has the documents.
Result<std::optional<FoundManifest>> FindManifest(Store& store, const Digest& root,
                                                  const Platform& platform) {
  std::string index_bytes;
  Digest digest = root;
  for (int depth = 0; depth <= kMaxIndexDepth; ++depth) {
    OCIFS_ASSIGN_OR_RETURN(std::optional<std::string> bytes, store.blobs().ReadDocument(digest));
    if (!bytes) break;
    OCIFS_ASSIGN_OR_RETURN(auto parsed, ParseDocument(digest, *bytes, {}));
    if (Manifest* manifest = std::get_if<Manifest>(&parsed)) {
      return FoundManifest{std::move(index_bytes), *std::move(bytes), std::move(*manifest), digest};
    }
    OCIFS_ASSIGN_OR_RETURN(const Descriptor chosen,
                           SelectPlatform(std::get<ImageIndex>(parsed), platform));
    if (depth == 0) index_bytes = *std::move(bytes);
    digest = chosen.digest;
  }
  return std::optional<FoundManifest>();
}

}  // namespace

Result<std::optional<CacheState>> CachedContent(Store& store, const Digest& root,
                                                const Platform& platform) {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<FoundManifest> found,
                         FindManifest(store, root, platform));
  if (!found) return std::optional<CacheState>();
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                         OrMissing(store.index().FindPackage(found->digest)));
  if (!record) return std::optional<CacheState>();
  // Packages are kept whole.
  return CacheState{record->content_bytes, record->content_bytes};
}

Result<std::shared_ptr<const StoredPackage>> LoadPackage(Store& store, const Repository& origin,
                                                         const Digest& root,
                                                         const Platform& platform) {
  OCIFS_ASSIGN_OR_RETURN(std::optional<FoundManifest> found, FindManifest(store, root, platform));
  if (!found) return nullptr;
  const Digest digest = found->digest;
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                         OrMissing(store.index().FindPackage(digest)));
  if (!record) return nullptr;
  std::optional<std::string> config = KnownContent(found->manifest.config);
  if (!config) {
    OCIFS_ASSIGN_OR_RETURN(config, store.blobs().ReadDocument(found->manifest.config.digest));
    if (!config) return nullptr;
  }
  Result<std::unique_ptr<const Tree>> tree =
      Tree::Open(store.trees_fd(), Store::TreeFileName(digest));
  if (tree && (*tree)->manifest() != digest) {
    tree = Fail(ErrorCode::kIndexDamaged, "tree: it is that of " + (*tree)->manifest().ToString());
  }
  if (!tree) {
    Log(LogLevel::kWarning,
        "package " + digest.ToString() + ": " + tree.error().message + "; it will be made again");
    IndexBatch batch;
    batch.DeletePackage(digest);
    OCIFS_RETURN_IF_ERROR(store.index().Commit(std::move(batch)));
    return nullptr;
  }
  return std::make_shared<const StoredPackage>(
      PackageDocuments{origin, root, digest, std::move(found->index_bytes),
                       std::move(found->manifest_bytes), std::move(found->manifest),
                       *std::move(config)},
      *std::move(tree));
}

}  // namespace ocifs::store
