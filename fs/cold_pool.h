// Threads for requests that have to wait: for a registry, for a fetch of somebody else.
#ifndef OCIFS_FS_COLD_POOL_H_
#define OCIFS_FS_COLD_POOL_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <stop_token>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "store/mutex.h"

namespace ocifs::fs {

// Thread-safe. Grows with the number of waiting requests up to a limit, shrinks when idle. A task
// beyond the limit waits in line, but not to be cancelled: a cancelled task runs at once, on a
// thread beyond the limit if need be, because all it does is say so to its caller.
class ColdPool {
 public:
  struct Options {
    size_t max_threads = 256;
    std::chrono::milliseconds idle_time{10'000};  // after which a thread ends
  };

  class Task {
   public:
    explicit Task(std::function<void(std::stop_token)> run) : run_(std::move(run)) {}

   private:
    friend class ColdPool;
    std::function<void(std::stop_token)> run_;
    std::stop_source stop_;
    bool queued_ = false;  // guarded by the pool's mutex
  };

  explicit ColdPool(Options options) : options_(options) {}
  ~ColdPool() { Stop(); }
  ColdPool(const ColdPool&) = delete;
  ColdPool& operator=(const ColdPool&) = delete;

  // The task runs once, with a token that Cancel or Stop trigger. False: it will not run, because
  // the pool stops or the system gives no thread.
  bool Submit(std::shared_ptr<Task> task);
  // Requests the stop of a task that was made, whether it was submitted or not.
  void Cancel(const std::shared_ptr<Task>& task);
  // Requests the stop of all tasks, takes no new ones, and waits until all have run.
  void Stop();

  size_t thread_count() const;

 private:
  void RunThread(uint64_t id);
  bool StartThread() OCIFS_REQUIRES(mutex_);
  void JoinFinished();

  const Options options_;
  mutable store::Mutex mutex_;
  store::CondVar work_;
  std::deque<std::shared_ptr<Task>> queue_ OCIFS_GUARDED_BY(mutex_);
  std::unordered_set<std::shared_ptr<Task>> running_ OCIFS_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::thread> threads_ OCIFS_GUARDED_BY(mutex_);
  std::vector<uint64_t> finished_ OCIFS_GUARDED_BY(mutex_);
  uint64_t next_id_ OCIFS_GUARDED_BY(mutex_) = 0;
  size_t idle_ OCIFS_GUARDED_BY(mutex_) = 0;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_COLD_POOL_H_
