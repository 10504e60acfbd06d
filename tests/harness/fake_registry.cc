#include "tests/harness/fake_registry.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <utility>

#include "store/json.h"
#include "store/text.h"

namespace ocifs::testing {
namespace {

using store::Digest;
using store::JsonQuote;
using store::MutexLock;

constexpr std::string_view kEmptyConfig = "{}";

// Serial numbers are common to all servers, so that RevokeTokens of a registry also covers tokens
// that another server has given.
std::atomic<uint64_t> next_token_serial = 1;

ServerResponse Json(int status, std::string body) {
  return {.status = status,
          .headers = {{"Content-Type", "application/json"},
                      {"Docker-Distribution-Api-Version", "registry/2.0"}},
          .body = std::make_shared<const std::string>(std::move(body))};
}

ServerResponse ErrorAnswer(int status, std::string_view code, std::string_view message) {
  return Json(status, R"({"errors":[{"code":)" + JsonQuote(code) + R"(,"message":)" +
                          JsonQuote(message) + R"(,"detail":null}]})");
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

// "tok.<serial>.<hex of user>.<hex of scope>": a test sees at once what a token was given for.
std::string MakeToken(const std::string& user, const std::string& scope) {
  return "tok." + std::to_string(next_token_serial++) + "." + store::ToHex(store::AsBytes(user)) +
         "." + store::ToHex(store::AsBytes(scope));
}

struct TokenParts {
  uint64_t serial = 0;
  std::string user;
  std::string scope;
};

std::optional<TokenParts> ParseToken(std::string_view token) {
  if (!token.starts_with("tok.")) return std::nullopt;
  token.remove_prefix(4);
  const size_t first = token.find('.');
  const size_t second = token.find('.', first + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) return std::nullopt;
  const auto serial = store::ParseDecimal(token.substr(0, first), UINT64_MAX);
  const auto user = store::FromHex(token.substr(first + 1, second - first - 1));
  const auto scope = store::FromHex(token.substr(second + 1));
  if (!serial || !user || !scope) return std::nullopt;
  return TokenParts{*serial, *user, *scope};
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
  const MutexLock lock(mutex_);
  tags_[repository];
  blobs_[descriptor.digest.ToString()] = std::make_shared<const std::string>(std::move(bytes));
  return descriptor;
}

Digest FakeRegistry::AddManifest(const std::string& repository, const std::string& tag,
                                 std::string bytes, const std::string& media_type) {
  const Digest digest = Digest::Of(store::AsBytes(bytes));
  const MutexLock lock(mutex_);
  manifests_[digest.ToString()] = {std::make_shared<const std::string>(std::move(bytes)),
                                   media_type};
  auto& tags = tags_[repository];
  if (!tag.empty()) tags[tag] = digest.ToString();
  return digest;
}

FakeArtifact FakeRegistry::AddArtifact(const std::string& repository, const std::string& tag,
                                       std::vector<FakeLayer> layers) {
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
  manifest += "]}";
  const Digest digest =
      AddManifest(repository, tag, manifest, std::string(store::media_type::kOciManifest));
  return {digest, std::move(manifest), std::move(config), std::move(descriptors)};
}

void FakeRegistry::AddTags(const std::string& repository, const std::vector<std::string>& tags,
                           const Digest& manifest) {
  const MutexLock lock(mutex_);
  for (const std::string& tag : tags) tags_[repository][tag] = manifest.ToString();
}
void FakeRegistry::RemoveTag(const std::string& repository, const std::string& tag) {
  const MutexLock lock(mutex_);
  tags_[repository].erase(tag);
}
void FakeRegistry::RemoveBlob(const Digest& digest) {
  const MutexLock lock(mutex_);
  blobs_.erase(digest.ToString());
}
void FakeRegistry::SetTagPageSize(size_t size) {
  const MutexLock lock(mutex_);
  tag_page_size_ = size;
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
  token_server_ = std::move(token_server);
}
void FakeRegistry::RevokeTokens() {
  const MutexLock lock(mutex_);
  first_valid_serial_ = next_token_serial;
}
size_t FakeRegistry::tokens_issued() const {
  const MutexLock lock(mutex_);
  return tokens_issued_;
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

bool FakeRegistry::TokenSuffices(const std::string& token, const std::string& scope) {
  const std::optional<TokenParts> parts = ParseToken(token);
  return parts && parts->serial >= first_valid_serial_ && parts->scope == scope &&
         !(bearer_->login_required && parts->user.empty());
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
  for (const std::string_view kind : {"/manifests/", "/blobs/", "/tags/"}) {
    if (const size_t at = request.path.rfind(kind); at != std::string::npos) {
      scope = "repository:" + request.path.substr(4, at - 4) + ":pull";
      break;
    }
  }
  const bool has_token = authorization.starts_with("Bearer ");
  if (has_token && TokenSuffices(authorization.substr(7), scope)) return std::nullopt;
  ServerResponse refusal = ErrorAnswer(401, "UNAUTHORIZED", "authentication required");
  if (bearer_->silent_on_resources && !scope.empty()) return refusal;
  std::string challenge =
      "Bearer realm=\"" +
      (bearer_->realm.empty() ? "http://" + request.Header("host") + "/token" : bearer_->realm) +
      "\",service=\"" + bearer_->service + "\"";
  if (!bearer_->scope.empty()) scope = bearer_->scope;
  if (!scope.empty()) challenge += ",scope=\"" + scope + "\"";
  if (has_token) challenge += ",error=\"invalid_token\"";
  refusal.headers.emplace_back("WWW-Authenticate", challenge);
  return refusal;
}

ServerResponse FakeRegistry::Answer(const ServerRequest& request, RangeBehaviour ranges) {
  if (request.path == "/token") return AnswerToken(request);
  if (request.path == "/v2/") return Json(200, "{}");
  if (request.path.starts_with("/v2/")) {
    const std::string rest = request.path.substr(4);
    if (const size_t at = rest.rfind("/manifests/"); at != std::string::npos) {
      return AnswerManifest(request, rest.substr(0, at), rest.substr(at + 11));
    }
    if (const size_t at = rest.rfind("/blobs/"); at != std::string::npos) {
      return AnswerBlob(request, rest.substr(at + 7), ranges);
    }
    if (rest.ends_with("/tags/list")) return AnswerTags(request, rest.substr(0, rest.size() - 10));
  }
  return {.status = 404,
          .headers = {{"Content-Type", "text/plain; charset=utf-8"}},
          .body = std::make_shared<const std::string>("404 page not found\n")};
}

ServerResponse FakeRegistry::AnswerToken(const ServerRequest& request) {
  std::string user;
  std::string scope = request.Query("scope").value_or("");
  if (request.method == "POST") {
    ServerRequest form;
    form.query = request.body;
    scope = form.Query("scope").value_or("");
    if (token_server_.refresh_token.empty() ||
        form.Query("refresh_token") != token_server_.refresh_token ||
        form.Query("grant_type") != "refresh_token" || !form.Query("client_id")) {
      return ErrorAnswer(401, "UNAUTHORIZED", "refresh token refused");
    }
    user = "refreshed";
  } else if (const std::string authorization = request.Header("authorization");
             !authorization.empty()) {
    if (authorization !=
        "Basic " + store::ToBase64(token_server_.username + ":" + token_server_.password)) {
      return ErrorAnswer(401, "UNAUTHORIZED", "incorrect username or password");
    }
    user = token_server_.username;
  } else if (!token_server_.anonymous) {
    return ErrorAnswer(401, "UNAUTHORIZED", "anonymous access is not allowed");
  }
  ++tokens_issued_;
  std::string body = R"({"token":)" + JsonQuote(MakeToken(user, scope));
  if (token_server_.expires_in) {
    body += R"(,"expires_in":)" + std::to_string(*token_server_.expires_in);
  }
  return Json(200, body + "}");
}

ServerResponse FakeRegistry::AnswerManifest(const ServerRequest& request,
                                            const std::string& repository,
                                            const std::string& name) {
  const auto tags = tags_.find(repository);
  if (tags == tags_.end()) return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known");
  const auto tag = tags->second.find(name);
  const std::string digest = tag == tags->second.end() ? name : tag->second;
  const auto manifest = manifests_.find(digest);
  if (manifest == manifests_.end()) {
    return ErrorAnswer(404, "MANIFEST_UNKNOWN", "manifest unknown");
  }
  // As docker-registry: a type that the client does not name is as good as absent.
  if (request.Header("accept").find(manifest->second.media_type) == std::string::npos) {
    return ErrorAnswer(404, "MANIFEST_UNKNOWN", "accept header does not support this manifest");
  }
  const std::string etag = "\"" + digest + "\"";
  ServerResponse response{.headers = {{"Content-Type", manifest->second.media_type},
                                      {"Docker-Content-Digest", digest},
                                      {"Docker-Distribution-Api-Version", "registry/2.0"},
                                      {"Etag", etag}}};
  if (request.Header("if-none-match") == etag) {
    response.status = 304;
  } else {
    response.body = manifest->second.bytes;
  }
  return response;
}

ServerResponse FakeRegistry::AnswerBlob(const ServerRequest& request, const std::string& digest,
                                        RangeBehaviour ranges) {
  const auto blob = blobs_.find(digest);
  if (blob == blobs_.end()) return ErrorAnswer(404, "BLOB_UNKNOWN", "blob unknown to registry");
  if (storage_ != nullptr) {
    return {.status = storage_status_,
            .headers = {{"Location", storage_->Sign(digest, blob->second)},
                        {"Docker-Content-Digest", digest}}};
  }
  return ServeBytes(
      request, blob->second, "\"" + digest + "\"",
      {{"Content-Type", "application/octet-stream"}, {"Docker-Content-Digest", digest}}, ranges);
}

ServerResponse FakeRegistry::AnswerTags(const ServerRequest& request,
                                        const std::string& repository) {
  const auto tags = tags_.find(repository);
  if (tags == tags_.end()) return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known");
  auto tag = tags->second.begin();
  if (const auto last = request.Query("last")) tag = tags->second.upper_bound(*last);
  std::string list;
  std::string last_given;
  size_t count = 0;
  for (; tag != tags->second.end() && (tag_page_size_ == 0 || count < tag_page_size_); ++tag) {
    if (count++ != 0) list += ",";
    list += JsonQuote(tag->first);
    last_given = tag->first;
  }
  ServerResponse response = Json(200, R"({"name":)" + JsonQuote(repository) + R"(,"tags":)" +
                                          (tags->second.empty() ? "null" : "[" + list + "]") + "}");
  if (tag != tags->second.end()) {
    response.headers.emplace_back("Link", "</v2/" + repository +
                                              "/tags/list?n=" + std::to_string(tag_page_size_) +
                                              "&last=" + last_given + ">; rel=\"next\"");
  }
  return response;
}

}  // namespace ocifs::testing
