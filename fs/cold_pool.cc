#include "fs/cold_pool.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace ocifs::fs {

using store::MutexLock;

bool ColdPool::Submit(std::shared_ptr<Task> task) {
  JoinFinished();
  MutexLock lock(mutex_);
  if (stopping_) return false;
  const bool cancelled = task->stop_.stop_requested();
  // An idle thread may have been promised to another task that is still in line.
  if (idle_ <= queue_.size() && (cancelled || threads_.size() < options_.max_threads) &&
      !StartThread() && threads_.empty()) {
    return false;
  }
  task->queued_ = true;
  if (cancelled) {
    queue_.push_front(std::move(task));
  } else {
    queue_.push_back(std::move(task));
  }
  work_.NotifyOne();
  return true;
}

void ColdPool::Cancel(const std::shared_ptr<Task>& task) {
  task->stop_.request_stop();
  MutexLock lock(mutex_);
  if (!task->queued_) return;
  const auto place = std::find(queue_.begin(), queue_.end(), task);
  if (place == queue_.end()) return;
  std::rotate(queue_.begin(), place, place + 1);
  if (idle_ == 0) StartThread();
  work_.NotifyOne();
}

void ColdPool::Stop() {
  std::vector<std::shared_ptr<Task>> tasks;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    tasks.assign(queue_.begin(), queue_.end());
    tasks.insert(tasks.end(), running_.begin(), running_.end());
    work_.NotifyAll();
  }
  for (const std::shared_ptr<Task>& task : tasks) task->stop_.request_stop();
  std::unordered_map<uint64_t, std::thread> threads;
  {
    MutexLock lock(mutex_);
    threads.swap(threads_);
    finished_.clear();
  }
  for (auto& [id, thread] : threads) thread.join();
}

size_t ColdPool::thread_count() const {
  MutexLock lock(mutex_);
  return threads_.size() - finished_.size();
}

bool ColdPool::StartThread() {
  const uint64_t id = ++next_id_;
  try {
    threads_.emplace(id, std::thread([this, id] { RunThread(id); }));
  } catch (const std::system_error&) {
    return false;  // the limit of processes; those that run will come to it
  }
  return true;
}

void ColdPool::JoinFinished() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    for (const uint64_t id : finished_) {
      const auto found = threads_.find(id);
      if (found == threads_.end()) continue;
      threads.push_back(std::move(found->second));
      threads_.erase(found);
    }
    finished_.clear();
  }
  for (std::thread& thread : threads) thread.join();
}

void ColdPool::RunThread(uint64_t id) {
  mutex_.lock();
  while (true) {
    const auto deadline = std::chrono::steady_clock::now() + options_.idle_time;
    ++idle_;
    bool in_time = true;
    while (queue_.empty() && !stopping_ && in_time) in_time = work_.WaitUntil(mutex_, deadline);
    --idle_;
    if (queue_.empty()) break;
    std::shared_ptr<Task> task = std::move(queue_.front());
    queue_.pop_front();
    task->queued_ = false;
    running_.insert(task);
    mutex_.unlock();

    task->run_(task->stop_.get_token());

    mutex_.lock();
    running_.erase(task);
  }
  if (!stopping_) finished_.push_back(id);
  mutex_.unlock();
}

}  // namespace ocifs::fs
