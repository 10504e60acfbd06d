// Remembers that the process died while it looked at the index.
//
// LMDB follows what stands in its file: a flipped bit can make it read outside the map (SIGSEGV), a
// file cut short raises SIGBUS, a broken page aborts. The next process would die the same way. So
// the death leaves a file `damaged` in the directory of the index, and whoever opens the store next
// makes the index anew (rebuild.h).
#ifndef OCIFS_STORE_CRASH_MARKER_H_
#define OCIFS_STORE_CRASH_MARKER_H_

#include <string_view>

namespace ocifs::store {

inline constexpr const char* kCrashMarkerName = "damaged";

// Makes SIGSEGV, SIGBUS and SIGABRT leave the marker when they come inside a CrashScope, and then
// do what they did before. For the main function of a program. Thread-safe.
void InstallCrashMarker();

// While it lives, a crash of this thread is the index's. Costs two writes to thread-local memory.
class CrashScope {
 public:
  // `directory_fd` is index/; -1 suspends the scope around it.
  explicit CrashScope(int directory_fd);
  ~CrashScope();
  CrashScope(const CrashScope&) = delete;
  CrashScope& operator=(const CrashScope&) = delete;

 private:
  const int before_;
};

// Leaves the marker for damage that was noticed in time; `why` stands in it. Fails silently: there
// may be no room, and the damage will be found again.
void LeaveCrashMarker(int directory_fd, std::string_view why);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_CRASH_MARKER_H_
