#include "tests/harness/http_server.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace ocifs::testing {
namespace {

using store::MutexLock;

constexpr size_t kMaxRequestBytes = size_t{1} << 20;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 206:
      return "Partial Content";
    case 302:
      return "Found";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 416:
      return "Range Not Satisfiable";
    case 429:
      return "Too Many Requests";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

}  // namespace

std::string ServerRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

std::optional<std::string> ServerRequest::Query(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find('&'));
    const size_t equals = std::min(item.find('='), item.size());
    if (PercentDecode(item.substr(0, equals)) == name) {
      return PercentDecode(item.substr(std::min(equals + 1, item.size())));
    }
    rest.remove_prefix(std::min(item.size() + 1, rest.size()));
  }
  return std::nullopt;
}

std::vector<std::string> RangesOf(const std::vector<ServerRequest>& requests) {
  std::vector<std::string> ranges;
  for (const ServerRequest& request : requests) {
    const std::string range = request.Header("range");
    if (!range.empty()) ranges.push_back(request.path + " " + range);
  }
  return ranges;
}

struct HttpServer::TlsContext {
  TlsContext(const TestCertificate& certificate, const Options& options)
      : context(SSL_CTX_new(TLS_server_method())) {
    BIO* const certificate_bio = BIO_new_mem_buf(
        certificate.certificate_pem.data(), static_cast<int>(certificate.certificate_pem.size()));
    BIO* const key_bio =
        BIO_new_mem_buf(certificate.key_pem.data(), static_cast<int>(certificate.key_pem.size()));
    X509* const x509 = PEM_read_bio_X509(certificate_bio, nullptr, nullptr, nullptr);
    EVP_PKEY* const key = PEM_read_bio_PrivateKey(key_bio, nullptr, nullptr, nullptr);
    bool ok = context != nullptr && SSL_CTX_use_certificate(context, x509) == 1 &&
              SSL_CTX_use_PrivateKey(context, key) == 1;
    if (ok && options.only_old_tls) {
      SSL_CTX_set_security_level(context, 0);  // TLS 1.1 signs with SHA-1
      ok = SSL_CTX_set_min_proto_version(context, TLS1_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION) == 1;
    }
    if (ok && !options.client_authority_pem.empty()) {
      BIO* const bio = BIO_new_mem_buf(options.client_authority_pem.data(),
                                       static_cast<int>(options.client_authority_pem.size()));
      X509* const authority = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
      ok = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority) == 1;
      X509_free(authority);
      BIO_free(bio);
      SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
      // Resumed sessions of clients with a certificate need a context of their own.
      constexpr std::string_view kSessions = "ocifs tests";
      SSL_CTX_set_session_id_context(context,
                                     reinterpret_cast<const unsigned char*>(kSessions.data()),
                                     static_cast<unsigned>(kSessions.size()));
    }
    X509_free(x509);
    EVP_PKEY_free(key);
    BIO_free(certificate_bio);
    BIO_free(key_bio);
    if (!ok) throw std::runtime_error("setting up TLS failed");
  }
  ~TlsContext() { SSL_CTX_free(context); }
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  SSL_CTX* context;
};

// A connection's bytes, with TLS or without. Owned by the thread that serves it.
class HttpServer::Connection {
 public:
  Connection(int fd, SSL_CTX* context) : fd_(fd) {
    if (context == nullptr) return;
    ssl_ = SSL_new(context);
    if (ssl_ == nullptr || SSL_set_fd(ssl_, fd) != 1 || SSL_accept(ssl_) != 1) {
      broken_ = true;
      // Closed with something unread the connection would end with RST, which may overtake the
      // alert that says why.
      shutdown(fd, SHUT_WR);
      char unread[512];
      while (recv(fd, unread, sizeof(unread), 0) > 0) {
      }
    }
  }
  ~Connection() {
    if (ssl_ != nullptr) {
      if (!broken_) SSL_shutdown(ssl_);
      SSL_free(ssl_);
    }
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool broken() const { return broken_; }

  // Body bytes that all answers on this connection have had.
  size_t carried() const { return carried_; }
  void Carry(size_t bytes) { carried_ += bytes; }

  // The connection ends with RST when it is closed. Waits until the peer's socket has what was
  // written, for an RST overtakes bytes that are still in our send buffer.
  void Reset() {
    int unacknowledged = 0;
    pollfd hang_up{fd_, 0, 0};
    while (!broken_ && ioctl(fd_, SIOCOUTQ, &unacknowledged) == 0 && unacknowledged > 0 &&
           poll(&hang_up, 1, 1) == 0) {
    }
    const linger at_once{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    broken_ = true;
  }

  bool Write(std::string_view bytes) {
    while (!bytes.empty() && !broken_) {
      ssize_t count = 0;
      if (ssl_ != nullptr) {
        count = SSL_write(ssl_, bytes.data(),
                          static_cast<int>(std::min<size_t>(bytes.size(), 1 << 20)));
      } else {
        count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
      }
      if (count <= 0) {
        broken_ = true;
      } else {
        bytes.remove_prefix(static_cast<size_t>(count));
      }
    }
    return !broken_;
  }

  std::optional<ServerRequest> ReadRequest() {
    size_t end = 0;
    while ((end = input_.find("\r\n\r\n")) == std::string::npos) {
      if (input_.size() > kMaxRequestBytes || !Fill()) return std::nullopt;
      if (input_[0] < 'A' || input_[0] > 'Z') {
        // Not HTTP; perhaps a client that expects TLS. Say so, as servers do.
        Write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return std::nullopt;
      }
    }
    std::string_view head = std::string_view(input_).substr(0, end + 2);
    ServerRequest request;
    const std::string_view line = head.substr(0, head.find("\r\n"));
    const size_t space = line.find(' ');
    const size_t second = line.find(' ', space + 1);
    if (space == std::string_view::npos || second == std::string_view::npos) return std::nullopt;
    request.method = line.substr(0, space);
    const std::string_view target = line.substr(space + 1, second - space - 1);
    const size_t question = target.find('?');
    request.path = PercentDecode(target.substr(0, question));
    if (question != std::string_view::npos) request.query = target.substr(question + 1);
    head.remove_prefix(line.size() + 2);
    while (!head.empty()) {
      const std::string_view header = head.substr(0, head.find("\r\n"));
      head.remove_prefix(header.size() + 2);
      const size_t colon = header.find(':');
      if (colon == std::string_view::npos) continue;
      std::string_view value = header.substr(colon + 1);
      while (value.starts_with(' ')) value.remove_prefix(1);
      request.headers.emplace_back(Lower(std::string(header.substr(0, colon))), value);
    }
    input_.erase(0, end + 4);
    const std::string length = request.Header("content-length");
    const size_t body = length.empty() ? 0 : std::stoul(length);
    while (input_.size() < body) {
      if (body > kMaxRequestBytes || !Fill()) return std::nullopt;
    }
    request.body = input_.substr(0, body);
    input_.erase(0, body);
    return request;
  }

 private:
  bool Fill() {
    if (broken_) return false;
    std::string buffer(16 << 10, '\0');
    ssize_t count = 0;
    do {
      count = ssl_ != nullptr ? SSL_read(ssl_, buffer.data(), static_cast<int>(buffer.size()))
                              : recv(fd_, buffer.data(), buffer.size(), 0);
    } while (ssl_ == nullptr && count < 0 && errno == EINTR);
    if (count <= 0) {
      broken_ = true;
      return false;
    }
    input_.append(buffer, 0, static_cast<size_t>(count));
    return true;
  }

  const int fd_;
  SSL* ssl_ = nullptr;
  bool broken_ = false;
  size_t carried_ = 0;
  std::string input_;
};

HttpServer::HttpServer(Handler handler, Transport transport, CertificateFault fault)
    : HttpServer(std::move(handler), Options{.transport = transport, .fault = fault}) {}

HttpServer::HttpServer(Handler handler, const Options& options) : handler_(std::move(handler)) {
  if (options.transport == Transport::kTls) {
    // OpenSSL writes with write(2), which knows no MSG_NOSIGNAL.
    signal(SIGPIPE, SIG_IGN);
    const TestCertificate certificate = MakeTestCertificate(options.fault);
    authority_pem_ = certificate.authority_pem;
    tls_ = std::make_unique<TlsContext>(certificate, options);
  }
  const bool ipv4 = options.family == Family::kIpv4;
  listener_ = socket(ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // The port stands at the same place in both.
  union {
    sockaddr generic;
    sockaddr_in v4;
    sockaddr_in6 v6;
  } address{};
  socklen_t length = 0;
  if (ipv4) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    length = sizeof(address.v4);
  } else {
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_addr = in6addr_loopback;
    length = sizeof(address.v6);
  }
  if (listener_ < 0 || bind(listener_, &address.generic, length) != 0 ||
      listen(listener_, 128) != 0 || getsockname(listener_, &address.generic, &length) != 0) {
    if (listener_ >= 0) close(listener_);
    throw std::runtime_error("listening on loopback failed");
  }
  port_ = ntohs(ipv4 ? address.v4.sin_port : address.v6.sin6_port);
  acceptor_ = std::thread([this] { Accept(); });
}

HttpServer::~HttpServer() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  CloseConnections();
  std::vector<std::thread> workers;
  {
    const MutexLock lock(mutex_);
    workers.swap(workers_);
  }
  for (std::thread& worker : workers) worker.join();
}

void HttpServer::Release() {
  {
    const MutexLock lock(mutex_);
    released_ = true;
  }
  changed_.NotifyAll();
}

void HttpServer::Step() {
  {
    const MutexLock lock(mutex_);
    ++steps_;
    // They count as stalled again only once they have sent their bytes.
    stalled_ -= waiting_for_step_;
    waiting_for_step_ = 0;
  }
  changed_.NotifyAll();
}

void HttpServer::WaitForStalled(size_t count) {
  const MutexLock lock(mutex_);
  while (stalled_ < count) changed_.Wait(mutex_);
}

void HttpServer::WaitForSurplus(size_t count) {
  const MutexLock lock(mutex_);
  while (surpluses_ < count) changed_.Wait(mutex_);
}

void HttpServer::CloseConnections() {
  const MutexLock lock(mutex_);
  for (const int fd : connections_) shutdown(fd, SHUT_RDWR);
}

bool HttpServer::WaitForRelease() {
  const MutexLock lock(mutex_);
  ++stalled_;
  changed_.NotifyAll();
  while (!released_ && !stopping_) changed_.Wait(mutex_);
  --stalled_;
  return !stopping_;
}

bool HttpServer::WaitForStep() {
  const MutexLock lock(mutex_);
  const uint64_t step = steps_;
  ++stalled_;
  ++waiting_for_step_;
  changed_.NotifyAll();
  while (!released_ && !stopping_ && steps_ == step) changed_.Wait(mutex_);
  if (steps_ == step) {  // else Step has counted it out
    --stalled_;
    --waiting_for_step_;
  }
  return !stopping_;
}

bool HttpServer::WaitUntil(std::chrono::steady_clock::time_point when) {
  const MutexLock lock(mutex_);
  while (!stopping_ && changed_.WaitUntil(mutex_, when)) {
  }
  return !stopping_;
}

uint64_t HttpServer::body_bytes_sent(const std::string& path) const {
  const MutexLock lock(mutex_);
  const auto counted = body_bytes_by_path_.find(path);
  return counted == body_bytes_by_path_.end() ? 0 : counted->second;
}

std::vector<AuthorizationSighting> HttpServer::authorization_sightings() const {
  const MutexLock lock(mutex_);
  return sightings_;
}

void HttpServer::CountBody(const std::string& path, size_t bytes) {
  body_bytes_sent_ += bytes;
  const MutexLock lock(mutex_);
  body_bytes_by_path_[path] += bytes;
}

void HttpServer::NoteCredentials(const ServerRequest& request) {
  for (const auto& [name, value] : request.headers) {
    AuthorizationSighting sighting{.server = request.Header("host"), .path = request.path};
    if (name == "authorization") {
      const size_t space = std::min(value.find(' '), value.size());
      sighting.scheme = value.substr(0, space);
      sighting.value = value.substr(std::min(space + 1, value.size()));
    } else if (name == "cookie" || name == "proxy-authorization") {
      sighting.scheme = name == "cookie" ? "Cookie" : "Proxy-Authorization";
      sighting.value = value;
    } else {
      continue;
    }
    const MutexLock lock(mutex_);
    sightings_.push_back(std::move(sighting));
  }
}

void HttpServer::Accept() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const MutexLock lock(mutex_);
    if (stopping_ || (fd < 0 && errno != EINTR && errno != ECONNABORTED)) {
      if (fd >= 0) close(fd);
      return;
    }
    if (fd < 0) continue;
    ++connections_accepted_;
    connections_.insert(fd);
    workers_.emplace_back([this, fd] { Serve(fd); });
  }
}

void HttpServer::Serve(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  {
    Connection connection(fd, tls_ ? tls_->context : nullptr);
    while (std::optional<ServerRequest> request = connection.ReadRequest()) {
      NoteCredentials(*request);
      if (!Send(connection, *request, handler_(*request))) break;
    }
  }
  const MutexLock lock(mutex_);
  connections_.erase(fd);
  close(fd);
}

// Whether the connection may serve another request.
bool HttpServer::Send(Connection& connection, const ServerRequest& request,
                      const ServerResponse& response) {
  using Framing = ServerResponse::Framing;
  if (response.stall_head && !WaitForRelease()) return false;
  if (!response.raw.empty()) {
    connection.Write(response.raw);
    return false;
  }
  static const std::string kEmpty;
  const std::string& body = response.body ? *response.body : kEmpty;
  const bool has_body = response.status != 304 && response.status != 204;
  Framing framing = response.framing;
  if (response.endless && framing == Framing::kContentLength) framing = Framing::kChunked;
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " " +
                     std::string(ReasonPhrase(response.status)) + "\r\n";
  for (const auto& [name, value] : response.headers) {
    head.append(name).append(": ").append(value).append("\r\n");
  }
  if (response.stated_length) {
    head += "Content-Length: " + std::to_string(*response.stated_length) + "\r\n";
  } else if (has_body && framing == Framing::kContentLength) {
    head += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  if (has_body && framing == Framing::kChunked) head += "Transfer-Encoding: chunked\r\n";
  if (framing == Framing::kUntilClose) head += "Connection: close\r\n";
  for (size_t sent = 0; sent < response.header_flood;) {
    std::string line = "X-Flood-" + std::to_string(sent) + ": ";
    line.append(900, 'x').append("\r\n");
    head += line;
    sent += line.size();
  }
  head += "\r\n";
  if (!connection.Write(head)) return false;
  if (!has_body || request.method == "HEAD") return framing != Framing::kUntilClose;

  size_t sent = 0;
  const auto start = std::chrono::steady_clock::now();
  auto send_piece = [&](std::string_view piece) {
    if (framing == Framing::kChunked) {
      char size[32];
      snprintf(size, sizeof(size), "%zx\r\n", piece.size());
      if (!connection.Write(size)) return false;
    }
    // Counted first: who has read a body finds it in the counters.
    CountBody(request.path, piece.size());
    if (!connection.Write(piece)) return false;
    sent += piece.size();
    connection.Carry(piece.size());
    return framing != Framing::kChunked || connection.Write("\r\n");
  };
  auto cut_here = [&] {
    return sent == response.truncate_at || connection.carried() >= response.cut_every;
  };
  auto cut = [&] {
    if (response.reset) connection.Reset();
    return false;
  };
  bool stalled = false;
  size_t drip_end = response.drip_bytes;
  do {
    std::string_view rest = body;
    while (!rest.empty() || (sent == response.stall_at && !stalled)) {
      if (sent == response.stall_at && !stalled) {
        stalled = true;
        if (!WaitForRelease()) return false;
        continue;
      }
      if (cut_here()) return cut();
      if (sent == drip_end) {
        if (!WaitForStep()) return false;
        drip_end += response.drip_bytes;
      }
      size_t length = std::min<size_t>(rest.size(), size_t{256} << 10);
      if (!stalled && sent < response.stall_at) length = std::min(length, response.stall_at - sent);
      if (sent < response.truncate_at) length = std::min(length, response.truncate_at - sent);
      length = std::min(length, response.cut_every - connection.carried());
      length = std::min(length, drip_end - sent);
      if (response.bytes_per_second > 0) {
        length = std::min(length, static_cast<size_t>(response.bytes_per_second / 64 + 1));
        const auto due =
            start + std::chrono::microseconds(sent * 1'000'000 / response.bytes_per_second);
        if (!WaitUntil(due)) return false;
      }
      if (!send_piece(rest.substr(0, length))) return false;
      rest.remove_prefix(length);
    }
    if (cut_here()) return cut();
  } while (response.endless && !body.empty());
  if (framing == Framing::kChunked && !connection.Write("0\r\n\r\n")) return false;
  if (!response.surplus.empty()) {
    if (!WaitForRelease() || !connection.Write(response.surplus)) return false;
    const MutexLock lock(mutex_);
    ++surpluses_;
    changed_.NotifyAll();
  }
  return framing != Framing::kUntilClose &&
         (!response.stated_length || *response.stated_length == sent);
}

}  // namespace ocifs::testing
