#include "tests/harness/token_issuer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "store/text.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/plain_client.h"

namespace ocifs::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kScope = "repository:a:pull";

class TokenIssuerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    blob_ = "/v2/a/blobs/" + registry_.AddBlob("a", "x").digest.ToString();
    registry_.RequireBearer({});
  }
  // The string value of a field of a flat JSON object; "" when absent.
  static std::string Field(const std::string& json, const std::string& name) {
    const std::string start = "\"" + name + "\":\"";
    const size_t at = json.find(start);
    if (at == std::string::npos) return "";
    const size_t begin = at + start.size();
    return json.substr(begin, json.find('"', begin) - begin);
  }
  PlainAnswer AskToken(const std::string& more = "", const ServerHeaders& headers = {}) {
    return Get(registry_.url() + "/token?service=fake&scope=" + std::string(kScope) + more,
               headers);
  }
  std::string Token() { return Field(AskToken().body, "token"); }
  PlainAnswer Post(const std::string& form) {
    return Request("POST", registry_.url() + "/token", {},
                   form + "&client_id=test&scope=" + std::string(kScope));
  }
  PlainAnswer Blob(const std::string& token) {
    return Get(registry_.url() + blob_, {{"Authorization", "Bearer " + token}});
  }

  FakeRegistry registry_;
  std::string blob_;
};

TEST_F(TokenIssuerTest, TokenIsGoodForItsScopeOnly) {
  EXPECT_EQ(Blob(Token()).body, "x");
  EXPECT_THAT(Blob("nonsense").Header("www-authenticate"), HasSubstr("error=\"invalid_token\""));
  const std::string other =
      Field(Get(registry_.url() + "/token?scope=repository:b:pull").body, "token");
  EXPECT_THAT(Blob(other).Header("www-authenticate"), HasSubstr("error=\"insufficient_scope\""));
}

TEST_F(TokenIssuerTest, TokenIsRefusedAfterItsUses) {
  registry_.RequireBearer({.token_uses = 2});
  const std::string token = Token();
  EXPECT_EQ(Blob(token).status, 200);
  EXPECT_EQ(Blob(token).status, 200);
  const PlainAnswer third = Blob(token);
  EXPECT_EQ(third.status, 401);
  EXPECT_THAT(third.Header("www-authenticate"), HasSubstr("error=\"invalid_token\""));
  EXPECT_EQ(Blob(Token()).status, 200);
}

TEST_F(TokenIssuerTest, TokenExpiresByTheClock) {
  std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
  registry_.SetClock([&] { return now; });
  registry_.SetTokenServer({.expires_in = 100});
  const std::string token = Token();
  now += std::chrono::seconds(99);
  EXPECT_EQ(Blob(token).status, 200);
  now += std::chrono::seconds(1);
  EXPECT_EQ(Blob(token).status, 401);
  EXPECT_EQ(Blob(Token()).status, 200);
}

TEST_F(TokenIssuerTest, RefreshTokenIsRotated) {
  registry_.SetTokenServer({.refresh_token = "first", .rotate_refresh_token = true});
  const PlainAnswer answer = Post("grant_type=refresh_token&refresh_token=first");
  EXPECT_EQ(answer.status, 200);
  const std::string second = Field(answer.body, "refresh_token");
  EXPECT_EQ(second, registry_.refresh_token());
  EXPECT_NE(second, "first");
  EXPECT_EQ(Post("grant_type=refresh_token&refresh_token=first").status, 401);
  EXPECT_EQ(Post("grant_type=refresh_token&refresh_token=" + second).status, 200);
}

TEST_F(TokenIssuerTest, LoginMayAskForARefreshToken) {
  registry_.SetTokenServer(
      {.username = "u", .password = "p", .refresh_token = "rt", .password_grant = true});
  const ServerHeaders login = {{"Authorization", "Basic " + store::ToBase64("u:p")}};
  EXPECT_EQ(Field(AskToken("", login).body, "refresh_token"), "");
  EXPECT_EQ(Field(AskToken("&offline_token=true", login).body, "refresh_token"), "rt");
  EXPECT_EQ(Field(AskToken("&offline_token=true").body, "refresh_token"), "") << "anonymous";
  const std::string grant = "grant_type=password&username=u&password=";
  EXPECT_EQ(Field(Post(grant + "p&access_type=offline").body, "refresh_token"), "rt");
  EXPECT_EQ(Post(grant + "wrong").status, 401);
  registry_.SetTokenServer({.username = "u", .password = "p"});
  EXPECT_EQ(Post(grant + "p").status, 401) << "not unless it is told to";
}

TEST_F(TokenIssuerTest, FieldsAreNamedAsTold) {
  EXPECT_THAT(AskToken().body, StartsWith(R"({"token":"tok.)"));
  registry_.SetTokenServer({.field = TokenServer::Field::kAccessToken});
  EXPECT_THAT(AskToken().body, StartsWith(R"({"access_token":"tok.)"));
  EXPECT_THAT(AskToken().body, Not(HasSubstr("\"token\"")));
  registry_.SetTokenServer({.expires_in = std::nullopt,
                            .field = TokenServer::Field::kBoth,
                            .issued_at = "2026-11-20T00:00:00Z"});
  const std::string body = AskToken().body;
  EXPECT_EQ(Field(body, "token"), Field(body, "access_token"));
  EXPECT_EQ(Field(body, "issued_at"), "2026-11-20T00:00:00Z");
  EXPECT_THAT(body, Not(HasSubstr("expires_in")));
}

TEST_F(TokenIssuerTest, MethodsMayBeRefused) {
  registry_.SetTokenServer({.refresh_token = "rt", .methods = TokenServer::Methods::kPostOnly});
  EXPECT_EQ(AskToken().status, 405);
  EXPECT_EQ(Post("grant_type=refresh_token&refresh_token=rt").status, 200);
  registry_.SetTokenServer({.refresh_token = "rt",
                            .methods = TokenServer::Methods::kGetOnly,
                            .refused_method_status = 404});
  EXPECT_EQ(AskToken().status, 200);
  EXPECT_EQ(Post("grant_type=refresh_token&refresh_token=rt").status, 404);
}

TEST_F(TokenIssuerTest, ScopesMayBeDemandedOrCutDown) {
  registry_.SetTokenServer({.required_scope = "repository:a:pull,push"});
  EXPECT_EQ(AskToken().status, 403);
  EXPECT_EQ(AskToken(",push").status, 200);
  registry_.SetTokenServer({.granted_scope = ""});
  EXPECT_THAT(Blob(Token()).Header("www-authenticate"), HasSubstr("insufficient_scope"));
}

TEST_F(TokenIssuerTest, OtherMisbehaviourIsAFault) {
  registry_.Inject(
      {.path = "/token", .times = 1, .status = 302, .redirect = "http://evil.example"});
  const PlainAnswer redirect = AskToken();
  EXPECT_EQ(redirect.status, 302);
  EXPECT_EQ(redirect.Header("location"), "http://evil.example");
  registry_.Inject({.path = "/token", .times = 1, .body = R"({"token":"a\r\nb"})"});
  EXPECT_EQ(AskToken().body, R"({"token":"a\r\nb"})");
}

TEST_F(TokenIssuerTest, TokensOfOneServerAreGoodAtAnother) {
  FakeRegistry other;
  registry_.RequireBearer({.realm = other.url() + "/token"});
  EXPECT_THAT(Blob("none").Header("www-authenticate"), HasSubstr(other.url() + "/token"));
  const std::string token =
      Field(Get(other.url() + "/token?scope=" + std::string(kScope)).body, "token");
  EXPECT_EQ(Blob(token).status, 200);
  registry_.RevokeTokens();
  EXPECT_EQ(Blob(token).status, 401);
}

}  // namespace
}  // namespace ocifs::testing
