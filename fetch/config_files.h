// Small configuration files of others: read with bounds, and read again when they change.
#ifndef OCIFS_FETCH_CONFIG_FILES_H_
#define OCIFS_FETCH_CONFIG_FILES_H_

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

// "directory/name".
std::string PathIn(std::string directory, std::string_view name);

// Reads files and directories and remembers what state they were in, those that are not there
// included. Symbolic links are followed. Thread-compatible.
class FileTrace {
 public:
  static constexpr size_t kMaxFileBytes = size_t{1} << 20;

  // nullopt when there is no such file. kInvalid, naming it, when it cannot be read, is longer than
  // kMaxFileBytes, or is no regular file (a FIFO is not waited for).
  store::Result<std::optional<std::string>> Read(const std::string& path);
  // Sorted. nullopt when there is no such directory; kInvalid when it cannot be read.
  store::Result<std::optional<std::vector<std::string>>> List(const std::string& path);
  // False as well when it may not be looked at.
  bool IsDirectory(const std::string& path);
  bool IsRegularFile(const std::string& path);
  bool Exists(const std::string& path);

  // Whether all that was looked at is as it was. One stat for each.
  bool IsCurrent() const;

 private:
  struct State {
    int error = 0;  // errno of a stat that failed; then the rest is 0
    mode_t mode = 0;
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    int64_t changed_ns = 0;   // status, so renames onto the name and changes of mode count
    int64_t modified_ns = 0;  // content
    friend bool operator==(const State&, const State&) = default;
  };
  static State StateOf(const std::string& path);
  const State& Look(const std::string& path);

  std::map<std::string, State> seen_;
};

// Values made from files, kept until one of the files changes: by size, inode and times, looked at
// once a second at most. Errors are kept for that second only, as some pass without a change.
// Thread-safe; files are read without a lock.
template <typename T>
class FileBacked {
 public:
  using Value = std::shared_ptr<const store::Result<T>>;
  using Load = std::function<store::Result<T>(FileTrace&)>;
  using TimePoint = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::seconds kLookEvery{1};
  static constexpr size_t kMaxKeys = 4096;  // beyond, all are forgotten

  // The value for `key`. Threads that come at once may each load it.
  Value Get(const std::string& key, TimePoint now, const Load& load) OCIFS_EXCLUDES(mutex_) {
    if (std::optional<Entry> entry = Find(key)) {
      if (now < entry->looked + kLookEvery) return entry->value;
      if (entry->value->has_value() && entry->trace->IsCurrent()) {
        entry->looked = now;
        return Keep(key, *std::move(entry));
      }
    }
    auto trace = std::make_shared<FileTrace>();
    auto value = std::make_shared<const store::Result<T>>(load(*trace));
    return Keep(key, Entry{std::move(value), std::move(trace), now});
  }

 private:
  struct Entry {
    Value value;
    std::shared_ptr<const FileTrace> trace;
    TimePoint looked;
  };

  std::optional<Entry> Find(const std::string& key) OCIFS_EXCLUDES(mutex_) {
    const store::MutexLock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::nullopt;
    return found->second;
  }
  Value Keep(const std::string& key, Entry entry) OCIFS_EXCLUDES(mutex_) {
    const store::MutexLock lock(mutex_);
    if (entries_.size() >= kMaxKeys && !entries_.contains(key)) entries_.clear();
    return entries_.insert_or_assign(key, std::move(entry)).first->second.value;
  }

  store::Mutex mutex_;
  std::map<std::string, Entry> entries_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CONFIG_FILES_H_
