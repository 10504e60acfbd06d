#include "fetch/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// glibc 2.36 declares these without C linkage.
extern "C" {}

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "store/file.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using store::Error;
using store::ErrorCode;
using store::ErrorFromErrno;
using store::Fail;
using store::Result;
using store::UniqueFd;

// How long a killed process may take to vanish before it is left to itself: one that hangs in the
// kernel, as on a dead NFS server, must not take its caller along.
constexpr milliseconds kDeathWait{50};

// `fd` under a number that is none of the standard ones, which the child's own take.
Result<UniqueFd> AboveStandard(int fd, std::string_view what) {
  UniqueFd owned(fd);
  if (!owned) return Fail(ErrorFromErrno(errno, what));
  if (owned.get() > STDERR_FILENO) return owned;
  UniqueFd moved(fcntl(owned.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!moved) return Fail(ErrorFromErrno(errno, what));
  return moved;
}

// A file in memory: unlike a pipe it neither blocks the writer nor raises SIGPIPE when the child
// does not read.
Result<UniqueFd> InputFile(std::string_view input) {
  OCIFS_ASSIGN_OR_RETURN(UniqueFd file, AboveStandard(memfd_create("ocifs-input", MFD_CLOEXEC),
                                                      "making a child's input"));
  OCIFS_RETURN_IF_ERROR(
      store::WriteExactly(file.get(), 0, store::AsBytes(input), "a child's input"));
  return file;
}

struct SpawnSettings {
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

// <sys/pidfd.h> of glibc 2.36 is for C alone.
int OpenProcess(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

// A process that was started. Killed with its group, and reaped, if it was not waited for.
class Child {
 public:
  static Result<Child> Start(const ChildProgram& program, int input, int output, int null);
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)), fd_(std::move(other.fd_)) {}
  ~Child() {
    if (pid_ > 0) Kill();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int fd() const { return fd_.get(); }  // readable when it has ended

  // Only after its end. The exit status; nullopt after a signal.
  std::optional<int> Reap() {
    int status = 0;
    pid_t reaped = 0;
    do {
      reaped = waitpid(pid_, &status, 0);
    } while (reaped < 0 && errno == EINTR);
    pid_ = -1;
    // A parent that ignores SIGCHLD learns no status: none is as good as a failure.
    if (reaped < 0 || !WIFEXITED(status)) return std::nullopt;
    return WEXITSTATUS(status);
  }

 private:
  Child(pid_t pid, UniqueFd fd) : pid_(pid), fd_(std::move(fd)) {}

  void Kill() {
    // Not reaped yet, so the number is still that of our group.
    kill(-pid_, SIGKILL);
    if (fd_) {
      pollfd ended{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      poll(&ended, 1, static_cast<int>(kDeathWait.count()));
      waitpid(pid_, nullptr, WNOHANG);
    } else {
      waitpid(pid_, nullptr, 0);
    }
    pid_ = -1;
  }

  pid_t pid_;
  UniqueFd fd_;
};

Result<Child> Child::Start(const ChildProgram& program, int input, int output, int null) {
  SpawnSettings settings;
  posix_spawn_file_actions_adddup2(&settings.actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&settings.actions, output, STDOUT_FILENO);
  if (program.standard_error == ChildStderr::kDiscard) {
    posix_spawn_file_actions_adddup2(&settings.actions, null, STDERR_FILENO);
  }
  // Ours are close-on-exec; those of libraries are made sure of: a helper must not hold a mount.
  posix_spawn_file_actions_addclosefrom_np(&settings.actions, STDERR_FILENO + 1);
  sigset_t signals;
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&settings.attributes, &signals);
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&settings.attributes, &signals);
  posix_spawnattr_setpgroup(&settings.attributes, 0);
  posix_spawnattr_setflags(&settings.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);

  std::vector<std::string> words = program.arguments;
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program.file.c_str(), &settings.actions, &settings.attributes,
                                argv.data(), environ);
  if (error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE) {
    return Fail(ErrorFromErrno(error, "starting " + program.file));
  }
  if (error != 0) {
    Error failure = ErrorFromErrno(error, "starting " + program.file);
    failure.code = ErrorCode::kUnsupported;
    return Fail(std::move(failure));
  }
  Child child(pid, UniqueFd(OpenProcess(pid)));
  if (!child.fd_) return Fail(ErrorFromErrno(errno, "watching " + program.file));
  return child;
}

enum class Drained { kForNow, kToItsEnd, kOverLimit };

Drained Drain(int fd, size_t limit, std::string& output) {
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? Drained::kForNow : Drained::kToItsEnd;
    if (count == 0) return Drained::kToItsEnd;
    if (output.size() + static_cast<size_t>(count) > limit) return Drained::kOverLimit;
    output.append(buffer.data(), static_cast<size_t>(count));
  }
}

}  // namespace

Result<ChildEnd> RunChild(const ChildProgram& program, const std::stop_token& stop) {
  const auto deadline = steady_clock::now() + program.timeout;
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd input, InputFile(program.input));
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd null, AboveStandard(open("/dev/null", O_WRONLY | O_CLOEXEC),
                                                            "opening /dev/null"));
  OCIFS_ASSIGN_OR_RETURN(
      const UniqueFd stopped,
      AboveStandard(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "making an event descriptor"));
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return Fail(ErrorFromErrno(errno, "making a pipe"));
  UniqueFd second(ends[1]);
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd output, AboveStandard(ends[0], "making a pipe"));
  OCIFS_ASSIGN_OR_RETURN(UniqueFd childs_end, AboveStandard(second.release(), "making a pipe"));
  // Ours alone: the child shares no description with this end.
  if (fcntl(output.get(), F_SETFL, O_NONBLOCK) != 0) {
    return Fail(ErrorFromErrno(errno, "making a pipe"));
  }

  OCIFS_ASSIGN_OR_RETURN(Child child,
                         Child::Start(program, input.get(), childs_end.get(), null.get()));
  childs_end.reset();
  const std::stop_callback wake(stop, [&stopped] { eventfd_write(stopped.get(), 1); });
  ChildEnd end;
  std::array<pollfd, 3> wanted{{{.fd = output.get(), .events = POLLIN, .revents = 0},
                                {.fd = child.fd(), .events = POLLIN, .revents = 0},
                                {.fd = stopped.get(), .events = POLLIN, .revents = 0}}};
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
    if (left.count() <= 0) {
      return Fail(ErrorCode::kTimedOut, program.file + " did not end within " +
                                            std::to_string(program.timeout.count()) +
                                            " ms and was killed");
    }
    constexpr milliseconds kLongest{1 << 30};
    const int ready =
        poll(wanted.data(), wanted.size(), static_cast<int>(std::min(left, kLongest).count()));
    if (ready < 0 && errno != EINTR) {
      return Fail(ErrorFromErrno(errno, "waiting for " + program.file));
    }
    if (stop.stop_requested()) {
      return Fail(ErrorCode::kCancelled, "running " + program.file + ": cancelled");
    }
    if (ready <= 0) continue;
    // What it wrote before its end is in the pipe when the end is seen: read after the look.
    if (wanted[0].revents != 0 || wanted[1].revents != 0) {
      const Drained drained = Drain(output.get(), program.max_output, end.output);
      if (drained == Drained::kOverLimit) {
        return Fail(ErrorCode::kTooLarge, program.file + " wrote more than " +
                                              std::to_string(program.max_output) +
                                              " bytes and was killed");
      }
      if (drained == Drained::kToItsEnd) wanted[0].fd = -1;
    }
    if (wanted[1].revents != 0) {
      end.exit_status = child.Reap();
      return end;
    }
  }
}

std::optional<std::string> FindExecutable(std::string_view name, std::string_view search_path) {
  while (!search_path.empty()) {
    const size_t end = std::min(search_path.find(':'), search_path.size());
    const std::string_view directory = search_path.substr(0, end);
    search_path.remove_prefix(std::min(end + 1, search_path.size()));
    if (!directory.starts_with('/')) continue;
    std::string file = std::string(directory) + "/" + std::string(name);
    struct stat status{};
    if (stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        access(file.c_str(), X_OK) == 0) {
      return file;
    }
  }
  return std::nullopt;
}

}  // namespace ocifs::fetch
