#include "fetch/certs_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(CertsDirTest, FilesHaveTheirMeaningByName) {
  const auto certs = ReadCertsDir("/d", {"z.crt", "client.key", "a.crt", "client.cert", "README",
                                         "ca.pem", "x.crt.bak", "stray.key"});
  ASSERT_TRUE(certs) << certs.error().message;
  EXPECT_THAT(certs->tls.ca_files, ElementsAre("/d/a.crt", "/d/z.crt"));
  EXPECT_EQ(certs->tls.certificate_file, "/d/client.cert");
  EXPECT_EQ(certs->tls.key_file, "/d/client.key");
  EXPECT_TRUE(certs->tls.verify);
  EXPECT_EQ(certs->pairs, 1u);
}

TEST(CertsDirTest, OfSeveralPairsTheFirstByNameCounts) {
  const auto certs = ReadCertsDir("/d", {"b.cert", "a.key", "a.cert", "b.key"});
  ASSERT_TRUE(certs) << certs.error().message;
  EXPECT_EQ(certs->tls.certificate_file, "/d/a.cert");
  EXPECT_EQ(certs->tls.key_file, "/d/a.key");
  EXPECT_EQ(certs->pairs, 2u);
}

TEST(CertsDirTest, ACertificateWithoutItsKeyIsAnError) {
  const auto certs = ReadCertsDir("/d", {"client.cert", "other.key"});
  ASSERT_FALSE(certs);
  EXPECT_EQ(certs.error().code, store::ErrorCode::kInvalid);
  EXPECT_THAT(certs.error().message, HasSubstr("/d/client.cert: its key, client.key, is missing"));
}

TEST(CertsDirTest, AnEmptyDirectorySaysNothing) {
  const auto certs = ReadCertsDir("/d", {});
  ASSERT_TRUE(certs);
  EXPECT_EQ(certs->tls, TlsOptions());
}

}  // namespace
}  // namespace ocifs::fetch
