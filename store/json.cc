#include "store/json.h"

#define RAPIDJSON_HAS_STDSTRING 1
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <charconv>
#include <system_error>
#include <unordered_set>

#include "store/text.h"

namespace ocifs::store {
namespace {

// Builds the value tree from RapidJSON's events. Returning false stops the parser; `failure_` then
// says why.
class TreeHandler {
 public:
  explicit TreeHandler(const JsonLimits& limits) : limits_(limits) {}

  bool Null() { return Add(Json()); }
  bool Bool(bool value) { return Add(Json(value)); }
  // Numbers come as they stand (kParseNumbersAsStringsFlag).
  bool Int(int) { return false; }
  bool Uint(unsigned) { return false; }
  bool Int64(int64_t) { return false; }
  bool Uint64(uint64_t) { return false; }
  bool Double(double) { return false; }
  bool RawNumber(const char* text, rapidjson::SizeType length, bool) {
    const char* const end = text + length;
    int64_t integer = 0;
    if (const auto read = std::from_chars(text, end, integer);
        read.ec == std::errc() && read.ptr == end) {
      return Add(Json(integer));
    }
    double number = 0;
    if (const auto read = std::from_chars(text, end, number);
        read.ec != std::errc() || read.ptr != end) {
      return Refuse(ErrorCode::kCorrupt, "a number is out of range");
    }
    return Add(Json(number));
  }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    return CheckText({text, length}) && Add(Json(std::string(text, length)));
  }
  bool Key(const char* text, rapidjson::SizeType length, bool) {
    if (!CheckText({text, length})) return false;
    Frame& frame = stack_.back();
    frame.key.assign(text, length);
    if (!frame.keys.insert(frame.key).second) {
      return Refuse(ErrorCode::kCorrupt,
                    "key \"" + frame.key.substr(0, 100) + "\" stands twice in one object");
    }
    return true;
  }
  bool StartObject() { return Open(true); }
  bool StartArray() { return Open(false); }
  bool EndObject(rapidjson::SizeType) { return Close(); }
  bool EndArray(rapidjson::SizeType) { return Close(); }

  std::optional<Error> TakeFailure() { return std::move(failure_); }
  Json TakeRoot() { return std::move(root_); }

 private:
  struct Frame {
    bool is_object;
    Json::Object members;
    Json::Array items;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  bool Refuse(ErrorCode code, std::string reason) {
    failure_ = Error{code, std::move(reason)};
    return false;
  }
  // RapidJSON lets the escape of a lone low surrogate through.
  bool CheckText(std::string_view text) {
    return IsValidUtf8(text) || Refuse(ErrorCode::kCorrupt, "a string escapes half a character");
  }
  bool Open(bool is_object) {
    if (stack_.size() >= static_cast<size_t>(limits_.max_depth)) {
      return Refuse(ErrorCode::kCorrupt,
                    "nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    stack_.push_back(Frame{is_object, {}, {}, {}, {}});
    return true;
  }
  bool Close() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    return Add(frame.is_object ? Json(std::move(frame.members)) : Json(std::move(frame.items)));
  }
  bool Add(Json value) {
    if (++count_ > limits_.max_values) {
      return Refuse(ErrorCode::kTooLarge,
                    "more than " + std::to_string(limits_.max_values) + " values");
    }
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (Frame& frame = stack_.back(); frame.is_object) {
      frame.members.emplace_back(std::move(frame.key), std::move(value));
    } else {
      frame.items.push_back(std::move(value));
    }
    return true;
  }

  const JsonLimits& limits_;
  std::vector<Frame> stack_;
  Json root_;
  size_t count_ = 0;
  std::optional<Error> failure_;
};

}  // namespace

Result<Json> Json::Parse(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Fail(ErrorCode::kTooLarge, "JSON document of " + std::to_string(text.size()) +
                                          " bytes; at most " + std::to_string(limits.max_bytes) +
                                          " are read");
  }
  TreeHandler handler(limits);
  rapidjson::MemoryStream stream(text.data(), text.size());
  rapidjson::Reader reader;
  // RapidJSON 1.1.0 reads beyond a table when it turns "1.000…e-100000" into a double; numbers are
  // taken as text, and the standard library converts them.
  constexpr unsigned kFlags = rapidjson::kParseIterativeFlag |
                              rapidjson::kParseValidateEncodingFlag |
                              rapidjson::kParseNumbersAsStringsFlag;
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, handler);
  if (result.IsError()) {
    if (std::optional<Error> failure = handler.TakeFailure()) {
      return Fail(std::move(*failure).Wrap("JSON document"));
    }
    return Fail(ErrorCode::kCorrupt, std::string("JSON document, byte ") +
                                         std::to_string(result.Offset()) + ": " +
                                         rapidjson::GetParseError_En(result.Code()));
  }
  // A NUL looks like the end to RapidJSON.
  if (stream.Tell() != text.size()) {
    return Fail(ErrorCode::kCorrupt,
                "JSON document, byte " + std::to_string(stream.Tell()) + ": text follows a NUL");
  }
  return handler.TakeRoot();
}

const Json* Json::Find(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  for (const Member& member : *members) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

std::string Json::FindText(std::string_view key) const {
  const Json* const member = Find(key);
  const std::string* const text = member == nullptr ? nullptr : member->string();
  return text == nullptr ? "" : *text;
}

std::string JsonQuote(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text[0]);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(text[0]);
    } else if (c < 0x20 || c == 0x7F) {
      out.append("\\u00");
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    } else if (c < 0x80) {
      out.push_back(text[0]);
    } else {
      size_t length = 2;
      while (length <= 4 && length <= text.size() && !IsValidUtf8(text.substr(0, length))) ++length;
      if (length <= 4 && length <= text.size()) {
        out.append(text.substr(0, length));
        text.remove_prefix(length);
        continue;
      }
      out.append("\xEF\xBF\xBD");
    }
    text.remove_prefix(1);
  }
  out.push_back('"');
  return out;
}

}  // namespace ocifs::store
