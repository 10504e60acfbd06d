#include "fetch/content_range.h"

#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

TEST(ContentRangeTest, PartsOfAKnownAndOfAnUnknownWhole) {
  const auto range = ParseContentRange("bytes 10-19/100");
  ASSERT_TRUE(range);
  EXPECT_EQ(range->first, 10U);
  EXPECT_EQ(range->last, 19U);
  EXPECT_EQ(range->total, 100U);
  const auto unknown = ParseContentRange("bytes 0-0/*");
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->last, 0U);
  EXPECT_FALSE(unknown->total);
}

TEST(ContentRangeTest, RefusesWhatIsNoPart) {
  for (const char* value :
       {"", "bytes", "bytes */100", "bytes 5-4/100", "bytes 0-100/100", "bytes -5/100",
        "bytes 0-/100", "items 0-1/2", "bytes=0-1/2", "bytes 0-1", "bytes 0-1/", "bytes 0-1/x",
        "bytes 0x0-1/2", "bytes 0-1/2,3", "bytes 99999999999999999999-1/2", "bytes 1/2-3"}) {
    EXPECT_FALSE(ParseContentRange(value)) << value;
  }
}

}  // namespace
}  // namespace ocifs::fetch
