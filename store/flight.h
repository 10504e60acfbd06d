// One fetch for all who want the same thing at the same time.
#ifndef OCIFS_STORE_FLIGHT_H_
#define OCIFS_STORE_FLIGHT_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "store/catch_exceptions.h"
#include "store/error.h"
#include "store/job_pool.h"
#include "store/mutex.h"
#include "store/pull_through.h"

namespace ocifs::store {

// How far a fetch has come. Thread-safe.
class FlightProgress {
 public:
  explicit FlightProgress(std::string what) : what_(std::move(what)) { Moved(); }

  const std::string& what() const { return what_; }
  // Something happened: those who wait go on waiting.
  void Moved() { moved_at_.store(std::chrono::steady_clock::now(), std::memory_order_relaxed); }
  void Fetched(uint64_t bytes) {
    fetched_.fetch_add(bytes, std::memory_order_relaxed);
    Moved();
  }
  void Expect(uint64_t bytes) { total_.fetch_add(bytes, std::memory_order_relaxed); }

  std::chrono::steady_clock::time_point moved_at() const {
    return moved_at_.load(std::memory_order_relaxed);
  }
  uint64_t fetched() const { return fetched_.load(std::memory_order_relaxed); }
  uint64_t total() const { return total_.load(std::memory_order_relaxed); }

 private:
  const std::string what_;
  // Atomics: figures for display and a time to compare; nothing is ordered by them.
  std::atomic<std::chrono::steady_clock::time_point> moved_at_;
  std::atomic<uint64_t> fetched_ = 0;
  std::atomic<uint64_t> total_ = 0;
};

// The fetches of one kind that are under way. Thread-safe. T is copied to each who waited.
template <typename T>
class FlightTable {
 public:
  FlightTable(JobPool& pool, std::chrono::milliseconds stall_timeout)
      : pool_(pool), stall_timeout_(stall_timeout) {}

  // Joins the fetch of `key`, or starts `work` on the pool, and waits as `context` says. A waiter
  // that leaves early leaves the fetch running.
  Result<T> Run(const std::string& key, const RequestContext& context,
                std::function<Result<T>(FlightProgress&)> work) {
    if (context.wait == RequestContext::Wait::kNever) {
      return Fail(ErrorCode::kWouldBlock, key + ": needs to be fetched");
    }
    std::shared_ptr<Flight> flight;
    {
      const MutexLock lock(mutex_);
      std::shared_ptr<Flight>& entry = flights_[key];
      if (entry == nullptr) {
        entry = std::make_shared<Flight>(key);
        pool_.Submit([this, key, started = entry, work = std::move(work)] {
          Result<T> result = CatchExceptions([&] { return work(started->progress); });
          {
            // Out of the table before the result is out: who comes later looks in the store.
            const MutexLock table_lock(mutex_);
            flights_.erase(key);
          }
          const MutexLock flight_lock(started->mutex);
          started->result = std::move(result);
          started->changed.NotifyAll();
        });
      }
      flight = entry;
    }
    return Wait(*flight, context);
  }

  void AppendProgress(std::vector<FetchProgress>& out) const {
    const MutexLock lock(mutex_);
    for (const auto& [key, flight] : flights_) {
      const FlightProgress& p = flight->progress;
      out.push_back(FetchProgress{p.what(), p.fetched(), p.total()});
    }
  }

 private:
  struct Flight {
    explicit Flight(const std::string& key) : progress(key) {}
    FlightProgress progress;
    Mutex mutex;
    CondVar changed;
    std::optional<Result<T>> result OCIFS_GUARDED_BY(mutex);
  };

  Result<T> Wait(Flight& flight, const RequestContext& context) const {
    // Wakes the wait below when the caller goes away. It outlives the lock: its destructor waits
    // for a callback under way, which takes the lock.
    const std::stop_callback wake(context.stop, [&flight] {
      const MutexLock lock(flight.mutex);
      flight.changed.NotifyAll();
    });
    const MutexLock lock(flight.mutex);
    while (!flight.result) {
      if (context.stop.stop_requested()) {
        return Fail(ErrorCode::kCancelled, flight.progress.what() + ": the caller went away");
      }
      const auto deadline = flight.progress.moved_at() + stall_timeout_;
      if (std::chrono::steady_clock::now() >= deadline) {
        return Fail(ErrorCode::kTimedOut, flight.progress.what() + ": nothing arrived for " +
                                              std::to_string(stall_timeout_.count() / 1000) +
                                              " s; the fetch goes on, try again later");
      }
      flight.changed.WaitUntil(flight.mutex, deadline);
    }
    return *flight.result;
  }

  JobPool& pool_;
  const std::chrono::milliseconds stall_timeout_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Flight>> flights_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_FLIGHT_H_
