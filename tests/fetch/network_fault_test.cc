// Networks that fail between ocifs and its registry: rows N02 to N13 of tests/ATTACKS.md that no
// other test covers. Rows that need packets to vanish are tests/e2e/test_wire.py's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include "tests/fetch/attack_fixture.h"
#include "tests/harness/link_proxy.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using store::ErrorCode;
using testing::CertificateFault;
using testing::FakeRegistry;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LinkOptions;
using testing::LinkProxy;
using ::testing::SizeIs;

// `registry_` is reached through `link_`, whose address is the registry's name.
class NetworkFaultTest : public AttackFixture {
 protected:
  void SetUp() override { UseLink({}); }
  void UseLink(RegistrySourceOptions options) {
    if (options.http.connect_timeout == HttpClientOptions().connect_timeout) {
      options.http.connect_timeout = milliseconds(300);
    }
    options.http.low_speed_time = seconds(1);
    UseSource(TheLogin(), {}, std::move(options));
  }
  std::string host() const { return "127.0.0.1:" + std::to_string(link_.port()); }
  store::Reference Ref(std::string_view name) const {
    return *store::Reference::Parse(host() + "/team/app:" + std::string(name));
  }
  bool Get(std::string_view tag = "1.0") {
    return source_->FetchManifest(Ref(tag), std::nullopt, context_).has_value();
  }
  ErrorCode Error() {
    const auto manifest = source_->FetchManifest(Ref("1.0"), std::nullopt, context_);
    return manifest ? ErrorCode::kInternal : manifest.error().code;
  }
  std::unique_ptr<store::BlobStream> Open(const store::Descriptor& blob) {
    return *source_->OpenBlob(Ref("1.0").repository(), blob, context_);
  }
  milliseconds Waited() const {
    milliseconds sum{0};
    for (const milliseconds wait : timer_->waits()) sum += wait;
    return sum;
  }

  LinkProxy link_{{.port = registry_.port()}};
};

TEST_F(NetworkFaultTest, N02ARefusedConnectionIsTriedTwiceAndForgottenWhenItWorks) {
  registry_.AddArtifact("team/app", "1.0", {});
  std::string gone;
  {
    const FakeRegistry was;
    gone = was.host();
  }
  const auto reference = *store::Reference::Parse(gone + "/team/app:1.0");
  for (int i = 0; i < 5; ++i) {
    const auto manifest = source_->FetchManifest(reference, std::nullopt, context_);
    ASSERT_FALSE(manifest);
    EXPECT_EQ(manifest.error().code, ErrorCode::kUnavailable) << "and never that it does not exist";
  }
  EXPECT_LE(Waited(), seconds(2));
  // Behind a link, a server that refuses is one that resets.
  const LinkProxy to_nobody({.port = static_cast<uint16_t>(Url::Parse("http://" + gone)->port())});
  const auto behind =
      *store::Reference::Parse("127.0.0.1:" + std::to_string(to_nobody.port()) + "/team/app:1.0");
  for (int i = 0; i < 5; ++i) {
    const auto manifest = source_->FetchManifest(behind, std::nullopt, context_);
    ASSERT_FALSE(manifest);
    EXPECT_EQ(manifest.error().code, ErrorCode::kUnavailable);
  }
  EXPECT_EQ(to_nobody.counters().connections, 2U);
}

TEST_F(NetworkFaultTest, N03ABlackholeCostsOneReaderTimeAndIsLeftWithinSeconds) {
  registry_.AddArtifact("team/app", "1.0", {});
  link_.Blackhole();
  EXPECT_EQ(Error(), ErrorCode::kTimedOut);
  const auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Error(), ErrorCode::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(100) * 100);
  EXPECT_THAT(registry_.requests(), IsEmpty());
  // Half open: one reader looks, the others do not wait for it.
  timer_->Advance(HostHealth::kLongestPause);
  link_.Resume();
  EXPECT_TRUE(Get());
  EXPECT_TRUE(Get());
}

TEST_F(NetworkFaultTest, N05ResetsAnywhereAreResumedAndTheBytesAreRight) {
  const std::string bytes = Bytes(24 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  for (const LinkOptions::Cut cut : {LinkOptions::Cut::kReset, LinkOptions::Cut::kFin}) {
    UseLink({});
    std::mt19937 random(7);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same breaks each time
    const auto one = [&] {
      link_.SetOptions({.cut_every = kMiB + random() % (3 * kMiB), .cut = cut});
    };
    one();
    const uint64_t before = registry_.body_bytes_sent();
    auto stream = Open(blob);
    std::string text;
    while (true) {
      const auto piece = stream->Next();
      ASSERT_TRUE(piece) << piece.error().message;
      if (piece->empty()) break;
      text.append(reinterpret_cast<const char*>(piece->data()), piece->size());
      one();
    }
    EXPECT_TRUE(text == bytes);
    // What the server wrote into connections that broke counts, and is up to 4 MiB a break; what
    // the link delivered is what went over the network.
    EXPECT_GE(registry_.body_bytes_sent() - before, bytes.size());
  }
  EXPECT_LE(link_.counters().bytes_to_client, 2 * bytes.size() * 11 / 10);
  EXPECT_GT(link_.counters().connections, 10U);
}

TEST_F(NetworkFaultTest, N06ABodyThatStandsStillGoesOnOverAnotherConnection) {
  const std::string bytes = Bytes(3 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.stall_at = kMiB}});
  const BlobRead read = ReadToEnd(*Open(blob), bytes.size());
  EXPECT_TRUE(read.bytes == bytes);
  EXPECT_FALSE(read.failure);
  EXPECT_THAT(registry_.ranges(), SizeIs(1));
  EXPECT_EQ(registry_.connections_accepted(), 2U);
  EXPECT_THAT(timer_->waits(), IsEmpty());
}

TEST_F(NetworkFaultTest, N06HeadsAndBodiesThatNeverComeTimeOut) {
  RegistrySourceOptions options;
  options.retry.patience = milliseconds(1);  // one attempt
  UseLink(std::move(options));
  registry_.AddArtifact("team/app", "1.0", {});
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  registry_.Inject({.path = "/manifests/", .wire = {.stall_head = true}});
  registry_.Inject({.path = "/blobs/", .wire = {.stall_at = 10}});
  std::thread other([&] { EXPECT_EQ(Error(), ErrorCode::kTimedOut); });
  const BlobRead read = ReadToEnd(*Open(blob), 1000);
  other.join();
  EXPECT_EQ(read.code(), ErrorCode::kTimedOut);
  EXPECT_EQ(read.bytes, Bytes(1000).substr(0, read.bytes.size()));
}

TEST_F(NetworkFaultTest, N07ATrickleIsCutOffAndItsConnectionNotUsedAgain) {
  RegistrySourceOptions options;
  options.retry.patience = milliseconds(1);
  UseLink(std::move(options));
  registry_.AddArtifact("team/app", "1.0", {});
  const auto blob = registry_.AddBlob("team/app", Bytes(100'000));
  // A fifth of the rate below which a transfer is given up.
  registry_.Inject({.path = "/blobs/", .wire = {.bytes_per_second = 100}});
  const BlobRead read = ReadToEnd(*Open(blob), 100'000);
  EXPECT_EQ(read.code(), ErrorCode::kTimedOut);
  EXPECT_EQ(registry_.connections_accepted(), 1U);
  EXPECT_TRUE(Get());
  EXPECT_EQ(registry_.connections_accepted(), 2U);
}

TEST_F(NetworkFaultTest, N08SmallReadsAreQuickBesideABulkPullOnANarrowLink) {
  using Clock = std::chrono::steady_clock;
  const std::string small = Bytes(25'000);  // 200 ms at 1 Mbit/s
  const auto small_blob = registry_.AddBlob("team/app", small);
  const auto bulk_blob = registry_.AddBlob("team/app", Bytes(16 * kMiB));
  link_.SetOptions({.bytes_per_second = 125'000});
  const auto read_small = [&] {
    const auto start = Clock::now();
    EXPECT_EQ(ReadToEnd(*Open(small_blob), small.size()).bytes, small);
    return Clock::now() - start;
  };
  const auto alone = read_small();
  auto bulk = Open(bulk_blob);
  ASSERT_TRUE(bulk->Next());
  const auto beside = read_small();
  EXPECT_LE(beside, 5 * alone);
  ASSERT_TRUE(bulk->Next()) << "the bulk pull has gone on";
}

TEST_F(NetworkFaultTest, N10AServerThatIsGoneForGoodIsNotStormed) {
  const auto blob = registry_.AddBlob("team/app", Bytes(8 * kMiB));
  registry_.AddArtifact("team/app", "1.0", {});
  // The transfer has begun; then every connection is cut before an answer.
  link_.SetOptions({.cut_every = 2 * kMiB});
  auto stream = Open(blob);
  ASSERT_TRUE(stream->Next());
  link_.SetOptions({.cut_every = 1, .cut = LinkOptions::Cut::kReset});
  link_.ResetConnections();
  const auto before = timer_->Now();
  const uint64_t connections = link_.counters().connections;
  const BlobRead read = ReadToEnd(*stream, 8 * kMiB);
  EXPECT_TRUE(read.failure);
  const auto lasted = std::chrono::duration_cast<seconds>(timer_->Now() - before);
  EXPECT_LE(lasted, RetryOptions().patience * 2);
  // One a second on the average, and the few that the first second costs.
  EXPECT_LE(link_.counters().connections - connections,
            static_cast<uint64_t>(lasted.count()) + kTransientTries);
}

TEST_F(NetworkFaultTest, N10ALinkThatComesBackIsUsedAgain) {
  const std::string bytes = Bytes(8 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  for (int flap = 0; flap < 5; ++flap) {
    SCOPED_TRACE(flap);
    auto stream = Open(blob);
    auto piece = stream->Next();
    ASSERT_TRUE(piece);
    std::string text(reinterpret_cast<const char*>(piece->data()), piece->size());
    link_.ResetConnections();
    const BlobRead rest = ReadToEnd(*stream, bytes.size());
    EXPECT_FALSE(rest.failure) << rest.failure->message;
    EXPECT_TRUE(text + rest.bytes == bytes);
  }
}

TEST_F(NetworkFaultTest, N11DeadConnectionsInThePoolCostNobodyAnything) {
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer({.username = std::string(kUser), .password = std::string(kPassword)});
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Get());
    link_.ResetConnections();
    while (link_.counters().open > 0) std::this_thread::yield();
    if (i % 2 == 0) registry_.RevokeTokens();
  }
  EXPECT_THAT(timer_->waits(), IsEmpty()) << "no attempt has failed";
}

TEST_F(NetworkFaultTest, N12APortalInFrontOfEverythingIsNoAnswerAndLeavesNoTrace) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
  registry_.RequireBearer({.login_required = true});
  registry_.SetTokenServer({.username = std::string(kUser), .password = std::string(kPassword)});
  const std::string page = "<html>please log in to the hotel</html>";
  other_.Inject({.status = 200, .headers = {{"Content-Type", "text/html"}}, .body = page});
  const std::vector<testing::Fault> portals = {
      {.status = 200, .headers = {{"Content-Type", "text/html"}}, .body = page},
      {.path = "/v2/", .status = 302, .redirect = other_.url() + "/portal"},
      {.status = 511, .headers = {{"Content-Type", "text/html"}}, .body = page},
      {.path = "/token", .status = 200, .headers = {{"Content-Type", "text/html"}}, .body = page},
  };
  for (const testing::Fault& portal : portals) {
    SCOPED_TRACE(portal.path + " " + std::to_string(portal.status));
    UseSource(TheLogin());
    registry_.RevokeTokens();
    registry_.ClearFaults();
    registry_.Inject(portal);
    EXPECT_EQ(ManifestError("1.0"), ErrorCode::kRemote);
    EXPECT_EQ(ManifestError("absent"), ErrorCode::kRemote) << "a portal knows of no absence";
    EXPECT_EQ(TagsError(), ErrorCode::kRemote);
    const BlobRead read = Read(artifact.layers[0]);
    EXPECT_EQ(read.code(), ErrorCode::kRemote);
    EXPECT_EQ(read.bytes, "");
    registry_.ClearFaults();
    EXPECT_TRUE(Manifest("1.0")) << "it heals at once";
    EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(100));
  }
}

TEST_F(NetworkFaultTest, N13NoLoginGoesToAServerWhoseCertificateIsWrong) {
  for (const CertificateFault fault :
       {CertificateFault::kExpired, CertificateFault::kNotYetValid, CertificateFault::kWrongHost,
        CertificateFault::kSelfSigned, CertificateFault::kNone}) {
    FakeRegistry secure(FakeRegistry::Transport::kTls, fault);
    const auto artifact = secure.AddArtifact("team/app", "1.0", {{.bytes = Bytes(100)}});
    secure.RequireBasic(std::string(kUser), std::string(kPassword));
    const testing::TempDir dir;
    // The one without a fault is signed by an authority that nobody here knows.
    const FakeRegistry stranger(FakeRegistry::Transport::kTls);
    const std::string& authority =
        fault == CertificateFault::kNone ? stranger.authority_pem() : secure.authority_pem();
    UseSource(
        TheLogin(),
        {{secure.host(),
          {.scheme = Scheme::kHttps, .tls = {.ca_files = {dir.Write("ca.pem", authority)}}}}});
    const auto manifest = source_->FetchManifest(secure.reference("team/app", "1.0"), {}, context_);
    ASSERT_FALSE(manifest);
    EXPECT_EQ(manifest.error().code, ErrorCode::kDenied);
    EXPECT_THAT(manifest.error().message, HasSubstr("certificate"));
    auto stream = source_->OpenBlob(secure.repository("team/app"), artifact.layers[0], context_);
    ASSERT_TRUE(stream);
    EXPECT_EQ(ReadToEnd(**stream, 100).code(), ErrorCode::kDenied);
    EXPECT_THAT(secure.requests(), IsEmpty());
    EXPECT_THAT(secure.authorization_sightings(), IsEmpty());
    EXPECT_LE(secure.connections_accepted(), 4U) << "a certificate does not mend itself";
  }
}

}  // namespace
}  // namespace ocifs::fetch
