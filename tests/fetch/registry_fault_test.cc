// Registries that fail, and what stands behind them: rows R01 to R14 of tests/ATTACKS.md that no
// other test covers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>

#include "tests/fetch/attack_fixture.h"
#include "tests/harness/blob_storage.h"

namespace ocifs::fetch {
namespace {

using std::chrono::seconds;
using store::ErrorCode;
using testing::BlobStorage;
using testing::FakeRegistry;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MirrorOptions;
using testing::RangeBehaviour;
using ::testing::SizeIs;
using Framing = testing::ServerResponse::Framing;

class RegistryFaultTest : public AttackFixture {
 protected:
  void SetUp() override { UseSource(TheLogin()); }
  void WantTokens() {
    registry_.RequireBearer({.login_required = true});
    registry_.SetTokenServer({.username = std::string(kUser), .password = std::string(kPassword)});
  }
};

// --- Logins --------------------------------------------------------------------------------------

TEST_F(RegistryFaultTest, R01ATokenThatExpiresUnderALayerIsRenewedOnce) {
  WantTokens();
  const std::string bytes = Bytes(4 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  const auto first = (*stream)->Next();
  ASSERT_TRUE(first);
  std::string text(reinterpret_cast<const char*>(first->data()), first->size());
  registry_.RevokeTokens();
  const BlobRead rest = ReadToEnd(**stream, bytes.size());
  EXPECT_FALSE(rest.failure);
  EXPECT_TRUE(text + rest.bytes == bytes);
  EXPECT_EQ(registry_.tokens_issued(), 2U);
  EXPECT_EQ(registry_.CountRequests("/blobs/"), 4U) << "refused twice, answered twice";
}

TEST_F(RegistryFaultTest, R02ARefusedLoginIsOfferedTwiceAMinute) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer({.username = std::string(kUser), .password = "another"});
  for (int second = 0; second < 60; ++second) {
    EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
    EXPECT_EQ(TagsError(), ErrorCode::kUnauthenticated);
    EXPECT_EQ(Read(artifact.layers[0]).code(), ErrorCode::kUnauthenticated);
    timer_->Advance(seconds(1));
  }
  EXPECT_LE(registry_.CountRequests("/token"), 2U);
}

TEST_F(RegistryFaultTest, R02ARefusedPasswordIsOfferedTwiceAMinute) {
  registry_.RequireBasic(std::string(kUser), "another");
  for (int second = 0; second < 60; ++second) {
    EXPECT_EQ(ManifestError(), ErrorCode::kUnauthenticated);
    timer_->Advance(seconds(1));
  }
  EXPECT_LE(registry_.authorization_sightings().size(), 2U);
}

TEST_F(RegistryFaultTest, R02ADeniedRepositoryIsNoReasonToAskForTokens) {
  WantTokens();
  registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  registry_.Inject({.status = 403});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ManifestError(), ErrorCode::kDenied);
  EXPECT_LE(registry_.CountRequests("/token"), 2U);
}

// --- Absence -------------------------------------------------------------------------------------

TEST_F(RegistryFaultTest, R03OnlyARegistrysOwn404MeansAbsent) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  EXPECT_EQ(ManifestError("absent"), ErrorCode::kNotFound);
  EXPECT_THAT(timer_->waits(), IsEmpty());
  // One hop behind the registry it is not about the name.
  registry_.Inject({.redirect = other_.url() + "/gone"});
  other_.Inject({.status = 404, .body = R"({"errors":[{"code":"MANIFEST_UNKNOWN"}]})"});
  EXPECT_EQ(ManifestError("absent"), ErrorCode::kRemote);
  EXPECT_EQ(TagsError(), ErrorCode::kRemote);
  EXPECT_EQ(Read(artifact.layers[0]).code(), ErrorCode::kRemote);
}

// --- Too much to do ------------------------------------------------------------------------------

TEST_F(RegistryFaultTest, R04AShortRetryAfterIsWaitedFor) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  for (const int status : {429, 503}) {
    UseSource(TheLogin());
    registry_.ClearFaults();
    registry_.Inject({.times = 1, .status = status, .headers = {{"Retry-After", "3"}}});
    const auto before = timer_->Now();
    EXPECT_TRUE(Manifest("1.0"));
    const auto waited = timer_->Now() - before;
    EXPECT_GE(waited, seconds(3));
    EXPECT_LT(waited, seconds(4));
    registry_.Inject({.times = 1, .status = status, .headers = {{"Retry-After", "3"}}});
    EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
    EXPECT_GE(timer_->Now() - before, seconds(6));
  }
}

TEST_F(RegistryFaultTest, R04ALongRetryAfterIsObeyedAndConcernsThatServerAlone) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  other_.AddArtifact("team/app", "1.0", {});
  registry_.Inject({.times = 1, .status = 429, .headers = {{"Retry-After", "86400"}}});
  EXPECT_EQ(ManifestError(), ErrorCode::kRateLimited);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ManifestError(), ErrorCode::kRateLimited);
    EXPECT_EQ(TagsError(), ErrorCode::kRateLimited);
    EXPECT_EQ(Read(artifact.layers[0]).code(), ErrorCode::kRateLimited);
  }
  EXPECT_THAT(registry_.requests(), SizeIs(1));
  EXPECT_TRUE(source_->FetchManifest(other_.reference("team/app", "1.0"), {}, context_));
  timer_->Advance(seconds(86'401));
  EXPECT_TRUE(Manifest("1.0"));
}

TEST_F(RegistryFaultTest, R04RetryAfterOfAStorageSilencesNoRegistry) {
  BlobStorage storage;
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RedirectBlobsTo(&storage);
  for (const int status : {429, 503}) {
    storage.ClearFaults();
    storage.Inject({.status = status, .headers = {{"Retry-After", "86400"}}});
    EXPECT_TRUE(Read(artifact.layers[0]).failure);
    const auto manifest = Manifest("1.0");
    EXPECT_TRUE(manifest) << manifest.error().message;
  }
  storage.ClearFaults();
  EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  EXPECT_THAT(storage.authorization_sightings(), IsEmpty());
}

TEST_F(RegistryFaultTest, R04AStorageThatIsDownSilencesNoRegistry) {
  auto storage = std::make_unique<BlobStorage>();
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RedirectBlobsTo(storage.get());
  ASSERT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  const std::string gone = storage->url() + "/x";
  registry_.RedirectBlobsTo(nullptr);
  storage.reset();
  registry_.Inject({.path = "/blobs/", .redirect = gone});
  for (int i = 0; i < HostHealth::kMaxSilent + 1; ++i) {
    EXPECT_EQ(Read(artifact.layers[0]).code(), ErrorCode::kUnavailable);
    const auto manifest = Manifest("1.0");
    EXPECT_TRUE(manifest) << manifest.error().message;
  }
}

TEST_F(RegistryFaultTest, R04ADirectStorageThatIsDownSilencesNoRegistry) {
  RegistrySourceOptions options;
  options.blobs = {.far = std::chrono::microseconds(0), .range_bytes = kMiB, .max_ranges = 2};
  UseSource(TheLogin(), {}, std::move(options));
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  auto storage = std::make_unique<BlobStorage>();
  const std::string bytes = Bytes(32 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  registry_.RedirectBlobsTo(storage.get());
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  const auto first = (*stream)->Next();
  ASSERT_TRUE(first);
  std::string text(reinterpret_cast<const char*>(first->data()), first->size());
  // The registry gets itself another one in the meantime.
  BlobStorage better;
  registry_.RedirectBlobsTo(&better);
  storage.reset();
  const BlobRead rest = ReadToEnd(**stream, bytes.size());
  EXPECT_FALSE(rest.failure) << rest.failure->message;
  EXPECT_TRUE(text + rest.bytes == bytes);
  EXPECT_TRUE(Manifest("1.0"));
  EXPECT_THAT(better.violations(), IsEmpty());
}

TEST_F(RegistryFaultTest, R05ThirtyInAHundredErrorsAreLivedWithAtLessThanThreeTimesTheRequests) {
  WantTokens();
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  for (const int status : {500, 502, 503, 504}) {
    registry_.Inject(
        {.path = "/v2/", .status = status, .chance_percent = 9, .seed = uint64_t(status)});
  }
  size_t failed = 0;
  for (int i = 0; i < 100; ++i) {
    if (!Manifest("1.0")) ++failed;
    if (Read(artifact.layers[0]).failure) ++failed;
  }
  EXPECT_LE(failed, 4U);
  EXPECT_LE(registry_.requests().size(), 3U * 200);
}

// --- Wrong parts ---------------------------------------------------------------------------------

TEST_F(RegistryFaultTest, R08AResumedPartThatTellsAnotherSizeIsCorrupt) {
  const std::string bytes = Bytes(2 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  registry_.Inject({.path = "/blobs/",
                    .status = 416,
                    .headers = {{"Content-Range", "bytes */1048576"}},
                    .body = ""});
  const BlobRead read = Read(blob);
  EXPECT_EQ(read.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(read.bytes, bytes.substr(0, read.bytes.size()));
}

TEST_F(RegistryFaultTest, R08RangesInCrumbsAreNotFollowed) {
  const std::string bytes = Bytes(2 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  registry_.Inject({.path = "/blobs/",
                    .times = 1,
                    .status = 206,
                    .headers = {{"Content-Range", "bytes 1048576-1048576/2097152"}},
                    .body = bytes.substr(kMiB, 1)});
  EXPECT_TRUE(Read(blob).bytes == bytes);
  EXPECT_THAT(registry_.requests(), SizeIs(3)) << "all of it after the crumb";
}

TEST_F(RegistryFaultTest, R09LengthsThatLieEndInAnErrorWhateverTheFraming) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  struct Case {
    const char* name;
    testing::Fault fault;
    ErrorCode code;
  };
  const Case cases[] = {
      {"short", {.body = Bytes(999)}, ErrorCode::kCorrupt},
      {"long", {.body = Bytes(1001)}, ErrorCode::kCorrupt},
      {"short in chunks",
       {.body = Bytes(999), .wire = {.framing = Framing::kChunked}},
       ErrorCode::kCorrupt},
      {"long in chunks",
       {.body = Bytes(1001), .wire = {.framing = Framing::kChunked}},
       ErrorCode::kCorrupt},
      {"short without a length",
       {.body = Bytes(999), .wire = {.framing = Framing::kUntilClose}},
       ErrorCode::kCorrupt},
      {"long without a length",
       {.body = Bytes(1001), .wire = {.framing = Framing::kUntilClose}},
       ErrorCode::kCorrupt},
      {"none", {.body = ""}, ErrorCode::kCorrupt},
      {"right length, no body", {.wire = {.truncate_at = 0}}, ErrorCode::kRemote},
      {"chunks without an end",
       {.wire = {.framing = Framing::kChunked, .truncate_at = 0}},
       ErrorCode::kRemote},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    UseSource(TheLogin());
    registry_.ClearFaults();
    registry_.ForgetRequests();
    testing::Fault fault = c.fault;
    registry_.Inject(fault);
    const BlobRead read = Read(blob);
    EXPECT_EQ(read.code(), c.code) << (read.failure ? read.failure->message : "no failure");
    EXPECT_EQ(read.bytes, Bytes(1000).substr(0, read.bytes.size()));
    EXPECT_LE(registry_.requests().size(), size_t{kTransientTries});
  }
}

TEST_F(RegistryFaultTest, R09AMissingEndBehindAllBytesLosesNothing) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  registry_.Inject({.wire = {.framing = Framing::kChunked, .truncate_at = 1000}});
  const BlobRead read = Read(blob);
  EXPECT_EQ(read.bytes, Bytes(1000)) << "the digest decides";
  EXPECT_FALSE(read.failure);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(RegistryFaultTest, R10ABlobCollectedUnderItsReaderIsTheRegistrysFault) {
  const std::string bytes = Bytes(2 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  const auto rest = registry_.AddBlob("team/app", "the rest of the package");
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  ASSERT_TRUE((*stream)->Next());
  registry_.RemoveBlob(blob.digest);
  const BlobRead read = ReadToEnd(**stream, 2 * kMiB);
  EXPECT_EQ(read.code(), ErrorCode::kRemote) << "and not that the name does not exist";
  EXPECT_EQ(Read(rest).bytes, "the rest of the package");
}

TEST_F(RegistryFaultTest, R12AStaleMirrorIsLeftForWhatItDoesNotHave) {
  registry_.AddArtifact("team/app", "1.0", {{.bytes = "old"}});
  other_.MirrorOf(registry_, {.behaviour = MirrorOptions::Behaviour::kStale});
  const auto artifact = registry_.AddArtifact("team/app", "2.0", {{.bytes = "new"}});
  UseSource(TheLogin(), {{registry_.host(), {.mirrors = {other_.url()}}}});
  const auto manifest = Manifest(artifact.digest.ToString());
  ASSERT_TRUE(manifest);
  EXPECT_EQ((*manifest)->bytes, artifact.manifest);
  EXPECT_EQ(Read(artifact.layers[0]).bytes, "new");
  EXPECT_GE(other_.requests().size(), 2U) << "it was asked first";
}

TEST_F(RegistryFaultTest, R12AMirrorThatAsksForNoRequestsIsLeftWithoutWaiting) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  other_.MirrorOf(registry_);
  other_.Inject({.status = 429, .headers = {{"Retry-After", "86400"}}});
  UseSource(TheLogin(), {{registry_.host(), {.mirrors = {other_.url()}}}});
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Manifest("1.0"));
    EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  }
  EXPECT_THAT(other_.requests(), SizeIs(1));
  EXPECT_THAT(timer_->waits(), IsEmpty());
}

TEST_F(RegistryFaultTest, R14ContentEncodingsOfABlobAreNotUndone) {
  const auto blob = registry_.AddBlob("team/app", Bytes(2 * kMiB));
  registry_.Inject({.times = 1, .wire = {.truncate_at = kMiB}});
  registry_.Inject({.headers = {{"Content-Encoding", "gzip"}}});
  const BlobRead read = Read(blob);
  EXPECT_EQ(read.code(), ErrorCode::kRemote);
  ASSERT_TRUE(read.failure);
  EXPECT_THAT(read.failure->message, HasSubstr("Content-Encoding"));
  EXPECT_EQ(read.bytes, Bytes(2 * kMiB).substr(0, read.bytes.size()));
  for (const auto& request : registry_.requests()) {
    EXPECT_EQ(request.Header("accept-encoding"), "identity");
  }
  // The coding of the transfer is not part of the bytes.
  registry_.ClearFaults();
  registry_.Inject({.wire = {.framing = Framing::kChunked}});
  EXPECT_TRUE(Read(blob).bytes == Bytes(2 * kMiB));
}

}  // namespace
}  // namespace ocifs::fetch
