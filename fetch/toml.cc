#include "fetch/toml.h"

#include <algorithm>
#include <tuple>

#include <toml++/toml.h>

namespace ocifs::fetch {

using store::ErrorCode;
using store::Fail;
using store::Result;

namespace {

std::unexpected<store::Error> WrongAt(const std::string& file, uint32_t line,
                                      std::string_view why) {
  return Fail(ErrorCode::kInvalid, file + ":" + std::to_string(line) + ": " + std::string(why));
}

// toml++ bounds the nesting of values, not that of tables: "a.a.a = 1" is as deep as it has dots,
// and deep trees overflow the stack when they are destroyed. Lines of these files have a few dots;
// what goes beyond, in all lines together, bounds the depth.
Result<void> CheckDots(std::string_view text, const std::string& file) {
  constexpr size_t kOrdinary = 16;
  constexpr size_t kMaxExtraordinary = 4096;
  size_t extraordinary = 0;
  uint32_t line = 1;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const auto dots =
        static_cast<size_t>(std::count(text.begin(), text.begin() + static_cast<long>(end), '.'));
    if (dots > kOrdinary) extraordinary += dots - kOrdinary;
    if (extraordinary > kMaxExtraordinary) return WrongAt(file, line, "too many dots");
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line;
  }
  return {};
}

}  // namespace

struct TomlBuilder {
  const std::string& file;

  Result<Toml> Build(const toml::node& node, int depth) const {
    Toml out;
    out.line_ = std::max<uint32_t>(node.source().begin.line, 1);
    if (depth > Toml::kMaxDepth) return WrongAt(file, out.line_, "nested too deeply");
    if (const auto text = node.value_exact<std::string>()) {
      out.value_ = *text;
    } else if (const auto flag = node.value_exact<bool>()) {
      out.value_ = *flag;
    } else if (const toml::array* const array = node.as_array()) {
      OCIFS_ASSIGN_OR_RETURN(out.value_, BuildArray(*array, depth));
    } else if (const toml::table* const table = node.as_table()) {
      OCIFS_ASSIGN_OR_RETURN(out.value_, BuildTable(*table, depth));
    }
    return out;
  }

  Result<Toml::Array> BuildArray(const toml::array& array, int depth) const {
    Toml::Array items;
    items.reserve(array.size());
    for (const toml::node& item : array) {
      OCIFS_ASSIGN_OR_RETURN(Toml value, Build(item, depth + 1));
      items.push_back(std::move(value));
    }
    return items;
  }

  Result<Toml::Table> BuildTable(const toml::table& table, int depth) const {
    // A key's own position is where it first stands, also if that is inside of a longer path.
    std::vector<std::tuple<uint32_t, uint32_t, Toml::Member>> members;
    members.reserve(table.size());
    for (const auto& [key, node] : table) {
      OCIFS_ASSIGN_OR_RETURN(Toml value, Build(node, depth + 1));
      const toml::source_position& place = key.source().begin;
      members.emplace_back(place.line, place.column,
                           Toml::Member(std::string(key.str()), std::move(value)));
    }
    std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) {
      return std::tie(std::get<0>(a), std::get<1>(a)) < std::tie(std::get<0>(b), std::get<1>(b));
    });
    Toml::Table sorted;
    sorted.reserve(members.size());
    for (auto& member : members) sorted.push_back(std::move(std::get<2>(member)));
    return sorted;
  }
};

Result<Toml> Toml::Parse(std::string_view text, const std::string& file) {
  if (text.size() > kMaxBytes) {
    return Fail(ErrorCode::kInvalid,
                file + ": longer than " + std::to_string(kMaxBytes) + " bytes");
  }
  OCIFS_RETURN_IF_ERROR(CheckDots(text, file));
  try {
    const toml::table root = toml::parse(text, std::string_view(file));
    return TomlBuilder{file}.Build(root, 0);
  } catch (const toml::parse_error& error) {
    std::string_view why = error.description();
    // What it saw may be part of a secret.
    why = why.substr(0, why.find(", saw "));
    return WrongAt(file, error.source().begin.line, why);
  }
}

const Toml* Toml::Find(std::string_view key) const {
  const Table* const members = table();
  if (members == nullptr) return nullptr;
  for (const auto& [name, value] : *members) {
    if (name == key) return &value;
  }
  return nullptr;
}

Result<bool> TomlReader::Bool(std::string_view key, bool otherwise) const {
  const Toml* const value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->boolean() == nullptr) {
    return Wrong(*value, "'" + std::string(key) + "' has to be true or false");
  }
  return *value->boolean();
}

Result<std::string> TomlReader::Text(std::string_view key) const {
  const Toml* const value = Find(key);
  if (value == nullptr) return std::string();
  if (value->string() == nullptr) {
    return Wrong(*value, "'" + std::string(key) + "' has to be a string");
  }
  return *value->string();
}

Result<std::vector<std::string>> TomlReader::Texts(std::string_view key) const {
  const Toml* const value = Find(key);
  if (value == nullptr) return std::vector<std::string>();
  if (value->string() != nullptr) return std::vector<std::string>{*value->string()};
  const std::string wanted = "'" + std::string(key) + "' has to be a string or a list of strings";
  if (value->array() == nullptr) return Wrong(*value, wanted);
  std::vector<std::string> texts;
  for (const Toml& item : *value->array()) {
    if (item.string() == nullptr) return Wrong(item, wanted);
    texts.push_back(*item.string());
  }
  return texts;
}

std::unexpected<store::Error> TomlReader::Wrong(const Toml& value, std::string_view why) const {
  return WrongAt(file_, value.line(), why);
}

}  // namespace ocifs::fetch
