#include "tests/harness/link_proxy.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "store/mutex.h"

namespace ocifs::testing {
namespace {

using store::MutexLock;
using SteadyClock = std::chrono::steady_clock;
using TimePoint = SteadyClock::time_point;

constexpr size_t kMaxSegment = size_t{64} << 10;
constexpr size_t kMinSegment = 1460;
constexpr size_t kDefaultWindow = size_t{64} << 20;
constexpr int kBacklog = 128;
// How much of the time in which the thread was late, while bytes were waiting, the link makes up
// for.
constexpr std::chrono::milliseconds kCatchUp{50};
// Kept small, so that a server is held back by the link and not by loopback's buffers of megabytes.
constexpr int kServerReceiveBuffer = 128 << 10;

void CloseWithReset(int fd) {
  const linger at_once{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

void CloseWithFin(int fd) {
  // Unread bytes would make it an RST.
  std::array<char, 4096> rest;
  while (recv(fd, rest.data(), rest.size(), MSG_DONTWAIT) > 0) {
  }
  close(fd);
}

sockaddr_in ToSockaddr(const LinkAddress& address) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(address.port);
  if (inet_pton(AF_INET, address.host.c_str(), &out.sin_addr) != 1) {
    throw std::runtime_error("not an IPv4 address: " + address.host);
  }
  return out;
}

// Bytes on their way, or an end of the stream.
struct Segment {
  enum class Kind { kBytes, kFin, kReset };
  Kind kind;
  std::string bytes;
  TimePoint arrives;
};

struct Acknowledgement {
  TimePoint arrives;
  size_t bytes;
};

// One direction of a connection.
struct Stream {
  int from = -1;
  int to = -1;
  std::deque<Segment> under_way;
  std::deque<Acknowledgement> acknowledgements;
  size_t head_sent = 0;  // bytes of the first segment that `to` has taken
  size_t unacknowledged = 0;
  uint64_t delivered = 0;
  bool readable = false;  // poll said so, and recv has not denied it since
  bool ended = false;     // nothing more is read
  bool blocked = false;   // `to` takes nothing now
  bool done = false;      // the end has been delivered
};

enum Direction : size_t { kToServer, kToClient };

struct LinkConnection {
  int client = -1;
  int server = -1;
  bool connected = false;  // to the server
  TimePoint opens;         // when the handshake is over for the client
  std::array<Stream, 2> streams;
  // Set when the connection is over: what the client gets once it has all that was delivered.
  std::optional<LinkOptions::Cut> ending;
};

}  // namespace

// Members without a guard belong to the thread.
class LinkProxy::Loop {
 public:
  Loop(LinkAddress server, LinkOptions options, const LinkAddress& listen_address)
      : server_(ToSockaddr(server)), options_(options) {
    sockaddr_in address = ToSockaddr(listen_address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t length = sizeof(address);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (listener_ < 0 || wake_ < 0 || bind(listener_, generic, length) != 0 ||
        listen(listener_, kBacklog) != 0 || getsockname(listener_, generic, &length) != 0) {
      if (listener_ >= 0) close(listener_);
      if (wake_ >= 0) close(wake_);
      throw std::runtime_error("the link cannot listen on " + listen_address.host);
    }
    listen_address_ = address;
    thread_ = std::thread([this] { Run(); });
  }
  ~Loop() {
    Change([this]() OCIFS_NO_ANALYSIS { wanted_.stopping = true; });
    thread_.join();
    close(wake_);
    close(listener_);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  uint16_t port() const { return ntohs(listen_address_.sin_port); }

  void SetOptions(const LinkOptions& options) {
    Change([&]() OCIFS_NO_ANALYSIS { wanted_.options = options; });
  }
  enum class State { kOpen, kStalled, kBlackhole };
  void SetState(State state) {
    Change([&]() OCIFS_NO_ANALYSIS { wanted_.state = state; });
  }
  void ResetConnections() {
    Change([&]() OCIFS_NO_ANALYSIS { wanted_.reset = true; });
  }
  // Counts all that anyone has received before the call.
  LinkCounters counters() {
    Change([] {});
    const MutexLock lock(mutex_);
    return counters_;
  }

 private:
  struct Wanted {
    std::optional<LinkOptions> options;
    State state = State::kOpen;
    bool reset = false;
    bool stopping = false;
  };
  // The link itself in one direction.
  struct Line {
    TimePoint free_at;
    size_t turn = 0;    // whose segment comes next
    bool busy = false;  // bytes were waiting when it was last looked at
  };

  // Makes a change and waits until the thread has heeded it.
  template <typename Function>
  void Change(const Function& change) OCIFS_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    change();
    const uint64_t number = ++changes_;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
    while (changes_heeded_ < number) heeded_.Wait(mutex_);
  }

  void Run() {
    while (HeedChanges()) {
      const TimePoint now = SteadyClock::now();
      if (state_ == State::kOpen) {
        for (const auto direction : {kToServer, kToClient}) {
          for (auto& connection : connections_) Deliver(*connection, direction, now);
          Transmit(direction, now);
        }
      }
      CloseFinished();
      Wait(now);
    }
    for (auto& connection : connections_) {
      CloseWithReset(connection->client);
      CloseWithReset(connection->server);
    }
    DropFillers();
  }

  // False when it is time to stop.
  bool HeedChanges() OCIFS_EXCLUDES(mutex_) {
    Wanted wanted;
    uint64_t number = 0;
    {
      const MutexLock lock(mutex_);
      number = changes_;
      wanted = wanted_;
      wanted_.reset = false;
    }
    if (wanted.options) options_ = *wanted.options;
    if (wanted.reset) {
      for (auto& connection : connections_) {
        CloseWithReset(connection->client);
        CloseWithReset(connection->server);
      }
      connections_.clear();
    }
    if (wanted.state != state_) {
      if (wanted.state == State::kBlackhole) StopAnswering();
      if (state_ == State::kBlackhole) AnswerAgain();
      state_ = wanted.state;
    }
    const MutexLock lock(mutex_);
    counters_ = {accepted_, connections_.size(), delivered_[kToServer], delivered_[kToClient]};
    changes_heeded_ = number;
    heeded_.NotifyAll();
    return !wanted.stopping;
  }

  // Linux drops SYNs while the queue of connections that wait for accept is full. With a backlog of
  // 0 one connection fills it.
  void StopAnswering() {
    Accept();
    listen(listener_, 0);
    while (fillers_.size() < 8) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (fd < 0) return;
      pollfd connected{fd, POLLOUT, 0};
      // Loopback answers at once or not at all.
      if ((connect(fd, reinterpret_cast<const sockaddr*>(&listen_address_),
                   sizeof(listen_address_)) != 0 &&
           errno != EINPROGRESS) ||
          poll(&connected, 1, 0) == 0) {
        close(fd);
        return;
      }
      fillers_.push_back(fd);
    }
  }
  void AnswerAgain() {
    listen(listener_, kBacklog);
    Accept();
    DropFillers();
  }
  void DropFillers() {
    for (const int fd : fillers_) close(fd);
    fillers_.clear();
  }
  bool IsFiller(const sockaddr_in& peer) const {
    return std::any_of(fillers_.begin(), fillers_.end(), [&](int fd) {
      sockaddr_in local{};
      socklen_t length = sizeof(local);
      return getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) == 0 &&
             local.sin_port == peer.sin_port && local.sin_addr.s_addr == peer.sin_addr.s_addr;
    });
  }

  void Accept() {
    while (true) {
      sockaddr_in peer{};
      socklen_t length = sizeof(peer);
      const int client = accept4(listener_, reinterpret_cast<sockaddr*>(&peer), &length,
                                 SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (client < 0) return;
      if (IsFiller(peer)) {
        close(client);
        continue;
      }
      ++accepted_;
      const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      const int on = 1;
      setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      setsockopt(server, SOL_SOCKET, SO_RCVBUF, &kServerReceiveBuffer,
                 sizeof(kServerReceiveBuffer));
      if (server < 0 ||
          (connect(server, reinterpret_cast<const sockaddr*>(&server_), sizeof(server_)) != 0 &&
           errno != EINPROGRESS)) {
        if (server >= 0) close(server);
        CloseWithReset(client);
        continue;
      }
      auto connection = std::make_unique<LinkConnection>();
      connection->client = client;
      connection->server = server;
      connection->opens = SteadyClock::now() + 2 * options_.delay;
      connection->streams[kToServer].from = client;
      connection->streams[kToServer].to = server;
      connection->streams[kToClient].from = server;
      connection->streams[kToClient].to = client;
      connections_.push_back(std::move(connection));
    }
  }

  // Hands over what has arrived by `now`.
  void Deliver(LinkConnection& connection, Direction direction, TimePoint now) {
    Stream& stream = connection.streams[direction];
    while (!stream.acknowledgements.empty() && stream.acknowledgements.front().arrives <= now) {
      stream.unacknowledged -= stream.acknowledgements.front().bytes;
      stream.acknowledgements.pop_front();
    }
    while (!connection.ending && connection.connected && !stream.blocked &&
           !stream.under_way.empty() && stream.under_way.front().arrives <= now) {
      Segment& segment = stream.under_way.front();
      if (segment.kind == Segment::Kind::kReset) {
        connection.ending = LinkOptions::Cut::kReset;
        return;
      }
      if (segment.kind == Segment::Kind::kFin) {
        shutdown(stream.to, SHUT_WR);
        stream.done = true;
        stream.under_way.clear();
        return;
      }
      size_t size = segment.bytes.size() - stream.head_sent;
      const bool may_cut = direction == kToClient && options_.cut_every > 0;
      if (may_cut) {
        const uint64_t room = options_.cut_every - std::min(stream.delivered, options_.cut_every);
        size = static_cast<size_t>(std::min<uint64_t>(size, room));
      }
      const ssize_t sent = send(stream.to, segment.bytes.data() + stream.head_sent, size,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) {
          stream.blocked = true;
        } else {
          connection.ending = LinkOptions::Cut::kReset;
        }
        return;
      }
      stream.head_sent += static_cast<size_t>(sent);
      stream.delivered += static_cast<uint64_t>(sent);
      delivered_[direction] += static_cast<uint64_t>(sent);
      if (stream.head_sent == segment.bytes.size()) {
        stream.acknowledgements.push_back({now + options_.delay, segment.bytes.size()});
        stream.head_sent = 0;
        stream.under_way.pop_front();
      }
      if (may_cut && stream.delivered >= options_.cut_every) connection.ending = options_.cut;
    }
  }

  size_t Room(const Stream& stream) const {
    const size_t window = options_.window > 0 ? options_.window : kDefaultWindow;
    return window - std::min(window, stream.unacknowledged);
  }
  bool MaySend(const LinkConnection& connection, const Stream& stream) const {
    return connection.connected && !connection.ending && !stream.ended && Room(stream) > 0;
  }

  // Puts segments on the line, one connection after the other, as long as it is free.
  void Transmit(Direction direction, TimePoint now) {
    Line& line = lines_[direction];
    const uint64_t rate = options_.bytes_per_second;
    const size_t most =
        rate == 0 ? kMaxSegment : std::clamp<size_t>(rate / 1000, kMinSegment, kMaxSegment);
    // A link that was idle has saved nothing up.
    line.free_at = std::max(line.free_at, line.busy ? now - kCatchUp : now);
    size_t passed = 0;  // connections in a row that had nothing
    // Bounded, so that a line without a rate hands over what it has between two rounds.
    for (int segments = 0; segments < 256 && passed < connections_.size(); ++segments) {
      if (rate > 0 && line.free_at > now) break;
      LinkConnection& connection = *connections_[line.turn++ % connections_.size()];
      Stream& stream = connection.streams[direction];
      ++passed;
      if (!stream.readable || !MaySend(connection, stream) ||
          (direction == kToServer && now < connection.opens)) {
        continue;
      }
      const ssize_t count =
          recv(stream.from, buffer_.data(), std::min(most, Room(stream)), MSG_DONTWAIT);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        stream.readable = errno == EINTR;
        continue;
      }
      passed = 0;
      Segment segment{Segment::Kind::kBytes, "", now + options_.delay};
      if (count <= 0) {
        segment.kind = count == 0 ? Segment::Kind::kFin : Segment::Kind::kReset;
        stream.ended = true;
      } else {
        segment.bytes.assign(buffer_.data(), static_cast<size_t>(count));
        stream.unacknowledged += segment.bytes.size();
        if (rate > 0) {
          line.free_at += std::chrono::nanoseconds(segment.bytes.size() * 1'000'000'000 / rate);
          segment.arrives = line.free_at + options_.delay;
        }
      }
      // The delay may have become shorter meanwhile; the order stays.
      if (!stream.under_way.empty()) {
        segment.arrives = std::max(segment.arrives, stream.under_way.back().arrives);
      }
      stream.under_way.push_back(std::move(segment));
    }
    line.busy = std::any_of(connections_.begin(), connections_.end(), [&](const auto& connection) {
      const Stream& stream = connection->streams[direction];
      return stream.readable && MaySend(*connection, stream);
    });
  }

  // Whether an RST would overtake bytes that the client's socket does not have yet.
  static bool HasUnsent(int fd) {
    int unsent = 0;
    pollfd hang_up{fd, 0, 0};
    return ioctl(fd, SIOCOUTQ, &unsent) == 0 && unsent > 0 && poll(&hang_up, 1, 0) == 0;
  }

  void CloseFinished() {
    lingering_ = false;
    std::erase_if(connections_, [this](const auto& connection) {
      const auto& streams = connection->streams;
      if (!connection->ending) {
        if (!streams[kToServer].done || !streams[kToClient].done) return false;
        close(connection->client);
        close(connection->server);
        return true;
      }
      if (*connection->ending == LinkOptions::Cut::kReset && HasUnsent(connection->client)) {
        lingering_ = true;
        return false;
      }
      if (*connection->ending == LinkOptions::Cut::kReset) {
        CloseWithReset(connection->client);
        CloseWithReset(connection->server);
      } else {
        CloseWithFin(connection->client);
        CloseWithFin(connection->server);
      }
      return true;
    });
  }

  // The next moment at which something happens without a socket's doing.
  TimePoint NextEvent(TimePoint now) const {
    TimePoint next = now + std::chrono::hours(1);
    if (lingering_) next = now + std::chrono::milliseconds(1);
    if (state_ != State::kOpen) return next;
    for (const auto& connection : connections_) {
      for (const auto direction : {kToServer, kToClient}) {
        const Stream& stream = connection->streams[direction];
        if (!stream.acknowledgements.empty()) {
          next = std::min(next, stream.acknowledgements.front().arrives);
        }
        if (!connection->connected || connection->ending) continue;
        if (!stream.under_way.empty() && !stream.blocked) {
          next = std::min(next, stream.under_way.front().arrives);
        }
        if (stream.readable && MaySend(*connection, stream)) {
          TimePoint sends = options_.bytes_per_second > 0 ? lines_[direction].free_at : now;
          if (direction == kToServer) sends = std::max(sends, connection->opens);
          next = std::min(next, sends);
        }
      }
    }
    return next;
  }

  void Wait(TimePoint now) {
    std::vector<pollfd> polled = {{wake_, POLLIN, 0},
                                  {state_ == State::kBlackhole ? -1 : listener_, POLLIN, 0}};
    for (const auto& connection : connections_) {
      const Stream& to_server = connection->streams[kToServer];
      const Stream& to_client = connection->streams[kToClient];
      const auto events = [&](const Stream& reads, const Stream& writes) {
        return static_cast<short>((!reads.readable && !reads.ended ? POLLIN : 0) |
                                  (writes.blocked ? POLLOUT : 0));
      };
      const short client = events(to_server, to_client);
      const short server =
          connection->connected ? events(to_client, to_server) : static_cast<short>(POLLOUT);
      // An entry without events would still report a hang-up, again and again.
      const bool idle = connection->ending.has_value() || state_ != State::kOpen;
      polled.push_back({idle || client == 0 ? -1 : connection->client, client, 0});
      polled.push_back({idle || server == 0 ? -1 : connection->server, server, 0});
    }
    const auto wait = std::max(NextEvent(now) - SteadyClock::now(), SteadyClock::duration::zero());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
    const timespec timeout{
        static_cast<time_t>(seconds.count()),
        static_cast<long>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(wait - seconds).count())};
    if (ppoll(polled.data(), polled.size(), &timeout, nullptr) <= 0) return;
    if (polled[0].revents != 0) {
      uint64_t ignored = 0;
      [[maybe_unused]] const ssize_t count = read(wake_, &ignored, sizeof(ignored));
    }
    for (size_t i = 0; i < connections_.size(); ++i) {
      LinkConnection& connection = *connections_[i];
      Note(polled[2 + 2 * i].revents, connection.streams[kToServer], connection.streams[kToClient]);
      const short server = polled[3 + 2 * i].revents;
      if (connection.connected) {
        Note(server, connection.streams[kToClient], connection.streams[kToServer]);
      } else if (server != 0) {
        int error = 0;
        socklen_t length = sizeof(error);
        getsockopt(connection.server, SOL_SOCKET, SO_ERROR, &error, &length);
        connection.connected = error == 0;
        if (error != 0) connection.ending = LinkOptions::Cut::kReset;
      }
    }
    if (polled[1].revents != 0) Accept();
  }

  static void Note(short events, Stream& reads, Stream& writes) {
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) reads.readable = true;
    if ((events & (POLLOUT | POLLHUP | POLLERR)) != 0) writes.blocked = false;
  }

  const sockaddr_in server_;
  sockaddr_in listen_address_{};
  int listener_ = -1;
  int wake_ = -1;

  LinkOptions options_;
  State state_ = State::kOpen;
  std::vector<std::unique_ptr<LinkConnection>> connections_;
  std::array<Line, 2> lines_;
  std::array<char, kMaxSegment> buffer_;
  std::array<uint64_t, 2> delivered_{};
  uint64_t accepted_ = 0;
  bool lingering_ = false;  // a connection waits for its client to take its last bytes
  std::vector<int> fillers_;

  store::Mutex mutex_;
  store::CondVar heeded_;
  Wanted wanted_ OCIFS_GUARDED_BY(mutex_);
  uint64_t changes_ OCIFS_GUARDED_BY(mutex_) = 0;
  uint64_t changes_heeded_ OCIFS_GUARDED_BY(mutex_) = 0;
  LinkCounters counters_ OCIFS_GUARDED_BY(mutex_);

  std::thread thread_;
};

LinkProxy::LinkProxy(LinkAddress server, LinkOptions options, LinkAddress listen)
    : loop_(std::make_unique<Loop>(std::move(server), options, listen)) {}
LinkProxy::~LinkProxy() = default;

uint16_t LinkProxy::port() const { return loop_->port(); }
void LinkProxy::SetOptions(LinkOptions options) { loop_->SetOptions(options); }
void LinkProxy::Stall() { loop_->SetState(Loop::State::kStalled); }
void LinkProxy::Blackhole() { loop_->SetState(Loop::State::kBlackhole); }
void LinkProxy::Resume() { loop_->SetState(Loop::State::kOpen); }
void LinkProxy::ResetConnections() { loop_->ResetConnections(); }
LinkCounters LinkProxy::counters() const { return loop_->counters(); }

}  // namespace ocifs::testing
