#include "tools/terminal.h"

#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

namespace ocifs::tools {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

constexpr size_t kMaxLine = 4096;
constexpr size_t kMaxSecret = size_t{64} << 10;
constexpr std::array<int, 5> kSignals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};

// The signal that interrupted a question; 0: none.
volatile sig_atomic_t interrupted_by = 0;
void NoteSignal(int number) { interrupted_by = number; }

// Turns the echo off and back on. Signals meanwhile interrupt the read, and are raised anew when
// the terminal is as it was.
class EchoOff {
 public:
  EchoOff() {
    struct sigaction note{};
    note.sa_handler = NoteSignal;  // no SA_RESTART
    interrupted_by = 0;
    // Let in only while the terminal is waited for, so that none comes unseen before that.
    sigset_t held;
    sigemptyset(&held);
    for (const int number : kSignals) sigaddset(&held, number);
    sigprocmask(SIG_BLOCK, &held, &old_mask_);
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals.at(i), &note, &old_actions_.at(i));
    }
    changed_ = tcgetattr(STDIN_FILENO, &old_) == 0;
    if (!changed_) return;
    termios silent = old_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    silent.c_lflag |= ECHONL;
    changed_ = tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) == 0;
  }
  ~EchoOff() {
    if (changed_) tcsetattr(STDIN_FILENO, TCSAFLUSH, &old_);
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals.at(i), &old_actions_.at(i), nullptr);
    }
    sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
    if (interrupted_by != 0) raise(interrupted_by);
  }
  EchoOff(const EchoOff&) = delete;
  EchoOff& operator=(const EchoOff&) = delete;

  bool changed() const { return changed_; }
  const sigset_t& signals_while_waiting() const { return old_mask_; }

 private:
  termios old_{};
  sigset_t old_mask_{};
  std::array<struct sigaction, kSignals.size()> old_actions_{};
  bool changed_ = false;
};

// With the signal mask `waiting` while it waits, if that is not null.
Result<std::string> ReadLine(const sigset_t* waiting) {
  std::string line;
  while (true) {
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (ppoll(&input, 1, nullptr, waiting) < 0) {
      if (errno == EINTR && interrupted_by == 0) continue;
      return Fail(ErrorCode::kCancelled, "interrupted");
    }
    char c = 0;
    const ssize_t count = read(STDIN_FILENO, &c, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Fail(store::ErrorFromErrno(errno, "reading from the terminal"));
    if (count == 0) return Fail(ErrorCode::kCancelled, "nothing was entered");
    if (c == '\n') return line;
    if (line.size() == kMaxLine) return Fail(ErrorCode::kTooLarge, "that line is too long");
    line.push_back(c);
  }
}

}  // namespace

Result<std::string> AskAtTerminal(std::string_view prompt, Echo echo) {
  if (isatty(STDIN_FILENO) == 0) {
    return Fail(ErrorCode::kUnsupported, "the standard input is not a terminal to ask at");
  }
  auto show_prompt = [&] {
    std::fprintf(stderr, "%.*s", static_cast<int>(prompt.size()), prompt.data());
  };
  if (echo == Echo::kOn) {
    show_prompt();
    return ReadLine(nullptr);
  }
  const EchoOff silent;
  if (!silent.changed()) {
    return Fail(ErrorCode::kUnsupported, "the terminal would show what is entered");
  }
  // After the change, which throws away what was typed before it.
  show_prompt();
  return ReadLine(&silent.signals_while_waiting());
}

Result<std::string> ReadSecretFromInput() {
  std::string secret;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t count = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Fail(store::ErrorFromErrno(errno, "reading the standard input"));
    if (count == 0) break;
    secret.append(buffer.data(), static_cast<size_t>(count));
    if (secret.size() > kMaxSecret) {
      return Fail(ErrorCode::kTooLarge, "what the standard input gives is too long for a password");
    }
  }
  if (secret.ends_with('\n')) secret.pop_back();
  if (secret.ends_with('\r')) secret.pop_back();
  return secret;
}

}  // namespace ocifs::tools
