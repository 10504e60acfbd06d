// The tree of one package: an immutable, checksummed file that is read where it lies (mmap). Lookup
// is a binary search, attributes an array access, a listing a range; nothing is parsed or
// allocated, so a package of a million files costs no heap. The layout is in FORMAT.md, section
// "Trees".
#ifndef OCIFS_STORE_TREE_H_
#define OCIFS_STORE_TREE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/node.h"

namespace ocifs::store {

// Position of a node in its tree. 0 is the root directory.
using NodeIndex = uint32_t;

// Files up to this size are one chunk, larger ones are cut at multiples of it.
inline constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
// What a format's own table may ask for at most.
inline constexpr uint64_t kMaxChunkBytes = uint64_t{64} << 20;

// Where a part of a file's content comes from.
struct ChunkRef {
  ChunkDigest digest;          // of the plain bytes; all zero for a hole
  uint64_t file_offset = 0;    // of the chunk's first byte
  uint64_t length = 0;         // plain bytes
  bool is_hole = false;        // `length` zeros that are stored nowhere
  uint32_t layer = 0;          // position in the manifest's layers
  uint64_t stream_offset = 0;  // of the first byte in that layer's plain stream
  // The part of the blob that has to be read to get the chunk alone; blob_length 0: only the whole
  // layer, read from its start, gives it. (Formats with a table of contents fill these.)
  uint64_t blob_offset = 0;
  uint64_t blob_length = 0;
};

// Thread-safe: immutable once open.
class Tree {
 public:
  // Maps the file and checks all of it: kIndexDamaged (with the reason) if it is not a whole tree
  // of this version. Accessors below need no error path after that; an index out of range aborts.
  // Cost: one sequential read of the file.
  static Result<std::unique_ptr<const Tree>> Open(int directory_fd, const std::string& name);
  // The same from a descriptor, which may be closed afterwards.
  static Result<std::unique_ptr<const Tree>> Map(int fd);
  // The same over bytes in memory (tests, fuzzing, trees kept inside the index).
  static Result<std::unique_ptr<const Tree>> FromBytes(std::vector<std::byte> bytes);
  ~Tree();

  std::span<const std::byte> bytes() const;  // as they lie in the file
  uint32_t node_count() const;
  uint64_t content_bytes() const;  // sum of the sizes of all regular files, hard links once
  uint32_t chunk_count() const;
  Digest manifest() const;  // whose package this is

  NodeAttributes Attributes(NodeIndex node) const;
  uint32_t LinkCount(
      NodeIndex node) const;  // st_nlink: names of a file; 2 + subdirectories of a directory

  // Directories. Children are sorted by name, bytewise.
  struct Child {
    std::string_view name;  // 1 to kMaxNameBytes bytes, no '/', no NUL, never "." or ".."
    NodeIndex node;
  };
  uint32_t ChildCount(NodeIndex directory) const;
  Child ChildAt(NodeIndex directory, uint32_t position) const;
  std::optional<NodeIndex> Lookup(NodeIndex directory, std::string_view name) const;
  NodeIndex Parent(NodeIndex directory) const;  // the root's is the root

  std::string_view LinkTarget(NodeIndex symlink) const;

  // Regular files. Chunks tile [0, size) in order.
  uint32_t ChunkCount(NodeIndex file) const;
  ChunkRef ChunkAt(NodeIndex file, uint32_t position) const;
  // Position of the chunk that holds `offset`, which must be below the size.
  uint32_t ChunkPositionOf(NodeIndex file, uint64_t offset) const;
  // A number below chunk_count() that is the chunk's own within this tree.
  uint32_t ChunkNumber(NodeIndex file, uint32_t position) const;
  ChunkRef ChunkByNumber(uint32_t number) const;

  uint32_t XattrCount(NodeIndex node) const;
  struct Xattr {
    std::string_view name;
    std::string_view value;
  };
  Xattr XattrAt(NodeIndex node, uint32_t position) const;

  // Walks a path of names from the root without following links; "" is the root.
  std::optional<NodeIndex> Walk(std::string_view path) const;

 private:
  class Rep;
  explicit Tree(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TREE_H_
