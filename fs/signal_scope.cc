#include "fs/signal_scope.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace ocifs::fs {
namespace {

std::atomic<int> signal_event_fd{-1};

void OnSignal(int /*number*/) {
  const int saved = errno;
  const uint64_t one = 1;
  const int fd = signal_event_fd.load();
  if (fd >= 0 && write(fd, &one, sizeof one) < 0) {
    // Nothing that a signal handler could do about it.
  }
  errno = saved;
}

}  // namespace

SignalScope::SignalScope(int event_fd) {
  signal_event_fd.store(event_fd);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &before_[i]);
}

SignalScope::~SignalScope() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  signal_event_fd.store(-1);
}

}  // namespace ocifs::fs
