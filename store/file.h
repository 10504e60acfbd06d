// File descriptors and whole reads and writes.
#ifndef OCIFS_STORE_FILE_H_
#define OCIFS_STORE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/error.h"

namespace ocifs::store {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// openat without following a symbolic link at the last component, nor waiting for the other side of
// a FIFO. `flags` gets O_CLOEXEC.
Result<UniqueFd> OpenAt(int directory_fd, const std::string& name, int flags, uint32_t mode = 0);

// Creates the directory if it is missing and opens it.
Result<UniqueFd> OpenDirectory(int parent_fd, const std::string& name, uint32_t mode);

// Names in a directory, "." and ".." left out, in no order.
Result<std::vector<std::string>> ListDirectory(int directory_fd);

// Reads exactly out.size() bytes at `offset`; kCorrupt when the file ends before, or the disk
// cannot read it (EIO): what cannot be read is as good as damaged.
Result<void> ReadExactly(int fd, uint64_t offset, std::span<std::byte> out, std::string_view what);

// Writes all bytes at `offset`.
Result<void> WriteExactly(int fd, uint64_t offset, std::span<const std::byte> bytes,
                          std::string_view what);

// fdatasync; after a failure the file's content must not be trusted.
Result<void> SyncData(int fd, std::string_view what);
// fsync of a directory, so that names in it survive a power loss.
Result<void> SyncDirectory(int fd, std::string_view what);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_FILE_H_
