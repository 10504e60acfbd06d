#include "store/platform.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

TEST(Platform, ParsesAndNormalises) {
  struct Case {
    std::string_view text;
    std::string_view printed;
  };
  const Case cases[] = {
      {"linux/amd64", "linux/amd64"},      {"Linux/X86_64", "linux/amd64"},
      {"linux/x86-64/v1", "linux/amd64"},  {"linux/amd64/v3", "linux/amd64/v3"},
      {"linux/amd64/3", "linux/amd64/v3"}, {"linux/aarch64", "linux/arm64"},
      {"linux/arm64/v8", "linux/arm64"},   {"linux/arm64/8", "linux/arm64"},
      {"linux/arm64/v8.0", "linux/arm64"}, {"linux/arm64/v9", "linux/arm64/v9"},
      {"linux/arm", "linux/arm/v7"},       {"linux/arm/6", "linux/arm/v6"},
      {"linux/armhf", "linux/arm/v7"},     {"linux/armel", "linux/arm/v6"},
      {"linux/i386", "linux/386"},         {"macos/aarch64", "darwin/arm64"},
      {"linux/riscv64", "linux/riscv64"},
  };
  for (const Case& c : cases) {
    const Result<Platform> platform = Platform::Parse(c.text);
    ASSERT_THAT(platform, IsOk()) << c.text;
    EXPECT_EQ(platform->ToString(), c.printed) << c.text;
    EXPECT_EQ(Must(Platform::Parse(platform->ToString())), *platform) << c.text;
  }
}

TEST(Platform, Refuses) {
  for (const std::string_view bad :
       {"", "linux", "linux/", "/amd64", "linux/amd64/", "linux/amd64/v1/x", "linux//v1",
        "linux/amd 64", "linux/amd64\n"}) {
    EXPECT_THAT(Platform::Parse(bad), FailsWith(ErrorCode::kInvalid)) << bad;
  }
}

std::string CandidatesOf(std::string_view text) {
  std::string list;
  for (const Platform& platform : Must(Platform::Parse(text)).Candidates()) {
    list += (list.empty() ? "" : " ") + platform.ToString();
  }
  return list;
}

TEST(Platform, CandidatesStartWithTheBestAndNeverNeedMore) {
  EXPECT_EQ(CandidatesOf("linux/amd64"), "linux/amd64");
  EXPECT_EQ(CandidatesOf("linux/amd64/v3"), "linux/amd64/v3 linux/amd64/v2 linux/amd64");
  EXPECT_EQ(CandidatesOf("linux/arm/v7"), "linux/arm/v7 linux/arm/v6 linux/arm/v5 linux/arm");
  EXPECT_EQ(CandidatesOf("linux/arm/v5"), "linux/arm/v5 linux/arm");
  EXPECT_EQ(CandidatesOf("linux/arm64"), "linux/arm64");
  EXPECT_EQ(CandidatesOf("linux/arm64/v9"), "linux/arm64/v9 linux/arm64");
  EXPECT_EQ(CandidatesOf("linux/s390x"), "linux/s390x");
}

TEST(Platform, HostIsNormalised) {
  const Platform host = Platform::Host();
  EXPECT_EQ(host.os, "linux");
  EXPECT_EQ(Must(Platform::Parse(host.ToString())), host);
}

}  // namespace
}  // namespace ocifs::store
