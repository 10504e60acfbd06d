// Threads for work that waits: started when needed, kept for the next job, never more than a limit.
#ifndef OCIFS_STORE_JOB_POOL_H_
#define OCIFS_STORE_JOB_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "store/mutex.h"

namespace ocifs::store {

// Thread-safe.
class JobPool {
 public:
  explicit JobPool(size_t max_threads) : max_threads_(max_threads) {}
  // Runs what is queued, then ends. Jobs that may wait long must have been told to stop before.
  ~JobPool();
  JobPool(const JobPool&) = delete;
  JobPool& operator=(const JobPool&) = delete;

  // Jobs start in order; with max_threads 1 they also end in order.
  void Submit(std::function<void()> job);
  // Waits until all jobs submitted before have ended.
  void Drain();

 private:
  void Work();

  const size_t max_threads_;
  Mutex mutex_;
  CondVar work_;
  CondVar idle_;
  std::deque<std::function<void()>> jobs_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ OCIFS_GUARDED_BY(mutex_);
  size_t waiting_ OCIFS_GUARDED_BY(mutex_) = 0;
  size_t running_ OCIFS_GUARDED_BY(mutex_) = 0;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_JOB_POOL_H_
