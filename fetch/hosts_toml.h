// containerd's hosts.toml: the servers that a registry is asked for at (containerd, docs/hosts.md,
// as of version 2.0).
#ifndef OCIFS_FETCH_HOSTS_TOML_H_
#define OCIFS_FETCH_HOSTS_TOML_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/http_client.h"
#include "fetch/tls_options.h"
#include "fetch/url.h"
#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

struct HostsTomlServer {
  // Absent, at the top level only: the registry itself.
  std::optional<Url> api_root;             // with "/v2", unless override_path says not to
  std::optional<store::Registry> contact;  // its host, as written; set when api_root is
  // An absent or empty list of capabilities grants all. "push" is known and of no use here.
  bool may_pull = true;
  bool may_resolve = true;
  bool may_referrers = true;
  TlsOptions tls = {};      // absolute paths
  bool tls_is_set = false;  // by any of ca, client, skip_verify
  size_t client_pairs = 0;  // `tls` has the first
  std::vector<HttpHeader> headers = {};
  std::chrono::milliseconds dial_timeout{0};  // 0: not set
  uint32_t line = 1;
};

struct HostsToml {
  std::vector<HostsTomlServer> mirrors;  // the [host."…"] tables, in the order of the file
  HostsTomlServer server;                // the top level
};

// Relative paths are taken from the directory of `file`. Unknown keys are passed over, as
// containerd does. kInvalid, "file:line: why", for text that is not TOML, a key of the wrong type,
// an unknown capability, a URL with user information, a query or a fragment, and a header that
// would not be one line of its own. Values of headers stand in no message. Pure.
store::Result<HostsToml> ParseHostsToml(std::string_view text, const std::string& file);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HOSTS_TOML_H_
