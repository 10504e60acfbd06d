#include "tests/harness/fake_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "tests/harness/plain_client.h"

namespace ocifs::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using End = PlainAnswer::End;

std::string LettersAndSo(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i % 26);
  return text;
}

class FakeRegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    digest_ = registry_.AddBlob("a", bytes_).digest.ToString();
    path_ = "/v2/a/blobs/" + digest_;
  }
  PlainAnswer GetRange(const std::string& range, ServerHeaders headers = {}) {
    headers.emplace_back("Range", range);
    return Get(registry_.url() + path_, headers);
  }
  // "status content-range body"
  std::string Range(const std::string& range) {
    const PlainAnswer answer = GetRange(range);
    return std::to_string(answer.status) + " " + answer.Header("content-range") + " " + answer.body;
  }

  const std::string bytes_ = "0123456789";
  FakeRegistry registry_;
  std::string digest_;
  std::string path_;
};

TEST_F(FakeRegistryTest, WholeBlobSaysThatRangesAreServedAndHasAStrongTag) {
  const PlainAnswer answer = Get(registry_.url() + path_);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, bytes_);
  EXPECT_EQ(answer.Header("accept-ranges"), "bytes");
  EXPECT_EQ(answer.Header("etag"), "\"" + digest_ + "\"");
  EXPECT_EQ(Get(registry_.url() + path_, {{"If-None-Match", "\"" + digest_ + "\""}}).status, 304);
}

TEST_F(FakeRegistryTest, ServesRanges) {
  EXPECT_EQ(Range("bytes=2-4"), "206 bytes 2-4/10 234");
  EXPECT_EQ(Range("bytes=7-"), "206 bytes 7-9/10 789");
  EXPECT_EQ(Range("bytes=-2"), "206 bytes 8-9/10 89");
  EXPECT_EQ(Range("bytes=-99"), "206 bytes 0-9/10 0123456789");
  EXPECT_EQ(Range("bytes=8-1000"), "206 bytes 8-9/10 89");
  for (const auto* range : {"bytes=10-", "bytes=5-3", "bytes=-0", "bytes=", "bytes=x-", "lines=1-2",
                            "bytes=1", "bytes=1-x"}) {
    EXPECT_EQ(Range(range), "416 bytes */10 ") << range;
  }
}

TEST_F(FakeRegistryTest, SeveralRangesAreMultipart) {
  const PlainAnswer answer = GetRange("bytes=0-1, 5-6");
  EXPECT_EQ(answer.status, 206);
  EXPECT_THAT(answer.Header("content-type"), StartsWith("multipart/byteranges; boundary="));
  EXPECT_THAT(answer.body, HasSubstr("Content-Range: bytes 0-1/10\r\n\r\n01\r\n--"));
  EXPECT_THAT(answer.body, HasSubstr("Content-Range: bytes 5-6/10\r\n\r\n56\r\n--"));
}

TEST_F(FakeRegistryTest, IfRangeDecidesBetweenPartAndWhole) {
  EXPECT_EQ(GetRange("bytes=2-4", {{"If-Range", "\"" + digest_ + "\""}}).body, "234");
  for (const std::string& other : {std::string("\"other\""), "W/\"" + digest_ + "\"",
                                   std::string("Fri, 20 Nov 2026 00:00:00 GMT")}) {
    const PlainAnswer answer = GetRange("bytes=2-4", {{"If-Range", other}});
    EXPECT_EQ(answer.status, 200) << other;
    EXPECT_EQ(answer.body, bytes_);
  }
}

TEST_F(FakeRegistryTest, RangesIgnoredOrRefused) {
  registry_.SetRanges(RangeBehaviour::kIgnored);
  EXPECT_EQ(Range("bytes=2-4"), "200  0123456789");
  EXPECT_EQ(Get(registry_.url() + path_).Header("accept-ranges"), "");
  registry_.SetRanges(RangeBehaviour::kRefused);
  EXPECT_EQ(Range("bytes=2-4"), "416 bytes */10 ");
  EXPECT_EQ(Get(registry_.url() + path_).body, bytes_);
}

TEST_F(FakeRegistryTest, WrongRangesOnDemand) {
  const auto once = [&](RangeBehaviour behaviour) {
    registry_.Inject({.path = "/blobs/", .times = 1, .ranges = behaviour});
    return Range("bytes=2-5");
  };
  EXPECT_EQ(once(RangeBehaviour::kMislabelled), "206 bytes 3-6/10 2345");
  EXPECT_EQ(once(RangeBehaviour::kOtherRange), "206 bytes 0-3/10 0123");
  EXPECT_EQ(once(RangeBehaviour::kOtherTotal), "206 bytes 2-5/11 2345");
  EXPECT_EQ(once(RangeBehaviour::kUnlabelled), "206  2345");
  EXPECT_EQ(once(RangeBehaviour::kShorter), "206 bytes 2-3/10 23");
  EXPECT_THAT(once(RangeBehaviour::kMultipart),
              HasSubstr("Content-Range: bytes 2-5/10\r\n\r\n2345"));
  EXPECT_EQ(once(RangeBehaviour::kIgnored), "200  0123456789");
  EXPECT_EQ(Range("bytes=2-5"), "206 bytes 2-5/10 2345") << "each struck once";
  EXPECT_EQ(registry_.faults_struck(), 7U);
}

TEST_F(FakeRegistryTest, RecordsRanges) {
  Range("bytes=2-4");
  Get(registry_.url() + path_);
  Range("bytes=5-");
  EXPECT_THAT(registry_.ranges(), ElementsAre(path_ + " bytes=2-4", path_ + " bytes=5-"));
}

TEST_F(FakeRegistryTest, CutsEveryConnectionAfterSoManyBytesInAll) {
  const std::string big = LettersAndSo(1000);
  const std::string path = "/v2/a/blobs/" + registry_.AddBlob("a", big).digest.ToString();
  registry_.Inject({.path = "/blobs/", .wire = {.cut_every = 300}});
  std::string joined;
  std::vector<size_t> pieces;
  while (joined.size() < big.size()) {
    const PlainAnswer answer =
        Get(registry_.url() + path, {{"Range", "bytes=" + std::to_string(joined.size()) + "-"}});
    ASSERT_EQ(answer.status, 206);
    pieces.push_back(answer.body.size());
    joined += answer.body;
  }
  EXPECT_EQ(joined, big);
  EXPECT_THAT(pieces, ElementsAre(300, 300, 300, 100));
  EXPECT_EQ(registry_.body_bytes_sent(path), 1000U);
  EXPECT_EQ(registry_.body_bytes_sent("/v2/"), 0U);

  // Several answers on one connection count together.
  PlainClient client(registry_.port());
  for (int i = 0; i < 2; ++i) {
    client.SendRequest("GET", path, {{"Range", "bytes=0-119"}});
    EXPECT_EQ(client.ReadAnswer().body.size(), 120U);
  }
  client.SendRequest("GET", path, {{"Range", "bytes=0-119"}});
  const PlainAnswer last = client.ReadAnswer();
  EXPECT_EQ(last.body.size(), 60U);
  EXPECT_EQ(last.end, End::kClosed);
}

TEST_F(FakeRegistryTest, EndsWithResetOnDemandAfterAllBytes) {
  const std::string big = LettersAndSo(4 << 20);
  const std::string path = "/v2/a/blobs/" + registry_.AddBlob("a", big).digest.ToString();
  registry_.Inject({.times = 1, .wire = {.truncate_at = 3'000'001}});
  EXPECT_EQ(Get(registry_.url() + path).end, End::kClosed);
  registry_.Inject({.times = 1, .wire = {.truncate_at = 3'000'001, .reset = true}});
  const PlainAnswer answer = Get(registry_.url() + path);
  EXPECT_EQ(answer.end, End::kReset);
  EXPECT_EQ(answer.body.size(), 3'000'001U);
  registry_.Inject({.times = 1, .wire = {.cut_every = 0, .reset = true}});
  EXPECT_EQ(Get(registry_.url() + path).end, End::kReset);
}

TEST_F(FakeRegistryTest, FaultsStrikeTheNthMatchingRequest) {
  registry_.Inject({.path = "/blobs/",
                    .times = 1,
                    .status = 429,
                    .headers = {{"Retry-After", "3"}},
                    .body = "slow down",
                    .skip = 2});
  EXPECT_EQ(Get(registry_.url() + path_).status, 200);
  EXPECT_EQ(Get(registry_.url() + "/v2/").status, 200) << "does not match, does not count";
  EXPECT_EQ(Get(registry_.url() + path_).status, 200);
  const PlainAnswer struck = Get(registry_.url() + path_);
  EXPECT_EQ(struck.status, 429);
  EXPECT_EQ(struck.Header("retry-after"), "3");
  EXPECT_EQ(struck.body, "slow down");
  EXPECT_EQ(Get(registry_.url() + path_).status, 200);
}

TEST_F(FakeRegistryTest, FaultsByChanceAreTheSameForASeed) {
  const auto outcomes = [&](uint64_t seed) {
    registry_.ClearFaults();
    registry_.Inject({.status = 503, .chance_percent = 30, .seed = seed});
    std::string text;
    for (int i = 0; i < 200; ++i) text += Get(registry_.url() + path_).status == 503 ? 'x' : '.';
    return text;
  };
  const std::string first = outcomes(7);
  EXPECT_EQ(outcomes(7), first);
  EXPECT_NE(outcomes(8), first);
  const auto struck = std::count(first.begin(), first.end(), 'x');
  EXPECT_GT(struck, 40);
  EXPECT_LT(struck, 80);
}

TEST_F(FakeRegistryTest, SeesEveryCredential) {
  EXPECT_THAT(registry_.authorization_sightings(), IsEmpty());
  Get(registry_.url() + path_, {{"Authorization", "Basic dTpw"}});
  Get(registry_.localhost_url() + "/v2/?x=y", {{"Cookie", "a=b"}});
  registry_.ForgetRequests();
  EXPECT_THAT(registry_.authorization_sightings(),
              ElementsAre(AuthorizationSighting{registry_.host(), path_, "Basic", "dTpw"},
                          AuthorizationSighting{"localhost:" + std::to_string(registry_.port()),
                                                "/v2/", "Cookie", "a=b"}));
}

TEST_F(FakeRegistryTest, DripsOnStep) {
  registry_.Inject({.path = "/blobs/", .wire = {.drip_bytes = 4}});
  PlainClient client(registry_.port());
  client.SendRequest("GET", path_);
  registry_.WaitForStalled();
  EXPECT_EQ(registry_.body_bytes_sent(path_), 4U);
  registry_.Step();
  registry_.WaitForStalled();
  EXPECT_EQ(registry_.body_bytes_sent(path_), 8U);
  registry_.Step();
  EXPECT_EQ(client.ReadAnswer().body, bytes_);
}

TEST_F(FakeRegistryTest, ReleaseEndsDripping) {
  registry_.Inject({.path = "/blobs/", .wire = {.drip_bytes = 1}});
  PlainClient client(registry_.port());
  client.SendRequest("GET", path_);
  registry_.WaitForStalled();
  registry_.Release();
  EXPECT_EQ(client.ReadAnswer().body, bytes_);
}

TEST_F(FakeRegistryTest, PacesBodies) {
  const std::string big = LettersAndSo(20'000);
  const std::string path = "/v2/a/blobs/" + registry_.AddBlob("a", big).digest.ToString();
  registry_.Inject({.wire = {.bytes_per_second = 200'000}});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Get(registry_.url() + path).body, big);
  // The last piece, a 64th of a second, is sent when it is due and not when it would have arrived.
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(80));
}

}  // namespace
}  // namespace ocifs::testing
