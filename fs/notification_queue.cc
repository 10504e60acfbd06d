#include "fs/notification_queue.h"

#include <utility>

namespace ocifs::fs {
namespace {

std::string KeyOf(const Notification& notification) {
  return std::to_string(notification.inode.value()) + "/" + notification.name;
}

}  // namespace

NotificationQueue::NotificationQueue(std::function<void(const Notification&)> send)
    : send_(std::move(send)), thread_([this] { Run(); }) {}

NotificationQueue::~NotificationQueue() { Stop(); }

void NotificationQueue::InvalidateEntry(InodeNumber parent, std::string name) {
  Add(Notification{parent, std::move(name)});
}

void NotificationQueue::InvalidateInode(InodeNumber inode) { Add(Notification{inode, {}}); }

void NotificationQueue::Add(Notification notification) {
  store::MutexLock lock(mutex_);
  if (stopping_ || queue_.size() >= kMaxWaiting) return;
  if (!waiting_.insert(KeyOf(notification)).second) return;
  queue_.push_back(std::move(notification));
  work_.NotifyOne();
}

void NotificationQueue::Stop() {
  {
    store::MutexLock lock(mutex_);
    stopping_ = true;
    queue_.clear();
    work_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void NotificationQueue::Run() {
  mutex_.lock();
  while (true) {
    while (queue_.empty() && !stopping_) work_.Wait(mutex_);
    if (stopping_) break;
    const Notification notification = std::move(queue_.front());
    queue_.pop_front();
    waiting_.erase(KeyOf(notification));
    mutex_.unlock();
    send_(notification);
    mutex_.lock();
  }
  mutex_.unlock();
}

}  // namespace ocifs::fs
