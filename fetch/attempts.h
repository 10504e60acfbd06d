// Which server to ask next, and when: mirrors in their order, the registry last, each as often as
// its failures deserve. A mirror's error never ends the search.
#ifndef OCIFS_FETCH_ATTEMPTS_H_
#define OCIFS_FETCH_ATTEMPTS_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "fetch/failure.h"
#include "fetch/registry_host.h"
#include "fetch/route.h"
#include "fetch/timer.h"
#include "store/error.h"

namespace ocifs::fetch {

struct RetryOptions {
  // Before the second attempt; doubles from there to the longest. Each wait is drawn between half
  // of that and all of it, so that many clients do not come back at once.
  std::chrono::milliseconds first_delay{200};
  std::chrono::milliseconds longest_delay{5'000};
  // No attempt begins when nothing has moved for that long.
  std::chrono::milliseconds patience{20'000};
};

// A server that may be asked for one repository.
struct Candidate {
  std::shared_ptr<RegistryHost> host;
  Endpoint endpoint;
};

// Owned by one thread.
//
//   while (true) {
//     OCIFS_ASSIGN_OR_RETURN(const Attempts::Turn turn, attempts.Next());
//     ... one attempt at turn.candidate ...
//     on success: attempts.Answered(); return
//     attempts.Failed(failure);
//   }
class Attempts {
 public:
  // `what`: for log lines, "blob sha256:… of team/app". `candidates` must not be empty.
  Attempts(std::string what, std::vector<Candidate> candidates, const RetryOptions& options,
           Timer& timer, std::stop_token stop);
  ~Attempts();
  Attempts(const Attempts&) = delete;
  Attempts& operator=(const Attempts&) = delete;

  // Whether the first Next will not wait.
  bool CanStartNow() const { return health().IsClear(); }

  struct Turn {
    const Candidate& candidate;
    // For the request (HttpRequest::connect_timeout); 0: the client's.
    std::chrono::milliseconds connect_timeout{0};
    // The attempt before this one, at the same server, failed: its connection is not to be trusted.
    bool fresh_connection = false;
  };
  // The server whose turn it is; waits when it is not time yet. The error of the last server when
  // none is left to ask; kCancelled.
  store::Result<Turn> Next();

  // Whoever waits for this begins to wait now: patience counts from here.
  void Resume() { moved_at_ = std::max(moved_at_, timer_.Now()); }

  // How the attempt went that the last Next gave. A destroyed or forgotten one was given up.
  void Answered();                  // the answer is what was wanted, so far
  void Progressed(uint64_t bytes);  // of a body: later failures find the server trusted again
  void Failed(Failure failure);

 private:
  // The place to go on to from here.
  size_t NextPlace() const;
  bool is_last() const { return NextPlace() == candidates_.size(); }
  HostHealth& health() const { return candidates_[place_].host->health(); }
  std::chrono::milliseconds Delay() const;
  std::chrono::milliseconds PatienceLeft() const;
  void GoOn();
  // Waits; kCancelled.
  store::Result<void> WaitFor(std::chrono::milliseconds duration);

  const std::string what_;
  const std::vector<Candidate> candidates_;
  const RetryOptions& options_;
  Timer& timer_;
  const std::stop_token stop_;

  size_t place_ = 0;          // in candidates_
  int tried_ = 0;             // at that place, since it last made progress
  int allowed_ = 1;           // tries there, by the last failure
  bool failed_ = false;       // at that place, last time
  bool answered_ = false;     // at that place, if only with a failure
  bool moved_ = false;        // a body has begun to arrive
  uint64_t moved_bytes_ = 0;  // since the last failure
  std::chrono::milliseconds wait_{0};
  std::optional<HostHealth::Admission> admission_;  // of the last attempt
  bool under_way_ = false;                          // which has not ended
  Timer::TimePoint moved_at_;
  std::optional<store::Error> error_;  // of the last server asked
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_ATTEMPTS_H_
