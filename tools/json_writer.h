// JSON text, written member by member.
#ifndef OCIFS_TOOLS_JSON_WRITER_H_
#define OCIFS_TOOLS_JSON_WRITER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/json.h"

namespace ocifs::tools {

// One object. Members come out in the order of the calls.
class JsonObject {
 public:
  JsonObject& Text(std::string_view key, std::string_view value) {
    return Raw(key, store::JsonQuote(value));
  }
  JsonObject& OptionalText(std::string_view key, const std::optional<std::string>& value) {
    return Raw(key, value ? store::JsonQuote(*value) : "null");
  }
  JsonObject& Number(std::string_view key, uint64_t value) {
    return Raw(key, std::to_string(value));
  }
  JsonObject& Bool(std::string_view key, bool value) { return Raw(key, value ? "true" : "false"); }
  JsonObject& Raw(std::string_view key, std::string_view json) {
    if (!members_.empty()) members_.push_back(',');
    members_.append(store::JsonQuote(key)).append(":").append(json);
    return *this;
  }
  std::string Finish() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

class JsonArray {
 public:
  void Add(std::string_view json) {
    if (!items_.empty()) items_.append(",\n ");
    items_.append(json);
  }
  std::string Finish() const { return "[" + items_ + "]"; }

 private:
  std::string items_;
};

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_JSON_WRITER_H_
