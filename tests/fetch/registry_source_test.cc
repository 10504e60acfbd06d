#include "fetch/registry_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "store/text.h"
#include "tests/fetch/source_fixture.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Result;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::FakeRegistry;
using ::testing::HasSubstr;
using testing::kNever;
using ::testing::Not;

class RegistrySourceTest : public SourceFixture {
 protected:
  Result<std::vector<std::string>> AllTags(size_t max_pages = 100) {
    std::vector<std::string> tags;
    std::string cursor;
    do {
      auto page = source_->ListTags(registry_.repository("team/app"), cursor, context_);
      if (!page) return store::Fail(page.error());
      tags.insert(tags.end(), page->tags.begin(), page->tags.end());
      cursor = page->next;
    } while (!cursor.empty() && --max_pages != 0);
    return tags;
  }
};

TEST_F(RegistrySourceTest, FirstAccessCostsManifestAndLayer) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  const auto manifest = Manifest("1.0");
  ASSERT_TRUE(manifest && *manifest) << manifest.error().message;
  EXPECT_EQ((*manifest)->bytes, artifact.manifest);
  EXPECT_EQ((*manifest)->media_type, store::media_type::kOciManifest);
  EXPECT_EQ(*Blob(artifact.layers[0]), "layer");
  EXPECT_THAT(registry_.request_lines(),
              ElementsAre("GET /v2/team/app/manifests/1.0",
                          "GET /v2/team/app/blobs/" + artifact.layers[0].digest.ToString()));
  EXPECT_EQ(registry_.connections_accepted(), 1U);
  for (const auto type : {store::media_type::kOciManifest, store::media_type::kOciIndex,
                          store::media_type::kDockerManifest, store::media_type::kDockerIndex}) {
    EXPECT_THAT(registry_.requests().at(0).Header("accept"), HasSubstr(std::string(type)));
  }
}

TEST_F(RegistrySourceTest, FirstAccessWithATokenCostsTwoRequestsMoreAndLaterOnesNone) {
  registry_.RequireBearer({});
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  ASSERT_TRUE(Manifest("1.0"));
  ASSERT_TRUE(Blob(artifact.config));
  ASSERT_TRUE(Blob(artifact.layers[0]));
  EXPECT_THAT(
      registry_.request_lines(),
      ElementsAre("GET /v2/team/app/manifests/1.0", "GET /token", "GET /v2/team/app/manifests/1.0",
                  "GET /v2/team/app/blobs/" + artifact.config.digest.ToString(),
                  "GET /v2/team/app/blobs/" + artifact.layers[0].digest.ToString()));
}

TEST_F(RegistrySourceTest, AnotherRepositoryCostsOneTokenOnly) {
  registry_.RequireBearer({});
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.AddArtifact("team/two", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  registry_.ForgetRequests();
  ASSERT_TRUE(source_->FetchManifest(registry_.reference("team/two", "1.0"), {}, context_));
  EXPECT_THAT(registry_.request_lines(),
              ElementsAre("GET /token", "GET /v2/team/two/manifests/1.0"));
}

TEST_F(RegistrySourceTest, ConditionalRequestMovesNoBytes) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  const auto same = Manifest("1.0", artifact.digest);
  ASSERT_TRUE(same);
  EXPECT_FALSE(*same);
  EXPECT_EQ(registry_.body_bytes_sent(), 0U);
  registry_.AddArtifact("team/app", "1.0", {{.bytes = "new"}});
  const auto changed = Manifest("1.0", artifact.digest);
  ASSERT_TRUE(changed);
  EXPECT_TRUE(*changed);
}

TEST_F(RegistrySourceTest, NotModifiedWithoutARequestForItIsRemote) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.Inject({.status = 304});
  EXPECT_EQ(ManifestError(), ErrorCode::kRemote);
}

TEST_F(RegistrySourceTest, AbsentThings) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  EXPECT_EQ(ManifestError("2.0"), ErrorCode::kNotFound);
  EXPECT_EQ(source_->FetchManifest(registry_.reference("no/such", "1"), {}, context_).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(source_->ListTags(registry_.repository("no/such"), "", context_).error().code,
            ErrorCode::kNotFound);
  registry_.RemoveBlob(artifact.layers[0].digest);
  EXPECT_EQ(BlobError(artifact.layers[0]), ErrorCode::kRemote) << "a manifest names it";
}

TEST_F(RegistrySourceTest, CaptivePortalIsNoAnswer) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  for (const int status : {200, 404}) {
    registry_.ClearFaults();
    registry_.Inject({.status = status,
                      .headers = {{"Content-Type", "text/html; charset=utf-8"},
                                  {"Docker-Distribution-Api-Version", ""}},
                      .body = "<html>please log in to the hotel</html>"});
    if (status == 200) {
      EXPECT_EQ(ManifestError(), ErrorCode::kRemote);
      EXPECT_EQ(AllTags().error().code, ErrorCode::kRemote);
    }
    EXPECT_EQ(BlobError(artifact.layers[0]), ErrorCode::kRemote);
  }
}

TEST_F(RegistrySourceTest, StatusCodesAndTheirWords) {
  registry_.AddArtifact("team/app", "1.0", {});
  const std::pair<int, ErrorCode> cases[] = {{403, ErrorCode::kDenied},
                                             {429, ErrorCode::kRateLimited},
                                             {500, ErrorCode::kRemote},
                                             {503, ErrorCode::kRemote},
                                             {206, ErrorCode::kRemote}};
  for (const auto& [status, code] : cases) {
    registry_.ClearFaults();
    registry_.Inject({.status = status,
                      .headers = {{"Retry-After", "17"}},
                      .body = R"({"errors":[{"code":"SOME","message":"words of the server"}]})"});
    const auto manifest = Manifest("1.0");
    ASSERT_FALSE(manifest) << status;
    EXPECT_EQ(manifest.error().code, code) << status;
    EXPECT_THAT(manifest.error().message, HasSubstr("words of the server"));
    if (status == 429) {
      EXPECT_THAT(manifest.error().message, HasSubstr("17"));
    }
  }
}

TEST_F(RegistrySourceTest, GigabyteErrorBodyIsNotRead) {
  registry_.Inject({.status = 500, .body = std::string(100'000, 'e'), .wire = {.endless = true}});
  EXPECT_EQ(ManifestError(), ErrorCode::kRemote);
}

TEST_F(RegistrySourceTest, EndlessManifestIsTooLarge) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.Inject({.body = std::string(1 << 20, ' '), .wire = {.endless = true}});
  EXPECT_EQ(ManifestError(), ErrorCode::kTooLarge);
}

TEST_F(RegistrySourceTest, WrongContentDigestHeaderIsNotBelieved) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  registry_.Inject({.headers = {{"Docker-Content-Digest", "sha256:" + std::string(64, '0')}}});
  EXPECT_EQ((*Manifest("1.0"))->bytes, artifact.manifest) << "the store hashes the bytes";
}

// Blobs.

TEST_F(RegistrySourceTest, BlobSizesAreEnforced) {
  const auto blob = registry_.AddBlob("team/app", "0123456789");
  store::Descriptor smaller = blob;
  smaller.size = 9;
  store::Descriptor larger = blob;
  larger.size = 11;
  using Framing = testing::ServerResponse::Framing;
  for (const Framing framing : {Framing::kContentLength, Framing::kChunked, Framing::kUntilClose}) {
    registry_.ClearFaults();
    registry_.Inject({.wire = {.framing = framing}});
    EXPECT_EQ(*Blob(blob), "0123456789");
    EXPECT_EQ(BlobError(smaller), ErrorCode::kCorrupt);
    EXPECT_EQ(BlobError(larger), ErrorCode::kCorrupt);
  }
}

TEST_F(RegistrySourceTest, EmptyBlob) { EXPECT_EQ(*Blob(registry_.AddBlob("team/app", "")), ""); }

TEST_F(RegistrySourceTest, EndlessBlobStopsAtItsDescriptor) {
  const auto blob = registry_.AddBlob("team/app", std::string(100'000, 'x'));
  registry_.Inject({.wire = {.endless = true}});
  EXPECT_EQ(BlobError(blob), ErrorCode::kCorrupt);
}

// Two tests, because what is left over of the first lie stands before the next answer on the same
// connection, which is then refused as no HTTP (kRemote).
TEST_F(RegistrySourceTest, AContentLengthThatIsTooSmall) {
  const auto blob = registry_.AddBlob("team/app", "0123456789");
  registry_.Inject({.wire = {.stated_length = 5}});
  EXPECT_EQ(BlobError(blob), ErrorCode::kCorrupt);
}

TEST_F(RegistrySourceTest, AContentLengthThatIsTooLarge) {
  const auto blob = registry_.AddBlob("team/app", "0123456789");
  registry_.Inject({.wire = {.stated_length = 20}});
  EXPECT_EQ(BlobError(blob), ErrorCode::kCorrupt);
}

TEST_F(RegistrySourceTest, BlobThatNeverComesIsRemoteForEver) {
  const auto blob = registry_.AddBlob("team/app", std::string(1'000'000, 'x'));
  registry_.Inject({.wire = {.truncate_at = 0}});
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  Result<std::span<const std::byte>> bytes = (*stream)->Next();
  while (bytes && !bytes->empty()) bytes = (*stream)->Next();
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, ErrorCode::kRemote);
  EXPECT_EQ((*stream)->Next().error().code, ErrorCode::kRemote);
}

TEST_F(RegistrySourceTest, WrongBytesArePassedOnForTheStoreToRefuse) {
  const auto blob = registry_.AddBlob("team/app", "0123456789");
  registry_.Inject({.flip_at = 3});
  EXPECT_EQ(*Blob(blob), "0122456789");
}

TEST_F(RegistrySourceTest, OpenBlobReturnsAtOnceAndStopWakesTheReader) {
  const auto blob = registry_.AddBlob("team/app", "0123456789");
  registry_.Inject({.wire = {.stall_head = true}});
  std::stop_source stop;
  context_.stop = stop.get_token();
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  registry_.WaitForStalled();  // the request is under way though nobody has asked for bytes
  std::thread stopper([&] { stop.request_stop(); });
  EXPECT_EQ((*stream)->Next().error().code, ErrorCode::kCancelled);
  stopper.join();
}

TEST_F(RegistrySourceTest, LargeBlobPassesWhole) {
  std::string bytes(size_t{20} << 20, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761U >> 24);
  const auto blob = registry_.AddBlob("team/app", bytes);
  EXPECT_TRUE(*Blob(blob) == bytes);
}

// Redirects.

TEST_F(RegistrySourceTest, RedirectToStorageCarriesNoAuthorization) {
  registry_.RequireBearer({});
  const auto blob = registry_.AddBlob("team/app", "stored elsewhere");
  other_.Inject({.status = 200, .body = "stored elsewhere"});
  registry_.Inject({.path = "/blobs/", .redirect = other_.url() + "/bucket/x?signature=secret"});
  EXPECT_EQ(*Blob(blob), "stored elsewhere");
  ASSERT_EQ(other_.requests().size(), 1U);
  EXPECT_EQ(other_.requests()[0].Header("authorization"), "");
  EXPECT_EQ(other_.requests()[0].query, "signature=secret");
}

TEST_F(RegistrySourceTest, ChallengeOfStorageIsIgnored) {
  UseSource(Login("u", "p"));
  const auto blob = registry_.AddBlob("team/app", "x");
  registry_.Inject({.path = "/blobs/", .redirect = other_.url() + "/bucket/x?signature=secret"});
  other_.Inject({.path = "/bucket",
                 .status = 401,
                 .headers = {{"WWW-Authenticate", "Bearer realm=\"" + other_.url() + "/token\""}}});
  const auto text = Blob(blob);
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kRemote);
  EXPECT_THAT(text.error().message, Not(HasSubstr("secret")));
  EXPECT_EQ(other_.CountRequests("/token"), 0U);
  for (const auto& request : other_.requests()) EXPECT_EQ(request.Header("authorization"), "");
}

TEST_F(RegistrySourceTest, RefusalOfStorageIsNotAboutOurLogin) {
  const auto blob = registry_.AddBlob("team/app", "x");
  for (const int status : {403, 404}) {
    other_.ClearFaults();
    other_.Inject({.status = status, .body = "{\"errors\":[]}"});
    registry_.ClearFaults();
    registry_.Inject({.redirect = other_.url() + "/x"});
    EXPECT_EQ(BlobError(blob), ErrorCode::kRemote) << status;
    EXPECT_EQ(ManifestError(), ErrorCode::kRemote) << status;
  }
}

// Authentication.

TEST_F(RegistrySourceTest, BasicLogin) {
  registry_.RequireBasic("user", "pass:word");
  registry_.AddArtifact("team/app", "1.0", {});
  UseSource(Login("user", "pass:word"));
  ASSERT_TRUE(Manifest("1.0"));
  ASSERT_TRUE(Manifest("1.0"));
  EXPECT_EQ(registry_.requests().size(), 3U) << "one refusal, then the login at once";
}

TEST_F(RegistrySourceTest, LoginIsSentToNobodyWhoDoesNotAsk) {
  UseSource(Login("user", "password"));
  registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  EXPECT_EQ(registry_.requests().at(0).Header("authorization"), "");
}

TEST_F(RegistrySourceTest, MissingLoginSaysWhatToDo) {
  registry_.RequireBasic("user", "password");
  registry_.AddArtifact("team/app", "1.0", {});
  const auto manifest = Manifest("1.0");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUnauthenticated);
  EXPECT_THAT(manifest.error().message, HasSubstr("ocifs-ctl login " + registry_.host()));
}

TEST_F(RegistrySourceTest, WrongLoginEndsAfterOneTry) {
  registry_.RequireBasic("user", "password");
  UseSource(Login("user", "guess"));
  const auto manifest = Manifest("1.0");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUnauthenticated);
  EXPECT_THAT(manifest.error().message, Not(HasSubstr("guess")));
  EXPECT_EQ(registry_.requests().size(), 2U);
}

TEST_F(RegistrySourceTest, TokenWithLogin) {
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer({.username = "u", .password = "p"});
  registry_.AddArtifact("team/app", "1.0", {});
  EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
  UseSource(Login("u", "p"));
  EXPECT_TRUE(Manifest("1.0"));
}

TEST_F(RegistrySourceTest, StoredRegistryTokenIsSentAsItIs) {
  registry_.Inject(
      {.path = "/manifests/",
       .times = 1,
       .status = 401,
       .headers = {{"WWW-Authenticate", "Bearer realm=\"" + registry_.url() + "/token\""}}});
  registry_.AddArtifact("team/app", "1.0", {});
  UseSource(
      Credential{.username = {}, .password = {}, .identity_token = {}, .registry_token = "rt"});
  EXPECT_TRUE(Manifest("1.0"));
  EXPECT_EQ(registry_.requests().at(1).Header("authorization"), "Bearer rt");
}

TEST_F(RegistrySourceTest, ExpiredTokenIsRenewedOnce) {
  registry_.RequireBearer({});
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  ASSERT_TRUE(Manifest("1.0"));
  registry_.RevokeTokens();
  EXPECT_EQ(*Blob(artifact.layers[0]), "layer");
  EXPECT_EQ(registry_.tokens_issued(), 2U);
}

TEST_F(RegistrySourceTest, EndlessRefusalEndsAfterTwoRounds) {
  registry_.RequireBearer({.login_required = true});  // anonymous tokens never suffice
  registry_.AddArtifact("team/app", "1.0", {});
  EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
  EXPECT_EQ(registry_.CountRequests("/manifests/"), 2U);
  EXPECT_EQ(registry_.tokens_issued(), 1U);
  registry_.ForgetRequests();
  EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
  EXPECT_LE(registry_.CountRequests("/manifests/"), 2U);
}

TEST_F(RegistrySourceTest, ChallengeIsAskedForOnceWhenResourcesAreSilent) {
  registry_.RequireBearer({.silent_on_resources = true});
  registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  ASSERT_TRUE(Manifest("1.0"));
  EXPECT_THAT(registry_.request_lines(),
              ElementsAre("GET /v2/team/app/manifests/1.0", "GET /v2/", "GET /token",
                          "GET /v2/team/app/manifests/1.0", "GET /v2/team/app/manifests/1.0"));
}

TEST_F(RegistrySourceTest, RefusalWithoutAnyChallengeIsUnauthenticated) {
  registry_.Inject({.status = 401});
  EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
  EXPECT_LE(registry_.requests().size(), 2U);
}

TEST_F(RegistrySourceTest, WiderScopeOfAChallengeIsNotAskedFor) {
  registry_.RequireBearer({.scope = "repository:other:push,delete"});
  registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  EXPECT_EQ(registry_.requests().at(1).Query("scope"), "repository:team/app:pull");
}

TEST_F(RegistrySourceTest, TokenServerElsewhereOnThisHostIsUsed) {
  registry_.RequireBearer({.realm = other_.url() + "/token", .login_required = true});
  other_.SetTokenServer({.username = "u", .password = "p"});
  registry_.AddArtifact("team/app", "1.0", {});
  UseSource(Login("u", "p"));
  EXPECT_TRUE(Manifest("1.0"));
  EXPECT_EQ(other_.tokens_issued(), 1U);
}

TEST_F(RegistrySourceTest, RealmWithoutTlsOnAnotherHostIsNeverContacted) {
  registry_.RequireBearer({.realm = "http://evil.example/token"});
  registry_.AddArtifact("team/app", "1.0", {});
  UseSource(Login("u", "p"));
  EXPECT_EQ(ManifestError(), ErrorCode::kDenied);
}

TEST_F(RegistrySourceTest, MalformedRealms) {
  for (const char* realm :
       {"unix:/run/docker.sock", "/token", "https://u:p@h/", "file:///etc/passwd"}) {
    UseSource(Login("u", "p"));
    registry_.RequireBearer({.realm = realm});
    EXPECT_EQ(ManifestError(), ErrorCode::kRemote) << realm;
  }
}

TEST_F(RegistrySourceTest, TokensGoToTheRegistryTheyAreFor) {
  registry_.RequireBearer({});
  registry_.AddArtifact("team/app", "1.0", {});
  other_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  ASSERT_TRUE(source_->FetchManifest(other_.reference("team/app", "1.0"), {}, context_));
  for (const auto& request : other_.requests()) EXPECT_EQ(request.Header("authorization"), "");
}

TEST_F(RegistrySourceTest, MalformedAuthFileIsNamedOnlyWhenALoginIsWanted) {
  const testing::TempDir dir;
  UseCredentials(
      std::make_unique<AuthFiles>(AuthPlaces{.files = {dir.Write("auth.json", "{broken")}}));
  registry_.AddArtifact("team/app", "1.0", {});
  EXPECT_TRUE(Manifest("1.0"));
  registry_.RequireBearer({});
  EXPECT_TRUE(Manifest("1.0")) << "anybody gets a token";
  registry_.RequireBearer({.login_required = true});
  auto manifest = Manifest("1.0");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUnauthenticated);
  EXPECT_THAT(manifest.error().message, HasSubstr("auth.json"));
  registry_.RequireBasic("u", "p");
  manifest = Manifest("1.0");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUnauthenticated);
  EXPECT_THAT(manifest.error().message, HasSubstr("auth.json"));
}

// Tags.

TEST_F(RegistrySourceTest, TagsInPages) {
  const auto artifact = registry_.AddArtifact("team/app", "v0", {});
  registry_.AddTags("team/app", {"v1", "v2", "v3", "v4"}, artifact.digest);
  registry_.SetTagPageSize(2);
  EXPECT_THAT(*AllTags(), ElementsAre("v0", "v1", "v2", "v3", "v4"));
  EXPECT_EQ(registry_.requests().size(), 3U);
}

TEST_F(RegistrySourceTest, RepositoryWithoutTags) {
  registry_.AddBlob("team/app", "x");
  EXPECT_TRUE(AllTags()->empty());
}

TEST_F(RegistrySourceTest, InvalidTagsAreDropped) {
  registry_.Inject({.status = 200, .body = R"({"tags":["ok","../../etc","-x",7,"a/b"]})"});
  EXPECT_THAT(*AllTags(), ElementsAre("ok"));
}

TEST_F(RegistrySourceTest, NextPageThatIsTheSamePageIsRemote) {
  registry_.AddArtifact("team/app", "v0", {});
  registry_.Inject({.headers = {{"Link", "</v2/team/app/tags/list?n=1000>; rel=\"next\""}}});
  EXPECT_EQ(AllTags().error().code, ErrorCode::kRemote);
}

TEST_F(RegistrySourceTest, EndlessPagesEnd) {
  registry_.AddArtifact("team/app", "v0", {});
  std::string cursor =
      std::to_string(RegistrySource::kMaxPages) + " 0 /v2/team/app/tags/list?last=v";
  registry_.Inject({.headers = {{"Link", "</v2/team/app/tags/list?last=w>; rel=\"next\""}}});
  EXPECT_EQ(source_->ListTags(registry_.repository("team/app"), cursor, context_).error().code,
            ErrorCode::kTooLarge);
}

TEST_F(RegistrySourceTest, NextPageOnAnotherServerIsRemote) {
  registry_.AddArtifact("team/app", "v0", {});
  registry_.Inject({.headers = {{"Link", "<" + other_.url() + "/v2/>; rel=\"next\""}}});
  EXPECT_EQ(AllTags().error().code, ErrorCode::kRemote);
  EXPECT_TRUE(other_.requests().empty());
}

TEST_F(RegistrySourceTest, ForgedCursorsAreInvalid) {
  for (const char* cursor : {"x", "1", "1 0", "1 0 http://evil/", "99999999999999999999 0 /v2/",
                             "1 9 /v2/", "1 0 //evil/x"}) {
    EXPECT_EQ(source_->ListTags(registry_.repository("team/app"), cursor, context_).error().code,
              ErrorCode::kInvalid)
        << cursor;
  }
}

// Where registries are.

TEST_F(RegistrySourceTest, FindsRegistriesByConfigurationAddressOrName) {
  UseSource(std::nullopt, {{"configured.example", {}}});
  auto find = [&](const char* name) {
    const auto found = source_->FindRegistry(*store::Registry::Parse(name), context_);
    return found ? "found" : std::string(store::ErrorCodeName(found.error().code));
  };
  EXPECT_EQ(find("configured.example"), "found");
  EXPECT_EQ(find("localhost:5000"), "found");
  EXPECT_EQ(find("10.0.0.1"), "found");
  EXPECT_EQ(find("[2001:db8::1]:5000"), "found");
  EXPECT_EQ(find("there.example:5000"), "found");
  EXPECT_EQ(find("docker.io"), "found");
  EXPECT_EQ(find("absent.example"), "not-found");
  EXPECT_EQ(find("unknown.example"), "unavailable");
}

std::string Endpoint(const char* registry, const RegistryOptions& options = {}) {
  const auto url = EndpointOf(*store::Registry::Parse(registry), options);
  return url ? url->ToString() : std::string(store::ErrorCodeName(url.error().code));
}

TEST(EndpointTest, Schemes) {
  EXPECT_EQ(Endpoint("ghcr.io"), "https://ghcr.io/");
  EXPECT_EQ(Endpoint("docker.io"), "https://registry-1.docker.io/");
  EXPECT_EQ(Endpoint("localhost:5000"), "http://localhost:5000/");
  EXPECT_EQ(Endpoint("[::1]:5000"), "http://[::1]:5000/");
  EXPECT_EQ(Endpoint("localhost"), "https://localhost/");
  EXPECT_EQ(Endpoint("localhost:443"), "https://localhost:443/");
  EXPECT_EQ(Endpoint("localhost:5000", {.scheme = Scheme::kHttps}), "https://localhost:5000/");
  EXPECT_EQ(Endpoint("r.example", {.scheme = Scheme::kHttp}), "http://r.example/");
  EXPECT_EQ(Endpoint("r.example", {.endpoint = "127.0.0.1:5000"}), "http://127.0.0.1:5000/");
  EXPECT_EQ(Endpoint("r.example", {.endpoint = "https://mirror.example/proxy/"}),
            "https://mirror.example/proxy");
  EXPECT_EQ(Endpoint("r.example", {.endpoint = "https://mirror.example/?x=1"}), "invalid");
  EXPECT_EQ(Endpoint("r.example", {.endpoint = "not a host"}), "invalid");
}

TEST_F(RegistrySourceTest, EndpointTakesTheRequestsOfARegistry) {
  const auto artifact = other_.AddArtifact("team/app", "1.0", {});
  UseSource(std::nullopt, {{"r.example", {.endpoint = other_.url()}}});
  const auto reference = *store::Reference::Parse("r.example/team/app:1.0");
  EXPECT_EQ((*source_->FetchManifest(reference, {}, context_))->bytes, artifact.manifest);
}

TEST_F(RegistrySourceTest, TlsWithAnAuthorityOfItsOwn) {
  FakeRegistry secure(FakeRegistry::Transport::kTls);
  secure.RequireBearer({.realm = secure.url() + "/token"});
  const auto artifact = secure.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  const testing::TempDir dir;
  UseSource(std::nullopt, {{secure.host(),
                            {.scheme = Scheme::kHttps,
                             .tls = {.ca_files = {dir.Write("ca.pem", secure.authority_pem())}}}}});
  const auto manifest = source_->FetchManifest(secure.reference("team/app", "1.0"), {}, context_);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ((*manifest)->bytes, artifact.manifest);
}

TEST_F(RegistrySourceTest, NeverFallsBackFromTlsToHttp) {
  UseSource(std::nullopt, {{registry_.host(), {.scheme = Scheme::kHttps}}});
  registry_.AddArtifact("team/app", "1.0", {});
  EXPECT_EQ(ManifestError(), ErrorCode::kDenied);
  EXPECT_TRUE(registry_.requests().empty());
}

TEST_F(RegistrySourceTest, RepositoriesAreNotListed) {
  EXPECT_EQ(source_->ListRepositories(registry_.registry(), context_).error().code,
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace ocifs::fetch
