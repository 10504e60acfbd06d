#include "store/crash_marker.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <mutex>

namespace ocifs::store {
namespace {

constexpr int kMarkerFlags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

// The directory of the index that this thread is inside of.
thread_local int scope_directory = -1;

constexpr std::array<int, 3> kSignals = {SIGSEGV, SIGBUS, SIGABRT};
std::array<struct sigaction, kSignals.size()> previous;

// Async-signal-safe: openat, fsync, close, sigaction and raise.
void OnCrash(int signal) {
  const int error = errno;
  if (scope_directory >= 0) {
    const int fd = openat(scope_directory, kCrashMarkerName, kMarkerFlags, 0600);
    if (fd >= 0) {
      fsync(fd);
      close(fd);
    }
  }
  for (size_t i = 0; i < kSignals.size(); ++i) {
    if (kSignals[i] == signal) sigaction(signal, &previous[i], nullptr);
  }
  errno = error;
  raise(signal);  // delivered when this handler returns
}

}  // namespace

void InstallCrashMarker() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_handler = OnCrash;
    sigemptyset(&action.sa_mask);
    // On an alternate stack if the thread has one: a sanitizer, or a program that wants to report
    // an overflow, sets one up.
    action.sa_flags = SA_ONSTACK;
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &previous[i]);
  });
}

CrashScope::CrashScope(int directory_fd) : before_(scope_directory) {
  scope_directory = directory_fd;
}
CrashScope::~CrashScope() { scope_directory = before_; }

void LeaveCrashMarker(int directory_fd, std::string_view why) {
  const int fd = openat(directory_fd, kCrashMarkerName, kMarkerFlags | O_TRUNC, 0600);
  if (fd < 0) return;
  // What it says is for people; that it is there counts.
  [[maybe_unused]] const ssize_t written = write(fd, why.data(), why.size());
  fsync(fd);
  close(fd);
}

}  // namespace ocifs::store
