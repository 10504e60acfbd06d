// What one layer says, before it is merged with the others: its archive entries in order, with
// content already cut into chunks.
#ifndef OCIFS_STORE_LAYER_H_
#define OCIFS_STORE_LAYER_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/node.h"
#include "store/tar_reader.h"
#include "store/tree.h"

namespace ocifs::store {

// Compact: names lie in one arena, so a layer of a million entries costs three allocations that
// grow. Thread-compatible.
class Layer {
 public:
  struct Entry {
    std::string_view path;
    std::string_view link_target;
    const NodeAttributes* attributes;
    bool is_hard_link;
    std::span<const ChunkRef> chunks;
    const Xattrs* xattrs;  // null when there are none
  };

  void Add(const TarEntry& entry, std::span<const ChunkRef> chunks);
  size_t size() const { return records_.size(); }
  Entry At(size_t position) const;

 private:
  struct Record {
    NodeAttributes attributes;
    uint64_t path_offset;
    uint32_t path_length;
    uint32_t link_length;  // right behind the path
    uint64_t first_chunk;
    uint32_t chunk_count;
    uint32_t xattrs;  // position + 1, 0: none
    bool is_hard_link;
  };
  std::vector<Record> records_;
  std::vector<ChunkRef> chunks_;
  std::vector<Xattrs> xattrs_;
  std::string names_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LAYER_H_
