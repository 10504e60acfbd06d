#include "fetch/certs_dir.h"

#include <algorithm>
#include <string_view>

namespace ocifs::fetch {

using store::ErrorCode;
using store::Fail;
using store::Result;

Result<CertsDir> ReadCertsDir(const std::string& directory, std::vector<std::string> names) {
  constexpr std::string_view kCertificate = ".cert";
  std::sort(names.begin(), names.end());
  CertsDir found;
  for (const std::string& name : names) {
    const std::string path = directory + "/" + name;
    if (name.ends_with(".crt")) found.tls.ca_files.push_back(path);
    if (!name.ends_with(kCertificate)) continue;
    const std::string key = name.substr(0, name.size() - kCertificate.size()) + ".key";
    if (!std::binary_search(names.begin(), names.end(), key)) {
      return Fail(ErrorCode::kInvalid, path + ": its key, " + key +
                                           ", is missing (a certificate of an authority is named "
                                           "*.crt)");
    }
    if (found.pairs++ > 0) continue;
    found.tls.certificate_file = path;
    found.tls.key_file = directory + "/" + key;
  }
  return found;
}

}  // namespace ocifs::fetch
