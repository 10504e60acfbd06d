#include "store/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace ocifs::store {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

Result<UniqueFd> OpenAt(int directory_fd, const std::string& name, int flags, uint32_t mode) {
  constexpr int kAlways = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int fd = openat(directory_fd, name.c_str(), flags | kAlways, mode);
  if (fd < 0) return Fail(ErrorFromErrno(errno, "opening " + name));
  return UniqueFd(fd);
}

Result<UniqueFd> OpenDirectory(int parent_fd, const std::string& name, uint32_t mode) {
  if (mkdirat(parent_fd, name.c_str(), mode) != 0 && errno != EEXIST) {
    return Fail(ErrorFromErrno(errno, "creating directory " + name));
  }
  return OpenAt(parent_fd, name, O_RDONLY | O_DIRECTORY);
}

Result<std::vector<std::string>> ListDirectory(int directory_fd) {
  // A description of its own: reading moves a position.
  OCIFS_ASSIGN_OR_RETURN(UniqueFd copy, OpenAt(directory_fd, ".", O_RDONLY | O_DIRECTORY));
  DIR* directory = fdopendir(copy.get());
  if (directory == nullptr) return Fail(ErrorFromErrno(errno, "listing a directory"));
  copy.release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int error = errno;
  closedir(directory);
  if (error != 0) return Fail(ErrorFromErrno(error, "listing a directory"));
  return names;
}

Result<void> ReadExactly(int fd, uint64_t offset, std::span<std::byte> out, std::string_view what) {
  while (!out.empty()) {
    const ssize_t count = pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      Error error = ErrorFromErrno(errno, "reading " + std::string(what));
      if (errno == EIO) error.code = ErrorCode::kCorrupt;
      return Fail(std::move(error));
    }
    if (count == 0) {
      return Fail(ErrorCode::kCorrupt, "reading " + std::string(what) + ": the file is cut short");
    }
    out = out.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> WriteExactly(int fd, uint64_t offset, std::span<const std::byte> bytes,
                          std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      return Fail(ErrorFromErrno(errno, "writing " + std::string(what)));
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> SyncData(int fd, std::string_view what) {
  if (fdatasync(fd) != 0) return Fail(ErrorFromErrno(errno, "syncing " + std::string(what)));
  return {};
}

Result<void> SyncDirectory(int fd, std::string_view what) {
  if (fsync(fd) != 0) return Fail(ErrorFromErrno(errno, "syncing " + std::string(what)));
  return {};
}

}  // namespace ocifs::store
