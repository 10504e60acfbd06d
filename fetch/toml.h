// TOML 1.0 as the files of other tools use it: values with their lines, tables in the order of the
// file. The only place in this module that knows toml++, which sorts its tables.
#ifndef OCIFS_FETCH_TOML_H_
#define OCIFS_FETCH_TOML_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "store/error.h"

namespace ocifs::fetch {

// An immutable TOML value. Thread-compatible.
class Toml {
 public:
  using Array = std::vector<Toml>;
  using Member = std::pair<std::string, Toml>;
  using Table = std::vector<Member>;  // in the order in which the keys first stand in the file

  static constexpr size_t kMaxBytes = size_t{1} << 20;
  static constexpr int kMaxDepth = 64;

  // The top-level table. kInvalid, "file:line: why", when `text` is not TOML, or is longer or
  // nested deeper than the bounds; the message quotes no value.
  static store::Result<Toml> Parse(std::string_view text, const std::string& file);

  Toml() = default;

  uint32_t line() const { return line_; }  // 1 is the first
  // Null when the value has another type; numbers and times, which nothing here needs, have none.
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Table* table() const { return std::get_if<Table>(&value_); }

  // The member of a table; null when absent or when this is no table. Linear.
  const Toml* Find(std::string_view key) const;

 private:
  friend struct TomlBuilder;
  std::variant<std::monostate, bool, std::string, Array, Table> value_;
  uint32_t line_ = 1;
};

// Typed members of one table, for files whose unknown keys belong to others and are passed over.
// Owned by one thread; must not outlive the table.
class TomlReader {
 public:
  TomlReader(const Toml& table, std::string file) : table_(table), file_(std::move(file)) {}

  // What the key holds, `otherwise` when it is absent; kInvalid when it is of another type.
  store::Result<bool> Bool(std::string_view key, bool otherwise) const;
  store::Result<std::string> Text(std::string_view key) const;
  // One string, or an array of strings.
  store::Result<std::vector<std::string>> Texts(std::string_view key) const;

  const Toml* Find(std::string_view key) const { return table_.Find(key); }
  // kInvalid: "file:line: why".
  std::unexpected<store::Error> Wrong(const Toml& value, std::string_view why) const;

 private:
  const Toml& table_;
  const std::string file_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_TOML_H_
