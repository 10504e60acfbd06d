// How far an IP address reaches: the check that keeps a registry's answers from steering requests
// into networks that the registry itself is not part of (server-side request forgery).
#ifndef OCIFS_FETCH_ADDRESS_H_
#define OCIFS_FETCH_ADDRESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ocifs::fetch {

// Ordered from the widest to the closest to home. A server whose own address has scope S may send
// us to addresses of scope S and wider, never to closer ones.
enum class AddressScope : uint8_t {
  kPublic,
  kPrivate,    // 10/8, 172.16/12, 192.168/16, 100.64/10, fc00::/7
  kLinkLocal,  // 169.254/16, fe80::/10, and multicast, broadcast and reserved ranges
  kLoopback,   // 127/8, ::1, and 0/8 and ::, which connect to this host
};

std::string_view AddressScopeName(AddressScope scope);

// Of a numeric IPv4 or IPv6 address without brackets; nullopt for a name. IPv4 addresses inside
// IPv6 (mapped, compatible, NAT64, 6to4) count as what they stand for.
std::optional<AddressScope> ScopeOfAddress(std::string_view address);

// ScopeOfAddress, with "localhost" and its subdomains as loopback (RFC 6761); nullopt for other
// names.
std::optional<AddressScope> ScopeOfHost(std::string_view host);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_ADDRESS_H_
