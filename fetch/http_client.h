// One HTTP exchange at a time per transfer, many transfers at once: libcurl's multi interface on a
// thread of its own, with bodies pulled by their readers.
//
// It follows no redirects, keeps no
// cookies, reads no netrc, decodes no content coding and does no authentication; http_exchange.h
// and registry_host.h build on it. Errors say what to do; nothing ever falls back from https to
// http. CURLcodes become store::ErrorCodes in http_failure.cc and nowhere else:
//   kUnavailable  name resolution, refused, no route, connection lost before the answer; a proxy
//                 that cannot reach the host
//   kTimedOut     connect timeout, or fewer bytes than the low-speed limit allows
//   kDenied       TLS verification or negotiation, an address out of the request's reach, a file of
//                 TlsOptions that may not be read, a proxy that refuses
//   kInvalid      other files of TlsOptions, a proxy's URL
//   kRemote       not HTTP, ambiguous framing, headers too large, body cut short
//   kCancelled    stop was requested       kShuttingDown  the client was destroyed
#ifndef OCIFS_FETCH_HTTP_CLIENT_H_
#define OCIFS_FETCH_HTTP_CLIENT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "fetch/address.h"
#include "fetch/tls_options.h"
#include "fetch/url.h"
#include "store/error.h"

namespace ocifs::fetch {

struct HttpHeader {
  std::string name;
  std::string value;
};

// Header fields of an answer. Names are lower case.
class HttpHeaders {
 public:
  void Add(std::string name, std::string value) {
    fields_.push_back({std::move(name), std::move(value)});
  }
  void Clear() { fields_.clear(); }
  // The first value; null when absent. `name` in lower case.
  const std::string* Find(std::string_view name) const;
  std::vector<std::string> FindAll(std::string_view name) const;

 private:
  std::vector<HttpHeader> fields_;
};

enum class HttpMethod { kGet, kPost };

// Over TLS, requests may share an HTTP/2 connection. A body that does not fit into the transfer's
// buffer should have one of its own: over HTTP/1.1 a slow reader is held back exactly, by TCP,
// while libcurl keeps the whole window of a paused HTTP/2 stream, 32 MiB, in memory.
enum class HttpConnection { kShared, kOwn };

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  Url url;
  std::vector<HttpHeader> headers = {};
  std::string body = {};  // of a POST
  TlsOptions tls = {};
  HttpConnection connection = HttpConnection::kShared;
  // Not over a connection that an earlier request has left behind.
  bool fresh_connection = false;
  // For name resolution, TCP and TLS together; 0: the client's.
  std::chrono::milliseconds connect_timeout{0};
  // The closest address that the request may be sent to, checked on the address connected to, or,
  // through a proxy, on the host when it is an address.
  AddressScope reach = AddressScope::kLoopback;
};

struct HttpHead {
  int status = 0;
  HttpHeaders headers = {};
  std::optional<uint64_t> content_length = {};  // absent: unknown until the body ends
  // Of the address that answered. Through a proxy only the host's name tells: kPublic, unless it
  // is an address itself.
  AddressScope peer = AddressScope::kPublic;
  // What the TCP connection took to establish, one round trip to the host that answered (or to the
  // proxy); nullopt on a connection that was there already.
  std::optional<std::chrono::microseconds> connect_time = {};

  // Content-Type in lower case, without parameters; empty when absent.
  std::string MediaType() const;
};

struct HttpClientOptions {
  std::string user_agent = {};                        // empty: "ocifs/<version>"
  std::chrono::milliseconds connect_timeout{10'000};  // name resolution, TCP and TLS together
  // A transfer slower than this for that long is given up; paused ones are exempt.
  uint32_t low_speed_bytes_per_second = 512;
  std::chrono::seconds low_speed_time{10};
  size_t max_buffered_bytes = size_t{4} << 20;  // per transfer
  size_t max_header_bytes = size_t{64} << 10;   // per transfer, interim answers included
  // A transfer that has begun keeps its connection until its body has been read or it is destroyed,
  // paused or not; those above the limits wait, for as long as it takes. So whoever holds more
  // bodies that do not fit into max_buffered_bytes than there are connections must go on reading
  // one of them before it waits for the head of another.
  uint32_t max_connections_per_host = 16;
  uint32_t max_connections = 128;
  uint32_t max_idle_connections = 32;
  // In the place of the environment's (proxy.h); "" for none.
  std::optional<std::string> proxy = {};     // for http and https, with or without a login
  std::optional<std::string> no_proxy = {};  // as NO_PROXY
};

class HttpEngine;    // the thread and its queue
struct HttpChannel;  // what the thread and one reader share

// A request under way. Owned by one thread. Destroying it cancels what is not finished.
class HttpTransfer {
 public:
  ~HttpTransfer();
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  // Blocks until the final status line and headers are there. The pointer lives as long as this.
  store::Result<const HttpHead*> Head();
  // The next bytes of the body, at least one; empty at its end. Borrowed until the next call.
  // Bytes received before a failure come first, then the failure, again and again.
  store::Result<std::span<const std::byte>> Next();
  // The rest of the body; kTooLarge as soon as it is longer than `max_bytes`.
  store::Result<std::string> ReadAll(size_t max_bytes);

  const HttpRequest& request() const { return request_; }
  // Whether the answer, or the failure, came over a connection that an earlier request has left
  // behind. A kRemote failure on such a connection may be that request's fault: another try with
  // fresh_connection tells. Of use once Head has returned.
  bool reused_connection() const;
  // Whether a connection to the host was there for the request: a failure after that is no sign of
  // a host that is away.
  bool connected() const;
  // "GET https://host/path", without the query.
  std::string Describe() const;
  // Bytes received and not yet taken; at most max_buffered_bytes and one network read.
  size_t buffered_bytes() const;

 private:
  friend class HttpClient;
  class StopWatcher;

  HttpTransfer(std::shared_ptr<HttpEngine> engine, std::shared_ptr<HttpChannel> channel,
               HttpRequest request, std::stop_token stop);

  const HttpRequest request_;
  const std::shared_ptr<HttpEngine> engine_;
  const std::shared_ptr<HttpChannel> channel_;
  std::unique_ptr<StopWatcher> stop_watcher_;
};

// Thread-safe. Owns one thread, started by Create: a process that forks to become a daemon does so
// before. Transfers may outlive the client; they then fail with kShuttingDown.
class HttpClient {
 public:
  static store::Result<std::unique_ptr<HttpClient>> Create(HttpClientOptions options = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Queues the request and returns at once; what goes wrong is told by the transfer. A requested
  // stop wakes the reader at once.
  std::unique_ptr<HttpTransfer> Start(HttpRequest request, std::stop_token stop);

  // Whether requests to this URL go through a proxy. False when the proxy's own URL is malformed.
  bool HasProxyFor(const Url& url) const;

  const HttpClientOptions& options() const { return options_; }

 private:
  HttpClient(HttpClientOptions options, std::shared_ptr<HttpEngine> engine);

  const HttpClientOptions options_;
  const std::shared_ptr<HttpEngine> engine_;
  std::thread thread_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HTTP_CLIENT_H_
