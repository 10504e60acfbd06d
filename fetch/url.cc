#include "fetch/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

struct CurlUrlDeleter {
  void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
};
using CurlUrl = std::unique_ptr<CURLU, CurlUrlDeleter>;

std::optional<std::string> GetPart(CURLU* handle, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(handle, part, &text, flags) != CURLUE_OK) return std::nullopt;
  std::string copy(text);
  curl_free(text);
  return copy;
}

bool IsPlainHostCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

bool IsPlainHost(std::string_view host) {
  return !host.empty() && host.size() <= 253 &&
         std::all_of(host.begin(), host.end(), IsPlainHostCharacter);
}

bool IsIpv6Host(std::string_view host) {
  return host.size() > 4 && host.front() == '[' && host.back() == ']' &&
         std::all_of(host.begin() + 1, host.end() - 1, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == ':' || c == '.';
         });
}

std::unexpected<store::Error> Invalid(std::string_view text, std::string_view why) {
  const std::string_view shown = text.substr(0, text.find('?')).substr(0, 300);
  return Fail(ErrorCode::kInvalid, "URL '" + std::string(shown) + "': " + std::string(why));
}

}  // namespace

Result<Url> Url::FromCurl(void* handle) {
  auto* const parsed = static_cast<CURLU*>(handle);
  const std::string text = GetPart(parsed, CURLUPART_URL).value_or("");
  if (text.empty() || text.size() > kMaxLength) return Invalid(text, "empty or too long");
  // Anything else would reach a header line or a log as it is.
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; })) {
    return Invalid(text, "holds characters that do not belong into a URL");
  }
  if (GetPart(parsed, CURLUPART_USER) || GetPart(parsed, CURLUPART_PASSWORD)) {
    // The text before '@' is a secret, so nothing of the URL is quoted.
    return Fail(ErrorCode::kInvalid, "URL with a user name or password in it: refused");
  }
  const std::string scheme = GetPart(parsed, CURLUPART_SCHEME).value_or("");
  if (scheme != "http" && scheme != "https") {
    return Invalid(text, "only http and https are allowed");
  }
  const std::string host = store::AsciiLower(GetPart(parsed, CURLUPART_HOST).value_or(""));
  if (GetPart(parsed, CURLUPART_ZONEID)) return Invalid(text, "zone identifiers are not allowed");
  Url url;
  if (IsIpv6Host(host)) {
    url.host_ = host.substr(1, host.size() - 2);
  } else if (IsPlainHost(host)) {
    url.host_ = host;
  } else {
    return Invalid(text, "its host is not a plain name or address");
  }
  const std::string port = GetPart(parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT).value_or("");
  const std::optional<uint64_t> number = store::ParseDecimal(port, 65535);
  if (!number || *number == 0) return Invalid(text, "its port is not a number from 1 to 65535");
  url.port_ = static_cast<uint16_t>(*number);
  url.https_ = scheme == "https";
  url.text_ = text;
  return url;
}

Result<Url> Url::Parse(std::string_view text) {
  if (text.size() > kMaxLength) return Invalid(text, "too long");
  if (text.find('\0') != std::string_view::npos) return Invalid("", "holds a NUL");
  // libcurl makes a URL of "https:/a" and "https:///a" too, with a host that nobody wrote.
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || !text.substr(colon).starts_with("://") ||
      text.substr(colon).starts_with(":///")) {
    return Fail(ErrorCode::kInvalid, "URL that does not begin with https://HOST or http://HOST");
  }
  const CurlUrl handle(curl_url());
  if (!handle) return Fail(ErrorCode::kOutOfMemory, "parsing a URL: out of memory");
  const CURLUcode code = curl_url_set(handle.get(), CURLUPART_URL, std::string(text).c_str(), 0);
  if (code != CURLUE_OK) {
    // libcurl could not find the parts, so neither can we tell where a secret might stand.
    return Fail(ErrorCode::kInvalid,
                std::string("URL that does not parse: ") + curl_url_strerror(code));
  }
  curl_url_set(handle.get(), CURLUPART_FRAGMENT, nullptr, 0);
  return FromCurl(handle.get());
}

Result<Url> Url::Resolve(std::string_view reference) const {
  if (reference.size() > kMaxLength) return Invalid(reference, "too long");
  if (reference.find('\0') != std::string_view::npos) return Invalid("", "holds a NUL");
  const CurlUrl handle(curl_url());
  if (!handle) return Fail(ErrorCode::kOutOfMemory, "parsing a URL: out of memory");
  CURLUcode code = curl_url_set(handle.get(), CURLUPART_URL, text_.c_str(), 0);
  if (code == CURLUE_OK) {
    code = curl_url_set(handle.get(), CURLUPART_URL, std::string(reference).c_str(),
                        CURLU_URLENCODE | CURLU_ALLOW_SPACE);
  }
  if (code != CURLUE_OK) {
    return Fail(ErrorCode::kInvalid,
                std::string("URL that does not parse: ") + curl_url_strerror(code));
  }
  curl_url_set(handle.get(), CURLUPART_FRAGMENT, nullptr, 0);
  return FromCurl(handle.get());
}

Url Url::WithQuery(const std::vector<std::pair<std::string, std::string>>& parameters) const {
  Url url = *this;
  char separator = url.text_.find('?') == std::string::npos ? '?' : '&';
  for (const auto& [name, value] : parameters) {
    url.text_ += separator + PercentEncode(name) + "=" + PercentEncode(value);
    separator = '&';
  }
  return url;
}

std::string Url::Authority() const {
  std::string authority = host_.find(':') == std::string::npos ? host_ : "[" + host_ + "]";
  if (port_ != (https_ ? 443 : 80)) authority += ":" + std::to_string(port_);
  return authority;
}

std::string Url::ForDisplay() const { return text_.substr(0, text_.find('?')); }

std::string PercentEncode(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    if (unreserved) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out.push_back('%');
      out.push_back(kDigits[byte >> 4]);
      out.push_back(kDigits[byte & 15]);
    }
  }
  return out;
}

}  // namespace ocifs::fetch
