#include "tests/harness/fake_registry.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "store/json.h"
#include "store/text.h"
#include "tests/harness/registry_answer.h"

namespace ocifs::testing {
namespace {

using store::Digest;
using store::JsonQuote;
using store::MutexLock;

constexpr std::string_view kEmptyConfig = "{}";

std::string AnnotationsJson(const std::map<std::string, std::string>& annotations) {
  std::string json = "{";
  for (const auto& [key, value] : annotations) {
    if (json.size() > 1) json += ",";
    json += JsonQuote(key) + ":" + JsonQuote(value);
  }
  return json + "}";
}

std::string DescriptorJson(const store::Descriptor& descriptor, const std::string& title) {
  std::string json = R"({"mediaType":)" + JsonQuote(descriptor.media_type) + R"(,"digest":")" +
                     descriptor.digest.ToString() + R"(","size":)" +
                     std::to_string(descriptor.size);
  if (!title.empty()) {
    json += R"(,"annotations":{"org.opencontainers.image.title":)" + JsonQuote(title) + "}";
  }
  return json + "}";
}

std::string Joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) {
    if (&item != &items.front()) text += ",";
    text += item;
  }
  return text;
}

// For a query parameter; '/' too, as docker-registry does.
std::string PercentEncode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
    } else {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kDigits[byte / 16], kDigits[byte % 16]};
    }
  }
  return out;
}

// The smaller of what the server and the client allow.
size_t PageSize(const ServerRequest& request, size_t page_size) {
  const size_t limit = page_size == 0 ? SIZE_MAX : page_size;
  const auto asked = store::ParseDecimal(request.Query("n").value_or(""), SIZE_MAX);
  return asked ? std::min<size_t>(limit, *asked) : limit;
}

std::string IndexOf(const std::vector<std::string>& descriptors) {
  return R"({"schemaVersion":2,"mediaType":)" + JsonQuote(store::media_type::kOciIndex) +
         R"(,"manifests":[)" + Joined(descriptors) + "]}";
}

template <typename T>
T OrThrow(store::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return *std::move(result);
}

}  // namespace

FakeRegistry::FakeRegistry(Transport transport, CertificateFault fault)
    : server_([this](const ServerRequest& request) { return Handle(request); }, transport, fault) {}

std::string FakeRegistry::url() const {
  return (server_.authority_pem().empty() ? "http://" : "https://") + host();
}
std::string FakeRegistry::localhost_url() const {
  return (server_.authority_pem().empty() ? "http://localhost:" : "https://localhost:") +
         std::to_string(server_.port());
}
store::Registry FakeRegistry::registry() const { return OrThrow(store::Registry::Parse(host())); }
store::Repository FakeRegistry::repository(std::string_view path) const {
  return OrThrow(store::Repository::Parse(registry(), path));
}
store::Reference FakeRegistry::reference(std::string_view path,
                                         std::string_view tag_or_digest) const {
  if (auto digest = Digest::Parse(tag_or_digest)) return {repository(path), *digest};
  return {repository(path), OrThrow(store::Tag::Parse(tag_or_digest))};
}

std::shared_ptr<RegistryContent> FakeRegistry::content() const {
  const MutexLock lock(mutex_);
  return content_;
}

store::Descriptor FakeRegistry::AddBlob(const std::string& repository, std::string bytes,
                                        const std::string& media_type) {
  store::Descriptor descriptor{.media_type = media_type,
                               .digest = Digest::Of(store::AsBytes(bytes)),
                               .size = bytes.size(),
                               .artifact_type = {},
                               .annotations = {},
                               .platform = {},
                               .os_features = {},
                               .data = {}};
  content()->PutBlob(repository, descriptor.digest,
                     std::make_shared<const std::string>(std::move(bytes)));
  return descriptor;
}

Digest FakeRegistry::AddManifest(const std::string& repository, const std::string& tag,
                                 std::string bytes, const std::string& media_type) {
  const Digest digest = Digest::Of(store::AsBytes(bytes));
  const auto content = this->content();
  content->PutManifest(repository, digest,
                       {std::make_shared<const std::string>(std::move(bytes)), media_type});
  if (!tag.empty()) content->PutTag(repository, tag, digest);
  return digest;
}

FakeArtifact FakeRegistry::AddManifestOf(const std::string& repository, const std::string& tag,
                                         std::vector<FakeLayer> layers,
                                         const std::string& more_fields) {
  store::Descriptor config =
      AddBlob(repository, std::string(kEmptyConfig), std::string(store::media_type::kOciEmpty));
  std::string manifest = R"({"schemaVersion":2,"mediaType":)" +
                         JsonQuote(store::media_type::kOciManifest) + R"(,"config":)" +
                         DescriptorJson(config, "") + R"(,"layers":[)";
  std::vector<store::Descriptor> descriptors;
  for (FakeLayer& layer : layers) {
    if (!descriptors.empty()) manifest += ",";
    descriptors.push_back(AddBlob(repository, std::move(layer.bytes), layer.media_type));
    manifest += DescriptorJson(descriptors.back(), layer.title);
  }
  manifest += "]" + more_fields + "}";
  const Digest digest =
      AddManifest(repository, tag, manifest, std::string(store::media_type::kOciManifest));
  return {digest, std::move(manifest), std::move(config), std::move(descriptors)};
}

FakeArtifact FakeRegistry::AddArtifact(const std::string& repository, const std::string& tag,
                                       std::vector<FakeLayer> layers) {
  return AddManifestOf(repository, tag, std::move(layers), "");
}

FakeArtifact FakeRegistry::AddReferrer(const std::string& repository, const Digest& subject,
                                       const std::string& artifact_type,
                                       const std::map<std::string, std::string>& annotations,
                                       std::vector<FakeLayer> layers) {
  const auto content = this->content();
  const auto manifest = content->FindManifest(subject.ToString());
  // A subject need not be there; its size is then anything.
  const std::string subject_type =
      manifest ? manifest->media_type : std::string(store::media_type::kOciManifest);
  const std::string described = R"("artifactType":)" + JsonQuote(artifact_type) +
                                R"(,"annotations":)" + AnnotationsJson(annotations);
  if (layers.empty()) {
    // image-spec, "Guidelines for Artifact Usage": an artifact without content has one empty layer.
    layers.push_back({.bytes = std::string(kEmptyConfig),
                      .media_type = std::string(store::media_type::kOciEmpty)});
  }
  FakeArtifact artifact =
      AddManifestOf(repository, "", std::move(layers),
                    R"(,"subject":{"mediaType":)" + JsonQuote(subject_type) + R"(,"digest":")" +
                        subject.ToString() + R"(","size":)" +
                        std::to_string(manifest ? manifest->bytes->size() : 2) + "}," + described);
  content->PutReferrer(repository, subject,
                       {R"({"mediaType":)" + JsonQuote(store::media_type::kOciManifest) +
                            R"(,"digest":")" + artifact.digest.ToString() + R"(","size":)" +
                            std::to_string(artifact.manifest.size()) + "," + described + "}",
                        artifact_type});
  KeepFallbackTag(repository, subject);
  return artifact;
}

// As a client does whose push was not answered with OCI-Subject.
void FakeRegistry::KeepFallbackTag(const std::string& repository, const Digest& subject) {
  std::shared_ptr<RegistryContent> content;
  {
    const MutexLock lock(mutex_);
    if (referrers_api_ != ReferrersApi::kOff) return;
    content = content_;
  }
  std::vector<std::string> descriptors;
  for (auto& referrer : content->Referrers(repository, subject.ToString())) {
    descriptors.push_back(std::move(referrer.descriptor));
  }
  const std::string name = subject.ToString();
  const size_t colon = name.find(':');
  AddManifest(repository,
              name.substr(0, std::min<size_t>(colon, 32)) + "-" + name.substr(colon + 1, 64),
              IndexOf(descriptors), std::string(store::media_type::kOciIndex));
}

void FakeRegistry::AddTags(const std::string& repository, const std::vector<std::string>& tags,
                           const Digest& manifest) {
  const auto content = this->content();
  for (const std::string& tag : tags) content->PutTag(repository, tag, manifest);
}
void FakeRegistry::RemoveTag(const std::string& repository, const std::string& tag) {
  content()->RemoveTag(repository, tag);
}
void FakeRegistry::RemoveBlob(const Digest& digest) { content()->RemoveBlob(digest); }
void FakeRegistry::SetPaging(Paging paging) {
  const MutexLock lock(mutex_);
  paging_ = std::move(paging);
}
void FakeRegistry::SetTagPageSize(size_t size) {
  const MutexLock lock(mutex_);
  paging_.page_size = size;
}
void FakeRegistry::ServeCatalog() {
  const MutexLock lock(mutex_);
  catalog_ = true;
}
void FakeRegistry::SetReferrersApi(ReferrersApi api) {
  const MutexLock lock(mutex_);
  referrers_api_ = api;
}
void FakeRegistry::MirrorOf(const FakeRegistry& upstream, MirrorOptions options) {
  std::shared_ptr<RegistryContent> content = upstream.content();
  if (options.behaviour == MirrorOptions::Behaviour::kStale) content = content->Copy();
  const MutexLock lock(mutex_);
  content_ = std::move(content);
  mirror_ = std::move(options);
  upstream_host_ = upstream.host();
}
void FakeRegistry::RedirectBlobsTo(BlobStorage* storage, int status) {
  const MutexLock lock(mutex_);
  storage_ = storage;
  storage_status_ = status;
}
void FakeRegistry::RequireBasic(std::string username, std::string password) {
  const MutexLock lock(mutex_);
  basic_ = Basic{std::move(username), std::move(password)};
}
void FakeRegistry::RequireBearer(BearerDemand demand) {
  const MutexLock lock(mutex_);
  bearer_ = std::move(demand);
}
void FakeRegistry::SetTokenServer(TokenServer token_server) {
  const MutexLock lock(mutex_);
  issuer_.Configure(std::move(token_server));
}
void FakeRegistry::RevokeTokens() {
  const MutexLock lock(mutex_);
  issuer_.Revoke();
}
void FakeRegistry::SetClock(TestClock clock) {
  const MutexLock lock(mutex_);
  issuer_.SetClock(std::move(clock));
}
size_t FakeRegistry::tokens_issued() const {
  const MutexLock lock(mutex_);
  return issuer_.issued();
}
std::string FakeRegistry::refresh_token() const {
  const MutexLock lock(mutex_);
  return issuer_.refresh_token();
}
void FakeRegistry::Inject(Fault fault) {
  const MutexLock lock(mutex_);
  faults_.Add(std::move(fault));
}
void FakeRegistry::ClearFaults() {
  const MutexLock lock(mutex_);
  faults_.Clear();
}
size_t FakeRegistry::faults_struck() const {
  const MutexLock lock(mutex_);
  return faults_.struck();
}
void FakeRegistry::SetRanges(RangeBehaviour behaviour) {
  const MutexLock lock(mutex_);
  ranges_ = behaviour;
}
std::vector<ServerRequest> FakeRegistry::requests() const {
  const MutexLock lock(mutex_);
  return requests_;
}
std::vector<std::string> FakeRegistry::request_lines() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> lines;
  lines.reserve(requests_.size());
  for (const ServerRequest& request : requests_)
    lines.push_back(request.method + " " + request.path);
  return lines;
}
size_t FakeRegistry::CountRequests(std::string_view path_part) const {
  const MutexLock lock(mutex_);
  return static_cast<size_t>(
      std::count_if(requests_.begin(), requests_.end(), [&](const ServerRequest& request) {
        return request.path.find(path_part) != std::string::npos;
      }));
}
std::vector<std::string> FakeRegistry::ranges() const {
  const MutexLock lock(mutex_);
  return RangesOf(requests_);
}
std::vector<std::string> FakeRegistry::namespaces() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> namespaces;
  namespaces.reserve(requests_.size());
  for (const ServerRequest& request : requests_) {
    namespaces.push_back(request.Query("ns").value_or(""));
  }
  return namespaces;
}
void FakeRegistry::ForgetRequests() {
  const MutexLock lock(mutex_);
  requests_.clear();
}

ServerResponse FakeRegistry::Handle(const ServerRequest& request) {
  const MutexLock lock(mutex_);
  requests_.push_back(request);
  if (std::optional<ServerResponse> refusal = Refusal(request)) return *std::move(refusal);
  const Fault* const fault = faults_.Strike(request);
  ServerResponse response =
      Answer(request, fault != nullptr ? fault->ranges.value_or(ranges_) : ranges_);
  return fault != nullptr ? WithFault(*fault, std::move(response)) : response;
}

std::optional<ServerResponse> FakeRegistry::Refusal(const ServerRequest& request) {
  if (!request.path.starts_with("/v2/")) return std::nullopt;
  const std::string authorization = request.Header("authorization");
  if (basic_) {
    const std::string expected =
        "Basic " + store::ToBase64(basic_->username + ":" + basic_->password);
    if (authorization == expected) return std::nullopt;
    ServerResponse refusal = ErrorAnswer(401, "UNAUTHORIZED", "authentication required");
    refusal.headers.emplace_back("WWW-Authenticate", "Basic realm=\"fake\"");
    return refusal;
  }
  if (!bearer_) return std::nullopt;
  std::string scope;
  for (const std::string_view kind : {"/manifests/", "/blobs/", "/tags/", "/referrers/"}) {
    if (const size_t at = request.path.rfind(kind); at != std::string::npos) {
      scope = "repository:" + request.path.substr(4, at - 4) + ":pull";
      break;
    }
  }
  if (request.path == "/v2/_catalog") scope = "registry:catalog:*";
  std::string_view token_error;
  if (authorization.starts_with("Bearer ")) {
    switch (issuer_.Use(authorization.substr(7), scope, *bearer_)) {
      case TokenIssuer::Verdict::kGood:
        return std::nullopt;
      case TokenIssuer::Verdict::kInvalid:
        token_error = "invalid_token";
        break;
      case TokenIssuer::Verdict::kInsufficientScope:
        token_error = "insufficient_scope";
        break;
    }
  }
  ServerResponse refusal = ErrorAnswer(401, "UNAUTHORIZED", "authentication required");
  if (bearer_->silent_on_resources && !scope.empty()) return refusal;
  const std::string scheme = authority_pem().empty() ? "http://" : "https://";
  std::string challenge =
      "Bearer realm=\"" +
      (bearer_->realm.empty() ? scheme + request.Header("host") + "/token" : bearer_->realm) +
      "\",service=\"" + bearer_->service + "\"";
  if (!bearer_->scope.empty()) scope = bearer_->scope;
  if (!scope.empty()) challenge += ",scope=\"" + scope + "\"";
  if (!token_error.empty()) challenge.append(",error=\"").append(token_error).append("\"");
  refusal.headers.emplace_back("WWW-Authenticate", challenge);
  return refusal;
}

std::optional<ServerResponse> FakeRegistry::MirrorRefusal(const ServerRequest& request) {
  using Behaviour = MirrorOptions::Behaviour;
  if (!mirror_ || !request.path.starts_with("/v2/")) return std::nullopt;
  if (mirror_->behaviour == Behaviour::kBroken) {
    return ErrorAnswer(500, "UNKNOWN", "unknown error");
  }
  if (request.path == "/v2/") return std::nullopt;
  if (mirror_->behaviour == Behaviour::kEmpty ||
      (mirror_->namespace_required && request.Query("ns") != upstream_host_) ||
      (!mirror_->prefix.empty() && !request.path.starts_with("/v2/" + mirror_->prefix + "/"))) {
    return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known");
  }
  return std::nullopt;
}

ServerResponse FakeRegistry::Answer(const ServerRequest& request, RangeBehaviour ranges) {
  if (request.path == "/token") return issuer_.Answer(request);
  if (std::optional<ServerResponse> refusal = MirrorRefusal(request)) return *std::move(refusal);
  if (request.path == "/v2/") return JsonAnswer(200, "{}");
  if (request.path == "/v2/_catalog" && catalog_) return AnswerCatalog(request);
  if (request.path.starts_with("/v2/")) {
    std::string rest = request.path.substr(4);
    if (mirror_ && !mirror_->prefix.empty()) rest.erase(0, mirror_->prefix.size() + 1);
    if (const size_t at = rest.rfind("/manifests/"); at != std::string::npos) {
      return AnswerManifest(request, rest.substr(0, at), rest.substr(at + 11));
    }
    if (const size_t at = rest.rfind("/blobs/"); at != std::string::npos) {
      return AnswerBlob(request, rest.substr(at + 7), ranges);
    }
    if (rest.ends_with("/tags/list")) return AnswerTags(request, rest.substr(0, rest.size() - 10));
    if (const size_t at = rest.rfind("/referrers/");
        at != std::string::npos && referrers_api_ != ReferrersApi::kOff) {
      return AnswerReferrers(request, rest.substr(0, at), rest.substr(at + 11));
    }
  }
  return {.status = 404,
          .headers = {{"Content-Type", "text/plain; charset=utf-8"}},
          .body = std::make_shared<const std::string>("404 page not found\n")};
}

FakeRegistry::Bytes FakeRegistry::Served(Bytes bytes) {
  if (!mirror_ || mirror_->behaviour != MirrorOptions::Behaviour::kWrongBytes || bytes->empty()) {
    return bytes;
  }
  std::string wrong = *bytes;
  char& middle = wrong[wrong.size() / 2];
  middle = static_cast<char>(middle ^ 1);
  return std::make_shared<const std::string>(std::move(wrong));
}

ServerResponse FakeRegistry::AnswerManifest(const ServerRequest& request,
                                            const std::string& repository,
                                            const std::string& name) {
  if (!content_->HasRepository(repository)) {
    return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known");
  }
  const std::string digest = content_->FindTag(repository, name).value_or(name);
  const auto manifest = content_->FindManifest(digest);
  if (!manifest) return ErrorAnswer(404, "MANIFEST_UNKNOWN", "manifest unknown");
  // As docker-registry: a type that the client does not name is as good as absent.
  if (request.Header("accept").find(manifest->media_type) == std::string::npos) {
    return ErrorAnswer(404, "MANIFEST_UNKNOWN", "accept header does not support this manifest");
  }
  const std::string etag = "\"" + digest + "\"";
  ServerResponse response{.headers = {{"Content-Type", manifest->media_type},
                                      {"Docker-Content-Digest", digest},
                                      {"Docker-Distribution-Api-Version", "registry/2.0"},
                                      {"Etag", etag}}};
  if (request.Header("if-none-match") == etag) {
    response.status = 304;
  } else {
    response.body = Served(manifest->bytes);
  }
  return response;
}

ServerResponse FakeRegistry::AnswerBlob(const ServerRequest& request, const std::string& digest,
                                        RangeBehaviour ranges) {
  Bytes blob = content_->FindBlob(digest);
  if (!blob) return ErrorAnswer(404, "BLOB_UNKNOWN", "blob unknown to registry");
  blob = Served(std::move(blob));
  if (storage_ != nullptr) {
    return {
        .status = storage_status_,
        .headers = {{"Location", storage_->Sign(digest, blob)}, {"Docker-Content-Digest", digest}}};
  }
  return ServeBytes(
      request, blob, "\"" + digest + "\"",
      {{"Content-Type", "application/octet-stream"}, {"Docker-Content-Digest", digest}}, ranges);
}

FakeRegistry::Page FakeRegistry::TakeNames(
    const ServerRequest& request,
    const std::function<RegistryContent::Names(const std::optional<std::string>& last,
                                               size_t limit)>& names) {
  Page page{.size = PageSize(request, paging_.page_size)};
  std::string last;
  RegistryContent::Names found;
  if (paging_.next == Paging::Next::kEndless) {
    found.more = true;
    for (size_t i = 0; i < std::max<size_t>(paging_.page_size, 1); ++i) {
      // Ten digits keep them in the order that lists have.
      const std::string serial = std::to_string(++endless_names_);
      found.names.push_back("endless-" + std::string(10 - serial.size(), '0') + serial);
    }
  } else {
    found = names(request.Query("last"), page.size);
  }
  for (const std::string& name : found.names) {
    last = name;
    page.items.push_back(JsonQuote(name));
  }
  if (found.more && !last.empty()) page.last = last;
  return page;
}

void FakeRegistry::AddLink(const ServerRequest& request, const Page& page,
                           ServerResponse& response) {
  using Next = Paging::Next;
  const bool always = paging_.next == Next::kSame || paging_.next == Next::kForeign;
  if (!page.last && !always) return;
  std::string target = request.path;
  if (paging_.next == Next::kRelative) target.erase(0, target.rfind('/') + 1);
  if (paging_.next == Next::kAbsolute) target = url() + target;
  if (paging_.next == Next::kForeign) target = paging_.foreign_url + target;
  if (paging_.next == Next::kSame) {
    if (!request.query.empty()) target += "?" + request.query;
  } else {
    const size_t n = page.size == SIZE_MAX ? page.items.size() : page.size;
    target += "?n=" + std::to_string(n) + "&last=" + PercentEncode(page.last.value_or("x"));
    if (const auto type = request.Query("artifactType")) {
      target += "&artifactType=" + PercentEncode(*type);
    }
  }
  response.headers.emplace_back("Link", "<" + target + ">; rel=\"next\"");
}

ServerResponse FakeRegistry::AnswerTags(const ServerRequest& request,
                                        const std::string& repository) {
  if (!content_->HasRepository(repository)) {
    return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known");
  }
  const auto content = content_;
  const Page page = TakeNames(request, [&](const std::optional<std::string>& last, size_t limit) {
    return content->Tags(repository, last, limit);
  });
  // distribution writes a repository without tags so.
  const bool none = page.items.empty() && content->Tags(repository, std::nullopt, 1).names.empty();
  ServerResponse response =
      JsonAnswer(200, R"({"name":)" + JsonQuote(repository) + R"(,"tags":)" +
                          (none ? "null" : "[" + Joined(page.items) + "]") + "}");
  AddLink(request, page, response);
  return response;
}

ServerResponse FakeRegistry::AnswerCatalog(const ServerRequest& request) {
  const auto content = content_;
  const Page page = TakeNames(request, [&](const std::optional<std::string>& last, size_t limit) {
    return content->Repositories(last, limit);
  });
  ServerResponse response = JsonAnswer(200, R"({"repositories":[)" + Joined(page.items) + "]}");
  AddLink(request, page, response);
  return response;
}

// `last` is how many entries earlier pages had.
ServerResponse FakeRegistry::AnswerReferrers(const ServerRequest& request,
                                             const std::string& repository,
                                             const std::string& subject) {
  if (!Digest::Parse(subject)) return ErrorAnswer(400, "DIGEST_INVALID", "no digest");
  if (!content_->HasRepository(repository)) {
    return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known");
  }
  const std::optional<std::string> type = request.Query("artifactType");
  const bool filters = type && referrers_api_ == ReferrersApi::kFilters;
  std::vector<std::string> all;
  for (auto& referrer : content_->Referrers(repository, subject)) {
    if (filters && referrer.artifact_type != *type) continue;
    all.push_back(std::move(referrer.descriptor));
  }
  const uint64_t start =
      store::ParseDecimal(request.Query("last").value_or("0"), UINT32_MAX).value_or(0);
  const bool endless = paging_.next == Paging::Next::kEndless;
  Page page{.size = PageSize(request, paging_.page_size)};
  uint64_t next = start;
  for (; page.items.size() < std::min(page.size, all.size()) && (endless || next < all.size());
       ++next) {
    page.items.push_back(all[next % all.size()]);
  }
  if (endless || (next < all.size() && page.size > 0)) {
    page.last = std::to_string(std::max(next, start + 1));
  }
  ServerResponse response = JsonAnswer(200, IndexOf(page.items));
  response.headers.front().second = store::media_type::kOciIndex;
  if (type && referrers_api_ != ReferrersApi::kOn) {
    response.headers.emplace_back("OCI-Filters-Applied", "artifactType");
  }
  AddLink(request, page, response);
  return response;
}

}  // namespace ocifs::testing
