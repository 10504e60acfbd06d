#include "fetch/registry_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

HttpHead Head(int status, const char* media_type = "application/json") {
  HttpHead head{.status = status};
  if (*media_type != '\0') head.headers.Add("content-type", media_type);
  return head;
}

constexpr std::string_view kUnknown =
    R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag","detail":{}}]})";

TEST(RegistryAnswerTest, StatusBecomesACode) {
  const std::pair<int, ErrorCode> cases[] = {
      {401, ErrorCode::kUnauthenticated}, {403, ErrorCode::kDenied},
      {404, ErrorCode::kNotFound},        {408, ErrorCode::kTimedOut},
      {429, ErrorCode::kRateLimited},     {500, ErrorCode::kRemote},
      {503, ErrorCode::kRemote},          {418, ErrorCode::kRemote},
      {206, ErrorCode::kRemote},          {304, ErrorCode::kRemote}};
  for (const auto& [status, code] : cases) {
    const auto error = ErrorFromAnswer("GET https://h/x", Head(status), kUnknown);
    EXPECT_EQ(error.code, code) << status;
    EXPECT_THAT(error.message, HasSubstr("MANIFEST_UNKNOWN: no such tag")) << status;
  }
}

TEST(RegistryAnswerTest, OnlyARegistryMaySayNotFound) {
  auto code = [](const HttpHead& head, std::string_view body) {
    return ErrorFromAnswer("GET x", head, body).code;
  };
  EXPECT_EQ(code(Head(404, "text/plain; charset=utf-8"), "404 page not found\n"),
            ErrorCode::kRemote)
      << "so answers any web server that lacks a path";
  EXPECT_EQ(code(Head(404, ""), ""), ErrorCode::kNotFound);
  EXPECT_EQ(code(Head(404, "application/vnd.oci.error+json"), kUnknown), ErrorCode::kNotFound);
  EXPECT_EQ(code(Head(404, "text/html; charset=utf-8"), "<html>not found"), ErrorCode::kRemote);
  EXPECT_EQ(code(Head(404, "application/json"), R"({"message":"no Route matched"})"),
            ErrorCode::kRemote);
  HttpHead versioned = Head(404, "text/html");
  versioned.headers.Add("docker-distribution-api-version", "registry/2.0");
  EXPECT_EQ(code(versioned, "<html>"), ErrorCode::kNotFound);
}

TEST(RegistryAnswerTest, QuotesAreShort) {
  const std::string long_message =
      R"({"errors":[{"code":"UNKNOWN","message":")" + std::string(60'000, 'm') + R"("}]})";
  EXPECT_LE(QuoteErrorBody("application/json", long_message).size(), kMaxQuotedBytes + 3);
  EXPECT_EQ(QuoteErrorBody("text/html", "<script>"), "");
  EXPECT_EQ(QuoteErrorBody("application/json", "[[[["), "");
  EXPECT_EQ(QuoteErrorBody("text/plain", "first\nsecond"), ": first");
  EXPECT_EQ(QuoteErrorBody("application/json", R"({"errors":[]})"), "");
}

TEST(RegistryAnswerTest, RetryAfterIsTold) {
  HttpHead head = Head(429);
  head.headers.Add("retry-after", "120");
  EXPECT_THAT(ErrorFromAnswer("GET x", head, "").message, HasSubstr("Retry-After: 120"));
}

std::string Next(const char* link) {
  HttpHeaders headers;
  headers.Add("link", link);
  const auto base = Url::Parse("https://h.example/v2/a/tags/list");
  const auto next = NextLink(headers, *base);
  if (!next) return std::string(store::ErrorCodeName(next.error().code));
  return *next ? (*next)->ToString() : "none";
}

TEST(RegistryAnswerTest, NextLinks) {
  EXPECT_EQ(Next(R"(</v2/a/tags/list?last=x>; rel="next")"),
            "https://h.example/v2/a/tags/list?last=x");
  EXPECT_EQ(Next(R"(<https://h.example/v2/b>; rel=next)"), "https://h.example/v2/b");
  EXPECT_EQ(Next(R"(</p>; rel="prev", </n>; title="a, b; <c>"; REL="last Next")"),
            "https://h.example/n");
  EXPECT_EQ(Next(R"(</p>; rel="prev")"), "none");
  EXPECT_EQ(Next("</p"), "none");
  EXPECT_EQ(Next("</p>;rel"), "none");
  EXPECT_EQ(Next(R"(</p>;rel=")"), "none");
  EXPECT_EQ(Next(""), "none");
}

TEST(RegistryAnswerTest, LinkToAnotherServerIsRefused) {
  for (const char* link :
       {R"(<https://evil.example/v2/a>; rel="next")", R"(<http://h.example/v2/a>; rel="next")",
        R"(<https://h.example:444/v2/a>; rel="next")", R"(<//169.254.169.254/x>; rel="next")",
        R"(<file:///etc/passwd>; rel="next")"}) {
    EXPECT_EQ(Next(link), "remote") << link;
  }
}

TEST(RegistryAnswerTest, TagLists) {
  EXPECT_THAT(*ParseTagList(R"({"name":"a","tags":["1.0","latest"]})", 1 << 20),
              ElementsAre("1.0", "latest"));
  EXPECT_TRUE(ParseTagList(R"({"name":"a","tags":null})", 1 << 20)->empty());
  EXPECT_THAT(
      *ParseTagList(R"({"tags":["ok","../../etc",".hidden","",7,null,"a/b","\n"]})", 1 << 20),
      ElementsAre("ok"));
  for (const char* text : {"", "{}", "[]", R"({"tags":"x"})", "<html>"}) {
    EXPECT_EQ(ParseTagList(text, 1 << 20).error().code, ErrorCode::kRemote) << text;
  }
}

}  // namespace
}  // namespace ocifs::fetch
