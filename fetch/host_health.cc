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
  const bool open = silent_ >= kMaxSilent;
  if (open && (probe_ != 0 || probe_at_ > now)) {
    return Fail(ErrorCode::kUnavailable,
                name_ + " cannot be reached; it is looked for every few seconds (last: " +
                    (last_ ? last_->message : std::string("no answer")) + ")");
  }
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
  Admission admission{.number = ++last_number_, .probe = open};
  if (open) {
    probe_ = admission.number;
    admission.quick = pause_ < LongestPause();
  }
  return admission;
}

bool HostHealth::IsClear() const {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  return quiet_until_ <= now && silent_ < kMaxSilent;
}

bool HostHealth::HasAnswered() const {
  const MutexLock lock(mutex_);
  return has_answered_;
}

void HostHealth::Close() {
  silent_ = 0;
  probe_ = 0;
  pause_ = kFirstPause;
  last_.reset();
  has_answered_ = true;
}

void HostHealth::Answered(const Admission&) {
  const MutexLock lock(mutex_);
  Close();
}

void HostHealth::Failed(const Admission& admission, const Failure& failure) {
  const Timer::TimePoint now = timer_.Now();
  const MutexLock lock(mutex_);
  if (failure.retry_after) quiet_until_ = std::max(quiet_until_, now + *failure.retry_after);
  if (failure.contact == Contact::kAnswered) {
    Close();
    return;
  }
  if (probe_ == admission.number) probe_ = 0;
  if (!failure.unreachable() || admission.number <= counted_) return;
  counted_ = last_number_;
  last_ = failure.error;
  if (++silent_ < kMaxSilent) return;
  probe_at_ = now + pause_;
  pause_ = std::min(pause_ * 2, LongestPause());
}

void HostHealth::GaveUp(const Admission& admission) {
  const MutexLock lock(mutex_);
  if (probe_ == admission.number) probe_ = 0;
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
