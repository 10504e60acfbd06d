// Notes to the kernel, sent from a thread of their own.
#ifndef OCIFS_FS_NOTIFICATION_QUEUE_H_
#define OCIFS_FS_NOTIFICATION_QUEUE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <unordered_set>

#include "fs/notifier.h"
#include "store/mutex.h"

namespace ocifs::fs {

struct Notification {
  InodeNumber inode;
  std::string name;  // empty: the inode itself; else the name below it
};

// Thread-safe. A note that is already in line is not taken twice. Bounded: what does not fit is
// dropped, and the kernel's own timeouts do their work a little later.
class NotificationQueue : public KernelNotifier {
 public:
  // `send` may block; it is called from one thread.
  explicit NotificationQueue(std::function<void(const Notification&)> send);
  ~NotificationQueue() override;

  void InvalidateEntry(InodeNumber parent, std::string name) override;
  void InvalidateInode(InodeNumber inode) override;

  // Drops what is in line and waits for the note that is being sent. Requests must still be served
  // while it waits: sending one may need them answered.
  void Stop();

 private:
  static constexpr size_t kMaxWaiting = 65536;
  void Add(Notification notification);
  void Run();

  const std::function<void(const Notification&)> send_;
  store::Mutex mutex_;
  store::CondVar work_;
  std::deque<Notification> queue_ OCIFS_GUARDED_BY(mutex_);
  std::unordered_set<std::string> waiting_ OCIFS_GUARDED_BY(mutex_);
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_NOTIFICATION_QUEUE_H_
