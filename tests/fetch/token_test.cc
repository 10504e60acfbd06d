#include "fetch/token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "store/text.h"
#include "tests/harness/fake_registry.h"

namespace ocifs::fetch {
namespace {

using std::chrono::seconds;
using store::ErrorCode;
using testing::FakeRegistry;
using ::testing::HasSubstr;
using ::testing::Not;

struct RealmCase {
  const char* registry;
  const char* endpoint;
  AddressScope scope;
  const char* realm;
  const char* expected;
};

TEST(RealmTest, WhoMaySeeCredentials) {
  constexpr auto kPublic = AddressScope::kPublic;
  constexpr auto kPrivate = AddressScope::kPrivate;
  constexpr auto kLoopback = AddressScope::kLoopback;
  const RealmCase cases[] = {
      {"ghcr.io", "https://ghcr.io", kPublic, "https://ghcr.io/token", "credentials"},
      {"docker.io", "https://registry-1.docker.io", kPublic, "https://auth.docker.io/token",
       "credentials"},
      {"registry.gitlab.com", "https://registry.gitlab.com", kPublic, "https://gitlab.com/jwt/auth",
       "credentials"},
      {"r.example.com", "https://r.example.com", kPublic, "https://auth.example.com/t",
       "credentials"},
      {"example.com", "https://example.com", kPublic, "https://auth.example.com/t", "credentials"},
      {"corp.example", "https://corp.example", kPublic, "https://idp.trusted.org/t", "credentials"},
      {"10.0.0.1", "https://10.0.0.1", kPrivate, "https://10.0.0.1:8443/t", "credentials"},
      {"localhost:5000", "http://localhost:5000", kLoopback, "http://127.0.0.1:5001/t",
       "credentials"},
      // Foreign hosts see nothing of the login.
      {"ghcr.io", "https://ghcr.io", kPublic, "https://evil.io/token", "anonymous"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://ghcr.io.evil.com/token", "anonymous"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://evilghcr.io/token", "anonymous"},
      {"example.co.uk", "https://example.co.uk", kPublic, "https://evil.co.uk/t", "anonymous"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://auth.docker.io/token", "anonymous"},
      {"10.0.0.1", "https://10.0.0.1", kPrivate, "https://10.0.0.2/t", "anonymous"},
      {"1.2.3.4", "https://1.2.3.4", kPublic, "https://9.2.3.4/t", "anonymous"},
      // Nothing at all is sent there.
      {"ghcr.io", "https://ghcr.io", kPublic, "http://ghcr.io/token", "denied"},
      {"r.example", "http://r.example", kPublic, "http://other.example/t", "denied"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://169.254.169.254/t", "denied"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://127.0.0.1/t", "denied"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://localhost/t", "denied"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://[::1]/t", "denied"},
      {"ghcr.io", "https://ghcr.io", kPublic, "https://10.1.2.3/t", "denied"},
      {"10.0.0.1", "https://10.0.0.1", kPrivate, "https://127.0.0.1/t", "denied"},
      {"localhost:5000", "https://localhost:5000", kLoopback, "http://localhost:5000/t", "denied"},
  };
  const std::vector<std::string> trusted = {"idp.trusted.org"};
  for (const RealmCase& c : cases) {
    const RealmContext context{*store::Registry::Parse(c.registry), *Url::Parse(c.endpoint),
                               c.scope, trusted};
    const auto trust = CheckRealm(*Url::Parse(c.realm), context);
    const std::string_view got = !trust ? store::ErrorCodeName(trust.error().code)
                                 : *trust == RealmTrust::kCredentials ? "credentials"
                                                                      : "anonymous";
    EXPECT_EQ(got, c.expected) << c.registry << " → " << c.realm;
  }
}

TEST(TokenAnswerTest, LifetimeIsClamped) {
  auto lifetime = [](const char* expires) {
    return ParseTokenAnswer(R"({"token":"t","expires_in":)" + std::string(expires) + "}")->lifetime;
  };
  EXPECT_EQ(lifetime("300"), seconds(300));
  EXPECT_EQ(lifetime("0"), seconds(60));
  EXPECT_EQ(lifetime("-1"), seconds(60));
  EXPECT_EQ(lifetime("9223372036854775807"), seconds(3600));
  EXPECT_EQ(lifetime("9223372036854775808"), seconds(60));
  EXPECT_EQ(lifetime("\"soon\""), seconds(60));
  EXPECT_EQ(lifetime("null"), seconds(60));
  EXPECT_EQ(ParseTokenAnswer(R"({"access_token":"a"})")->lifetime, seconds(60));
}

TEST(TokenAnswerTest, RefusesWhatMayNotStandInAHeader) {
  EXPECT_EQ(ParseTokenAnswer(R"({"token":"","access_token":"a"})")->token, "a");
  for (const std::string body :
       {R"({"token":"a\r\nHost: evil"})", R"({"token":"a\u0000b"})", R"({"token":"a b"})",
        R"({"token":"\u00e9"})", R"({"token":7})", R"({"token":""})", "{}", "", "<html>"}) {
    const auto token = ParseTokenAnswer(body);
    ASSERT_FALSE(token) << body;
    EXPECT_EQ(token.error().code, ErrorCode::kRemote);
  }
  EXPECT_FALSE(ParseTokenAnswer(R"({"token":")" + std::string((64 << 10) + 1, 't') + R"("})"));
}

class TokenCacheTest : public ::testing::Test {
 protected:
  TokenRequest Request() {
    return {.registry = "r.example",
            .realm = *Url::Parse(server_.url() + "/token"),
            .service = "fake",
            .scope = "repository:a:pull",
            .credential = std::nullopt,
            .tls = {}};
  }

  FakeRegistry server_;
  std::unique_ptr<HttpClient> client_ = *HttpClient::Create();
  std::chrono::steady_clock::time_point now_{};
  TokenCache tokens_{*client_, [this] { return now_; }};
};

TEST_F(TokenCacheTest, AsksOnceUntilShortlyBeforeTheEnd) {
  const auto first = tokens_.Get(Request(), {});
  ASSERT_TRUE(first) << first.error().message;
  now_ += seconds(269);
  EXPECT_EQ(*tokens_.Get(Request(), {}), *first);
  EXPECT_EQ(server_.tokens_issued(), 1U);
  now_ += seconds(2);  // 300 s minus a tenth
  EXPECT_FALSE(tokens_.Find(Request()));
  EXPECT_NE(*tokens_.Get(Request(), {}), *first);
}

TEST_F(TokenCacheTest, TokenWithoutLifetimeLivesAMinute) {
  server_.SetTokenServer({.expires_in = std::nullopt});
  ASSERT_TRUE(tokens_.Get(Request(), {}));
  now_ += seconds(49);
  EXPECT_TRUE(tokens_.Find(Request()));
  now_ += seconds(2);
  EXPECT_FALSE(tokens_.Find(Request()));
}

TEST_F(TokenCacheTest, EachCredentialAndScopeHasItsOwn) {
  server_.SetTokenServer({.username = "u", .password = "p"});
  const auto anonymous = tokens_.Get(Request(), {});
  TokenRequest named = Request();
  named.credential =
      Credential{.username = "u", .password = "p", .identity_token = {}, .registry_token = {}};
  EXPECT_FALSE(tokens_.Find(named));
  EXPECT_NE(*tokens_.Get(named, {}), *anonymous);
  TokenRequest other = Request();
  other.scope = "repository:b:pull";
  EXPECT_FALSE(tokens_.Find(other));
  TokenRequest elsewhere = Request();
  elsewhere.registry = "other.example";
  EXPECT_FALSE(tokens_.Find(elsewhere));
}

TEST_F(TokenCacheTest, DroppedTokenIsForgottenOnce) {
  const auto first = tokens_.Get(Request(), {});
  tokens_.Drop(Request(), *first);
  const auto second = tokens_.Get(Request(), {});
  EXPECT_NE(*first, *second);
  tokens_.Drop(Request(), *first);  // a late complaint about the old one
  EXPECT_EQ(tokens_.Find(Request()), *second);
}

TEST_F(TokenCacheTest, IdentityTokenIsExchangedByPost) {
  server_.SetTokenServer({.refresh_token = "refresh&me"});
  TokenRequest request = Request();
  request.credential = Credential{
      .username = "", .password = "", .identity_token = "refresh&me", .registry_token = {}};
  ASSERT_TRUE(tokens_.Get(request, {}));
  EXPECT_EQ(server_.requests().at(0).method, "POST");
  EXPECT_EQ(server_.requests().at(0).query, "") << "nothing secret in a URL";
}

TEST_F(TokenCacheTest, ManyAskersShareOneRequest) {
  server_.Inject({.path = "/token", .wire = {.stall_head = true}});
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      if (tokens_.Get(Request(), {})) ++right;
    });
  }
  server_.WaitForStalled();
  server_.Release();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8);
  EXPECT_EQ(server_.tokens_issued(), 1U);
}

TEST_F(TokenCacheTest, WaiterSurvivesALeaderThatGoesAway) {
  server_.Inject({.path = "/token", .times = 1, .wire = {.stall_head = true}});
  std::stop_source stop;
  store::ErrorCode leader_code = ErrorCode::kInternal;
  std::thread leader([&] {
    const auto token = tokens_.Get(Request(), stop.get_token());
    if (!token) leader_code = token.error().code;
  });
  server_.WaitForStalled();
  store::Result<std::string> waited = store::Fail(ErrorCode::kInternal, "");
  std::thread waiter([&] { waited = tokens_.Get(Request(), {}); });
  stop.request_stop();
  leader.join();
  waiter.join();
  EXPECT_EQ(leader_code, ErrorCode::kCancelled);
  EXPECT_TRUE(waited);
}

TEST_F(TokenCacheTest, RedirectingTokenServerIsDenied) {
  FakeRegistry elsewhere;
  server_.Inject({.path = "/token", .redirect = elsewhere.url() + "/token"});
  EXPECT_EQ(tokens_.Get(Request(), {}).error().code, ErrorCode::kDenied);
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST_F(TokenCacheTest, RefusalSaysWhatToDoAndNoSecret) {
  server_.SetTokenServer({.username = "u", .password = "right"});
  TokenRequest request = Request();
  request.credential = Credential{
      .username = "u", .password = "wrong-secret", .identity_token = {}, .registry_token = {}};
  const auto token = tokens_.Get(request, {});
  ASSERT_FALSE(token);
  EXPECT_EQ(token.error().code, ErrorCode::kUnauthenticated);
  EXPECT_THAT(token.error().message, HasSubstr("ocifs-ctl login r.example"));
  EXPECT_THAT(token.error().message, Not(HasSubstr("wrong-secret")));
  EXPECT_THAT(token.error().message, Not(HasSubstr(store::ToBase64("u:wrong-secret"))));
}

TEST_F(TokenCacheTest, HostileAnswers) {
  auto code = [&](testing::Fault fault) {
    server_.ClearFaults();
    server_.Inject(std::move(fault));
    return tokens_.Get(Request(), {}).error().code;
  };
  EXPECT_EQ(code({.body = "{\"token\":\"a\\r\\nX: y\"}"}), ErrorCode::kRemote);
  EXPECT_EQ(code({.body = "<html>"}), ErrorCode::kRemote);
  EXPECT_EQ(code({.body = std::string(4096, ' '), .wire = {.endless = true}}),
            ErrorCode::kTooLarge);
  EXPECT_EQ(code({.headers = {{"Content-Encoding", "gzip, gzip, gzip"}}}), ErrorCode::kRemote);
  EXPECT_EQ(code({.status = 500}), ErrorCode::kRemote);
  EXPECT_EQ(code({.status = 429, .headers = {{"Retry-After", "9"}}}), ErrorCode::kRateLimited);
}

}  // namespace
}  // namespace ocifs::fetch
