// Becoming a daemon whose starter learns how it went.
#ifndef OCIFS_TOOLS_DAEMONIZE_H_
#define OCIFS_TOOLS_DAEMONIZE_H_

#include <optional>
#include <string_view>

#include "store/error.h"
#include "store/file.h"

namespace ocifs::tools {

// The daemon's side of the wait. Every path out of start-up must call one of the two; a daemon that
// dies before tells its starter by that.
class ReadySignal {
 public:
  ReadySignal() = default;  // nobody waits
  explicit ReadySignal(store::UniqueFd pipe) : pipe_(std::move(pipe)) {}
  // The starter exits with 0; standard input, output and error now lead nowhere.
  void Ready();
  // The starter prints the reason and exits with 1.
  void Failed(std::string_view reason);

 private:
  store::UniqueFd pipe_;
};

// Forks. In the daemon: returns the signal. In the starter: waits, prints the reason of a failure,
// and returns the exit status in `exit_status`. To be called before any thread, lock or index is
// there.
struct Daemonized {
  std::optional<int> exit_status;  // set in the starter
  ReadySignal ready;
};
store::Result<Daemonized> Daemonize();

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_DAEMONIZE_H_
