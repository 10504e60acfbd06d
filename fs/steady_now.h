// The monotonic clock as a number that fits an atomic.
#ifndef OCIFS_FS_STEADY_NOW_H_
#define OCIFS_FS_STEADY_NOW_H_

#include <chrono>
#include <cstdint>

namespace ocifs::fs {

inline int64_t Nanoseconds(std::chrono::nanoseconds duration) { return duration.count(); }

// Nanoseconds of std::chrono::steady_clock.
inline int64_t SteadyNow() {
  return Nanoseconds(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace ocifs::fs

#endif  // OCIFS_FS_STEADY_NOW_H_
