#include "fetch/registry_answer.h"

#include <algorithm>
#include <utility>

#include "store/json.h"
#include "store/reference.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Json;
using store::Result;

std::string Cut(std::string_view text, size_t length) {
  if (text.size() <= length) return std::string(text);
  return std::string(text.substr(0, length)) + "…";
}

bool IsHtml(std::string_view media_type) {
  return media_type == "text/html" || media_type == "application/xhtml+xml";
}

const Json::Array* ErrorsOf(const Json& body) {
  const Json* const errors = body.Find("errors");
  return errors == nullptr ? nullptr : errors->array();
}

// Whether the parameters of one link (";rel=next; title=x") hold the relation "next", and where
// they end. Quoted strings may hold any of the separators.
bool TakeParameters(std::string_view& rest) {
  bool is_next = false;
  while (true) {
    rest = store::TrimSpace(rest);
    if (!rest.starts_with(';')) return is_next;
    rest = store::TrimSpace(rest.substr(1));
    const size_t name_end = std::min(rest.find_first_of("=;,"), rest.size());
    const std::string_view name = store::TrimSpace(rest.substr(0, name_end));
    rest.remove_prefix(name_end);
    if (!rest.starts_with('=')) continue;
    rest = store::TrimSpace(rest.substr(1));
    std::string_view value;
    if (rest.starts_with('"')) {
      const size_t close = std::min(rest.find('"', 1), rest.size());
      value = rest.substr(1, close - 1);
      rest.remove_prefix(std::min(close + 1, rest.size()));
    } else {
      const size_t end = std::min(rest.find_first_of(";,"), rest.size());
      value = store::TrimSpace(rest.substr(0, end));
      rest.remove_prefix(end);
    }
    if (!store::EqualsIgnoringCase(name, "rel")) continue;
    while (!value.empty()) {
      const size_t end = std::min(value.find(' '), value.size());
      if (store::EqualsIgnoringCase(value.substr(0, end), "next")) is_next = true;
      value.remove_prefix(std::min(end + 1, value.size()));
    }
  }
}

}  // namespace

bool IsHtml(const HttpHead& head) { return IsHtml(head.MediaType()); }

std::string WebPageMessage(std::string_view what) {
  return std::string(what) +
         ": answered with a web page; is there a login page or a proxy in the way?";
}

std::string QuoteErrorBody(std::string_view media_type, std::string_view body) {
  if (IsHtml(media_type)) return "";
  if (const Result<Json> parsed = Json::Parse(body, {.max_bytes = kMaxErrorBodyBytes}); parsed) {
    if (const Json::Array* const errors = ErrorsOf(*parsed);
        errors != nullptr && !errors->empty()) {
      const std::string code = errors->front().FindText("code");
      const std::string message = errors->front().FindText("message");
      if (code.empty() && message.empty()) return "";
      return Cut(": " + code + (code.empty() || message.empty() ? "" : ": ") + message,
                 kMaxQuotedBytes);
    }
    // What token servers and gateways write.
    for (const std::string_view key : {"details", "message", "error_description", "error"}) {
      if (const std::string text = parsed->FindText(key); !text.empty()) {
        return Cut(": " + text, kMaxQuotedBytes);
      }
    }
    return "";
  }
  if (media_type != "text/plain") return "";
  const std::string_view line = store::TrimSpace(body.substr(0, body.find_first_of("\r\n")));
  return line.empty() ? "" : Cut(": " + std::string(line), kMaxQuotedBytes);
}

bool IsRegistryAnswer(const HttpHead& head, std::string_view body) {
  if (head.headers.Find("docker-distribution-api-version") != nullptr) return true;
  const std::string media_type = head.MediaType();
  // What web servers say to a path that they have nothing for: "404 page not found".
  if (media_type == "text/plain" || IsHtml(media_type)) return false;
  const Result<Json> parsed = Json::Parse(body, {.max_bytes = kMaxErrorBodyBytes});
  if (parsed) return ErrorsOf(*parsed) != nullptr;
  // The specification allows a 404 without a body.
  return body.empty();
}

Error ErrorFromAnswer(std::string_view what, const HttpHead& head, std::string_view body) {
  const std::string quote = QuoteErrorBody(head.MediaType(), body);
  const std::string prefix = std::string(what) + ": ";
  const std::string status = std::to_string(head.status);
  switch (head.status) {
    case 401:
      return {ErrorCode::kUnauthenticated, prefix + "401, a login is needed" + quote};
    case 403:
      return {ErrorCode::kDenied,
              prefix + "403, this login may not read it, or it does not exist" + quote};
    case 404:
    case 410:
      if (IsRegistryAnswer(head, body)) {
        return {ErrorCode::kNotFound, prefix + status + ", it does not exist" + quote};
      }
      return {ErrorCode::kRemote,
              prefix + status + ", but not in the form of a registry; is the host a registry?"};
    case 408:
      return {ErrorCode::kTimedOut, prefix + "408, the server gave up waiting" + quote};
    case 429: {
      const std::string* const wait = head.headers.Find("retry-after");
      return {
          ErrorCode::kRateLimited,
          prefix + "429, too many requests; " +
              (wait == nullptr ? std::string("try again later")
                               : "the server asks to wait (Retry-After: " + Cut(*wait, 40) + ")") +
              quote};
    }
    default:
      if (head.status >= 500) {
        return {ErrorCode::kRemote, prefix + status + ", the server failed" + quote};
      }
      return {ErrorCode::kRemote, prefix + "unexpected status " + status + quote};
  }
}

Result<std::optional<Url>> NextLink(const HttpHeaders& headers, const Url& base) {
  for (const std::string& header : headers.FindAll("link")) {
    std::string_view rest = header;
    while (true) {
      const size_t open = rest.find('<');
      if (open == std::string_view::npos) break;
      const size_t close = rest.find('>', open);
      if (close == std::string_view::npos) break;
      const std::string_view target = rest.substr(open + 1, close - open - 1);
      rest.remove_prefix(close + 1);
      if (!TakeParameters(rest)) continue;
      Result<Url> next = base.Resolve(target);
      if (!next) return Fail(ErrorCode::kRemote, "Link to the next page: " + next.error().message);
      if (!next->SameOrigin(base)) {
        return Fail(ErrorCode::kRemote,
                    "Link to the next page leads to another server, " + next->Authority());
      }
      return std::optional(*std::move(next));
    }
  }
  return std::nullopt;
}

namespace {

// The strings of one array member that `is_valid` accepts; null stands for an empty array.
template <typename Predicate>
Result<std::vector<std::string>> ParseNames(std::string_view body, size_t max_bytes,
                                            std::string_view what, std::string_view member,
                                            Predicate is_valid) {
  const std::string not_a = "not a " + std::string(what) + ": ";
  const std::string quoted = "\"" + std::string(member) + "\"";
  const Result<Json> parsed = Json::Parse(body, {.max_bytes = max_bytes});
  if (!parsed) {
    const bool too_large = parsed.error().code == ErrorCode::kTooLarge;
    return Fail(too_large ? ErrorCode::kTooLarge : ErrorCode::kRemote,
                not_a + parsed.error().message);
  }
  const Json* const list = parsed->Find(member);
  if (parsed->object() == nullptr || list == nullptr) {
    return Fail(ErrorCode::kRemote, not_a + "no " + quoted);
  }
  std::vector<std::string> names;
  if (list->is_null()) return names;
  if (list->array() == nullptr) return Fail(ErrorCode::kRemote, not_a + quoted + " is no array");
  names.reserve(list->array()->size());
  for (const Json& item : *list->array()) {
    const std::string* const name = item.string();
    if (name != nullptr && is_valid(*name)) names.push_back(*name);
  }
  return names;
}

}  // namespace

Result<std::vector<std::string>> ParseTagList(std::string_view body, size_t max_bytes) {
  return ParseNames(body, max_bytes, "tag list", "tags",
                    [](const std::string& name) { return store::Tag::Parse(name).has_value(); });
}

Result<std::vector<std::string>> ParseCatalog(std::string_view body, size_t max_bytes) {
  const Result<store::Registry> any = store::Registry::Parse("registry.invalid");
  if (!any) return Fail(any.error());
  return ParseNames(body, max_bytes, "catalog", "repositories", [&any](const std::string& name) {
    return store::Repository::Parse(*any, name).has_value();
  });
}

}  // namespace ocifs::fetch
