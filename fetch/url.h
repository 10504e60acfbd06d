// Absolute http and https URLs: what may be requested, and which requests share an origin.
//
// Parsing is libcurl's own (RFC 3986 with its URL API), so that the host that is checked here is
// the host that is connected to.
#ifndef OCIFS_FETCH_URL_H_
#define OCIFS_FETCH_URL_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/error.h"

namespace ocifs::fetch {

// Made only by Parse and by the functions below, so a value in hand has scheme http or https, a
// plain host, no user information and no fragment.
class Url {
 public:
  static constexpr size_t kMaxLength = size_t{16} << 10;

  // kInvalid with the reason; the message never quotes a query.
  static store::Result<Url> Parse(std::string_view text);

  // A Location or Link target, absolute or relative to this URL (RFC 3986 section 5.2). Spaces in
  // it are escaped, as all clients do.
  store::Result<Url> Resolve(std::string_view reference) const;
  // The same URL with the parameters appended to its query, percent-encoded.
  Url WithQuery(const std::vector<std::pair<std::string, std::string>>& parameters) const;

  bool is_https() const { return https_; }
  const std::string& host() const { return host_; }  // lower case, IPv6 without brackets
  uint16_t port() const { return port_; }
  // "host" or "host:port", the port left out when it is the scheme's own.
  std::string Authority() const;
  const std::string& ToString() const { return text_; }
  // Without the query, which may hold a signature: for messages and logs.
  std::string ForDisplay() const;

  // Scheme, host and port are equal (RFC 6454 section 5).
  bool SameOrigin(const Url& other) const {
    return https_ == other.https_ && host_ == other.host_ && port_ == other.port_;
  }

 private:
  Url() = default;
  static store::Result<Url> FromCurl(void* handle);

  std::string text_;
  std::string host_;
  uint16_t port_ = 0;
  bool https_ = false;
};

// `text` with all but RFC 3986's unreserved characters percent-encoded.
std::string PercentEncode(std::string_view text);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_URL_H_
