#include "fetch/registry_source.h"

#include <optional>
#include <utility>

#include "fetch/address.h"
#include "fetch/registry_answer.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Result;

// Registries answer 404 for, or convert, what a client does not name here.
std::string ManifestAccept() {
  std::string accept;
  for (const std::string_view type :
       {store::media_type::kOciManifest, store::media_type::kOciIndex,
        store::media_type::kDockerManifest, store::media_type::kDockerIndex}) {
    if (!accept.empty()) accept += ", ";
    accept += type;
  }
  return accept;
}

bool IsHtml(const HttpHead& head) { return head.MediaType() == "text/html"; }

// Checks the size while the bytes pass; the digest is for the reader, who hashes anyway.
class RegistryBlobStream final : public store::BlobStream {
 public:
  RegistryBlobStream(RegistryHost& host, const store::Repository& repository, HttpRequest request,
                     uint64_t size, std::stop_token stop)
      : exchange_(host, repository, std::move(request), std::move(stop)), size_(size) {}

  Result<std::span<const std::byte>> Next() override {
    if (failure_) return Fail(*failure_);
    Result<std::span<const std::byte>> bytes = Read();
    if (!bytes) failure_ = bytes.error();
    return bytes;
  }

 private:
  Result<std::span<const std::byte>> Read() {
    if (!opened_) {
      OCIFS_RETURN_IF_ERROR(Open());
      opened_ = true;
    }
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, exchange_.http().Next());
    if (bytes.size() > size_ - received_) return WrongSize("longer than its descriptor", "more");
    received_ += bytes.size();
    if (bytes.empty() && received_ != size_) {
      return WrongSize("shorter than its descriptor", std::to_string(received_));
    }
    return bytes;
  }

  Result<void> Open() {
    OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, exchange_.Head());
    if (head->status != 200) {
      Error error = exchange_.ErrorOfAnswer(*head);
      // A manifest names the blob, so its absence is the registry's fault, not the name's.
      if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kRemote;
      return Fail(std::move(error));
    }
    if (!head->content_length || *head->content_length == size_) return {};
    if (IsHtml(*head)) {
      return Fail(ErrorCode::kRemote, exchange_.http().Describe() +
                                          ": answered with a web page; is there a login page or a "
                                          "proxy in the way?");
    }
    return WrongSize(*head->content_length > size_ ? "longer than its descriptor"
                                                   : "shorter than its descriptor",
                     std::to_string(*head->content_length));
  }

  std::unexpected<Error> WrongSize(std::string_view how, const std::string& actual) {
    return Fail(ErrorCode::kCorrupt, exchange_.http().Describe() + ": the blob is " +
                                         std::string(how) + " (" + actual + " instead of " +
                                         std::to_string(size_) + " bytes)");
  }

  RegistryExchange exchange_;
  const uint64_t size_;
  uint64_t received_ = 0;
  bool opened_ = false;
  std::optional<Error> failure_;
};

// A cursor is "<page number> <path and query of that page>".
struct TagCursor {
  uint64_t page = 1;
  std::string path_and_query;
};

Result<TagCursor> ParseCursor(std::string_view text) {
  const size_t space = text.find(' ');
  const std::optional<uint64_t> page =
      store::ParseDecimal(text.substr(0, space), RegistrySource::kMaxTagPages);
  if (space == std::string_view::npos || !page || !text.substr(space + 1).starts_with('/')) {
    return Fail(ErrorCode::kInvalid, "not a cursor of a tag list");
  }
  return TagCursor{*page, std::string(text.substr(space + 1))};
}

std::string PathAndQuery(const Url& url) {
  const std::string& text = url.ToString();
  const size_t path = text.find('/', text.find("://") + 3);
  return path == std::string::npos ? "/" : text.substr(path);
}

}  // namespace

Result<std::unique_ptr<RegistrySource>> RegistrySource::Create(
    RegistrySourceOptions options, std::unique_ptr<CredentialSource> credentials,
    std::unique_ptr<Resolver> resolver) {
  for (const auto& [name, registry_options] : options.registries) {
    OCIFS_ASSIGN_OR_RETURN(const store::Registry registry, store::Registry::Parse(name));
    OCIFS_RETURN_IF_ERROR(EndpointOf(registry, registry_options));
  }
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> client, HttpClient::Create(options.http));
  return std::unique_ptr<RegistrySource>(new RegistrySource(
      std::move(options), std::move(client), std::move(credentials), std::move(resolver)));
}

Result<RegistryHost*> RegistrySource::HostOf(const store::Registry& registry) {
  const store::MutexLock lock(mutex_);
  if (const auto found = hosts_.find(registry.name()); found != hosts_.end()) {
    return found->second.get();
  }
  RegistryOptions options;
  if (const auto configured = options_.registries.find(registry.name());
      configured != options_.registries.end()) {
    options = configured->second;
  }
  OCIFS_ASSIGN_OR_RETURN(Url endpoint, EndpointOf(registry, options));
  auto host = std::make_unique<RegistryHost>(registry, std::move(endpoint), std::move(options),
                                             *client_, tokens_, *credentials_);
  return hosts_.emplace(registry.name(), std::move(host)).first->second.get();
}

Result<void> RegistrySource::FindRegistry(const store::Registry& registry,
                                          const store::FetchContext& context) {
  if (options_.registries.contains(registry.name()) || registry.is_loopback() ||
      ScopeOfHost(registry.host())) {
    return {};
  }
  return resolver_->Find(registry.is_docker_hub() ? "registry-1.docker.io" : registry.host(),
                         context.stop);
}

Result<std::optional<store::RemoteDocument>> RegistrySource::FetchManifest(
    const store::Reference& reference, const std::optional<store::Digest>& known,
    const store::FetchContext& context) {
  const store::Repository& repository = reference.repository();
  OCIFS_ASSIGN_OR_RETURN(RegistryHost* const host, HostOf(repository.registry()));
  const std::string name =
      reference.tag() ? reference.tag()->name() : reference.digest()->ToString();
  OCIFS_ASSIGN_OR_RETURN(HttpRequest request,
                         host->Get("/v2/" + repository.path() + "/manifests/" + name));
  request.headers.push_back({"Accept", ManifestAccept()});
  if (known) request.headers.push_back({"If-None-Match", "\"" + known->ToString() + "\""});
  RegistryExchange exchange(*host, repository, std::move(request), context.stop);
  OCIFS_ASSIGN_OR_RETURN(const HttpHead* head, exchange.Head());
  if (known && head->status == 304) return std::nullopt;
  OCIFS_ASSIGN_OR_RETURN(head, exchange.Expect(200));
  if (IsHtml(*head)) {
    return Fail(ErrorCode::kRemote, exchange.http().Describe() +
                                        ": answered with a web page; is there a login page or a "
                                        "proxy in the way?");
  }
  store::RemoteDocument document;
  document.media_type = head->MediaType();
  OCIFS_ASSIGN_OR_RETURN(document.bytes, exchange.http().ReadAll(store::kMaxDocumentBytes));
  return document;
}

Result<std::unique_ptr<store::BlobStream>> RegistrySource::OpenBlob(
    const store::Repository& repository, const store::Descriptor& blob,
    const store::FetchContext& context) {
  OCIFS_ASSIGN_OR_RETURN(RegistryHost* const host, HostOf(repository.registry()));
  OCIFS_ASSIGN_OR_RETURN(HttpRequest request, host->Get("/v2/" + repository.path() + "/blobs/" +
                                                        blob.digest.ToString()));
  // What fits into the buffer is never paused and may share a connection (HttpConnection).
  if (blob.size > client_->options().max_buffered_bytes) {
    request.connection = HttpConnection::kOwn;
  }
  return std::make_unique<RegistryBlobStream>(*host, repository, std::move(request), blob.size,
                                              context.stop);
}

Result<store::TagPage> RegistrySource::ListTags(const store::Repository& repository,
                                                std::string_view cursor,
                                                const store::FetchContext& context) {
  OCIFS_ASSIGN_OR_RETURN(RegistryHost* const host, HostOf(repository.registry()));
  uint64_t page_number = 1;
  HttpRequest request{.url = host->endpoint()};
  if (cursor.empty()) {
    OCIFS_ASSIGN_OR_RETURN(request, host->Get("/v2/" + repository.path() + "/tags/list?n=1000"));
  } else {
    OCIFS_ASSIGN_OR_RETURN(const TagCursor place, ParseCursor(cursor));
    page_number = place.page;
    OCIFS_ASSIGN_OR_RETURN(request, host->Get("/v2/"));
    OCIFS_ASSIGN_OR_RETURN(request.url, host->endpoint().Resolve(place.path_and_query));
    if (!request.url.SameOrigin(host->endpoint())) {
      return Fail(ErrorCode::kInvalid, "not a cursor of this registry's tag list");
    }
  }
  request.headers.push_back({"Accept", "application/json"});
  const Url asked = request.url;
  RegistryExchange exchange(*host, repository, std::move(request), context.stop);
  OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, exchange.Expect(200));
  auto wrap = [&](Error error) { return Fail(std::move(error).Wrap(exchange.http().Describe())); };
  store::TagPage page;
  Result<std::optional<Url>> next = NextLink(head->headers, asked);
  if (!next) return wrap(std::move(next).error());
  OCIFS_ASSIGN_OR_RETURN(const std::string body, exchange.http().ReadAll(kMaxTagPageBytes));
  Result<std::vector<std::string>> tags = ParseTagList(body, kMaxTagPageBytes);
  if (!tags) return wrap(std::move(tags).error());
  page.tags = *std::move(tags);
  if (*next) {
    if ((*next)->ToString() == asked.ToString()) {
      return wrap({ErrorCode::kRemote, "the Link to the next page leads to the same page"});
    }
    if (page_number >= kMaxTagPages) {
      return wrap(
          {ErrorCode::kTooLarge, "more than " + std::to_string(kMaxTagPages) + " pages of tags"});
    }
    page.next = std::to_string(page_number + 1) + " " + PathAndQuery(**next);
  }
  return page;
}

Result<std::vector<std::string>> RegistrySource::ListRepositories(const store::Registry& registry,
                                                                  const store::FetchContext&) {
  return Fail(ErrorCode::kUnsupported,
              "registry " + registry.name() + ": registries do not list their repositories");
}

}  // namespace ocifs::fetch
