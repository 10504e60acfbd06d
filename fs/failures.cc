#include "fs/failures.h"

#include "fs/errno.h"
#include "store/log.h"

namespace ocifs::fs {
namespace {

using store::ErrorCode;

bool IsNews(ErrorCode code) {
  return code != ErrorCode::kNotFound && code != ErrorCode::kInvalid &&
         code != ErrorCode::kCancelled && code != ErrorCode::kWouldBlock &&
         code != ErrorCode::kShuttingDown;
}

}  // namespace

void FailureMemory::Remember(InodeNumber inode, std::string_view what, const store::Error& error) {
  if (!IsNews(error.code)) return;
  // An attribute value cannot be longer than this (XATTR_SIZE_MAX is 64 KiB; a line is enough).
  constexpr size_t kMaxTextBytes = 2000;
  std::string text = std::string(store::ErrorCodeName(error.code)) + ": " + error.message;
  if (text.size() > kMaxTextBytes) text.resize(kMaxTextBytes);
  {
    store::MutexLock lock(mutex_);
    const Clock::time_point now = Clock::now();
    Entry& entry = entries_[inode.value()];
    const bool known = entry.text == text && now < entry.until;
    if (known) return;  // already said; its time runs from the first
    entry = Entry{text, now + ttl_, ++generation_};
    order_.push_back(Place{inode.value(), generation_});
    while (order_.size() > max_entries_) {
      const auto oldest = entries_.find(order_.front().inode);
      if (oldest != entries_.end() && oldest->second.generation == order_.front().generation) {
        entries_.erase(oldest);
      }
      order_.pop_front();
    }
  }
  std::string line = "fs: " + std::string(what) + ": " + text;
  if (const std::string_view advice = Advice(error.code); !advice.empty()) {
    line += " (" + std::string(advice) + ")";
  }
  store::Log(store::LogLevel::kWarning, line);
}

std::optional<std::string> FailureMemory::Last(InodeNumber inode) const {
  store::MutexLock lock(mutex_);
  const auto found = entries_.find(inode.value());
  if (found == entries_.end() || Clock::now() >= found->second.until) return std::nullopt;
  return found->second.text;
}

}  // namespace ocifs::fs
