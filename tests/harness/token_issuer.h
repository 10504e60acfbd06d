// Tokens of the fake registry: the server that gives them and the check of those that come back.
#ifndef OCIFS_TESTS_HARNESS_TOKEN_ISSUER_H_
#define OCIFS_TESTS_HARNESS_TOKEN_ISSUER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "tests/harness/http_server.h"

namespace ocifs::testing {

// How a registry asks for tokens.
struct BearerDemand {
  std::string realm = {};  // empty: this server's own /token
  std::string service = "fake";
  std::string scope = {};            // empty: the scope that the request needs
  bool login_required = false;       // anonymous tokens do not suffice
  bool silent_on_resources = false;  // only GET /v2/ carries the challenge
  int token_uses = -1;               // requests that a token is good for; -1: any number
};

// How this server's /token answers. Other misbehaviour of token servers (redirects, tokens that are
// no tokens, expires_in that is no number) is a Fault on "/token".
struct TokenServer {
  enum class Methods { kBoth, kGetOnly, kPostOnly };
  enum class Field { kToken, kAccessToken, kBoth };

  std::string username = {};  // empty: no login is known
  std::string password = {};
  std::string refresh_token = {};  // for POST; empty: none is known
  bool anonymous = true;           // tokens without a login are given
  std::optional<int64_t> expires_in = 300;

  Methods methods = Methods::kBoth;
  int refused_method_status = 405;  // for the other one
  Field field = Field::kToken;      // what a token is called in the answer
  std::optional<std::string> issued_at = {};
  // A POST with grant_type=password and the login above is answered.
  bool password_grant = false;
  // Each POST with the refresh token is answered with another one; the old one is refused from then
  // on. A login that asks for one (offline_token, access_type=offline) gets the current one.
  bool rotate_refresh_token = false;
  std::string required_scope = {};  // requests for any other scope are denied; empty: none are
  std::optional<std::string> granted_scope = {};  // tokens are for that, whatever was asked for
};

using TestClock = std::function<std::chrono::steady_clock::time_point()>;

// Thread-compatible.
//
// A token is "tok.<serial>.<hex of user>.<hex of scope>", so that a test sees what it was given
// for, with ".<time>" behind it if there is a clock. Serials are common to all issuers of a
// process: what one gives is judged by any other.
class TokenIssuer {
 public:
  enum class Verdict { kGood, kInvalid, kInsufficientScope };

  void Configure(TokenServer server);
  // Tokens expire by that clock from now on, after the default of 60 s when `expires_in` is absent.
  void SetClock(TestClock clock) { clock_ = std::move(clock); }
  // Those given so far, by any issuer, are invalid here.
  void Revoke();

  ServerResponse Answer(const ServerRequest& request);
  // Counts as a use if it is good.
  Verdict Use(const std::string& token, const std::string& scope, const BearerDemand& demand);

  size_t issued() const { return issued_; }
  // The one that is good now.
  const std::string& refresh_token() const { return server_.refresh_token; }

 private:
  std::string MakeToken(const std::string& user, const std::string& scope);

  TokenServer server_;
  TestClock clock_;
  uint64_t first_valid_serial_ = 0;
  size_t issued_ = 0;
  std::map<std::string, int> uses_;  // by token
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_TOKEN_ISSUER_H_
