// A TCP proxy that makes loopback behave like a long, narrow or failing link: delay, rate, a window
// per connection, cuts, standstill and loss of everything.
//
//   LinkProxy link({.port = registry.port()}, {.delay = 50ms, .bytes_per_second = 1'000'000});
//   Get("http://127.0.0.1:" + std::to_string(link.port()) + "/v2/");
#ifndef OCIFS_TESTS_HARNESS_LINK_PROXY_H_
#define OCIFS_TESTS_HARNESS_LINK_PROXY_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace ocifs::testing {

struct LinkAddress {
  std::string host = "127.0.0.1";  // an IPv4 address
  uint16_t port = 0;               // to listen on: 0 is any free one
};

struct LinkOptions {
  enum class Cut { kFin, kReset };

  // One way. A new connection's first bytes wait for two more, as for TCP's handshake.
  std::chrono::microseconds delay{0};
  // Of each direction, shared by all connections in turns. 0: as fast as it goes.
  uint64_t bytes_per_second = 0;
  // Bytes that a connection may have under way in one direction until their acknowledgement is
  // back, which takes two delays: with it a connection has at most window / (2 * delay) a second,
  // however wide the link is. 0: 64 MiB.
  size_t window = 0;
  // A connection ends once it has carried that many bytes to the client, which then has all of
  // them. 0: never.
  uint64_t cut_every = 0;
  Cut cut = Cut::kFin;
};

struct LinkCounters {
  uint64_t connections = 0;      // accepted
  uint64_t open = 0;             // of these
  uint64_t bytes_to_server = 0;  // delivered
  uint64_t bytes_to_client = 0;
};

// Thread-safe. One thread of its own, which waits in poll(2). Bytes arrive as they were sent, in
// their order; what is added is time, ends of connections, and nothing else. A FIN travels as bytes
// do and leaves the other direction open; so does an RST, which ends both. The network's own
// timers (slow start, retransmission) are not modelled.
class LinkProxy {
 public:
  // Throws std::runtime_error when it cannot listen. A server that refuses connections is seen by
  // clients as one that resets them.
  explicit LinkProxy(LinkAddress server, LinkOptions options = {}, LinkAddress listen = {});
  ~LinkProxy();
  LinkProxy(const LinkProxy&) = delete;
  LinkProxy& operator=(const LinkProxy&) = delete;

  uint16_t port() const;

  // These return when the link has changed. Bytes under way arrive as planned.
  void SetOptions(LinkOptions options);
  // Nothing passes in either direction until Resume; connections can be made.
  void Stall();
  // Stall, and new connections are not answered at all (SYNs are dropped): a host that is gone.
  void Blackhole();
  // Ends both. Clients that were trying to connect succeed with their next SYN, after a second or
  // more.
  void Resume();
  // Ends all connections on both sides with RST, what is under way included.
  void ResetConnections();

  LinkCounters counters() const;

 private:
  class Loop;
  const std::unique_ptr<Loop> loop_;
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_LINK_PROXY_H_
