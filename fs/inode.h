// Inode numbers. They are durable names, not handles: the same number means the same thing in every
// life of the daemon, so forgetting one frees nothing.
//
//   63            32 31             0
//   +---------------+---------------+
//   |     slot      |     node      |     slot 0: the mount point, whose number is 1 (FUSE's rule)
//   +---------------+---------------+
//
// A slot is a directory below the mount point that is not inside a package: a registry, a part of a
// repository's path, or the root of a package (fs/slots.h). Within a package the node is the
// position in its tree (0: the root); with the top bit set it belongs to the package's `.oci` view.
#ifndef OCIFS_FS_INODE_H_
#define OCIFS_FS_INODE_H_

#include <compare>
#include <cstdint>

namespace ocifs::fs {

class InodeNumber {
 public:
  static constexpr uint32_t kOciViewBit = 0x80000000;

  // Any number the kernel may send.
  static constexpr InodeNumber FromValue(uint64_t value) { return InodeNumber(value); }
  static constexpr InodeNumber MountPoint() { return InodeNumber(1); }
  static constexpr InodeNumber Of(uint32_t slot, uint32_t node = 0) {
    if (slot == 0) return MountPoint();
    return InodeNumber(uint64_t{slot} << 32 | node);
  }

  constexpr uint64_t value() const { return value_; }
  constexpr uint32_t slot() const { return static_cast<uint32_t>(value_ >> 32); }
  constexpr uint32_t node() const { return slot() == 0 ? 0 : static_cast<uint32_t>(value_); }
  constexpr bool in_oci_view() const { return (node() & kOciViewBit) != 0; }
  // False for what Of and MountPoint never give.
  constexpr bool valid() const { return slot() != 0 || value_ == 1; }

  friend constexpr auto operator<=>(InodeNumber, InodeNumber) = default;

 private:
  explicit constexpr InodeNumber(uint64_t value) : value_(value) {}
  uint64_t value_;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_INODE_H_
