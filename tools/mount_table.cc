#include "tools/mount_table.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "store/text.h"

namespace ocifs::tools {

using store::ErrorFromErrno;
using store::Fail;
using store::Result;
using store::UniqueFd;

Result<MountEntry> MountEntry::Add(const std::string& store_root, const std::string& mount_point) {
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd directory,
                         store::OpenDirectory(AT_FDCWD, store_root + "/mounts", 0700));
  const std::string name = std::to_string(getpid());
  OCIFS_ASSIGN_OR_RETURN(UniqueFd fd,
                         store::OpenAt(directory.get(), name, O_RDWR | O_CREAT | O_TRUNC, 0600));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return Fail(ErrorFromErrno(errno, "locking " + store_root + "/mounts/" + name));
  }
  OCIFS_RETURN_IF_ERROR(store::WriteExactly(fd.get(), 0, store::AsBytes(mount_point), name));
  return MountEntry(store_root + "/mounts/" + name, std::move(fd));
}

MountEntry::~MountEntry() {
  if (fd_) unlink(path_.c_str());
}

std::vector<std::string> ListMounts(const std::string& store_root) {
  std::vector<std::string> mounts;
  const int raw = open((store_root + "/mounts").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (raw < 0) return mounts;
  const UniqueFd directory(raw);
  const Result<std::vector<std::string>> names = store::ListDirectory(raw);
  if (!names) return mounts;
  for (const std::string& name : *names) {
    const Result<UniqueFd> fd = store::OpenAt(raw, name, O_RDWR);
    if (!fd) continue;
    if (flock(fd->get(), LOCK_EX | LOCK_NB) == 0) {  // its daemon is dead
      unlinkat(raw, name.c_str(), 0);
      continue;
    }
    std::string mount_point(PATH_MAX, '\0');
    const ssize_t count = pread(fd->get(), mount_point.data(), mount_point.size(), 0);
    if (count <= 0) continue;
    mount_point.resize(static_cast<size_t>(count));
    mounts.push_back(std::move(mount_point));
  }
  std::sort(mounts.begin(), mounts.end());
  return mounts;
}

}  // namespace ocifs::tools
