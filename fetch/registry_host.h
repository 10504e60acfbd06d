// One server as this process knows it: how to speak to it, what it asked for, how it fares; and
// requests to it that answer its challenges.
#ifndef OCIFS_FETCH_REGISTRY_HOST_H_
#define OCIFS_FETCH_REGISTRY_HOST_H_

#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "fetch/challenge.h"
#include "fetch/credentials.h"
#include "fetch/host_health.h"
#include "fetch/http_client.h"
#include "fetch/http_exchange.h"
#include "fetch/route.h"
#include "fetch/timer.h"
#include "fetch/token.h"
#include "store/error.h"
#include "store/mutex.h"
#include "store/reference.h"

namespace ocifs::fetch {

// What a request is about, as far as permission goes.
struct Access {
  store::Repository repository;  // at the server: whose credentials apply
  std::string scope;             // of a token; empty: none, as for a login

  static Access Pull(const store::Repository& repository) {
    return {repository, "repository:" + repository.path() + ":pull"};
  }
};

// What goes into the Authorization header of a request.
struct Authorization {
  std::string header = {};                         // empty: none
  std::optional<TokenRequest> token_request = {};  // set when `token` came from a token server
  std::string token = {};
  // Stands for the credential and the access together; holds no secret.
  std::string identity = {};
  // Of the credential alone; empty without one.
  std::string login = {};
  std::string note = {};  // why a stored login is not used, for messages
};

// Thread-safe.
class RegistryHost {
 public:
  // How long a login that was refused is not offered again for the same repository, lest readers in
  // a loop lock an account out. After kMaxRefusedLogins refusals with no success between them the
  // login itself is taken to be wrong, for all repositories. Another credential counts at once.
  static constexpr std::chrono::seconds kRefusalPause{30};
  static constexpr int kMaxRefusedLogins = 2;
  static constexpr size_t kMaxRefusals = 256;

  // `endpoint`: all but its repository applies to every request. What the references stand for must
  // outlive this.
  RegistryHost(Endpoint endpoint, HttpClient& client, TokenCache& tokens,
               CredentialSource& credentials, const Timer& timer);

  // Equal for endpoints that can share a RegistryHost.
  static std::string KeyOf(const Endpoint& endpoint);

  const std::string& name() const { return name_; }  // "host:port", for messages
  const std::string& key() const { return key_; }    // KeyOf its endpoint
  const Url& api_root() const { return endpoint_.api_root; }
  HttpClient& client() { return client_; }
  HostHealth& health() { return health_; }

  // A GET below the API root; `path_and_query` begins with "/".
  store::Result<HttpRequest> Get(std::string_view path_and_query) const;

  // What this server is known to want, from memory and the stored credentials alone; nullopt when
  // that takes a token that is not held or cannot be had.
  std::optional<Authorization> AuthorizeFromMemory(const Access& access,
                                                   const std::stop_token& stop);
  // The same with credentials looked up anew, and a request to the token server if need be.
  // kUnauthenticated when these credentials have been refused a moment ago.
  store::Result<Authorization> Authorize(const Access& access, const std::stop_token& stop);
  // Remembers what a 401 asks for; when it does not say, asks GET /v2/ once. Forgets the token of
  // `refused`.
  store::Result<void> Learn(const HttpHead& head, const Authorization& refused,
                            const std::stop_token& stop);
  // The server refuses this, though it is what it asked for.
  void RememberRefusal(const Authorization& refused, const store::Error& error)
      OCIFS_EXCLUDES(mutex_);
  // The server took it.
  void RememberAcceptance(const Authorization& accepted) OCIFS_EXCLUDES(mutex_);

  // The time a connection takes to make, as last seen; nullopt when none was made yet.
  std::optional<std::chrono::microseconds> round_trip() const;
  void NoteConnectTime(std::chrono::microseconds time) { round_trip_us_ = time.count(); }

  // Connections beyond one for each body: at most kMaxExtraRanges at a time. False: none is left.
  static constexpr int kMaxExtraRanges = 8;
  bool TakeExtraRange();
  void ReturnExtraRange() { --extra_ranges_; }

 private:
  struct Demand {
    bool bearer = false;
    std::optional<Url> realm;  // of Bearer
    std::string service;
    AddressScope peer = AddressScope::kPublic;
  };
  struct Refusal {
    store::Error error;
    Timer::TimePoint until;
    int count = 0;
  };

  std::optional<Demand> CurrentDemand() OCIFS_EXCLUDES(mutex_);
  std::optional<store::Error> RefusalOf(const Authorization& authorization) OCIFS_EXCLUDES(mutex_);
  store::Result<TokenRequest> TokenRequestFor(const Demand& demand, const Access& access,
                                              std::optional<Credential> credential) const;
  store::Result<std::optional<Demand>> DemandOf(const HttpHead& head) const;

  const Endpoint endpoint_;
  const std::string name_;
  const std::string key_;
  HttpClient& client_;
  TokenCache& tokens_;
  CredentialSource& credentials_;
  const Timer& timer_;
  HostHealth health_;
  std::atomic<int64_t> round_trip_us_ = -1;
  std::atomic<int> extra_ranges_ = 0;
  store::Mutex mutex_;
  std::optional<Demand> demand_ OCIFS_GUARDED_BY(mutex_);
  std::map<std::string, Refusal> refusals_ OCIFS_GUARDED_BY(mutex_);  // by identity and by login
};

// A request to one server, through redirects and at most one challenge beyond what was known.
// Owned by one thread. Must not outlive the host.
class RegistryExchange {
 public:
  // Sends the request at once, unless a token has to be fetched first: then Head does both.
  RegistryExchange(RegistryHost& host, Access access, HttpRequest request, std::stop_token stop);

  // The answer, whatever its status, except that a 401 that stands is kUnauthenticated. A 401, and
  // a 403 to a login, has the credentials looked up anew: they may have been renewed. Blocks.
  store::Result<const HttpHead*> Head();
  // The error that the answer, with Head's status, stands for. Reads its body. Answers of another
  // server, to which the registry redirected, are never kNotFound or about our login.
  store::Error ErrorOfAnswer(const HttpHead& head);
  // What the server had to do with a failure of Head.
  Contact contact() const;

  HttpExchange& http() { return *http_; }  // valid after Head

 private:
  void Send(Authorization authorization);
  // Of a 401; reads its body.
  store::Error RefusalOf(const HttpHead& head);

  RegistryHost& host_;
  const Access access_;
  const HttpRequest request_;
  const std::stop_token stop_;
  Authorization authorization_;
  std::optional<HttpExchange> http_;
  bool challenged_ = false;
  bool answered_ = false;  // by the server itself
  bool asked_ = false;     // it is the server's answer that is waited for
  bool timed_out_ = false;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_HOST_H_
