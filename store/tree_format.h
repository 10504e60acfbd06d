// The tree file as it lies on disk; FORMAT.md, section "Trees", has the same picture in words.
//
//   TreeHeader | TreeNode × nodes | TreeChunk × chunks | TreeDirent × dirents | TreeXattr × xattrs
//   | heap
//
// Little-endian, no padding but the fields named so. The heap holds names, link targets and xattrs,
// back to back, each addressed by offset and length.
#ifndef OCIFS_STORE_TREE_FORMAT_H_
#define OCIFS_STORE_TREE_FORMAT_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ocifs::store {

static_assert(std::endian::native == std::endian::little,
              "trees are read where they lie; a big-endian port needs swapping accessors");

inline constexpr std::array<char, 8> kTreeMagic = {'O', 'C', 'I', 'F', 'S', 'T', 'R', 'E'};
inline constexpr uint32_t kTreeVersion = 1;

struct TreeHeader {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t header_bytes;  // sizeof(TreeHeader)
  uint64_t file_bytes;
  uint32_t node_count;
  uint32_t dirent_count;
  uint32_t chunk_count;
  uint32_t xattr_count;
  uint64_t heap_bytes;
  uint64_t content_bytes;
  // Identity: the manifest whose package this is, so that the index can be rebuilt.
  uint8_t manifest_algorithm;  // DigestAlgorithm
  std::array<uint8_t, 7> reserved;
  std::array<std::byte, 64> manifest_digest;
  uint32_t body_crc;    // CRC-32C of everything after the header
  uint32_t header_crc;  // CRC-32C of the header up to here
};
static_assert(sizeof(TreeHeader) == 136);

struct TreeNode {
  uint8_t type;  // NodeType
  uint8_t reserved;
  uint16_t mode;  // 07777
  uint32_t uid;
  uint32_t gid;
  uint32_t link_count;
  int64_t mtime_sec;
  uint64_t size;
  uint32_t mtime_nsec;
  uint32_t parent;  // of a directory; else 0
  uint32_t first;   // directory: dirent; file: chunk; symlink: heap offset of the target
  uint32_t count;   // directory: children; file: chunks; symlink: bytes of the target
  uint32_t first_xattr;
  uint32_t xattr_count;
  uint32_t device_major;
  uint32_t device_minor;
};
static_assert(sizeof(TreeNode) == 64);

struct TreeChunk {
  std::array<std::byte, 32> digest;
  uint64_t file_offset;
  uint64_t length;
  uint64_t stream_offset;
  uint64_t blob_offset;
  uint64_t blob_length;
  uint32_t layer;
  uint32_t flags;
};
static_assert(sizeof(TreeChunk) == 80);
inline constexpr uint32_t kTreeChunkHole = 1;

struct TreeDirent {
  uint32_t name_offset;
  uint32_t node;
  uint16_t name_length;
  uint16_t reserved;
};
static_assert(sizeof(TreeDirent) == 12);

struct TreeXattr {
  uint32_t name_offset;
  uint32_t value_offset;
  uint32_t value_length;
  uint16_t name_length;
  uint16_t reserved;
};
static_assert(sizeof(TreeXattr) == 16);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TREE_FORMAT_H_
