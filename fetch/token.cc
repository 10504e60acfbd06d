#include "fetch/token.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "fetch/hashed_key.h"
#include "fetch/registry_answer.h"
#include "store/json.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using std::chrono::seconds;
using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Json;
using store::MutexLock;
using store::Result;

constexpr size_t kMaxTokenBytes = size_t{64} << 10;
constexpr size_t kMaxTokenAnswerBytes = size_t{1} << 20;
constexpr seconds kMinLifetime{60};
constexpr seconds kMaxLifetime{3600};

// Second-level labels under which countries sell names: "co.uk" is nobody's parent domain.
bool IsSharedSecondLevel(std::string_view label) {
  constexpr std::array<std::string_view, 12> kShared = {"ac",  "co", "com", "edu", "go", "gob",
                                                        "gov", "gv", "ne",  "net", "or", "org"};
  return std::find(kShared.begin(), kShared.end(), label) != kShared.end();
}

// `domain` or a name below it.
bool IsWithin(std::string_view host, std::string_view domain) {
  return host == domain || (host.size() > domain.size() && host.ends_with(domain) &&
                            host[host.size() - domain.size() - 1] == '.');
}

bool IsOwnableDomain(std::string_view domain) {
  const size_t last = domain.rfind('.');
  if (last == std::string_view::npos || last == 0) return false;
  const size_t before = domain.rfind('.', last - 1);
  if (before != std::string_view::npos) return true;
  return domain.size() - last - 1 != 2 || !IsSharedSecondLevel(domain.substr(0, last));
}

// Of what decides a token.
std::string KeyOf(const TokenRequest& request) {
  HashedKey key;
  key.Add(request.registry).Add(request.realm.ToString()).Add(request.service).Add(request.scope);
  if (request.credential) {
    key.Add(request.credential->username)
        .Add(request.credential->password)
        .Add(request.credential->identity_token);
  }
  return key.Hash();
}

// Of the stored identity token at its server.
std::string IdentityKey(const TokenRequest& request) {
  return HashedKey().Add(request.realm.ToString()).Add(request.credential->identity_token).Hash();
}

std::string FormField(std::string_view name, std::string_view value) {
  return std::string(name) + "=" + PercentEncode(value);
}

// GET with Basic for a user name and a password, or POST (OAuth2) with the grant that fits.
HttpRequest BuildRequest(const TokenRequest& request, bool post) {
  HttpRequest http{.url = request.realm, .tls = request.tls, .reach = request.reach};
  http.headers.push_back({"Accept", "application/json"});
  if (post) {
    const Credential& credential = *request.credential;
    http.method = HttpMethod::kPost;
    http.headers.push_back({"Content-Type", "application/x-www-form-urlencoded"});
    http.body = FormField("client_id", "ocifs") + "&" + FormField("service", request.service);
    if (!request.scope.empty()) http.body += "&" + FormField("scope", request.scope);
    http.body += "&";
    if (credential.identity_token.empty()) {
      http.body += FormField("grant_type", "password") + "&" +
                   FormField("username", credential.username) + "&" +
                   FormField("password", credential.password);
    } else {
      http.body += FormField("grant_type", "refresh_token") + "&" +
                   FormField("refresh_token", credential.identity_token);
    }
    return http;
  }
  std::vector<std::pair<std::string, std::string>> query;
  if (!request.service.empty()) query.emplace_back("service", request.service);
  if (!request.scope.empty()) query.emplace_back("scope", request.scope);
  http.url = request.realm.WithQuery(query);
  if (request.credential) {
    http.headers.push_back(
        {"Authorization", "Basic " + store::ToBase64(request.credential->username + ":" +
                                                     request.credential->password)});
  }
  return http;
}

}  // namespace

bool SameOwner(std::string_view host, std::string_view other) {
  if (host == other) return true;
  if (ScopeOfHost(host) || ScopeOfHost(other)) {
    // Addresses have no domains; all loopback names are this host.
    return ScopeOfHost(host) == AddressScope::kLoopback &&
           ScopeOfHost(other) == AddressScope::kLoopback;
  }
  if (IsOwnableDomain(host) && IsWithin(other, host)) return true;
  const size_t dot = host.find('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view parent = host.substr(dot + 1);
  return IsOwnableDomain(parent) && IsWithin(other, parent);
}

Result<RealmTrust> CheckRealm(const Url& realm, const RealmContext& context) {
  auto refuse = [&](const std::string& why) {
    return Fail(ErrorCode::kDenied, "registry " + context.registry.name() +
                                        " asks to fetch tokens at " + realm.ForDisplay() +
                                        ", which is refused: " + why);
  };
  const bool both_loopback = ScopeOfHost(realm.host()) == AddressScope::kLoopback &&
                             ScopeOfHost(context.endpoint.host()) == AddressScope::kLoopback;
  const bool same_host = realm.host() == context.endpoint.host() || both_loopback;
  if (!realm.is_https() && context.endpoint.is_https()) return refuse("it is not https");
  if (!realm.is_https() && !same_host) {
    return refuse("another host is asked over https only");
  }
  if (const auto scope = ScopeOfHost(realm.host());
      scope && *scope > context.registry_scope && !same_host) {
    return refuse("a " + std::string(AddressScopeName(*scope)) +
                  " address, and the registry has a " +
                  std::string(AddressScopeName(context.registry_scope)) + " one");
  }
  const bool known_pair = context.registry.is_docker_hub() && realm.host() == "auth.docker.io";
  const bool configured = std::find(context.trusted_hosts.begin(), context.trusted_hosts.end(),
                                    realm.host()) != context.trusted_hosts.end();
  const bool trusted =
      same_host || known_pair || configured || SameOwner(context.endpoint.host(), realm.host());
  return trusted ? RealmTrust::kCredentials : RealmTrust::kAnonymous;
}

bool IsUsableToken(std::string_view token) {
  return !token.empty() && token.size() <= kMaxTokenBytes &&
         std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

Result<IssuedToken> ParseTokenAnswer(std::string_view body) {
  const Result<Json> parsed = Json::Parse(body, {.max_bytes = kMaxTokenAnswerBytes});
  if (!parsed) return Fail(ErrorCode::kRemote, "not a token: " + parsed.error().message);
  const std::string* token = nullptr;
  for (const std::string_view key : {"token", "access_token"}) {
    const Json* const member = parsed->Find(key);
    if (member == nullptr || member->string() == nullptr || member->string()->empty()) continue;
    token = member->string();
    break;
  }
  if (token == nullptr) return Fail(ErrorCode::kRemote, "the answer holds no token");
  if (!IsUsableToken(*token)) {
    return Fail(ErrorCode::kRemote, "the token is too long or holds characters no header may hold");
  }
  seconds lifetime = kMinLifetime;
  if (const Json* const expires = parsed->Find("expires_in"); expires != nullptr) {
    if (const int64_t* const number = expires->integer()) {
      lifetime = std::clamp(seconds(*number), kMinLifetime, kMaxLifetime);
    }
  }
  IssuedToken issued{*token, lifetime, ""};
  if (const Json* const next = parsed->Find("refresh_token");
      next != nullptr && next->string() != nullptr && next->string()->size() <= kMaxTokenBytes) {
    issued.refresh_token = *next->string();
  }
  return issued;
}

std::optional<std::string> TokenCache::Find(const TokenRequest& request) {
  const std::string key = KeyOf(request);
  const auto now = clock_();
  const MutexLock lock(mutex_);
  const auto found = tokens_.find(key);
  if (found == tokens_.end()) return std::nullopt;
  if (found->second.renew_at <= now) {
    tokens_.erase(found);
    return std::nullopt;
  }
  return found->second.token;
}

void TokenCache::Drop(const TokenRequest& request, std::string_view token) {
  const std::string key = KeyOf(request);
  const MutexLock lock(mutex_);
  const auto found = tokens_.find(key);
  if (found != tokens_.end() && found->second.token == token) tokens_.erase(found);
}

Result<std::string> TokenCache::Get(const TokenRequest& request, const std::stop_token& stop) {
  const std::string key = KeyOf(request);
  return flights_.Run(
      key, [&]() -> std::optional<Result<std::string>> { return Find(request); },
      [&]() -> Result<std::string> {
        // The time of asking, not of the answer: a token never lives longer than its server thinks.
        const auto asked_at = clock_();
        OCIFS_ASSIGN_OR_RETURN(const IssuedToken issued, Fetch(request, stop));
        const seconds margin = std::max(seconds(10), issued.lifetime / 10);
        const MutexLock lock(mutex_);
        std::erase_if(tokens_, [&](const auto& item) { return item.second.renew_at <= asked_at; });
        if (tokens_.size() >= kMaxTokens) tokens_.erase(tokens_.begin());
        tokens_[key] = {issued.token, asked_at + issued.lifetime - margin};
        return issued.token;
      },
      "a token of " + request.registry, stop);
}

Result<IssuedToken> TokenCache::Fetch(const TokenRequest& asked, const std::stop_token& stop) {
  TokenRequest request = asked;
  const bool by_identity = request.credential && !request.credential->identity_token.empty();
  if (by_identity) request.credential->identity_token = LatestIdentity(asked);
  std::unique_ptr<HttpTransfer> transfer = client_.Start(BuildRequest(request, by_identity), stop);
  auto wrap = [&](Error error) {
    return Fail(std::move(error).Wrap("token for registry " + request.registry));
  };
  Result<const HttpHead*> head = transfer->Head();
  if (!head) return wrap(head.error());
  // Some token servers only know the other way to ask.
  if (request.credential && !by_identity && ((*head)->status == 404 || (*head)->status == 405)) {
    transfer = client_.Start(BuildRequest(request, true), stop);
    head = transfer->Head();
    if (!head) return wrap(head.error());
  }
  const int status = (*head)->status;
  if (status >= 300 && status < 400) {
    return wrap({ErrorCode::kDenied,
                 transfer->Describe() + ": answered with a redirect, which could take the login to "
                                        "another server; token requests follow none"});
  }
  if (status != 200) {
    Error error = ErrorFromAnswer(transfer->Describe(), **head, ReadErrorBody(*transfer));
    if (by_identity) ForgetIdentity(asked);
    // Token servers say "no such login" in many ways, and none of them is about a package.
    if (status == 400 || status == 401 || status == 403 || status == 404) {
      error.code = ErrorCode::kUnauthenticated;
      error.message += request.credential ? "; the stored login was refused, renew it with `"
                                          : "; log in with `";
      error.message += "ocifs-ctl login " + request.registry + "`";
    }
    return wrap(std::move(error));
  }
  const Result<std::string> body = transfer->ReadAll(kMaxTokenAnswerBytes);
  if (!body) return wrap(body.error());
  Result<IssuedToken> token = ParseTokenAnswer(*body);
  if (!token) return wrap(std::move(token).error().Wrap(transfer->Describe()));
  if (by_identity && !token->refresh_token.empty()) NoteIdentity(asked, token->refresh_token);
  return token;
}

// Some servers end an identity token with its use and give the next one. The stored login stays as
// it is: it belongs to whoever logged in, and a restart finds out whether it is still good.
std::string TokenCache::LatestIdentity(const TokenRequest& request) {
  const MutexLock lock(mutex_);
  const auto found = identities_.find(IdentityKey(request));
  return found == identities_.end() ? request.credential->identity_token : found->second;
}

void TokenCache::ForgetIdentity(const TokenRequest& request) {
  const MutexLock lock(mutex_);
  identities_.erase(IdentityKey(request));
}

void TokenCache::NoteIdentity(const TokenRequest& request, const std::string& next) {
  const MutexLock lock(mutex_);
  if (identities_.size() >= kMaxTokens) identities_.clear();
  identities_[IdentityKey(request)] = next;
}

}  // namespace ocifs::fetch
