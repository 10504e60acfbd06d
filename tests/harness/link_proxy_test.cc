#include "tests/harness/link_proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/fake_registry.h"
#include "tests/harness/plain_client.h"

namespace ocifs::testing {
namespace {

using namespace std::chrono_literals;
using SteadyClock = std::chrono::steady_clock;
using ::testing::Each;
using End = PlainAnswer::End;

std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator());
  return bytes;
}

class LinkProxyTest : public ::testing::Test {
 protected:
  std::string AddBlob(const std::string& bytes) {
    return "/v2/a/blobs/" + registry_.AddBlob("a", bytes).digest.ToString();
  }
  LinkAddress server() const { return {.port = registry_.port()}; }
  static PlainAnswer GetThrough(const LinkProxy& link, const std::string& path,
                                const ServerHeaders& headers = {}) {
    return Get("http://127.0.0.1:" + std::to_string(link.port()) + path, headers);
  }
  // A nonblocking connection to the port; whether it is there at once.
  static bool Connects(uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    pollfd connected{fd, POLLOUT, 0};
    const bool there = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 ||
                       poll(&connected, 1, 0) == 1;
    close(fd);
    return there;
  }
  template <typename Function>
  static SteadyClock::duration TimeOf(const Function& function) {
    const auto start = SteadyClock::now();
    function();
    return SteadyClock::now() - start;
  }

  FakeRegistry registry_;
};

TEST_F(LinkProxyTest, BytesArriveAsTheyWereSent) {
  const std::string bytes = RandomBytes(5'000'003, 1);
  const std::string path = AddBlob(bytes);
  for (const LinkOptions& options :
       {LinkOptions{}, LinkOptions{.delay = 1ms}, LinkOptions{.bytes_per_second = 200'000'000},
        LinkOptions{.window = 1000}, LinkOptions{.delay = 100us, .window = 100'000},
        LinkOptions{.delay = 1ms, .bytes_per_second = 100'000'000, .window = 1 << 20}}) {
    LinkProxy link(server(), options);
    const PlainAnswer answer = GetThrough(link, path);
    EXPECT_EQ(answer.end, End::kWhole);
    EXPECT_TRUE(answer.body == bytes);
    EXPECT_EQ(link.counters().connections, 1U);
    EXPECT_GE(link.counters().bytes_to_client, bytes.size());
    EXPECT_GT(link.counters().bytes_to_server, path.size());
  }
}

TEST_F(LinkProxyTest, ManyConnectionsAtOnceEachGetTheirOwn) {
  LinkProxy link(server(), {.delay = 1ms, .bytes_per_second = 50'000'000});
  std::vector<std::thread> readers;
  std::vector<int> right(8, 0);
  for (size_t i = 0; i < right.size(); ++i) {
    readers.emplace_back([&, i] {
      const std::string bytes = RandomBytes(300'000 + i, i);
      right[i] = GetThrough(link, AddBlob(bytes)).body == bytes ? 1 : 0;
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_THAT(right, Each(1));
  EXPECT_EQ(link.counters().connections, right.size());
}

TEST_F(LinkProxyTest, DelayIsPaidForTheHandshakeAndForTheRequest) {
  const std::string path = AddBlob("x");
  LinkProxy link(server(), {.delay = 30ms});
  EXPECT_GE(TimeOf([&] { EXPECT_EQ(GetThrough(link, path).body, "x"); }), 120ms);
  PlainClient client(link.port());
  client.SendRequest("GET", path);
  client.ReadAnswer();
  const auto second = TimeOf([&] {
    client.SendRequest("GET", path);
    EXPECT_EQ(client.ReadAnswer().body, "x");
  });
  EXPECT_GE(second, 60ms);
}

TEST_F(LinkProxyTest, RateIsSharedByAllConnections) {
  const std::string bytes = RandomBytes(500'000, 1);
  const std::string path = AddBlob(bytes);
  LinkProxy link(server(), {.bytes_per_second = 1'000'000});  // 8 Mbit/s
  const auto both = TimeOf([&] {
    std::thread other([&] { EXPECT_TRUE(GetThrough(link, path).body == bytes); });
    EXPECT_TRUE(GetThrough(link, path).body == bytes);
    other.join();
  });
  EXPECT_GE(both, 900ms) << "1 MB over 8 Mbit/s";
}

TEST_F(LinkProxyTest, WindowLimitsAConnectionHoweverWideTheLinkIs) {
  const std::string path = AddBlob(RandomBytes(320 << 10, 1));
  // Ten windows, of which each but the last waits for its acknowledgement: 2 * 10 ms.
  LinkProxy link(server(), {.delay = 10ms, .window = 32 << 10});
  EXPECT_GE(TimeOf([&] { EXPECT_EQ(GetThrough(link, path).body.size(), 320U << 10); }), 180ms);
}

TEST_F(LinkProxyTest, CutsEveryConnectionAfterSoManyBytes) {
  const std::string path = AddBlob(RandomBytes(3'000'000, 1));
  for (const auto cut : {LinkOptions::Cut::kFin, LinkOptions::Cut::kReset}) {
    LinkProxy link(server(), {.cut_every = 1'000'000, .cut = cut});
    for (int i = 0; i < 3; ++i) {
      PlainClient client(link.port());
      client.SendRequest("GET", path);
      EXPECT_EQ(client.Read(SIZE_MAX).size(), 1'000'000U);
      EXPECT_EQ(client.end(), cut == LinkOptions::Cut::kFin ? End::kClosed : End::kReset);
    }
    EXPECT_EQ(link.counters().bytes_to_client, 3'000'000U);
    EXPECT_EQ(link.counters().connections, 3U);
  }
}

TEST_F(LinkProxyTest, EndsOfTheServerTravelBehindItsBytes) {
  const std::string path = AddBlob(RandomBytes(200'000, 1));
  LinkProxy link(server(), {.delay = 5ms});
  registry_.Inject({.times = 1, .wire = {.truncate_at = 150'000, .reset = true}});
  const PlainAnswer reset = GetThrough(link, path);
  EXPECT_EQ(reset.end, End::kReset);
  EXPECT_EQ(reset.body.size(), 150'000U);
  registry_.Inject({.times = 1, .wire = {.truncate_at = 150'000}});
  const PlainAnswer closed = GetThrough(link, path);
  EXPECT_EQ(closed.end, End::kClosed);
  EXPECT_EQ(closed.body.size(), 150'000U);
}

TEST_F(LinkProxyTest, AClientThatHasFinishedStillGetsItsAnswer) {
  const std::string path = AddBlob("x");
  LinkProxy link(server(), {.delay = 1ms});
  PlainClient client(link.port());
  client.SendRequest("GET", path);
  client.Finish();
  EXPECT_EQ(client.ReadAnswer().body, "x");
  EXPECT_EQ(client.Read(1), "");
  EXPECT_EQ(client.end(), End::kClosed);
}

TEST_F(LinkProxyTest, RefusedByTheServerIsResetForTheClient) {
  uint16_t closed_port = 0;
  {
    const HttpServer server([](const ServerRequest&) { return ServerResponse{}; },
                            HttpServer::Transport::kPlain);
    closed_port = server.port();
  }
  LinkProxy link({.port = closed_port});
  PlainClient client(link.port());
  EXPECT_EQ(client.Read(1), "");
  EXPECT_EQ(client.end(), End::kReset);
}

TEST_F(LinkProxyTest, NothingPassesWhileItStandsStill) {
  const std::string path = AddBlob("x");
  LinkProxy link(server());
  link.Stall();
  EXPECT_TRUE(Connects(link.port()));
  PlainClient client(link.port());
  client.SendRequest("GET", path);
  // Each call is a round of the proxy's thread, in which it would have read and delivered.
  for (int i = 0; i < 10; ++i) EXPECT_EQ(link.counters().bytes_to_server, 0U);
  EXPECT_TRUE(registry_.requests().empty());
  link.Resume();
  EXPECT_EQ(client.ReadAnswer().body, "x");
}

TEST_F(LinkProxyTest, ABlackholeDoesNotEvenAnswerConnections) {
  const std::string path = AddBlob("x");
  LinkProxy link(server());
  PlainClient client(link.port());
  client.SendRequest("GET", path);
  EXPECT_EQ(client.ReadAnswer().body, "x");
  link.Blackhole();
  EXPECT_FALSE(Connects(link.port()));
  EXPECT_FALSE(Connects(link.port()));
  client.SendRequest("GET", path);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(link.counters().open, 1U);
  link.Resume();
  EXPECT_EQ(client.ReadAnswer().body, "x") << "TCP outlasts a standstill";
  EXPECT_EQ(GetThrough(link, path).body, "x");
  EXPECT_EQ(registry_.CountRequests("/blobs/"), 3U);
}

TEST_F(LinkProxyTest, PooledConnectionsDieOnCommand) {
  const std::string path = AddBlob("x");
  LinkProxy link(server());
  PlainClient client(link.port());
  client.SendRequest("GET", path);
  EXPECT_EQ(client.ReadAnswer().body, "x");
  link.ResetConnections();
  EXPECT_EQ(client.Read(1), "");
  EXPECT_EQ(client.end(), End::kReset);
  EXPECT_EQ(link.counters().open, 0U);
  EXPECT_EQ(GetThrough(link, path).body, "x");
}

TEST_F(LinkProxyTest, OptionsChangeUnderWay) {
  const std::string bytes = RandomBytes(2'000'000, 1);
  const std::string path = AddBlob(bytes);
  LinkProxy link(server(), {.delay = 2ms, .bytes_per_second = 1000});
  PlainClient client(link.port());
  client.SendRequest("GET", path);
  link.SetOptions({});
  EXPECT_TRUE(client.ReadAnswer().body == bytes);
}

}  // namespace
}  // namespace ocifs::testing
