#include "fetch/host_router.h"

#include <set>
#include <string_view>
#include <utility>

#include "fetch/certs_dir.h"
#include "fetch/config_files.h"
#include "fetch/hosts_toml.h"
#include "fetch/registries_conf.h"
#include "store/log.h"
#include "store/mutex.h"

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

Result<Url> ApiRootBelow(const Url& base) {
  std::string text = base.ToString();
  while (text.ends_with('/')) text.pop_back();
  return Url::Parse(text + "/v2");
}

Result<Url> WithScheme(const Url& url, std::string_view scheme) {
  const std::string& text = url.ToString();
  return Url::Parse(std::string(scheme) + text.substr(text.find("://")));
}

bool NamesServers(const RegistryOptions& options) {
  return !options.endpoint.empty() || options.scheme != Scheme::kAuto ||
         options.tls != TlsOptions() || !options.mirrors.empty();
}

// A server under the names by which it may have to be tried: HTTPS, then HTTP.
using ApiRoots = std::vector<Url>;

// Of a server that our own options name as `text`; empty: `registry` itself. Pure.
Result<ApiRoots> OwnApiRoots(const store::Registry& registry, const std::string& text,
                             const RegistryOptions& options) {
  // Not quoted: a password may stand before it.
  if (text.find('@') != std::string::npos) {
    return Fail(ErrorCode::kInvalid, "a server of " + registry.name() +
                                         ": a URL with a user name or password in it is refused");
  }
  RegistryOptions server = options;
  server.endpoint = text;
  OCIFS_ASSIGN_OR_RETURN(const Url base, EndpointOf(registry, server));
  OCIFS_ASSIGN_OR_RETURN(const Url root, ApiRootBelow(base));
  const bool is_open =
      !server.tls.verify && server.scheme == Scheme::kAuto && text.find("://") == std::string::npos;
  if (!is_open) return ApiRoots{root};
  OCIFS_ASSIGN_OR_RETURN(Url https, WithScheme(root, "https"));
  OCIFS_ASSIGN_OR_RETURN(Url http, WithScheme(root, "http"));
  return ApiRoots{std::move(https), std::move(http)};
}

// The directories that containerd looks for, in its order.
std::vector<std::string> HostDirectories(const store::Registry& registry) {
  std::vector<std::string> names;
  if (registry.port()) {
    const std::string& name = registry.name();
    const size_t colon = name.rfind(':');
    names.push_back(name.substr(0, colon) + "_" + name.substr(colon + 1) + "_");
  }
  names.push_back(registry.name());
  return names;
}

std::string At(const std::string& file, uint32_t line) { return file + ":" + std::to_string(line); }

}  // namespace

class HostRouter::Impl {
 public:
  explicit Impl(HostRouterOptions options) : options_(std::move(options)) {}

  Result<void> Check() const {
    for (const auto& [name, options] : options_.registries) {
      OCIFS_ASSIGN_OR_RETURN(const store::Registry registry, store::Registry::Parse(name));
      for (const std::string& mirror : options.mirrors) {
        OCIFS_RETURN_IF_ERROR(OwnApiRoots(registry, mirror, {}));
        OCIFS_RETURN_IF_ERROR(ContactOf(mirror));
      }
      OCIFS_RETURN_IF_ERROR(OwnApiRoots(registry, options.endpoint, options));
      if (!options.endpoint.empty()) OCIFS_RETURN_IF_ERROR(ContactOf(options.endpoint));
    }
    return {};
  }

  Result<Route> RouteOf(const store::Repository& repository) {
    const store::Registry& registry = repository.registry();
    const RegistryOptions* const own = OptionsOf(registry);
    if (own != nullptr && NamesServers(*own)) return OwnRoute(repository, *own);
    const EntriesValue entries = Entries();
    if (!*entries) return Fail(entries->error());
    const RegistriesConfEntry* const entry = FindInRegistriesConf(**entries, repository.ToString());
    if (entry != nullptr && entry->blocked) {
      return Fail(ErrorCode::kDenied,
                  "registry '" + entry->prefix + "' is blocked in " + At(entry->file, entry->line));
    }
    const HostsValue hosts = HostsOf(registry);
    if (!*hosts) return Fail(hosts->error());
    if (**hosts) return HostsRoute(repository, ***hosts);
    if (entry != nullptr) return RegistriesConfRoute(repository, *entry);
    return HostsRoute(repository, HostsToml());
  }

  bool IsConfigured(const store::Registry& registry) {
    if (OptionsOf(registry) != nullptr) return true;
    for (const std::string& root : options_.hosts_dirs) {
      for (const std::string& name : HostDirectories(registry)) {
        if (FileTrace().IsDirectory(PathIn(root, name))) return true;
      }
    }
    const EntriesValue entries = Entries();
    if (!*entries) return false;
    for (const RegistriesConfEntry& entry : **entries) {
      if (entry.prefix.substr(0, entry.prefix.find('/')) == registry.name()) return true;
    }
    return false;
  }

 private:
  using EntriesValue = FileBacked<std::vector<RegistriesConfEntry>>::Value;
  using HostsValue = FileBacked<std::optional<HostsToml>>::Value;

  // One server of a route, before its schemes are tried one by one.
  struct Server {
    ApiRoots api_roots;
    store::Repository repository;        // at that server
    std::optional<TlsOptions> tls = {};  // absent: what is known of the host
    bool any_certificate = false;
    std::vector<std::string> realm_hosts = {};
  };

  const RegistryOptions* OptionsOf(const store::Registry& registry) const {
    const auto found = options_.registries.find(registry.name());
    return found == options_.registries.end() ? nullptr : &found->second;
  }

  // `form` is the endpoint but for what `server` says.
  Result<void> Add(Route& route, Server server, const Endpoint& form) {
    const store::Registry& contact = server.repository.registry();
    const RegistryOptions* const own = OptionsOf(contact);
    if (server.realm_hosts.empty() && own != nullptr) server.realm_hosts = own->realm_hosts;
    for (Url& api_root : server.api_roots) {
      Endpoint endpoint = form;
      if (api_root.is_https()) {
        if (server.tls) {
          endpoint.tls = *server.tls;
        } else {
          OCIFS_ASSIGN_OR_RETURN(endpoint.tls, TlsOf(contact));
        }
        if (server.any_certificate) endpoint.tls.verify = false;
      }
      endpoint.is_fallback = !api_root.is_https() && server.api_roots.size() > 1;
      endpoint.api_root = std::move(api_root);
      endpoint.repository = server.repository;
      endpoint.realm_hosts = server.realm_hosts;
      route.endpoints.push_back(std::move(endpoint));
    }
    return {};
  }

  Result<void> AddOwn(Route& route, const store::Repository& repository, const std::string& text,
                      const RegistryOptions& options, bool is_origin) {
    OCIFS_ASSIGN_OR_RETURN(ApiRoots roots, OwnApiRoots(repository.registry(), text, options));
    store::Registry contact = repository.registry();
    if (!text.empty()) {
      OCIFS_ASSIGN_OR_RETURN(contact, ContactOf(text));
    }
    OCIFS_ASSIGN_OR_RETURN(store::Repository there,
                           store::Repository::Parse(contact, repository.path()));
    Endpoint form{.api_root = roots.front(), .repository = there, .is_origin = is_origin};
    if (!is_origin && contact != repository.registry()) form.ns = repository.registry().name();
    Server server{.api_roots = std::move(roots), .repository = std::move(there)};
    if (options.tls != TlsOptions()) server.tls = options.tls;
    server.realm_hosts = options.realm_hosts;
    return Add(route, std::move(server), form);
  }

  Result<Route> OwnRoute(const store::Repository& repository, const RegistryOptions& options) {
    Route route;
    for (const std::string& mirror : options.mirrors) {
      OCIFS_ASSIGN_OR_RETURN(const store::Registry contact, ContactOf(mirror));
      const RegistryOptions* const known = OptionsOf(contact);
      OCIFS_RETURN_IF_ERROR(
          AddOwn(route, repository, mirror, known == nullptr ? RegistryOptions() : *known, false));
    }
    OCIFS_RETURN_IF_ERROR(AddOwn(route, repository, options.endpoint, options, true));
    return route;
  }

  // containerd's rules. Without any configuration they are what is built in.
  Result<Route> HostsRoute(const store::Repository& repository, const HostsToml& hosts) {
    Route route;
    for (const HostsTomlServer& mirror : hosts.mirrors) {
      if (!mirror.may_pull && !mirror.may_resolve && !mirror.may_referrers) continue;
      OCIFS_RETURN_IF_ERROR(AddHost(route, repository, mirror, false));
    }
    OCIFS_RETURN_IF_ERROR(AddHost(route, repository, hosts.server, true));
    return route;
  }

  Result<void> AddHost(Route& route, const store::Repository& repository,
                       const HostsTomlServer& host, bool is_origin) {
    const store::Registry& registry = repository.registry();
    const store::Registry contact = host.contact.value_or(registry);
    OCIFS_ASSIGN_OR_RETURN(store::Repository there,
                           store::Repository::Parse(contact, repository.path()));
    std::optional<Url> root = host.api_root;
    if (!root) {
      OCIFS_ASSIGN_OR_RETURN(const Url base, EndpointOf(registry, {}));
      OCIFS_ASSIGN_OR_RETURN(root, ApiRootBelow(base));
    }
    ApiRoots roots = {*root};
    // TLS settings for what is said to be HTTP: either may be meant, unless the port tells.
    if (host.tls_is_set && !root->is_https() && root->port() != 80) {
      OCIFS_ASSIGN_OR_RETURN(Url https, WithScheme(*root, "https"));
      roots.insert(roots.begin(), std::move(https));
    }
    Endpoint form{.api_root = *root,
                  .repository = there,
                  .is_origin = is_origin,
                  .may_pull = host.may_pull,
                  .may_resolve = host.may_resolve,
                  .may_referrers = host.may_referrers};
    // Registry makes docker.io of registry-1.docker.io, so these two do not differ.
    if (contact != registry) form.ns = registry.name();
    form.headers = host.headers;
    form.dial_timeout = host.dial_timeout;
    Server server{.api_roots = std::move(roots), .repository = std::move(there)};
    if (host.tls_is_set) server.tls = host.tls;
    return Add(route, std::move(server), form);
  }

  // The rules of the containers tools: HTTP only for what is said to be insecure, also on loopback.
  Result<Route> RegistriesConfRoute(const store::Repository& repository,
                                    const RegistriesConfEntry& entry) {
    Route route;
    for (const RegistriesConfMirror& mirror : entry.mirrors) {
      Result<void> added = AddLocation(route, repository, entry.prefix, mirror, false);
      if (!added) return Fail(std::move(added).error().Wrap(At(entry.file, mirror.line)));
    }
    const RegistriesConfMirror origin{.location = entry.location, .insecure = entry.insecure};
    Result<void> added = AddLocation(route, repository, entry.prefix, origin, true);
    if (!added) return Fail(std::move(added).error().Wrap(At(entry.file, entry.line)));
    return route;
  }

  Result<void> AddLocation(Route& route, const store::Repository& repository,
                           const std::string& prefix, const RegistriesConfMirror& place,
                           bool is_origin) {
    OCIFS_ASSIGN_OR_RETURN(store::Repository there,
                           RewriteRepository(repository, prefix, place.location));
    OCIFS_ASSIGN_OR_RETURN(const Url base,
                           EndpointOf(there.registry(), {.scheme = Scheme::kHttps}));
    OCIFS_ASSIGN_OR_RETURN(const Url root, ApiRootBelow(base));
    ApiRoots roots = {root};
    if (place.insecure) {
      OCIFS_ASSIGN_OR_RETURN(Url http, WithScheme(root, "http"));
      roots.push_back(std::move(http));
    }
    const Endpoint form{.api_root = root,
                        .repository = there,
                        .is_origin = is_origin,
                        .may_pull = place.pull != PullFromMirror::kTagOnly,
                        .may_resolve = place.pull != PullFromMirror::kDigestOnly,
                        .may_referrers = place.pull == PullFromMirror::kAll};
    return Add(route,
               {.api_roots = std::move(roots),
                .repository = std::move(there),
                .any_certificate = place.insecure},
               form);
  }

  // What is known of a host that its own entry says nothing about.
  Result<TlsOptions> TlsOf(const store::Registry& contact) {
    const RegistryOptions* const own = OptionsOf(contact);
    if (own != nullptr && own->tls != TlsOptions()) return own->tls;
    const auto found = certs_.Get(contact.name(), options_.clock(),
                                  [&](FileTrace& trace) { return LoadCerts(trace, contact); });
    return *found;
  }

  Result<TlsOptions> LoadCerts(FileTrace& trace, const store::Registry& contact) {
    for (const std::string& root : options_.certs_dirs) {
      const std::string directory = PathIn(root, contact.name());
      if (trace.IsDirectory(directory)) return LoadCertsDir(trace, directory);
    }
    return TlsOptions();
  }

  Result<TlsOptions> LoadCertsDir(FileTrace& trace, const std::string& directory) {
    OCIFS_ASSIGN_OR_RETURN(std::optional<std::vector<std::string>> names, trace.List(directory));
    if (!names) return TlsOptions();
    // Anything but a file would be read when a connection is made, and may hang there.
    std::erase_if(*names, [&](const std::string& name) {
      return !trace.IsRegularFile(PathIn(directory, name));
    });
    OCIFS_ASSIGN_OR_RETURN(CertsDir certs, ReadCertsDir(directory, *std::move(names)));
    ReportPairs(directory, certs.pairs, certs.tls);
    return std::move(certs.tls);
  }

  HostsValue HostsOf(const store::Registry& registry) {
    return hosts_.Get(registry.name(), options_.clock(),
                      [&](FileTrace& trace) { return LoadHosts(trace, registry); });
  }

  Result<std::optional<HostsToml>> LoadHosts(FileTrace& trace, const store::Registry& registry) {
    std::vector<std::string> names = HostDirectories(registry);
    names.emplace_back("_default");
    for (const std::string& root : options_.hosts_dirs) {
      for (const std::string& name : names) {
        const std::string directory = PathIn(root, name);
        if (trace.IsDirectory(directory)) return LoadHostsDir(trace, directory);
      }
    }
    return std::nullopt;
  }

  Result<std::optional<HostsToml>> LoadHostsDir(FileTrace& trace, const std::string& directory) {
    const std::string file = PathIn(directory, "hosts.toml");
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> text, trace.Read(file));
    HostsToml hosts;
    if (!text || text->empty()) {
      OCIFS_ASSIGN_OR_RETURN(hosts.server.tls, LoadCertsDir(trace, directory));
      hosts.server.tls_is_set = hosts.server.tls != TlsOptions();
      return hosts;
    }
    OCIFS_ASSIGN_OR_RETURN(hosts, ParseHostsToml(*text, file));
    for (const HostsTomlServer& mirror : hosts.mirrors) {
      OCIFS_RETURN_IF_ERROR(CheckFiles(trace, file, mirror));
    }
    OCIFS_RETURN_IF_ERROR(CheckFiles(trace, file, hosts.server));
    return hosts;
  }

  // A missing certificate is told where it is named, not at the first connection.
  Result<void> CheckFiles(FileTrace& trace, const std::string& file,
                          const HostsTomlServer& server) {
    std::vector<std::string> named = server.tls.ca_files;
    named.push_back(server.tls.certificate_file);
    named.push_back(server.tls.key_file);
    for (const std::string& path : named) {
      if (path.empty() || trace.IsRegularFile(path)) continue;
      return Fail(ErrorCode::kInvalid,
                  At(file, server.line) + ": " + path +
                      (trace.Exists(path) ? " is no regular file" : " is missing"));
    }
    ReportPairs(file, server.client_pairs, server.tls);
    return {};
  }

  void ReportPairs(const std::string& where, size_t pairs, const TlsOptions& tls)
      OCIFS_EXCLUDES(mutex_) {
    if (pairs < 2) return;
    {
      const store::MutexLock lock(mutex_);
      if (!reported_.insert(where + "\n" + tls.certificate_file).second) return;
    }
    store::Log(store::LogLevel::kWarning,
               where + " has " + std::to_string(pairs) +
                   " certificates of the client for one server; the first is used: " +
                   tls.certificate_file);
  }

  EntriesValue Entries() {
    return entries_.Get("", options_.clock(),
                        [this](FileTrace& trace) { return LoadEntries(trace); });
  }

  Result<std::vector<RegistriesConfEntry>> LoadEntries(FileTrace& trace) const {
    std::vector<RegistriesConfEntry> entries;
    const RegistriesConfPlace* place = nullptr;
    for (const RegistriesConfPlace& candidate : options_.registries_conf) {
      place = &candidate;
      if (candidate.required || trace.Exists(candidate.file)) break;
    }
    if (place == nullptr) return entries;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> text, trace.Read(place->file));
    if (text) {
      OCIFS_ASSIGN_OR_RETURN(entries, ParseRegistriesConf(*text, place->file));
    } else if (place->required) {
      return Fail(ErrorCode::kInvalid, "reading " + place->file + ": it is missing");
    }
    for (const std::string& directory : place->drop_in_directories) {
      OCIFS_RETURN_IF_ERROR(LoadDropIns(trace, directory, entries));
    }
    return entries;
  }

  static Result<void> LoadDropIns(FileTrace& trace, const std::string& directory,
                                  std::vector<RegistriesConfEntry>& entries) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::vector<std::string>> names,
                           trace.List(directory));
    if (!names) return {};
    for (const std::string& name : *names) {
      const std::string file = PathIn(directory, name);
      if (!name.ends_with(".conf") || trace.IsDirectory(file)) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> text, trace.Read(file));
      if (!text) continue;
      OCIFS_ASSIGN_OR_RETURN(std::vector<RegistriesConfEntry> later,
                             ParseRegistriesConf(*text, file));
      MergeRegistriesConf(entries, std::move(later));
    }
    return {};
  }

  const HostRouterOptions options_;
  FileBacked<std::vector<RegistriesConfEntry>> entries_;  // under one key
  FileBacked<std::optional<HostsToml>> hosts_;            // by Registry::name()
  FileBacked<TlsOptions> certs_;                          // by the name of the contacted host
  store::Mutex mutex_;
  std::set<std::string> reported_ OCIFS_GUARDED_BY(mutex_);
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
