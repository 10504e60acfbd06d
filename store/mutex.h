// A mutex that clang's thread-safety analysis understands (-Wthread-safety), and its condition
// variable. Under g++ the annotations vanish.
#ifndef OCIFS_STORE_MUTEX_H_
#define OCIFS_STORE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>

#if defined(__clang__)
#define OCIFS_ANNOTATE(x) __attribute__((x))
#else
#define OCIFS_ANNOTATE(x)
#endif
#define OCIFS_CAPABILITY(x) OCIFS_ANNOTATE(capability(x))
#define OCIFS_SCOPED_CAPABILITY OCIFS_ANNOTATE(scoped_lockable)
#define OCIFS_GUARDED_BY(x) OCIFS_ANNOTATE(guarded_by(x))
#define OCIFS_REQUIRES(...) OCIFS_ANNOTATE(requires_capability(__VA_ARGS__))
#define OCIFS_ACQUIRE(...) OCIFS_ANNOTATE(acquire_capability(__VA_ARGS__))
#define OCIFS_RELEASE(...) OCIFS_ANNOTATE(release_capability(__VA_ARGS__))
#define OCIFS_EXCLUDES(...) OCIFS_ANNOTATE(locks_excluded(__VA_ARGS__))
#define OCIFS_NO_ANALYSIS OCIFS_ANNOTATE(no_thread_safety_analysis)

namespace ocifs::store {

class OCIFS_CAPABILITY("mutex") Mutex {
 public:
  void lock() OCIFS_ACQUIRE() { mutex_.lock(); }
  void unlock() OCIFS_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class OCIFS_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) OCIFS_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() OCIFS_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits always name the mutex they release; predicates are loops in the caller, so that the
// analysis sees which lock guards them.
class CondVar {
 public:
  void Wait(Mutex& mutex) OCIFS_REQUIRES(mutex) OCIFS_NO_ANALYSIS { condition_.wait(mutex); }
  // False when `deadline` passed first.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      OCIFS_REQUIRES(mutex) OCIFS_NO_ANALYSIS {
    return condition_.wait_until(mutex, deadline) == std::cv_status::no_timeout;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable_any condition_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_MUTEX_H_
