#include "tools/remote.h"

#include <unistd.h>

#include <map>
#include <utility>

#include "fetch/host_router.h"
#include "fetch/layout_source.h"
#include "fetch/routing_source.h"

namespace ocifs::tools {

store::Result<std::unique_ptr<Remote>> Remote::Create(
    const Config& config, std::unique_ptr<fetch::CredentialSource> credentials) {
  std::unique_ptr<Remote> remote(new Remote());
  fetch::HostRouterOptions routing =
      fetch::HostRouterOptionsFor(config.host_files, fetch::ProcessEnvironment, geteuid());
  fetch::RegistrySourceOptions options = config.transfer;
  std::map<std::string, std::unique_ptr<store::Source>> layouts;
  for (const auto& [name, registry_config] : config.registries) {
    OCIFS_ASSIGN_OR_RETURN(store::Registry registry, store::Registry::Parse(name));
    remote->registries_.push_back(registry);
    if (registry_config.catalog) options.catalogs.insert(name);
    if (registry_config.layout.empty()) {
      routing.registries.emplace(name, registry_config.options);
      continue;
    }
    OCIFS_ASSIGN_OR_RETURN(
        std::unique_ptr<fetch::LayoutSource> layout,
        fetch::LayoutSource::Create(registry, {.directory = registry_config.layout,
                                               .repository = registry_config.layout_repository}));
    layouts.emplace(name, std::move(layout));
    remote->layouts_.insert(name);
  }
  if (credentials == nullptr) {
    credentials = std::make_unique<fetch::AuthFiles>(
        fetch::FindAuthPlaces(config.auth_file, fetch::ProcessEnvironment, geteuid()));
  }
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<fetch::HostRouter> router,
                         fetch::HostRouter::Create(std::move(routing)));
  OCIFS_ASSIGN_OR_RETURN(
      std::unique_ptr<fetch::RegistrySource> registries,
      fetch::RegistrySource::Create(std::move(options), {.router = std::move(router),
                                                         .credentials = std::move(credentials)}));
  remote->from_registries_ = registries.get();
  remote->source_ =
      std::make_unique<fetch::RoutingSource>(std::move(layouts), std::move(registries));
  return remote;
}

store::Result<void> Remote::CheckLogin(const store::Registry& registry,
                                       const fetch::Credential& credential) {
  if (layouts_.contains(registry.name())) {
    return store::Fail(store::ErrorCode::kInvalid,
                       registry.name() + " is an image layout on disk, which knows no logins");
  }
  return from_registries_->CheckLogin(registry, credential, {});
}

}  // namespace ocifs::tools
