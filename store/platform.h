// The platform of an image, and which entry of an index fits it.
#ifndef OCIFS_STORE_PLATFORM_H_
#define OCIFS_STORE_PLATFORM_H_

#include <string>
#include <string_view>
#include <vector>

#include "store/error.h"

namespace ocifs::store {

// os/architecture[/variant] in Go's names, normalised as containerd does ("x86_64" → "amd64",
// "aarch64" → "arm64" without variant, "arm" → "arm/v7", "macos" → "darwin").
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;

  static Result<Platform> Parse(std::string_view text);
  static Platform Host();
  static Platform Normalised(std::string_view os, std::string_view architecture,
                             std::string_view variant);

  std::string ToString() const;
  // This platform and what it can run instead, best first: amd64/v3 → v2 → (none);
  // arm/v7 → v6 → v5; arm64/v9 → v8.
  std::vector<Platform> Candidates() const;

  friend bool operator==(const Platform&, const Platform&) = default;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PLATFORM_H_
