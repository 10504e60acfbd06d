// The registries and layouts that a configuration names, as one Source. The one place where fetch
// meets the rest.
#ifndef OCIFS_TOOLS_REMOTE_H_
#define OCIFS_TOOLS_REMOTE_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fetch/credentials.h"
#include "fetch/registry_source.h"
#include "store/error.h"
#include "store/reference.h"
#include "store/source.h"
#include "tools/config.h"

namespace ocifs::tools {

// Thread-safe.
class Remote {
 public:
  // Starts the HTTP thread: after any fork. Sends nothing. Logins come from `credentials` when it
  // is given, else from where `config` and the tools of Docker and podman keep them.
  static store::Result<std::unique_ptr<Remote>> Create(
      const Config& config, std::unique_ptr<fetch::CredentialSource> credentials = nullptr);

  store::Source& source() { return *source_; }
  // Those that the configuration names.
  const std::vector<store::Registry>& registries() const { return registries_; }
  // Whether the registry accepts the login (RegistrySource::CheckLogin). kInvalid for a layout.
  store::Result<void> CheckLogin(const store::Registry& registry,
                                 const fetch::Credential& credential);

 private:
  Remote() = default;
  std::unique_ptr<store::Source> source_;
  fetch::RegistrySource* from_registries_ = nullptr;  // below source_
  std::vector<store::Registry> registries_;
  std::set<std::string> layouts_;  // names of registries that are layouts
};

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_REMOTE_H_
