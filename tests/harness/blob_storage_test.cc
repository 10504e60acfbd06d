#include "tests/harness/blob_storage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/harness/fake_registry.h"
#include "tests/harness/plain_client.h"

namespace ocifs::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class BlobStorageTest : public ::testing::Test {
 protected:
  std::string SignedUrl(BlobStorage& storage) { return storage.Sign("key", bytes_); }

  const std::shared_ptr<const std::string> bytes_ =
      std::make_shared<const std::string>("0123456789");
};

TEST_F(BlobStorageTest, ServesWhatWasSigned) {
  BlobStorage storage;
  const std::string url = SignedUrl(storage);
  EXPECT_THAT(url, StartsWith(storage.url() + "/bucket/key?"));
  EXPECT_EQ(Get(url).body, *bytes_);
  const PlainAnswer part = Get(url, {{"Range", "bytes=3-5"}});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "345");
  EXPECT_EQ(Get(url, {{"Range", "bytes=3-5"}, {"If-Range", part.Header("etag")}}).status, 206);
  EXPECT_THAT(storage.ranges(), ElementsAre("/bucket/key bytes=3-5", "/bucket/key bytes=3-5"));
  EXPECT_THAT(storage.violations(), IsEmpty());
}

TEST_F(BlobStorageTest, UrlExpiresAfterItsUses) {
  BlobStorage storage({.uses_per_url = 2});
  const std::string url = SignedUrl(storage);
  EXPECT_EQ(Get(url).status, 200);
  EXPECT_EQ(Get(url).status, 200);
  const PlainAnswer expired = Get(url);
  EXPECT_EQ(expired.status, 403);
  EXPECT_THAT(expired.body, HasSubstr("<Code>AccessDenied</Code>"));
  EXPECT_EQ(Get(SignedUrl(storage)).status, 200) << "another signature is good again";
  EXPECT_THAT(storage.violations(), IsEmpty()) << "an expired URL is nobody's fault";
}

TEST_F(BlobStorageTest, UrlsExpireOnCommand) {
  BlobStorage storage;
  const std::string url = SignedUrl(storage);
  storage.ExpireUrls();
  EXPECT_EQ(Get(url).status, 403);
}

TEST_F(BlobStorageTest, RecordsCarelessRequests) {
  BlobStorage storage;
  const std::string url = SignedUrl(storage);
  EXPECT_EQ(Get(url, {{"Authorization", "Bearer t"}}).status, 400);
  EXPECT_EQ(Get(url, {{"Cookie", "a=b"}}).status, 400);
  EXPECT_EQ(Get(storage.url() + "/bucket/key").status, 403);
  EXPECT_EQ(Request("HEAD", url).status, 403);
  EXPECT_THAT(storage.violations(),
              ElementsAre("GET /bucket/key: authorization", "GET /bucket/key: cookie",
                          "GET /bucket/key: signature", "HEAD /bucket/key: method"));
  EXPECT_EQ(storage.authorization_sightings().size(), 2U);
}

TEST_F(BlobStorageTest, FaultsStrike) {
  BlobStorage storage;
  storage.Inject({.times = 1, .status = 503});
  EXPECT_EQ(Get(SignedUrl(storage)).status, 503);
  storage.Inject({.times = 1, .ranges = RangeBehaviour::kIgnored});
  EXPECT_EQ(Get(SignedUrl(storage), {{"Range", "bytes=3-5"}}).status, 200);
}

TEST_F(BlobStorageTest, RegistryRedirectsToANewUrlEachTime) {
  BlobStorage storage({.uses_per_url = 1});
  FakeRegistry registry;
  const std::string url =
      registry.url() + "/v2/a/blobs/" + registry.AddBlob("a", *bytes_).digest.ToString();
  registry.RedirectBlobsTo(&storage);
  const PlainAnswer first = Get(url);
  const PlainAnswer second = Get(url);
  EXPECT_EQ(first.status, 307);
  EXPECT_NE(first.Header("location"), second.Header("location"));
  EXPECT_EQ(Get(first.Header("location")).body, *bytes_);
  EXPECT_EQ(Get(first.Header("location")).status, 403);
  EXPECT_EQ(Get(second.Header("location")).body, *bytes_);
  EXPECT_EQ(storage.urls_signed(), 2U);
  registry.RedirectBlobsTo(nullptr);
  EXPECT_EQ(Get(url).body, *bytes_);
}

}  // namespace
}  // namespace ocifs::testing
