// registries.conf of podman, skopeo and buildah: prefixes of names, where they are really found,
// and mirrors of them (containers-registries.conf(5), version 2).
#ifndef OCIFS_FETCH_REGISTRIES_CONF_H_
#define OCIFS_FETCH_REGISTRIES_CONF_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

enum class PullFromMirror { kAll, kDigestOnly, kTagOnly };

struct RegistriesConfMirror {
  std::string location;  // "host[:port][/path]"
  bool insecure = false;
  PullFromMirror pull = PullFromMirror::kAll;
  uint32_t line = 1;
};

// One [[registry]].
struct RegistriesConfEntry {
  std::string prefix;    // "host[:port][/path]", or "*.domain[…]" for all subdomains
  std::string location;  // replaces the prefix; empty, for "*." prefixes only: nothing is replaced
  bool insecure = false;
  bool blocked = false;
  std::vector<RegistriesConfMirror> mirrors = {};
  std::string file = {};  // where it stands
  uint32_t line = 1;
};

// The entries of one file in its order; of two with one prefix the later one stays. Unknown keys
// are passed over, as these tools do. kInvalid, "file:line: why", for text that is not TOML, keys
// of the wrong type, what the manual calls invalid, and rules in the old format (version 1). Pure.
store::Result<std::vector<RegistriesConfEntry>> ParseRegistriesConf(std::string_view text,
                                                                    const std::string& file);

// Drop-ins: an entry replaces an earlier one with the same prefix as a whole. Pure.
void MergeRegistriesConf(std::vector<RegistriesConfEntry>& entries,
                         std::vector<RegistriesConfEntry> later);

// Length of the part of `name` that `prefix` stands for; 0 when it does not match. `name` has its
// host in full ("docker.io/library/alpine"); a match ends at its end or before '/', ':' or '@'. A
// "*." stands for one or more labels of the host. Pure.
size_t MatchPrefix(std::string_view name, std::string_view prefix);

// The entry with the longest prefix that matches; null if none does. Pure.
const RegistriesConfEntry* FindInRegistriesConf(const std::vector<RegistriesConfEntry>& entries,
                                                std::string_view name);

// `repository`, which `prefix` matches, with the match replaced by `location`. kInvalid when what
// comes out is no repository of a host. Pure.
store::Result<store::Repository> RewriteRepository(const store::Repository& repository,
                                                   std::string_view prefix,
                                                   std::string_view location);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRIES_CONF_H_
