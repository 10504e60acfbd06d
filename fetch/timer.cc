#include "fetch/timer.h"

#include <condition_variable>
#include <mutex>

namespace ocifs::fetch {

bool Timer::Wait(std::chrono::milliseconds duration, const std::stop_token& stop) {
  // The standard's own, which alone waits for a stop token (store::CondVar does not).
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  changed.wait_for(lock, stop, duration, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace ocifs::fetch
