// What a user is known by at a registry, and the files of the Docker and containers tools that say
// so (containers-auth.json(5), Docker's config.json). Secrets appear in no message.
#ifndef OCIFS_FETCH_CREDENTIALS_H_
#define OCIFS_FETCH_CREDENTIALS_H_

#include <functional>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "store/error.h"
#include "store/mutex.h"
#include "store/reference.h"

namespace ocifs::fetch {

// One of: a registry token (sent as a Bearer token as it is), an identity token (exchanged at the
// token server), or a user name and password.
struct Credential {
  std::string username;
  std::string password;
  std::string identity_token;
  std::string registry_token;

  friend bool operator==(const Credential&, const Credential&) = default;
};

// How old an answer may be. Files are read anew for each lookup; what costs a process to ask may be
// remembered for a while, until a registry refuses it.
enum class Freshness { kCached, kFresh };

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
std::optional<std::string> ProcessEnvironment(const std::string& name);

// The auth files in the order in which they are looked at: `explicit_file` alone if it is not
// empty, else $REGISTRY_AUTH_FILE alone if set, else those of the containers tools, else those of
// Docker. They need not exist.
std::vector<std::string> AuthFilePaths(std::string_view explicit_file,
                                       const EnvironmentLookup& environment, uint32_t uid);

// The credential that the text of one auth file holds for `repository`: the most specific key of
// host/namespace/repository, host/namespace, host; then keys in the older forms
// ("https://host/v1/"). `helper` is set to a credential helper that the file names for the host
// instead. kInvalid when the text is not an auth file. Pure.
struct AuthFileAnswer {
  std::optional<Credential> credential;
  std::string helper;
};
store::Result<AuthFileAnswer> FindInAuthFile(std::string_view text,
                                             const store::Repository& repository);

// Reads the files anew for each lookup, so a login or logout counts at once; that is a few opens of
// small files. The first file with a credential wins; absent and unreadable ones are passed over; a
// malformed one is kInvalid and named. Credential helpers are not run: a file that names one for
// the host is reported in the log, once, and passed over.
class AuthFiles final : public CredentialSource {
 public:
  explicit AuthFiles(std::vector<std::string> paths) : paths_(std::move(paths)) {}
  store::Result<std::optional<Credential>> Lookup(const store::Repository& repository,
                                                  Freshness freshness,
                                                  const std::stop_token& stop) override;

 private:
  void ReportHelperOnce(const std::string& path, const std::string& helper,
                        const store::Registry& registry) OCIFS_EXCLUDES(mutex_);

  const std::vector<std::string> paths_;
  store::Mutex mutex_;
  std::set<std::string> reported_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CREDENTIALS_H_
