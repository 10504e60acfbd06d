// Why a transfer failed, in words: the one place that translates libcurl's codes.
#ifndef OCIFS_FETCH_HTTP_FAILURE_H_
#define OCIFS_FETCH_HTTP_FAILURE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "store/error.h"

namespace ocifs::fetch {

// What libcurl tells of a transfer that failed.
struct HttpFailure {
  int code = 0;           // a CURLcode
  int os_error = 0;       // errno of the connection attempt
  int proxy_status = 0;   // of the answer to CONNECT
  std::string text = {};  // libcurl's own: names hosts, ports and lengths, never a URL or a header
  bool has_head = false;
};

// Where the transfer went.
struct HttpRoute {
  std::string host = {};
  uint16_t port = 0;
  std::string proxy = {};  // for display; empty: straight to the host
  bool proxy_has_login = false;
  bool has_client_certificate = false;
};

// The message is "what: why", with what to do about it.
store::Error ExplainHttpFailure(const HttpFailure& failure, const HttpRoute& route,
                                std::string_view what);

// What a proxy means that answers 407 (RFC 9110 section 15.5.8).
std::string ExplainProxyLogin(const HttpRoute& route);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HTTP_FAILURE_H_
