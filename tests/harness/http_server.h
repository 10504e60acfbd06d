// A small HTTP/1.1 server on loopback that does exactly what a test tells it to, wrong things
// included: the transport below FakeRegistry.
#ifndef OCIFS_TESTS_HARNESS_HTTP_SERVER_H_
#define OCIFS_TESTS_HARNESS_HTTP_SERVER_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
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

// "path range" of each request with a Range header, in their order: "/v2/a/blobs/... bytes=0-9".
std::vector<std::string> RangesOf(const std::vector<ServerRequest>& requests);

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
  // The connection is closed once it has carried that many body bytes, those of earlier answers
  // included: a link that never lasts longer.
  size_t cut_every = kNever;
  // Where truncate_at or cut_every ends the connection, it ends with RST instead of FIN. All bytes
  // before that have reached the peer's socket.
  bool reset = false;
  size_t drip_bytes = kNever;  // after each so many body bytes, nothing follows until Step
  // Real time; for benchmarks. 0: as fast as it goes.
  uint64_t bytes_per_second = 0;
};

// A credential that reached a server, whether or not it was asked for.
struct AuthorizationSighting {
  std::string server = {};  // as the request's Host names it
  std::string path = {};    // without the query
  std::string scheme = {};  // "Basic", "Bearer", ...; else "Cookie" or "Proxy-Authorization"
  std::string value = {};   // what follows the scheme

  friend bool operator==(const AuthorizationSighting&, const AuthorizationSighting&) = default;
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
    bool only_old_tls = false;  // 1.1 and older
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
  // Lets each dripping response send its next drip_bytes. WaitForStalled then waits until they have
  // been sent.
  void Step();
  // Until `count` responses stall, or wait for Step, at the same time.
  void WaitForStalled(size_t count = 1);
  // Until `count` surpluses lie with their clients.
  void WaitForSurplus(size_t count = 1);
  // Ends idle and busy connections, as a restarted server does; new ones are accepted.
  void CloseConnections();

  uint64_t body_bytes_sent() const { return body_bytes_sent_.load(); }
  // Of answers to requests for exactly that path.
  uint64_t body_bytes_sent(const std::string& path) const OCIFS_EXCLUDES(mutex_);
  size_t connections_accepted() const { return connections_accepted_.load(); }
  // Every credential that has arrived since the server started, in order.
  std::vector<AuthorizationSighting> authorization_sightings() const OCIFS_EXCLUDES(mutex_);

 private:
  class Connection;
  struct TlsContext;

  void Accept();
  void Serve(int fd);
  bool Send(Connection& connection, const ServerRequest& request, const ServerResponse& response);
  void NoteCredentials(const ServerRequest& request) OCIFS_EXCLUDES(mutex_);
  void CountBody(const std::string& path, size_t bytes) OCIFS_EXCLUDES(mutex_);
  // These are false when the server stops.
  bool WaitForRelease() OCIFS_EXCLUDES(mutex_);
  bool WaitForStep() OCIFS_EXCLUDES(mutex_);
  bool WaitUntil(std::chrono::steady_clock::time_point when) OCIFS_EXCLUDES(mutex_);

  const Handler handler_;
  std::unique_ptr<TlsContext> tls_;
  std::string authority_pem_;
  int listener_ = -1;
  uint16_t port_ = 0;

  mutable store::Mutex mutex_;
  store::CondVar changed_;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
  bool released_ OCIFS_GUARDED_BY(mutex_) = false;
  size_t stalled_ OCIFS_GUARDED_BY(mutex_) = 0;
  uint64_t steps_ OCIFS_GUARDED_BY(mutex_) = 0;
  size_t waiting_for_step_ OCIFS_GUARDED_BY(mutex_) = 0;  // a part of stalled_
  std::map<std::string, uint64_t> body_bytes_by_path_ OCIFS_GUARDED_BY(mutex_);
  std::vector<AuthorizationSighting> sightings_ OCIFS_GUARDED_BY(mutex_);
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
