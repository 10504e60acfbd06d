// Progress of pulls on a terminal: one line that is drawn again and again.
#ifndef OCIFS_TOOLS_PROGRESS_BAR_H_
#define OCIFS_TOOLS_PROGRESS_BAR_H_

#include <string>
#include <thread>

#include "store/mutex.h"
#include "store/pull_through.h"

namespace ocifs::tools {

// Draws to the standard error while it lives, if that is a terminal; else does nothing.
// Thread-safe.
class ProgressBar {
 public:
  // `total` packages are going to be pulled.
  ProgressBar(const store::PullThrough& pull, size_t total);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // A package is done; `line` is printed for good, to the standard output.
  void Done(const std::string& line);
  // The same for one that failed, to the standard error.
  void Failed(const std::string& line);

 private:
  void Draw();
  void Erase() OCIFS_REQUIRES(mutex_);
  void Render() OCIFS_REQUIRES(mutex_);
  void Print(FILE* stream, const std::string& line);

  const store::PullThrough& pull_;
  const size_t total_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  store::Mutex mutex_;
  store::CondVar changed_;
  size_t done_ OCIFS_GUARDED_BY(mutex_) = 0;
  bool drawn_ OCIFS_GUARDED_BY(mutex_) = false;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_PROGRESS_BAR_H_
