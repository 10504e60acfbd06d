#include "fetch/registry_source.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "fetch/address.h"
#include "fetch/registry_answer.h"
#include "store/log.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
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

// The answer, if its status is one of these.
Attempted<const HttpHead*> Expect(RegistryExchange& exchange, int status, int other = 0) {
  Result<const HttpHead*> head = exchange.Head();
  if (!head) {
    return std::unexpected(FailureOfTransport(std::move(head).error(), exchange.contact()));
  }
  if ((*head)->status == status || (*head)->status == other) return *head;
  Failure failure =
      FailureOfAnswer(**head, exchange.ErrorOfAnswer(**head), std::chrono::system_clock::now());
  // Another server's wish to be left alone says nothing about the registry.
  if (!exchange.http().at_origin()) failure.retry_after.reset();
  return std::unexpected(std::move(failure));
}

void Prepare(HttpRequest& request, const Attempts::Turn& turn) {
  request.connect_timeout = turn.connect_timeout;
  request.fresh_connection = turn.fresh_connection;
}

void NoteConnectTime(const HttpHead& head, RegistryHost& host) {
  if (head.connect_time) host.NoteConnectTime(*head.connect_time);
}

// A cursor is "<page number> <place of the server> <path and query of that page>".
struct ListCursor {
  uint64_t page = 1;
  size_t place = 0;
  std::string path_and_query;

  std::string ToString() const {
    return std::to_string(page) + " " + std::to_string(place) + " " + path_and_query;
  }
};

Result<ListCursor> ParseCursor(std::string_view text) {
  const size_t first = text.find(' ');
  const size_t second = first == std::string_view::npos ? first : text.find(' ', first + 1);
  if (second != std::string_view::npos && text.substr(second + 1).starts_with('/')) {
    const auto page = store::ParseDecimal(text.substr(0, first), RegistrySource::kMaxPages);
    const auto place = store::ParseDecimal(text.substr(first + 1, second - first - 1), 1'000);
    if (page && place) return ListCursor{*page, *place, std::string(text.substr(second + 1))};
  }
  return Fail(ErrorCode::kInvalid, "not a cursor of a tag list");
}

std::string PathAndQuery(const Url& url) {
  const std::string& text = url.ToString();
  const size_t path = text.find('/', text.find("://") + 3);
  return path == std::string::npos ? "/" : text.substr(path);
}

std::string TooManyPages(std::string_view what) {
  return "more than " + std::to_string(RegistrySource::kMaxPages) + " pages of " +
         std::string(what);
}

// The tag under which clients keep an index of referrers where a registry has no API for it
// (distribution-spec, "Referrers Tag Schema").
std::string FallbackTag(const store::Digest& subject) {
  std::string text = subject.ToString();
  const size_t colon = text.find(':');
  std::string tag =
      text.substr(0, std::min<size_t>(colon, 32)) + "-" + text.substr(colon + 1).substr(0, 64);
  for (char& c : tag) {
    const bool legal = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-';
    if (!legal) c = '-';
  }
  return tag;
}

// The entries of an index of referrers, those of `artifact_type` if that is not empty: registries
// may ignore the filter.
Result<std::vector<store::Descriptor>> ParseReferrers(std::string_view body,
                                                      std::string_view media_type,
                                                      std::string_view artifact_type) {
  OCIFS_ASSIGN_OR_RETURN(auto document, store::ParseManifest(body, media_type));
  auto* const index = std::get_if<store::ImageIndex>(&document);
  if (index == nullptr) return Fail(ErrorCode::kRemote, "a list of referrers that is no index");
  std::erase_if(index->manifests, [&](const store::Descriptor& entry) {
    return !artifact_type.empty() && entry.artifact_type != artifact_type;
  });
  return std::move(index->manifests);
}

class OneCredential final : public CredentialSource {
 public:
  explicit OneCredential(Credential credential) : credential_(std::move(credential)) {}
  Result<std::optional<Credential>> Lookup(const store::Repository&, Freshness,
                                           const std::stop_token&) override {
    return credential_;
  }

 private:
  const Credential credential_;
};

}  // namespace

Result<std::unique_ptr<RegistrySource>> RegistrySource::Create(RegistrySourceOptions options,
                                                               RegistrySourceParts parts) {
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> client, HttpClient::Create(options.http));
  return std::unique_ptr<RegistrySource>(
      new RegistrySource(std::move(options), std::move(parts), std::move(client)));
}

// --- Servers -------------------------------------------------------------------------------------

std::shared_ptr<RegistryHost> RegistrySource::HostOf(const Endpoint& endpoint) {
  const std::string key = RegistryHost::KeyOf(endpoint);
  const MutexLock lock(mutex_);
  if (const auto found = hosts_.find(key); found != hosts_.end()) return found->second;
  // Names that somebody tries out must not fill the memory. Those in use stay.
  if (hosts_.size() >= kMaxHosts) {
    std::erase_if(hosts_, [](const auto& item) { return item.second.use_count() == 1; });
  }
  auto host = std::make_shared<RegistryHost>(endpoint, *client_, tokens_, *parts_.credentials,
                                             *parts_.timer);
  hosts_.emplace(key, host);
  return host;
}

Result<Route> RegistrySource::RouteOf(const store::Repository& repository) {
  Result<Route> route = parts_.router->RouteOf(repository);
  // The name is right, and a reader must not take it for one that does not exist.
  if (!route && route.error().code == ErrorCode::kInvalid) route.error().code = ErrorCode::kDenied;
  return route;
}

Result<std::vector<Candidate>> RegistrySource::CandidatesFor(const store::Repository& repository,
                                                             Need need) {
  OCIFS_ASSIGN_OR_RETURN(Route route, RouteOf(repository));
  std::vector<Candidate> candidates;
  for (Endpoint& endpoint : route.endpoints) {
    const bool fits = need == Need::kPull      ? endpoint.may_pull
                      : need == Need::kResolve ? endpoint.may_resolve
                                               : endpoint.may_referrers;
    if (!fits) continue;
    std::shared_ptr<RegistryHost> host = HostOf(endpoint);
    // Of an insecure server, the scheme that has worked before.
    if (endpoint.is_fallback && !candidates.empty()) {
      if (candidates.back().host->health().HasAnswered()) continue;
      if (host->health().HasAnswered()) candidates.pop_back();
    }
    candidates.push_back({std::move(host), std::move(endpoint)});
  }
  if (!candidates.empty()) return candidates;
  return Fail(ErrorCode::kDenied,
              "registry " + repository.registry().name() +
                  ": no server may be asked for this, by its hosts.toml (capabilities)");
}

template <typename T>
Result<T> RegistrySource::Ask(std::string what, std::vector<Candidate> candidates,
                              const store::FetchContext& context, const Attempt<T>& attempt) {
  Attempts attempts(std::move(what), std::move(candidates), options_.retry, *parts_.timer,
                    context.stop);
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const Attempts::Turn turn, attempts.Next());
    Attempted<T> result = attempt(turn);
    if (result) {
      attempts.Answered();
      return *std::move(result);
    }
    attempts.Failed(std::move(result).error());
  }
}

Result<void> RegistrySource::FindRegistry(const store::Registry& registry,
                                          const store::FetchContext& context) {
  if (registry.is_loopback() || ScopeOfHost(registry.host()) ||
      parts_.router->IsConfigured(registry)) {
    return {};
  }
  const std::string host =
      registry.is_docker_hub() ? std::string("registry-1.docker.io") : registry.host();
  // Behind a proxy outside names may not resolve here, and need not.
  const Result<Url> url = Url::Parse("https://" + registry.name() + "/");
  if (url && client_->HasProxyFor(*url)) return {};
  return parts_.resolver->Find(host, context.stop);
}

Result<void> RegistrySource::CheckLogin(const store::Registry& registry,
                                        const Credential& credential,
                                        const store::FetchContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const store::Repository any, store::Repository::Parse(registry, "login"));
  OCIFS_ASSIGN_OR_RETURN(Route route, RouteOf(any));
  // A login is kept for the server that is contacted.
  std::erase_if(route.endpoints, [&](const Endpoint& endpoint) {
    return endpoint.repository.registry() != registry;
  });
  if (route.endpoints.empty()) {
    return Fail(ErrorCode::kInvalid, "registry " + registry.name() +
                                         " is configured to be another server; log in to that one");
  }
  OneCredential credentials(credential);
  TokenCache tokens(*client_);  // of this login alone
  std::optional<Failure> failure;
  for (const Endpoint& endpoint : route.endpoints) {
    // Never by HTTP to a server that has answered by HTTPS.
    if (endpoint.is_fallback && failure && failure->contact == Contact::kAnswered) continue;
    RegistryHost host(endpoint, *client_, tokens, credentials, *parts_.timer);
    OCIFS_ASSIGN_OR_RETURN(HttpRequest request, host.Get("/"));
    RegistryExchange exchange(host, {endpoint.repository, ""}, std::move(request), context.stop);
    Attempted<const HttpHead*> head = Expect(exchange, 200);
    if (head) {
      exchange.http().Discard();
      return {};
    }
    failure = std::move(head).error();
  }
  return Fail(std::move(failure->error));
}

// --- Manifests and blobs -------------------------------------------------------------------------

Result<std::optional<store::RemoteDocument>> RegistrySource::FetchManifest(
    const store::Reference& reference, const std::optional<store::Digest>& known,
    const store::FetchContext& context) {
  using Answer = std::optional<store::RemoteDocument>;
  const bool by_digest = !reference.tag();
  OCIFS_ASSIGN_OR_RETURN(
      std::vector<Candidate> candidates,
      CandidatesFor(reference.repository(), by_digest ? Need::kPull : Need::kResolve));
  const std::string name = by_digest ? reference.digest()->ToString() : reference.tag()->name();
  const Attempt<Answer> attempt = [&](const Attempts::Turn& turn) -> Attempted<Answer> {
    RegistryHost& host = *turn.candidate.host;
    const store::Repository& repository = turn.candidate.endpoint.repository;
    Result<HttpRequest> request = host.Get("/" + repository.path() + "/manifests/" + name);
    if (!request) return std::unexpected(Failure{.error = std::move(request).error()});
    Prepare(*request, turn);
    request->headers.push_back({"Accept", ManifestAccept()});
    if (known) request->headers.push_back({"If-None-Match", "\"" + known->ToString() + "\""});
    RegistryExchange exchange(host, Access::Pull(repository), *std::move(request), context.stop);
    const Attempted<const HttpHead*> head = Expect(exchange, 200, known ? 304 : 200);
    if (!head) return std::unexpected(head.error());
    NoteConnectTime(**head, host);
    if ((*head)->status == 304) return std::nullopt;
    if (IsHtml(**head))
      return FailedAnswer(ErrorCode::kRemote, WebPageMessage(exchange.http().Describe()));
    store::RemoteDocument document;
    document.media_type = (*head)->MediaType();
    Result<std::string> bytes = exchange.http().ReadAll(store::kMaxDocumentBytes);
    if (!bytes)
      return std::unexpected(FailureOfTransport(std::move(bytes).error(), Contact::kAnswered));
    document.bytes = *std::move(bytes);
    // The store checks this too; here it says whether another server is to be asked.
    if (by_digest) {
      const store::Digest actual =
          store::Digest::Of(store::AsBytes(document.bytes), reference.digest()->algorithm());
      if (actual != *reference.digest()) {
        return FailedAnswer(ErrorCode::kCorrupt,
                            exchange.http().Describe() + ": the content served has digest " +
                                actual.ToString() + "; nothing of it was kept");
      }
    }
    return document;
  };
  return Ask<Answer>("manifest " + reference.ToString(), std::move(candidates), context, attempt);
}

Result<std::unique_ptr<store::BlobStream>> RegistrySource::OpenBlob(
    const store::Repository& repository, const store::Descriptor& blob,
    const store::FetchContext& context) {
  OCIFS_ASSIGN_OR_RETURN(std::vector<Candidate> candidates, CandidatesFor(repository, Need::kPull));
  const std::string digest = blob.digest.ToString();
  const std::set<std::string> rejected = RejectedFor(digest);
  // The last server stays: it may have mended what it has.
  const Candidate last = candidates.back();
  std::erase_if(candidates, [&](const Candidate& candidate) {
    return rejected.contains(candidate.host->key());
  });
  if (candidates.empty()) candidates.push_back(last);
  auto attempts = std::make_unique<Attempts>("blob " + digest + " of " + repository.ToString(),
                                             std::move(candidates), options_.retry, *parts_.timer,
                                             context.stop);
  return std::make_unique<RegistryBlobStream>(
      std::move(attempts), blob, options_.blobs,
      [this, digest](RegistryHost& host) { NoteServed(digest, host); }, context.stop);
}

void RegistrySource::NoteServed(const std::string& digest, const RegistryHost& host) {
  const Timer::TimePoint now = parts_.timer->Now();
  const MutexLock lock(mutex_);
  std::erase_if(served_, [&](const auto& item) { return now - item.second.at >= kRejectedFor; });
  Served& served = served_[digest];
  served.hosts.insert(host.key());
  served.at = now;
}

std::set<std::string> RegistrySource::RejectedFor(const std::string& digest) {
  const Timer::TimePoint now = parts_.timer->Now();
  const MutexLock lock(mutex_);
  const auto found = served_.find(digest);
  if (found == served_.end() || now - found->second.at >= kRejectedFor) return {};
  return found->second.rejected;
}

bool RegistrySource::HasAnotherServer(const store::Repository& repository,
                                      const store::Descriptor& blob) {
  return !Suspects(repository, blob).empty();
}

// With one server, that one; of several that each gave a part all but the last, which alone may
// have it right. None when no server would be left.
std::vector<std::shared_ptr<RegistryHost>> RegistrySource::Suspects(
    const store::Repository& repository, const store::Descriptor& blob) {
  const Result<std::vector<Candidate>> candidates = CandidatesFor(repository, Need::kPull);
  if (!candidates) return {};
  std::vector<std::shared_ptr<RegistryHost>> suspects;
  bool another = false;
  const MutexLock lock(mutex_);
  const auto found = served_.find(blob.digest.ToString());
  if (found == served_.end()) return {};
  const Served& served = found->second;
  for (const Candidate& candidate : *candidates) {
    const std::string& key = candidate.host->key();
    if (served.hosts.contains(key)) {
      if (!served.rejected.contains(key)) suspects.push_back(candidate.host);
    } else {
      another = another || !served.rejected.contains(key);
    }
  }
  if (suspects.size() > 1) {
    suspects.pop_back();
  } else if (!another) {
    suspects.clear();
  }
  return suspects;
}

bool RegistrySource::RejectBlob(const store::Repository& repository,
                                const store::Descriptor& blob) {
  const std::vector<std::shared_ptr<RegistryHost>> suspects = Suspects(repository, blob);
  std::string names;
  {
    const MutexLock lock(mutex_);
    const auto found = served_.find(blob.digest.ToString());
    if (suspects.empty() || found == served_.end()) return false;
    for (const auto& host : suspects) {
      names += (names.empty() ? "" : ", ") + host->name();
      found->second.rejected.insert(host->key());
    }
    found->second.hosts.clear();
  }
  store::Log(store::LogLevel::kWarning,
             "blob " + blob.digest.ToString() + " of " + repository.ToString() +
                 ": wrong bytes from " + names + "; not asked for this blob again for " +
                 std::to_string(kRejectedFor.count()) + " minutes, another server is");
  return true;
}

// --- Lists ---------------------------------------------------------------------------------------

Attempted<RegistrySource::Page> RegistrySource::GetPage(const Attempts::Turn& turn,
                                                        const Access& access, HttpRequest request,
                                                        size_t max_bytes,
                                                        const store::FetchContext& context) {
  Prepare(request, turn);
  const Url asked = request.url;
  RegistryExchange exchange(*turn.candidate.host, access, std::move(request), context.stop);
  const Attempted<const HttpHead*> head = Expect(exchange, 200);
  if (!head) return std::unexpected(head.error());
  NoteConnectTime(**head, *turn.candidate.host);
  auto wrap = [&](Error error) {
    return std::unexpected(Failure{.error = std::move(error).Wrap(exchange.http().Describe()),
                                   .contact = Contact::kAnswered});
  };
  if (IsHtml(**head))
    return FailedAnswer(ErrorCode::kRemote, WebPageMessage(exchange.http().Describe()));
  Page page;
  page.media_type = (*head)->MediaType();
  Result<std::optional<Url>> next = NextLink((*head)->headers, asked);
  if (!next) return wrap(std::move(next).error());
  page.next = *std::move(next);
  if (page.next && page.next->ToString() == asked.ToString()) {
    return wrap({ErrorCode::kRemote, "the Link to the next page leads to the same page"});
  }
  Result<std::string> body = exchange.http().ReadAll(max_bytes);
  if (!body)
    return std::unexpected(FailureOfTransport(std::move(body).error(), Contact::kAnswered));
  page.body = *std::move(body);
  return page;
}

Result<store::TagPage> RegistrySource::ListTags(const store::Repository& repository,
                                                std::string_view cursor,
                                                const store::FetchContext& context) {
  OCIFS_ASSIGN_OR_RETURN(std::vector<Candidate> candidates,
                         CandidatesFor(repository, Need::kResolve));
  ListCursor place;
  if (!cursor.empty()) {
    OCIFS_ASSIGN_OR_RETURN(place, ParseCursor(cursor));
    if (place.place >= candidates.size()) {
      return Fail(ErrorCode::kInvalid, "not a cursor of this registry's tag list");
    }
  }
  const std::vector<Candidate> all = candidates;
  // The rest of a list is where its beginning was.
  if (!cursor.empty()) candidates = {all[place.place]};
  const Attempt<store::TagPage> attempt =
      [&](const Attempts::Turn& turn) -> Attempted<store::TagPage> {
    RegistryHost& host = *turn.candidate.host;
    const store::Repository& there = turn.candidate.endpoint.repository;
    Result<HttpRequest> request = host.Get("/" + there.path() + "/tags/list?n=1000");
    if (request && !cursor.empty()) {
      Result<Url> url = host.api_root().Resolve(place.path_and_query);
      if (!url || !url->SameOrigin(host.api_root())) {
        return FailedAnswer(ErrorCode::kInvalid, "not a cursor of this registry's tag list");
      }
      request->url = *std::move(url);
    }
    if (!request) return std::unexpected(Failure{.error = std::move(request).error()});
    const std::string what = "GET " + request->url.ForDisplay();
    request->headers.push_back({"Accept", "application/json"});
    Attempted<Page> got =
        GetPage(turn, Access::Pull(there), *std::move(request), kMaxTagPageBytes, context);
    if (!got) return std::unexpected(std::move(got).error());
    Result<std::vector<std::string>> tags = ParseTagList(got->body, kMaxTagPageBytes);
    if (!tags) {
      return std::unexpected(Failure{.error = std::move(tags).error().Wrap(what)});
    }
    store::TagPage page{.tags = *std::move(tags), .next = {}};
    if (got->next) {
      if (place.page >= kMaxPages) {
        return FailedAnswer(ErrorCode::kTooLarge, what + ": " + TooManyPages("tags"));
      }
      const auto at = std::find_if(all.begin(), all.end(), [&](const Candidate& candidate) {
        return candidate.host == turn.candidate.host;
      });
      page.next = ListCursor{place.page + 1, static_cast<size_t>(at - all.begin()),
                             PathAndQuery(*got->next)}
                      .ToString();
    }
    return page;
  };
  return Ask<store::TagPage>("tags of " + repository.ToString(), std::move(candidates), context,
                             attempt);
}

Result<std::vector<std::string>> RegistrySource::ListRepositories(const store::Registry& registry,
                                                                  const store::FetchContext&) {
  return Fail(ErrorCode::kUnsupported,
              "registry " + registry.name() + ": registries do not list their repositories");
}

Result<std::vector<std::string>> RegistrySource::ListCatalog(const store::Registry& registry,
                                                             const store::FetchContext& context) {
  using Names = std::vector<std::string>;
  if (!HasCatalog(registry)) {
    return Fail(ErrorCode::kUnsupported,
                "registry " + registry.name() +
                    ": it is not asked for its repositories (`catalog = true` allows that)");
  }
  OCIFS_ASSIGN_OR_RETURN(const store::Repository any,
                         store::Repository::Parse(registry, "catalog"));
  OCIFS_ASSIGN_OR_RETURN(std::vector<Candidate> candidates, CandidatesFor(any, Need::kResolve));
  // A mirror's catalog is what it happens to hold.
  candidates.erase(candidates.begin(), candidates.end() - 1);
  const Attempt<Names> attempt = [&](const Attempts::Turn& turn) -> Attempted<Names> {
    RegistryHost& host = *turn.candidate.host;
    const Access access{turn.candidate.endpoint.repository, "registry:catalog:*"};
    Names names;
    Result<HttpRequest> request = host.Get("/_catalog?n=1000");
    for (uint64_t pages = 1;; ++pages) {
      if (!request) return std::unexpected(Failure{.error = std::move(request).error()});
      const HttpRequest asked = *request;
      Attempted<Page> page = GetPage(turn, access, *std::move(request), kMaxTagPageBytes, context);
      if (!page) return std::unexpected(std::move(page).error());
      Result<Names> some = ParseCatalog(page->body, kMaxTagPageBytes);
      if (!some) return std::unexpected(Failure{.error = std::move(some).error()});
      names.insert(names.end(), some->begin(), some->end());
      if (!page->next) return names;
      if (pages >= kMaxPages || names.size() > kMaxListed) {
        return FailedAnswer(ErrorCode::kTooLarge,
                            "registry " + registry.name() + ": " + TooManyPages("repositories"));
      }
      request = asked;
      request->url = *page->next;
    }
  };
  return Ask<Names>("catalog of " + registry.name(), std::move(candidates), context, attempt);
}

Attempted<std::vector<store::Descriptor>> RegistrySource::AskReferrers(
    const Attempts::Turn& turn, const store::Digest& subject, std::string_view artifact_type,
    const store::FetchContext& context) {
  RegistryHost& host = *turn.candidate.host;
  const store::Repository& there = turn.candidate.endpoint.repository;
  std::vector<store::Descriptor> referrers;
  std::string path = "/" + there.path() + "/referrers/" + subject.ToString();
  if (!artifact_type.empty()) path += "?artifactType=" + PercentEncode(artifact_type);
  Result<HttpRequest> request = host.Get(path);
  bool fallback = false;
  for (uint64_t pages = 1;; ++pages) {
    if (!request) return std::unexpected(Failure{.error = std::move(request).error()});
    HttpRequest asked = *request;
    asked.headers.push_back({"Accept", std::string(store::media_type::kOciIndex)});
    Attempted<Page> page =
        GetPage(turn, Access::Pull(there), std::move(asked), store::kMaxDocumentBytes, context);
    if (!page) {
      const ErrorCode code = page.error().error.code;
      const int status = page.error().status;
      // What registries without the API say, and the front doors of some to unknown paths.
      const bool no_api = status == 404 || status == 400 || status == 405 || status == 501;
      if (pages == 1 && !fallback && no_api) {
        fallback = true;
        pages = 0;
        request = host.Get("/" + there.path() + "/manifests/" + FallbackTag(subject));
        continue;
      }
      // What a mirror lacks the registry may have.
      if (fallback && code == ErrorCode::kNotFound && turn.candidate.endpoint.is_origin) {
        return referrers;
      }
      return std::unexpected(std::move(page).error());
    }
    Result<std::vector<store::Descriptor>> some =
        ParseReferrers(page->body, page->media_type, artifact_type);
    if (!some) {
      return std::unexpected(
          Failure{.error = std::move(some).error().Wrap("referrers of " + subject.ToString())});
    }
    referrers.insert(referrers.end(), some->begin(), some->end());
    if (!page->next || fallback) return referrers;
    if (pages >= kMaxPages || referrers.size() > kMaxListed) {
      return FailedAnswer(ErrorCode::kTooLarge,
                          "referrers of " + subject.ToString() + ": " + TooManyPages("referrers"));
    }
    request->url = *page->next;
  }
}

Result<std::vector<store::Descriptor>> RegistrySource::ListReferrers(
    const store::Repository& repository, const store::Digest& subject,
    std::string_view artifact_type, const store::FetchContext& context) {
  using Descriptors = std::vector<store::Descriptor>;
  OCIFS_ASSIGN_OR_RETURN(std::vector<Candidate> candidates,
                         CandidatesFor(repository, Need::kReferrers));
  const Attempt<Descriptors> attempt = [&](const Attempts::Turn& turn) {
    return AskReferrers(turn, subject, artifact_type, context);
  };
  return Ask<Descriptors>("referrers of " + repository.ToString() + "@" + subject.ToString(),
                          std::move(candidates), context, attempt);
}

}  // namespace ocifs::fetch
