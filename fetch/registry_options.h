// What a configuration says about one registry.
#ifndef OCIFS_FETCH_REGISTRY_OPTIONS_H_
#define OCIFS_FETCH_REGISTRY_OPTIONS_H_

#include <string>
#include <vector>

#include "fetch/tls_options.h"
#include "fetch/url.h"
#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

enum class Scheme {
  kAuto,   // http for loopback names with a port other than 443, else https
  kHttp,   // never TLS: an insecure registry
  kHttps,  // always TLS
};

struct RegistryOptions {
  Scheme scheme = Scheme::kAuto;
  // Where requests go instead of the registry's own name: "host[:port]" or a URL, which may have a
  // path; a URL's scheme wins over `scheme`.
  std::string endpoint = {};
  // Of the registry itself. Without `verify` it is an insecure registry: where neither `scheme` nor
  // `endpoint` names a scheme, HTTPS is tried with any certificate, then HTTP.
  TlsOptions tls = {};
  // Hosts of token servers, outside of the registry's domain, that may see its credentials.
  std::vector<std::string> realm_hosts = {};
  // Asked before the registry, in this order: "host[:port]" or URLs. How each is spoken to stands
  // in the options of its own name.
  std::vector<std::string> mirrors = {};
};

// The URL that "/v2/…" is appended to, without a final slash. Docker Hub's registry is
// registry-1.docker.io. kInvalid when `options.endpoint` does not parse. Pure.
store::Result<Url> EndpointOf(const store::Registry& registry, const RegistryOptions& options);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_OPTIONS_H_
