#include "fetch/attempts.h"

#include <algorithm>
#include <climits>
#include <random>
#include <utility>

#include "store/log.h"

namespace ocifs::fetch {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Result;

namespace {

// A server that gave that much before it broke off is asked again as if it had not.
constexpr uint64_t kTrustedBytes = uint64_t{64} << 10;
// After that much it need not even wait.
constexpr uint64_t kForgivenBytes = uint64_t{1} << 20;
// A body under way looks for a server that went away that often.
constexpr milliseconds kReturnPoll{500};

// Failures of this side: no other server does better.
bool IsLocal(ErrorCode code) {
  return code == ErrorCode::kCancelled || code == ErrorCode::kShuttingDown ||
         code == ErrorCode::kOutOfMemory || code == ErrorCode::kTooManyFiles ||
         code == ErrorCode::kInternal;
}

milliseconds Jittered(milliseconds least, milliseconds most) {
  static thread_local std::minstd_rand random{std::random_device{}()};
  return milliseconds(std::uniform_int_distribution<int64_t>(least.count(), most.count())(random));
}

}  // namespace

Attempts::Attempts(std::string what, std::vector<Candidate> candidates, const RetryOptions& options,
                   Timer& timer, std::stop_token stop)
    : what_(std::move(what)),
      candidates_(std::move(candidates)),
      options_(options),
      timer_(timer),
      stop_(std::move(stop)),
      moved_at_(timer.Now()) {}

Attempts::~Attempts() {
  if (under_way_) health().GaveUp(*admission_);
}

Result<void> Attempts::WaitFor(milliseconds duration) {
  if (duration <= milliseconds(0) || timer_.Wait(duration, stop_)) return {};
  return Fail(ErrorCode::kCancelled, what_ + ": cancelled");
}

Result<Attempts::Turn> Attempts::Next() {
  if (std::exchange(under_way_, false)) health().GaveUp(*admission_);
  while (true) {
    if (stop_.stop_requested()) return Fail(ErrorCode::kCancelled, what_ + ": cancelled");
    if (place_ == candidates_.size()) return Fail(*error_);
    if (failed_ && (tried_ >= allowed_ || PatienceLeft() <= wait_)) {
      GoOn();
      continue;
    }
    OCIFS_RETURN_IF_ERROR(WaitFor(std::exchange(wait_, milliseconds(0))));
    const milliseconds patience = PatienceLeft();
    // Nobody waits for a mirror.
    const Result<HostHealth::Admission> admission =
        health().Admit(is_last() ? patience : milliseconds(0));
    if (!admission) {
      if (is_last() && moved_ && admission.error().code == ErrorCode::kUnavailable &&
          patience > kReturnPoll) {
        wait_ = kReturnPoll;
        continue;
      }
      // Why the server is left alone says less than what it last failed with.
      if (!error_ || !failed_) error_ = admission.error();
      GoOn();
      continue;
    }
    if (admission->wait > milliseconds(0)) {
      wait_ = Jittered(admission->wait, admission->wait + admission->wait / 10);
      continue;
    }
    admission_ = *admission;
    under_way_ = true;
    ++tried_;
    const Candidate& candidate = candidates_[place_];
    const milliseconds dial = candidate.endpoint.dial_timeout;
    return Turn{
        .candidate = candidate,
        .connect_timeout = admission->quick ? std::max(HostHealth::kProbeTimeout, dial) : dial,
        .fresh_connection = failed_};
  }
}

void Attempts::Answered() {
  under_way_ = false;
  answered_ = true;
  health().Answered(*admission_);
}

void Attempts::Progressed(uint64_t bytes) {
  moved_ = true;
  moved_bytes_ += bytes;
  moved_at_ = timer_.Now();
}

void Attempts::Failed(Failure failure) {
  under_way_ = false;
  if (IsLocal(failure.error.code)) {
    health().GaveUp(*admission_);
    error_ = std::move(failure.error);
    place_ = candidates_.size();
    return;
  }
  health().Failed(*admission_, failure);
  answered_ = answered_ || failure.contact == Contact::kAnswered;
  const uint64_t moved_bytes = std::exchange(moved_bytes_, 0);
  const bool trusted = moved_bytes >= kTrustedBytes;
  failed_ = true;
  allowed_ = failure.tries;
  if (failure.tries > 1 && trusted) {
    tried_ = 0;
  } else if (!is_last()) {
    allowed_ = 0;
  } else if (failure.unreachable() && moved_) {
    allowed_ = INT_MAX;  // what has begun waits for the server as long as patience lasts
  }
  wait_ = trusted && moved_bytes >= kForgivenBytes ? milliseconds(0) : Delay();
  error_ = std::move(failure.error);
}

milliseconds Attempts::Delay() const {
  const int doublings = std::clamp(tried_ - 1, 0, 16);
  const milliseconds longest =
      std::min(options_.first_delay * (int64_t{1} << doublings), options_.longest_delay);
  return Jittered(longest / 2, longest);
}

milliseconds Attempts::PatienceLeft() const {
  return std::max(milliseconds(0),
                  options_.patience - duration_cast<milliseconds>(timer_.Now() - moved_at_));
}

size_t Attempts::NextPlace() const {
  size_t next = place_ + 1;
  // The same server by a lesser scheme: not when it was reached by the better one.
  while (answered_ && next < candidates_.size() && candidates_[next].endpoint.is_fallback) ++next;
  return next;
}

void Attempts::GoOn() {
  const Candidate& left = candidates_[place_];
  place_ = NextPlace();
  if (place_ < candidates_.size() && error_ && left.host->health().IsNews(error_->code)) {
    const Candidate& next = candidates_[place_];
    const std::string role = left.endpoint.is_origin ? "" : "mirror ";
    // A mirror that does not have something is what mirrors are like.
    store::Log(
        error_->code == ErrorCode::kNotFound ? store::LogLevel::kInfo : store::LogLevel::kWarning,
        what_ + ": " + role + left.host->name() + " failed, asking " + next.host->name() +
            " instead: " + error_->message);
  }
  tried_ = 0;
  allowed_ = 1;
  failed_ = false;
  answered_ = false;
  wait_ = milliseconds(0);
  moved_at_ = timer_.Now();
}

}  // namespace ocifs::fetch
