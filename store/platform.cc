#include "store/platform.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>

#include "store/text.h"

namespace ocifs::store {
namespace {

bool IsName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

// "8" and "v8" are the same variant.
std::string NormalisedVariant(std::string_view text) {
  std::string variant = AsciiLower(text);
  if (!variant.empty() && variant[0] >= '0' && variant[0] <= '9') variant.insert(0, "v");
  return variant;
}

// "v7" → 7; 0 for what is not "v<digit>".
int VariantNumber(std::string_view variant) {
  if (variant.size() == 2 && variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9') {
    return variant[1] - '0';
  }
  return 0;
}

}  // namespace

Result<Platform> Platform::Parse(std::string_view text) {
  std::array<std::string_view, 3> parts;
  size_t count = 0;
  std::string_view rest = text;
  while (true) {
    const size_t slash = rest.find('/');
    if (count == parts.size() || !IsName(rest.substr(0, slash))) {
      return Fail(ErrorCode::kInvalid, "platform '" + std::string(text) +
                                           "': write os/architecture[/variant], e.g. linux/arm64");
    }
    parts[count++] = rest.substr(0, slash);
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  if (count < 2) {
    return Fail(ErrorCode::kInvalid, "platform '" + std::string(text) +
                                         "': write os/architecture[/variant], e.g. linux/arm64");
  }
  return Normalised(parts[0], parts[1], parts[2]);
}

Platform Platform::Host() {
  utsname names{};
  uname(&names);
  return Normalised(names.sysname, names.machine, "");
}

Platform Platform::Normalised(std::string_view os, std::string_view architecture,
                              std::string_view variant) {
  Platform platform{AsciiLower(os), AsciiLower(architecture), NormalisedVariant(variant)};
  if (platform.os == "macos") platform.os = "darwin";
  std::string& arch = platform.architecture;
  if (arch == "x86_64" || arch == "x86-64") arch = "amd64";
  if (arch == "aarch64") arch = "arm64";
  if (arch == "i386" || arch == "i686") arch = "386";
  if (arch == "armhf" || arch == "armv7l") {
    arch = "arm";
    platform.variant = "v7";
  }
  if (arch == "armel" || arch == "armv6l") {
    arch = "arm";
    platform.variant = "v6";
  }
  if (arch == "arm" && platform.variant.empty()) platform.variant = "v7";
  if (arch == "arm64" && (platform.variant == "v8" || platform.variant == "v8.0")) {
    platform.variant.clear();
  }
  if (arch == "amd64" && platform.variant == "v1") platform.variant.clear();
  return platform;
}

std::string Platform::ToString() const {
  std::string text = os + "/" + architecture;
  if (!variant.empty()) text += "/" + variant;
  return text;
}

std::vector<Platform> Platform::Candidates() const {
  std::vector<Platform> candidates{*this};
  const int number = VariantNumber(variant);
  auto add = [&](std::string_view lower) {
    candidates.push_back(Platform{os, architecture, std::string(lower)});
  };
  if (architecture == "amd64") {
    for (int v = number - 1; v >= 2; --v) add("v" + std::to_string(v));
    if (number >= 2) add("");
  } else if (architecture == "arm") {
    for (int v = number - 1; v >= 5; --v) add("v" + std::to_string(v));
    add("");
  } else if (architecture == "arm64" && number == 9) {
    add("");
  } else if (!variant.empty()) {
    add("");
  }
  return candidates;
}

}  // namespace ocifs::store
