// One registry as this process knows it: where it is, what it asked for, and requests to it that
// answer its challenges.
#ifndef OCIFS_FETCH_REGISTRY_HOST_H_
#define OCIFS_FETCH_REGISTRY_HOST_H_

#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/challenge.h"
#include "fetch/credentials.h"
#include "fetch/http_client.h"
#include "fetch/http_exchange.h"
#include "fetch/registry_options.h"
#include "fetch/token.h"
#include "store/error.h"
#include "store/mutex.h"
#include "store/reference.h"

namespace ocifs::fetch {

// What goes into the Authorization header of a request.
struct Authorization {
  std::string header = {};                         // empty: none
  std::optional<TokenRequest> token_request = {};  // set when `token` came from a token server
  std::string token = {};
};

// Thread-safe.
class RegistryHost {
 public:
  RegistryHost(store::Registry registry, Url endpoint, RegistryOptions options, HttpClient& client,
               TokenCache& tokens, CredentialSource& credentials)
      : registry_(std::move(registry)),
        endpoint_(std::move(endpoint)),
        options_(std::move(options)),
        client_(client),
        tokens_(tokens),
        credentials_(credentials) {}

  const store::Registry& registry() const { return registry_; }
  const Url& endpoint() const { return endpoint_; }
  HttpClient& client() { return client_; }

  // A GET below the endpoint; `path_and_query` begins with "/v2/".
  store::Result<HttpRequest> Get(std::string_view path_and_query) const;

  // What this registry is known to want, from memory and the auth files alone; nullopt when that
  // takes a token that is not held or cannot be had.
  std::optional<Authorization> AuthorizeFromMemory(const store::Repository& repository);
  // The same, with a request to the token server if need be. kUnauthenticated when a login is
  // needed and none is stored.
  store::Result<Authorization> Authorize(const store::Repository& repository,
                                         const std::stop_token& stop);
  // Remembers what a 401 asks for; when it does not say, asks GET /v2/ once. Forgets the token of
  // `refused`.
  store::Result<void> Learn(const HttpHead& head, const Authorization& refused,
                            const std::stop_token& stop);

 private:
  struct Demand {
    bool bearer = false;
    std::optional<Url> realm;  // of Bearer
    std::string service;
    AddressScope peer = AddressScope::kPublic;
  };

  std::optional<Demand> CurrentDemand() OCIFS_EXCLUDES(mutex_);
  store::Result<TokenRequest> TokenRequestFor(const Demand& demand,
                                              const store::Repository& repository,
                                              std::optional<Credential> credential) const;
  store::Result<std::optional<Demand>> DemandOf(const HttpHead& head) const;

  const store::Registry registry_;
  const Url endpoint_;
  const RegistryOptions options_;
  HttpClient& client_;
  TokenCache& tokens_;
  CredentialSource& credentials_;
  store::Mutex mutex_;
  std::optional<Demand> demand_ OCIFS_GUARDED_BY(mutex_);
};

// A request about one repository, through redirects and at most one challenge beyond what was
// known. Owned by one thread. Must not outlive the host.
class RegistryExchange {
 public:
  // Sends the request at once, unless a token has to be fetched first: then Head does both.
  RegistryExchange(RegistryHost& host, store::Repository repository, HttpRequest request,
                   std::stop_token stop);

  // The answer, whatever its status, except that a 401 that stands is kUnauthenticated. Blocks.
  store::Result<const HttpHead*> Head();
  // The answer, if its status is `status`; otherwise the error that the answer stands for. Answers
  // of another server, to which the registry redirected, are never kNotFound or about our login.
  store::Result<const HttpHead*> Expect(int status);
  // The error that the answer, with Head's status, stands for. Reads its body.
  store::Error ErrorOfAnswer(const HttpHead& head);

  HttpExchange& http() { return *http_; }  // valid after Head

 private:
  void Send(Authorization authorization);

  RegistryHost& host_;
  const store::Repository repository_;
  const HttpRequest request_;
  const std::stop_token stop_;
  Authorization authorization_;
  std::optional<HttpExchange> http_;
  bool challenged_ = false;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_HOST_H_
