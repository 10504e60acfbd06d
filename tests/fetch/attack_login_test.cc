// Attacks on logins, through challenges, token servers and redirects: rows 16 to 32 of
// tests/ATTACKS.md that no other test covers. After each, nobody but the registry has seen anything
// of the login.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "store/manifest.h"
#include "tests/fetch/attack_fixture.h"
#include "tests/harness/proxy_server.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using testing::CertificateFault;
using ::testing::Each;
using testing::FakeRegistry;
using testing::Fault;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::ProxyServer;
using ::testing::SizeIs;

std::string BearerHeader(const std::string& realm, const std::string& service = "fake") {
  return "Bearer realm=\"" + realm + "\",service=\"" + service + "\"";
}

class AttackLoginTest : public AttackFixture {
 protected:
  void SetUp() override { UseSource(TheLogin()); }
  static testing::TokenServer TheTokenServer() {
    return {.username = std::string(kUser), .password = std::string(kPassword)};
  }
};

// --- Servers with names of their own -------------------------------------------------------------

// "https://other.example" is a server of its own, reached by a proxy: all other servers of these
// tests are loopback, and so belong together.
class ForeignHostTest : public AttackFixture {
 protected:
  static constexpr std::string_view kName = "other.example";

  void Use(Credential credential, Registries registries) {
    RegistrySourceOptions options;
    options.http.proxy = "http://127.0.0.1:" + std::to_string(proxy_.port());
    options.http.no_proxy = "";
    UseSource(std::move(credential), std::move(registries), std::move(options));
  }
  RegistryOptions Trusting() {
    return {.scheme = Scheme::kHttps,
            .tls = {.ca_files = {dir_.Write("far.pem", far_.authority_pem()),
                                 dir_.Write("near.pem", near_.authority_pem())}}};
  }
  store::Result<std::optional<store::RemoteDocument>> Get(const store::Reference& reference) {
    return source_->FetchManifest(reference, std::nullopt, context_);
  }

  FakeRegistry far_{FakeRegistry::Transport::kTls, CertificateFault::kWrongHost};
  FakeRegistry near_{FakeRegistry::Transport::kTls};
  const ProxyServer proxy_{{.backend_port = far_.port()}};
  const testing::TempDir dir_;
};

TEST_F(ForeignHostTest, Row16AForeignRealmIsAskedWithoutTheLogin) {
  const std::string realm = "https://other.example/token";
  const auto artifact = near_.AddArtifact("team/app", "1.0", {});
  Credential identity;
  identity.identity_token = std::string(kPassword);
  for (const Credential& credential : {TheLogin(), identity}) {
    // Who may read without a login can go on doing so.
    Use(credential, {{near_.host(), Trusting()}});
    near_.RequireBearer({.realm = realm});
    const auto manifest = Get(near_.reference("team/app", "1.0"));
    ASSERT_TRUE(manifest) << manifest.error().message;
    EXPECT_EQ((*manifest)->bytes, artifact.manifest);
    // Others are told why.
    Use(credential, {{near_.host(), Trusting()}});
    near_.RequireBearer({.realm = realm, .login_required = true});
    const auto refused = Get(near_.reference("team/app", "1.0"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnauthenticated);
    far_.Inject({.path = "/token", .status = 401, .body = "{}"});
    Use(credential, {{near_.host(), Trusting()}});
    const auto told = Get(near_.reference("team/app", "1.0"));
    ASSERT_FALSE(told);
    EXPECT_THAT(told.error().message, HasSubstr("the stored login was not sent"));
    far_.ClearFaults();
  }
  EXPECT_GE(far_.CountRequests("/token"), 6U);
  EXPECT_THAT(far_.authorization_sightings(), IsEmpty());
  for (const auto& request : far_.requests()) {
    EXPECT_EQ(request.method, "GET");
    EXPECT_THAT(request.query + request.body, Not(HasSubstr(std::string(kPassword))));
    EXPECT_THAT(request.query, Not(HasSubstr("account=")));
  }
  for (const auto& sighting : near_.authorization_sightings()) EXPECT_EQ(sighting.scheme, "Bearer");
}

TEST_F(ForeignHostTest, Row16AConfiguredRealmIsAskedWithTheLogin) {
  near_.AddArtifact("team/app", "1.0", {});
  near_.RequireBearer({.realm = "https://other.example/token", .login_required = true});
  far_.SetTokenServer({.username = std::string(kUser), .password = std::string(kPassword)});
  RegistryOptions options = Trusting();
  options.realm_hosts = {std::string(kName)};
  Use(TheLogin(), {{near_.host(), options}});
  const auto manifest = Get(near_.reference("team/app", "1.0"));
  EXPECT_TRUE(manifest) << manifest.error().message;
  EXPECT_THAT(far_.authorization_sightings(), SizeIs(1));
}

TEST_F(ForeignHostTest, Row17ARealmWithoutTlsIsNotAskedWhenTheRegistryHasIt) {
  near_.AddArtifact("team/app", "1.0", {});
  other_.SetTokenServer({.username = std::string(kUser), .password = std::string(kPassword)});
  for (const std::string& realm :
       {other_.url() + "/token", "http://127.0.0.1:" + std::to_string(near_.port()) + "/token",
        std::string("http://other.example/token")}) {
    Use(TheLogin(), {{near_.host(), Trusting()}});
    near_.RequireBearer({.realm = realm});
    const auto manifest = Get(near_.reference("team/app", "1.0"));
    ASSERT_FALSE(manifest) << realm;
    EXPECT_EQ(manifest.error().code, ErrorCode::kDenied) << realm;
  }
  EXPECT_EQ(other_.connections_accepted(), 0U);
  EXPECT_THAT(proxy_.requests(), IsEmpty());
  EXPECT_THAT(near_.authorization_sightings(), IsEmpty());
}

// Addresses closer to home than a registry on the internet, in all spellings.
std::vector<std::string> NearUrls(uint16_t port) {
  const std::string at = ":" + std::to_string(port) + "/token";
  return {"https://127.0.0.1" + at,       "https://localhost" + at,
          "https://LOCALHOST" + at,       "https://a.localhost" + at,
          "https://[::1]" + at,           "https://[::ffff:127.0.0.1]" + at,
          "https://[::127.0.0.1]" + at,   "https://[64:ff9b::7f00:1]" + at,
          "https://2130706433" + at,      "https://0x7f000001" + at,
          "https://0177.0.0.1" + at,      "https://127.1" + at,
          "https://0.0.0.0" + at,         "https://10.0.0.1/token",
          "https://172.16.0.1/token",     "https://192.168.0.1/token",
          "https://100.64.0.1/token",     "https://169.254.169.254/latest/meta-data",
          "https://[fe80::1]/token",      "https://[fd00::1]/token",
          "https://[2002:7f00:1::]/token"};
}

TEST_F(ForeignHostTest, Row18RealmsCloserToHomeThanTheRegistryAreNotAsked) {
  far_.AddArtifact("team/app", "1.0", {});
  for (const std::string& realm : NearUrls(near_.port())) {
    Use(TheLogin(), {{std::string(kName), Trusting()}});
    far_.RequireBearer({.realm = realm});
    const auto manifest = Get(*store::Reference::Parse("other.example/team/app:1.0"));
    ASSERT_FALSE(manifest) << realm;
    EXPECT_EQ(manifest.error().code, ErrorCode::kDenied)
        << realm << ": " << manifest.error().message;
  }
  EXPECT_EQ(near_.connections_accepted(), 0U);
  EXPECT_THAT(proxy_.requests(), Each("CONNECT other.example:443"));
  EXPECT_THAT(far_.authorization_sightings(), IsEmpty());
}

TEST_F(ForeignHostTest, Row19RedirectsCloserToHomeThanTheRegistryAreNotFollowed) {
  const auto artifact = far_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  far_.RequireBasic(std::string(kUser), std::string(kPassword));
  Use(TheLogin(), {{std::string(kName), Trusting()}});
  const auto reference = *store::Reference::Parse("other.example/team/app:1.0");
  ASSERT_TRUE(Get(reference));
  for (const std::string& target : NearUrls(near_.port())) {
    far_.ClearFaults();
    far_.Inject({.redirect = target});
    const auto manifest = Get(reference);
    ASSERT_FALSE(manifest) << target;
    EXPECT_EQ(manifest.error().code, ErrorCode::kDenied)
        << target << ": " << manifest.error().message;
    auto stream = source_->OpenBlob(reference.repository(), artifact.layers[0], context_);
    ASSERT_TRUE(stream);
    const BlobRead read = ReadToEnd(**stream, 100);
    EXPECT_EQ(read.code(), ErrorCode::kDenied) << target;
    EXPECT_EQ(read.bytes, "");
  }
  EXPECT_EQ(near_.connections_accepted(), 0U);
  EXPECT_THAT(proxy_.requests(), Each("CONNECT other.example:443"));
}

// The name may have had another address when it was looked at; the one connected to decides.
TEST_F(AttackLoginTest, Row19TheAddressConnectedToDecidesNotTheName) {
  const auto client = *HttpClient::Create();
  for (int i = 0; i < 2; ++i) {
    const auto transfer = client->Start({.url = *Url::Parse(other_.localhost_url() + "/"),
                                         .headers = {{"Authorization", "Bearer x"}},
                                         .reach = AddressScope::kPublic},
                                        {});
    const auto head = transfer->Head();
    ASSERT_FALSE(head);
    EXPECT_EQ(head.error().code, ErrorCode::kDenied);
    EXPECT_THAT(head.error().message, HasSubstr("its name stands for the loopback address"));
  }
  EXPECT_EQ(other_.connections_accepted(), 0U);
}

// --- Redirects -----------------------------------------------------------------------------------

TEST_F(AttackLoginTest, Row20ATokenServerThatRedirectsGetsNoSecondRequest) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer(TheTokenServer());
  other_.SetTokenServer(TheTokenServer());
  Credential identity;
  identity.identity_token = std::string(kPassword);
  for (const int status : {301, 302, 303, 307, 308}) {
    for (const Credential& credential : {TheLogin(), identity}) {
      UseSource(credential);
      registry_.ClearFaults();
      registry_.Inject(
          {.path = "/token", .status = status, .redirect = other_.url() + "/token?scope=x"});
      EXPECT_EQ(ManifestError(), ErrorCode::kDenied) << status;
    }
  }
  EXPECT_EQ(other_.connections_accepted(), 0U);
}

TEST_F(AttackLoginTest, Row21ChallengesOfOtherServersAreNotAnswered) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBasic(std::string(kUser), std::string(kPassword));
  ASSERT_TRUE(Manifest("1.0"));
  registry_.Inject({.redirect = other_.url() + "/stolen"});
  for (const std::string& challenge :
       {std::string("Basic realm=\"x\""), BearerHeader(other_.url() + "/token"),
        BearerHeader(registry_.url() + "/token"),
        "Basic realm=\"x\", " + BearerHeader(other_.url() + "/token")}) {
    for (const int status : {401, 403, 407}) {
      other_.ClearFaults();
      other_.Inject(
          {.path = "/stolen",
           .status = status,
           .headers = {{"WWW-Authenticate", challenge}, {"Proxy-Authenticate", challenge}}});
      EXPECT_EQ(ManifestError(), ErrorCode::kRemote) << challenge;
      EXPECT_EQ(TagsError(), ErrorCode::kRemote) << challenge;
      EXPECT_EQ(Read(artifact.layers[0]).code(), ErrorCode::kRemote) << challenge;
    }
  }
  EXPECT_EQ(other_.CountRequests("/token"), 0U);
  EXPECT_EQ(registry_.CountRequests("/token"), 0U);
}

TEST_F(AttackLoginTest, Row21ARedirectHomeBringsNoLoginBack) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.RequireBasic(std::string(kUser), std::string(kPassword));
  ASSERT_TRUE(Manifest("1.0"));
  registry_.ForgetRequests();
  registry_.Inject({.path = "/manifests/", .redirect = other_.url() + "/away"});
  other_.Inject({.path = "/away", .redirect = registry_.url() + "/v2/secret/manifests/1.0"});
  EXPECT_FALSE(Manifest("1.0"));
  for (const auto& request : registry_.requests()) {
    if (request.path.find("/secret/") == std::string::npos) continue;
    EXPECT_EQ(request.Header("authorization"), "");
  }
}

class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* const old = std::getenv(name); old != nullptr) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Environment() {
    if (old_) {
      setenv(name_, old_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* const name_;
  std::optional<std::string> old_;
};

TEST_F(AttackLoginTest, Row22AnotherPortIsAnotherServerAndNetrcIsNotRead) {
  source_.reset();
  const testing::TempDir home;
  const std::string netrc = home.Write(
      ".netrc", "machine 127.0.0.1 login u password netrc-secret\ndefault login u password x\n");
  const Environment at_home("HOME", home.path());
  const Environment by_name("NETRC", netrc);
  UseSource(TheLogin());
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBasic(std::string(kUser), std::string(kPassword));
  other_.Inject({.status = 200, .body = Bytes(100)});
  ASSERT_TRUE(Manifest("1.0"));
  registry_.Inject({.path = "/blobs/", .redirect = other_.url() + "/stored"});
  EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  EXPECT_THAT(other_.requests(), SizeIs(1));
  for (const auto& sighting : registry_.authorization_sightings()) {
    EXPECT_EQ(sighting.value, store::ToBase64(std::string(kUser) + ":" + std::string(kPassword)));
  }
}

TEST_F(AttackLoginTest, Row23UrlsOfADescriptorAreNotAsked) {
  registry_.RequireBasic(std::string(kUser), std::string(kPassword));
  const auto blob = registry_.AddBlob("team/app", Bytes(100));
  const std::string descriptor =
      R"({"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":")" +
      blob.digest.ToString() + R"(","size":100,"urls":[")" + other_.url() + R"(/x"]})";
  registry_.AddManifest(
      "team/app", "1.0",
      R"({"schemaVersion":2,"config":)" + descriptor + R"(,"layers":[)" + descriptor + "]}",
      std::string(store::media_type::kOciManifest));
  const auto document = Manifest("1.0");
  ASSERT_TRUE(document);
  const auto manifest = store::ParseManifest((*document)->bytes, (*document)->media_type);
  ASSERT_TRUE(manifest);
  const auto& layer = std::get<store::Manifest>(*manifest).layers.at(0);
  EXPECT_EQ(Read(layer).bytes, Bytes(100));
  registry_.RemoveBlob(blob.digest);
  EXPECT_EQ(Read(layer).code(), ErrorCode::kRemote);
  EXPECT_EQ(other_.connections_accepted(), 0U);
}

// --- Challenges and tokens -----------------------------------------------------------------------

TEST_F(AttackLoginTest, Row24MalformedChallengesGetNoLogin) {
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "S" + std::to_string(i) + " a=b,";
  const std::string real = BearerHeader(other_.url() + "/token");
  for (const std::string& challenge :
       {many + real, "Bearer realm=\"" + other_.url(), real + ",realm=\"" + other_.url() + "/x\"",
        "Bearer realm=\"" + std::string(50'000, 'x') + "\"", std::string("Bearer"),
        std::string("Negotiate"), std::string("NTLM"), std::string("Digest realm=\"x\",nonce=1")}) {
    UseSource(TheLogin());
    registry_.ClearFaults();
    registry_.Inject({.status = 401, .headers = {{"WWW-Authenticate", challenge}}});
    EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated) << challenge.substr(0, 60);
  }
  EXPECT_THAT(registry_.authorization_sightings(), IsEmpty());
  EXPECT_EQ(other_.connections_accepted(), 0U);
}

TEST_F(AttackLoginTest, Row25TokensThatMayNotStandInAHeaderAreSentToNobody) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.RequireBearer({});
  registry_.SetTokenServer(TheTokenServer());
  for (const std::string& token :
       {std::string(R"(a\r\nHost: evil)"), std::string(R"(a\u0000b)"), std::string("a b"),
        std::string(R"(\u00e9)"), std::string(kMiB / 2, 't'), std::string(2 * kMiB, 't')}) {
    UseSource(TheLogin());
    registry_.ClearFaults();
    registry_.Inject({.path = "/token", .body = "{\"token\":\"" + token + "\"}"});
    const auto manifest = Manifest("1.0");
    ASSERT_FALSE(manifest);
    EXPECT_EQ(manifest.error().code,
              token.size() > kMiB ? ErrorCode::kTooLarge : ErrorCode::kRemote);
    EXPECT_THAT(manifest.error().message, Not(HasSubstr("tttt")));
  }
  for (const auto& request : registry_.requests()) {
    EXPECT_THAT(request.Header("authorization"), Not(::testing::StartsWith("Bearer")));
  }
}

TEST_F(AttackLoginTest, Row26LifetimesThatAreNoneCauseNoStorm) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.RequireBearer({});
  registry_.SetTokenServer(TheTokenServer());
  for (const char* const expires :
       {"0", "-1", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "1e400",
        "0.5", "\"soon\"", "[]", "null"}) {
    UseSource(TheLogin());
    registry_.ClearFaults();
    registry_.Inject({.path = "/token",
                      .body = R"({"token":"t","issued_at":"1970-01-01T00:00:00Z","expires_in":)" +
                              std::string(expires) + "}"});
    const bool parses = std::string_view(expires) != "1e400";
    registry_.ForgetRequests();
    for (int i = 0; i < 3; ++i) {
      // No issuer has given this token: the registry refuses it each time.
      EXPECT_EQ(ManifestError(), parses ? ErrorCode::kUnauthenticated : ErrorCode::kRemote)
          << expires;
    }
    // An answer that does not parse may have suffered on the way, and is looked at again.
    EXPECT_LE(registry_.CountRequests("/token"), parses ? size_t{2} : size_t{3} * kTransientTries)
        << expires;
  }
}

TEST_F(AttackLoginTest, Row26ATokenOfThePastIsUsedForAMinute) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.RequireBearer({.login_required = true});
  testing::TokenServer server = TheTokenServer();
  server.expires_in = 0;
  server.issued_at = "1970-01-01T00:00:00Z";
  registry_.SetTokenServer(server);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Manifest("1.0"));
  EXPECT_EQ(registry_.tokens_issued(), 1U);
}

TEST_F(AttackLoginTest, Row27ScopesOfAChallengeAreNotAskedFor) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.SetTokenServer(TheTokenServer());
  for (const char* const scope :
       {"repository:other:push", "repository:team/app:pull,push,delete", "registry:catalog:*",
        "repository:*:*", "repository:team/app:pull repository:other:pull"}) {
    UseSource(TheLogin());
    registry_.RequireBearer({.scope = scope, .login_required = true});
    EXPECT_TRUE(Manifest("1.0"));
  }
  for (const auto& request : registry_.requests()) {
    if (request.path != "/token") continue;
    EXPECT_EQ(request.Query("scope"), "repository:team/app:pull");
  }
}

TEST_F(AttackLoginTest, Row29AMirrorCannotAskForTheTokensOfItsUpstream) {
  // The login is that of the registry alone.
  class OfRegistry final : public CredentialSource {
   public:
    explicit OfRegistry(std::string host) : host_(std::move(host)) {}
    store::Result<std::optional<Credential>> Lookup(const store::Repository& repository, Freshness,
                                                    const std::stop_token&) override {
      if (repository.registry().name() != host_) return std::nullopt;
      return TheLogin();
    }

   private:
    const std::string host_;
  };
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer(TheTokenServer());
  UseCredentials(std::make_unique<OfRegistry>(registry_.host()),
                 {{registry_.host(), {.mirrors = {other_.url()}}}});
  other_.MirrorOf(registry_);
  // The mirror names the registry's own token server and service.
  other_.RequireBearer({.realm = registry_.url() + "/token", .login_required = true});
  ASSERT_TRUE(Manifest("1.0"));
  EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  // Anonymous tokens are all that the mirror sees.
  for (const auto& sighting : other_.authorization_sightings()) {
    EXPECT_EQ(sighting.scheme, "Bearer");
    EXPECT_THAT(sighting.value, ::testing::MatchesRegex("tok\\.[0-9]+\\.\\..*"));
  }
  other_is_foreign_ = false;  // checked above
}

TEST_F(AttackLoginTest, Row30AFreshChallengeEachTimeIsAnsweredOnce) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.SetTokenServer(TheTokenServer());
  for (int i = 0; i < 50; ++i) {
    registry_.Inject({.path = "/v2/",
                      .times = 1,
                      .status = 401,
                      .headers = {{"WWW-Authenticate",
                                   BearerHeader(registry_.url() + "/token?" + std::to_string(i),
                                                std::to_string(i))}}});
  }
  EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
  EXPECT_EQ(registry_.CountRequests("/v2/"), 2U);
  EXPECT_EQ(registry_.CountRequests("/token"), 1U);
}

TEST_F(AttackLoginTest, Row30SchemesThatChangeAreAnsweredOnce) {
  registry_.SetTokenServer(TheTokenServer());
  for (int i = 0; i < 20; ++i) {
    registry_.Inject(
        {.path = "/v2/",
         .times = 1,
         .status = 401,
         .headers = {{"WWW-Authenticate", i % 2 == 0 ? BearerHeader(registry_.url() + "/token")
                                                     : "Basic realm=\"x\""}}});
  }
  EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
  EXPECT_EQ(registry_.CountRequests("/v2/"), 2U);
}

TEST_F(AttackLoginTest, Row31NoSecretStandsInAMessageOrALog) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer(TheTokenServer());
  ASSERT_TRUE(Manifest("1.0"));
  std::vector<std::string> secrets = Secrets();
  for (const auto& sighting : registry_.authorization_sightings())
    secrets.push_back(sighting.value);
  const Fault faults[] = {{.status = 400},
                          {.status = 403},
                          {.status = 404},
                          {.status = 429},
                          {.status = 500},
                          {.wire = {.truncate_at = 1}},
                          {.wire = {.raw = "nonsense\r\n\r\n"}},
                          {.redirect = other_.url() + "/x?signature=not-yours"},
                          {.redirect = "http://u:not-yours@127.0.0.1/"},
                          {.path = "/token", .status = 401},
                          {.path = "/token", .status = 500},
                          {.path = "/token", .body = "<html>"},
                          {.path = "/token", .redirect = other_.url()}};
  secrets.emplace_back("not-yours");
  for (const Fault& fault : faults) {
    registry_.RevokeTokens();
    registry_.ClearFaults();
    registry_.Inject(fault);
    UseSource(TheLogin());
    const auto manifest = Manifest("1.0");
    const auto blob = Read(artifact.layers[0]);
    const std::string said = (manifest ? "" : manifest.error().message) +
                             (blob.failure ? blob.failure->message : "") + log_.text();
    for (const std::string& secret : secrets) EXPECT_THAT(said, Not(HasSubstr(secret)));
  }
}

TEST_F(AttackLoginTest, Row31CookiesOfARegistryAreNotKept) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBasic(std::string(kUser), std::string(kPassword));
  registry_.Inject({.headers = {{"Set-Cookie", "session=1; Path=/; Domain=127.0.0.1"}}});
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(Manifest("1.0"));
    EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  }
  for (const auto& request : registry_.requests()) EXPECT_EQ(request.Header("cookie"), "");
}

}  // namespace
}  // namespace ocifs::fetch
