#include "fs/stat.h"

#include <sys/sysmacros.h>

namespace ocifs::fs {

using store::NodeType;

namespace {

constexpr blksize_t kBlockSize = blksize_t{128} * 1024;  // a good size to read in

}  // namespace

mode_t TypeBits(NodeType type) {
  switch (type) {
    case NodeType::kRegular:
      return S_IFREG;
    case NodeType::kDirectory:
      return S_IFDIR;
    case NodeType::kSymlink:
      return S_IFLNK;
    case NodeType::kCharDevice:
      return S_IFCHR;
    case NodeType::kBlockDevice:
      return S_IFBLK;
    case NodeType::kFifo:
      return S_IFIFO;
  }
  return S_IFREG;
}

struct stat ToStat(const Attributes& attributes) {
  const store::NodeAttributes& node = attributes.node;
  struct stat result = {};
  result.st_ino = attributes.inode.value();
  result.st_mode = TypeBits(node.type) | (node.mode & 07777);
  result.st_nlink = attributes.link_count;
  result.st_uid = node.uid;
  result.st_gid = node.gid;
  if (node.type == NodeType::kCharDevice || node.type == NodeType::kBlockDevice) {
    result.st_rdev = makedev(node.device_major, node.device_minor);
  }
  result.st_size = static_cast<off_t>(node.size);
  result.st_blksize = kBlockSize;
  if (node.type == NodeType::kRegular) {
    result.st_blocks = static_cast<blkcnt_t>((node.size + 511) / 512);
  }
  result.st_mtim.tv_sec = node.mtime_sec;
  result.st_mtim.tv_nsec = node.mtime_nsec;
  result.st_atim = result.st_mtim;
  result.st_ctim = result.st_mtim;
  return result;
}

}  // namespace ocifs::fs
