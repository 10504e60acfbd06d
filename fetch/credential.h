// What a user is known by at a registry.
#ifndef OCIFS_FETCH_CREDENTIAL_H_
#define OCIFS_FETCH_CREDENTIAL_H_

#include <string>

namespace ocifs::fetch {

// One of: a registry token (sent as a Bearer token as it is), an identity token (exchanged at the
// token server), or a user name and password. Appears in no message.
struct Credential {
  std::string username = {};
  std::string password = {};
  std::string identity_token = {};
  std::string registry_token = {};

  friend bool operator==(const Credential&, const Credential&) = default;
};

// What an answer may cost. Files are read anew for each lookup in any case.
enum class Freshness {
  kKnown,  // no process is started: what a helper said within the last minutes, else kWouldBlock
  kFresh,  // helpers are asked
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CREDENTIAL_H_
