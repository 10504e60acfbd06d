#include "store/staged_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <random>
#include <utility>

#include "store/log.h"
#include "store/space.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr uint64_t kWriteBackBytes = uint64_t{16} << 20;

std::string RandomName() {
  std::random_device device;
  std::array<uint32_t, 4> words;
  for (uint32_t& word : words) word = device();
  return StagedFile::kLeftoverPrefix + ToHex(std::as_bytes(std::span(words)));
}

}  // namespace

Result<StagedFile> StagedFile::Create(int directory_fd, Space* space) {
  const int fd = openat(directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return StagedFile(directory_fd, UniqueFd(fd), std::string(), space);
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL) {
    return Fail(ErrorFromErrno(errno, "creating a file in the store"));
  }
  std::string name = RandomName();
  OCIFS_ASSIGN_OR_RETURN(UniqueFd named,
                         OpenAt(directory_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600));
  if (flock(named.get(), LOCK_EX | LOCK_NB) != 0) {
    return Fail(ErrorFromErrno(errno, "locking " + name));
  }
  return StagedFile(directory_fd, std::move(named), std::move(name), space);
}

StagedFile::StagedFile(StagedFile&& other) noexcept
    : directory_fd_(other.directory_fd_),
      space_(other.space_),
      fd_(std::move(other.fd_)),
      temporary_name_(std::exchange(other.temporary_name_, {})),
      size_(other.size_),
      held_(std::exchange(other.held_, 0)),
      published_(other.published_),
      write_back_from_(other.write_back_from_) {}

StagedFile::~StagedFile() {
  if (space_ != nullptr) space_->LetGo(held_);
  if (fd_ && !temporary_name_.empty()) unlinkat(directory_fd_, temporary_name_.c_str(), 0);
}

StagedFile& StagedFile::operator=(StagedFile&& other) noexcept {
  std::swap(directory_fd_, other.directory_fd_);
  std::swap(fd_, other.fd_);
  std::swap(temporary_name_, other.temporary_name_);
  std::swap(space_, other.space_);
  std::swap(size_, other.size_);
  std::swap(held_, other.held_);
  std::swap(published_, other.published_);
  std::swap(write_back_from_, other.write_back_from_);
  return *this;
}

Result<void> StagedFile::Append(std::span<const std::byte> bytes) {
  if (space_ != nullptr) {
    OCIFS_RETURN_IF_ERROR(space_->Take(bytes.size()));
    held_ += bytes.size();
  }
  OCIFS_RETURN_IF_ERROR(WriteExactly(fd_.get(), size_, bytes, "a new file of the store"));
  size_ += bytes.size();
  if (size_ - write_back_from_ >= kWriteBackBytes) {
    // A hint: the sync at the end then finds little left to do.
    sync_file_range(fd_.get(), static_cast<off_t>(write_back_from_),
                    static_cast<off_t>(size_ - write_back_from_), SYNC_FILE_RANGE_WRITE);
    write_back_from_ = size_;
  }
  return {};
}

Result<void> StagedFile::Publish(const std::string& name) {
  if (published_) {
    struct stat status;
    if (fstat(fd_.get(), &status) != 0) return Fail(ErrorFromErrno(errno, "naming " + name));
    if (status.st_nlink > 0) return {};
  }
  OCIFS_RETURN_IF_ERROR(SyncData(fd_.get(), name));
  if (temporary_name_.empty()) {
    std::string temporary = RandomName();
    // The way linkat(2) gives for unnamed files without CAP_DAC_READ_SEARCH.
    const std::string self = "/proc/self/fd/" + std::to_string(fd_.get());
    if (linkat(AT_FDCWD, self.c_str(), directory_fd_, temporary.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return Fail(ErrorFromErrno(errno, "naming " + name));
    }
    temporary_name_ = std::move(temporary);
  }
  // By rename, so that a file of that name that a crash left damaged is replaced.
  if (renameat(directory_fd_, temporary_name_.c_str(), directory_fd_, name.c_str()) != 0) {
    return Fail(ErrorFromErrno(errno, "naming " + name));
  }
  temporary_name_.clear();
  published_ = true;
  return {};
}

Result<void> StagedFile::RemoveLeftovers(int directory_fd) {
  OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory_fd));
  for (const std::string& name : names) {
    if (!name.starts_with(kLeftoverPrefix)) continue;
    const Result<UniqueFd> fd = OpenAt(directory_fd, name, O_RDWR);
    if (fd && flock(fd->get(), LOCK_EX | LOCK_NB) == 0) {
      unlinkat(directory_fd, name.c_str(), 0);
      Log(LogLevel::kInfo, "removed " + name + ", left in the store by a killed process");
    }
  }
  return {};
}

}  // namespace ocifs::store
