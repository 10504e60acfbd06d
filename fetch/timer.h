// Time as retries see it: a clock and a wait with a way out. Tests put their own in its place.
#ifndef OCIFS_FETCH_TIMER_H_
#define OCIFS_FETCH_TIMER_H_

#include <chrono>
#include <stop_token>

namespace ocifs::fetch {

// Thread-safe.
class Timer {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  virtual ~Timer() = default;
  virtual TimePoint Now() const { return std::chrono::steady_clock::now(); }
  // Blocks for `duration`, or until a stop is requested: then false, at once.
  virtual bool Wait(std::chrono::milliseconds duration, const std::stop_token& stop);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_TIMER_H_
