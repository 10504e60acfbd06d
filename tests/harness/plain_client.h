// One HTTP/1.1 connection without TLS that shows what a server really sent and how it ended.
#ifndef OCIFS_TESTS_HARNESS_PLAIN_CLIENT_H_
#define OCIFS_TESTS_HARNESS_PLAIN_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/harness/http_server.h"

namespace ocifs::testing {

struct PlainAnswer {
  enum class End {
    kWhole,
    kClosed,
    kReset
  };  // as stated; or what ended the connection before that

  int status = 0;              // 0: the connection ended before there was a head
  ServerHeaders headers = {};  // names in lower case
  std::string body = {};       // without chunk framing only; what there is of it
  End end = End::kWhole;

  // The value, or "" when absent. `name` in lower case.
  std::string Header(std::string_view name) const;
};

// Owned by one thread. Blocks on its socket; throws std::runtime_error if it cannot connect.
class PlainClient {
 public:
  explicit PlainClient(uint16_t port);
  ~PlainClient();
  PlainClient(const PlainClient&) = delete;
  PlainClient& operator=(const PlainClient&) = delete;

  void Send(std::string_view bytes);
  void SendRequest(const std::string& method, const std::string& target,
                   const ServerHeaders& headers = {}, const std::string& body = "");
  // The next `count` bytes, or fewer at the end.
  std::string Read(size_t count);
  // The answer to the last request; `head`: it was a HEAD and has no body.
  enum class Body { kExpected, kNone };
  PlainAnswer ReadAnswer(Body body = Body::kExpected);
  // How the connection ended; kWhole: it has not.
  PlainAnswer::End end() const { return end_; }
  uint16_t local_port() const;
  // No more requests: FIN.
  void Finish();

 private:
  bool Fill();

  int fd_;
  std::string input_;
  PlainAnswer::End end_ = PlainAnswer::End::kWhole;
};

// One request on a connection of its own. `url` is "http://127.0.0.1:port/path?query", or
// localhost.
PlainAnswer Get(const std::string& url, const ServerHeaders& headers = {});
PlainAnswer Request(const std::string& method, const std::string& url,
                    const ServerHeaders& headers = {}, const std::string& body = "");

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_PLAIN_CLIENT_H_
