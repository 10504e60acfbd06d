// `ocifs-ctl login` and `ocifs-ctl logout`: logins in the auth files and credential helpers that
// ocifs, podman, skopeo and docker read. Secrets come from a terminal or the standard input, never
// from the command line, and stand in no message.
#ifndef OCIFS_TOOLS_LOGIN_H_
#define OCIFS_TOOLS_LOGIN_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/credential_helper.h"
#include "fetch/credentials.h"
#include "store/error.h"
#include "store/reference.h"
#include "tools/config.h"

namespace ocifs::tools {

struct LoginOptions {
  Config config;
  std::string registry;
  std::string user;
  std::string auth_file;        // empty: that of the configuration, else the usual places
  bool password_stdin = false;  // login
  bool no_verify = false;       // login
  bool all = false;             // logout
};

// Whether the registry accepts the login; kUnauthenticated when it does not.
using LoginCheck = std::function<store::Result<void>(
    const Config& config, const store::Registry& registry, const fetch::Credential& credential)>;

// The commands. They print what they did to the standard output, failures to the standard error,
// and return the exit status: 0, or 1 when nothing was stored, or something could not be taken out,
// or there was nothing to take out.
int Login(const LoginOptions& options, const LoginCheck& check);
int Logout(const LoginOptions& options);

// "host[:port]", as people write it: also "https://host/v1/". kInvalid for anything below a host.
store::Result<store::Registry> ParseLoginRegistry(std::string_view text);

// Stores the login in one place; returns lines that say where, and what is odd about it.
//
// The place is the first of the files that has a login for the registry or leaves it to a helper,
// in which case the helper gets it; else the login file. A file that vanishes with the session is
// no place, but a login in it, which would be found first, is replaced too.
store::Result<std::vector<std::string>> StoreLogin(const fetch::AuthPlaces& places,
                                                   fetch::CredentialHelpers& helpers,
                                                   const store::Registry& registry,
                                                   const fetch::Credential& credential);

// What became of the logins for a registry.
struct RemovedLogins {
  std::vector<std::string> removed;    // where, a line each
  std::vector<store::Error> failures;  // of places that are to be looked at by somebody else
};

// Takes the login out of every place that has one for exactly this registry; logins for parts of it
// ("host/namespace") stay. What fails does not keep the rest from being done.
RemovedLogins RemoveLogin(const fetch::AuthPlaces& places, fetch::CredentialHelpers& helpers,
                          const store::Registry& registry);
// The same for every registry that one of the files names.
RemovedLogins RemoveAllLogins(const fetch::AuthPlaces& places, fetch::CredentialHelpers& helpers);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_LOGIN_H_
