// Which mounts serve a store: each daemon keeps a locked file in <store>/mounts/ that names its
// mount point, so ocifs-ctl can say where a package is.
#ifndef OCIFS_TOOLS_MOUNT_TABLE_H_
#define OCIFS_TOOLS_MOUNT_TABLE_H_

#include <string>
#include <vector>

#include "store/error.h"
#include "store/file.h"

namespace ocifs::tools {

// One daemon's entry; it vanishes with the object, and counts no more when the process dies.
class MountEntry {
 public:
  static store::Result<MountEntry> Add(const std::string& store_root,
                                       const std::string& mount_point);
  MountEntry(MountEntry&&) noexcept = default;
  MountEntry& operator=(MountEntry&&) = delete;
  ~MountEntry();

 private:
  MountEntry(std::string path, store::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  store::UniqueFd fd_;
};

// Mount points of the daemons that live, sorted.
std::vector<std::string> ListMounts(const std::string& store_root);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_MOUNT_TABLE_H_
