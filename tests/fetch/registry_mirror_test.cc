// Mirrors before registries: what each kind of failure leads to, and what is told of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/text.h"
#include "tests/fetch/source_fixture.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using testing::FakeRegistry;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MirrorOptions;
using ::testing::Not;
using ::testing::SizeIs;

// `other_` is a mirror of `registry_`.
class MirrorTest : public SourceFixture {
 protected:
  void SetUp() override { UseMirror(std::nullopt); }
  void UseMirror(std::optional<Credential> credential) {
    UseSource(std::move(credential), {{registry_.host(), {.mirrors = {other_.url()}}}});
  }
  // Reads manifest and layer.
  bool Works() {
    const auto manifest = Manifest("1.0");
    if (!manifest || (*manifest)->bytes != artifact_.manifest) return false;
    return Blob(artifact_.layers[0]).value_or("") == std::string(5000, 'x');
  }

  const testing::FakeArtifact artifact_ =
      registry_.AddArtifact("team/app", "1.0", {{.bytes = std::string(5000, 'x')}});
};

TEST_F(MirrorTest, AFaithfulMirrorIsAllThatIsAsked) {
  other_.MirrorOf(registry_, {.namespace_required = true});
  EXPECT_TRUE(Works());
  EXPECT_THAT(registry_.requests(), IsEmpty());
  EXPECT_THAT(other_.namespaces(), ::testing::Each(registry_.host()));
}

TEST_F(MirrorTest, AMirrorThatLacksItFailsOrIsAwayIsNotTheEnd) {
  const LogCapture log;
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kEmpty});
  EXPECT_TRUE(Works());
  EXPECT_THAT(log.text(), HasSubstr("mirror " + other_.host()));
  EXPECT_THAT(log.text(), HasSubstr("404"));
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kBroken});
  EXPECT_TRUE(Works());
  EXPECT_THAT(log.text(), HasSubstr("500"));
  EXPECT_THAT(timer_->waits(), IsEmpty()) << "there is no waiting for a mirror";
}

TEST_F(MirrorTest, AMirrorThatIsDownIsAskedSeldom) {
  const LogCapture log;
  auto down = std::make_unique<FakeRegistry>();
  const std::string url = down->url();
  down.reset();
  UseSource(std::nullopt, {{registry_.host(), {.mirrors = {url}}}});
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Works());
  EXPECT_THAT(log.text(), HasSubstr("asking " + registry_.host() + " instead"));
  EXPECT_LT(log.text().size(), 1000U) << "told once, not for each request";
}

TEST_F(MirrorTest, WrongBytesOfAManifestAreSeenHere) {
  const LogCapture log;
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kWrongBytes});
  const auto manifest = source_->FetchManifest(
      registry_.reference("team/app", artifact_.digest.ToString()), std::nullopt, context_);
  ASSERT_TRUE(manifest);
  EXPECT_EQ((*manifest)->bytes, artifact_.manifest);
  EXPECT_THAT(log.text(), HasSubstr("nothing of it was kept"));
}

TEST_F(MirrorTest, AMirrorWhoseBytesWereWrongIsNotAskedForThatBlobAgain) {
  const LogCapture log;
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kWrongBytes});
  const auto& layer = artifact_.layers[0];
  const auto wrong = Blob(layer);
  ASSERT_TRUE(wrong);
  EXPECT_NE(*wrong, std::string(5000, 'x')) << "digests are for the reader to check";
  EXPECT_TRUE(source_->RejectBlob(registry_.repository("team/app"), layer));
  EXPECT_THAT(log.text(), HasSubstr("wrong bytes from " + other_.host()));
  other_.ForgetRequests();
  EXPECT_EQ(Blob(layer).value_or(""), std::string(5000, 'x'));
  EXPECT_THAT(other_.requests(), IsEmpty());
  EXPECT_FALSE(source_->RejectBlob(registry_.repository("team/app"), layer))
      << "no server is left to turn to";
  timer_->Advance(RegistrySource::kRejectedFor);
  EXPECT_TRUE(Blob(layer));
  EXPECT_THAT(other_.requests(), SizeIs(1)) << "a mirror gets another chance";
}

TEST_F(MirrorTest, AnOriginThatIsWrongTooEndsTheSearch) {
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kWrongBytes});
  const auto& layer = artifact_.layers[0];
  const store::Repository repository = registry_.repository("team/app");
  ASSERT_TRUE(Blob(layer));
  EXPECT_TRUE(source_->RejectBlob(repository, layer));
  registry_.Inject({.path = "/blobs/", .wire = {.stated_length = 4999}});
  EXPECT_EQ(BlobError(layer), ErrorCode::kCorrupt) << "before its first byte";
  EXPECT_FALSE(source_->HasAnotherServer(repository, layer));
  EXPECT_FALSE(source_->RejectBlob(repository, layer));
}

TEST_F(MirrorTest, APartFromALiarAndAPartFromTheRegistryAreFetchedAgainFromTheRegistry) {
  const std::string bytes(3 << 20, 'y');
  const auto blob = registry_.AddBlob("team/app", bytes);
  other_.MirrorOf(registry_);
  other_.Inject({.path = "/blobs/", .times = 1, .flip_at = 5, .wire = {.truncate_at = 1 << 20}});
  other_.Inject({.path = "/blobs/", .status = 500});
  const auto mixed = Blob(blob);
  ASSERT_TRUE(mixed);
  EXPECT_NE(*mixed, bytes);
  EXPECT_TRUE(source_->RejectBlob(registry_.repository("team/app"), blob));
  EXPECT_EQ(Blob(blob).value_or(""), bytes);
}

TEST_F(MirrorTest, NobodyWaitsForAMirrorThatAsksForIt) {
  other_.MirrorOf(registry_);
  other_.Inject({.status = 429, .headers = {{"Retry-After", "15"}}});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Works());
  EXPECT_THAT(timer_->waits(), IsEmpty());
  EXPECT_THAT(other_.requests(), SizeIs(1));
}

TEST_F(MirrorTest, ABreakHalfWayIsGoneOnFromTheRegistry) {
  const std::string bytes(3 << 20, 'y');
  const auto blob = registry_.AddBlob("team/app", bytes);
  other_.MirrorOf(registry_);
  other_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = 1 << 20}});
  other_.Inject({.path = "/blobs/", .status = 500});
  EXPECT_EQ(Blob(blob).value_or(""), bytes);
  ASSERT_THAT(registry_.ranges(), SizeIs(1));
  EXPECT_THAT(registry_.ranges()[0], HasSubstr("bytes=1048576-"));
}

TEST_F(MirrorTest, TheRegistryHasTheLastWord) {
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kBroken});
  EXPECT_EQ(ManifestError("2.0"), ErrorCode::kNotFound);
  registry_.Inject({.status = 403});
  EXPECT_EQ(ManifestError("1.0"), ErrorCode::kDenied);
}

TEST_F(MirrorTest, LoginsAreForTheServerTheyAreOf) {
  class OriginOnly final : public CredentialSource {
   public:
    explicit OriginOnly(std::string host) : host_(std::move(host)) {}
    store::Result<std::optional<Credential>> Lookup(const store::Repository& repository, Freshness,
                                                    const std::stop_token&) override {
      if (repository.registry().name() == host_) return Login("user", "origin-secret");
      return std::nullopt;
    }

   private:
    const std::string host_;
  };
  registry_.RequireBasic("user", "origin-secret");
  other_.MirrorOf(registry_);
  other_.RequireBasic("user", "mirror-secret");
  UseCredentials(std::make_unique<OriginOnly>(registry_.host()),
                 {{registry_.host(), {.mirrors = {other_.url()}}}});
  EXPECT_TRUE(Works());
  EXPECT_THAT(other_.authorization_sightings(), IsEmpty());
}

TEST_F(MirrorTest, TagsComeFromOneServerFromTheFirstPageToTheLast) {
  registry_.AddTags("team/app", {"a", "b", "c", "d"}, artifact_.digest);
  other_.MirrorOf(registry_);
  other_.SetPaging({.page_size = 2});
  auto page = source_->ListTags(registry_.repository("team/app"), "", context_);
  ASSERT_TRUE(page);
  EXPECT_THAT(page->tags, SizeIs(2));
  page = source_->ListTags(registry_.repository("team/app"), page->next, context_);
  ASSERT_TRUE(page);
  EXPECT_THAT(registry_.requests(), IsEmpty());
}

// --- Insecure servers: HTTPS with any certificate, else HTTP -------------------------------------

class InsecureTest : public SourceFixture {
 protected:
  void UseInsecure(const FakeRegistry& registry) {
    UseSource(Login("user", "secret"), {{registry.host(), {.tls = {.verify = false}}}});
  }
};

TEST_F(InsecureTest, HttpIsNotTriedOnceHttpsHasAnswered) {
  FakeRegistry secure(FakeRegistry::Transport::kTls);
  UseInsecure(secure);
  secure.AddArtifact("team/app", "1.0", {});
  const auto absent =
      source_->FetchManifest(secure.reference("team/app", "2.0"), std::nullopt, context_);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(source_->FetchManifest(secure.reference("team/app", "1.0"), std::nullopt, context_));
  secure.Inject({.times = 1, .status = 503});
  EXPECT_TRUE(source_->FetchManifest(secure.reference("team/app", "1.0"), std::nullopt, context_))
      << "what passes is tried again";
}

TEST_F(InsecureTest, HttpIsRememberedWhereItIsAllThereIs) {
  UseInsecure(registry_);
  registry_.AddArtifact("team/app", "1.0", {});
  EXPECT_TRUE(Manifest("1.0"));
  const size_t connections = registry_.connections_accepted();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Manifest("1.0"));
  EXPECT_LE(registry_.connections_accepted(), connections + 1) << "TLS is not tried each time";
}

TEST_F(InsecureTest, ALoginIsCheckedByHttpsFirst) {
  FakeRegistry secure(FakeRegistry::Transport::kTls);
  secure.RequireBasic("user", "secret");
  UseInsecure(secure);
  EXPECT_TRUE(source_->CheckLogin(secure.registry(), Login("user", "secret"), context_));
  const auto wrong = source_->CheckLogin(secure.registry(), Login("user", "wrong"), context_);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::kUnauthenticated);
  EXPECT_THAT(wrong.error().message, Not(HasSubstr("http://")));
  UseInsecure(registry_);
  registry_.RequireBasic("user", "secret");
  EXPECT_TRUE(source_->CheckLogin(registry_.registry(), Login("user", "secret"), context_));
}

}  // namespace
}  // namespace ocifs::fetch
