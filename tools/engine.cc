#include "tools/engine.h"

#include <utility>

#include "store/space.h"

namespace ocifs::tools {

store::Result<std::unique_ptr<Engine>> Engine::Create(const Config& config,
                                                      const store::Store::OpenOptions& open) {
  std::unique_ptr<Engine> engine(new Engine());
  OCIFS_ASSIGN_OR_RETURN(engine->store_, store::Store::Open(config.store, open));
  OCIFS_ASSIGN_OR_RETURN(const store::StoreUsage usage, engine->store_->Usage());
  store::StoreLimits limits = store::StoreLimits::Defaults(usage.filesystem_size);
  if (config.max_size) limits.max_bytes = config.max_size->Of(usage.filesystem_size);
  if (config.min_free) limits.min_free_bytes = config.min_free->Of(usage.filesystem_size);
  limits.max_age = config.max_age.count();
  engine->store_->SetLimits(limits);
  OCIFS_ASSIGN_OR_RETURN(engine->remote_, Remote::Create(config));
  store::PullThrough::Options pull;
  pull.platform = config.platform;
  pull.limits = config.limits;
  pull.offline = config.offline;
  pull.stall_timeout = config.request_timeout;
  engine->pull_ = std::make_unique<store::PullThrough>(*engine->store_, engine->remote_->source(),
                                                       std::move(pull));
  return engine;
}

}  // namespace ocifs::tools
