#include "fetch/resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <optional>
#include <system_error>
#include <thread>
#include <utility>

namespace ocifs::fetch {
namespace {

using std::chrono::steady_clock;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
using store::Result;

constexpr size_t kMaxAnswers = 4096;

int LookupWithSystemResolver(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* addresses = nullptr;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &addresses);
  if (code == 0) freeaddrinfo(addresses);
  return code;
}

Result<void> Translate(int code, const std::string& host) {
  if (code == 0) return {};
  const std::string what = "resolving " + host + ": ";
  if (code == EAI_NONAME || code == EAI_NODATA) {
    return Fail(ErrorCode::kNotFound, what + "there is no such host");
  }
  return Fail(ErrorCode::kUnavailable, what + gai_strerror(code) + "; check the network");
}

}  // namespace

struct Resolver::Lookup {
  store::Mutex mutex;
  store::CondVar changed;
  std::optional<int> code OCIFS_GUARDED_BY(mutex);
  steady_clock::time_point answered OCIFS_GUARDED_BY(mutex);

  bool IsRunning() OCIFS_EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    return !code;
  }
  // Failures of the resolver itself are not worth keeping.
  bool IsFresh(steady_clock::time_point now) OCIFS_EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    return !code || ((*code == 0 || *code == EAI_NONAME || *code == EAI_NODATA) &&
                     now - answered < kAnswerLifetime);
  }
};

Resolver::Resolver() : Resolver(LookupWithSystemResolver) {}
Resolver::Resolver(LookupFunction lookup, std::chrono::milliseconds deadline)
    : lookup_(std::move(lookup)), deadline_(deadline) {}

Result<void> Resolver::Find(const std::string& host, const std::stop_token& stop) {
  const auto deadline = steady_clock::now() + deadline_;
  std::shared_ptr<Lookup> lookup;
  bool start = false;
  {
    const MutexLock lock(mutex_);
    const auto now = steady_clock::now();
    std::erase_if(lookups_, [&](const auto& item) { return !item.second->IsFresh(now); });
    if (const auto found = lookups_.find(host); found != lookups_.end()) {
      lookup = found->second;
    } else {
      size_t running = 0;
      for (const auto& [name, other] : lookups_) running += other->IsRunning() ? 1 : 0;
      if (running >= kMaxLookups) {
        return Fail(ErrorCode::kUnavailable,
                    "resolving " + host + ": the resolver does not answer; check the network");
      }
      if (lookups_.size() >= kMaxAnswers) {
        std::erase_if(lookups_, [](const auto& item) { return !item.second->IsRunning(); });
      }
      lookup = std::make_shared<Lookup>();
      lookups_.emplace(host, lookup);
      start = true;
    }
  }
  if (start) {
    auto run = [lookup, host, function = lookup_] {
      const int code = function(host);
      {
        const MutexLock lock(lookup->mutex);
        lookup->code = code;
        lookup->answered = steady_clock::now();
      }
      lookup->changed.NotifyAll();
    };
    try {
      std::thread(run).detach();
    } catch (const std::system_error&) {
      // Without a thread to be had, the caller's own has to do.
      run();
    }
  }
  const std::stop_callback wake(stop, [&lookup] {
    {
      const MutexLock lock(lookup->mutex);
    }
    lookup->changed.NotifyAll();
  });
  const MutexLock lock(lookup->mutex);
  while (!lookup->code) {
    if (stop.stop_requested()) {
      return Fail(ErrorCode::kCancelled, "resolving " + host + ": cancelled");
    }
    if (!lookup->changed.WaitUntil(lookup->mutex, deadline) && !lookup->code) {
      return Fail(ErrorCode::kTimedOut,
                  "resolving " + host + ": the resolver does not answer; check the network");
    }
  }
  return Translate(*lookup->code, host);
}

}  // namespace ocifs::fetch
