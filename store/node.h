// What a file, directory or link of a package is, apart from its name and content.
#ifndef OCIFS_STORE_NODE_H_
#define OCIFS_STORE_NODE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ocifs::store {

enum class NodeType : uint8_t {
  kRegular = 1,
  kDirectory = 2,
  kSymlink = 3,
  kCharDevice = 4,
  kBlockDevice = 5,
  kFifo = 6,
};

struct NodeAttributes {
  NodeType type = NodeType::kRegular;
  uint32_t mode = 0;  // permission bits, 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_sec = 0;
  uint32_t mtime_nsec = 0;  // below 10^9
  uint64_t size = 0;        // bytes of a regular file, length of a symlink's target, else 0
  uint32_t device_major = 0;
  uint32_t device_minor = 0;

  friend bool operator==(const NodeAttributes&, const NodeAttributes&) = default;
};

// Name and value, both bytes.
using Xattrs = std::vector<std::pair<std::string, std::string>>;

// Limits of the kernel interface; what is longer never becomes a node.
inline constexpr size_t kMaxNameBytes = 255;
inline constexpr size_t kMaxPathBytes = 4095;
inline constexpr size_t kMaxLinkTargetBytes = 4095;

}  // namespace ocifs::store

#endif  // OCIFS_STORE_NODE_H_
