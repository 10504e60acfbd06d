#include "fetch/proxy.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "fetch/address.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

struct UrlDeleter {
  void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
};

// An address as 4 or 16 bytes; size 0 for a name.
struct AddressBytes {
  std::array<uint8_t, 16> bytes{};
  size_t size = 0;
};

AddressBytes ParseAddress(std::string_view text) {
  AddressBytes address;
  const std::string terminated(text);
  if (inet_pton(AF_INET, terminated.c_str(), address.bytes.data()) == 1) {
    address.size = 4;
  } else if (inet_pton(AF_INET6, terminated.c_str(), address.bytes.data()) == 1) {
    address.size = 16;
  }
  return address;
}

bool MatchesRange(std::string_view range, const AddressBytes& address) {
  const size_t slash = range.find('/');
  const AddressBytes network = ParseAddress(range.substr(0, slash));
  if (network.size == 0 || network.size != address.size) return false;
  size_t bits = network.size * 8;
  if (slash != std::string_view::npos) {
    const std::optional<uint64_t> number = store::ParseDecimal(range.substr(slash + 1), bits);
    if (!number) return false;
    bits = *number;
  }
  for (size_t i = 0; i < network.size && bits > 0; ++i) {
    const size_t here = std::min<size_t>(bits, 8);
    const auto mask = static_cast<uint8_t>(0xFF00U >> here);
    if ((network.bytes[i] & mask) != (address.bytes[i] & mask)) return false;
    bits -= here;
  }
  return true;
}

std::string_view WithoutDot(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  return name;
}

bool MatchesName(std::string_view pattern, std::string_view host) {
  pattern = WithoutDot(pattern);
  host = WithoutDot(host);
  if (pattern.starts_with('.')) pattern.remove_prefix(1);
  if (pattern.empty() || pattern.size() > host.size()) return false;
  const size_t start = host.size() - pattern.size();
  return store::EqualsIgnoringCase(pattern, host.substr(start)) &&
         (start == 0 || host[start - 1] == '.');
}

bool MatchesToken(std::string_view token, const Url& url) {
  if (token == "*") return true;
  // Several colons without brackets are an IPv6 address.
  const size_t colon = token.rfind(':');
  if (colon != std::string_view::npos &&
      (token.find(':') == colon || (colon > 0 && token[colon - 1] == ']'))) {
    const std::optional<uint64_t> port = store::ParseDecimal(token.substr(colon + 1), 65535);
    if (!port || *port != url.port()) return false;
    token = token.substr(0, colon);
  }
  if (token.starts_with('[') && token.ends_with(']')) token = token.substr(1, token.size() - 2);
  const AddressBytes address = ParseAddress(url.host());
  return address.size == 0 ? MatchesName(token, url.host()) : MatchesRange(token, address);
}

std::optional<std::string> GetPart(CURLU* handle, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(handle, part, &text, 0) != CURLUE_OK) return std::nullopt;
  std::string copy(text);
  curl_free(text);
  return copy;
}

Result<Proxy> ParseProxy(const std::string& text, const std::string& source) {
  const std::unique_ptr<CURLU, UrlDeleter> handle(curl_url());
  if (!handle) return Fail(ErrorCode::kOutOfMemory, "parsing a proxy's URL: out of memory");
  auto refuse = [&](const char* why) {
    return Fail(ErrorCode::kInvalid, "the proxy in " + source + " " + why +
                                         "; write it as http://host:port, or "
                                         "http://user:password@host:port, percent-encoded");
  };
  // Without a scheme it is an HTTP proxy. Nothing is quoted: a password may stand anywhere.
  const std::string whole = text.find("://") == std::string::npos ? "http://" + text : text;
  if (text.find_first_of(" \t\r\n") != std::string::npos ||
      curl_url_set(handle.get(), CURLUPART_URL, whole.c_str(), CURLU_NON_SUPPORT_SCHEME) !=
          CURLUE_OK) {
    return refuse("is not a URL");
  }
  const std::string scheme = GetPart(handle.get(), CURLUPART_SCHEME).value_or("");
  constexpr std::array<std::string_view, 6> kSchemes = {"http",    "https",  "socks4",
                                                        "socks4a", "socks5", "socks5h"};
  if (std::find(kSchemes.begin(), kSchemes.end(), scheme) == kSchemes.end()) {
    return refuse("is neither http, https nor socks");
  }
  const std::optional<std::string> host = GetPart(handle.get(), CURLUPART_HOST);
  if (!host || host->empty()) return refuse("has no host");
  // libcurl's default ports for proxies.
  const std::string port =
      GetPart(handle.get(), CURLUPART_PORT).value_or(scheme == "https" ? "443" : "1080");
  return Proxy{.url = whole,
               .display = scheme + "://" + *host + ":" + port,
               .has_login = GetPart(handle.get(), CURLUPART_USER).has_value()};
}

}  // namespace

bool MatchesNoProxy(std::string_view list, const Url& url) {
  constexpr std::string_view kDividers = ", \t";
  while (true) {
    const size_t begin = list.find_first_not_of(kDividers);
    if (begin == std::string_view::npos) return false;
    list.remove_prefix(begin);
    const std::string_view token = list.substr(0, list.find_first_of(kDividers));
    if (MatchesToken(token, url)) return true;
    list.remove_prefix(token.size());
  }
}

std::optional<ProxyRules::Setting> ProxyRules::FirstOf(const Lookup& environment,
                                                       std::initializer_list<const char*> names) {
  for (const char* const name : names) {
    const char* const value = environment(name);
    if (value != nullptr && *value != '\0') return Setting{value, name};
  }
  return std::nullopt;
}

ProxyRules::ProxyRules(std::optional<std::string> proxy, std::optional<std::string> no_proxy,
                       const Lookup& environment) {
  if (proxy) {
    if (!proxy->empty()) for_http_ = for_https_ = Setting{*std::move(proxy), "the configuration"};
  } else {
    for_http_ = FirstOf(environment, {"http_proxy", "all_proxy", "ALL_PROXY"});
    for_https_ = FirstOf(environment, {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"});
  }
  if (no_proxy) {
    no_proxy_ = *std::move(no_proxy);
  } else if (std::optional<Setting> list = FirstOf(environment, {"no_proxy", "NO_PROXY"})) {
    no_proxy_ = std::move(list->text);
  }
}

Result<std::optional<Proxy>> ProxyRules::Find(const Url& url) const {
  const std::optional<Setting>& setting = url.is_https() ? for_https_ : for_http_;
  if (!setting || ScopeOfHost(url.host()) == AddressScope::kLoopback ||
      MatchesNoProxy(no_proxy_, url)) {
    return std::optional<Proxy>();
  }
  OCIFS_ASSIGN_OR_RETURN(Proxy proxy, ParseProxy(setting->text, setting->source));
  return std::optional<Proxy>(std::move(proxy));
}

}  // namespace ocifs::fetch
