// containerd's hosts.toml. Holds for every accepted text: API roots have no query and end in no
// slash but that of the root, the contacted host is the URL's own, files are absolute, and a header
// is one line.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "fetch/hosts_toml.h"

namespace {

using ocifs::fetch::HostsToml;
using ocifs::fetch::HostsTomlServer;
using ocifs::fetch::HttpHeader;
using ocifs::fetch::ParseHostsToml;
using ocifs::store::ErrorCode;
using ocifs::store::Result;

constexpr char kFile[] = "/etc/containerd/certs.d/r.example/hosts.toml";

void Demand(bool condition) {
  if (!condition) std::abort();
}

void CheckLine(std::string_view text) {
  Demand(text.find_first_of(std::string_view("\0\r\n", 3)) == std::string_view::npos);
}

void CheckFile(const std::string& path) {
  Demand(path.starts_with('/') && path.find('\0') == std::string::npos);
}

void CheckServer(const HostsTomlServer& server) {
  Demand(server.api_root.has_value() == server.contact.has_value());
  if (server.api_root) {
    const std::string& text = server.api_root->ToString();
    Demand(text.find_first_of("@?#") == std::string::npos);
    Demand(!text.ends_with('/') || std::count(text.begin(), text.end(), '/') == 3);
    CheckLine(text);
  }
  for (const std::string& file : server.tls.ca_files) CheckFile(file);
  if (!server.tls.certificate_file.empty()) CheckFile(server.tls.certificate_file);
  if (!server.tls.key_file.empty()) {
    CheckFile(server.tls.key_file);
    Demand(!server.tls.certificate_file.empty());
  }
  Demand(server.tls_is_set || server.tls == ocifs::fetch::TlsOptions());
  Demand((server.client_pairs > 0) == !server.tls.certificate_file.empty());
  for (const HttpHeader& header : server.headers) {
    Demand(!header.name.empty() && header.name.find(':') == std::string::npos);
    CheckLine(header.name);
    CheckLine(header.value);
  }
  Demand(server.dial_timeout.count() >= 0 && server.line > 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<HostsToml> hosts = ParseHostsToml(text, kFile);
  if (!hosts) {
    Demand(hosts.error().code == ErrorCode::kInvalid);
    Demand(hosts.error().message.starts_with(kFile));
    return 0;
  }
  for (const HostsTomlServer& mirror : hosts->mirrors) {
    CheckServer(mirror);
    Demand(mirror.api_root.has_value());
  }
  CheckServer(hosts->server);
  return 0;
}
