#include "fetch/registry_options.h"

#include <utility>

namespace ocifs::fetch {

using store::ErrorCode;
using store::Fail;
using store::Result;

Result<Url> EndpointOf(const store::Registry& registry, const RegistryOptions& options) {
  std::string text = options.endpoint;
  while (text.ends_with('/')) text.pop_back();
  if (text.empty()) text = registry.is_docker_hub() ? "registry-1.docker.io" : registry.name();
  if (text.find("://") == std::string::npos) {
    const Result<store::Registry> place =
        store::Registry::Parse(std::string_view(text).substr(0, text.find('/')));
    if (!place) return Fail(place.error());
    const bool loopback =
        place->is_loopback() && place->port().has_value() && *place->port() != 443;
    const bool plain =
        options.scheme == Scheme::kHttp || (options.scheme == Scheme::kAuto && loopback);
    text.insert(0, plain ? "http://" : "https://");
  }
  Result<Url> url = Url::Parse(text);
  if (!url) return Fail(std::move(url).error().Wrap("endpoint of " + registry.name()));
  if (url->ToString().find('?') != std::string::npos) {
    return Fail(ErrorCode::kInvalid, "endpoint of " + registry.name() + ": it has a query");
  }
  return url;
}

}  // namespace ocifs::fetch
