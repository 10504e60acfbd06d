// TLS beyond the defaults, for one server.
#ifndef OCIFS_FETCH_TLS_OPTIONS_H_
#define OCIFS_FETCH_TLS_OPTIONS_H_

#include <string>
#include <vector>

namespace ocifs::fetch {

// All files are PEM and named by absolute paths. They are read when a connection is made, so
// renewed certificates count from the next connection on.
struct TlsOptions {
  std::vector<std::string> ca_files = {};  // authorities trusted beside the system's
  std::string certificate_file = {};       // the client's, with its chain; empty: none
  std::string key_file = {};               // its key; empty: it is in certificate_file
  bool verify = true;                      // false: any certificate will do

  friend bool operator==(const TlsOptions&, const TlsOptions&) = default;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_TLS_OPTIONS_H_
