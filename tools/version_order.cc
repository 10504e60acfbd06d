#include "tools/version_order.h"

#include <algorithm>
#include <array>
#include <compare>
#include <optional>
#include <string_view>
#include <utility>

namespace ocifs::tools {
namespace {

bool IsNumber(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Of any length: dates and build counters stand in tags too.
std::strong_ordering CompareNumbers(std::string_view a, std::string_view b) {
  a.remove_prefix(std::min(a.find_first_not_of('0'), a.size()));
  b.remove_prefix(std::min(b.find_first_not_of('0'), b.size()));
  if (a.size() != b.size()) return a.size() <=> b.size();
  return a <=> b;
}

// Up to the next `separator`, which is taken away too.
std::string_view Take(std::string_view& rest, char separator) {
  const size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

struct Version {
  std::array<std::string_view, 3> numbers = {"0", "0", "0"};
  std::string_view pre_release;  // empty: none
};

std::optional<Version> ParseVersion(std::string_view tag) {
  if (tag.starts_with('v')) tag.remove_prefix(1);
  const size_t build = std::min(tag.find('_'), tag.size());
  tag = tag.substr(0, build);
  Version version;
  const size_t dash = tag.find('-');
  if (dash != std::string_view::npos) {
    version.pre_release = tag.substr(dash + 1);
    if (version.pre_release.empty()) return std::nullopt;
    tag = tag.substr(0, dash);
  }
  for (std::string_view& number : version.numbers) {
    const bool more = tag.find('.') != std::string_view::npos;
    number = Take(tag, '.');
    if (!IsNumber(number)) return std::nullopt;
    if (!more) return version;
  }
  return std::nullopt;  // a fourth number
}

std::strong_ordering ComparePreReleases(std::string_view a, std::string_view b) {
  // A version comes after its pre-releases.
  if (a.empty() || b.empty()) return a.empty() <=> b.empty();
  while (!a.empty() && !b.empty()) {
    const std::string_view x = Take(a, '.');
    const std::string_view y = Take(b, '.');
    const bool both_numbers = IsNumber(x) && IsNumber(y);
    // Numbers come before words.
    if (IsNumber(x) != IsNumber(y)) {
      return IsNumber(x) ? std::strong_ordering::less : std::strong_ordering::greater;
    }
    const std::strong_ordering order = both_numbers ? CompareNumbers(x, y) : x <=> y;
    if (order != 0) return order;
  }
  return b.empty() <=> a.empty();
}

std::strong_ordering Compare(const Version& a, const Version& b) {
  for (size_t i = 0; i < a.numbers.size(); ++i) {
    const std::strong_ordering order = CompareNumbers(a.numbers[i], b.numbers[i]);
    if (order != 0) return order;
  }
  return ComparePreReleases(a.pre_release, b.pre_release);
}

}  // namespace

void SortTags(std::vector<std::string>& tags) {
  std::sort(tags.begin(), tags.end(), [](const std::string& a, const std::string& b) {
    const std::optional<Version> x = ParseVersion(a);
    const std::optional<Version> y = ParseVersion(b);
    if (x.has_value() != y.has_value()) return x.has_value();
    if (x) {
      const std::strong_ordering order = Compare(*x, *y);
      if (order != 0) return order > 0;
    }
    return a < b;
  });
}

}  // namespace ocifs::tools
