// The configuration file (TOML; ocifs.toml(5)) and what the command line says, in one structure.
#ifndef OCIFS_TOOLS_CONFIG_H_
#define OCIFS_TOOLS_CONFIG_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "fetch/host_router.h"
#include "fetch/registry_options.h"
#include "fetch/registry_source.h"
#include "store/error.h"
#include "store/limits.h"
#include "store/platform.h"

namespace ocifs::tools {

struct RegistryConfig {
  fetch::RegistryOptions options;
  std::string layout;             // directory of an OCI image layout; empty: a real registry
  std::string layout_repository;  // of tags that come without one
  bool catalog = false;           // listing the registry asks for its catalog
};

// Of the client, for the pulls that this program makes.
fetch::RegistrySourceOptions DefaultTransfer();

// A size as it is, or as a part of the store's filesystem.
struct Amount {
  uint64_t bytes = 0;
  uint32_t percent = 0;  // not 0: of the filesystem, and `bytes` does not count

  uint64_t Of(uint64_t filesystem_bytes) const {
    return percent == 0 ? bytes : filesystem_bytes / 100 * percent;
  }
};

struct Config {
  std::string store;  // absolute
  // Without them the store's own defaults hold (store/space.h).
  std::optional<Amount> max_size;
  std::optional<Amount> min_free;
  std::chrono::seconds max_age{0};  // 0: never too old
  bool offline = false;
  std::chrono::milliseconds request_timeout{30'000};
  store::Platform platform = store::Platform::Host();
  std::string auth_file;
  std::string log_file;  // empty: syslog, or the standard error in the foreground
  bool security_capability = false;
  fetch::HostFilePlaces host_files;  // paths absolute
  fetch::RegistrySourceOptions transfer = DefaultTransfer();
  store::Limits limits;
  std::map<std::string, RegistryConfig> registries;  // by Registry::name()
};

// /var/lib/ocifs for root; $XDG_CACHE_HOME/ocifs, ~/.cache/ocifs for others. Empty if the
// environment names no such place.
std::string DefaultStore();

// Parses the text of a configuration file. kInvalid with the file, the line and what is wrong;
// unknown keys are wrong. Relative paths are taken from the directory of `file`.
store::Result<Config> ParseConfig(std::string_view text, const std::string& file);

// Reads and parses `file`; the defaults if it is empty.
store::Result<Config> LoadConfig(const std::string& file);

// "30s", "5m", "1h30m", "250ms", "2d".
std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text);
// "64GiB", "512MiB", "1000", "10GB" (powers of 1024 and of 1000).
std::optional<uint64_t> ParseSize(std::string_view text);
// The same, or "10%".
std::optional<Amount> ParseAmount(std::string_view text);
// 1536 → "1.5 KiB".
std::string FormatSize(uint64_t bytes);
// Seconds since the epoch in RFC 3339, UTC.
std::string FormatTime(int64_t seconds);

// `path` made absolute; relative ones are taken from `base`, or the working directory.
std::string AbsolutePath(std::string_view path, std::string_view base = {});

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_CONFIG_H_
