// Runs another program to its end, within limits.
#ifndef OCIFS_FETCH_CHILD_PROCESS_H_
#define OCIFS_FETCH_CHILD_PROCESS_H_

#include <chrono>
#include <cstddef>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "store/error.h"

namespace ocifs::fetch {

// What becomes of what a program says on its standard error.
enum class ChildStderr {
  kDiscard,
  kInherit,  // goes where ours goes
};

struct ChildProgram {
  std::string file;                    // path of the executable; no search, no shell
  std::vector<std::string> arguments;  // argv, the name first
  std::string input = {};              // its whole standard input
  std::chrono::milliseconds timeout{10'000};
  size_t max_output = size_t{64} << 10;
  ChildStderr standard_error = ChildStderr::kDiscard;
};

struct ChildEnd {
  std::optional<int> exit_status;  // nullopt: a signal ended it
  std::string output;
};

// Starts the program in a process group of its own, with our environment, default signals and no
// descriptor of ours, and waits for its end. Descriptors that it left to others are not waited for.
// The group is killed when the time is over (kTimedOut), the output exceeds its limit (kTooLarge)
// or stop is requested (kCancelled, within milliseconds). kUnsupported when it cannot be started.
// No message quotes input or output. Safe beside other threads; blocks.
store::Result<ChildEnd> RunChild(const ChildProgram& program, const std::stop_token& stop);

// The executable `name` in the directories of `search_path` (the form of $PATH; relative ones are
// passed over), or nullopt. `name` must hold no '/'.
std::optional<std::string> FindExecutable(std::string_view name, std::string_view search_path);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CHILD_PROCESS_H_
