#include "fetch/registry_host.h"

#include <utility>

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
  return "log in with `podman login " + registry.name() + "` or `docker login " + registry.name() +
         "`";
}

std::string BasicHeader(const Credential& credential) {
  return "Basic " + store::ToBase64(credential.username + ":" + credential.password);
}

}  // namespace

Result<HttpRequest> RegistryHost::Get(std::string_view path_and_query) const {
  std::string text = endpoint_.ToString();
  while (text.ends_with('/')) text.pop_back();
  OCIFS_ASSIGN_OR_RETURN(Url url, Url::Parse(text + std::string(path_and_query)));
  return HttpRequest{.url = std::move(url), .tls = options_.tls};
}

std::optional<RegistryHost::Demand> RegistryHost::CurrentDemand() {
  const MutexLock lock(mutex_);
  return demand_;
}

Result<TokenRequest> RegistryHost::TokenRequestFor(const Demand& demand,
                                                   const store::Repository& repository,
                                                   std::optional<Credential> credential) const {
  const RealmContext context{registry_, endpoint_, demand.peer, options_.realm_hosts};
  OCIFS_ASSIGN_OR_RETURN(const RealmTrust trust, CheckRealm(*demand.realm, context));
  if (trust == RealmTrust::kAnonymous) credential.reset();
  TokenRequest request{.registry = registry_.name(),
                       .realm = *demand.realm,
                       .service = demand.service,
                       // Least privilege: what we want, not what the challenge offers.
                       .scope = "repository:" + repository.path() + ":pull",
                       .credential = std::move(credential),
                       .tls = options_.tls};
  if (!demand.realm->SameOrigin(endpoint_)) request.reach = demand.peer;
  return request;
}

std::optional<Authorization> RegistryHost::AuthorizeFromMemory(
    const store::Repository& repository) {
  const std::optional<Demand> demand = CurrentDemand();
  if (!demand) return Authorization{};
  Result<std::optional<Credential>> credential =
      credentials_.Lookup(repository, Freshness::kCached, {});
  if (!credential) return std::nullopt;
  if (!demand->bearer) {
    if (!*credential) return std::nullopt;
    return Authorization{.header = BasicHeader(**credential)};
  }
  if (*credential && !(*credential)->registry_token.empty()) {
    return Authorization{.header = "Bearer " + (*credential)->registry_token};
  }
  Result<TokenRequest> request = TokenRequestFor(*demand, repository, *std::move(credential));
  if (!request) return std::nullopt;
  std::optional<std::string> token = tokens_.Find(*request);
  if (!token) return std::nullopt;
  return Authorization{"Bearer " + *token, *std::move(request), *token};
}

Result<Authorization> RegistryHost::Authorize(const store::Repository& repository,
                                              const std::stop_token& stop) {
  const std::optional<Demand> demand = CurrentDemand();
  if (!demand) return Authorization{};
  OCIFS_ASSIGN_OR_RETURN(std::optional<Credential> credential,
                         credentials_.Lookup(repository, Freshness::kFresh, stop));
  if (credential && !credential->registry_token.empty()) {
    if (!IsUsableToken(credential->registry_token)) {
      return Fail(ErrorCode::kUnauthenticated, "registry " + registry_.name() +
                                                   ": the stored registrytoken is malformed; " +
                                                   LoginAdvice(registry_));
    }
    return Authorization{.header = "Bearer " + credential->registry_token};
  }
  if (!demand->bearer) {
    if (!credential || credential->password.empty()) {
      return Fail(ErrorCode::kUnauthenticated,
                  "registry " + registry_.name() +
                      " wants a user name and a password, and none is stored; " +
                      LoginAdvice(registry_));
    }
    return Authorization{.header = BasicHeader(*credential)};
  }
  const bool has_login = credential.has_value();
  OCIFS_ASSIGN_OR_RETURN(TokenRequest request,
                         TokenRequestFor(*demand, repository, std::move(credential)));
  Result<std::string> token = tokens_.Get(request, stop);
  if (!token) {
    Error error = std::move(token).error();
    if (has_login && !request.credential) {
      error.message += "; the stored login was not sent, as " + demand->realm->host() +
                       " is outside of the registry's domain (realm_hosts allows it)";
    }
    return Fail(std::move(error));
  }
  return Authorization{"Bearer " + *token, std::move(request), *token};
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
    return Fail(ErrorCode::kRemote,
                "registry " + registry_.name() +
                    " names a token server that is none: " + realm.error().message);
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
    OCIFS_ASSIGN_OR_RETURN(HttpRequest ping, Get("/v2/"));
    HttpExchange exchange(client_, std::move(ping), stop);
    OCIFS_ASSIGN_OR_RETURN(const HttpHead* const answer, exchange.Head());
    if (answer->status == 401 && exchange.at_origin()) {
      OCIFS_ASSIGN_OR_RETURN(demand, DemandOf(*answer));
    }
    exchange.Discard();
  }
  if (!demand) {
    if (CurrentDemand()) return {};
    return Fail(ErrorCode::kUnauthenticated,
                "registry " + registry_.name() +
                    " answers 401 without saying how to log in; is the host a registry?");
  }
  const MutexLock lock(mutex_);
  demand_ = std::move(demand);
  return {};
}

RegistryExchange::RegistryExchange(RegistryHost& host, store::Repository repository,
                                   HttpRequest request, std::stop_token stop)
    : host_(host),
      repository_(std::move(repository)),
      request_(std::move(request)),
      stop_(std::move(stop)) {
  if (std::optional<Authorization> known = host_.AuthorizeFromMemory(repository_)) {
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
      OCIFS_ASSIGN_OR_RETURN(Authorization authorization, host_.Authorize(repository_, stop_));
      Send(std::move(authorization));
    }
    OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, http_->Head());
    // A challenge of a server that the registry sent us to is none of ours to answer.
    if (head->status != 401 || !http_->at_origin()) return head;
    if (challenged_) {
      Error error = ErrorFromAnswer(http_->Describe(), *head, ReadErrorBody(*http_));
      error.message += "; " + LoginAdvice(host_.registry());
      return Fail(std::move(error));
    }
    challenged_ = true;
    const HttpHead answer = *head;
    http_->Discard();
    OCIFS_RETURN_IF_ERROR(host_.Learn(answer, authorization_, stop_));
    http_.reset();
  }
}

Error RegistryExchange::ErrorOfAnswer(const HttpHead& head) {
  Error error = ErrorFromAnswer(http_->Describe(), head, ReadErrorBody(*http_));
  if (!http_->at_origin() &&
      (error.code == ErrorCode::kUnauthenticated || error.code == ErrorCode::kDenied ||
       error.code == ErrorCode::kNotFound)) {
    error.code = ErrorCode::kRemote;
    error.message = http_->Describe() + ": the server that " + host_.registry().name() +
                    " redirects to answers " + std::to_string(head.status);
  }
  return error;
}

Result<const HttpHead*> RegistryExchange::Expect(int status) {
  OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, Head());
  if (head->status == status) return head;
  return Fail(ErrorOfAnswer(*head));
}

}  // namespace ocifs::fetch
