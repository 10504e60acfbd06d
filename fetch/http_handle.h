// libcurl's side of one transfer: its options, and the callbacks that fill a channel.
#ifndef OCIFS_FETCH_HTTP_HANDLE_H_
#define OCIFS_FETCH_HTTP_HANDLE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "fetch/http_channel.h"
#include "fetch/http_client.h"
#include "fetch/http_failure.h"
#include "fetch/proxy.h"
#include "fetch/tls_options.h"
#include "store/error.h"

namespace ocifs::fetch {

// The sockets of an engine's connections. Used by one thread at a time.
class OpenSockets {
 public:
  void Add(int fd) { fds_.insert(fd); }
  void Close(int fd);
  // Whether something has arrived on the connection that has this local address. One or two system
  // calls for each open socket.
  bool HasUnreadBytes(const std::string& address, int port) const;

 private:
  std::set<int> fds_;
};

// Belongs to its channel, and to the engine's thread once it has been started.
class HttpHandle {
 public:
  // Reads the files of request.tls. Errors of theirs, of the proxy's URL and of header values. The
  // channel and the sockets must outlive the handle.
  static store::Result<std::unique_ptr<HttpHandle>> Make(HttpChannel& channel,
                                                         const HttpRequest& request,
                                                         const HttpClientOptions& options,
                                                         const ProxyRules& proxies,
                                                         OpenSockets& sockets);
  ~HttpHandle();
  HttpHandle(const HttpHandle&) = delete;
  HttpHandle& operator=(const HttpHandle&) = delete;

  void* curl() const { return curl_.get(); }

  // Whether the transfer has a connection, and an earlier one had it before.
  bool Reuses() const;
  // What TCP's handshake took; nullopt when Reuses.
  std::optional<std::chrono::microseconds> ConnectTime() const;
  // Of a transfer that ended with that CURLcode.
  HttpFailure Failure(int code) const;

  // For another try, between two rounds in the multi handle.
  void UseFreshConnection();
  // No other request will be sent over the connection.
  void ForbidReuse();

  // Of libcurl; not for others.
  size_t OnHeaderLine(std::string_view line);
  size_t OnBody(std::string_view bytes);
  int OnOpenSocket(int family, int type, int protocol, const char* address);
  bool OnConnected(const char* address, const char* local_address, int local_port);

 private:
  struct CurlDeleter {
    void operator()(void* curl) const;
  };
  struct ListDeleter {
    void operator()(void* list) const;
  };

  HttpHandle(HttpChannel& channel, OpenSockets& sockets, bool https);
  store::Result<void> AddHeaders(const HttpRequest& request);
  store::Result<void> SetOptions(const HttpRequest& request, const HttpClientOptions& options);
  long ConnectionsMade() const;

  HttpChannel& channel_;
  OpenSockets& sockets_;
  const bool https_;
  // libcurl borrows these.
  std::unique_ptr<void, ListDeleter> header_list_;
  std::string post_body_;
  TlsMaterial tls_;
  std::string proxy_url_;
  std::unique_ptr<char[]> error_text_;
  std::unique_ptr<void, CurlDeleter> curl_;  // last: it is the borrower
};

// Once in a process, before all else.
store::Result<void> InitialiseCurl();

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HTTP_HANDLE_H_
