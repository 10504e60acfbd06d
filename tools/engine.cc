#include "tools/engine.h"

#include <unistd.h>

#include <map>
#include <utility>

#include "fetch/credentials.h"
#include "fetch/host_router.h"
#include "fetch/layout_source.h"
#include "fetch/registry_source.h"
#include "fetch/routing_source.h"

namespace ocifs::tools {

store::Result<std::unique_ptr<Engine>> Engine::Create(const Config& config) {
  std::unique_ptr<Engine> engine(new Engine());
  OCIFS_ASSIGN_OR_RETURN(engine->store_, store::Store::Open(config.store));

  fetch::HostRouterOptions routing =
      fetch::HostRouterOptionsFor(config.host_files, fetch::ProcessEnvironment, geteuid());
  fetch::RegistrySourceOptions options;
  // More than all pulls together hold open to one host (store/puller.cc), so that none of them
  // waits for a connection that another has paused.
  options.http.max_connections_per_host = 32;
  std::map<std::string, std::unique_ptr<store::Source>> layouts;
  for (const auto& [name, registry_config] : config.registries) {
    OCIFS_ASSIGN_OR_RETURN(store::Registry registry, store::Registry::Parse(name));
    engine->registries_.push_back(registry);
    if (registry_config.layout.empty()) {
      routing.registries.emplace(name, registry_config.options);
    } else {
      OCIFS_ASSIGN_OR_RETURN(
          std::unique_ptr<fetch::LayoutSource> layout,
          fetch::LayoutSource::Create(registry, {.directory = registry_config.layout,
                                                 .repository = registry_config.layout_repository}));
      layouts.emplace(name, std::move(layout));
    }
  }
  auto credentials = std::make_unique<fetch::AuthFiles>(
      fetch::FindAuthPlaces(config.auth_file, fetch::ProcessEnvironment, geteuid()));
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<fetch::HostRouter> router,
                         fetch::HostRouter::Create(std::move(routing)));
  OCIFS_ASSIGN_OR_RETURN(
      std::unique_ptr<fetch::RegistrySource> registries,
      fetch::RegistrySource::Create(std::move(options), {.router = std::move(router),
                                                         .credentials = std::move(credentials)}));
  engine->source_ =
      std::make_unique<fetch::RoutingSource>(std::move(layouts), std::move(registries));

  store::PullThrough::Options pull;
  pull.platform = config.platform;
  pull.limits = config.limits;
  pull.offline = config.offline;
  pull.stall_timeout = config.request_timeout;
  engine->pull_ =
      std::make_unique<store::PullThrough>(*engine->store_, *engine->source_, std::move(pull));
  return engine;
}

}  // namespace ocifs::tools
