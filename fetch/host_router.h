// Which servers a repository is asked for at: mirrors, then the origin, from our own configuration
// and from the files of containerd, of the containers tools (podman, skopeo) and of Docker.
//
// Per registry, the first of these that speaks of it decides, alone:
//   1. our own options, if they name an endpoint, a scheme, TLS settings or mirrors;
//   2. the first of `hosts_dirs` with a directory for it (hosts_toml.h);
//   3. the longest matching prefix of registries.conf (registries_conf.h);
//   4. what is built in: the registry itself; docker.io at registry-1.docker.io; HTTP for loopback
//      names with a port other than 443, else HTTPS.
// A registry that registries.conf blocks is refused unless 1 applies: a block is a refusal and no
// place. TLS settings of a server that its own entry does not give come from our options for the
// server's name, else from the first of `certs_dirs` with a directory for it (certs_dir.h).
//
// No expansion of environment variables anywhere. Values of headers stand in no message.
#ifndef OCIFS_FETCH_HOST_ROUTER_H_
#define OCIFS_FETCH_HOST_ROUTER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fetch/credentials.h"
#include "fetch/registry_options.h"
#include "fetch/route.h"
#include "store/error.h"
#include "store/reference.h"

namespace ocifs::fetch {

// A registries.conf and the directories of its drop-ins, later ones over earlier ones.
struct RegistriesConfPlace {
  std::string file;
  std::vector<std::string> drop_in_directories = {};
  bool required = false;  // a missing file is an error
};

struct HostRouterOptions {
  std::map<std::string, RegistryOptions> registries = {};  // by Registry::name()
  std::vector<std::string> hosts_dirs = {};                // "/etc/containerd/certs.d"
  // The first whose file is there or required counts, else the last.
  std::vector<RegistriesConfPlace> registries_conf = {};
  std::vector<std::string> certs_dirs = {};  // "/etc/containers/certs.d"
  std::function<std::chrono::steady_clock::time_point()> clock = std::chrono::steady_clock::now;
};

// Where the files of other tools are. Absent: where these tools look themselves. Empty: nowhere.
struct HostFilePlaces {
  std::optional<std::string> hosts_dir = {};
  std::optional<std::string> registries_conf = {};  // its drop-ins: "<file>.d/*.conf"
  std::optional<std::string> certs_dir = {};
};

// Options that read those places; `registries` is left empty. Root has the files below /etc; other
// users have their own first (containers-registries.conf(5), "FILES"). $CONTAINERS_REGISTRIES_CONF
// stands for the file of both. Pure.
HostRouterOptions HostRouterOptionsFor(const HostFilePlaces& places,
                                       const EnvironmentLookup& environment, uint32_t uid);

// Thread-safe. Files are looked at again when they changed, at most once a second; each RouteOf
// else costs a few lookups in memory. A file that no longer parses is an error from then on: what
// it said before is not used, as it may send requests where they must no longer go.
class HostRouter final : public Router {
 public:
  // kInvalid when our own options are wrong. Reads no file yet.
  static store::Result<std::unique_ptr<HostRouter>> Create(HostRouterOptions options);
  ~HostRouter() override;

  // kDenied, naming the file, for a blocked registry; kInvalid, naming file and line, when a file
  // is there and cannot be read or does not parse.
  store::Result<Route> RouteOf(const store::Repository& repository) override;
  // True when our options, a directory of its own (not `_default`) in a hosts directory, or a
  // prefix of registries.conf (not a "*." one) name this registry.
  bool IsConfigured(const store::Registry& registry) override;

 private:
  class Impl;
  explicit HostRouter(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HOST_ROUTER_H_
