#include "tools/janitor.h"

#include "store/collector.h"
#include "store/log.h"

namespace ocifs::tools {

Janitor::Janitor(store::Store& store, std::chrono::milliseconds interval)
    : store_(store),
      interval_(interval),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void Janitor::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, stop, interval_, [&stop] { return stop.stop_requested(); })) {
    const store::Result<store::Collected> collected =
        store::Collector(store_).Collect(store::CollectRequest());
    if (!collected) {
      // Another process that collects does what there is to do.
      if (collected.error().code != store::ErrorCode::kWouldBlock) {
        store::Log(store::LogLevel::kWarning, "collecting garbage: " + collected.error().message);
      }
    } else if (collected->packages > 0 || collected->blobs > 0) {
      store::Log(store::LogLevel::kInfo, "evicted " + std::to_string(collected->packages) +
                                             " packages and " + std::to_string(collected->blobs) +
                                             " raw blobs: " + std::to_string(collected->bytes) +
                                             " bytes");
    }
  }
}

}  // namespace ocifs::tools
