// Keeps the store of a mount tidy in the background: what is too old goes, what was used is written
// down. What a full store needs at once is done by whoever needs it (store/space.h).
#ifndef OCIFS_TOOLS_JANITOR_H_
#define OCIFS_TOOLS_JANITOR_H_

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "store/store.h"

namespace ocifs::tools {

class Janitor {
 public:
  static constexpr std::chrono::minutes kDefaultInterval{10};

  // Works each `interval` on a thread of its own while the object lives. `store` outlives it.
  explicit Janitor(store::Store& store, std::chrono::milliseconds interval = kDefaultInterval);

 private:
  void Run(const std::stop_token& stop);

  store::Store& store_;
  const std::chrono::milliseconds interval_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;  // last: it uses the members above
};

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_JANITOR_H_
