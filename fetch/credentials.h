// Which credential belongs to a repository, from the auth files and credential helpers of the
// Docker and containers tools (containers-auth.json(5), Docker's configuration file). Secrets
// appear in no message.
#ifndef OCIFS_FETCH_CREDENTIALS_H_
#define OCIFS_FETCH_CREDENTIALS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fetch/credential.h"
#include "fetch/credential_helper.h"
#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

// Thread-safe.
class CredentialSource {
 public:
  virtual ~CredentialSource() = default;
  // The credential for `repository`, or nullopt: then access is anonymous. The registry of
  // `repository` is the host that will be contacted. kCancelled when stop is requested.
  virtual store::Result<std::optional<Credential>> Lookup(const store::Repository& repository,
                                                          Freshness freshness,
                                                          const std::stop_token& stop) = 0;
};

// Value of an environment variable, or nullopt.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;
// That of this process. Where HOME is not set, as in services of the system, it is what the user
// database says.
std::optional<std::string> ProcessEnvironment(const std::string& name);

// Where logins are looked for, the first place first. Files need not exist.
struct AuthPlaces {
  std::string inline_file = {};         // the text of an auth file: $DOCKER_AUTH_CONFIG
  std::vector<std::string> files = {};  // after it
  // Where a new login goes that no file has or leaves to a helper. One of `files`.
  std::string login_file = {};
  // The one of `files` that is gone after the user's last session, if there is one.
  std::string transient_file = {};
};

// `explicit_file` alone if it is not empty, else $REGISTRY_AUTH_FILE alone if set. Else
// $DOCKER_AUTH_CONFIG; $DOCKER_CONFIG/config.json if set, before the others as Docker and Podman
// then both use it; $XDG_RUNTIME_DIR/containers/auth.json or /run/containers/UID/auth.json;
// ${XDG_CONFIG_HOME:-~/.config}/containers/auth.json; ~/.docker/config.json unless $DOCKER_CONFIG
// is set; ~/.dockercfg. An empty variable is one that is not set.
AuthPlaces FindAuthPlaces(std::string_view explicit_file, const EnvironmentLookup& environment,
                          uint32_t uid);

// Reads the files anew for each lookup, so a login or logout counts at once; that is a few opens of
// small files. The first place with a credential wins; absent and unreadable files are passed over;
// a malformed one is kInvalid and named. Where a place leaves the registry to a credential helper,
// the helper is asked: "not found" goes on with the next place, another failure is the answer, an
// error of CredentialHelpers that names the place too.
class AuthFiles final : public CredentialSource {
 public:
  explicit AuthFiles(AuthPlaces places, CredentialHelperOptions helpers = {})
      : places_(std::move(places)), helpers_(std::move(helpers)) {}
  store::Result<std::optional<Credential>> Lookup(const store::Repository& repository,
                                                  Freshness freshness,
                                                  const std::stop_token& stop) override;

 private:
  store::Result<std::optional<Credential>> LookupIn(std::string_view text,
                                                    const store::Repository& repository,
                                                    Freshness freshness,
                                                    const std::stop_token& stop);

  const AuthPlaces places_;
  CredentialHelpers helpers_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CREDENTIALS_H_
