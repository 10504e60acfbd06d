// Whether a host name exists, asked of the system's resolver with a way out.
#ifndef OCIFS_FETCH_RESOLVER_H_
#define OCIFS_FETCH_RESOLVER_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

// Thread-safe. getaddrinfo cannot be cancelled, so it runs on a thread that is left behind when the
// caller goes; callers that ask for the same name share it. Answers are kept for a minute.
class Resolver {
 public:
  // Blocks; returns getaddrinfo's code. Must not refer to anything shorter-lived than the process.
  using LookupFunction = std::function<int(const std::string& host)>;

  static constexpr std::chrono::seconds kDeadline{5};
  static constexpr std::chrono::seconds kAnswerLifetime{60};
  // A resolver that hangs must not collect threads without end.
  static constexpr size_t kMaxLookups = 32;

  Resolver();
  explicit Resolver(LookupFunction lookup, std::chrono::milliseconds deadline = kDeadline);

  // kNotFound when the resolver knows that there is no such name; kUnavailable when it cannot tell;
  // kTimedOut after kDeadline; kCancelled.
  store::Result<void> Find(const std::string& host, const std::stop_token& stop)
      OCIFS_EXCLUDES(mutex_);

 private:
  struct Lookup;

  const LookupFunction lookup_;
  const std::chrono::milliseconds deadline_;
  store::Mutex mutex_;
  // Running lookups and recent answers.
  std::map<std::string, std::shared_ptr<Lookup>> lookups_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_RESOLVER_H_
