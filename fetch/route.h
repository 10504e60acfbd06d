// Where a repository can be had: the servers to ask, in order, and how to speak to each.
#ifndef OCIFS_FETCH_ROUTE_H_
#define OCIFS_FETCH_ROUTE_H_

#include <chrono>
#include <string>
#include <vector>

#include "fetch/http_client.h"
#include "fetch/tls_options.h"
#include "fetch/url.h"
#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

// One server, as one repository is asked for there.
struct Endpoint {
  // What "/<repository path>/manifests/…" is appended to: ends in "/v2" unless a configuration
  // names another API root. No final slash.
  Url api_root;
  // The repository's name at that server. Its registry is the host that is contacted: credentials
  // are looked up for it, never for the name that the user wrote.
  store::Repository repository;
  bool is_origin = true;  // the registry itself, not a mirror of it
  // The server of the endpoint before this one, by HTTP where that one is HTTPS, for servers that a
  // configuration calls insecure: asked only when that one gave no answer at all.
  bool is_fallback = false;

  // What the server may be asked for (containerd's host capabilities).
  bool may_pull = true;       // content by digest
  bool may_resolve = true;    // tags and lists of tags: its word decides what a tag is
  bool may_referrers = true;  // lists of referrers

  // Sent as "?ns=" with every request when not empty: the registry that a proxy stands in for.
  std::string ns = {};
  TlsOptions tls = {};
  std::vector<HttpHeader> headers = {};       // sent with every request to this origin
  std::chrono::milliseconds dial_timeout{0};  // 0: the client's
  // Hosts of token servers, outside of the server's domain, that may see its credentials.
  std::vector<std::string> realm_hosts = {};
};

// Mirrors in the order in which they are to be asked, then the origin. At least one.
struct Route {
  std::vector<Endpoint> endpoints;
};

// Thread-safe.
class Router {
 public:
  virtual ~Router() = default;
  // kDenied when a configuration blocks the registry; kInvalid, with file and line, when a
  // configuration does not parse. No network; may read small local files.
  virtual store::Result<Route> RouteOf(const store::Repository& repository) = 0;
  // Whether a configuration names this registry, so that its existence needs no proof.
  virtual bool IsConfigured(const store::Registry& registry) = 0;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_ROUTE_H_
