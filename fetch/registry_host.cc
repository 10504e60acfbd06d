#include "fetch/registry_host.h"

#include <utility>
#include <vector>

#include "fetch/hashed_key.h"
#include "fetch/registry_answer.h"
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

// What stands for a credential, and for what it is used for; hashed, so that no secret is kept.
Authorization Identify(const Access& access, const std::optional<Credential>& credential) {
  HashedKey key;
  Authorization authorization;
  if (credential) {
    key.Add(credential->username)
        .Add(credential->password)
        .Add(credential->identity_token)
        .Add(credential->registry_token);
    authorization.login = key.Hash();
  }
  authorization.identity = key.Add(access.repository.ToString()).Add(access.scope).Hash();
  return authorization;
}

}  // namespace

RegistryHost::RegistryHost(Endpoint endpoint, HttpClient& client, TokenCache& tokens,
                           CredentialSource& credentials, const Timer& timer)
    : endpoint_(std::move(endpoint)),
      name_(endpoint_.api_root.Authority()),
      key_(KeyOf(endpoint_)),
      client_(client),
      tokens_(tokens),
      credentials_(credentials),
      timer_(timer),
      health_(name_, !endpoint_.is_origin, timer) {}

std::string RegistryHost::KeyOf(const Endpoint& endpoint) {
  HashedKey key;
  key.Add(endpoint.api_root.ToString());
  key.Add(endpoint.repository.registry().name());
  key.Add(endpoint.ns);
  key.Add(endpoint.is_origin ? "origin" : "mirror");
  for (const std::string& file : endpoint.tls.ca_files) key.Add(file);
  key.Add(endpoint.tls.certificate_file);
  key.Add(endpoint.tls.key_file);
  key.Add(endpoint.tls.verify ? "verify" : "trust");
  for (const HttpHeader& header : endpoint.headers) {
    key.Add(header.name);
    key.Add(header.value);
  }
  for (const std::string& host : endpoint.realm_hosts) key.Add(host);
  return key.Hash();
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

std::optional<Error> RegistryHost::RefusalOf(const Authorization& authorization) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  if (const auto found = refusals_.find(authorization.identity);
      found != refusals_.end() && found->second.until > now) {
    return found->second.error;
  }
  if (const auto found = refusals_.find(authorization.login);
      found != refusals_.end() && found->second.until > now &&
      found->second.count >= kMaxRefusedLogins) {
    return found->second.error;
  }
  return std::nullopt;
}

void RegistryHost::RememberRefusal(const Authorization& refused, const Error& error) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  if (refusals_.size() >= kMaxRefusals) {
    std::erase_if(refusals_, [now](const auto& item) { return item.second.until <= now; });
    if (refusals_.size() >= kMaxRefusals) refusals_.clear();
  }
  for (const std::string& key : {refused.identity, refused.login}) {
    if (key.empty()) continue;
    const auto [place, added] = refusals_.try_emplace(key);
    Refusal& refusal = place->second;
    if (refusal.until <= now) refusal.count = 0;
    ++refusal.count;
    refusal.error = error;
    refusal.until = now + kRefusalPause;
  }
}

void RegistryHost::RememberAcceptance(const Authorization& accepted) {
  const MutexLock lock(mutex_);
  if (!accepted.login.empty() && !refusals_.empty()) refusals_.erase(accepted.login);
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
      credentials_.Lookup(access.repository, Freshness::kKnown, stop);
  if (!credential) return std::nullopt;
  Authorization authorization = Identify(access, *credential);
  if (RefusalOf(authorization)) return std::nullopt;
  if (*credential && !(*credential)->registry_token.empty()) {
    if (!IsUsableToken((*credential)->registry_token)) return std::nullopt;
    authorization.header = "Bearer " + (*credential)->registry_token;
    return authorization;
  }
  if (!demand->bearer) {
    // Without a login some repositories may be read all the same.
    if (*credential && !(*credential)->password.empty()) {
      authorization.header = BasicHeader(**credential);
    }
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
  Result<std::optional<Credential>> found =
      credentials_.Lookup(access.repository, Freshness::kFresh, stop);
  std::string lookup_failure;
  if (!found) {
    Error error = std::move(found).error();
    // A damaged auth file is our affair; to the reader it is a login that is not to be had.
    if (error.code == ErrorCode::kInvalid) error.code = ErrorCode::kUnauthenticated;
    // A token may be given to anybody, so a broken helper ends nothing yet.
    if (!demand->bearer || error.code == ErrorCode::kCancelled) return Fail(std::move(error));
    lookup_failure = "; no login was used: " + error.message;
    found = std::nullopt;
  }
  std::optional<Credential> credential = *std::move(found);
  Authorization authorization = Identify(access, credential);
  authorization.note = lookup_failure;
  if (std::optional<Error> refusal = RefusalOf(authorization)) {
    refusal->message += lookup_failure;
    return Fail(*std::move(refusal));
  }
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
    error.message += lookup_failure;
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

Contact RegistryExchange::contact() const {
  if (answered_ || (http_ && http_->redirected())) return Contact::kAnswered;
  // A server that takes its time over an answer is not away.
  if (!asked_ || (http_ && http_->connected() && timed_out_)) return Contact::kNone;
  return Contact::kSilent;
}

Result<const HttpHead*> RegistryExchange::Head() {
  while (true) {
    if (!http_) {
      OCIFS_ASSIGN_OR_RETURN(Authorization authorization, host_.Authorize(access_, stop_));
      Send(std::move(authorization));
    }
    asked_ = true;
    const Result<const HttpHead*> answer = http_->Head();
    if (!answer) {
      timed_out_ = answer.error().code == ErrorCode::kTimedOut;
      return Fail(answer.error());
    }
    const HttpHead* const head = *answer;
    answered_ = true;
    if (head->status < 400 && !authorization_.login.empty()) {
      host_.RememberAcceptance(authorization_);
    }
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
    const HttpHead challenge = *head;
    Error error = RefusalOf(challenge);
    OCIFS_RETURN_IF_ERROR(host_.Learn(challenge, authorization_, stop_));
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
  error.message += "; " + LoginAdvice(access_.repository.registry()) + authorization_.note;
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
