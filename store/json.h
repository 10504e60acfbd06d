// The one JSON reader of ocifs. Strict, because what it reads comes from strangers: RFC 8259 text
// in valid UTF-8 without a byte-order mark, nothing after the document, no key twice in an object
// (RFC 7493 section 2.3), integers exact in 64 bits, nesting and size bounded. Iterative: depth
// costs heap, never stack.
#ifndef OCIFS_STORE_JSON_H_
#define OCIFS_STORE_JSON_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "store/error.h"

namespace ocifs::store {

struct JsonLimits {
  size_t max_bytes = size_t{4} << 20;
  int max_depth = 64;
  size_t max_values = 1'000'000;
};

// An immutable JSON value. Thread-compatible.
class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in document order

  // kCorrupt with the byte offset and the reason; kTooLarge beyond a limit.
  static Result<Json> Parse(std::string_view text, const JsonLimits& limits = {});

  Json() = default;
  explicit Json(bool value) : value_(value) {}
  explicit Json(int64_t value) : value_(value) {}
  explicit Json(double value) : value_(value) {}
  explicit Json(std::string value) : value_(std::move(value)) {}
  explicit Json(Array value) : value_(std::move(value)) {}
  explicit Json(Object value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  // Null when the value has another type. A number with a fraction or an exponent, or outside
  // int64, is a double and never an integer.
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&value_); }
  const double* number() const { return std::get_if<double>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

  // The member of an object; null when absent or when this is no object. Linear: objects that
  // matter here have a dozen members.
  const Json* Find(std::string_view key) const;
  // The string that it is; empty when it is absent or no string.
  std::string FindText(std::string_view key) const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// Writes `text` as a JSON string, quotes included. Bytes that are not UTF-8 become U+FFFD.
std::string JsonQuote(std::string_view text);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_JSON_H_
