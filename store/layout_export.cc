#include "store/layout_export.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "store/blob_store.h"
#include "store/index.h"
#include "store/ingest.h"
#include "store/json.h"
#include "store/log.h"
#include "store/package.h"
#include "store/store.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

// A blob of the layout, and how to come by it.
struct PlannedBlob {
  Descriptor descriptor;
  std::optional<std::string> content;  // of documents; else it is read from the store
  const Package* package = nullptr;    // one that it belongs to
  std::string what;                    // "layer sha256:… of ghcr.io/a/b:1.0"
};

Descriptor PlainDescriptor(const Digest& digest, std::string media_type, uint64_t size) {
  return Descriptor{.media_type = std::move(media_type),
                    .digest = digest,
                    .size = size,
                    .artifact_type = {},
                    .annotations = {},
                    .platform = std::nullopt,
                    .os_features = {},
                    .data = std::nullopt};
}

// Content that has no need of the store.
std::optional<std::string> ContentOf(const Descriptor& descriptor) {
  if (descriptor.size == 0 && descriptor.digest == Digest::Of({}, descriptor.digest.algorithm())) {
    return std::string();
  }
  return KnownContent(descriptor);
}

std::string PlatformName(const Descriptor& child) {
  if (child.platform) return child.platform->ToString();
  return child.artifact_type.empty() ? child.digest.ToString() : child.artifact_type;
}

class Exporter {
 public:
  Exporter(PullThrough& pull, const ExportOptions& options, const RequestContext& context)
      : pull_(pull), blobs_(pull.store().blobs()), options_(options), context_(context) {}

  // What the layout needs for a reference; pulls what is missing.
  Result<void> Plan(const Reference& reference) {
    const auto wrapped = [&](Error error) {
      return Fail(std::move(error).Wrap(reference.ToString()));
    };
    Result<Resolution> resolved = pull_.Resolve(reference, context_);
    if (!resolved) return wrapped(std::move(resolved).error());
    const Resolution& resolution = *resolved;
    Result<std::shared_ptr<const Package>> opened =
        pull_.Open(reference.repository(), resolution.digest, context_);
    if (!opened) return wrapped(std::move(opened).error());
    const std::shared_ptr<const Package>& package = *opened;
    // Raw blobs of a package that was just pulled are in the store from then on.
    OCIFS_RETURN_IF_ERROR(pull_.Flush(context_));
    packages_.push_back(package);
    exported_.push_back(ExportedPackage{reference, resolution.digest, {}, 0, {}, {}});
    counted_.clear();
    const std::string& index = package->index_bytes();
    std::string artifact_type;
    if (index.empty()) {
      const Manifest& manifest = package->manifest();
      exported_.back().media_type = manifest.media_type;
      if (!manifest.is_image()) artifact_type = manifest.artifact_type;
      OCIFS_RETURN_IF_ERROR(
          PlanRequired(package->root_digest(), package->manifest_bytes(), manifest));
    } else {
      OCIFS_ASSIGN_OR_RETURN(const auto parsed, ParseDocument(resolution.digest, index, {}));
      exported_.back().media_type = std::get<ImageIndex>(parsed).media_type;
      if (const Result<Json> json = Json::Parse(index)) {
        artifact_type = json->FindText("artifactType");
      }
      OCIFS_ASSIGN_OR_RETURN([[maybe_unused]] const bool any,
                             PlanIndex(resolution.digest, index, std::get<ImageIndex>(parsed), 0));
    }
    Descriptor descriptor =
        PlainDescriptor(resolution.digest, exported_.back().media_type,
                        index.empty() ? package->manifest_bytes().size() : index.size());
    descriptor.artifact_type = std::move(artifact_type);
    entries_.push_back(LayoutEntry{reference.ToString(), std::move(descriptor)});
    return {};
  }

  Result<std::vector<ExportedPackage>> Write(LayoutWriter& writer) {
    for (const auto& [digest, blob] : planned_) {
      OCIFS_ASSIGN_OR_RETURN(const bool there, writer.Has(blob.descriptor));
      if (!there) OCIFS_RETURN_IF_ERROR(Copy(writer, blob));
    }
    OCIFS_RETURN_IF_ERROR(writer.Finish(entries_));
    return std::move(exported_);
  }

 private:
  ExportedPackage& current() { return exported_.back(); }

  void Add(const Descriptor& descriptor, std::optional<std::string> content,
           std::string_view kind) {
    if (counted_.insert(descriptor.digest).second) current().bytes += descriptor.size;
    if (planned_.contains(descriptor.digest)) return;
    planned_.emplace(descriptor.digest,
                     PlannedBlob{descriptor, std::move(content), packages_.back().get(),
                                 Name(descriptor, kind)});
  }
  std::string Name(const Descriptor& descriptor, std::string_view kind) {
    return std::string(kind) + " " + descriptor.digest.ToString() + " of " +
           current().reference.ToString();
  }

  void AddDocument(const Digest& digest, const std::string& media_type, const std::string& bytes) {
    Add(PlainDescriptor(digest, media_type, bytes.size()), bytes, "manifest");
  }
  void AddManifest(const Digest& digest, const std::string& bytes, const Manifest& manifest) {
    AddDocument(digest, manifest.media_type, bytes);
    Add(manifest.config, ContentOf(manifest.config), "config");
    for (const Descriptor& layer : manifest.layers) Add(layer, ContentOf(layer), "layer");
  }

  // Whether the store has the blob, whole or not.
  Result<bool> IsStored(const Descriptor& blob) {
    if (planned_.contains(blob.digest) || ContentOf(blob)) return true;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> record,
                           OrMissing(pull_.store().index().FindBlob(blob.digest)));
    return record.has_value();
  }
  Result<bool> IsComplete(const Manifest& manifest) {
    OCIFS_ASSIGN_OR_RETURN(bool complete, IsStored(manifest.config));
    for (const Descriptor& layer : manifest.layers) {
      if (!complete) break;
      OCIFS_ASSIGN_OR_RETURN(complete, IsStored(layer));
    }
    return complete;
  }

  // A manifest that has to be in the layout.
  Result<void> PlanRequired(const Digest& digest, const std::string& bytes,
                            const Manifest& manifest) {
    OCIFS_RETURN_IF_ERROR(Require(manifest.config, "config"));
    for (const Descriptor& layer : manifest.layers) OCIFS_RETURN_IF_ERROR(Require(layer, "layer"));
    AddManifest(digest, bytes, manifest);
    return {};
  }
  Result<void> Require(const Descriptor& blob, std::string_view kind) {
    OCIFS_ASSIGN_OR_RETURN(const bool stored, IsStored(blob));
    if (stored) return {};
    if (options_.dropped == ExportOptions::Dropped::kRefuse) {
      return Fail(ErrorCode::kNotFound,
                  Name(blob, kind) +
                      " was dropped to save space; run again with --refetch (needs "
                      "the registry)");
    }
    Result<void> fetched = Fetch(blob, *packages_.back());
    if (!fetched) return Fail(std::move(fetched).error().Wrap(Name(blob, kind)));
    return {};
  }
  // Reading a byte of a blob gets all of it into the store.
  Result<void> Fetch(const Descriptor& blob, const Package& package) {
    std::array<std::byte, 1> byte{};
    const Result<size_t> read = pull_.ReadBlob(package, blob, 0, byte, context_);
    if (!read) return Fail(read.error());
    // A store without room serves what it does not keep.
    OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> record,
                           OrMissing(pull_.store().index().FindBlob(blob.digest)));
    if (record) return {};
    return Fail(ErrorCode::kNoSpace, "the store has no room to keep it for the export");
  }

  // False when the store has nothing below the index.
  Result<bool> PlanIndex(const Digest& digest, const std::string& bytes, const ImageIndex& index,
                         int depth) {
    bool any = false;
    for (const Descriptor& child : index.manifests) {
      OCIFS_ASSIGN_OR_RETURN(const bool present, PlanChild(child, depth));
      (present ? current().platforms : current().absent_platforms).push_back(PlatformName(child));
      any = any || present;
    }
    if (any || depth == 0) AddDocument(digest, index.media_type, bytes);
    return any;
  }

  Result<bool> PlanChild(const Descriptor& child, int depth) {
    if (counted_.contains(child.digest)) return true;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                           blobs_.ReadDocument(child.digest));
    if (!bytes) return false;
    const auto parsed = ParseDocument(child.digest, *bytes, child.media_type);
    if (!parsed) return false;
    if (const ImageIndex* const index = std::get_if<ImageIndex>(&*parsed)) {
      if (depth + 1 == kMaxIndexDepth) return false;
      return PlanIndex(child.digest, *bytes, *index, depth + 1);
    }
    const Manifest& manifest = std::get<Manifest>(*parsed);
    // One that the mount shows is not left out because its raw blobs are gone.
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                           OrMissing(pull_.store().index().FindPackage(child.digest)));
    if (record || child.digest == packages_.back()->manifest_digest()) {
      OCIFS_RETURN_IF_ERROR(PlanRequired(child.digest, *bytes, manifest));
      return true;
    }
    OCIFS_ASSIGN_OR_RETURN(const bool complete, IsComplete(manifest));
    if (complete) AddManifest(child.digest, *bytes, manifest);
    return complete;
  }

  Result<void> Copy(LayoutWriter& writer, const PlannedBlob& blob) {
    const Descriptor& descriptor = blob.descriptor;
    if (blob.content) {
      OCIFS_RETURN_IF_ERROR(writer.BeginBlob(descriptor.digest, blob.content->size()));
      OCIFS_RETURN_IF_ERROR(writer.Append(AsBytes(*blob.content)));
      return writer.EndBlob();
    }
    OCIFS_ASSIGN_OR_RETURN(bool whole, TryCopy(writer, descriptor));
    if (whole) return {};
    if (pull_.options().offline) {
      return Fail(ErrorCode::kCorrupt,
                  blob.what + " is damaged in the store, and ocifs is offline");
    }
    Log(LogLevel::kWarning, blob.what + " is damaged in the store; it is fetched again");
    OCIFS_RETURN_IF_ERROR(blobs_.Drop(descriptor.digest));
    if (Result<void> fetched = Fetch(descriptor, *blob.package); !fetched) {
      return Fail(std::move(fetched).error().Wrap(blob.what + " is damaged in the store"));
    }
    OCIFS_ASSIGN_OR_RETURN(whole, TryCopy(writer, descriptor));
    if (whole) return {};
    return Fail(ErrorCode::kCorrupt, blob.what + " is damaged in the store again");
  }

  // False when what the store has is not the blob.
  Result<bool> TryCopy(LayoutWriter& writer, const Descriptor& blob) {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> stored, blobs_.OpenStream(blob.digest));
    if (stored == nullptr) return false;
    OCIFS_RETURN_IF_ERROR(writer.BeginBlob(blob.digest, blob.size));
    const std::unique_ptr<ByteStream> verified =
        VerifyBlob(std::move(stored), blob, nullptr, nullptr);
    while (true) {
      const Result<std::span<const std::byte>> piece = verified->Next();
      if (!piece) {
        const ErrorCode code = piece.error().code;
        if (code == ErrorCode::kCorrupt || code == ErrorCode::kStoreIo) return false;
        return Fail(piece.error());
      }
      if (piece->empty()) break;
      OCIFS_RETURN_IF_ERROR(writer.Append(*piece));
    }
    OCIFS_RETURN_IF_ERROR(writer.EndBlob());
    return true;
  }

  PullThrough& pull_;
  BlobStore& blobs_;
  const ExportOptions& options_;
  const RequestContext& context_;
  std::vector<std::shared_ptr<const Package>> packages_;
  std::vector<ExportedPackage> exported_;
  std::vector<LayoutEntry> entries_;
  std::map<Digest, PlannedBlob> planned_;  // in the order that the writer wants
  std::set<Digest> counted_;               // in the bytes of the package being planned
};

}  // namespace

Result<std::vector<ExportedPackage>> ExportLayout(PullThrough& pull,
                                                  std::vector<Reference> references,
                                                  const std::string& destination,
                                                  const ExportOptions& options,
                                                  const RequestContext& context) {
  std::sort(references.begin(), references.end(),
            [](const Reference& a, const Reference& b) { return a.ToString() < b.ToString(); });
  references.erase(std::unique(references.begin(), references.end()), references.end());
  // First, so that a wrong destination is told before anything is pulled.
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<LayoutWriter> writer,
                         LayoutWriter::Create(destination, options.modes));
  Exporter exporter(pull, options, context);
  for (const Reference& reference : references) OCIFS_RETURN_IF_ERROR(exporter.Plan(reference));
  return exporter.Write(*writer);
}

}  // namespace ocifs::store
