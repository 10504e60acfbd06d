// What the kernel keeps about a mount.
#ifndef OCIFS_FS_MOUNT_TABLE_H_
#define OCIFS_FS_MOUNT_TABLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ocifs::fs {

// "major:minor" of the topmost mount on `mount_point` (an absolute path without links), out of the
// text of /proc/self/mountinfo. Asks the mounted filesystem nothing.
std::optional<std::string> FindMountDevice(std::string_view mountinfo,
                                           std::string_view mount_point);

// Raises how far the kernel reads ahead on that mount: FUSE alone can only lower it. Needs root;
// otherwise nothing happens, and sequential reads come in smaller requests.
void SetReadahead(const std::string& mount_point, uint32_t bytes);

}  // namespace ocifs::fs

#endif  // OCIFS_FS_MOUNT_TABLE_H_
