// One call for a key at a time; whoever asks meanwhile shares its result.
//
// The call runs on the thread of the first who asks, and ends when that one is stopped: then one of
// the others takes its place. (store/flight.h is for work that must outlive who asked for it.)
#ifndef OCIFS_FETCH_SINGLE_FLIGHT_H_
#define OCIFS_FETCH_SINGLE_FLIGHT_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "store/catch_exceptions.h"
#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

// Thread-safe. No lock is held while `work` runs.
template <typename T>
class SingleFlight {
 public:
  using Result = store::Result<T>;

  // `known`: the answer if there is one already, without a wait; looked at before every call of
  // `work`, which has put its answer there before anybody else may begin. `what`: for the
  // kCancelled of those who stop waiting. What `work` throws is an error for all.
  Result Run(const std::string& key, const std::function<std::optional<Result>()>& known,
             const std::function<Result()>& work, const std::string& what,
             const std::stop_token& stop) OCIFS_EXCLUDES(mutex_) {
    while (true) {
      if (std::optional<Result> answer = known()) return *std::move(answer);
      std::shared_ptr<Flight> flight;
      bool leads = false;
      {
        const store::MutexLock lock(mutex_);
        std::shared_ptr<Flight>& slot = flights_[key];
        leads = slot == nullptr;
        if (leads) slot = std::make_shared<Flight>();
        flight = slot;
      }
      if (leads) return Lead(key, *flight, known, work);
      if (std::optional<Result> answer = Wait(*flight, what, stop)) return *std::move(answer);
    }
  }

 private:
  struct Flight {
    store::Mutex mutex;
    store::CondVar changed;
    std::optional<Result> answer OCIFS_GUARDED_BY(mutex);
  };

  Result Lead(const std::string& key, Flight& flight,
              const std::function<std::optional<Result>()>& known,
              const std::function<Result()>& work) {
    // Between the look at what is known and here another may have landed.
    std::optional<Result> last = known();
    Result answer = last ? *std::move(last) : store::CatchExceptions(work);
    {
      const store::MutexLock lock(mutex_);
      flights_.erase(key);
    }
    {
      const store::MutexLock lock(flight.mutex);
      flight.answer = answer;
    }
    flight.changed.NotifyAll();
    return answer;
  }

  // nullopt when the one who led went away, which says nothing about the answer.
  std::optional<Result> Wait(Flight& flight, const std::string& what, const std::stop_token& stop) {
    const std::stop_callback wake(stop, [&flight] {
      // The lock orders this after the waiter's check of the token.
      {
        const store::MutexLock lock(flight.mutex);
      }
      flight.changed.NotifyAll();
    });
    const store::MutexLock lock(flight.mutex);
    while (!flight.answer && !stop.stop_requested()) flight.changed.Wait(flight.mutex);
    if (stop.stop_requested()) {
      return store::Fail(store::ErrorCode::kCancelled, "waiting for " + what + ": cancelled");
    }
    const Result& answer = *flight.answer;
    if (!answer && answer.error().code == store::ErrorCode::kCancelled) return std::nullopt;
    return answer;
  }

  store::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Flight>> flights_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_SINGLE_FLIGHT_H_
