#include "fetch/content_range.h"

#include "store/text.h"

namespace ocifs::fetch {

std::optional<ContentRange> ParseContentRange(std::string_view value) {
  constexpr std::string_view kUnit = "bytes ";
  if (!value.starts_with(kUnit)) return std::nullopt;
  value.remove_prefix(kUnit.size());
  const size_t dash = value.find('-');
  const size_t slash = value.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) {
    return std::nullopt;
  }
  const auto first = store::ParseDecimal(value.substr(0, dash), INT64_MAX);
  const auto last = store::ParseDecimal(value.substr(dash + 1, slash - dash - 1), INT64_MAX);
  if (!first || !last || *last < *first) return std::nullopt;
  ContentRange range{.first = *first, .last = *last, .total = std::nullopt};
  const std::string_view total = value.substr(slash + 1);
  if (total == "*") return range;
  range.total = store::ParseDecimal(total, INT64_MAX);
  if (!range.total || *range.total <= range.last) return std::nullopt;
  return range;
}

}  // namespace ocifs::fetch
