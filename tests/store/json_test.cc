#include "store/json.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using namespace std::string_literals;

std::string Repeat(std::string_view text, size_t count) {
  std::string all;
  all.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) all.append(text);
  return all;
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json json = Must(Json::Parse(
      R"( {"n":null,"t":true,"f":false,"i":-9223372036854775808,"m":9223372036854775807,"d":1.5,
           "s":"a\u00e9\"\\\n","a":[1,[],{}],"o":{"":1}} )"));
  EXPECT_TRUE(json.Find("n")->is_null());
  EXPECT_TRUE(*json.Find("t")->boolean());
  EXPECT_FALSE(*json.Find("f")->boolean());
  EXPECT_EQ(*json.Find("i")->integer(), INT64_MIN);
  EXPECT_EQ(*json.Find("m")->integer(), INT64_MAX);
  EXPECT_EQ(*json.Find("d")->number(), 1.5);
  EXPECT_EQ(*json.Find("s")->string(), "a\xC3\xA9\"\\\n");
  EXPECT_EQ(json.Find("a")->array()->size(), 3U);
  EXPECT_EQ(*json.Find("o")->Find("")->integer(), 1);
  EXPECT_EQ(json.Find("N"), nullptr);
  EXPECT_EQ(json.Find("a")->Find("x"), nullptr);
}

TEST(Json, Refuses) {
  struct Case {
    std::string_view name;
    std::string text;
    ErrorCode code = ErrorCode::kCorrupt;
  };
  const Case cases[] = {
      {"nothing", ""},
      {"spaces only", " \n"},
      {"200,000 open arrays", std::string(200'000, '[')},
      {"200,000 open objects", Repeat("{\"a\":", 200'000)},
      {"65 levels", std::string(65, '[') + std::string(65, ']')},
      {"key twice", R"({"digest":1,"digest":1})"},
      {"key twice, once escaped", R"({"digest":1,"d\u0069gest":2})"},
      {"key twice far apart", R"({"layers":[],"a":{"layers":1},"layers":[]})"},
      {"invalid UTF-8", "\"\xFF\""},
      {"overlong UTF-8", "\"\xC0\xAF\""},
      {"surrogate in UTF-8", "\"\xED\xA0\x80\""},
      {"cut UTF-8", "\"\xE2\x82\""},
      {"lone high surrogate", R"("\ud800")"},
      {"lone low surrogate", R"("\udc00")"},
      {"high surrogate twice", R"("\ud800\ud800")"},
      {"byte-order mark", "\xEF\xBB\xBF{}"},
      {"second document", "{} {}"},
      {"text behind", "{}x"},
      {"NUL behind", "{}\0"s},
      {"second document behind a NUL", "{}\0{\"layers\":[]}"s},
      {"NUL between values", "[1,\0 2]"s},
      {"raw control byte in a string", "\"a\x01\""},
      {"raw newline in a string", "\"a\n\""},
      {"raw NUL in a string", "\"a\0b\""s},
      {"open string", "\"abc"},
      {"open object", "{\"a\":1"},
      {"comma last", "[1,]"},
      {"comment", "/**/{}"},
      {"bare word", "nul"},
      {"single quotes", "'a'"},
      {"key without quotes", "{a:1}"},
      {"NaN", "NaN"},
      {"Infinity", "-Infinity"},
      {"leading zero", "01"},
      {"plus sign", "+1"},
      {"point without digits", "1."},
      {"overflow", "1e400"},
      {"huge exponent", "1e99999999999999999999"},
  };
  for (const Case& c : cases) EXPECT_THAT(Json::Parse(c.text), FailsWith(c.code)) << c.name;
}

TEST(Json, IntegersAreExactOrNone) {
  for (const std::string_view text :
       {"1.0", "1e3", "9223372036854775808", "18446744073709551615", "18446744073709551616",
        "-9223372036854775809", "1e-1", "123456789012345678901234567890"}) {
    const Result<Json> json = Json::Parse(text);
    ASSERT_THAT(json, IsOk()) << text;
    EXPECT_EQ(json->integer(), nullptr) << text;
    EXPECT_NE(json->number(), nullptr) << text;
  }
  EXPECT_EQ(Must(Json::Parse("\"12\"")).integer(), nullptr);
}

TEST(Json, LongNumbersEndInBoundedTime) {
  // Either verdict is right; what matters is that there is one.
  const std::vector<std::string> numbers = {std::string(100'000, '9'),
                                            "0." + std::string(100'000, '9'),
                                            "1." + std::string(100'000, '0') + "e-100000",
                                            "0." + std::string(100'000, '0') + "1e100000",
                                            "1e-999999999",
                                            "0e999999999",
                                            "1e-" + std::string(100'000, '9')};
  for (const std::string& text : numbers) {
    const Result<Json> json = Json::Parse(text);
    if (json) {
      EXPECT_EQ(json->integer(), nullptr) << text.substr(0, 20);
    }
  }
}

TEST(Json, StringsAreCountedNotTerminated) {
  const Json json = Must(Json::Parse(R"({"a\u0000b":"x\u0000y"})"));
  EXPECT_EQ(json.Find("a"), nullptr);
  EXPECT_EQ(*json.Find("a\0b"s)->string(), "x\0y"s);
}

TEST(Json, LimitsHold) {
  EXPECT_THAT(Json::Parse(std::string(64, '[') + std::string(64, ']')), IsOk());
  EXPECT_THAT(Json::Parse("[1]", {.max_bytes = 2}), FailsWith(ErrorCode::kTooLarge));
  EXPECT_THAT(Json::Parse("[1,2,3]", {.max_values = 3}), FailsWith(ErrorCode::kTooLarge));
  EXPECT_THAT(Json::Parse("[1,2,3]", {.max_values = 4}), IsOk());
  EXPECT_THAT(Json::Parse("[" + Repeat("[],", 1'000'000) + "[]]"), FailsWith(ErrorCode::kTooLarge));
}

TEST(JsonQuote, WritesWhatParseReads) {
  std::string all;
  for (int i = 0; i < 128; ++i) all.push_back(static_cast<char>(i));
  all += "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  EXPECT_EQ(*Must(Json::Parse(JsonQuote(all))).string(), all);
}

TEST(JsonQuote, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(JsonQuote("a\xFFz"), "\"a\xEF\xBF\xBDz\"");
  EXPECT_EQ(JsonQuote("\xE2\x82"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
  EXPECT_EQ(JsonQuote("\xC0\xAF"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace ocifs::store
