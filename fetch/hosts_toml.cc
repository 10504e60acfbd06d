#include "fetch/hosts_toml.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "fetch/toml.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Fail;
using store::Result;

// A "token" of RFC 9110 section 5.6.2.
bool IsHeaderName(std::string_view name) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::all_of(name.begin(), name.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kMarks.find(c) != std::string_view::npos;
  });
}

// RFC 9110 section 5.5, without obsolete line folding.
bool IsHeaderValue(std::string_view value) {
  return std::all_of(value.begin(), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7F);
  });
}

// Those that frame or route a request are the client's business.
bool IsClientsHeader(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kNames = {
      "connection", "content-length",    "expect", "host", "te",
      "trailer",    "transfer-encoding", "upgrade"};
  const std::string lower = store::AsciiLower(name);
  return std::find(kNames.begin(), kNames.end(), lower) != kNames.end();
}

// Go's time.ParseDuration, without signs: "5s", "1m30s", "1.5h", "300ms". Rounded to milliseconds,
// up, so that what is not zero stays so; a day at most.
std::optional<std::chrono::milliseconds> ParseGoDuration(std::string_view text) {
  struct Unit {
    std::string_view name;
    double milliseconds;
  };
  static constexpr std::array<Unit, 8> kUnits = {{{"ns", 1e-6},
                                                  {"us", 1e-3},
                                                  {"\u00B5s", 1e-3},
                                                  {"\u03BCs", 1e-3},
                                                  {"ms", 1},
                                                  {"s", 1e3},
                                                  {"m", 6e4},
                                                  {"h", 3.6e6}}};
  if (text == "0") return std::chrono::milliseconds(0);
  if (text.empty()) return std::nullopt;
  double total = 0;
  while (!text.empty()) {
    const size_t number_end = std::min(text.find_first_not_of("0123456789."), text.size());
    const std::string_view number = text.substr(0, number_end);
    const size_t dot = std::min(number.find('.'), number.size());
    const std::string_view whole = number.substr(0, dot);
    const std::string_view part = number.substr(std::min(dot + 1, number.size()));
    if (whole.empty() && part.empty()) return std::nullopt;
    const auto units = store::ParseDecimal(whole.empty() ? "0" : whole, 1'000'000'000'000'000);
    const auto fraction = store::ParseDecimal(part.empty() ? "0" : part, 1'000'000'000'000'000);
    if (!units || !fraction) return std::nullopt;
    double value = static_cast<double>(*fraction);
    for (size_t i = 0; i < part.size(); ++i) value /= 10;
    value += static_cast<double>(*units);
    text.remove_prefix(number_end);
    const std::string_view name = text.substr(0, text.find_first_of("0123456789."));
    text.remove_prefix(name.size());
    const auto* const unit =
        std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return u.name == name; });
    if (unit == kUnits.end()) return std::nullopt;
    total += value * unit->milliseconds;
  }
  constexpr double kDay = 8.64e7;
  if (total > kDay) return std::nullopt;
  const auto down = static_cast<int64_t>(total);
  return std::chrono::milliseconds(static_cast<double>(down) < total ? down + 1 : down);
}

// path.Clean of Go for an absolute path: empty segments and "." vanish, ".." takes one back.
std::string CleanPath(std::string_view path) {
  std::string clean = std::filesystem::path(path).lexically_normal().string();
  while (clean.ends_with('/')) clean.pop_back();
  return clean;
}

class ServerReader {
 public:
  ServerReader(const Toml& table, const std::string& file) : file_(file), reader_(table, file) {}

  // `text` is the URL; `place` is where it stands, for messages.
  Result<HostsTomlServer> Read(const std::string& text, const Toml& place) {
    server_.line = place.line();
    if (!text.empty()) OCIFS_RETURN_IF_ERROR(ReadUrl(text, place));
    OCIFS_RETURN_IF_ERROR(ReadCapabilities());
    OCIFS_RETURN_IF_ERROR(ReadTls());
    OCIFS_RETURN_IF_ERROR(ReadHeaders());
    OCIFS_RETURN_IF_ERROR(ReadDialTimeout());
    return std::move(server_);
  }

 private:
  Result<void> ReadUrl(std::string_view text, const Toml& place) {
    OCIFS_ASSIGN_OR_RETURN(const bool override_path, reader_.Bool("override_path", false));
    const size_t scheme_end = text.find("://");
    std::string scheme = "https";
    if (scheme_end != std::string_view::npos) {
      scheme = store::AsciiLower(text.substr(0, scheme_end));
      if (scheme != "http" && scheme != "https") {
        return reader_.Wrong(place, "the URL of a server begins with https:// or http://");
      }
      text.remove_prefix(scheme_end + 3);
    }
    // None of them is quoted: a password may stand before '@', a key after '?'.
    if (text.find_first_of("@?#") != std::string_view::npos) {
      return reader_.Wrong(place, "the URL of a server has no user name, no query and no fragment");
    }
    const std::string_view authority = text.substr(0, text.find('/'));
    std::string path = CleanPath(text.substr(authority.size()));
    if (!override_path && !path.ends_with("/v2")) path += "/v2";
    Result<store::Registry> contact = store::Registry::Parse(authority);
    if (!contact) return reader_.Wrong(place, contact.error().message);
    Result<Url> url = Url::Parse(scheme + "://" + std::string(authority) + path);
    if (!url) return reader_.Wrong(place, url.error().message);
    server_.api_root = *std::move(url);
    server_.contact = *std::move(contact);
    return {};
  }

  Result<void> ReadCapabilities() {
    const Toml* const list = reader_.Find("capabilities");
    if (list == nullptr) return {};
    constexpr std::string_view kWanted =
        "'capabilities' has to be a list of \"pull\", \"resolve\", \"push\" and \"referrers\"";
    if (list->array() == nullptr) return reader_.Wrong(*list, kWanted);
    if (list->array()->empty()) return {};
    server_.may_pull = server_.may_resolve = server_.may_referrers = false;
    for (const Toml& item : *list->array()) {
      const std::string name = item.string() == nullptr ? "" : store::AsciiLower(*item.string());
      if (name == "pull") {
        server_.may_pull = true;
      } else if (name == "resolve") {
        server_.may_resolve = true;
      } else if (name == "referrers") {
        server_.may_referrers = true;
      } else if (name != "push") {
        return reader_.Wrong(item, kWanted);
      }
    }
    return {};
  }

  Result<std::string> AbsoluteFile(const std::string& name, const Toml& place) const {
    if (name.empty() || name.find('\0') != std::string::npos) {
      return reader_.Wrong(place, "the name of a file is empty or holds a NUL");
    }
    const std::filesystem::path base = std::filesystem::path(file_).parent_path();
    return (base / name).lexically_normal().string();
  }

  Result<void> ReadTls() {
    if (const Toml* const authorities = reader_.Find("ca")) {
      OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, reader_.Texts("ca"));
      for (const std::string& name : names) {
        OCIFS_ASSIGN_OR_RETURN(std::string path, AbsoluteFile(name, *authorities));
        server_.tls.ca_files.push_back(std::move(path));
      }
      server_.tls_is_set = true;
    }
    if (const Toml* const client = reader_.Find("client")) {
      OCIFS_RETURN_IF_ERROR(ReadClient(*client));
      server_.tls_is_set = true;
    }
    if (reader_.Find("skip_verify") != nullptr) {
      OCIFS_ASSIGN_OR_RETURN(const bool skip, reader_.Bool("skip_verify", false));
      server_.tls.verify = !skip;
      server_.tls_is_set = true;
    }
    return {};
  }

  Result<void> ReadClient(const Toml& client) {
    if (client.string() != nullptr) return AddClient(*client.string(), "", client);
    constexpr std::string_view kWanted =
        "'client' has to be a file, a list of files, or a list of pairs [certificate, key]";
    if (client.array() == nullptr) return reader_.Wrong(client, kWanted);
    for (const Toml& item : *client.array()) {
      if (item.string() != nullptr) {
        OCIFS_RETURN_IF_ERROR(AddClient(*item.string(), "", item));
        continue;
      }
      const Toml::Array* const pair = item.array();
      if (pair == nullptr || pair->size() != 2 || (*pair)[0].string() == nullptr ||
          (*pair)[1].string() == nullptr) {
        return reader_.Wrong(item, kWanted);
      }
      OCIFS_RETURN_IF_ERROR(AddClient(*(*pair)[0].string(), *(*pair)[1].string(), item));
    }
    return {};
  }

  Result<void> AddClient(const std::string& certificate, const std::string& key,
                         const Toml& place) {
    OCIFS_ASSIGN_OR_RETURN(std::string certificate_file, AbsoluteFile(certificate, place));
    std::string key_file;
    if (!key.empty()) {
      OCIFS_ASSIGN_OR_RETURN(key_file, AbsoluteFile(key, place));
    }
    if (server_.client_pairs++ > 0) return {};
    server_.tls.certificate_file = std::move(certificate_file);
    server_.tls.key_file = std::move(key_file);
    return {};
  }

  Result<void> ReadHeaders() {
    const Toml* const headers = reader_.Find("header");
    if (headers == nullptr) return {};
    if (headers->table() == nullptr) {
      return reader_.Wrong(*headers, "'header' has to be a table");
    }
    const TomlReader values(*headers, file_);
    for (const auto& [name, value] : *headers->table()) {
      if (!IsHeaderName(name)) return reader_.Wrong(value, "the name of a header is not one");
      if (IsClientsHeader(name)) {
        return reader_.Wrong(value, "the header '" + name + "' cannot be set");
      }
      OCIFS_ASSIGN_OR_RETURN(std::vector<std::string> texts, values.Texts(name));
      for (std::string& text : texts) {
        if (!IsHeaderValue(text)) {
          return reader_.Wrong(value, "the header '" + name + "' holds a control character");
        }
        server_.headers.push_back({name, std::move(text)});
      }
    }
    return {};
  }

  Result<void> ReadDialTimeout() {
    OCIFS_ASSIGN_OR_RETURN(const std::string text, reader_.Text("dial_timeout"));
    if (text.empty()) return {};
    const std::optional<std::chrono::milliseconds> timeout = ParseGoDuration(text);
    if (!timeout) {
      return reader_.Wrong(*reader_.Find("dial_timeout"),
                           "'dial_timeout' has to be a duration such as \"5s\" or \"1m30s\"");
    }
    server_.dial_timeout = *timeout;
    return {};
  }

  const std::string& file_;
  const TomlReader reader_;
  HostsTomlServer server_;
};

}  // namespace

Result<HostsToml> ParseHostsToml(std::string_view text, const std::string& file) {
  OCIFS_ASSIGN_OR_RETURN(const Toml root, Toml::Parse(text, file));
  const TomlReader reader(root, file);
  HostsToml out;
  if (const Toml* const hosts = reader.Find("host")) {
    if (hosts->table() == nullptr) {
      return reader.Wrong(*hosts, "'host' has to be tables: [host.\"https://mirror\"]");
    }
    for (const auto& [url, table] : *hosts->table()) {
      if (table.table() == nullptr) {
        return reader.Wrong(table, "a host has to be a table: [host.\"https://mirror\"]");
      }
      if (url.empty()) return reader.Wrong(table, "a host without a name");
      OCIFS_ASSIGN_OR_RETURN(HostsTomlServer mirror, ServerReader(table, file).Read(url, table));
      out.mirrors.push_back(std::move(mirror));
    }
  }
  OCIFS_ASSIGN_OR_RETURN(const std::string server, reader.Text("server"));
  const Toml* const place = reader.Find("server");
  OCIFS_ASSIGN_OR_RETURN(out.server,
                         ServerReader(root, file).Read(server, place == nullptr ? root : *place));
  return out;
}

}  // namespace ocifs::fetch
