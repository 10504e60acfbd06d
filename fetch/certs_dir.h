// Directories with the certificates of one registry, in the form of Docker and of
// containers-certs.d(5): DIR/<host[:port]>/ with "*.crt", authorities to trust, and pairs "x.cert"
// and "x.key", a certificate of the client and its key.
#ifndef OCIFS_FETCH_CERTS_DIR_H_
#define OCIFS_FETCH_CERTS_DIR_H_

#include <cstddef>
#include <string>
#include <vector>

#include "fetch/tls_options.h"
#include "store/error.h"

namespace ocifs::fetch {

struct CertsDir {
  TlsOptions tls;
  size_t pairs = 0;  // of a client's certificate and key; `tls` has the first by name
};

// What `directory`, which holds files of these names, says. A key without a certificate is not
// ours to judge. kInvalid, naming the file, for a certificate without its key. Pure.
store::Result<CertsDir> ReadCertsDir(const std::string& directory, std::vector<std::string> names);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CERTS_DIR_H_
