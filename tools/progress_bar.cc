#include "tools/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "store/text.h"
#include "tools/config.h"

namespace ocifs::tools {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);

size_t TerminalWidth() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

ProgressBar::ProgressBar(const store::PullThrough& pull, size_t total)
    : pull_(pull), total_(total), terminal_(isatty(STDERR_FILENO) == 1) {
  if (terminal_) thread_ = std::thread([this] { Draw(); });
}

ProgressBar::~ProgressBar() {
  {
    const store::MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void ProgressBar::Done(const std::string& line) { Print(stdout, line); }
void ProgressBar::Failed(const std::string& line) { Print(stderr, line); }

void ProgressBar::Print(FILE* stream, const std::string& line) {
  const store::MutexLock lock(mutex_);
  Erase();
  ++done_;
  std::fprintf(stream, "%s\n", line.c_str());
  std::fflush(stream);
}

void ProgressBar::Draw() {
  const store::MutexLock lock(mutex_);
  while (!stopping_) {
    Render();
    changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kRedraw);
  }
  Erase();
}

void ProgressBar::Erase() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
}

void ProgressBar::Render() {
  const std::vector<store::FetchProgress> all = pull_.Progress();
  uint64_t fetched = 0;
  uint64_t expected = 0;
  for (const store::FetchProgress& one : all) {
    fetched += one.bytes_fetched;
    expected += one.bytes_total;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  std::string line = fmt::format("[{}/{}]", done_, total_);
  if (expected > 0) {
    constexpr size_t kCells = 20;
    const size_t filled = std::min<size_t>(kCells, fetched * kCells / expected);
    line += fmt::format(
        " [{}{}] {} of {}, {}/s", std::string(filled, '#'), std::string(kCells - filled, '.'),
        FormatSize(fetched), FormatSize(expected),
        FormatSize(static_cast<uint64_t>(static_cast<double>(fetched) / std::max(seconds, 0.1))));
  }
  if (!all.empty()) line += " " + store::EscapeForDisplay(all.front().what);
  const size_t width = TerminalWidth();
  if (line.size() >= width) line.resize(width - 1);
  std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace ocifs::tools
