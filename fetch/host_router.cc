#include "fetch/host_router.h"

#include <string_view>
#include <utility>

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

// The host that a URL or "host[:port][/path]" names, as it is written: logins are kept by it.
Result<store::Registry> ContactOf(std::string_view text) {
  if (const size_t scheme = text.find("://"); scheme != std::string_view::npos) {
    text.remove_prefix(scheme + 3);
  }
  return store::Registry::Parse(text.substr(0, text.find('/')));
}

Result<Url> Below(const Url& base, std::string_view path) {
  std::string text = base.ToString();
  while (text.ends_with('/')) text.pop_back();
  return Url::Parse(text + std::string(path));
}

Result<Url> WithScheme(const Url& url, std::string_view scheme) {
  const std::string& text = url.ToString();
  return Url::Parse(std::string(scheme) + text.substr(text.find("://")));
}

bool NamesServers(const RegistryOptions& options) {
  return !options.endpoint.empty() || options.scheme != Scheme::kAuto ||
         options.tls != TlsOptions() || !options.mirrors.empty();
}

}  // namespace

class HostRouter::Impl {
 public:
  explicit Impl(HostRouterOptions options) : options_(std::move(options)) {}

  Result<void> Check() const {
    for (const auto& [name, options] : options_.registries) {
      OCIFS_ASSIGN_OR_RETURN(const store::Registry registry, store::Registry::Parse(name));
      OCIFS_ASSIGN_OR_RETURN(const store::Repository any, store::Repository::Parse(registry, "a"));
      OCIFS_RETURN_IF_ERROR(OwnRoute(any, options));
    }
    return {};
  }

  Result<Route> RouteOf(const store::Repository& repository) {
    const RegistryOptions* const own = OptionsOf(repository.registry());
    if (own != nullptr && NamesServers(*own)) return OwnRoute(repository, *own);
    Route route;
    OCIFS_ASSIGN_OR_RETURN(const Url base, EndpointOf(repository.registry(), {}));
    OCIFS_RETURN_IF_ERROR(Add(route, base, repository, {}));
    return route;
  }

  bool IsConfigured(const store::Registry& registry) { return OptionsOf(registry) != nullptr; }

 private:
  const RegistryOptions* OptionsOf(const store::Registry& registry) const {
    const auto found = options_.registries.find(registry.name());
    return found == options_.registries.end() ? nullptr : &found->second;
  }

  Result<void> Add(Route& route, const Url& base, store::Repository repository,
                   TlsOptions tls) const {
    OCIFS_ASSIGN_OR_RETURN(Url api_root, Below(base, "/v2"));
    Endpoint endpoint{.api_root = std::move(api_root), .repository = std::move(repository)};
    endpoint.tls = std::move(tls);
    if (const RegistryOptions* const own = OptionsOf(endpoint.repository.registry())) {
      endpoint.realm_hosts = own->realm_hosts;
    }
    route.endpoints.push_back(std::move(endpoint));
    return {};
  }

  // One server that our own options name as `text`; empty: the registry itself.
  Result<void> AddOwn(Route& route, const store::Repository& repository, std::string_view text,
                      const RegistryOptions& options) const {
    RegistryOptions server = options;
    server.endpoint = text;
    OCIFS_ASSIGN_OR_RETURN(const Url base, EndpointOf(repository.registry(), server));
    OCIFS_ASSIGN_OR_RETURN(
        const store::Registry contact,
        text.empty() ? Result<store::Registry>(repository.registry()) : ContactOf(text));
    OCIFS_ASSIGN_OR_RETURN(store::Repository there,
                           store::Repository::Parse(contact, repository.path()));
    const bool open = !server.tls.verify && server.scheme == Scheme::kAuto &&
                      text.find("://") == std::string_view::npos;
    if (!open) return Add(route, base, std::move(there), server.tls);
    for (const std::string_view scheme : {"https", "http"}) {
      OCIFS_ASSIGN_OR_RETURN(const Url url, WithScheme(base, scheme));
      OCIFS_RETURN_IF_ERROR(Add(route, url, there, server.tls));
    }
    return {};
  }

  Result<Route> OwnRoute(const store::Repository& repository,
                         const RegistryOptions& options) const {
    Route route;
    for (const std::string& mirror : options.mirrors) {
      OCIFS_ASSIGN_OR_RETURN(const store::Registry contact, ContactOf(mirror));
      const RegistryOptions* const known = OptionsOf(contact);
      OCIFS_RETURN_IF_ERROR(
          AddOwn(route, repository, mirror, known == nullptr ? RegistryOptions() : *known));
    }
    for (Endpoint& mirror : route.endpoints) {
      mirror.is_origin = false;
      if (mirror.repository.registry() != repository.registry()) {
        mirror.ns = repository.registry().name();
      }
    }
    OCIFS_RETURN_IF_ERROR(AddOwn(route, repository, options.endpoint, options));
    return route;
  }

  const HostRouterOptions options_;
};

HostRouter::HostRouter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HostRouter::~HostRouter() = default;

Result<std::unique_ptr<HostRouter>> HostRouter::Create(HostRouterOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  OCIFS_RETURN_IF_ERROR(impl->Check());
  return std::unique_ptr<HostRouter>(new HostRouter(std::move(impl)));
}

Result<Route> HostRouter::RouteOf(const store::Repository& repository) {
  return impl_->RouteOf(repository);
}

bool HostRouter::IsConfigured(const store::Registry& registry) {
  return impl_->IsConfigured(registry);
}

HostRouterOptions HostRouterOptionsFor(const HostFilePlaces& places,
                                       const EnvironmentLookup& environment, uint32_t uid) {
  HostRouterOptions options;
  const bool root = uid == 0;
  auto directory = [&](const char* name) {
    const std::string value = root ? "" : environment(name).value_or("");
    return value.starts_with('/') ? value : "";
  };
  const std::string home = directory("HOME");
  std::string config = directory("XDG_CONFIG_HOME");
  if (config.empty() && !home.empty()) config = home + "/.config";

  if (places.hosts_dir) {
    if (!places.hosts_dir->empty()) options.hosts_dirs = {*places.hosts_dir};
  } else {
    if (!config.empty()) options.hosts_dirs.push_back(config + "/containerd/certs.d");
    options.hosts_dirs.emplace_back("/etc/containerd/certs.d");
  }

  if (places.certs_dir) {
    if (!places.certs_dir->empty()) options.certs_dirs = {*places.certs_dir};
  } else {
    if (!home.empty()) options.certs_dirs.push_back(home + "/.config/containers/certs.d");
    options.certs_dirs.emplace_back("/etc/containers/certs.d");
    options.certs_dirs.emplace_back("/etc/docker/certs.d");
  }

  if (places.registries_conf) {
    if (!places.registries_conf->empty()) {
      options.registries_conf = {{.file = *places.registries_conf,
                                  .drop_in_directories = {*places.registries_conf + ".d"},
                                  .required = true}};
    }
    return options;
  }
  RegistriesConfPlace system{.file = "/etc/containers/registries.conf",
                             .drop_in_directories = {"/etc/containers/registries.conf.d"}};
  const std::string user = home.empty() ? "" : home + "/.config/containers/registries.conf";
  if (!user.empty()) system.drop_in_directories.push_back(user + ".d");
  if (std::string file = environment("CONTAINERS_REGISTRIES_CONF").value_or(""); !file.empty()) {
    system.file = std::move(file);
    system.required = true;
  } else if (!user.empty()) {
    options.registries_conf.push_back({.file = user, .drop_in_directories = {user + ".d"}});
  }
  options.registries_conf.push_back(std::move(system));
  return options;
}

}  // namespace ocifs::fetch
