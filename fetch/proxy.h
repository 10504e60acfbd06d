// Which proxy a request goes through. The rules are libcurl's, applied here, so that it is known of
// every request whether the address that it connects to is the server's or a proxy's.
#ifndef OCIFS_FETCH_PROXY_H_
#define OCIFS_FETCH_PROXY_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "fetch/url.h"
#include "store/error.h"

namespace ocifs::fetch {

struct Proxy {
  std::string url = {};      // for libcurl; may hold a login, so it stands in no message
  std::string display = {};  // "http://proxy:3128"
  bool has_login = false;
};

// Whether `list`, as NO_PROXY has it, names the host of `url`: host names and their subdomains,
// with or without a leading dot, addresses, ranges in CIDR notation (of literal addresses, no name
// is resolved), "*" for all, each with ":port" for that port alone, divided by commas or blanks.
bool MatchesNoProxy(std::string_view list, const Url& url);

// Immutable, so thread-safe.
class ProxyRules {
 public:
  // The value of an environment variable, or null.
  using Lookup = std::function<const char*(const char* name)>;

  // What is given goes before the environment; an empty `proxy` means none. The environment's are
  // https_proxy, HTTPS_PROXY and http_proxy by the scheme of the URL, then all_proxy and ALL_PROXY,
  // and no_proxy, NO_PROXY; an empty variable counts as absent. HTTP_PROXY is not read: in a CGI
  // program it would be a header of the request (CVE-2016-5385).
  ProxyRules(std::optional<std::string> proxy, std::optional<std::string> no_proxy,
             const Lookup& environment);

  // nullopt: no proxy, as for all hosts that are loopback by their name: a proxy has no way there.
  // kInvalid, without quoting it, when the proxy that applies is not an http, https or socks URL.
  store::Result<std::optional<Proxy>> Find(const Url& url) const;

 private:
  // A proxy as it was configured, and by what.
  struct Setting {
    std::string text;
    std::string source;
  };

  static std::optional<Setting> FirstOf(const Lookup& environment,
                                        std::initializer_list<const char*> names);

  std::optional<Setting> for_http_;
  std::optional<Setting> for_https_;
  std::string no_proxy_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_PROXY_H_
