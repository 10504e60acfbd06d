// How a blob arrives over connections that break, servers that lie about ranges, and long ways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "store/digest.h"
#include "store/text.h"
#include "tests/fetch/source_fixture.h"
#include "tests/harness/blob_storage.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::AllOf;
using testing::BlobStorage;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::Fault;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kNever;
using testing::RangeBehaviour;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

std::string Bytes(size_t size) {
  std::string bytes(size, '\0');
  uint32_t state = 1;
  for (char& c : bytes) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return bytes;
}

constexpr size_t kMiB = size_t{1} << 20;

class ResumeTest : public SourceFixture {
 protected:
  store::Descriptor Add(size_t size) {
    bytes_ = Bytes(size);
    return registry_.AddBlob("team/app", bytes_);
  }
  std::string bytes_;
};

TEST_F(ResumeTest, ABrokenBodyGoesOnWhereItBroke) {
  const auto blob = Add(3 * kMiB);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  const std::string path = "/v2/team/app/blobs/" + blob.digest.ToString();
  EXPECT_THAT(registry_.ranges(), ElementsAre(path + " bytes=1048576-3145727"));
  EXPECT_EQ(registry_.body_bytes_sent(), 3 * kMiB) << "no byte twice";
  EXPECT_EQ(registry_.requests().back().Header("if-range"), "\"" + blob.digest.ToString() + "\"");
  EXPECT_THAT(timer_->waits(), IsEmpty()) << "a server that gave a megabyte need not be waited for";
}

TEST_F(ResumeTest, ABodyThatBreaksEveryMegabyteArrives) {
  const auto blob = Add(20 * kMiB);
  registry_.Inject({.path = "/blobs/", .wire = {.cut_every = kMiB}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_EQ(registry_.body_bytes_sent(), 20 * kMiB);
}

TEST_F(ResumeTest, ResetsAreBreaksToo) {
  const auto blob = Add(4 * kMiB);
  registry_.Inject({.path = "/blobs/", .wire = {.cut_every = kMiB, .reset = true}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_LE(registry_.body_bytes_sent(), 4 * kMiB * 11 / 10);
}

TEST_F(ResumeTest, CrumbsAreNotResumedForEver) {
  const auto blob = Add(kMiB);
  registry_.Inject({.path = "/blobs/", .wire = {.cut_every = 10}});
  EXPECT_EQ(BlobError(blob), ErrorCode::kRemote);
  EXPECT_THAT(registry_.requests(), SizeIs(kTransientTries));
}

TEST_F(ResumeTest, FailuresAreAnsweredWithGrowingWaits) {
  const auto blob = Add(100);
  registry_.Inject({.path = "/blobs/", .times = 4, .status = 503});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  const auto waits = timer_->waits();
  ASSERT_THAT(waits, SizeIs(4));
  for (size_t i = 0; i < waits.size(); ++i) {
    const auto longest = std::chrono::milliseconds(200) * (1 << i);
    EXPECT_GE(waits[i], longest / 2) << i;
    EXPECT_LE(waits[i], longest) << i;
  }
}

TEST_F(ResumeTest, ThirtyInAHundredFailuresAreLivedWith) {
  registry_.Inject({.path = "/blobs/", .status = 503, .chance_percent = 30, .seed = 7});
  constexpr size_t kBlobs = 100;
  size_t failed = 0;
  for (size_t i = 0; i < kBlobs; ++i) {
    const auto blob = registry_.AddBlob("team/app", "blob " + std::to_string(i));
    if (!Blob(blob)) ++failed;
  }
  EXPECT_LE(failed, 2U);
  EXPECT_LE(registry_.requests().size(), 3 * kBlobs);
}

TEST_F(ResumeTest, ServersThatIgnoreRangesAreReadPast) {
  const auto blob = Add(2 * kMiB);
  registry_.SetRanges(RangeBehaviour::kIgnored);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
}

TEST_F(ResumeTest, ServersThatGetRangesWrongAreAskedForAllOfIt) {
  for (const RangeBehaviour behaviour :
       {RangeBehaviour::kRefused, RangeBehaviour::kMislabelled, RangeBehaviour::kOtherRange,
        RangeBehaviour::kOtherTotal, RangeBehaviour::kUnlabelled, RangeBehaviour::kMultipart}) {
    SCOPED_TRACE(static_cast<int>(behaviour));
    UseSource(std::nullopt);
    registry_.ForgetRequests();
    const auto blob = Add(2 * kMiB);
    registry_.SetRanges(behaviour);
    registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
    EXPECT_EQ(Blob(blob).value_or(""), bytes_);
    ASSERT_THAT(registry_.requests(), SizeIs(3));
    EXPECT_EQ(registry_.requests()[2].Header("range"), "");
  }
}

TEST_F(ResumeTest, ShorterRangesThanAskedForAreGoneOnFrom) {
  const auto blob = Add(4 * kMiB);
  registry_.SetRanges(RangeBehaviour::kShorter);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
}

TEST_F(ResumeTest, TokensThatExpireOnTheWayAreRenewed) {
  registry_.RequireBearer({});
  const auto blob = Add(4 * kMiB);
  registry_.Inject({.path = "/blobs/", .wire = {.cut_every = kMiB}});
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  std::string text;
  while (true) {
    const auto piece = (*stream)->Next();
    ASSERT_TRUE(piece) << piece.error().message;
    if (piece->empty()) break;
    text.append(reinterpret_cast<const char*>(piece->data()), piece->size());
    registry_.RevokeTokens();
  }
  EXPECT_EQ(text, bytes_);
  EXPECT_GE(registry_.tokens_issued(), 3U);
}

TEST_F(ResumeTest, RedirectsAreSignedAnew) {
  BlobStorage storage({.uses_per_url = 1});
  registry_.RedirectBlobsTo(&storage);
  registry_.RequireBearer({});
  const auto blob = Add(3 * kMiB);
  storage.Inject({.times = 1, .wire = {.truncate_at = kMiB}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(storage.violations(), IsEmpty());
  EXPECT_THAT(storage.authorization_sightings(), IsEmpty());
  EXPECT_EQ(storage.urls_signed(), 2U);
}

TEST_F(ResumeTest, AUrlThatExpiredOnTheWayIsAskedForAgainOnce) {
  BlobStorage storage;
  registry_.RedirectBlobsTo(&storage);
  const auto blob = Add(100);
  storage.Inject({.times = 1, .status = 403});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_EQ(storage.urls_signed(), 2U);
  storage.ClearFaults();
  storage.Inject({.status = 403});
  EXPECT_EQ(BlobError(blob), ErrorCode::kRemote) << "not about our login";
  EXPECT_EQ(storage.urls_signed(), 4U);
}

TEST_F(ResumeTest, LengthsThatAreNotTheDescriptorsAreLookedAtTwice) {
  for (const uint64_t stated : {uint64_t{99}, uint64_t{101}}) {
    UseSource(std::nullopt);
    const auto blob = Add(100);
    registry_.ForgetRequests();
    registry_.ClearFaults();
    registry_.Inject({.path = "/blobs/", .wire = {.stated_length = stated}});
    EXPECT_EQ(BlobError(blob), ErrorCode::kCorrupt) << stated;
    EXPECT_THAT(registry_.requests(), SizeIs(2)) << stated;
  }
}

TEST_F(ResumeTest, ABlobThatItsManifestNamesIsNeverNotFound) {
  const auto blob = Add(100);
  registry_.RemoveBlob(blob.digest);
  EXPECT_EQ(BlobError(blob), ErrorCode::kRemote);
  EXPECT_THAT(registry_.requests(), SizeIs(1)) << "asking again would not help";
}

TEST_F(ResumeTest, AnEmptyBlobCostsNothing) {
  const auto blob = registry_.AddBlob("team/app", "");
  EXPECT_EQ(Blob(blob).value_or("failed"), "");
  EXPECT_THAT(registry_.requests(), IsEmpty());
}

TEST_F(ResumeTest, PatienceIsForThoseWhoWait) {
  const auto blob = Add(100);
  registry_.Inject({.path = "/blobs/", .times = 1, .status = 503});
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  timer_->Advance(std::chrono::minutes(5));  // other layers came first
  const auto bytes = (*stream)->Next();
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_EQ(bytes->size(), 100U);
}

TEST_F(ResumeTest, ABreakBehindTheLastByteLosesNothing) {
  const auto blob = Add(1000);
  registry_.Inject(
      {.path = "/blobs/",
       .wire = {.framing = testing::ServerResponse::Framing::kChunked, .truncate_at = 1000}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(ResumeTest, AStorageThatIsAwayIsNotTheRegistrysFault) {
  auto storage = std::make_unique<BlobStorage>();
  registry_.RedirectBlobsTo(storage.get());
  const auto blob = Add(100);
  registry_.AddArtifact("team/app", "1.0", {});
  const std::string url = storage->url();
  storage.reset();
  registry_.RedirectBlobsTo(nullptr);
  registry_.Inject({.path = "/blobs/", .redirect = url + "/gone"});
  EXPECT_EQ(BlobError(blob), ErrorCode::kUnavailable);
  EXPECT_TRUE(Manifest("1.0"));
}

// --- Far servers ---------------------------------------------------------------------------------

// Every server counts as far: what is seen is how ranges are cut, joined and mended.
class FarTest : public ResumeTest {
 protected:
  void SetUp() override { UseFarSource(std::nullopt); }
  void UseFarSource(std::optional<Credential> credential) {
    RegistrySourceOptions options;
    options.blobs = {.far = std::chrono::microseconds(0), .range_bytes = kMiB, .max_ranges = 4};
    UseSource(std::move(credential), {}, std::move(options));
    // The way to a server is known once a connection was made.
    registry_.AddArtifact("team/app", "1.0", {});
    ASSERT_TRUE(Manifest("1.0"));
    registry_.ForgetRequests();
  }
};

TEST_F(FarTest, LargeBlobsComeInRangesSeveralAtATime) {
  const auto blob = Add(10 * kMiB + 5);
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(registry_.ranges(), SizeIs(12));
  // And the manifest, now and when the source was made.
  const size_t manifest = (*Manifest("1.0"))->bytes.size();
  EXPECT_EQ(registry_.body_bytes_sent(), 10 * kMiB + 5 + manifest * 2);
}

TEST_F(FarTest, RangesFillTheirRoundsEvenly) {
  // Ranges of 1 MiB would leave the last one to come alone.
  const auto blob = Add(5 * kMiB);
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  const std::string path = "/v2/team/app/blobs/" + blob.digest.ToString();
  EXPECT_THAT(
      registry_.ranges(),
      UnorderedElementsAre(path + " bytes=0-655359", path + " bytes=655360-1310719",
                           path + " bytes=1310720-1966079", path + " bytes=1966080-2621439",
                           path + " bytes=2621440-3276799", path + " bytes=3276800-3932159",
                           path + " bytes=3932160-4587519", path + " bytes=4587520-5242879"));
}

TEST_F(FarTest, EvenRangesAreNoCrumbs) {
  RegistrySourceOptions options;
  options.blobs = {.far = std::chrono::microseconds(0), .range_bytes = kMiB, .max_ranges = 8};
  UseSource(std::nullopt, {}, std::move(options));
  registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  const auto blob = Add(2 * kMiB);
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(registry_.ranges(), SizeIs(4)) << "halves of range_bytes";
}

TEST_F(FarTest, SmallBlobsComeWhole) {
  const auto blob = Add(kMiB);
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(registry_.ranges(), IsEmpty());
}

TEST_F(FarTest, RangesThatBreakAreMended) {
  const auto blob = Add(8 * kMiB);
  registry_.Inject({.path = "/blobs/", .wire = {.truncate_at = 700'000}});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
}

TEST_F(FarTest, AServerWithoutRangesIsReadAsOne) {
  registry_.SetRanges(RangeBehaviour::kIgnored);
  const auto blob = Add(8 * kMiB);
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(FarTest, StorageIsAskedDirectlyUntilItsUrlExpires) {
  BlobStorage storage({.uses_per_url = 3});
  registry_.RedirectBlobsTo(&storage);
  registry_.RequireBearer({});
  const auto blob = Add(8 * kMiB);
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  EXPECT_THAT(storage.violations(), IsEmpty());
  EXPECT_THAT(storage.authorization_sightings(), IsEmpty());
  EXPECT_GE(storage.urls_signed(), 3U);
  EXPECT_LT(storage.urls_signed(), 8U);
}

TEST_F(FarTest, ReadersThatLeaveGiveBackTheirRanges) {
  const auto blob = Add(16 * kMiB);
  for (int i = 0; i < 2 * RegistryHost::kMaxExtraRanges; ++i) {
    auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
    ASSERT_TRUE(stream);
    ASSERT_TRUE((*stream)->Next());
  }
  registry_.ForgetRequests();
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
  // Requests of the readers that left may still come in.
  EXPECT_THAT(registry_.ranges(), SizeIs(::testing::Ge(16U)));
}

TEST_F(FarTest, AMirrorThatRefusesItsOwnRangesIsLeftWithThem) {
  testing::FakeRegistry mirror;
  mirror.MirrorOf(registry_);
  RegistrySourceOptions options;
  options.blobs = {.far = std::chrono::microseconds(0), .range_bytes = kMiB, .max_ranges = 4};
  UseSource(std::nullopt, {{registry_.host(), {.mirrors = {mirror.url()}}}}, std::move(options));
  registry_.AddArtifact("team/app", "1.0", {});
  ASSERT_TRUE(Manifest("1.0"));
  const auto blob = Add(8 * kMiB);
  mirror.Inject({.path = "/blobs/", .status = 403, .skip = 1});
  EXPECT_EQ(Blob(blob).value_or(""), bytes_);
}

TEST_F(FarTest, AStorageThatDiesOnTheWayIsReplacedByWhatTheRegistryNames) {
  auto first = std::make_unique<BlobStorage>();
  BlobStorage second;
  registry_.RedirectBlobsTo(first.get());
  const auto blob = Add(8 * kMiB);
  auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
  ASSERT_TRUE(stream);
  std::string text;
  while (true) {
    const auto piece = (*stream)->Next();
    ASSERT_TRUE(piece) << piece.error().message;
    if (piece->empty()) break;
    text.append(reinterpret_cast<const char*>(piece->data()), piece->size());
    if (text.size() > kMiB && first) {
      registry_.RedirectBlobsTo(&second);
      first.reset();
    }
  }
  EXPECT_EQ(text, bytes_);
}

}  // namespace
}  // namespace ocifs::fetch
