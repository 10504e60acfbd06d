#include "tools/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <utility>
#include <vector>

#include <toml++/toml.h>

#include "store/reference.h"
#include "store/text.h"

namespace ocifs::tools {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

// More than all pulls together hold open to one host (store/puller.cc), ranges of far blobs
// included: none of them, and no manifest, waits for a connection that another has paused.
constexpr uint32_t kMinConnections = 40;

// Reads the members of one TOML table; each key must be known and of its type.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string file, std::string section)
      : table_(table), file_(std::move(file)), section_(std::move(section)) {}

  using Setter = std::function<Result<void>(const toml::node&)>;

  TableReader& Key(std::string name, Setter setter) {
    setters_.emplace(std::move(name), std::move(setter));
    return *this;
  }
  // `Place`: a std::string, or an optional one that tells absent from empty.
  template <typename Place>
  TableReader& Text(const std::string& name, Place& out) {
    return Key(name, [this, name, &out](const toml::node& node) -> Result<void> {
      const auto value = node.value_exact<std::string>();
      if (!value) return Wrong(node, name, "a string");
      out = *value;
      return {};
    });
  }
  TableReader& Bool(const std::string& name, bool& out) {
    return Key(name, [this, name, &out](const toml::node& node) -> Result<void> {
      const auto value = node.value_exact<bool>();
      if (!value) return Wrong(node, name, "true or false");
      out = *value;
      return {};
    });
  }
  TableReader& Texts(const std::string& name, const std::string& what,
                     std::vector<std::string>& out) {
    return Key(name, [this, name, what, &out](const toml::node& node) -> Result<void> {
      const toml::array* array = node.as_array();
      if (array == nullptr) return Wrong(node, name, what);
      for (const toml::node& item : *array) {
        const auto text = item.value_exact<std::string>();
        if (!text) return Wrong(item, name, what);
        out.push_back(*text);
      }
      return {};
    });
  }
  // A path, made absolute from `base`; empty stays empty.
  TableReader& Place(const std::string& name, const std::string& base,
                     std::optional<std::string>& out) {
    return Key(name, [this, name, base, &out](const toml::node& node) -> Result<void> {
      const auto text = node.value_exact<std::string>();
      if (!text) return Wrong(node, name, "a path, or \"\" for none");
      out = text->empty() ? "" : AbsolutePath(*text, base);
      return {};
    });
  }
  template <typename Integer>
  TableReader& Count(const std::string& name, Integer& out, int64_t least = 1) {
    return Key(name, [this, name, least, &out](const toml::node& node) -> Result<void> {
      const auto value = node.value_exact<int64_t>();
      if (!value || *value < least || !std::in_range<Integer>(*value)) {
        return Wrong(node, name,
                     least == 1 ? "a whole number above 0"
                                : fmt::format("a whole number, at least {}", least));
      }
      out = static_cast<Integer>(*value);
      return {};
    });
  }
  TableReader& Size(const std::string& name, uint64_t& out) {
    return Key(name, [this, name, &out](const toml::node& node) -> Result<void> {
      if (const auto number = node.value_exact<int64_t>(); number && *number > 0) {
        out = static_cast<uint64_t>(*number);
        return {};
      }
      const auto text = node.value_exact<std::string>();
      const auto size = text ? ParseSize(*text) : std::nullopt;
      if (!size || *size == 0) return Wrong(node, name, "a size such as \"64GiB\"");
      out = *size;
      return {};
    });
  }
  // A size, or a part of the store's filesystem.
  TableReader& Share(const std::string& name, std::optional<Amount>& out) {
    return Key(name, [this, name, &out](const toml::node& node) -> Result<void> {
      const auto number = node.value_exact<int64_t>();
      const auto text = node.value_exact<std::string>();
      if (number && *number > 0) {
        out = Amount{.bytes = static_cast<uint64_t>(*number), .percent = 0};
      } else {
        out = text ? ParseAmount(*text) : std::nullopt;
      }
      if (!out) return Wrong(node, name, "a size such as \"20GiB\", or \"10%\"");
      return {};
    });
  }
  TableReader& Duration(const std::string& name, std::chrono::milliseconds& out) {
    return Key(name, [this, name, &out](const toml::node& node) -> Result<void> {
      const auto text = node.value_exact<std::string>();
      const auto duration = text ? ParseDuration(*text) : std::nullopt;
      if (!duration || duration->count() == 0) {
        return Wrong(node, name, "a duration such as \"30s\" or \"5m\"");
      }
      out = *duration;
      return {};
    });
  }

  Result<void> Read() const {
    for (const auto& [key, node] : table_) {
      const auto setter = setters_.find(std::string(key.str()));
      if (setter == setters_.end()) {
        std::string known;
        for (const auto& [name, unused] : setters_) known += (known.empty() ? "" : ", ") + name;
        return Fail(ErrorCode::kInvalid, Where(node) + "key '" + std::string(key.str()) +
                                             "' is not known" +
                                             (section_.empty() ? "" : " in [" + section_ + "]") +
                                             "; there are: " + known);
      }
      OCIFS_RETURN_IF_ERROR(setter->second(node));
    }
    return {};
  }

  std::unexpected<store::Error> Wrong(const toml::node& node, std::string_view name,
                                      std::string_view wanted) const {
    return Fail(ErrorCode::kInvalid,
                Where(node) + "'" + std::string(name) + "' has to be " + std::string(wanted));
  }
  std::string Where(const toml::node& node) const {
    return file_ + ":" + std::to_string(node.source().begin.line) + ": ";
  }

 private:
  const toml::table& table_;
  const std::string file_;
  const std::string section_;
  std::map<std::string, Setter> setters_;
};

Result<void> ReadRegistry(const std::string& name, const toml::node& node, const std::string& file,
                          const std::string& base, Config& config) {
  const toml::table* table = node.as_table();
  const std::string where = file + ":" + std::to_string(node.source().begin.line) + ": ";
  if (table == nullptr) {
    return Fail(ErrorCode::kInvalid, where + "write [registry.\"" + name + "\"] as a table");
  }
  Result<store::Registry> registry = store::Registry::Parse(name);
  if (!registry) {
    return Fail(ErrorCode::kInvalid, where + std::move(registry).error().message);
  }
  RegistryConfig out;
  std::string scheme = "auto";
  std::string ca;
  std::string client_certificate;
  std::string client_key;
  bool insecure = false;
  TableReader reader(*table, file, "registry.\"" + name + "\"");
  reader.Text("layout", out.layout)
      .Text("repository", out.layout_repository)
      .Text("ca", ca)
      .Text("client_certificate", client_certificate)
      .Text("client_key", client_key)
      .Bool("insecure", insecure)
      .Bool("catalog", out.catalog)
      .Text("endpoint", out.options.endpoint)
      .Text("scheme", scheme)
      .Texts("mirrors", "a list of hosts and URLs", out.options.mirrors)
      .Texts("realm_hosts", "a list of host names", out.options.realm_hosts);
  OCIFS_RETURN_IF_ERROR(reader.Read());
  if (scheme == "http") {
    out.options.scheme = fetch::Scheme::kHttp;
  } else if (scheme == "https") {
    out.options.scheme = fetch::Scheme::kHttps;
  } else if (scheme != "auto") {
    return reader.Wrong(*table->get("scheme"), "scheme", "\"http\", \"https\" or \"auto\"");
  }
  if (!out.layout.empty()) out.layout = AbsolutePath(out.layout, base);
  fetch::TlsOptions& tls = out.options.tls;
  if (!ca.empty()) tls.ca_files = {AbsolutePath(ca, base)};
  if (client_certificate.empty() && !client_key.empty()) {
    return reader.Wrong(*table->get("client_key"), "client_key",
                        "with a client_certificate, whose key it is");
  }
  if (!client_certificate.empty()) tls.certificate_file = AbsolutePath(client_certificate, base);
  if (!client_key.empty()) tls.key_file = AbsolutePath(client_key, base);
  tls.verify = !insecure;
  config.registries.emplace(registry->name(), std::move(out));
  return {};
}

Result<void> ReadTransfer(const toml::table& table, const std::string& file,
                          fetch::RegistrySourceOptions& out) {
  std::chrono::milliseconds far = std::chrono::ceil<std::chrono::milliseconds>(out.blobs.far);
  TableReader reader(table, file, "transfer");
  reader.Count("ranges", out.blobs.max_ranges)
      .Duration("far", far)
      .Duration("connect_timeout", out.http.connect_timeout)
      // Fewer, and pulls that hold some of theirs paused could keep all of them from one that
      // waits.
      .Count("connections", out.http.max_connections, kMinConnections)
      .Count("connections_per_host", out.http.max_connections_per_host, kMinConnections)
      .Text("proxy", out.http.proxy)
      .Text("no_proxy", out.http.no_proxy);
  OCIFS_RETURN_IF_ERROR(reader.Read());
  out.blobs.far = far;
  return {};
}

Result<void> ReadStore(const toml::table& table, const std::string& file, Config& config) {
  std::chrono::milliseconds max_age = config.max_age;
  TableReader reader(table, file, "store");
  reader.Text("path", config.store)
      .Duration("max_age", max_age)
      .Share("max_size", config.max_size)
      .Share("min_free", config.min_free);
  OCIFS_RETURN_IF_ERROR(reader.Read());
  config.max_age = std::chrono::duration_cast<std::chrono::seconds>(max_age);
  return {};
}

struct Unit {
  std::string_view name;
  uint64_t factor;
};

// A sequence of "number unit" pairs ("1h30m"), or, with `single`, one of them.
std::optional<uint64_t> ParseQuantity(std::string_view text, std::span<const Unit> units,
                                      bool single) {
  uint64_t total = 0;
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const std::optional<uint64_t> number = store::ParseDecimal(text.substr(0, digits), INT64_MAX);
    if (!number) return std::nullopt;
    text.remove_prefix(digits);
    const std::string_view name = text.substr(0, text.find_first_of("0123456789"));
    text.remove_prefix(name.size());
    const Unit* unit = nullptr;
    for (const Unit& candidate : units) {
      if (candidate.name == name) unit = &candidate;
    }
    if (unit == nullptr || *number > (INT64_MAX - total) / unit->factor) return std::nullopt;
    total += *number * unit->factor;
    if (single && !text.empty()) return std::nullopt;
  }
  return total;
}

}  // namespace

std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  static constexpr std::array<Unit, 5> kUnits = {
      {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};
  const std::optional<uint64_t> value = ParseQuantity(text, kUnits, false);
  if (!value) return std::nullopt;
  return std::chrono::milliseconds(*value);
}

std::optional<uint64_t> ParseSize(std::string_view text) {
  static constexpr std::array<Unit, 10> kUnits = {{{"", 1},
                                                   {"B", 1},
                                                   {"KiB", uint64_t{1} << 10},
                                                   {"MiB", uint64_t{1} << 20},
                                                   {"GiB", uint64_t{1} << 30},
                                                   {"TiB", uint64_t{1} << 40},
                                                   {"kB", 1000},
                                                   {"MB", 1'000'000},
                                                   {"GB", 1'000'000'000},
                                                   {"TB", 1'000'000'000'000}}};
  return ParseQuantity(text, kUnits, true);
}

std::optional<Amount> ParseAmount(std::string_view text) {
  if (text.ends_with('%')) {
    const auto percent = store::ParseDecimal(text.substr(0, text.size() - 1), 100);
    if (!percent || *percent == 0) return std::nullopt;
    return Amount{.bytes = 0, .percent = static_cast<uint32_t>(*percent)};
  }
  const std::optional<uint64_t> bytes = ParseSize(text);
  if (!bytes) return std::nullopt;
  return Amount{.bytes = *bytes, .percent = 0};
}

std::string FormatSize(uint64_t bytes) {
  static constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string FormatTime(int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  if (gmtime_r(&time, &parts) == nullptr) return "?";
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string AbsolutePath(std::string_view path, std::string_view base) {
  namespace files = std::filesystem;
  std::error_code ignored;
  const files::path from = base.empty() ? files::current_path(ignored) : files::path(base);
  files::path absolute = (from / files::path(path)).lexically_normal();
  std::string text = absolute.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

fetch::RegistrySourceOptions DefaultTransfer() {
  fetch::RegistrySourceOptions options;
  options.http.max_connections_per_host = kMinConnections;
  return options;
}

std::string DefaultStore() {
  if (geteuid() == 0) return "/var/lib/ocifs";
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return std::string(cache) + "/ocifs";
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home == '/') return std::string(home) + "/.cache/ocifs";
  return {};
}

Result<Config> ParseConfig(std::string_view text, const std::string& file) {
  toml::table root;
  try {
    root = toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    return Fail(ErrorCode::kInvalid,
                fmt::format("{}:{}: {}", file, error.source().begin.line, error.description()));
  }
  const std::string base = std::filesystem::path(AbsolutePath(file)).parent_path().string();
  Config config;
  std::string platform;
  TableReader reader(root, file, "");
  reader
      .Key("store",
           [&](const toml::node& node) -> Result<void> {
             const toml::table* table = node.as_table();
             if (table == nullptr) return reader.Wrong(node, "store", "a table: [store]");
             return ReadStore(*table, file, config);
           })
      .Bool("offline", config.offline)
      .Duration("request_timeout", config.request_timeout)
      .Text("platform", platform)
      .Text("auth_file", config.auth_file)
      .Text("log_file", config.log_file)
      .Bool("security_capability", config.security_capability)
      .Place("hosts_dir", base, config.host_files.hosts_dir)
      .Place("registries_conf", base, config.host_files.registries_conf)
      .Place("certs_dir", base, config.host_files.certs_dir)
      .Key("registry",
           [&](const toml::node& node) -> Result<void> {
             const toml::table* registries = node.as_table();
             if (registries == nullptr) {
               return reader.Wrong(node, "registry", "tables: [registry.\"host\"]");
             }
             for (const auto& [name, registry] : *registries) {
               OCIFS_RETURN_IF_ERROR(
                   ReadRegistry(std::string(name.str()), registry, file, base, config));
             }
             return {};
           })
      .Key("transfer",
           [&](const toml::node& node) -> Result<void> {
             const toml::table* transfer = node.as_table();
             if (transfer == nullptr) return reader.Wrong(node, "transfer", "a table: [transfer]");
             return ReadTransfer(*transfer, file, config.transfer);
           })
      .Key("limits", [&](const toml::node& node) -> Result<void> {
        const toml::table* limits = node.as_table();
        if (limits == nullptr) return reader.Wrong(node, "limits", "a table: [limits]");
        return TableReader(*limits, file, "limits")
            .Size("max_blob", config.limits.max_blob_bytes)
            .Size("max_unpacked", config.limits.max_unpacked_bytes)
            .Count("max_expansion", config.limits.max_expansion)
            .Count("max_entries", config.limits.max_entries)
            .Count("max_depth", config.limits.max_depth)
            .Read();
      });
  OCIFS_RETURN_IF_ERROR(reader.Read());
  if (!platform.empty()) {
    Result<store::Platform> chosen = store::Platform::Parse(platform);
    if (!chosen) return Fail(std::move(chosen).error().Wrap(file));
    config.platform = *std::move(chosen);
  }
  if (!config.store.empty()) config.store = AbsolutePath(config.store, base);
  if (!config.auth_file.empty()) config.auth_file = AbsolutePath(config.auth_file, base);
  if (!config.log_file.empty()) config.log_file = AbsolutePath(config.log_file, base);
  return config;
}

Result<Config> LoadConfig(const std::string& file) {
  if (file.empty()) return Config();
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) {
    return Fail(store::ErrorFromErrno(errno, "reading configuration " + file));
  }
  return ParseConfig(text.str(), file);
}

}  // namespace ocifs::tools
