#include "fetch/http_channel.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fetch/http_handle.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::MutexLock;

constexpr size_t kBlockBytes = size_t{256} << 10;

}  // namespace

const std::string* HttpHeaders::Find(std::string_view name) const {
  for (const HttpHeader& field : fields_) {
    if (field.name == name) return &field.value;
  }
  return nullptr;
}

std::vector<std::string> HttpHeaders::FindAll(std::string_view name) const {
  std::vector<std::string> values;
  for (const HttpHeader& field : fields_) {
    if (field.name == name) values.push_back(field.value);
  }
  return values;
}

std::string HttpHead::MediaType() const {
  const std::string* const value = headers.Find("content-type");
  if (value == nullptr) return "";
  return store::AsciiLower(store::TrimSpace(std::string_view(*value).substr(0, value->find(';'))));
}

std::string DescribeRequest(const HttpRequest& request) {
  return (request.method == HttpMethod::kPost ? "POST " : "GET ") + request.url.ForDisplay();
}

HttpChannel::HttpChannel(const HttpRequest& request, const HttpClientOptions& options)
    : what(DescribeRequest(request)),
      method(request.method),
      reach(request.reach),
      max_buffered_bytes(options.max_buffered_bytes),
      max_header_bytes(options.max_header_bytes),
      route{.host = request.url.host(),
            .port = request.url.port(),
            .has_client_certificate = !request.tls.certificate_file.empty()},
      named_scope(ScopeOfHost(request.url.host())) {
  parsed.peer = named_scope.value_or(AddressScope::kPublic);
}

HttpChannel::~HttpChannel() = default;

bool HttpChannel::Refuse(ErrorCode code, std::string_view why) {
  if (!refusal) refusal = Error{code, what + ": " + std::string(why)};
  return false;
}

bool HttpChannel::OnHeaderLine(std::string_view line) {
  header_bytes += line.size();
  if (header_bytes > max_header_bytes) {
    return Refuse(ErrorCode::kRemote, "more than " + std::to_string(max_header_bytes >> 10) +
                                          " KiB of headers; the server is broken or hostile");
  }
  if (head_done) return true;  // trailers
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.find_first_of(std::string_view("\0\r", 2)) != std::string_view::npos) {
    return Refuse(ErrorCode::kRemote, "control characters in a header line");
  }
  if (line.empty()) return OnHeadComplete();
  if (line.starts_with("HTTP/") && line.find(':') > line.find(' ')) return OnStatusLine(line);
  const size_t colon = line.find(':');
  // A line that continues the one before (obsolete since RFC 7230) carries nothing we need.
  if (colon == std::string_view::npos || line.front() == ' ' || line.front() == '\t') return true;
  std::string name = store::AsciiLower(line.substr(0, colon));
  const std::string_view value = store::TrimSpace(line.substr(colon + 1));
  if (name == "content-length") {
    const std::optional<uint64_t> number = store::ParseDecimal(value, INT64_MAX);
    if (!number || (parsed.content_length && *parsed.content_length != *number)) {
      return Refuse(ErrorCode::kRemote, "Content-Length is not one number");
    }
    parsed.content_length = number;
  } else if (name == "transfer-encoding") {
    chunked = true;
  }
  parsed.headers.Add(std::move(name), std::string(value));
  return true;
}

bool HttpChannel::OnStatusLine(std::string_view line) {
  parsed = HttpHead{.peer = parsed.peer};
  chunked = false;
  const size_t space = line.find(' ');
  const std::string_view status = line.substr(std::min(space, line.size() - 1) + 1, 3);
  const std::optional<uint64_t> number = store::ParseDecimal(status, 999);
  if (space == std::string_view::npos || status.size() != 3 || !number || *number < 100) {
    return Refuse(ErrorCode::kRemote, "the status line does not parse");
  }
  parsed.status = static_cast<int>(*number);
  return true;
}

bool HttpChannel::OnHeadComplete() {
  if (parsed.status < 200) return true;  // an interim answer; the real one follows
  if (parsed.status == 407 && !route.proxy.empty()) {
    return Refuse(ErrorCode::kDenied, ExplainProxyLogin(route));
  }
  if (chunked && parsed.content_length) {
    return Refuse(ErrorCode::kRemote, "both Content-Length and Transfer-Encoding");
  }
  const std::string* const encoding = parsed.headers.Find("content-encoding");
  if (parsed.status < 300 && encoding != nullptr && store::AsciiLower(*encoding) != "identity") {
    return Refuse(ErrorCode::kRemote,
                  "answered with Content-Encoding '" + encoding->substr(0, 40) +
                      "' though none was accepted; a proxy on the way must not recode the body");
  }
  head_done = true;
  return true;
}

void HttpChannel::PublishHead(bool reused) {
  dirty = true;
  const MutexLock lock(mutex);
  head = parsed;
  has_head = true;
  reused_connection = reused;
}

HttpChannel::Accept HttpChannel::OnBody(std::span<const std::byte> bytes) {
  const size_t length = bytes.size();
  const MutexLock lock(mutex);
  if (abandoned || stopped) return Accept::kEnd;
  if (buffered != 0 && buffered + length > max_buffered_bytes) {
    paused = true;
    return Accept::kPause;
  }
  while (!bytes.empty()) {
    if (filled.empty() || filled.back().size == kBlockBytes) {
      if (spare.empty()) {
        filled.push_back({std::make_unique_for_overwrite<std::byte[]>(kBlockBytes), 0});
      } else {
        filled.push_back(std::move(spare.back()));
        spare.pop_back();
      }
    }
    Block& block = filled.back();
    const size_t count = std::min(bytes.size(), kBlockBytes - block.size);
    std::memcpy(block.bytes.get() + block.size, bytes.data(), count);
    block.size += count;
    bytes = bytes.subspan(count);
  }
  buffered += length;
  dirty = true;
  return Accept::kAll;
}

bool HttpChannel::OnAddress(std::string_view address) {
  // The address is the proxy's, which is as near as whoever configured it wants it to be. Where the
  // request goes from there only its name tells.
  const bool by_proxy = !route.proxy.empty();
  // A zone ("fe80::1%eth0") does not change the scope.
  const std::optional<AddressScope> scope =
      by_proxy ? named_scope.value_or(AddressScope::kPublic)
               : ScopeOfAddress(address.substr(0, address.find('%')));
  if (scope) parsed.peer = *scope;
  if (scope && *scope <= reach) return true;
  return Refuse(ErrorCode::kDenied,
                "its name stands for the " +
                    std::string(AddressScopeName(scope.value_or(AddressScope::kLinkLocal))) +
                    " address " + (by_proxy ? route.host : std::string(address)) +
                    ", which a server outside of that network may not send us to");
}

void HttpChannel::Finish(std::optional<Error> why) {
  {
    const MutexLock lock(mutex);
    if (finished) return;
    finished = true;
    failure = std::move(why);
  }
  changed.NotifyAll();
}

void HttpChannel::Renew() {
  parsed = HttpHead{};
  header_bytes = 0;
  chunked = false;
  stale = false;
  renewed = true;
  refusal.reset();
}

}  // namespace ocifs::fetch
