// Store, registries and pull-through cache, put together as the configuration says.
#ifndef OCIFS_TOOLS_ENGINE_H_
#define OCIFS_TOOLS_ENGINE_H_

#include <memory>
#include <vector>

#include "store/error.h"
#include "store/pull_through.h"
#include "store/reference.h"
#include "store/store.h"
#include "tools/config.h"
#include "tools/remote.h"

namespace ocifs::tools {

class Engine {
 public:
  // Opens the store (made if missing) and starts the HTTP thread: after any fork. No request yet.
  static store::Result<std::unique_ptr<Engine>> Create(const Config& config,
                                                       const store::Store::OpenOptions& open);
  static store::Result<std::unique_ptr<Engine>> Create(const Config& config) {
    return Create(config, {});
  }

  store::Store& store() { return *store_; }
  Remote& remote() { return *remote_; }
  store::PullThrough& pull() { return *pull_; }
  // Those that the configuration names.
  const std::vector<store::Registry>& registries() const { return remote_->registries(); }

 private:
  Engine() = default;
  // In order of construction: each uses the ones before it.
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<Remote> remote_;
  std::unique_ptr<store::PullThrough> pull_;
};

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_ENGINE_H_
