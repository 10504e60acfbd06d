#include "tests/harness/token_issuer.h"

#include <array>
#include <atomic>
#include <string_view>
#include <utility>

#include "store/json.h"
#include "store/text.h"
#include "tests/harness/registry_answer.h"

namespace ocifs::testing {
namespace {

using store::JsonQuote;

constexpr int64_t kDefaultLifetime = 60;  // seconds; distribution's token specification

std::atomic<uint64_t> next_token_serial = 1;

int64_t Seconds(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

struct TokenParts {
  uint64_t serial = 0;
  std::string user;
  std::string scope;
  std::optional<uint64_t> expires;  // in seconds of the issuer's clock
};

std::optional<TokenParts> ParseToken(std::string_view token) {
  if (!token.starts_with("tok.")) return std::nullopt;
  token.remove_prefix(4);
  std::array<std::string_view, 3> fields;
  for (std::string_view& field : fields) {
    if (token.data() == nullptr) return std::nullopt;
    field = token.substr(0, token.find('.'));
    token = field.size() < token.size() ? token.substr(field.size() + 1) : std::string_view();
  }
  const auto serial = store::ParseDecimal(fields[0], UINT64_MAX);
  const auto user = store::FromHex(fields[1]);
  const auto scope = store::FromHex(fields[2]);
  if (!serial || !user || !scope) return std::nullopt;
  return TokenParts{*serial, *user, *scope, store::ParseDecimal(token, UINT64_MAX)};
}

}  // namespace

void TokenIssuer::Configure(TokenServer server) { server_ = std::move(server); }

void TokenIssuer::Revoke() { first_valid_serial_ = next_token_serial; }

std::string TokenIssuer::MakeToken(const std::string& user, const std::string& scope) {
  std::string token = "tok." + std::to_string(next_token_serial++) + "." +
                      store::ToHex(store::AsBytes(user)) + "." +
                      store::ToHex(store::AsBytes(scope));
  if (clock_) {
    token +=
        "." + std::to_string(Seconds(clock_()) + server_.expires_in.value_or(kDefaultLifetime));
  }
  return token;
}

TokenIssuer::Verdict TokenIssuer::Use(const std::string& token, const std::string& scope,
                                      const BearerDemand& demand) {
  const std::optional<TokenParts> parts = ParseToken(token);
  if (!parts || parts->serial < first_valid_serial_ ||
      (demand.login_required && parts->user.empty()) ||
      (clock_ && parts->expires && Seconds(clock_()) >= static_cast<int64_t>(*parts->expires))) {
    return Verdict::kInvalid;
  }
  if (parts->scope != scope) return Verdict::kInsufficientScope;
  int& uses = uses_[token];
  if (demand.token_uses >= 0 && uses >= demand.token_uses) return Verdict::kInvalid;
  ++uses;
  return Verdict::kGood;
}

ServerResponse TokenIssuer::Answer(const ServerRequest& request) {
  using Methods = TokenServer::Methods;
  const bool is_post = request.method == "POST";
  if (server_.methods == (is_post ? Methods::kGetOnly : Methods::kPostOnly)) {
    return ErrorAnswer(server_.refused_method_status, "UNSUPPORTED", "method not supported");
  }
  ServerRequest form;
  form.query = is_post ? request.body : request.query;
  std::string scope = form.Query("scope").value_or("");
  std::string user;
  bool gives_refresh_token = false;
  if (is_post) {
    const std::string grant = form.Query("grant_type").value_or("");
    if (grant == "refresh_token" && !server_.refresh_token.empty() && form.Query("client_id") &&
        form.Query("refresh_token") == server_.refresh_token) {
      user = "refreshed";
      if (server_.rotate_refresh_token) {
        server_.refresh_token = "refresh." + std::to_string(next_token_serial++);
        gives_refresh_token = true;
      }
    } else if (grant == "password" && server_.password_grant && form.Query("client_id") &&
               form.Query("username") == server_.username &&
               form.Query("password") == server_.password) {
      user = server_.username;
      gives_refresh_token = form.Query("access_type") == "offline";
    } else {
      return ErrorAnswer(401, "UNAUTHORIZED", "grant refused");
    }
  } else if (const std::string authorization = request.Header("authorization");
             !authorization.empty()) {
    if (authorization != "Basic " + store::ToBase64(server_.username + ":" + server_.password)) {
      return ErrorAnswer(401, "UNAUTHORIZED", "incorrect username or password");
    }
    user = server_.username;
    gives_refresh_token = form.Query("offline_token") == "true";
  } else if (!server_.anonymous) {
    return ErrorAnswer(401, "UNAUTHORIZED", "anonymous access is not allowed");
  }
  if (!server_.required_scope.empty() && scope != server_.required_scope) {
    return ErrorAnswer(403, "DENIED", "no tokens for this scope");
  }
  if (server_.granted_scope) scope = *server_.granted_scope;
  ++issued_;
  const std::string token = JsonQuote(MakeToken(user, scope));
  std::string body = "{";
  if (server_.field != TokenServer::Field::kAccessToken) body += R"("token":)" + token + ",";
  if (server_.field != TokenServer::Field::kToken) body += R"("access_token":)" + token + ",";
  if (gives_refresh_token && !server_.refresh_token.empty()) {
    body += R"("refresh_token":)" + JsonQuote(server_.refresh_token) + ",";
  }
  if (server_.issued_at) body += R"("issued_at":)" + JsonQuote(*server_.issued_at) + ",";
  if (server_.expires_in) body += R"("expires_in":)" + std::to_string(*server_.expires_in) + ",";
  body.back() = '}';
  return JsonAnswer(200, std::move(body));
}

}  // namespace ocifs::testing
