#include "store/job_pool.h"

#include <utility>

namespace ocifs::store {

JobPool::~JobPool() {
  std::vector<std::thread> threads;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    work_.NotifyAll();
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void JobPool::Submit(std::function<void()> job) {
  const MutexLock lock(mutex_);
  jobs_.push_back(std::move(job));
  if (jobs_.size() > waiting_ && threads_.size() < max_threads_) {
    threads_.emplace_back([this] { Work(); });
  }
  work_.NotifyOne();
}

void JobPool::Drain() {
  const MutexLock lock(mutex_);
  while (!jobs_.empty() || running_ > 0) idle_.Wait(mutex_);
}

void JobPool::Work() {
  mutex_.lock();
  while (true) {
    while (jobs_.empty() && !stopping_) {
      ++waiting_;
      work_.Wait(mutex_);
      --waiting_;
    }
    if (jobs_.empty()) break;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    ++running_;
    mutex_.unlock();
    job();
    job = nullptr;  // what it holds is let go without the lock
    mutex_.lock();
    --running_;
    if (jobs_.empty() && running_ == 0) idle_.NotifyAll();
  }
  mutex_.unlock();
}

}  // namespace ocifs::store
