// Bearer tokens: where they may be asked for, and the ones we hold. Distribution's token
// authentication (GET and OAuth2 POST), formats as registries speak them today.
#ifndef OCIFS_FETCH_TOKEN_H_
#define OCIFS_FETCH_TOKEN_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "fetch/credentials.h"
#include "fetch/http_client.h"
#include "fetch/single_flight.h"
#include "fetch/url.h"
#include "store/error.h"
#include "store/mutex.h"
#include "store/reference.h"

namespace ocifs::fetch {

// Who asks for a token where: the rules for a challenge's realm.
struct RealmContext {
  store::Registry registry;
  Url endpoint;                                     // the registry's own URL
  AddressScope registry_scope;                      // of the address that sent the challenge
  std::span<const std::string> trusted_hosts = {};  // configured realm hosts
};

enum class RealmTrust {
  kAnonymous,    // ask without credentials
  kCredentials,  // the realm belongs to the registry
};

// kDenied for a realm that nothing at all is sent to: without TLS though the registry has it or is
// another host, or at an address closer to home than the registry. Pure.
store::Result<RealmTrust> CheckRealm(const Url& realm, const RealmContext& context);

// Whether two host names belong to one owner, as far as names tell: equal, one below the other, or
// below the same parent of at least two labels (three below "co.uk" and its like).
bool SameOwner(std::string_view host, std::string_view other);

// Whether `token` may stand in a header: 1 byte to 64 KiB of printable ASCII without spaces.
bool IsUsableToken(std::string_view token);

struct IssuedToken {
  std::string token;
  std::chrono::seconds lifetime;  // 60 s to 1 h
  std::string refresh_token;  // the next identity token, when this use has ended the last; or empty
};

// The body of a token server's answer. kRemote when it holds no usable token. Pure.
store::Result<IssuedToken> ParseTokenAnswer(std::string_view body);

struct TokenRequest {
  std::string registry;  // name, part of the key
  Url realm;
  std::string service;
  std::string scope;
  std::optional<Credential> credential;  // absent: anonymous
  TlsOptions tls = {};
  AddressScope reach = AddressScope::kLoopback;
};

using Clock = std::function<std::chrono::steady_clock::time_point()>;

// Thread-safe. Tokens live in memory only, at most kMaxTokens of them. One request is in flight per
// key; others wait for it. No lock is held across the network.
class TokenCache {
 public:
  static constexpr size_t kMaxTokens = 1024;

  explicit TokenCache(HttpClient& client, Clock clock = std::chrono::steady_clock::now)
      : client_(client), clock_(std::move(clock)) {}

  // A token that is good for a while yet, or nullopt. Touches no network.
  std::optional<std::string> Find(const TokenRequest& request) OCIFS_EXCLUDES(mutex_);
  // Find, else one request to the realm, which follows no redirect. kUnauthenticated when the realm
  // refuses the credential or wants one.
  store::Result<std::string> Get(const TokenRequest& request, const std::stop_token& stop)
      OCIFS_EXCLUDES(mutex_);
  // Forgets `token` if it is still the one held: the registry has refused it.
  void Drop(const TokenRequest& request, std::string_view token) OCIFS_EXCLUDES(mutex_);

 private:
  struct Entry {
    std::string token;
    std::chrono::steady_clock::time_point renew_at;
  };

  store::Result<IssuedToken> Fetch(const TokenRequest& asked, const std::stop_token& stop);
  // The identity token that has come in the place of the request's own.
  std::string LatestIdentity(const TokenRequest& request) OCIFS_EXCLUDES(mutex_);
  void NoteIdentity(const TokenRequest& request, const std::string& next) OCIFS_EXCLUDES(mutex_);
  void ForgetIdentity(const TokenRequest& request) OCIFS_EXCLUDES(mutex_);

  HttpClient& client_;
  const Clock clock_;
  store::Mutex mutex_;
  std::map<std::string, Entry> tokens_ OCIFS_GUARDED_BY(mutex_);
  std::map<std::string, std::string> identities_ OCIFS_GUARDED_BY(mutex_);  // by IdentityKey
  SingleFlight<std::string> flights_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_TOKEN_H_
