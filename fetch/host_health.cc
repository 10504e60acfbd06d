#include "fetch/host_health.h"

#include <algorithm>
#include <utility>

namespace ocifs::fetch {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
using store::Result;

Result<HostHealth::Admission> HostHealth::Admit(milliseconds patience) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  if (quiet_until_ > now) {
    const auto wait = duration_cast<milliseconds>(quiet_until_ - now) + milliseconds(1);
    if (wait > patience) {
      return Fail(ErrorCode::kRateLimited,
                  name_ + " asked for no requests for another " +
                      std::to_string(duration_cast<seconds>(wait).count() + 1) +
                      " s (Retry-After); try again then");
    }
    return Admission{.wait = wait};
  }
  if (unreachable_ < kMaxUnreachable) return Admission{};
  if (probing_ || probe_at_ > now) {
    return Fail(ErrorCode::kUnavailable,
                name_ + " cannot be reached; it is looked for every few seconds (last: " +
                    (last_ ? last_->message : std::string("no answer")) + ")");
  }
  probing_ = true;
  return Admission{.probe = true};
}

bool HostHealth::IsClear() const {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  return quiet_until_ <= now && unreachable_ < kMaxUnreachable;
}

void HostHealth::Answered() {
  const MutexLock lock(mutex_);
  unreachable_ = 0;
  probing_ = false;
  pause_ = kFirstPause;
  last_.reset();
}

void HostHealth::Failed(const Failure& failure) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  if (failure.retry_after) {
    quiet_until_ = std::max(quiet_until_, now + *failure.retry_after);
  }
  // Requests that were sent before the circuit opened do not lengthen its pause.
  const bool was_open = unreachable_ >= kMaxUnreachable;
  if (failure.unreachable && (!was_open || probing_)) {
    ++unreachable_;
    last_ = failure.error;
    if (unreachable_ >= kMaxUnreachable) {
      probe_at_ = now + pause_;
      pause_ = std::min(pause_ * 2, is_mirror_ ? kLongestMirrorPause : kLongestPause);
    }
  }
  probing_ = false;
}

void HostHealth::GaveUp() {
  const MutexLock lock(mutex_);
  probing_ = false;
}

bool HostHealth::IsNews(ErrorCode code) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  const auto [place, first] = told_at_.try_emplace(code, now);
  if (!first && now - place->second < kLogInterval) return false;
  place->second = now;
  return true;
}

}  // namespace ocifs::fetch
