#include "fetch/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <span>

namespace ocifs::fetch {
namespace {

AddressScope ScopeOfIpv4(std::span<const uint8_t, 4> a) {
  if (a[0] == 127 || a[0] == 0) return AddressScope::kLoopback;
  if ((a[0] == 169 && a[1] == 254) || a[0] >= 224) return AddressScope::kLinkLocal;
  if (a[0] == 10 || (a[0] == 172 && (a[1] & 0xF0) == 16) || (a[0] == 192 && a[1] == 168) ||
      (a[0] == 100 && (a[1] & 0xC0) == 64)) {
    return AddressScope::kPrivate;
  }
  return AddressScope::kPublic;
}

AddressScope ScopeOfIpv6(std::span<const uint8_t, 16> a) {
  const auto zero_until = [&](size_t end) {
    return std::all_of(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(end),
                       [](uint8_t byte) { return byte == 0; });
  };
  if (zero_until(15) && a[15] <= 1) return AddressScope::kLoopback;
  const bool mapped = zero_until(10) && a[10] == 0xFF && a[11] == 0xFF;
  const bool nat64 = a[0] == 0 && a[1] == 0x64 && a[2] == 0xFF && a[3] == 0x9B;
  if (mapped || nat64 || zero_until(12)) return ScopeOfIpv4(a.subspan<12, 4>());
  if (a[0] == 0x20 && a[1] == 0x02) return ScopeOfIpv4(a.subspan<2, 4>());  // 6to4
  if ((a[0] & 0xFE) == 0xFC) return AddressScope::kPrivate;
  if ((a[0] == 0xFE && (a[1] & 0xC0) == 0x80) || a[0] == 0xFF) return AddressScope::kLinkLocal;
  return AddressScope::kPublic;
}

}  // namespace

std::string_view AddressScopeName(AddressScope scope) {
  switch (scope) {
    case AddressScope::kPublic:
      return "public";
    case AddressScope::kPrivate:
      return "private";
    case AddressScope::kLinkLocal:
      return "link-local";
    case AddressScope::kLoopback:
      return "loopback";
  }
  return "unknown";
}

std::optional<AddressScope> ScopeOfAddress(std::string_view address) {
  const std::string text(address);
  std::array<uint8_t, 4> v4{};
  if (inet_pton(AF_INET, text.c_str(), v4.data()) == 1) return ScopeOfIpv4(v4);
  std::array<uint8_t, 16> v6{};
  if (inet_pton(AF_INET6, text.c_str(), v6.data()) == 1) return ScopeOfIpv6(v6);
  return std::nullopt;
}

std::optional<AddressScope> ScopeOfHost(std::string_view host) {
  if (host == "localhost" || host.ends_with(".localhost")) return AddressScope::kLoopback;
  return ScopeOfAddress(host);
}

}  // namespace ocifs::fetch
