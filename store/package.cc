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

Result<void> AddManifests(Store& store, const Digest& root, int depth, std::vector<Digest>& out) {
  out.push_back(root);
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store.blobs().ReadDocument(root));
  if (!bytes || depth > kMaxIndexDepth) return {};
  const Result<std::variant<Manifest, ImageIndex>> parsed = ParseDocument(root, *bytes, {});
  if (!parsed || !std::holds_alternative<ImageIndex>(*parsed)) return {};
  for (const Descriptor& child : std::get<ImageIndex>(*parsed).manifests) {
    OCIFS_RETURN_IF_ERROR(AddManifests(store, child.digest, depth + 1, out));
  }
  return {};
}

}  // namespace

Result<std::vector<Digest>> ManifestsBehind(Store& store, const Digest& root) {
  std::vector<Digest> manifests;
  OCIFS_RETURN_IF_ERROR(AddManifests(store, root, 0, manifests));
  return manifests;
}

Result<std::unique_ptr<const Tree>> OpenTree(int trees_fd, const Digest& manifest,
                                             const PackageRecord& record) {
  Result<std::unique_ptr<const Tree>> tree =
      record.tree ? Tree::FromBytes({AsBytes(*record.tree).begin(), AsBytes(*record.tree).end()})
                  : Tree::Open(trees_fd, Store::TreeFileName(manifest));
  if (tree && (*tree)->manifest() != manifest) {
    return Fail(ErrorCode::kIndexDamaged, "tree: it is that of " + (*tree)->manifest().ToString());
  }
  return tree;
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
  CacheState state{record->content_bytes, record->content_bytes};
  if (record->complete) return state;
  const Result<std::unique_ptr<const Tree>> tree =
      OpenTree(store.trees_fd(), found->digest, *record);
  if (!tree) return std::optional<CacheState>();
  state.bytes_present = 0;
  for (uint32_t number = 0; number < (*tree)->chunk_count(); ++number) {
    const ChunkRef chunk = (*tree)->ChunkByNumber(number);
    if (!chunk.is_hole) {
      OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                             OrMissing(store.index().FindChunk(chunk.digest)));
      if (!location) continue;
    }
    state.bytes_present += chunk.length;
  }
  return state;
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
  Result<std::unique_ptr<const Tree>> tree = OpenTree(store.trees_fd(), digest, *record);
  if (!tree) {
    Log(LogLevel::kWarning,
        "package " + digest.ToString() + ": " + tree.error().message + "; it will be made again");
    return nullptr;
  }
  return std::make_shared<const StoredPackage>(
      PackageDocuments{origin, root, digest, std::move(found->index_bytes),
                       std::move(found->manifest_bytes), std::move(found->manifest),
                       *std::move(config)},
      *std::move(tree));
}

}  // namespace ocifs::store
