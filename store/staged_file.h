// A file that has no name until it is whole: a crash leaves nothing behind.
#ifndef OCIFS_STORE_STAGED_FILE_H_
#define OCIFS_STORE_STAGED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "store/error.h"
#include "store/file.h"

namespace ocifs::store {

// Owned by one thread.
class StagedFile {
 public:
  // Made with O_TMPFILE in the directory, or, on filesystems without it, under a name that starts
  // with kLeftoverPrefix and holds a lock (flock) as long as the file is being written.
  static Result<StagedFile> Create(int directory_fd);
  StagedFile(StagedFile&&) noexcept = default;
  StagedFile& operator=(StagedFile&& other) noexcept;
  ~StagedFile();

  Result<void> Append(std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  int fd() const { return fd_.get(); }  // readable too

  // Syncs the content and gives it the name, which a file that has it loses. The caller syncs the
  // directory (one sync can serve several files).
  Result<void> Publish(const std::string& name);

  static constexpr const char* kLeftoverPrefix = ".staged-";
  // Removes what killed processes left in a directory.
  static Result<void> RemoveLeftovers(int directory_fd);

 private:
  StagedFile(int directory_fd, UniqueFd fd, std::string temporary_name)
      : directory_fd_(directory_fd),
        fd_(std::move(fd)),
        temporary_name_(std::move(temporary_name)) {}

  int directory_fd_;
  UniqueFd fd_;
  std::string temporary_name_;  // empty: unnamed
  uint64_t size_ = 0;
  uint64_t write_back_from_ = 0;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_STAGED_FILE_H_
