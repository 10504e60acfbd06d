#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "fetch/http_client.h"
#include "fetch/http_exchange.h"
#include "tests/harness/http_server.h"
#include "tests/harness/proxy_server.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::AllOf;
using testing::CertificateFault;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpServer;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::ProxyServer;
using testing::ServerRequest;
using testing::ServerResponse;

// Names below .example have no address (RFC 2606), so what reaches the server went by the proxy.
class HttpProxyTest : public ::testing::Test {
 protected:
  HttpServer::Handler Answer() {
    return [this](const ServerRequest& request) {
      if (!request.Header("proxy-authorization").empty()) leaked_ = true;
      if (request.path == "/redirect") {
        return ServerResponse{.status = 307,
                              .headers = {{"Location", request.Query("to").value_or("")}}};
      }
      return ServerResponse{.body = std::make_shared<const std::string>("ok")};
    };
  }
  std::unique_ptr<HttpClient> ClientOf(const ProxyServer& proxy, const std::string& login = "",
                                       const std::string& no_proxy = "") {
    HttpClientOptions options;
    options.proxy = "http://" + (login.empty() ? "" : login + "@") +
                    "127.0.0.1:" + std::to_string(proxy.port());
    options.no_proxy = no_proxy;
    return *HttpClient::Create(options);
  }
  store::Result<std::string> Fetch(HttpClient& client, const std::string& url) {
    return client.Start({.url = *Url::Parse(url)}, {})->ReadAll(100);
  }

  std::atomic<bool> leaked_ = false;  // set by the server's threads
  HttpServer server_{Answer(), HttpServer::Transport::kPlain};
};

TEST_F(HttpProxyTest, PlainRequestsAreForwarded) {
  const ProxyServer proxy({.backend_port = server_.port()});
  const auto client = ClientOf(proxy);
  EXPECT_EQ(*Fetch(*client, "http://registry.example/v2/"), "ok");
  EXPECT_EQ(*Fetch(*client, "http://other.example/v2/?a=b"), "ok");
  EXPECT_THAT(proxy.requests(),
              ElementsAre("GET http://registry.example/v2/", "GET http://other.example/v2/?a=b"));
  EXPECT_EQ(proxy.connections_accepted(), 1U);
}

TEST_F(HttpProxyTest, HttpsGoesThroughATunnel) {
  HttpServer secure(Answer(), HttpServer::Transport::kTls, CertificateFault::kWrongHost);
  const ProxyServer proxy({.backend_port = secure.port(), .login = "user:p@ss"});
  const auto client = ClientOf(proxy, "user:p%40ss");
  const testing::TempDir dir;
  HttpRequest request{.url = *Url::Parse("https://other.example/v2/"),
                      .headers = {{"Authorization", "Bearer t"}},
                      .tls = {.ca_files = {dir.Write("ca.pem", secure.authority_pem())}}};
  for (int i = 0; i < 2; ++i) {
    const auto text = client->Start(request, {})->ReadAll(100);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, "ok");
  }
  EXPECT_THAT(proxy.requests(), ElementsAre("CONNECT other.example:443"));
  EXPECT_FALSE(leaked_) << "the proxy's login is for the proxy";
  // The certificate is the server's, not the proxy's.
  request.url = *Url::Parse("https://registry.example/v2/");
  EXPECT_EQ(client->Start(request, {})->Head().error().code, ErrorCode::kDenied);
}

TEST_F(HttpProxyTest, MissingAndWrongLoginsAreExplained) {
  const ProxyServer proxy({.backend_port = server_.port(), .login = "user:right"});
  for (const char* const url : {"http://registry.example/", "https://registry.example/"}) {
    const auto none = Fetch(*ClientOf(proxy), url);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, ErrorCode::kDenied) << none.error().message;
    EXPECT_THAT(none.error().message,
                AllOf(HasSubstr("wants a login"), HasSubstr(std::to_string(proxy.port()))));
    const auto wrong = Fetch(*ClientOf(proxy, "user:wr0ng"), url);
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().code, ErrorCode::kDenied) << wrong.error().message;
    EXPECT_THAT(wrong.error().message,
                AllOf(HasSubstr("does not accept the login"), Not(HasSubstr("wr0ng"))));
  }
  EXPECT_EQ(*Fetch(*ClientOf(proxy, "user:right"), "http://registry.example/"), "ok");
}

TEST_F(HttpProxyTest, RefusedTunnelsAreExplained) {
  const ProxyServer forbids({.backend_port = server_.port(), .refusal = 403});
  const auto denied = Fetch(*ClientOf(forbids), "https://registry.example/");
  EXPECT_EQ(denied.error().code, ErrorCode::kDenied);
  EXPECT_THAT(denied.error().message, HasSubstr("refuses to connect to registry.example (403)"));
  const ProxyServer fails({.backend_port = server_.port(), .refusal = 502});
  const auto unreached = Fetch(*ClientOf(fails), "https://registry.example/");
  EXPECT_EQ(unreached.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(unreached.error().message, HasSubstr("cannot reach registry.example (502)"));
}

TEST_F(HttpProxyTest, AbsentProxyIsNamed) {
  HttpClientOptions options;
  {
    const ProxyServer gone({.backend_port = server_.port()});
    options.proxy = "http://user:secret@127.0.0.1:" + std::to_string(gone.port());
  }
  const auto client = *HttpClient::Create(options);
  const auto text = Fetch(*client, "https://registry.example/");
  EXPECT_EQ(text.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(text.error().message, AllOf(HasSubstr("connection refused"), HasSubstr("the proxy"),
                                          Not(HasSubstr("secret"))));
}

TEST_F(HttpProxyTest, MalformedProxyIsNotQuoted) {
  HttpClientOptions options;
  options.proxy = "http://user:secret@proxy:port";
  const auto text = Fetch(**HttpClient::Create(options), "https://registry.example/");
  EXPECT_EQ(text.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(text.error().message, Not(HasSubstr("secret")));
}

TEST_F(HttpProxyTest, NoProxyIsObeyed) {
  const ProxyServer proxy({.backend_port = server_.port()});
  // Without the proxy the name has no address.
  const auto text = Fetch(*ClientOf(proxy, "", "example"), "http://registry.example/");
  EXPECT_EQ(text.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(text.error().message, HasSubstr("does not resolve"));
  EXPECT_THAT(proxy.requests(), IsEmpty());
}

TEST_F(HttpProxyTest, LoopbackGoesStraight) {
  const ProxyServer proxy({.backend_port = server_.port()});
  const auto client = ClientOf(proxy);
  EXPECT_EQ(*Fetch(*client, "http://127.0.0.1:" + std::to_string(server_.port()) + "/"), "ok");
  EXPECT_EQ(*Fetch(*client, "http://localhost:" + std::to_string(server_.port()) + "/"), "ok");
  EXPECT_THAT(proxy.requests(), IsEmpty());
}

TEST_F(HttpProxyTest, AddressOfTheProxyIsNotTheServers) {
  const ProxyServer proxy({.backend_port = server_.port()});
  const auto client = ClientOf(proxy);
  // Not near because its proxy is, and not out of reach because of that either.
  HttpRequest request{.url = *Url::Parse("http://registry.example/"),
                      .reach = AddressScope::kPublic};
  const auto transfer = client->Start(request, {});
  const auto head = transfer->Head();
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ((*head)->peer, AddressScope::kPublic);
  request.url = *Url::Parse("http://10.1.2.3/");
  EXPECT_EQ(client->Start(request, {})->Head().error().code, ErrorCode::kDenied);
  request.reach = AddressScope::kLoopback;
  EXPECT_EQ((*client->Start(request, {})->Head())->peer, AddressScope::kPrivate);
  EXPECT_THAT(proxy.requests(),
              ElementsAre("GET http://registry.example/", "GET http://10.1.2.3/"));
}

TEST_F(HttpProxyTest, RedirectsThroughAProxyKeepTheirRules) {
  const ProxyServer proxy({.backend_port = server_.port()});
  const auto client = ClientOf(proxy);
  auto follow = [&](const std::string& to) {
    HttpExchange exchange(
        *client, {.url = *Url::Parse("http://registry.example/redirect?to=" + PercentEncode(to))},
        {});
    return exchange.ReadAll(100);
  };
  const auto text = follow("http://storage.example/blob");
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text, "ok");
  for (const char* const near : {"http://10.1.2.3/", "http://169.254.169.254/", "http://[::1]/",
                                 "http://127.0.0.1/", "http://localhost/"}) {
    EXPECT_EQ(follow(near).error().code, ErrorCode::kDenied) << near;
  }
}

}  // namespace
}  // namespace ocifs::fetch
