// What becomes of connections: which are used again, which are not, and what is said of those that
// do not come about.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>

#include "fetch/http_client.h"
#include "tests/harness/http_server.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::HasSubstr;
using testing::HttpServer;
using testing::ServerRequest;
using testing::ServerResponse;

class HttpConnectionTest : public ::testing::Test {
 protected:
  using Family = HttpServer::Family;

  // Listens where the test wants it.
  std::unique_ptr<HttpServer> Serve(const HttpServer::Options& options = {}) {
    return std::make_unique<HttpServer>(
        [this](const ServerRequest& request) {
          ++requests_;
          if (request.path == "/stalls") return ServerResponse{.stall_head = true};
          if (request.path == "/surplus") {
            return ServerResponse{.body = std::make_shared<const std::string>("short"),
                                  .surplus = request.Query("s").value_or("")};
          }
          if (request.path == "/big") {
            return ServerResponse{.body =
                                      std::make_shared<const std::string>(size_t{64} << 20, 'b')};
          }
          return ServerResponse{.body = std::make_shared<const std::string>("ok")};
        },
        options);
  }
  static Url UrlOf(const HttpServer& server, const std::string& path,
                   const std::string& host = "127.0.0.1") {
    return *Url::Parse("http://" + host + ":" + std::to_string(server.port()) + path);
  }
  store::Result<std::string> Fetch(const Url& url, HttpMethod method = HttpMethod::kGet) {
    return client_->Start({.method = method, .url = url}, {})->ReadAll(100);
  }

  std::atomic<int> requests_ = 0;  // counted by the server's threads
  std::unique_ptr<HttpClient> client_ = *HttpClient::Create();
};

// A server may close an idle connection at the moment in which a request is sent over it.
TEST_F(HttpConnectionTest, ConnectionThatDiesUnderARequestIsReplacedSilently) {
  for (const HttpMethod method : {HttpMethod::kGet, HttpMethod::kPost}) {
    std::atomic<int> stalls = 0;
    HttpServer server(
        [&](const ServerRequest& request) {
          // The second request finds the connection of the first, and nothing ever answers it.
          const bool dies = request.path == "/dies" && stalls++ == 0;
          return ServerResponse{.body = std::make_shared<const std::string>("ok"),
                                .stall_head = dies};
        },
        HttpServer::Options{});
    ASSERT_EQ(*Fetch(UrlOf(server, "/"), method), "ok");
    const auto transfer = client_->Start({.method = method, .url = UrlOf(server, "/dies")}, {});
    server.WaitForStalled();
    server.CloseConnections();
    const auto text = transfer->ReadAll(100);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, "ok");
    EXPECT_EQ(stalls, 2);
    EXPECT_EQ(server.connections_accepted(), 2U);
    EXPECT_FALSE(transfer->reused_connection());
  }
}

TEST_F(HttpConnectionTest, ConnectionsClosedWhileIdleAreReplacedSilently) {
  const auto server = Serve();
  for (const HttpMethod method : {HttpMethod::kGet, HttpMethod::kPost}) {
    ASSERT_EQ(*Fetch(UrlOf(*server, "/"), method), "ok");
    server->CloseConnections();
    EXPECT_EQ(*Fetch(UrlOf(*server, "/"), method), "ok");
  }
  EXPECT_EQ(requests_, 4);
}

TEST_F(HttpConnectionTest, FreshConnectionThatDiesIsNotRepeated) {
  const auto server = Serve();
  const auto transfer = client_->Start({.url = UrlOf(*server, "/stalls")}, {});
  server->WaitForStalled();
  server->CloseConnections();
  EXPECT_EQ(transfer->Head().error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(requests_, 1);
}

TEST_F(HttpConnectionTest, BytesBeyondABodyAreNobodysAnswer) {
  const std::string surpluses[] = {
      "garbage\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies",
  };
  for (const std::string& surplus : surpluses) {
    for (const HttpMethod method : {HttpMethod::kGet, HttpMethod::kPost}) {
      const auto server = Serve();
      ASSERT_EQ(*Fetch(UrlOf(*server, "/surplus?s=" + PercentEncode(surplus))), "short");
      server->Release();
      server->WaitForSurplus();
      const auto text = Fetch(UrlOf(*server, "/"), method);
      ASSERT_TRUE(text) << text.error().message;
      EXPECT_EQ(*text, "ok");
      EXPECT_EQ(server->connections_accepted(), 2U);
    }
  }
}

// Under TLS what lies on an idle connection cannot be told from a session ticket.
TEST_F(HttpConnectionTest, GarbageOnAnOldTlsConnectionCostsOneMoreTry) {
  const auto server = Serve({.transport = HttpServer::Transport::kTls});
  const testing::TempDir dir;
  HttpRequest request{.url = *Url::Parse("https://localhost:" + std::to_string(server->port()) +
                                         "/surplus?s=garbage%0D%0A%0D%0A"),
                      .tls = {.ca_files = {dir.Write("ca.pem", server->authority_pem())}}};
  ASSERT_EQ(*client_->Start(request, {})->ReadAll(100), "short");
  server->Release();
  server->WaitForSurplus();
  request.url = *Url::Parse("https://localhost:" + std::to_string(server->port()) + "/");
  HttpRequest post = request;
  const auto transfer = client_->Start(request, {});
  const auto text = transfer->ReadAll(100);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text, "ok");
  EXPECT_FALSE(transfer->reused_connection());
  // A POST is not repeated once it has been sent; its caller is told what happened.
  request.url = *Url::Parse("https://localhost:" + std::to_string(server->port()) +
                            "/surplus?s=garbage%0D%0A%0D%0A");
  ASSERT_EQ(*client_->Start(request, {})->ReadAll(100), "short");
  server->WaitForSurplus(2);
  post.method = HttpMethod::kPost;
  const auto posted = client_->Start(post, {});
  EXPECT_EQ(posted->Head().error().code, ErrorCode::kRemote);
  EXPECT_TRUE(posted->reused_connection());
}

TEST_F(HttpConnectionTest, RefusedAnswerEndsItsConnection) {
  int round = 0;
  HttpServer server(
      [&](const ServerRequest&) {
        return ServerResponse{.body = std::make_shared<const std::string>("ok"),
                              .header_flood = round++ == 0 ? size_t{1} << 20 : 0};
      },
      HttpServer::Options{});
  EXPECT_EQ(Fetch(UrlOf(server, "/")).error().code, ErrorCode::kRemote);
  EXPECT_EQ(*Fetch(UrlOf(server, "/")), "ok");
  EXPECT_EQ(server.connections_accepted(), 2U);
}

TEST_F(HttpConnectionTest, RequestsAboveTheLimitWait) {
  HttpClientOptions options;
  options.max_connections = 2;
  options.connect_timeout = std::chrono::milliseconds(500);
  client_ = *HttpClient::Create(options);
  const auto server = Serve();
  const auto other = Serve();
  const auto first = client_->Start({.url = UrlOf(*server, "/stalls")}, {});
  const auto second = client_->Start({.url = UrlOf(*other, "/stalls")}, {});
  server->WaitForStalled();
  other->WaitForStalled();
  const auto third = client_->Start({.url = UrlOf(*server, "/")}, {});
  // A cancelled one does not wait, and its wait is over before that of the third is.
  std::stop_source stop;
  const auto fourth = client_->Start({.url = UrlOf(*server, "/")}, stop.get_token());
  stop.request_stop();
  EXPECT_EQ(fourth->Head().error().code, ErrorCode::kCancelled);
  EXPECT_EQ(server->connections_accepted() + other->connections_accepted(), 2U);
  other->Release();
  ASSERT_TRUE(second->ReadAll(10));
  // An idle connection to another host makes room.
  const auto text = third->ReadAll(10);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text, "ok");
}

TEST_F(HttpConnectionTest, PausedTransferKeepsItsConnection) {
  HttpClientOptions options;
  options.max_connections = 1;
  options.max_buffered_bytes = size_t{1} << 20;
  client_ = *HttpClient::Create(options);
  const auto server = Serve();
  auto paused = client_->Start({.url = UrlOf(*server, "/big")}, {});
  ASSERT_TRUE(paused->Head());
  const auto waiting = client_->Start({.url = UrlOf(*server, "/")}, {});
  EXPECT_EQ(requests_, 1);
  // Whoever holds it must read on, or let go.
  paused.reset();
  EXPECT_EQ(*waiting->ReadAll(10), "ok");
}

TEST_F(HttpConnectionTest, ConnectTimeoutIsTheRequests) {
  // A backlog of one that is taken: the handshake of the next connection never ends.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(bind(listener, generic, length), 0);
  ASSERT_EQ(listen(listener, 0), 0);
  ASSERT_EQ(getsockname(listener, generic, &length), 0);
  const int holder = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(connect(holder, generic, length), 0);
  const Url url = *Url::Parse("http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/");
  const auto transfer =
      client_->Start({.url = url, .connect_timeout = std::chrono::milliseconds(50)}, {});
  const auto head = transfer->Head();
  close(holder);
  close(listener);
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, ErrorCode::kTimedOut) << head.error().message;
  EXPECT_FALSE(transfer->reused_connection());
}

TEST_F(HttpConnectionTest, FailuresToConnectAreToldApart) {
  std::string port;
  {
    const auto gone = Serve();
    port = std::to_string(gone->port());
  }
  const auto refused = Fetch(*Url::Parse("http://127.0.0.1:" + port + "/"));
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message,
              HasSubstr("connection refused: nothing listens at 127.0.0.1 port " + port));
  // Names below .invalid have no address (RFC 6761).
  const auto unknown = Fetch(*Url::Parse("http://registry.invalid/"));
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(unknown.error().message, HasSubstr("the name registry.invalid does not resolve"));
}

TEST_F(HttpConnectionTest, ServersOfEitherFamily) {
  std::unique_ptr<HttpServer> six;
  try {
    six = Serve({.family = Family::kIpv6});
  } catch (const std::runtime_error&) {
    GTEST_SKIP() << "no IPv6 loopback here";
  }
  const auto transfer = client_->Start({.url = UrlOf(*six, "/", "[::1]")}, {});
  const auto head = transfer->Head();
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ((*head)->peer, AddressScope::kLoopback);
  EXPECT_EQ(*transfer->ReadAll(10), "ok");
  // localhost has an address in each family; the server listens at one of them.
  const auto four = Serve();
  EXPECT_EQ(*Fetch(UrlOf(*four, "/", "localhost")), "ok");
  EXPECT_EQ(*Fetch(UrlOf(*six, "/", "localhost")), "ok");
}

}  // namespace
}  // namespace ocifs::fetch
