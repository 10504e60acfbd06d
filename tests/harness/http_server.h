// A small HTTP/1.1 server on loopback that does exactly what a test tells it to, wrong things
// included: the transport below FakeRegistry.
#ifndef OCIFS_TESTS_HARNESS_HTTP_SERVER_H_
#define OCIFS_TESTS_HARNESS_HTTP_SERVER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "store/mutex.h"
#include "tests/harness/test_certificate.h"

namespace ocifs::testing {

using ServerHeaders = std::vector<std::pair<std::string, std::string>>;

struct ServerRequest {
  std::string method;
  std::string path;       // without the query
  std::string query;      // without '?'
  ServerHeaders headers;  // names in lower case
  std::string body;

  // The value, or "" when absent. `name` in lower case.
  std::string Header(std::string_view name) const;
  // The percent-decoded value of a query parameter, or nullopt.
  std::optional<std::string> Query(std::string_view name) const;
};

inline constexpr size_t kNever = SIZE_MAX;

struct ServerResponse {
  int status = 200;
  ServerHeaders headers = {};
  std::shared_ptr<const std::string> body = {};  // null: empty

  // How it goes over the wire.
  enum class Framing { kContentLength, kChunked, kUntilClose };
  Framing framing = Framing::kContentLength;
  std::optional<uint64_t> stated_length = {};  // a Content-Length that is not true
  size_t truncate_at = kNever;  // the connection is closed after that many body bytes
  size_t stall_at = kNever;     // nothing follows that many body bytes until Release
  bool stall_head = false;      // not even the status line comes before Release
  // Sent after the body, once Release allows it, on a connection that stays open.
  std::string surplus = {};
  bool endless = false;     // the body is repeated until the reader goes away
  std::string raw = {};     // sent instead of all of the above; then the connection is closed
  size_t header_flood = 0;  // bytes of additional headers
};

// Thread-safe. One thread per connection; keep-alive. Never sleeps: it waits for sockets or for
// Release. The destructor ends all connections and joins all threads.
class HttpServer {
 public:
  using Handler = std::function<ServerResponse(const ServerRequest&)>;
  enum class Transport { kPlain, kTls };
  enum class Family { kIpv4, kIpv6 };
  struct Options {
    Transport transport = Transport::kPlain;
    CertificateFault fault = CertificateFault::kNone;
    Family family = Family::kIpv4;
    // Over TLS, clients need a certificate that this authority has signed; empty: none is asked
    // for.
    std::string client_authority_pem = {};
    int max_tls_version = 0;  // TLS1_1_VERSION, …; 0: whatever OpenSSL has
  };

  // Listens on a free port of 127.0.0.1. The handler is called on connection threads, several at
  // once. Throws std::runtime_error when there is no port to be had.
  HttpServer(Handler handler, Transport transport,
             CertificateFault fault = CertificateFault::kNone);
  // The same on 127.0.0.1 or ::1.
  HttpServer(Handler handler, const Options& options);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const { return port_; }
  // The authority to trust, in PEM; empty without TLS.
  const std::string& authority_pem() const { return authority_pem_; }

  // Lets every stalled response go on, now and later.
  void Release();
  // Until `count` responses stall at the same time.
  void WaitForStalled(size_t count = 1);
  // Until `count` surpluses lie with their clients.
  void WaitForSurplus(size_t count = 1);
  // Ends idle and busy connections, as a restarted server does; new ones are accepted.
  void CloseConnections();

  uint64_t body_bytes_sent() const { return body_bytes_sent_.load(); }
  size_t connections_accepted() const { return connections_accepted_.load(); }

 private:
  class Connection;
  struct TlsContext;

  void Accept();
  void Serve(int fd);
  bool Send(Connection& connection, const ServerRequest& request, const ServerResponse& response);
  // False when the server stops.
  bool WaitForRelease() OCIFS_EXCLUDES(mutex_);

  const Handler handler_;
  std::unique_ptr<TlsContext> tls_;
  std::string authority_pem_;
  int listener_ = -1;
  uint16_t port_ = 0;

  store::Mutex mutex_;
  store::CondVar changed_;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
  bool released_ OCIFS_GUARDED_BY(mutex_) = false;
  size_t stalled_ OCIFS_GUARDED_BY(mutex_) = 0;
  size_t surpluses_ OCIFS_GUARDED_BY(mutex_) = 0;
  std::set<int> connections_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::thread> workers_ OCIFS_GUARDED_BY(mutex_);

  // Read by tests while responses are under way.
  std::atomic<uint64_t> body_bytes_sent_ = 0;
  std::atomic<size_t> connections_accepted_ = 0;
  std::thread acceptor_;  // last: starts when all else is there
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_HTTP_SERVER_H_
