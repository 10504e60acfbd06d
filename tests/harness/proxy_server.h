// A forward proxy on loopback: CONNECT tunnels, and requests in absolute form (RFC 9112 section
// 3.2), all passed on to one server.
#ifndef OCIFS_TESTS_HARNESS_PROXY_SERVER_H_
#define OCIFS_TESTS_HARNESS_PROXY_SERVER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "store/mutex.h"

namespace ocifs::testing {

// Thread-safe. One thread per connection. The destructor ends all connections and joins all
// threads.
class ProxyServer {
 public:
  struct Options {
    uint16_t backend_port = 0;  // on 127.0.0.1; stands for every host
    std::string login = {};     // "user:password", without which the answer is 407
    int refusal = 0;            // the status that answers everything; 0: none
  };

  // Listens on a free port of 127.0.0.1. Throws std::runtime_error when there is none.
  explicit ProxyServer(Options options);
  ~ProxyServer();
  ProxyServer(const ProxyServer&) = delete;
  ProxyServer& operator=(const ProxyServer&) = delete;

  uint16_t port() const { return port_; }
  size_t connections_accepted() const { return connections_accepted_.load(); }
  // "CONNECT host:port" and "GET http://host/path" of all that was asked of the proxy, in order.
  std::vector<std::string> requests() const OCIFS_EXCLUDES(mutex_);

 private:
  void Accept();
  void Serve(int fd);
  // Passes bytes between the client, of whom `rest` has been read, and the backend.
  void Tunnel(int fd, int backend, const std::string& rest);
  // One request after the other, in origin form; `input` has been read.
  void Forward(int fd, int backend, std::string input);
  // The answer to a request that is not passed on; empty: it is.
  std::string Objection(const std::string& head);
  bool Track(int fd) OCIFS_EXCLUDES(mutex_);
  void Untrack(int fd) OCIFS_EXCLUDES(mutex_);

  const Options options_;
  int listener_ = -1;
  uint16_t port_ = 0;

  mutable store::Mutex mutex_;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
  std::set<int> sockets_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::thread> workers_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::string> requests_ OCIFS_GUARDED_BY(mutex_);

  std::atomic<size_t> connections_accepted_ = 0;  // read by tests while connections are made
  std::thread acceptor_;                          // last: starts when all else is there
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_PROXY_SERVER_H_
