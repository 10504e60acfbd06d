#include "fetch/address.h"

#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

struct Case {
  const char* host;
  std::optional<AddressScope> scope;
};

TEST(AddressTest, TellsScopes) {
  constexpr auto kPublic = AddressScope::kPublic;
  constexpr auto kPrivate = AddressScope::kPrivate;
  constexpr auto kLinkLocal = AddressScope::kLinkLocal;
  constexpr auto kLoopback = AddressScope::kLoopback;
  const Case cases[] = {
      {"8.8.8.8", kPublic},
      {"172.15.0.1", kPublic},
      {"172.32.0.1", kPublic},
      {"2606:4700::1", kPublic},
      {"10.1.2.3", kPrivate},
      {"172.16.0.1", kPrivate},
      {"192.168.1.1", kPrivate},
      {"100.64.0.1", kPrivate},
      {"fd00::1", kPrivate},
      {"169.254.169.254", kLinkLocal},
      {"fe80::1", kLinkLocal},
      {"224.0.0.1", kLinkLocal},
      {"255.255.255.255", kLinkLocal},
      {"ff02::1", kLinkLocal},
      {"127.0.0.1", kLoopback},
      {"127.255.0.1", kLoopback},
      {"0.0.0.0", kLoopback},
      {"::1", kLoopback},
      {"::", kLoopback},
      {"localhost", kLoopback},
      {"a.localhost", kLoopback},
      // IPv4 in IPv6 clothes.
      {"::ffff:127.0.0.1", kLoopback},
      {"::ffff:169.254.169.254", kLinkLocal},
      {"::10.0.0.1", kPrivate},
      {"64:ff9b::7f00:1", kLoopback},
      {"2002:a00:1::", kPrivate},
      {"ghcr.io", std::nullopt},
      {"127.example.com", std::nullopt},
      {"localhost.example.com", std::nullopt},
      {"", std::nullopt},
  };
  for (const Case& c : cases) EXPECT_EQ(ScopeOfHost(c.host), c.scope) << c.host;
}

}  // namespace
}  // namespace ocifs::fetch
