#include "fetch/registry_host.h"

#include <utility>
#include <vector>

#include "fetch/registry_answer.h"
#include "store/digest.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
using store::Result;

std::string LoginAdvice(const store::Registry& registry) {
  return "log in with `ocifs-ctl login " + registry.name() + "`";
}

std::string BasicHeader(const Credential& credential) {
  return "Basic " + store::ToBase64(credential.username + ":" + credential.password);
}

// Hashed, so that no secret is kept.
std::string IdentityOf(const Access& access, const std::optional<Credential>& credential) {
  std::string text;
  auto add = [&text](std::string_view part) {
    text += std::to_string(part.size());
    text += ':';
    text += part;
  };
  add(access.repository.ToString());
  add(access.scope);
  if (credential) {
    add(credential->username);
    add(credential->password);
    add(credential->identity_token);
    add(credential->registry_token);
  }
  return store::Digest::Of(store::AsBytes(text)).hex();
}

}  // namespace

RegistryHost::RegistryHost(Endpoint endpoint, HttpClient& client, TokenCache& tokens,
                           CredentialSource& credentials, const Timer& timer)
    : endpoint_(std::move(endpoint)),
      name_(endpoint_.api_root.Authority()),
      client_(client),
      tokens_(tokens),
      credentials_(credentials),
      timer_(timer),
      health_(name_, !endpoint_.is_origin, timer) {}

std::string RegistryHost::KeyOf(const Endpoint& endpoint) {
  std::string key;
  auto add = [&key](std::string_view part) {
    key += std::to_string(part.size());
    key += ':';
    key += part;
  };
  add(endpoint.api_root.ToString());
  add(endpoint.repository.registry().name());
  add(endpoint.ns);
  add(endpoint.is_origin ? "origin" : "mirror");
  for (const std::string& file : endpoint.tls.ca_files) add(file);
  add(endpoint.tls.certificate_file);
  add(endpoint.tls.key_file);
  add(endpoint.tls.verify ? "verify" : "trust");
  for (const HttpHeader& header : endpoint.headers) {
    add(header.name);
    add(header.value);
  }
  for (const std::string& host : endpoint.realm_hosts) add(host);
  return store::Digest::Of(store::AsBytes(key)).hex();
}

std::optional<std::chrono::microseconds> RegistryHost::round_trip() const {
  const int64_t time = round_trip_us_.load();
  if (time < 0) return std::nullopt;
  return std::chrono::microseconds(time);
}

bool RegistryHost::TakeExtraRange() {
  if (++extra_ranges_ <= kMaxExtraRanges) return true;
  --extra_ranges_;
  return false;
}

Result<HttpRequest> RegistryHost::Get(std::string_view path_and_query) const {
  OCIFS_ASSIGN_OR_RETURN(Url url,
                         Url::Parse(endpoint_.api_root.ToString() + std::string(path_and_query)));
  if (!endpoint_.ns.empty()) url = url.WithQuery({{"ns", endpoint_.ns}});
  return HttpRequest{.url = std::move(url), .headers = endpoint_.headers, .tls = endpoint_.tls};
}

std::optional<RegistryHost::Demand> RegistryHost::CurrentDemand() {
  const MutexLock lock(mutex_);
  return demand_;
}

std::optional<Error> RegistryHost::RefusalOf(const std::string& identity) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  const auto found = refusals_.find(identity);
  if (found == refusals_.end() || found->second.until <= now) return std::nullopt;
  return found->second.error;
}

void RegistryHost::RememberRefusal(const Authorization& refused, const Error& error) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  if (refusals_.size() >= kMaxRefusals) {
    std::erase_if(refusals_, [now](const auto& item) { return item.second.until <= now; });
    if (refusals_.size() >= kMaxRefusals) refusals_.clear();
  }
  refusals_.insert_or_assign(refused.identity, Refusal{error, now + kRefusalPause});
}

Result<TokenRequest> RegistryHost::TokenRequestFor(const Demand& demand, const Access& access,
                                                   std::optional<Credential> credential) const {
  const RealmContext context{access.repository.registry(), endpoint_.api_root, demand.peer,
                             endpoint_.realm_hosts};
  OCIFS_ASSIGN_OR_RETURN(const RealmTrust trust, CheckRealm(*demand.realm, context));
  if (trust == RealmTrust::kAnonymous) credential.reset();
  TokenRequest request{.registry = access.repository.registry().name(),
                       .realm = *demand.realm,
                       .service = demand.service,
                       // Least privilege: what we want, not what the challenge offers.
                       .scope = access.scope,
                       .credential = std::move(credential),
                       .tls = endpoint_.tls};
  if (!demand.realm->SameOrigin(endpoint_.api_root)) {
    request.reach = demand.peer;
    // Another server's business: neither our client certificate nor our leniency.
    request.tls = TlsOptions{.ca_files = endpoint_.tls.ca_files};
  }
  return request;
}

std::optional<Authorization> RegistryHost::AuthorizeFromMemory(const Access& access,
                                                               const std::stop_token& stop) {
  const std::optional<Demand> demand = CurrentDemand();
  if (!demand) return Authorization{};
  Result<std::optional<Credential>> credential =
      credentials_.Lookup(access.repository, Freshness::kCached, stop);
  if (!credential) return std::nullopt;
  Authorization authorization{.identity = IdentityOf(access, *credential)};
  if (RefusalOf(authorization.identity)) return std::nullopt;
  if (*credential && !(*credential)->registry_token.empty()) {
    if (!IsUsableToken((*credential)->registry_token)) return std::nullopt;
    authorization.header = "Bearer " + (*credential)->registry_token;
    return authorization;
  }
  if (!demand->bearer) {
    // Without a login some repositories may be read all the same.
    if (*credential) authorization.header = BasicHeader(**credential);
    return authorization;
  }
  Result<TokenRequest> request = TokenRequestFor(*demand, access, *std::move(credential));
  if (!request) return std::nullopt;
  std::optional<std::string> token = tokens_.Find(*request);
  if (!token) return std::nullopt;
  authorization.header = "Bearer " + *token;
  authorization.token_request = *std::move(request);
  authorization.token = *std::move(token);
  return authorization;
}

Result<Authorization> RegistryHost::Authorize(const Access& access, const std::stop_token& stop) {
  const std::optional<Demand> demand = CurrentDemand();
  if (!demand) return Authorization{};
  const store::Registry& registry = access.repository.registry();
  OCIFS_ASSIGN_OR_RETURN(std::optional<Credential> credential,
                         credentials_.Lookup(access.repository, Freshness::kFresh, stop));
  Authorization authorization{.identity = IdentityOf(access, credential)};
  if (const std::optional<Error> refusal = RefusalOf(authorization.identity)) return Fail(*refusal);
  if (credential && !credential->registry_token.empty()) {
    if (!IsUsableToken(credential->registry_token)) {
      return Fail(ErrorCode::kUnauthenticated, "registry " + registry.name() +
                                                   ": the stored registrytoken is malformed; " +
                                                   LoginAdvice(registry));
    }
    authorization.header = "Bearer " + credential->registry_token;
    return authorization;
  }
  if (!demand->bearer) {
    if (!credential || credential->password.empty()) {
      return Fail(ErrorCode::kUnauthenticated,
                  "registry " + registry.name() +
                      " wants a user name and a password, and none is stored; " +
                      LoginAdvice(registry));
    }
    authorization.header = BasicHeader(*credential);
    return authorization;
  }
  const bool has_login = credential.has_value();
  OCIFS_ASSIGN_OR_RETURN(TokenRequest request,
                         TokenRequestFor(*demand, access, std::move(credential)));
  Result<std::string> token = tokens_.Get(request, stop);
  if (!token) {
    Error error = std::move(token).error();
    if (has_login && !request.credential) {
      error.message += "; the stored login was not sent, as " + demand->realm->host() +
                       " is outside of the registry's domain (realm_hosts allows it)";
    }
    if (error.code == ErrorCode::kUnauthenticated) RememberRefusal(authorization, error);
    return Fail(std::move(error));
  }
  authorization.header = "Bearer " + *token;
  authorization.token_request = std::move(request);
  authorization.token = *std::move(token);
  return authorization;
}

Result<std::optional<RegistryHost::Demand>> RegistryHost::DemandOf(const HttpHead& head) const {
  const std::vector<std::string> headers = head.headers.FindAll("www-authenticate");
  const std::vector<Challenge> challenges = ParseChallenges(headers);
  const Challenge* const challenge = PreferredChallenge(challenges);
  if (challenge == nullptr) return std::nullopt;
  Demand demand;
  demand.peer = head.peer;
  if (challenge->scheme == "basic") return demand;
  Result<Url> realm = Url::Parse(*challenge->Find("realm"));
  if (!realm) {
    return Fail(ErrorCode::kRemote, "registry " + name_ + " names a token server that is none: " +
                                        realm.error().message);
  }
  demand.bearer = true;
  demand.realm = *std::move(realm);
  if (const std::string* const service = challenge->Find("service")) demand.service = *service;
  return demand;
}

Result<void> RegistryHost::Learn(const HttpHead& head, const Authorization& refused,
                                 const std::stop_token& stop) {
  if (refused.token_request) tokens_.Drop(*refused.token_request, refused.token);
  OCIFS_ASSIGN_OR_RETURN(std::optional<Demand> demand, DemandOf(head));
  if (!demand && !CurrentDemand()) {
    OCIFS_ASSIGN_OR_RETURN(HttpRequest ping, Get("/"));
    HttpExchange exchange(client_, std::move(ping), stop);
    OCIFS_ASSIGN_OR_RETURN(const HttpHead* const answer, exchange.Head());
    if (answer->status == 401 && exchange.at_origin()) {
      OCIFS_ASSIGN_OR_RETURN(demand, DemandOf(*answer));
    }
    exchange.Discard();
  }
  if (!demand) {
    if (CurrentDemand()) return {};
    return Fail(
        ErrorCode::kUnauthenticated,
        "registry " + name_ + " answers 401 without saying how to log in; is the host a registry?");
  }
  const MutexLock lock(mutex_);
  demand_ = std::move(demand);
  return {};
}

RegistryExchange::RegistryExchange(RegistryHost& host, Access access, HttpRequest request,
                                   std::stop_token stop)
    : host_(host),
      access_(std::move(access)),
      request_(std::move(request)),
      stop_(std::move(stop)) {
  if (std::optional<Authorization> known = host_.AuthorizeFromMemory(access_, stop_)) {
    Send(*std::move(known));
  }
}

void RegistryExchange::Send(Authorization authorization) {
  authorization_ = std::move(authorization);
  HttpRequest request = request_;
  if (!authorization_.header.empty()) {
    request.headers.push_back({"Authorization", authorization_.header});
  }
  http_.emplace(host_.client(), std::move(request), stop_);
}

Result<const HttpHead*> RegistryExchange::Head() {
  while (true) {
    if (!http_) {
      OCIFS_ASSIGN_OR_RETURN(Authorization authorization, host_.Authorize(access_, stop_));
      Send(std::move(authorization));
    }
    OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, http_->Head());
    answered_ = true;
    // A challenge of a server that the registry sent us to is none of ours to answer.
    if (!http_->at_origin()) return head;
    if (head->status == 403 && !authorization_.header.empty() && !challenged_) {
      challenged_ = true;
      Result<Authorization> renewed = host_.Authorize(access_, stop_);
      if (!renewed || renewed->identity == authorization_.identity) return head;
      http_->Discard();
      Send(*std::move(renewed));
      continue;
    }
    if (head->status != 401) return head;
    if (challenged_) {
      Error error = RefusalOf(*head);
      host_.RememberRefusal(authorization_, error);
      return Fail(std::move(error));
    }
    challenged_ = true;
    const HttpHead answer = *head;
    Error error = RefusalOf(answer);
    OCIFS_RETURN_IF_ERROR(host_.Learn(answer, authorization_, stop_));
    OCIFS_ASSIGN_OR_RETURN(Authorization renewed, host_.Authorize(access_, stop_));
    if (!renewed.header.empty() && renewed.header == authorization_.header) {
      host_.RememberRefusal(renewed, error);
      return Fail(std::move(error));
    }
    Send(std::move(renewed));
  }
}

Error RegistryExchange::RefusalOf(const HttpHead& head) {
  Error error = ErrorFromAnswer(http_->Describe(), head, ReadErrorBody(*http_));
  error.message += "; " + LoginAdvice(access_.repository.registry());
  return error;
}

Error RegistryExchange::ErrorOfAnswer(const HttpHead& head) {
  Error error = ErrorFromAnswer(http_->Describe(), head, ReadErrorBody(*http_));
  if (!http_->at_origin() &&
      (error.code == ErrorCode::kUnauthenticated || error.code == ErrorCode::kDenied ||
       error.code == ErrorCode::kNotFound)) {
    error.code = ErrorCode::kRemote;
    error.message = http_->Describe() + ": the server that " + host_.name() +
                    " redirects to answers " + std::to_string(head.status);
  }
  return error;
}

}  // namespace ocifs::fetch
