// What is known of a server's state: whether it can be reached, and whether it asked to be left
// alone. A server that is down costs its readers one wait and then nothing, until it is back.
#ifndef OCIFS_FETCH_HOST_HEALTH_H_
#define OCIFS_FETCH_HOST_HEALTH_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "fetch/failure.h"
#include "fetch/timer.h"
#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

// A circuit breaker (after the pattern of that name): kMaxSilent requests in a row without an
// answer open it; while it is open, requests fail at once, and every so often one of them is let
// through to look. Any answer at all closes it. Thread-safe; no call blocks.
class HostHealth {
 public:
  static constexpr int kMaxSilent = 2;
  // Between looks at a server that is down: doubling, from the first to the second. A mirror can be
  // done without; a registry cannot, and is to be found soon after it is back.
  static constexpr std::chrono::milliseconds kFirstPause{1'000};
  static constexpr std::chrono::milliseconds kLongestPause{4'000};
  static constexpr std::chrono::milliseconds kLongestMirrorPause{60'000};
  // What a look may take to connect, as its reader waits for it. When that has failed for a while
  // looks take as long as they need: the way may have become slow for good.
  static constexpr std::chrono::milliseconds kProbeTimeout{3'000};
  // A server's log lines of one kind are that far apart.
  static constexpr std::chrono::seconds kLogInterval{60};

  // `name`: the server, for messages.
  HostHealth(std::string name, bool is_mirror, const Timer& timer)
      : name_(std::move(name)), is_mirror_(is_mirror), timer_(timer) {}

  // Leave to send one request, or, with `wait`, to come again after that.
  struct Admission {
    std::chrono::milliseconds wait{0};
    uint64_t number = 0;  // tells requests apart
    bool probe = false;   // a look at a server that was down
    bool quick = false;   // which is to connect within kProbeTimeout
  };
  // kUnavailable while the server is down, kRateLimited when it asked for a wait that is longer
  // than `patience`.
  store::Result<Admission> Admit(std::chrono::milliseconds patience) OCIFS_EXCLUDES(mutex_);
  // Whether Admit would neither refuse nor ask to wait.
  bool IsClear() const OCIFS_EXCLUDES(mutex_);
  // Whether the server has ever answered.
  bool HasAnswered() const OCIFS_EXCLUDES(mutex_);

  // Each admitted request ends in one of these.
  void Answered(const Admission& admission) OCIFS_EXCLUDES(mutex_);
  void Failed(const Admission& admission, const Failure& failure) OCIFS_EXCLUDES(mutex_);
  void GaveUp(const Admission& admission) OCIFS_EXCLUDES(mutex_);  // nothing was learned

  // Whether a failure of this kind is news: true once per kLogInterval.
  bool IsNews(store::ErrorCode code) OCIFS_EXCLUDES(mutex_);

 private:
  void Close() OCIFS_REQUIRES(mutex_);
  std::chrono::milliseconds LongestPause() const {
    return is_mirror_ ? kLongestMirrorPause : kLongestPause;
  }

  const std::string name_;
  const bool is_mirror_;
  const Timer& timer_;
  mutable store::Mutex mutex_;
  uint64_t last_number_ OCIFS_GUARDED_BY(mutex_) = 0;
  int silent_ OCIFS_GUARDED_BY(mutex_) = 0;  // requests in a row
  // Requests up to this one were under way when the last silence was counted: theirs is the same.
  uint64_t counted_ OCIFS_GUARDED_BY(mutex_) = 0;
  uint64_t probe_ OCIFS_GUARDED_BY(mutex_) = 0;         // the request that looks; 0: none does
  Timer::TimePoint probe_at_ OCIFS_GUARDED_BY(mutex_);  // the next look, not before
  std::chrono::milliseconds pause_ OCIFS_GUARDED_BY(mutex_) = kFirstPause;
  std::optional<store::Error> last_ OCIFS_GUARDED_BY(mutex_);
  bool has_answered_ OCIFS_GUARDED_BY(mutex_) = false;
  Timer::TimePoint quiet_until_ OCIFS_GUARDED_BY(mutex_);  // Retry-After
  std::map<store::ErrorCode, Timer::TimePoint> told_at_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HOST_HEALTH_H_
