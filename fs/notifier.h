// The way to tell the kernel that something it was allowed to keep is out of date.
#ifndef OCIFS_FS_NOTIFIER_H_
#define OCIFS_FS_NOTIFIER_H_

#include <string>

#include "fs/inode.h"

namespace ocifs::fs {

// Thread-safe. Calls only take note and return at once: the kernel may hold the lock of a directory
// until a request that we are just answering is answered, so telling it from there would never end.
class KernelNotifier {
 public:
  virtual ~KernelNotifier() = default;
  // The name below `parent` leads elsewhere, or nowhere.
  virtual void InvalidateEntry(InodeNumber parent, std::string name) = 0;
  // Attributes, listing and content of the inode changed.
  virtual void InvalidateInode(InodeNumber inode) = 0;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_NOTIFIER_H_
