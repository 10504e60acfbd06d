#include "store/text.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using namespace std::string_view_literals;

TEST(EscapeForDisplay, TakesControlBytesAndWhatIsNotUtf8) {
  struct Case {
    std::string_view name;
    std::string_view in;
    std::string_view out;
  };
  const Case cases[] = {
      {"plain", "a b~", "a b~"},
      {"utf-8 of each length", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80",
       "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
      {"forged line", "a\nERROR b", "a\\x0aERROR b"},
      {"carriage return", "a\rb", "a\\x0db"},
      {"terminal escape", "\x1B[2J", "\\x1b[2J"},
      {"NUL", "a\0b"sv, "a\\x00b"},
      {"DEL", "\x7F", "\\x7f"},
      {"C1 control CSI", "\xC2\x9B", "\\xc2\\x9b"},
      {"no-break space is no control", "\xC2\xA0", "\xC2\xA0"},
      {"overlong slash", "\xC0\xAF", "\\xc0\\xaf"},
      {"surrogate", "\xED\xA0\x80", "\\xed\\xa0\\x80"},
      {"above U+10FFFF", "\xF4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
      {"cut sequence", "\xE2\x82", "\\xe2\\x82"},
      {"empty", "", ""},
  };
  for (const Case& c : cases) EXPECT_EQ(EscapeForDisplay(c.in), c.out) << c.name;
}

TEST(Hex, RoundTripsEveryByte) {
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  EXPECT_EQ(FromHex(ToHex(AsBytes(all))), all);
}

TEST(Hex, RefusesWhatIsNotLowerCaseHex) {
  for (const std::string_view bad :
       {"A0"sv, "0"sv, "0g"sv, "0 "sv, "0x"sv, "a\0"sv, "\xFF\xFF"sv}) {
    EXPECT_EQ(FromHex(bad), std::nullopt) << EscapeForDisplay(bad);
  }
}

TEST(Base64, RoundTripsEveryLength) {
  for (size_t size = 0; size < 70; ++size) {
    const std::string bytes = Noise(size, 7);
    EXPECT_EQ(FromBase64(ToBase64(bytes)), bytes) << size;
  }
  EXPECT_EQ(ToBase64("{}"), "e30=");
}

TEST(Base64, RefusesWhatIsNotCanonical) {
  for (const std::string_view bad :
       {"e30"sv, "e30==="sv, "===="sv, "=e30"sv, "e=30"sv, "A==="sv, "e31="sv, "AB=="sv,
        "e30=e30="sv, "e30\n"sv, "e-_="sv, "e30 "sv, " e30="sv, "e3\0="sv}) {
    EXPECT_EQ(FromBase64(bad), std::nullopt) << EscapeForDisplay(bad);
  }
}

TEST(ParseDecimal, TakesDigitsOnlyUpToTheBound) {
  EXPECT_EQ(ParseDecimal("0", 10), 0U);
  EXPECT_EQ(ParseDecimal("18446744073709551615", UINT64_MAX), UINT64_MAX);
  EXPECT_EQ(ParseDecimal("65535", 65535), 65535U);
  for (const std::string_view bad :
       {""sv, "-1"sv, "+1"sv, " 1"sv, "1 "sv, "0x1"sv, "1.0"sv, "1e3"sv, "65536"sv,
        "18446744073709551616"sv, "99999999999999999999"sv, "000000000000000000001"sv, "1\0"sv}) {
    EXPECT_EQ(ParseDecimal(bad, 65535), std::nullopt) << EscapeForDisplay(bad);
  }
}

TEST(IsValidUtf8, KnowsTheBorders) {
  for (const std::string_view good :
       {""sv, "a\0b"sv, "\xC2\x80"sv, "\xDF\xBF"sv, "\xE0\xA0\x80"sv, "\xED\x9F\xBF"sv,
        "\xEE\x80\x80"sv, "\xF0\x90\x80\x80"sv, "\xF4\x8F\xBF\xBF"sv}) {
    EXPECT_TRUE(IsValidUtf8(good)) << EscapeForDisplay(good);
  }
  for (const std::string_view bad :
       {"\x80"sv, "\xC1\xBF"sv, "\xC2"sv, "\xC2\x41"sv, "\xE0\x9F\xBF"sv, "\xED\xA0\x80"sv,
        "\xF0\x8F\xBF\xBF"sv, "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xFE"sv,
        "\xE2\x82\x41"sv}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << EscapeForDisplay(bad);
  }
}

}  // namespace
}  // namespace ocifs::store
