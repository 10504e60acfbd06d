#include "fetch/proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Environment = std::map<std::string, std::string>;

ProxyRules RulesOf(const Environment& environment, std::optional<std::string> proxy = {},
                   std::optional<std::string> no_proxy = {}) {
  return {std::move(proxy), std::move(no_proxy), [&](const char* name) -> const char* {
            const auto found = environment.find(name);
            return found == environment.end() ? nullptr : found->second.c_str();
          }};
}

// The proxy for a URL as it is displayed; "" for none, "error" when it does not parse.
std::string Chosen(const ProxyRules& rules, const std::string& url) {
  const auto proxy = rules.Find(*Url::Parse(url));
  if (!proxy) return "error";
  return *proxy ? (*proxy)->display : "";
}

TEST(ProxyRulesTest, EnvironmentIsReadAsLibcurlDoes) {
  const Environment all = {{"http_proxy", "http://plain:1"},
                           {"https_proxy", "http://lower:2"},
                           {"HTTPS_PROXY", "http://upper:3"},
                           {"all_proxy", "http://all:4"},
                           {"ALL_PROXY", "http://ALL:5"}};
  const std::string http = "http://r.example/";
  const std::string https = "https://r.example/";
  EXPECT_EQ(Chosen(RulesOf(all), http), "http://plain:1");
  EXPECT_EQ(Chosen(RulesOf(all), https), "http://lower:2");
  EXPECT_EQ(Chosen(RulesOf({{"HTTPS_PROXY", "http://upper:3"}}), https), "http://upper:3");
  EXPECT_EQ(Chosen(RulesOf({{"HTTPS_PROXY", "http://upper:3"}}), http), "");
  EXPECT_EQ(Chosen(RulesOf({{"HTTP_PROXY", "http://upper:3"}}), http), "") << "CVE-2016-5385";
  EXPECT_EQ(Chosen(RulesOf({{"ALL_PROXY", "http://all:5"}}), http), "http://all:5");
  EXPECT_EQ(Chosen(RulesOf({{"https_proxy", ""}, {"all_proxy", "http://all:4"}}), https),
            "http://all:4");
  EXPECT_EQ(Chosen(RulesOf({}), https), "");
}

TEST(ProxyRulesTest, ConfigurationGoesBeforeTheEnvironment) {
  const Environment environment = {{"https_proxy", "http://env:1"}, {"no_proxy", "r.example"}};
  EXPECT_EQ(Chosen(RulesOf(environment), "https://r.example/"), "");
  EXPECT_EQ(Chosen(RulesOf(environment, "http://own:2"), "https://q.example/"), "http://own:2");
  EXPECT_EQ(Chosen(RulesOf(environment, "http://own:2"), "https://r.example/"), "");
  EXPECT_EQ(Chosen(RulesOf(environment, "http://own:2", ""), "https://r.example/"), "http://own:2");
  EXPECT_EQ(Chosen(RulesOf(environment, ""), "https://q.example/"), "") << "switched off";
}

TEST(ProxyRulesTest, LoopbackNeedsNoProxy) {
  const ProxyRules rules = RulesOf({}, "http://own:2");
  for (const char* const url : {"http://localhost:5000/", "https://a.localhost/",
                                "http://127.0.0.1/", "http://127.3.2.1/", "http://[::1]/"}) {
    EXPECT_EQ(Chosen(rules, url), "") << url;
  }
}

TEST(ProxyRulesTest, UrlsOfProxies) {
  const struct {
    const char* text;
    const char* display;
  } kCases[] = {
      {"proxy", "http://proxy:1080"},
      {"proxy:3128", "http://proxy:3128"},
      {"https://proxy", "https://proxy:443"},
      {"http://[fd00::1]:8080", "http://[fd00::1]:8080"},
      {"http://user:secret@proxy:3128/", "http://proxy:3128"},
      {"user:secret@proxy:3128", "http://proxy:3128"},
      {"socks5h://proxy", "socks5h://proxy:1080"},
      {"ftp://proxy", "error"},
      {"http://user:se cret@proxy", "error"},
      {"http://user:secret@proxy:port", "error"},
      {"http://", "error"},
  };
  for (const auto& [text, display] : kCases) {
    EXPECT_EQ(Chosen(RulesOf({}, text), "https://r.example/"), display) << text;
  }
}

TEST(ProxyRulesTest, LoginIsForLibcurlAlone) {
  const auto proxy =
      RulesOf({}, "http://user:p%40ss@proxy:3128").Find(*Url::Parse("https://r.example/"));
  ASSERT_TRUE(proxy && *proxy);
  EXPECT_TRUE((*proxy)->has_login);
  EXPECT_EQ((*proxy)->url, "http://user:p%40ss@proxy:3128");
  const auto bad = RulesOf({{"HTTPS_PROXY", "http://user:secret@proxy:port"}})
                       .Find(*Url::Parse("https://r.example/"));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(bad.error().message, AllOf(HasSubstr("HTTPS_PROXY"), Not(HasSubstr("secret"))));
}

TEST(NoProxyTest, Lists) {
  const struct {
    const char* list;
    const char* url;
    bool matches;
  } kCases[] = {
      {"", "http://r.example/", false},
      {"*", "http://r.example/", true},
      {"other, *", "http://r.example/", true},
      {"r.example", "http://r.example/", true},
      {"R.Example.", "http://r.example/", true},
      {"example", "http://r.example/", true},
      {".example", "http://r.example/", true},
      {".r.example", "http://r.example/", true},
      {"xample", "http://r.example/", false},
      {"a.r.example", "http://r.example/", false},
      {".", "http://r.example/", false},
      {"other.example,r.example", "http://r.example/", true},
      {"other.example \t r.example", "http://r.example/", true},
      {" ,, r.example", "http://r.example/", true},
      {"r.example:5000", "http://r.example:5000/", true},
      {"r.example:5000", "http://r.example/", false},
      {"r.example:80", "http://r.example/", true},
      {"r.example:443", "https://r.example/", true},
      {"r.example:", "http://r.example/", false},
      {"10.1.2.3", "http://10.1.2.3/", true},
      {"10.1.2.3:5000", "http://10.1.2.3:5000/", true},
      {"10.1.2.3:5000", "http://10.1.2.3/", false},
      {"2.3", "http://10.1.2.3/", false},
      {"10.0.0.0/8", "http://10.1.2.3/", true},
      {"10.0.0.0/8", "http://11.1.2.3/", false},
      {"10.1.2.0/23", "http://10.1.3.255/", true},
      {"10.1.2.0/23", "http://10.1.4.0/", false},
      {"0.0.0.0/0", "http://10.1.4.0/", true},
      {"10.1.2.3/32", "http://10.1.2.3/", true},
      {"10.1.2.3/33", "http://10.1.2.3/", false},
      {"10.1.2.3/x", "http://10.1.2.3/", false},
      {"10.0.0.0/8", "http://r.example/", false},
      {"fd00::/8", "http://[fd12::1]/", true},
      {"fd00::/8", "http://[fe80::1]/", false},
      {"fd12:0::1", "http://[fd12::1]/", true},
      {"[fd12::1]", "http://[fd12::1]/", true},
      {"[fd12::1]:5000", "http://[fd12::1]:5000/", true},
      {"[fd12::1]:5000", "http://[fd12::1]/", false},
      {"10.0.0.0/8", "http://[::ffff:10.1.2.3]/", false},
  };
  for (const auto& [list, url, matches] : kCases) {
    EXPECT_EQ(MatchesNoProxy(list, *Url::Parse(url)), matches) << list << " " << url;
  }
}

}  // namespace
}  // namespace ocifs::fetch
