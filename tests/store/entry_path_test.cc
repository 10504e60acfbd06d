#include "store/entry_path.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using namespace std::string_literals;

TEST(NormalizeEntryPath, ClampsToTheRoot) {
  struct Case {
    std::string raw;
    std::string path;
  };
  const Case cases[] = {
      {"", ""},
      {".", ""},
      {"./", ""},
      {"/", ""},
      {"///", ""},
      {"/abs", "abs"},
      {"./a", "a"},
      {"a/", "a"},
      {"a//b", "a/b"},
      {"a/./b/.", "a/b"},
      {"/./a", "a"},
      {"...", "..."},
      {"..a/b..", "..a/b.."},
      {"a\\..\\b", "a\\..\\b"},
      {"\xFF\x01", "\xFF\x01"},
  };
  std::string path = "what was there before";
  for (const Case& c : cases) {
    ASSERT_THAT(NormalizeEntryPath(c.raw, Limits(), path), IsOk()) << c.raw;
    EXPECT_EQ(path, c.path) << c.raw;
  }
}

TEST(NormalizeEntryPath, Refuses) {
  struct Case {
    std::string_view name;
    std::string raw;
    ErrorCode code = ErrorCode::kCorrupt;
  };
  std::string deep;
  for (int i = 0; i < 1025; ++i) deep += "a/";
  std::string long_path;
  for (int i = 0; i < 16; ++i) long_path += std::string(255, 'a') + "/";
  const Case cases[] = {
      {"parent", ".."},
      {"parent first", "../x"},
      {"parent inside that would stay below", "a/b/../c"},
      {"parent that climbs out", "a/../../b"},
      {"absolute parent", "/.."},
      {"parent last", "a/.."},
      {"parent behind many slashes", "a////../b"},
      {"NUL", "a\0b"s},
      {"NUL at the end", "a\0"s},
      {"256 byte name", std::string(256, 'a'), ErrorCode::kTooLarge},
      {"1025 components", deep, ErrorCode::kTooLarge},
      {"4096 bytes", long_path + "b", ErrorCode::kTooLarge},
  };
  std::string path;
  for (const Case& c : cases) {
    EXPECT_THAT(NormalizeEntryPath(c.raw, Limits(), path), FailsWith(c.code)) << c.name;
  }
  EXPECT_THAT(NormalizeEntryPath(long_path, Limits(), path), IsOk());
  EXPECT_EQ(path.size(), 4095U);
}

}  // namespace
}  // namespace ocifs::store
