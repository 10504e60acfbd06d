#include "tests/harness/proxy_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "store/text.h"

namespace ocifs::testing {
namespace {

using store::MutexLock;

constexpr std::string_view kHeadEnd = "\r\n\r\n";
constexpr size_t kMaxHeadBytes = size_t{64} << 10;

bool SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

// Appends what has arrived; false at the end of the stream.
bool Receive(int fd, std::string& input) {
  std::array<char, 16 << 10> buffer;
  ssize_t count = 0;
  do {
    count = recv(fd, buffer.data(), buffer.size(), 0);
  } while (count < 0 && errno == EINTR);
  if (count > 0) input.append(buffer.data(), static_cast<size_t>(count));
  return count > 0;
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void SetNoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// A head in origin form and without what is meant for the proxy alone.
std::string ForBackend(std::string_view head) {
  std::string out;
  bool first = true;
  while (!head.empty()) {
    const std::string_view line = head.substr(0, head.find("\r\n"));
    head.remove_prefix(std::min(line.size() + 2, head.size()));
    if (first) {
      const size_t scheme = line.find("://");
      const size_t path = line.find('/', scheme + 3);
      out.append(line.substr(0, line.find(' ') + 1)).append(line.substr(path));
    } else if (!line.starts_with("Proxy-")) {
      out.append(line);
    } else {
      continue;
    }
    first = false;
    out.append("\r\n");
  }
  return out;
}

}  // namespace

ProxyServer::ProxyServer(Options options) : options_(std::move(options)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  if (listener_ < 0 || bind(listener_, generic, sizeof(address)) != 0 ||
      listen(listener_, 128) != 0 || getsockname(listener_, generic, &length) != 0) {
    if (listener_ >= 0) close(listener_);
    throw std::runtime_error("listening on loopback failed");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

ProxyServer::~ProxyServer() {
  std::vector<std::thread> workers;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  {
    const MutexLock lock(mutex_);
    for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
    workers.swap(workers_);
  }
  for (std::thread& worker : workers) worker.join();
}

std::vector<std::string> ProxyServer::requests() const {
  const MutexLock lock(mutex_);
  return requests_;
}

void ProxyServer::Accept() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0) return;
    if (!Track(fd)) {
      close(fd);
      return;
    }
    ++connections_accepted_;
    const MutexLock lock(mutex_);
    workers_.emplace_back([this, fd] { Serve(fd); });
  }
}

bool ProxyServer::Track(int fd) {
  const MutexLock lock(mutex_);
  if (stopping_) return false;
  sockets_.insert(fd);
  return true;
}

void ProxyServer::Untrack(int fd) {
  const MutexLock lock(mutex_);
  sockets_.erase(fd);
  close(fd);
}

std::string ProxyServer::Objection(const std::string& head) {
  const MutexLock lock(mutex_);
  requests_.push_back(head.substr(0, head.find(" HTTP/")));
  if (options_.refusal != 0) {
    return "HTTP/1.1 " + std::to_string(options_.refusal) +
           " Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  }
  if (!options_.login.empty() &&
      head.find("Proxy-Authorization: Basic " + store::ToBase64(options_.login) + "\r\n") ==
          std::string::npos) {
    return "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n"
           "Content-Length: 0\r\nConnection: close\r\n\r\n";
  }
  return "";
}

void ProxyServer::Serve(int fd) {
  SetNoDelay(fd);
  std::string input;
  bool alive = true;
  while (alive && input.find(kHeadEnd) == std::string::npos) {
    alive = input.size() < kMaxHeadBytes && Receive(fd, input);
  }
  const int backend = alive ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
  if (backend >= 0 && Track(backend)) {
    const sockaddr_in address = Loopback(options_.backend_port);
    SetNoDelay(backend);
    if (connect(backend, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      SendAll(fd, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else if (input.starts_with("CONNECT ")) {
      const size_t end = input.find(kHeadEnd) + kHeadEnd.size();
      const std::string objection = Objection(input.substr(0, end));
      SendAll(fd, objection.empty() ? "HTTP/1.1 200 Connection established\r\n\r\n" : objection);
      if (objection.empty()) Tunnel(fd, backend, input.substr(end));
    } else {
      Forward(fd, backend, std::move(input));
    }
    Untrack(backend);
  } else if (backend >= 0) {
    close(backend);
  }
  Untrack(fd);
}

void ProxyServer::Tunnel(int fd, int backend, const std::string& rest) {
  bool alive = SendAll(backend, rest);
  while (alive) {
    std::array<pollfd, 2> ends = {pollfd{fd, POLLIN, 0}, pollfd{backend, POLLIN, 0}};
    if (poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) return;
    for (size_t i = 0; i < ends.size() && alive; ++i) {
      if (ends[i].revents == 0) continue;
      std::string bytes;
      alive = Receive(ends[i].fd, bytes) && SendAll(ends[1 - i].fd, bytes);
    }
  }
}

void ProxyServer::Forward(int fd, int backend, std::string input) {
  while (true) {
    // Requests without a body; what follows is the next.
    for (size_t end = 0; (end = input.find(kHeadEnd)) != std::string::npos;) {
      end += kHeadEnd.size();
      const std::string head = input.substr(0, end);
      input.erase(0, end);
      const std::string objection = Objection(head);
      if (!objection.empty()) {
        SendAll(fd, objection);
        return;
      }
      if (!SendAll(backend, ForBackend(head))) return;
    }
    std::array<pollfd, 2> ends = {pollfd{fd, POLLIN, 0}, pollfd{backend, POLLIN, 0}};
    if (poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) return;
    if (ends[0].revents != 0 && !Receive(fd, input)) return;
    if (ends[1].revents != 0) {
      std::string answer;
      if (!Receive(backend, answer) || !SendAll(fd, answer)) return;
    }
  }
}

}  // namespace ocifs::testing
