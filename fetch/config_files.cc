#include "fetch/config_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "store/file.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

int64_t Nanoseconds(const struct timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

std::unexpected<store::Error> Unreadable(store::Error error) {
  // It is the configuration that is at fault, not the store.
  if (error.code == ErrorCode::kStoreIo) error.code = ErrorCode::kInvalid;
  return Fail(std::move(error));
}
std::unexpected<store::Error> Unreadable(const std::string& path, int error) {
  return Unreadable(store::ErrorFromErrno(error, "reading " + path));
}

bool IsAbsence(int error) { return error == ENOENT || error == ENOTDIR; }

}  // namespace

std::string PathIn(std::string directory, std::string_view name) {
  directory += '/';
  directory += name;
  return directory;
}

FileTrace::State FileTrace::StateOf(const std::string& path) {
  State state;
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) {
    state.error = errno;
    return state;
  }
  state.mode = status.st_mode;
  state.device = status.st_dev;
  state.inode = status.st_ino;
  state.size = status.st_size;
  state.changed_ns = Nanoseconds(status.st_ctim);
  state.modified_ns = Nanoseconds(status.st_mtim);
  return state;
}

const FileTrace::State& FileTrace::Look(const std::string& path) {
  // The first look counts: what changes between it and the reading is seen as a change later.
  const auto found = seen_.find(path);
  if (found != seen_.end()) return found->second;
  return seen_.emplace(path, StateOf(path)).first->second;
}

bool FileTrace::IsCurrent() const {
  return std::all_of(seen_.begin(), seen_.end(),
                     [](const auto& seen) { return StateOf(seen.first) == seen.second; });
}

bool FileTrace::Exists(const std::string& path) { return Look(path).error == 0; }
bool FileTrace::IsDirectory(const std::string& path) { return S_ISDIR(Look(path).mode); }
bool FileTrace::IsRegularFile(const std::string& path) { return S_ISREG(Look(path).mode); }

Result<std::optional<std::string>> FileTrace::Read(const std::string& path) {
  const State& state = Look(path);
  if (IsAbsence(state.error)) return std::nullopt;
  // O_NONBLOCK: what became a FIFO since must not hang either.
  const store::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) {
    const int error = errno;
    if (IsAbsence(error)) return std::nullopt;
    return Unreadable(path, error);
  }
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) return Unreadable(path, errno);
  if (!S_ISREG(status.st_mode)) {
    return Fail(ErrorCode::kInvalid, "reading " + path + ": not a regular file");
  }
  std::string text;
  std::string buffer(size_t{64} << 10, '\0');
  while (true) {
    const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Unreadable(path, errno);
    if (count == 0) return text;
    text.append(buffer, 0, static_cast<size_t>(count));
    if (text.size() > kMaxFileBytes) {
      return Fail(ErrorCode::kInvalid,
                  "reading " + path + ": longer than " + std::to_string(kMaxFileBytes) + " bytes");
    }
  }
}

Result<std::optional<std::vector<std::string>>> FileTrace::List(const std::string& path) {
  const State& state = Look(path);
  if (IsAbsence(state.error)) return std::nullopt;
  const store::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!fd) {
    const int error = errno;
    if (error == ENOENT) return std::nullopt;
    return Unreadable(path, error);
  }
  Result<std::vector<std::string>> names = store::ListDirectory(fd.get());
  if (!names) return Unreadable(std::move(names).error().Wrap("reading " + path));
  std::sort(names->begin(), names->end());
  return *std::move(names);
}

}  // namespace ocifs::fetch
