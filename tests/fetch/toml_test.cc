#include "fetch/toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Keys(const Toml* table) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : *table->table()) keys.push_back(key);
  return keys;
}

// "ok", or the message.
std::string Parsed(const std::string& text) {
  const auto toml = Toml::Parse(text, "f.toml");
  if (toml) return "ok";
  EXPECT_EQ(toml.error().code, store::ErrorCode::kInvalid);
  return toml.error().message;
}

TEST(TomlTest, TablesKeepTheOrderOfTheFile) {
  const auto toml = Toml::Parse(R"(
z = "1"
[host."https://c.example".header]
x = "y"
[host."https://b.example"]
[host.a]
[host."https://c.example"]
z = true
a = true
)",
                                "f.toml");
  ASSERT_TRUE(toml) << toml.error().message;
  EXPECT_THAT(Keys(&*toml), ElementsAre("z", "host"));
  const Toml* const hosts = toml->Find("host");
  // As in containerd, a host stands where its name first does, even if only with its headers.
  EXPECT_THAT(Keys(hosts), ElementsAre("https://c.example", "https://b.example", "a"));
  EXPECT_THAT(Keys(hosts->Find("https://c.example")), ElementsAre("header", "z", "a"));
  EXPECT_EQ(hosts->Find("https://b.example")->line(), 5u);
}

TEST(TomlTest, ValuesHaveTheirTypesAndLines) {
  const auto toml = Toml::Parse("a = \"x\"\nb = true\nc = [\"1\",\n\"2\"]\nd = 5", "f.toml");
  ASSERT_TRUE(toml) << toml.error().message;
  EXPECT_EQ(*toml->Find("a")->string(), "x");
  EXPECT_TRUE(*toml->Find("b")->boolean());
  EXPECT_EQ(toml->Find("b")->line(), 2u);
  EXPECT_EQ((*toml->Find("c")->array())[1].line(), 4u);
  EXPECT_EQ(toml->Find("d")->string(), nullptr);
  EXPECT_EQ(toml->Find("e"), nullptr);
  EXPECT_EQ(toml->Find("a")->Find("e"), nullptr);
}

TEST(TomlTest, WhatIsNoTomlIsRefusedWithItsLine) {
  EXPECT_THAT(Parsed("a = 1\nb = \n"), HasSubstr("f.toml:2: "));
  EXPECT_THAT(Parsed("a = 1\na = 2\n"), HasSubstr("f.toml:2: "));
  EXPECT_THAT(Parsed(std::string("a = \"\0\"", 7)), HasSubstr("f.toml:1: "));
  EXPECT_THAT(Parsed("\n\na = \"\xFF\"\n"), HasSubstr("f.toml:3: "));
}

TEST(TomlTest, MessagesQuoteNoValue) {
  for (const char* text :
       {"x = hunter2\"", "x = \"hunter2", "x = \"a\" \"hunter2\"", "x = {a=\"hunter2\"",
        "x = truehunter2", "x = [hunter2", "x = hunter2", "hunter2\n=", "x = 0xhunter2"}) {
    EXPECT_THAT(Parsed(text), HasSubstr("f.toml:1: ")) << text;
    EXPECT_THAT(Parsed(text), Not(HasSubstr("hunter2"))) << text;
    EXPECT_THAT(Parsed(text), Not(HasSubstr("saw"))) << text;
  }
}

TEST(TomlTest, DepthAndSizeAreBounded) {
  auto deep = [](size_t dots) {
    std::string path = "a";
    for (size_t i = 0; i < dots; ++i) path += ".a";
    return path;
  };
  EXPECT_EQ(Parsed("[" + deep(50) + "]"), "ok");
  EXPECT_EQ(Parsed("\n[" + deep(100) + "]"), "f.toml:2: nested too deeply");
  EXPECT_EQ(Parsed("\n[" + deep(300'000) + "]"), "f.toml:2: too many dots");
  std::string lines;
  for (int i = 0; i < 30; ++i) lines += "[b" + std::to_string(i) + "." + deep(200) + "]\n";
  EXPECT_THAT(Parsed(lines), HasSubstr("too many dots"));
  // Many lines with a few dots are what these files consist of.
  lines.clear();
  for (int i = 0; i < 5000; ++i) lines += "k" + std::to_string(i) + " = \"a.b.c.d/e.f\"\n";
  EXPECT_EQ(Parsed(lines), "ok");
  EXPECT_EQ(Parsed("#" + std::string(Toml::kMaxBytes - 1, 'x')), "ok");
  EXPECT_THAT(Parsed("#" + std::string(Toml::kMaxBytes, 'x')), HasSubstr("f.toml: longer than"));
}

}  // namespace
}  // namespace ocifs::fetch
