#include "tools/version_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ocifs::tools {
namespace {

using ::testing::ElementsAreArray;

// Sorted from every order that a shuffle makes of them.
void ExpectOrder(const std::vector<std::string>& expected) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> tags = expected;
    std::shuffle(tags.begin(), tags.end(), random);
    SortTags(tags);
    ASSERT_THAT(tags, ElementsAreArray(expected));
  }
}

TEST(VersionOrderTest, NumbersAreNumbers) { ExpectOrder({"0.10.0", "0.9.1", "0.9.0", "0.1"}); }

// The example of Semantic Versioning 2.0.0 section 11.4.4.
TEST(VersionOrderTest, PreReleasesByTheSpecification) {
  ExpectOrder({"1.0.0", "1.0.0-rc.1", "1.0.0-beta.11", "1.0.0-beta.2", "1.0.0-beta",
               "1.0.0-alpha.beta", "1.0.0-alpha.1", "1.0.0-alpha"});
}

TEST(VersionOrderTest, VersionsComeBeforeOtherTags) {
  ExpectOrder({"v2.0.0", "1.0", "edge", "latest", "sha256-abc", "v1.2.3.4", "vx"});
}

TEST(VersionOrderTest, EqualVersionsStandBytewise) {
  ExpectOrder({"1.1", "1", "1.0", "1.0.0", "1.0.0_build.1", "v1.0.0", "0.9"});
}

TEST(VersionOrderTest, NumbersOfAnyLength) {
  ExpectOrder({"99999999999999999999999.0.0", "20261120123456789012345", "20261120"});
}

}  // namespace
}  // namespace ocifs::tools
