#include "tools/package_path.h"

#include <gtest/gtest.h>

#include <string>

namespace ocifs::tools {
namespace {

const std::string kHex(64, 'a');

struct Case {
  std::string text;
  std::string path;
};

class PackagePathTest : public testing::TestWithParam<Case> {};

TEST_P(PackagePathTest, IsBelowTheMount) {
  const auto path = ParsePackagePath(GetParam().text);
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(PathBelowMount(*path), GetParam().path);
}

INSTANTIATE_TEST_SUITE_P(
    All, PackagePathTest,
    testing::Values(
        Case{"ghcr.io/a/b:1.0", "ghcr.io/a/b/1.0"},
        Case{"oci://ghcr.io/a/b:1.0", "ghcr.io/a/b/1.0"},
        Case{"oci://ghcr.io/a/b//sub/dir:1.0", "ghcr.io/a/b/1.0/sub/dir"},
        Case{"ghcr.io/a/b//sub:1.0", "ghcr.io/a/b/1.0/sub"},
        Case{"oci://localhost:5000/a//x:1", "localhost:5000/a/1/x"},
        Case{"oci://ghcr.io/a/b//sub", "ghcr.io/a/b/latest/sub"},
        Case{"oci://ghcr.io/a/b//:1", "ghcr.io/a/b/1"},
        Case{"ghcr.io/a/b@sha256:" + kHex, "ghcr.io/a/b/sha256:" + kHex},
        Case{"oci://ghcr.io/a/b//s@sha256:" + kHex, "ghcr.io/a/b/sha256:" + kHex + "/s"},
        Case{"oci://ghcr.io/a/b//s:1.0@sha256:" + kHex, "ghcr.io/a/b/sha256:" + kHex + "/s"},
        Case{"alpine:3.19", "docker.io/library/alpine/3.19"}));

TEST(PackagePathTest, RefusesWhatLeadsOut) {
  for (const char* bad : {"oci://ghcr.io/a/b//../x:1", "oci://ghcr.io/a/b//x/../../y:1", "",
                          "not a reference", "ghcr.io/A/b:1", "oci://ghcr.io/a/b//x:bad tag"}) {
    const auto path = ParsePackagePath(bad);
    ASSERT_FALSE(path) << bad;
    EXPECT_EQ(path.error().code, store::ErrorCode::kInvalid) << bad;
  }
}

}  // namespace
}  // namespace ocifs::tools
