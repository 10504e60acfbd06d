#include "fetch/challenge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

std::string Show(const std::vector<std::string>& headers) {
  std::string text;
  for (const Challenge& challenge : ParseChallenges(headers)) {
    text += "[" + challenge.scheme;
    for (const auto& [name, value] : challenge.parameters) {
      text.append(" ").append(name).append("=<").append(value).append(">");
    }
    text += "]";
  }
  return text;
}

TEST(ChallengeTest, Parses) {
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{R"(Bearer realm="https://a/token",service="a",scope="repository:x/y:pull,push")"},
       "[bearer realm=<https://a/token> service=<a> scope=<repository:x/y:pull,push>]"},
      {{R"(BEARER Realm = "r" , SERVICE=plain)"}, "[bearer realm=<r> service=<plain>]"},
      {{R"(Basic realm="a \"quoted\" \\ name")"}, R"([basic realm=<a "quoted" \ name>])"},
      {{R"(Basic realm="b", Bearer realm="t",service="s")"},
       "[basic realm=<b>][bearer realm=<t> service=<s>]"},
      {{R"(Basic realm="b")", R"(Bearer realm="t")"}, "[basic realm=<b>][bearer realm=<t>]"},
      {{"Negotiate, Basic realm=x"}, "[negotiate][basic realm=<x>]"},
      {{"Negotiate YIIabc+/==, Bearer realm=\"t\""}, "[negotiate][bearer realm=<t>]"},
      {{", ,Basic realm=\"\","}, "[basic realm=<>]"},
      {{""}, ""},
      {{"   "}, ""},
      {{}, ""},
  };
  for (const auto& [headers, expected] : cases) EXPECT_EQ(Show(headers), expected);
}

TEST(ChallengeTest, LeavesOutWhatIsMalformed) {
  EXPECT_EQ(Show({R"(Bearer realm="unterminated)"}), "");
  EXPECT_EQ(Show({R"(Bearer realm="ends in backslash\)"}), "");
  EXPECT_EQ(Show({R"(Basic realm="ok", Bearer realm="unterminated)"}), "[basic realm=<ok>]");
  EXPECT_EQ(Show({R"(Bearer realm="good", realm="evil")"}), "") << "ambiguous";
  EXPECT_EQ(Show({R"(Bearer realm="good", REALM="evil")"}), "") << "ambiguous";
  EXPECT_EQ(Show({R"(Bearer realm="a"junk, Basic realm="b")"}), "");
  EXPECT_EQ(Show({"Bearer realm="}), "[bearer]") << "by the grammar, a token68";
  EXPECT_EQ(Show({"realm=\"no scheme\""}), "");
  EXPECT_EQ(Show({std::string("Bear\0er", 7)}), "");
}

TEST(ChallengeTest, ThousandSchemesAreCapped) {
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "S" + std::to_string(i) + ",";
  EXPECT_EQ(ParseChallenges(std::vector{many}).size(), kMaxChallenges);
}

TEST(ChallengeTest, MegabyteHeaderIsIgnored) {
  const std::vector<std::string> headers = {R"(Basic realm="first")",
                                            "Bearer realm=\"" + std::string(1 << 20, 'x') + "\""};
  EXPECT_EQ(Show(headers), "[basic realm=<first>]");
}

TEST(ChallengeTest, ThousandParametersAreRefused) {
  std::string header = "Bearer realm=\"t\"";
  for (int i = 0; i < 1000; ++i) header += ",p" + std::to_string(i) + "=v";
  EXPECT_EQ(Show({header}), "");
}

TEST(ChallengeTest, PrefersBearerWithARealm) {
  auto preferred = [](const char* header) -> std::string {
    const auto challenges = ParseChallenges(std::vector<std::string>{header});
    const Challenge* const challenge = PreferredChallenge(challenges);
    return challenge == nullptr ? "none" : challenge->scheme;
  };
  EXPECT_EQ(preferred(R"(Basic realm="b", Bearer realm="t")"), "bearer");
  EXPECT_EQ(preferred(R"(Bearer service="no realm", Basic realm="b")"), "basic");
  EXPECT_EQ(preferred("Negotiate, Digest realm=x"), "none");
}

}  // namespace
}  // namespace ocifs::fetch
