// Attributes in the kernel's terms.
#ifndef OCIFS_FS_STAT_H_
#define OCIFS_FS_STAT_H_

#include <sys/stat.h>

#include "fs/attributes.h"
#include "store/node.h"

namespace ocifs::fs {

// S_IFREG, S_IFDIR, …
mode_t TypeBits(store::NodeType type);

// All times are the time of the last change; blocks are counted from the size, whatever the store
// keeps.
struct stat ToStat(const Attributes& attributes);

}  // namespace ocifs::fs

#endif  // OCIFS_FS_STAT_H_
