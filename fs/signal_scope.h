// The signals that end a daemon, for as long as it runs.
#ifndef OCIFS_FS_SIGNAL_SCOPE_H_
#define OCIFS_FS_SIGNAL_SCOPE_H_

#include <signal.h>

#include <array>

namespace ocifs::fs {

// While one exists, SIGTERM, SIGINT and SIGHUP add one to an eventfd. At most one at a time.
class SignalScope {
 public:
  explicit SignalScope(int event_fd);
  ~SignalScope();
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

 private:
  static constexpr std::array<int, 3> kSignals = {SIGTERM, SIGINT, SIGHUP};
  std::array<struct sigaction, 3> before_{};
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_SIGNAL_SCOPE_H_
