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

class Space;

// Owned by one thread.
class StagedFile {
 public:
  // Made with O_TMPFILE in the directory, or, on filesystems without it, under a name that starts
  // with kLeftoverPrefix and holds a lock (flock) as long as the file is being written.
  // What is appended counts against `space`, when given, while the object lives: until the index
  // knows the file, nobody else counts it.
  static Result<StagedFile> Create(int directory_fd, Space* space = nullptr);
  StagedFile(StagedFile&& other) noexcept;
  StagedFile& operator=(StagedFile&& other) noexcept;
  ~StagedFile();

  // kNoSpace when the store must not or cannot grow.
  Result<void> Append(std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  int fd() const { return fd_.get(); }  // readable too

  // Syncs the content and gives it the name, which a file that has it loses. The caller syncs the
  // directory (one sync can serve several files). Again, it gives the name back that somebody took.
  Result<void> Publish(const std::string& name);

  static constexpr const char* kLeftoverPrefix = ".staged-";
  // Removes what killed processes left in a directory.
  static Result<void> RemoveLeftovers(int directory_fd);

 private:
  StagedFile(int directory_fd, UniqueFd fd, std::string temporary_name, Space* space)
      : directory_fd_(directory_fd),
        space_(space),
        fd_(std::move(fd)),
        temporary_name_(std::move(temporary_name)) {}

  int directory_fd_;
  Space* space_;
  UniqueFd fd_;
  std::string temporary_name_;  // empty: unnamed, or published
  uint64_t size_ = 0;
  uint64_t held_ = 0;  // of space_
  bool published_ = false;
  uint64_t write_back_from_ = 0;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_STAGED_FILE_H_
