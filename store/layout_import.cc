#include "store/layout_import.h"

#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <variant>

#include "store/blob_store.h"
#include "store/index.h"
#include "store/ingest.h"
#include "store/package.h"
#include "store/store.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr uint64_t kMaxAllDocumentBytes = uint64_t{256} << 20;
// What is taken before it is committed: content of small blobs in memory, files without a name.
constexpr uint64_t kCommitBytes = uint64_t{64} << 20;
constexpr size_t kCommitBlobs = 64;

std::string PlatformName(const Descriptor& child) {
  if (child.platform) return child.platform->ToString();
  return child.artifact_type.empty() ? child.digest.ToString() : child.artifact_type;
}

class Importer {
 public:
  Importer(PullThrough& pull, const LayoutReader& layout, const RequestContext& context)
      : pull_(pull), store_(pull.store()), layout_(layout), context_(context) {}

  // Everything about an entry that can be known without reading its blobs.
  Result<void> Plan(const Descriptor& entry, const Reference& reference,
                    ImportOptions::Known known) {
    if (reference.digest() && *reference.digest() != entry.digest) {
      return Fail(ErrorCode::kCorrupt, Named(reference) + " stands for " + entry.digest.ToString());
    }
    for (const ImportedPackage& other : imported_) {
      if (other.reference == reference && other.digest != entry.digest) {
        return Fail(ErrorCode::kCorrupt, Named(reference) + " stands for both " +
                                             other.digest.ToString() + " and " +
                                             entry.digest.ToString());
      }
    }
    OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> record,
                           OrMissing(store_.index().FindRef(reference)));
    if (record && record->digest != entry.digest && known == ImportOptions::Known::kRefuse) {
      return Fail(ErrorCode::kInvalid, reference.ToString() + " is " + record->digest.ToString() +
                                           " in the store and " + entry.digest.ToString() +
                                           " in the layout; --replace takes that of the layout");
    }
    imported_.push_back(ImportedPackage{.reference = reference,
                                        .digest = entry.digest,
                                        .media_type = {},
                                        .content_bytes = 0,
                                        .was_there = record && record->digest == entry.digest,
                                        .platforms = {},
                                        .absent_platforms = {}});
    complete_.clear();
    OCIFS_ASSIGN_OR_RETURN(const auto parsed, ReadDocument(entry));
    if (const Manifest* const manifest = std::get_if<Manifest>(&parsed)) {
      imported_.back().media_type = manifest->media_type;
      return RequireBlobs(entry.digest, *manifest);
    }
    const ImageIndex& index = std::get<ImageIndex>(parsed);
    imported_.back().media_type = index.media_type;
    return PlanIndex(entry.digest, index, 0);
  }

  Result<std::vector<ImportedPackage>> Run() {
    OCIFS_RETURN_IF_ERROR(TakeBlobs());
    for (ImportedPackage& item : imported_) {
      OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const Package> package,
                             pull_.Open(item.reference.repository(), item.digest, context_));
      item.content_bytes = package->tree().content_bytes();
    }
    OCIFS_RETURN_IF_ERROR(pull_.Flush(context_));
    OCIFS_RETURN_IF_ERROR(EnterReferences());
    return std::move(imported_);
  }

 private:
  struct PlannedBlob {
    Descriptor descriptor;
    bool is_config = false;
  };

  std::string Named(const Reference& reference) const {
    return "layout " + layout_.path() + ": " + reference.ToString();
  }
  std::unexpected<Error> Broken(std::string reason) const {
    return Fail(ErrorCode::kCorrupt, Named(imported_.back().reference) + ": " + std::move(reason));
  }

  // A manifest or index of the layout, verified, and planned to be kept.
  Result<std::variant<Manifest, ImageIndex>> ReadDocument(const Descriptor& descriptor) {
    const Digest& digest = descriptor.digest;
    auto bytes = documents_.find(digest);
    if (bytes == documents_.end()) {
      OCIFS_RETURN_IF_ERROR(CheckBlob(descriptor, "manifest"));
      document_bytes_ += descriptor.size;
      if (descriptor.size > kMaxDocumentBytes || document_bytes_ > kMaxAllDocumentBytes) {
        return Fail(ErrorCode::kTooLarge,
                    "layout " + layout_.path() + ": manifest " + digest.ToString() + " of " +
                        std::to_string(descriptor.size) + " bytes is one too many or too large");
      }
      OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> stream, layout_.OpenBlob(digest));
      stream = VerifyBlob(std::move(stream), descriptor, nullptr, nullptr);
      Result<std::string> read = ReadAll(*stream, kMaxDocumentBytes);
      if (!read) return Fail(std::move(read).error().Wrap("layout " + layout_.path()));
      bytes = documents_.emplace(digest, *std::move(read)).first;
    } else if (bytes->second.size() != descriptor.size) {
      return Broken("manifest " + digest.ToString() + " has two sizes");
    }
    return ParseDocument(digest, bytes->second, descriptor.media_type);
  }

  // The layout has it, with the size of its descriptor, and it is not over the limit.
  Result<void> CheckBlob(const Descriptor& blob, std::string_view kind) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<uint64_t> size, layout_.SizeOf(blob.digest));
    const std::string what = std::string(kind) + " " + blob.digest.ToString();
    if (!size) return Broken(what + " is not in the layout");
    if (*size != blob.size) {
      return Broken(what + " has " + std::to_string(*size) + " bytes, its descriptor says " +
                    std::to_string(blob.size));
    }
    const uint64_t limit = pull_.options().limits.max_blob_bytes;
    if (blob.size <= limit) return {};
    return Fail(ErrorCode::kTooLarge, "layout " + layout_.path() + ": " + what + " of " +
                                          std::to_string(blob.size) +
                                          " bytes exceeds limits.max_blob");
  }
  Result<void> RequireBlobs(const Digest& manifest_digest, const Manifest& manifest) {
    std::vector<std::pair<const Descriptor*, bool>> needed = {{&manifest.config, true}};
    for (const Descriptor& layer : manifest.layers) needed.emplace_back(&layer, false);
    std::vector<std::pair<Digest, PlannedBlob>> found;
    for (const auto& [descriptor, is_config] : needed) {
      // What the descriptor says itself need not be there.
      if (KnownContent(*descriptor)) continue;
      Result<void> checked = CheckBlob(*descriptor, is_config ? "config" : "layer");
      if (!checked) {
        return Fail(std::move(checked).error().Wrap("manifest " + manifest_digest.ToString()));
      }
      if (is_config && descriptor->size > kMaxDocumentBytes) {
        return Fail(ErrorCode::kTooLarge, "config " + descriptor->digest.ToString() + " of " +
                                              std::to_string(descriptor->size) + " bytes");
      }
      found.emplace_back(descriptor->digest, PlannedBlob{*descriptor, is_config});
    }
    planned_.insert(found.begin(), found.end());
    return {};
  }

  Result<void> PlanIndex(const Digest& digest, const ImageIndex& index, int depth) {
    if (depth == kMaxIndexDepth) return Broken("indexes nested too deep");
    const Result<Descriptor> chosen = SelectPlatform(index, pull_.options().platform);
    if (!chosen && depth == 0) {
      return Fail(Error(chosen.error()).Wrap(Named(imported_.back().reference)));
    }
    bool has_chosen = false;
    std::vector<std::string> present;
    for (const Descriptor& child : index.manifests) {
      const bool is_chosen = chosen && chosen->digest == child.digest;
      OCIFS_ASSIGN_OR_RETURN(const bool there, PlanChild(child, is_chosen, depth));
      (there ? present : imported_.back().absent_platforms).push_back(PlatformName(child));
      has_chosen = has_chosen || (there && is_chosen);
    }
    if (chosen && !has_chosen && depth == 0) {
      std::string names;
      for (const std::string& name : present) names += (names.empty() ? "" : ", ") + name;
      return Fail(ErrorCode::kUnsupported,
                  Named(imported_.back().reference) + ": manifest " + chosen->digest.ToString() +
                      " for " + pull_.options().platform.ToString() + " is not in the layout, " +
                      (names.empty() ? "nor is any other of " + digest.ToString()
                                     : "which holds " + names));
    }
    auto& platforms = imported_.back().platforms;
    platforms.insert(platforms.end(), present.begin(), present.end());
    return {};
  }

  // False when the layout does not have all of it, which only `chosen` ones must not lack blobs
  // for.
  Result<bool> PlanChild(const Descriptor& child, bool chosen, int depth) {
    if (complete_.contains(child.digest)) return true;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<uint64_t> size, layout_.SizeOf(child.digest));
    if (!size) return false;
    const auto parsed = ReadDocument(child);
    if (!parsed) {
      // A kind of document that only others read.
      if (!chosen && parsed.error().code == ErrorCode::kUnsupported) return false;
      return Fail(parsed.error());
    }
    if (const ImageIndex* const index = std::get_if<ImageIndex>(&*parsed)) {
      OCIFS_RETURN_IF_ERROR(PlanIndex(child.digest, *index, depth + 1));
      complete_.insert(child.digest);
      return true;
    }
    const Manifest& manifest = std::get<Manifest>(*parsed);
    const Result<void> complete = RequireBlobs(child.digest, manifest);
    if (complete) {
      complete_.insert(child.digest);
      return true;
    }
    if (chosen || !LacksBlobs(manifest)) return Fail(complete.error());
    return false;
  }
  // Whether a blob is absent, rather than wrong.
  bool LacksBlobs(const Manifest& manifest) const {
    auto lacks = [&](const Descriptor& blob) {
      const Result<std::optional<uint64_t>> size = layout_.SizeOf(blob.digest);
      return size && !*size && !KnownContent(blob);
    };
    if (lacks(manifest.config)) return true;
    for (const Descriptor& layer : manifest.layers) {
      if (lacks(layer)) return true;
    }
    return false;
  }

  Result<void> TakeBlobs() {
    IndexBatch batch;
    for (const auto& [digest, bytes] : documents_) {
      batch.PutBlob(digest, BlobRecord{bytes.size(), bytes});
    }
    std::vector<std::pair<Digest, StagedBlob>> staged;
    uint64_t in_memory = 0;
    for (const auto& [digest, blob] : planned_) {
      if (documents_.contains(digest)) continue;
      if (context_.stop.stop_requested()) return Fail(ErrorCode::kCancelled, "import");
      // Reading nothing verifies what the store has.
      OCIFS_ASSIGN_OR_RETURN(const bool there, store_.blobs().Read(digest, 0, {}));
      if (there) continue;
      if (blob.is_config) {
        OCIFS_ASSIGN_OR_RETURN(std::string bytes, ReadConfig(blob.descriptor));
        batch.PutBlob(digest, BlobRecord{bytes.size(), std::move(bytes)});
        in_memory += blob.descriptor.size;
      } else {
        OCIFS_ASSIGN_OR_RETURN(StagedBlob taken, StageBlob(blob.descriptor));
        staged.emplace_back(digest, std::move(taken));
        if (BlobStore::IsInline(blob.descriptor.size)) in_memory += blob.descriptor.size;
      }
      if (staged.size() < kCommitBlobs && in_memory < kCommitBytes) continue;
      OCIFS_RETURN_IF_ERROR(Commit(std::exchange(staged, {}), std::exchange(batch, {})));
      in_memory = 0;
    }
    return Commit(std::move(staged), std::move(batch));
  }
  Result<void> Commit(std::vector<std::pair<Digest, StagedBlob>> staged, IndexBatch batch) {
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock,
                           store_.LockPublish(Store::PublishMode::kShared));
    for (auto& [digest, blob] : staged) {
      OCIFS_RETURN_IF_ERROR(store_.blobs().Publish(blob, digest, batch));
    }
    return store_.index().Commit(std::move(batch));
  }

  Result<std::unique_ptr<ByteStream>> OpenVerified(const Descriptor& blob, StagedBlob* keep) {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> stream, layout_.OpenBlob(blob.digest));
    return VerifyBlob(std::move(stream), blob, keep, nullptr);
  }
  Result<std::string> ReadConfig(const Descriptor& config) {
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream, OpenVerified(config, nullptr));
    Result<std::string> bytes = ReadAll(*stream, kMaxDocumentBytes);
    if (!bytes) return Fail(std::move(bytes).error().Wrap("layout " + layout_.path()));
    return bytes;
  }
  Result<StagedBlob> StageBlob(const Descriptor& blob) {
    OCIFS_ASSIGN_OR_RETURN(StagedBlob staged, store_.blobs().Stage(blob.digest, blob.size));
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream, OpenVerified(blob, &staged));
    while (true) {
      Result<std::span<const std::byte>> piece = stream->Next();
      if (!piece) return Fail(std::move(piece).error().Wrap("layout " + layout_.path()));
      if (!staged.is_whole()) return Fail(*staged.failure());
      if (piece->empty()) return staged;
    }
  }

  Result<void> EnterReferences() {
    IndexBatch batch;
    const int64_t now = pull_.options().now();
    for (const ImportedPackage& item : imported_) {
      const RefRecord record{item.digest, item.media_type, now, now};
      batch.PutRef(item.reference, record);
      // What is known by a tag can be asked for by its digest, too.
      if (item.reference.tag()) {
        batch.PutRef(Reference(item.reference.repository(), item.digest), record);
      }
    }
    return store_.index().Commit(std::move(batch));
  }

  PullThrough& pull_;
  Store& store_;
  const LayoutReader& layout_;
  const RequestContext& context_;
  std::vector<ImportedPackage> imported_;
  std::map<Digest, std::string> documents_;  // manifests and indexes
  uint64_t document_bytes_ = 0;
  std::map<Digest, PlannedBlob> planned_;
  std::set<Digest> complete_;  // below the entry being planned: an index may name one often
};

}  // namespace

std::optional<Reference> LayoutEntryReference(const Descriptor& entry) {
  if (const std::string* const name =
          FindAnnotation(entry.annotations, "io.containerd.image.name")) {
    if (Result<Reference> reference = Reference::Parse(*name)) return *std::move(reference);
  }
  const std::string* const name =
      FindAnnotation(entry.annotations, "org.opencontainers.image.ref.name");
  if (name == nullptr) return std::nullopt;
  Result<Reference> reference = Reference::Parse(*name);
  // Nothing may have been filled in: neither docker.io nor latest.
  if (!reference || !name->starts_with(reference->repository().registry().name() + "/")) {
    return std::nullopt;
  }
  const bool whole = reference->digest() || name->ends_with(":" + reference->tag()->name());
  return whole ? std::optional(*std::move(reference)) : std::nullopt;
}

Result<std::vector<ImportedPackage>> ImportLayout(PullThrough& pull, const LayoutReader& layout,
                                                  const ImportOptions& options,
                                                  const RequestContext& context) {
  const std::vector<Descriptor>& entries = layout.index().manifests;
  const std::string what = "layout " + layout.path();
  if (!pull.options().offline) return Fail(ErrorCode::kInternal, "an import makes no request");
  if (entries.empty()) return Fail(ErrorCode::kInvalid, what + " is empty");
  if (options.reference && entries.size() > 1) {
    return Fail(ErrorCode::kInvalid, what + " has " + std::to_string(entries.size()) +
                                         " entries: a reference can be given for one only");
  }
  Importer importer(pull, layout, context);
  for (const Descriptor& entry : entries) {
    const std::optional<Reference> reference =
        options.reference ? options.reference : LayoutEntryReference(entry);
    if (!reference) {
      return Fail(ErrorCode::kInvalid,
                  what + ": " + entry.digest.ToString() + " does not say which reference it is" +
                      (entries.size() == 1 ? "; give it after the layout" : ""));
    }
    OCIFS_RETURN_IF_ERROR(importer.Plan(entry, *reference, options.known));
  }
  return importer.Run();
}

}  // namespace ocifs::store
