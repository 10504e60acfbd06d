// TLS beyond the defaults, for one server.
#ifndef OCIFS_FETCH_TLS_OPTIONS_H_
#define OCIFS_FETCH_TLS_OPTIONS_H_

#include <string>
#include <vector>

#include "store/error.h"

namespace ocifs::fetch {

// All files are PEM and named by absolute paths. They are read anew for every request, and a
// connection is shared only by requests that read the same: renewed certificates count at once.
struct TlsOptions {
  std::vector<std::string> ca_files = {};  // authorities trusted beside the system's
  std::string certificate_file = {};       // the client's, with its chain; empty: none
  std::string key_file = {};               // its key; empty: it is in certificate_file
  bool verify = true;                      // false: any certificate will do

  friend bool operator==(const TlsOptions&, const TlsOptions&) = default;
};

// What the files hold, as PEM.
struct TlsMaterial {
  std::string authorities = {};
  std::string certificate = {};
  std::string key = {};
};

// Reads the files and checks their form: each PEM block (RFC 7468) is whole and holds one DER
// sequence, authorities and certificates are there, and so is a key without a password. Whether key
// and certificate belong together shows in the handshake. kDenied when a file may not be read,
// kInvalid for all else; the message names the file and what to do, and quotes nothing of it. A few
// system calls for each file; authorities are not read when nothing is verified.
store::Result<TlsMaterial> ReadTlsFiles(const TlsOptions& options);

// Whether `directory` holds authorities under the names by which OpenSSL looks them up, one by one
// as they are needed: hashes of their subjects (openssl-rehash(1)).
bool IsHashedDirectory(const std::string& directory);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_TLS_OPTIONS_H_
