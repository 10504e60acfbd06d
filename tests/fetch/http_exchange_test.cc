#include "fetch/http_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/harness/fake_registry.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using testing::FakeRegistry;

// What becomes of a request to `from` that is redirected to `location` by a server at `peer`.
std::string Redirected(const char* from, const char* location, AddressScope peer) {
  HttpRequest request{.url = *Url::Parse(from)};
  request.headers = {{"Accept", "x"}, {"Authorization", "Bearer secret"}};
  HttpHead head{.status = 307, .peer = peer};
  if (location != nullptr) head.headers.Add("location", location);
  const auto next = RedirectedRequest(request, head, request.url);
  if (!next) return std::string(store::ErrorCodeName(next.error().code));
  return next->url.ToString() + (next->headers.size() == 2 ? " with" : " without");
}

TEST(RedirectTest, Rules) {
  constexpr auto kPublic = AddressScope::kPublic;
  constexpr auto kPrivate = AddressScope::kPrivate;
  constexpr auto kLoopback = AddressScope::kLoopback;
  EXPECT_EQ(Redirected("https://r/a", "/b", kPublic), "https://r/b with");
  EXPECT_EQ(Redirected("https://r/a", "https://cdn/b?sig=1", kPublic),
            "https://cdn/b?sig=1 without");
  EXPECT_EQ(Redirected("https://r/a", "https://r:8443/b", kPublic), "https://r:8443/b without");
  EXPECT_EQ(Redirected("http://r/a", "https://r/b", kPublic), "https://r/b without");
  // Downgrade, and other protocols.
  EXPECT_EQ(Redirected("https://r/a", "http://r/b", kPublic), "denied");
  EXPECT_EQ(Redirected("https://r/a", "file:///etc/passwd", kPublic), "remote");
  EXPECT_EQ(Redirected("https://r/a", "gopher://r/", kPublic), "remote");
  EXPECT_EQ(Redirected("https://r/a", "https://u:p@cdn/", kPublic), "remote");
  EXPECT_EQ(Redirected("https://r/a", nullptr, kPublic), "remote");
  // Closer to home than the server that says so.
  EXPECT_EQ(Redirected("https://r/a", "https://169.254.169.254/", kPublic), "denied");
  EXPECT_EQ(Redirected("https://r/a", "https://127.0.0.1/", kPublic), "denied");
  EXPECT_EQ(Redirected("https://r/a", "https://[::ffff:10.0.0.1]/", kPublic), "denied");
  EXPECT_EQ(Redirected("https://r/a", "https://10.0.0.2/", kPrivate), "https://10.0.0.2/ without");
  EXPECT_EQ(Redirected("https://r/a", "https://localhost/", kPrivate), "denied");
  EXPECT_EQ(Redirected("http://r/a", "http://localhost:1/", kLoopback),
            "http://localhost:1/ without");
}

TEST(RedirectTest, ReachShrinksAndDoesNotGrowBack) {
  HttpRequest request{.url = *Url::Parse("https://r/a")};
  HttpHead head{.status = 307, .peer = AddressScope::kPublic};
  head.headers.Add("location", "https://cdn/b");
  const auto next = RedirectedRequest(request, head, request.url);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->reach, AddressScope::kPublic);
  HttpHead private_head{.status = 307, .peer = AddressScope::kPrivate};
  private_head.headers.Add("location", "https://10.0.0.1/c");
  EXPECT_FALSE(RedirectedRequest(*next, private_head, request.url));
}

class HttpExchangeTest : public ::testing::Test {
 protected:
  HttpRequest Get(const std::string& url) {
    HttpRequest request{.url = *Url::Parse(url)};
    request.headers.push_back({"Authorization", "Bearer secret"});
    return request;
  }
  FakeRegistry registry_;
  FakeRegistry other_;
  std::unique_ptr<HttpClient> client_ = *HttpClient::Create();
};

TEST_F(HttpExchangeTest, AuthorizationStaysWithItsOrigin) {
  registry_.Inject({.path = "/a", .redirect = other_.url() + "/b"});
  other_.Inject({.path = "/b", .redirect = registry_.url() + "/c"});
  registry_.Inject({.path = "/c", .status = 200, .body = "there"});
  HttpExchange exchange(*client_, Get(registry_.url() + "/a"), {});
  EXPECT_EQ(*exchange.ReadAll(100), "there");
  EXPECT_EQ(registry_.requests().at(0).Header("authorization"), "Bearer secret");
  EXPECT_EQ(other_.requests().at(0).Header("authorization"), "");
  EXPECT_EQ(registry_.requests().at(1).Header("authorization"), "") << "it does not come back";
}

TEST_F(HttpExchangeTest, OtherNameOfTheSameServerIsAnotherOrigin) {
  registry_.Inject({.path = "/a", .redirect = registry_.localhost_url() + "/b"});
  HttpExchange exchange(*client_, Get(registry_.url() + "/a"), {});
  ASSERT_TRUE(exchange.Head());
  EXPECT_FALSE(exchange.at_origin());
  EXPECT_EQ(registry_.requests().at(1).Header("authorization"), "");
}

TEST_F(HttpExchangeTest, RedirectWithinTheOriginKeepsConnectionAndAuthorization) {
  registry_.Inject({.path = "/a", .body = "moved", .redirect = "/b"});
  registry_.Inject({.path = "/b", .status = 200, .body = "there"});
  HttpExchange exchange(*client_, Get(registry_.url() + "/a"), {});
  EXPECT_EQ(*exchange.ReadAll(100), "there");
  EXPECT_TRUE(exchange.at_origin());
  EXPECT_EQ(registry_.requests().at(1).Header("authorization"), "Bearer secret");
  EXPECT_EQ(registry_.connections_accepted(), 1U);
}

TEST_F(HttpExchangeTest, RedirectLoopEnds) {
  registry_.Inject({.redirect = "/again"});
  HttpExchange exchange(*client_, Get(registry_.url() + "/a"), {});
  EXPECT_EQ(exchange.Head().error().code, ErrorCode::kRemote);
  EXPECT_EQ(registry_.requests().size(), size_t{1 + kMaxRedirects});
}

TEST_F(HttpExchangeTest, FiveHopsAreFollowed) {
  for (int i = 0; i < kMaxRedirects; ++i) {
    registry_.Inject(
        {.path = "/hop" + std::to_string(i), .redirect = "/hop" + std::to_string(i + 1)});
  }
  registry_.Inject({.path = "/hop5", .status = 200, .body = "there"});
  HttpExchange exchange(*client_, Get(registry_.url() + "/hop0"), {});
  EXPECT_EQ(*exchange.ReadAll(100), "there");
}

TEST_F(HttpExchangeTest, EndlessBodyOfARedirectIsNotRead) {
  registry_.Inject(
      {.path = "/a", .body = std::string(1000, 'x'), .redirect = "/b", .wire = {.endless = true}});
  registry_.Inject({.path = "/b", .status = 200, .body = "there"});
  HttpExchange exchange(*client_, Get(registry_.url() + "/a"), {});
  EXPECT_EQ(*exchange.ReadAll(100), "there");
}

}  // namespace
}  // namespace ocifs::fetch
