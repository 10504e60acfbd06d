// Tree files. The target makes lengths and checksums right, so that the checks of the structure are
// what a file meets. Whatever is accepted is then walked with every accessor: none of them may read
// outside the file, abort, or go in a circle.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "store/tree.h"
#include "store/tree_format.h"

namespace {

using namespace ocifs::store;

void Demand(bool condition) {
  if (!condition) std::abort();
}

void Repair(std::vector<std::byte>& bytes) {
  if (bytes.size() < sizeof(TreeHeader)) return;
  TreeHeader h;
  std::memcpy(&h, bytes.data(), sizeof h);
  h.magic = kTreeMagic;
  h.version = kTreeVersion;
  h.header_bytes = sizeof h;
  h.file_bytes = bytes.size();
  const uint64_t sections = sizeof h + uint64_t{h.node_count} * sizeof(TreeNode) +
                            uint64_t{h.chunk_count} * sizeof(TreeChunk) +
                            uint64_t{h.dirent_count} * sizeof(TreeDirent) +
                            uint64_t{h.xattr_count} * sizeof(TreeXattr);
  if (sections <= bytes.size()) {
    h.heap_bytes = bytes.size() - sections;
    uint64_t content = 0;
    for (uint64_t i = 0; i < h.node_count; ++i) {
      TreeNode node;
      std::memcpy(&node, bytes.data() + sizeof h + i * sizeof node, sizeof node);
      if (node.type == static_cast<uint8_t>(NodeType::kRegular)) content += node.size;
    }
    h.content_bytes = content;
  }
  h.body_crc = Crc32c(std::span(bytes).subspan(sizeof h));
  h.header_crc = Crc32c(std::as_bytes(std::span(&h, 1)).first(offsetof(TreeHeader, header_crc)));
  std::memcpy(bytes.data(), &h, sizeof h);
}

// Adds up all bytes, so that none is left unread.
uint64_t Touch(std::string_view text) {
  uint64_t sum = 0;
  for (const char c : text) sum += static_cast<unsigned char>(c);
  return sum;
}

void WalkFile(const Tree& tree, NodeIndex node, uint64_t size) {
  uint64_t end = 0;
  for (uint32_t i = 0; i < tree.ChunkCount(node); ++i) {
    const ChunkRef chunk = tree.ChunkAt(node, i);
    Demand(chunk.file_offset == end && chunk.length > 0);
    Demand(tree.ChunkPositionOf(node, chunk.file_offset) == i);
    Demand(tree.ChunkPositionOf(node, chunk.file_offset + chunk.length - 1) == i);
    Demand(tree.ChunkNumber(node, i) < tree.chunk_count());
    end += chunk.length;
  }
  Demand(end == size);
}

void WalkTree(const Tree& tree) {
  std::vector<NodeIndex> todo{0};
  size_t directories = 0;
  while (!todo.empty()) {
    const NodeIndex directory = todo.back();
    todo.pop_back();
    Demand(++directories <= tree.node_count());
    std::string_view previous;
    for (uint32_t i = 0; i < tree.ChildCount(directory); ++i) {
      const Tree::Child child = tree.ChildAt(directory, i);
      Demand(!child.name.empty() && child.name.size() <= kMaxNameBytes && child.name != "." &&
             child.name != "..");
      Demand(child.name.find('/') == std::string_view::npos &&
             child.name.find('\0') == std::string_view::npos);
      Demand(i == 0 || previous < child.name);
      previous = child.name;
      Demand(tree.Lookup(directory, child.name) == child.node);
      const NodeAttributes attributes = tree.Attributes(child.node);
      Demand(attributes.mode <= 07777 && attributes.mtime_nsec < 1'000'000'000);
      Demand(tree.LinkCount(child.node) > 0);
      for (uint32_t x = 0; x < std::min(tree.XattrCount(child.node), 16U); ++x) {
        const Tree::Xattr xattr = tree.XattrAt(child.node, x);
        Touch(xattr.name);
        Touch(xattr.value);
      }
      switch (attributes.type) {
        case NodeType::kDirectory:
          Demand(tree.Parent(child.node) == directory);
          todo.push_back(child.node);
          break;
        case NodeType::kSymlink:
          Demand(Touch(tree.LinkTarget(child.node)) > 0 || attributes.size > 0);
          break;
        case NodeType::kRegular:
          WalkFile(tree, child.node, attributes.size);
          break;
        default:
          break;
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  Repair(bytes);
  const auto tree = Tree::FromBytes(std::move(bytes));
  if (tree) WalkTree(**tree);
  return 0;
}
