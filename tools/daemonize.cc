#include "tools/daemonize.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

#include "store/text.h"

namespace ocifs::tools {

void ReadySignal::Ready() {
  if (!pipe_) return;
  const store::UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (null) dup2(null.get(), fd);
  }
  if (chdir("/") != 0) return;  // not reached: the root is always there
  // One byte: a reason is never empty and never starts with a NUL.
  const char done = '\0';
  while (write(pipe_.get(), &done, 1) < 0 && errno == EINTR) {
  }
  pipe_.reset();
}

void ReadySignal::Failed(std::string_view reason) {
  if (!pipe_) {
    std::fprintf(stderr, "ocifs: %s\n", store::EscapeForDisplay(reason).c_str());
    return;
  }
  while (!reason.empty()) {
    const ssize_t count = write(pipe_.get(), reason.data(), reason.size());
    if (count < 0 && errno != EINTR) break;
    if (count > 0) reason.remove_prefix(static_cast<size_t>(count));
  }
  pipe_.reset();
}

store::Result<Daemonized> Daemonize() {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return store::Fail(store::ErrorFromErrno(errno, "creating a pipe"));
  }
  store::UniqueFd reader(ends[0]);
  store::UniqueFd writer(ends[1]);
  const pid_t child = fork();
  if (child < 0) return store::Fail(store::ErrorFromErrno(errno, "starting the daemon"));
  if (child == 0) {
    setsid();
    return Daemonized{std::nullopt, ReadySignal(std::move(writer))};
  }
  writer.reset();
  std::string told;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t count = read(reader.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    told.append(buffer.data(), static_cast<size_t>(count));
    if (told.front() == '\0') return Daemonized{0, ReadySignal()};
  }
  if (told.empty()) {
    int status = 0;
    waitpid(child, &status, 0);
    told = WIFSIGNALED(status)
               ? "the daemon was ended by signal " + std::to_string(WTERMSIG(status))
               : "the daemon ended before the mount was ready";
  }
  std::fprintf(stderr, "ocifs: %s\n", store::EscapeForDisplay(told).c_str());
  return Daemonized{1, ReadySignal()};
}

}  // namespace ocifs::tools
