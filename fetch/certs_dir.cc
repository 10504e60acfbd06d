#include "fetch/certs_dir.h"

#include <algorithm>
#include <string_view>

#include "fetch/config_files.h"

namespace ocifs::fetch {

using store::ErrorCode;
using store::Fail;
using store::Result;

namespace {

std::unexpected<store::Error> MissingKey(const std::string& certificate, const std::string& key) {
  return Fail(ErrorCode::kInvalid,
              certificate + ": its key, " + key +
                  ", is missing (a certificate of an authority is named *.crt)");
}

}  // namespace

Result<CertsDir> ReadCertsDir(const std::string& directory, std::vector<std::string> names) {
  constexpr std::string_view kCertificate = ".cert";
  std::sort(names.begin(), names.end());
  CertsDir found;
  for (const std::string& name : names) {
    const std::string path = PathIn(directory, name);
    if (name.ends_with(".crt")) found.tls.ca_files.push_back(path);
    if (!name.ends_with(kCertificate)) continue;
    std::string key = name.substr(0, name.size() - kCertificate.size());
    key += ".key";
    if (!std::binary_search(names.begin(), names.end(), key)) {
      return MissingKey(path, key);
    }
    if (found.pairs++ > 0) continue;
    found.tls.certificate_file = path;
    found.tls.key_file = PathIn(directory, key);
  }
  return found;
}

}  // namespace ocifs::fetch
