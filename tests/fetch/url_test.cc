#include "fetch/url.h"

#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

TEST(UrlTest, KeepsThePartsThatDecide) {
  const auto url = Url::Parse("https://Example.COM:5000/v2/a?x=1#fragment");
  ASSERT_TRUE(url) << url.error().message;
  EXPECT_TRUE(url->is_https());
  EXPECT_EQ(url->host(), "example.com");
  EXPECT_EQ(url->port(), 5000);
  EXPECT_EQ(url->Authority(), "example.com:5000");
  EXPECT_EQ(url->ToString().find("fragment"), std::string::npos);
  EXPECT_EQ(url->ForDisplay().find("x=1"), std::string::npos);
}

TEST(UrlTest, DefaultPorts) {
  EXPECT_EQ(Url::Parse("http://a.example/")->port(), 80);
  EXPECT_EQ(Url::Parse("https://a.example")->port(), 443);
  EXPECT_EQ(Url::Parse("https://[::1]/")->host(), "::1");
  EXPECT_EQ(Url::Parse("http://[::1]:5000/")->Authority(), "[::1]:5000");
}

TEST(UrlTest, RefusesWhatMustNotBeRequested) {
  for (const char* text : {"",
                           "ghcr.io/v2",
                           "file:///etc/passwd",
                           "gopher://h/",
                           "dict://h:1/",
                           "ftp://h/",
                           "unix:/x",
                           "https://user@h/",
                           "https://user:secret@h/",
                           "https://h:0/",
                           "https://h:70000/",
                           "https://h:x/",
                           "https://a b/",
                           "https://h/\r\nX: y",
                           "https://h\n/",
                           "https://[fe80::1%25eth0]/",
                           "https://\xC3\xA9xample.com/",
                           "https://ex%61mple.com:x/",
                           "https:/h/",
                           "https:///h/",
                           "https:h",
                           "://h/",
                           "https:/a/b.e@s://h"}) {
    const auto url = Url::Parse(text);
    EXPECT_FALSE(url) << text;
    if (!url) {
      EXPECT_EQ(url.error().message.find("secret"), std::string::npos);
    }
  }
  EXPECT_FALSE(Url::Parse("https://h/" + std::string(20'000, 'a')));
  EXPECT_FALSE(Url::Parse(std::string_view("https://h/\0x", 12)));
}

TEST(UrlTest, NumericHostTricksBecomeTheAddressTheyMean) {
  // The check of the address and the connection must see the same host.
  for (const char* text : {"http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/"}) {
    const auto url = Url::Parse(text);
    if (url) {
      EXPECT_EQ(url->host(), "127.0.0.1") << text;
    }
  }
}

TEST(UrlTest, ResolvesReferences) {
  const auto base = Url::Parse("https://h.example/v2/a/tags/list?n=2");
  ASSERT_TRUE(base);
  EXPECT_EQ(base->Resolve("/v2/a/tags/list?last=x")->ToString(),
            "https://h.example/v2/a/tags/list?last=x");
  EXPECT_EQ(base->Resolve("https://other.example/y")->host(), "other.example");
  EXPECT_EQ(base->Resolve("//other.example/y")->host(), "other.example");
  EXPECT_TRUE(base->Resolve("/a b")->ToString().ends_with("/a%20b"));
  EXPECT_FALSE(base->Resolve("file:///etc/passwd"));
  EXPECT_FALSE(base->Resolve("https://u:p@other.example/"));
}

TEST(UrlTest, OriginIsSchemeHostAndPort) {
  const auto origin = [](const char* text) { return *Url::Parse(text); };
  EXPECT_TRUE(origin("https://h/a").SameOrigin(origin("https://H:443/b?c")));
  EXPECT_FALSE(origin("https://h/").SameOrigin(origin("http://h/")));
  EXPECT_FALSE(origin("https://h/").SameOrigin(origin("https://h:444/")));
  EXPECT_FALSE(origin("https://h/").SameOrigin(origin("https://h.evil/")));
  EXPECT_FALSE(origin("https://h/").SameOrigin(origin("https://h./")));
}

TEST(UrlTest, AppendsToAQuery) {
  EXPECT_EQ(Url::Parse("https://h/token?a=b")
                ->WithQuery({{"service", "x y"}, {"scope", "repository:a/b:pull"}})
                .ToString(),
            "https://h/token?a=b&service=x%20y&scope=repository%3Aa%2Fb%3Apull");
}

}  // namespace
}  // namespace ocifs::fetch
