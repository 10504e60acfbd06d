// One auth file of the Docker and containers tools: config.json, auth.json, .dockercfg
// (containers-auth.json(5), Docker's configuration file). Reading, and editing that changes what it
// must and keeps every other byte. Secrets appear in no message.
#ifndef OCIFS_FETCH_AUTH_FILE_H_
#define OCIFS_FETCH_AUTH_FILE_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/credential.h"
#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

// What a file says about a repository: a credential, or the helper that keeps it, or neither.
struct AuthFileAnswer {
  std::optional<Credential> credential;
  std::string helper;                // empty: none
  std::vector<std::string> servers;  // the names to ask it for, in this order
};

// In this order: the helper that "credHelpers" names for the registry; the login in "auths" under
// the most specific key of host/namespace/repository, host/namespace, host, then under keys in the
// older forms ("https://host/v1/"); the helper in "credsStore", if there is no login or an empty
// one. Keys mean exactly the host and port that they name, except that docker.io, index.docker.io
// and registry-1.docker.io are one. kInvalid when the text is not an auth file. Pure.
store::Result<AuthFileAnswer> FindInAuthFile(std::string_view text,
                                             const store::Repository& repository);

// What a file says about a registry as a whole, apart from logins for parts of it.
struct RegistryLogins {
  bool has_key = false;    // "auths" has it, with a login or an empty entry
  bool has_login = false;  // "auths" has it, with a login
  std::string helper;      // the one that keeps it, or would
  std::vector<std::string> servers;
  bool legacy = false;  // the file is in the form of .dockercfg, which is not written any more
};
store::Result<RegistryLogins> FindRegistryInAuthFile(std::string_view text,
                                                     const store::Registry& registry);

// The registries of which a file holds, or leaves to a helper, a login; those of parts of a
// registry
// ("host/namespace") are not among them.
store::Result<std::vector<store::Registry>> RegistriesInAuthFile(std::string_view text);

// `text`, which may be empty, with one login for the registry in it: under the host's name, for
// Docker Hub under the key that all tools read; other keys of the same registry go. Without a
// credential the entry is empty, as it is where a helper keeps the secret. The credential is a user
// name, which holds no ':', and a password (else kInvalid). kInvalid for a text that is not an auth
// file, kUnsupported for one in the form of .dockercfg. All other bytes stay as they are. Pure.
store::Result<std::string> WithLogin(std::string_view text, const store::Registry& registry,
                                     const std::optional<Credential>& credential);

// `text` without the registry's entries; nullopt when it has none. Pure.
store::Result<std::optional<std::string>> WithoutLogin(std::string_view text,
                                                       const store::Registry& registry);

// The text of a file; nullopt when there is none, none that may be read, or what is there is no
// regular file. At most 4 MiB: what is longer is cut, which no parser takes.
std::optional<std::string> ReadAuthFile(const std::string& path);

// From the text of a file, empty if there is none, its new text; nullopt leaves it as it is.
using AuthFileEdit = std::function<store::Result<std::optional<std::string>>(std::string_view)>;

// Replaces a file as `edit` says; whether it did. Other edits by ocifs wait meanwhile, so none is
// lost. The new text is synced and takes the place of the old at once, so readers see one or the
// other; mode 0600, and the owner of the old if we may give it. A symbolic link stays, and what it
// names is replaced. Missing directories are made, mode 0700. Nothing has changed when it fails:
// kInvalid for what is no regular file, else as edit, or the filesystem, says. Blocks while another
// edit is under way.
store::Result<bool> EditAuthFile(const std::string& path, const AuthFileEdit& edit);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_AUTH_FILE_H_
