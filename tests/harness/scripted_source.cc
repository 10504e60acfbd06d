#include "tests/harness/scripted_source.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stop_token>

#include "store/platform.h"
#include "store/text.h"

namespace ocifs::harness {
namespace {

using store::Descriptor;
using store::Digest;
using store::ErrorCode;
using store::Fail;
using store::FetchContext;
using store::MutexLock;
using store::Reference;
using store::Registry;
using store::RemoteDocument;
using store::Repository;
using store::Result;
using store::TagPage;

template <typename T>
T Must(Result<T> result) {
  if (!result) {
    std::cerr << "ScriptedSource: " << result.error().message << '\n';
    std::abort();
  }
  return std::move(*result);
}

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace

class ScriptedSource::Stream : public store::BlobStream {
 public:
  Stream(ScriptedSource& source, FetchContext context, std::string bytes)
      : source_(source), context_(std::move(context)), bytes_(std::move(bytes)) {}

  // In pieces, the first of which waits if blobs are held.
  Result<std::span<const std::byte>> Next() override {
    if (!entered_) {
      entered_ = true;
      if (auto entered = source_.Enter(Call::kBlob, context_); !entered) {
        return Fail(std::move(entered).error());
      }
    }
    if (context_.stop.stop_requested()) return Fail(ErrorCode::kCancelled, "stopped");
    constexpr size_t kPiece = size_t{64} * 1024;
    const std::string_view piece = std::string_view(bytes_).substr(offset_, kPiece);
    offset_ += piece.size();
    return store::AsBytes(piece);
  }

 private:
  ScriptedSource& source_;
  const FetchContext context_;
  const std::string bytes_;
  size_t offset_ = 0;
  bool entered_ = false;
};

// --- What there is ---

void ScriptedSource::AddRegistry(std::string_view name) {
  MutexLock lock(mutex_);
  registries_.insert(std::string(name));
}

std::string ScriptedSource::AddBlob(std::string bytes) {
  const std::string digest = Digest::Of(store::AsBytes(bytes)).ToString();
  const std::string text =
      "\"digest\":" + Quoted(digest) + ",\"size\":" + std::to_string(bytes.size());
  MutexLock lock(mutex_);
  blobs_[digest] = std::move(bytes);
  return text;
}

Digest ScriptedSource::AddManifest(std::string_view reference, std::string bytes,
                                   std::string_view media_type) {
  const Reference parsed = Must(Reference::Parse(reference));
  const Digest digest = Digest::Of(store::AsBytes(bytes));
  MutexLock lock(mutex_);
  registries_.insert(parsed.repository().registry().name());
  Contents& contents = repositories_[parsed.repository().ToString()];
  contents.manifests[digest.ToString()] = RemoteDocument{std::move(bytes), std::string(media_type)};
  if (parsed.tag()) contents.tags[parsed.tag()->name()] = digest.ToString();
  return digest;
}

Digest ScriptedSource::AddImage(std::string_view reference, const std::vector<std::string>& tars) {
  std::string diff_ids;
  std::string layers;
  std::vector<std::string> digests;
  for (const std::string& tar : tars) {
    const std::string digest = Digest::Of(store::AsBytes(tar)).ToString();
    digests.push_back(digest);
    const std::string separator = diff_ids.empty() ? "" : ",";
    diff_ids += separator + Quoted(digest);
    layers += separator + "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\"," +
              AddBlob(tar) + "}";
  }
  const std::string config = AddBlob(
      "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},"
      "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[" +
      diff_ids + "]}}");
  const Digest digest =
      AddManifest(reference,
                  "{\"schemaVersion\":2,\"mediaType\":" + Quoted(store::media_type::kOciManifest) +
                      ",\"config\":{\"mediaType\":" + Quoted(store::media_type::kOciConfig) + "," +
                      config + "},\"layers\":[" + layers + "]}",
                  store::media_type::kOciManifest);
  MutexLock lock(mutex_);
  layers_[digest.ToString()] = std::move(digests);
  return digest;
}

Digest ScriptedSource::AddArtifact(std::string_view reference, const std::vector<File>& files,
                                   const Pairs& annotations) {
  std::string layers;
  std::vector<std::string> digests;
  for (const File& file : files) {
    if (!layers.empty()) layers += ",";
    digests.push_back(Digest::Of(store::AsBytes(file.content)).ToString());
    layers += "{\"mediaType\":" + Quoted(file.media_type) + "," + AddBlob(file.content);
    if (!file.title.empty()) {
      layers += ",\"annotations\":{\"org.opencontainers.image.title\":" + Quoted(file.title) + "}";
    }
    layers += "}";
  }
  std::string pairs;
  for (const auto& [key, value] : annotations) {
    pairs += (pairs.empty() ? "" : ",") + Quoted(key) + ":" + Quoted(value);
  }
  const Digest digest = AddManifest(
      reference,
      "{\"schemaVersion\":2,\"mediaType\":" + Quoted(store::media_type::kOciManifest) +
          ",\"artifactType\":\"application/vnd.example\",\"config\":{\"mediaType\":" +
          Quoted(store::media_type::kOciEmpty) + "," + AddBlob("{}") +
          ",\"data\":\"e30=\"},\"layers\":[" + layers + "],\"annotations\":{" + pairs + "}}",
      store::media_type::kOciManifest);
  MutexLock lock(mutex_);
  layers_[digest.ToString()] = std::move(digests);
  return digest;
}

Digest ScriptedSource::AddIndex(std::string_view reference, const Digest& manifest) {
  const Reference parsed = Must(Reference::Parse(reference));
  size_t size = 0;
  {
    MutexLock lock(mutex_);
    size = repositories_[parsed.repository().ToString()]
               .manifests.at(manifest.ToString())
               .bytes.size();
  }
  const store::Platform host = store::Platform::Host();
  return AddManifest(
      reference,
      "{\"schemaVersion\":2,\"mediaType\":" + Quoted(store::media_type::kOciIndex) +
          ",\"manifests\":[{\"mediaType\":" + Quoted(store::media_type::kOciManifest) +
          ",\"digest\":" + Quoted(manifest.ToString()) + ",\"size\":" + std::to_string(size) +
          ",\"platform\":{\"os\":" + Quoted(host.os) +
          ",\"architecture\":" + Quoted(host.architecture) + "}}]}",
      store::media_type::kOciIndex);
}

void ScriptedSource::Tag(std::string_view reference, const Digest& manifest) {
  const Reference parsed = Must(Reference::Parse(reference));
  MutexLock lock(mutex_);
  repositories_[parsed.repository().ToString()].tags[parsed.tag()->name()] = manifest.ToString();
}

void ScriptedSource::RemoveTag(std::string_view reference) {
  const Reference parsed = Must(Reference::Parse(reference));
  MutexLock lock(mutex_);
  repositories_[parsed.repository().ToString()].tags.erase(parsed.tag()->name());
}

void ScriptedSource::AddListedTag(std::string_view reference) {
  const Reference parsed = Must(Reference::Parse(reference));
  MutexLock lock(mutex_);
  registries_.insert(parsed.repository().registry().name());
  repositories_[parsed.repository().ToString()].tags[parsed.tag()->name()] = "";
}

void ScriptedSource::Damage(const Digest& blob) {
  MutexLock lock(mutex_);
  for (char& c : blobs_.at(blob.ToString())) c = static_cast<char>(c ^ 1);
}

Digest ScriptedSource::LayerOf(const Digest& manifest, size_t position) const {
  MutexLock lock(mutex_);
  return Must(Digest::Parse(layers_.at(manifest.ToString()).at(position)));
}

// --- How it answers ---

void ScriptedSource::Hold(Call call) {
  MutexLock lock(mutex_);
  ScriptOf(call).held = true;
}

void ScriptedSource::Release(Call call) {
  MutexLock lock(mutex_);
  ScriptOf(call).held = false;
  changed_.NotifyAll();
}

void ScriptedSource::FailWith(Call call, std::optional<store::Error> error) {
  MutexLock lock(mutex_);
  ScriptOf(call).error = std::move(error);
}

void ScriptedSource::FailAllWith(const std::optional<store::Error>& error) {
  MutexLock lock(mutex_);
  for (Script& script : scripts_) script.error = error;
}

void ScriptedSource::Refuse(std::string_view repository) {
  MutexLock lock(mutex_);
  refused_.insert(std::string(repository));
}

void ScriptedSource::SetPageSize(size_t size) {
  MutexLock lock(mutex_);
  page_size_ = size;
}

void ScriptedSource::AllowListing(std::string_view registry) {
  MutexLock lock(mutex_);
  listing_.insert(std::string(registry));
  registries_.insert(std::string(registry));
}

void ScriptedSource::SetCatalog(std::string_view registry, std::vector<std::string> paths) {
  MutexLock lock(mutex_);
  catalogs_[std::string(registry)] = std::move(paths);
  registries_.insert(std::string(registry));
}

// --- What was asked ---

size_t ScriptedSource::count(Call call) const {
  MutexLock lock(mutex_);
  return ScriptOf(call).count;
}

size_t ScriptedSource::total() const {
  MutexLock lock(mutex_);
  size_t sum = 0;
  for (const Script& script : scripts_) sum += script.count;
  return sum;
}

size_t ScriptedSource::waiting(Call call) const {
  MutexLock lock(mutex_);
  return ScriptOf(call).waiting;
}

store::Requester ScriptedSource::last_requester() const {
  MutexLock lock(mutex_);
  return last_requester_;
}

Result<void> ScriptedSource::Enter(Call call, const FetchContext& context) {
  const std::stop_callback wake(context.stop, [this] {
    MutexLock lock(mutex_);
    changed_.NotifyAll();
  });
  MutexLock lock(mutex_);
  Script& script = ScriptOf(call);
  ++script.count;
  last_requester_ = context.requester;
  ++script.waiting;
  while (script.held && !context.stop.stop_requested()) changed_.Wait(mutex_);
  --script.waiting;
  if (context.stop.stop_requested()) return Fail(ErrorCode::kCancelled, "stopped");
  if (script.error) return Fail(*script.error);
  return {};
}

// --- store::Source ---

Result<void> ScriptedSource::FindRegistry(const Registry& registry, const FetchContext& context) {
  OCIFS_RETURN_IF_ERROR(Enter(Call::kFindRegistry, context));
  MutexLock lock(mutex_);
  if (registries_.contains(registry.name())) return {};
  return Fail(ErrorCode::kNotFound, "no host " + registry.name());
}

Result<std::optional<RemoteDocument>> ScriptedSource::FetchManifest(
    const Reference& reference, const std::optional<Digest>& known, const FetchContext& context) {
  OCIFS_RETURN_IF_ERROR(Enter(Call::kManifest, context));
  MutexLock lock(mutex_);
  const std::string name = reference.repository().ToString();
  if (refused_.contains(name)) return Fail(ErrorCode::kDenied, "denied: " + name);
  const auto missing = [&] {
    return Fail(ErrorCode::kNotFound, "no manifest " + reference.ToString());
  };
  const auto repository = repositories_.find(name);
  if (repository == repositories_.end()) return missing();
  std::string digest;
  if (reference.digest()) {
    digest = reference.digest()->ToString();
  } else {
    const auto tag = repository->second.tags.find(reference.tag()->name());
    if (tag == repository->second.tags.end()) return missing();
    digest = tag->second;
  }
  if (known && known->ToString() == digest) return std::optional<RemoteDocument>();
  const auto manifest = repository->second.manifests.find(digest);
  if (manifest == repository->second.manifests.end()) return missing();
  return std::optional<RemoteDocument>(manifest->second);
}

Result<std::unique_ptr<store::BlobStream>> ScriptedSource::OpenBlob(
    const Repository& /*repository*/, const Descriptor& blob, const FetchContext& context) {
  MutexLock lock(mutex_);
  const auto found = blobs_.find(blob.digest.ToString());
  if (found == blobs_.end()) {
    return Fail(ErrorCode::kRemote, "no blob " + blob.digest.ToString());
  }
  return std::unique_ptr<store::BlobStream>(
      std::make_unique<Stream>(*this, context, found->second));
}

Result<TagPage> ScriptedSource::ListTags(const Repository& repository, std::string_view cursor,
                                         const FetchContext& context) {
  OCIFS_RETURN_IF_ERROR(Enter(Call::kTags, context));
  MutexLock lock(mutex_);
  const std::string name = repository.ToString();
  if (refused_.contains(name)) return Fail(ErrorCode::kDenied, "denied: " + name);
  const auto found = repositories_.find(name);
  if (found == repositories_.end()) return Fail(ErrorCode::kNotFound, "no repository " + name);
  TagPage page;
  const auto& tags = found->second.tags;
  auto tag = cursor.empty() ? tags.begin() : tags.upper_bound(std::string(cursor));
  for (; tag != tags.end() && (page_size_ == 0 || page.tags.size() < page_size_); ++tag) {
    page.tags.push_back(tag->first);
  }
  if (tag != tags.end()) page.next = page.tags.back();
  return page;
}

bool ScriptedSource::HasCatalog(const Registry& registry) const {
  MutexLock lock(mutex_);
  return catalogs_.contains(registry.name());
}

Result<std::vector<std::string>> ScriptedSource::ListCatalog(const Registry& registry,
                                                             const FetchContext& context) {
  OCIFS_RETURN_IF_ERROR(Enter(Call::kCatalog, context));
  MutexLock lock(mutex_);
  return catalogs_.at(registry.name());
}

Result<std::vector<std::string>> ScriptedSource::ListRepositories(const Registry& registry,
                                                                  const FetchContext& /*context*/) {
  MutexLock lock(mutex_);
  if (!listing_.contains(registry.name())) {
    return Fail(ErrorCode::kUnsupported, registry.name() + " has no list of repositories");
  }
  std::vector<std::string> paths;
  const std::string prefix = registry.name() + "/";
  for (const auto& [name, contents] : repositories_) {
    if (name.starts_with(prefix)) paths.push_back(name.substr(prefix.size()));
  }
  return paths;
}

}  // namespace ocifs::harness
