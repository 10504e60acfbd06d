#include "store/tree.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "store/file.h"
#include "store/tree_format.h"

namespace ocifs::store {
namespace {

std::unexpected<Error> Damaged(std::string reason) {
  return Fail(ErrorCode::kIndexDamaged, "tree: " + std::move(reason));
}

}  // namespace

class Tree::Rep {
 public:
  explicit Rep(std::vector<std::byte> owned) : owned_(std::move(owned)), bytes_(owned_) {}
  Rep(void* mapping, size_t size)
      : mapping_(mapping), bytes_(static_cast<std::byte*>(mapping), size) {}
  ~Rep() {
    if (mapping_ != nullptr) munmap(mapping_, bytes_.size());
  }
  Rep(const Rep&) = delete;
  Rep& operator=(const Rep&) = delete;

  // Finds the sections and checks every field that an accessor relies on.
  Result<void> Check();

  std::span<const std::byte> bytes() const { return bytes_; }
  const TreeHeader& header() const { return *reinterpret_cast<const TreeHeader*>(bytes_.data()); }
  const TreeNode& node(NodeIndex i) const { return At(nodes_, i); }
  const TreeNode& node(NodeIndex i, NodeType type) const {
    const TreeNode& found = At(nodes_, i);
    if (found.type != static_cast<uint8_t>(type)) std::abort();
    return found;
  }
  const TreeChunk& chunk(uint32_t i) const { return At(chunks_, i); }
  const TreeDirent& dirent(uint32_t i) const { return At(dirents_, i); }
  const TreeXattr& xattr(uint32_t i) const { return At(xattrs_, i); }
  std::string_view Text(uint64_t offset, uint64_t length) const {
    return std::string_view(heap_.data() + offset, length);
  }
  std::string_view Name(const TreeDirent& entry) const {
    return Text(entry.name_offset, entry.name_length);
  }

 private:
  template <typename T>
  static const T& At(std::span<const T> items, size_t i) {
    if (i >= items.size()) std::abort();  // the caller made an index up
    return items[i];
  }
  template <typename T>
  std::span<const T> Section(uint64_t& offset, uint64_t count) const {
    const auto* first = reinterpret_cast<const T*>(bytes_.data() + offset);
    offset += count * sizeof(T);
    return {first, static_cast<size_t>(count)};
  }
  bool InHeap(uint64_t offset, uint64_t length) const {
    return offset <= heap_.size() && length <= heap_.size() - offset;
  }
  Result<void> CheckNode(NodeIndex index, uint64_t& content);
  Result<void> CheckDirectory(NodeIndex index, std::vector<bool>& placed);
  Result<void> CheckFile(const TreeNode& file) const;

  std::vector<std::byte> owned_;
  void* mapping_ = nullptr;
  std::span<const std::byte> bytes_;
  std::span<const TreeNode> nodes_;
  std::span<const TreeChunk> chunks_;
  std::span<const TreeDirent> dirents_;
  std::span<const TreeXattr> xattrs_;
  std::string_view heap_;
};

Result<void> Tree::Rep::Check() {
  if (bytes_.size() < sizeof(TreeHeader)) return Damaged("shorter than its header");
  const TreeHeader& h = header();
  if (h.magic != kTreeMagic) return Damaged("not a tree file");
  if (h.version != kTreeVersion) {
    return Damaged("version " + std::to_string(h.version) + " is not known; this ocifs reads " +
                   std::to_string(kTreeVersion));
  }
  if (h.header_bytes != sizeof(TreeHeader) || h.file_bytes != bytes_.size()) {
    return Damaged("cut short or grown");
  }
  if (Crc32c(bytes_.first(offsetof(TreeHeader, header_crc))) != h.header_crc) {
    return Damaged("header checksum is wrong");
  }
  const uint64_t expected = sizeof(TreeHeader) + uint64_t{h.node_count} * sizeof(TreeNode) +
                            uint64_t{h.chunk_count} * sizeof(TreeChunk) +
                            uint64_t{h.dirent_count} * sizeof(TreeDirent) +
                            uint64_t{h.xattr_count} * sizeof(TreeXattr);
  if (h.heap_bytes > bytes_.size() || expected != bytes_.size() - h.heap_bytes ||
      h.node_count == 0) {
    return Damaged("sections do not fill the file");
  }
  if (Crc32c(bytes_.subspan(sizeof(TreeHeader))) != h.body_crc) {
    return Damaged("checksum is wrong");
  }
  uint64_t offset = sizeof(TreeHeader);
  nodes_ = Section<TreeNode>(offset, h.node_count);
  chunks_ = Section<TreeChunk>(offset, h.chunk_count);
  dirents_ = Section<TreeDirent>(offset, h.dirent_count);
  xattrs_ = Section<TreeXattr>(offset, h.xattr_count);
  heap_ = {reinterpret_cast<const char*>(bytes_.data() + offset),
           static_cast<size_t>(h.heap_bytes)};

  if (h.manifest_algorithm != static_cast<uint8_t>(DigestAlgorithm::kSha256) &&
      h.manifest_algorithm != static_cast<uint8_t>(DigestAlgorithm::kSha512)) {
    return Damaged("its manifest's digest is of an unknown kind");
  }
  if (nodes_[0].type != static_cast<uint8_t>(NodeType::kDirectory) || nodes_[0].parent != 0) {
    return Damaged("its root is not a directory");
  }
  for (const TreeXattr& x : xattrs_) {
    if (!InHeap(x.name_offset, x.name_length) || !InHeap(x.value_offset, x.value_length)) {
      return Damaged("an xattr lies outside the heap");
    }
  }
  uint64_t content = 0;
  std::vector<bool> placed(nodes_.size());  // nodes that have a name
  placed[0] = true;
  for (NodeIndex i = 0; i < nodes_.size(); ++i) {
    OCIFS_RETURN_IF_ERROR(CheckNode(i, content));
    if (nodes_[i].type == static_cast<uint8_t>(NodeType::kDirectory)) {
      OCIFS_RETURN_IF_ERROR(CheckDirectory(i, placed));
    }
  }
  if (std::find(placed.begin(), placed.end(), false) != placed.end()) {
    return Damaged("a node has no name");
  }
  if (content != h.content_bytes) return Damaged("content size is wrong");
  return {};
}

Result<void> Tree::Rep::CheckNode(NodeIndex index, uint64_t& content) {
  const TreeNode& n = nodes_[index];
  if (n.mode > 07777 || n.mtime_nsec >= 1'000'000'000 || n.link_count == 0 ||
      n.size > static_cast<uint64_t>(INT64_MAX)) {
    return Damaged("attributes of node " + std::to_string(index) + " are out of range");
  }
  if (n.first_xattr > xattrs_.size() || n.xattr_count > xattrs_.size() - n.first_xattr) {
    return Damaged("xattrs of node " + std::to_string(index) + " are out of range");
  }
  switch (static_cast<NodeType>(n.type)) {
    case NodeType::kRegular:
      content += n.size;
      return CheckFile(n);
    case NodeType::kSymlink:
      if (n.count == 0 || n.count > kMaxLinkTargetBytes || !InHeap(n.first, n.count) ||
          n.size != n.count) {
        return Damaged("a link target is out of range");
      }
      return {};
    case NodeType::kDirectory:
    case NodeType::kCharDevice:
    case NodeType::kBlockDevice:
    case NodeType::kFifo:
      return {};
  }
  return Damaged("node " + std::to_string(index) + " has an unknown type");
}

Result<void> Tree::Rep::CheckDirectory(NodeIndex index, std::vector<bool>& placed) {
  const TreeNode& directory = nodes_[index];
  if (directory.first > dirents_.size() || directory.count > dirents_.size() - directory.first) {
    return Damaged("a directory's entries are out of range");
  }
  std::string_view previous;
  for (uint32_t i = 0; i < directory.count; ++i) {
    const TreeDirent& entry = dirents_[directory.first + i];
    if (entry.name_length == 0 || entry.name_length > kMaxNameBytes ||
        !InHeap(entry.name_offset, entry.name_length) || entry.node >= nodes_.size()) {
      return Damaged("a directory entry is out of range");
    }
    const std::string_view name = Name(entry);
    if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos ||
        name == "." || name == ".." || (i > 0 && !(previous < name))) {
      return Damaged("a directory entry has a bad name");
    }
    previous = name;
    const TreeNode& child = nodes_[entry.node];
    if (child.type == static_cast<uint8_t>(NodeType::kDirectory)) {
      // Breadth-first numbers rise downwards; that leaves no room for a ring.
      if (entry.node <= index || child.parent != index || placed[entry.node]) {
        return Damaged("a directory stands in two places");
      }
    }
    placed[entry.node] = true;
  }
  return {};
}

Result<void> Tree::Rep::CheckFile(const TreeNode& file) const {
  if (file.first > chunks_.size() || file.count > chunks_.size() - file.first) {
    return Damaged("a file's chunks are out of range");
  }
  uint64_t end = 0;
  for (const TreeChunk& c : chunks_.subspan(file.first, file.count)) {
    const bool hole = (c.flags & kTreeChunkHole) != 0;
    if (c.file_offset != end || c.length == 0 || c.length > file.size - end ||
        (!hole && c.length > kMaxChunkBytes)) {
      return Damaged("a file's chunks do not tile it");
    }
    end += c.length;
  }
  if (end != file.size) return Damaged("a file's chunks do not fill it");
  return {};
}

Tree::Tree(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Tree::~Tree() = default;

Result<std::unique_ptr<const Tree>> Tree::Open(int directory_fd, const std::string& name) {
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(directory_fd, name, O_RDONLY));
  return Map(fd.get());
}

Result<std::unique_ptr<const Tree>> Tree::Map(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return Fail(ErrorFromErrno(errno, "opening a tree"));
  if (!S_ISREG(status.st_mode) || static_cast<size_t>(status.st_size) < sizeof(TreeHeader)) {
    return Damaged("not a whole file");
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* mapping = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) return Fail(ErrorFromErrno(errno, "mapping a tree"));
  auto rep = std::make_unique<Rep>(mapping, size);
  OCIFS_RETURN_IF_ERROR(rep->Check());
  return std::unique_ptr<const Tree>(new Tree(std::move(rep)));
}

Result<std::unique_ptr<const Tree>> Tree::FromBytes(std::vector<std::byte> bytes) {
  auto rep = std::make_unique<Rep>(std::move(bytes));
  OCIFS_RETURN_IF_ERROR(rep->Check());
  return std::unique_ptr<const Tree>(new Tree(std::move(rep)));
}

std::span<const std::byte> Tree::bytes() const { return rep_->bytes(); }
uint32_t Tree::node_count() const { return rep_->header().node_count; }
uint64_t Tree::content_bytes() const { return rep_->header().content_bytes; }
uint32_t Tree::chunk_count() const { return rep_->header().chunk_count; }
Digest Tree::manifest() const {
  const TreeHeader& h = rep_->header();
  const auto algorithm = static_cast<DigestAlgorithm>(h.manifest_algorithm);
  return Digest::FromBytes(algorithm,
                           std::span(h.manifest_digest).first(DigestAlgorithmBytes(algorithm)));
}

NodeAttributes Tree::Attributes(NodeIndex node) const {
  const TreeNode& n = rep_->node(node);
  return NodeAttributes{.type = static_cast<NodeType>(n.type),
                        .mode = n.mode,
                        .uid = n.uid,
                        .gid = n.gid,
                        .mtime_sec = n.mtime_sec,
                        .mtime_nsec = n.mtime_nsec,
                        .size = n.size,
                        .device_major = n.device_major,
                        .device_minor = n.device_minor};
}

uint32_t Tree::LinkCount(NodeIndex node) const { return rep_->node(node).link_count; }

uint32_t Tree::ChildCount(NodeIndex directory) const {
  return rep_->node(directory, NodeType::kDirectory).count;
}

Tree::Child Tree::ChildAt(NodeIndex directory, uint32_t position) const {
  const TreeNode& n = rep_->node(directory, NodeType::kDirectory);
  if (position >= n.count) std::abort();
  const TreeDirent& entry = rep_->dirent(n.first + position);
  return Child{rep_->Name(entry), entry.node};
}

std::optional<NodeIndex> Tree::Lookup(NodeIndex directory, std::string_view name) const {
  const TreeNode& n = rep_->node(directory, NodeType::kDirectory);
  uint32_t low = 0;
  uint32_t high = n.count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const TreeDirent& entry = rep_->dirent(n.first + middle);
    const int order = rep_->Name(entry).compare(name);
    if (order == 0) return entry.node;
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return std::nullopt;
}

NodeIndex Tree::Parent(NodeIndex directory) const {
  return rep_->node(directory, NodeType::kDirectory).parent;
}

std::string_view Tree::LinkTarget(NodeIndex symlink) const {
  const TreeNode& n = rep_->node(symlink, NodeType::kSymlink);
  return rep_->Text(n.first, n.count);
}

uint32_t Tree::ChunkCount(NodeIndex file) const {
  return rep_->node(file, NodeType::kRegular).count;
}

ChunkRef Tree::ChunkAt(NodeIndex file, uint32_t position) const {
  return ChunkByNumber(ChunkNumber(file, position));
}

uint32_t Tree::ChunkPositionOf(NodeIndex file, uint64_t offset) const {
  const TreeNode& n = rep_->node(file, NodeType::kRegular);
  if (offset >= n.size) std::abort();
  // The last chunk that starts at or before the offset.
  uint32_t low = 0;
  uint32_t high = n.count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    if (rep_->chunk(n.first + middle).file_offset <= offset) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

uint32_t Tree::ChunkNumber(NodeIndex file, uint32_t position) const {
  const TreeNode& n = rep_->node(file, NodeType::kRegular);
  if (position >= n.count) std::abort();
  return n.first + position;
}

ChunkRef Tree::ChunkByNumber(uint32_t number) const {
  const TreeChunk& c = rep_->chunk(number);
  return ChunkRef{.digest = ChunkDigest{c.digest},
                  .file_offset = c.file_offset,
                  .length = c.length,
                  .is_hole = (c.flags & kTreeChunkHole) != 0,
                  .layer = c.layer,
                  .stream_offset = c.stream_offset,
                  .blob_offset = c.blob_offset,
                  .blob_length = c.blob_length};
}

uint32_t Tree::XattrCount(NodeIndex node) const { return rep_->node(node).xattr_count; }

Tree::Xattr Tree::XattrAt(NodeIndex node, uint32_t position) const {
  const TreeNode& n = rep_->node(node);
  if (position >= n.xattr_count) std::abort();
  const TreeXattr& x = rep_->xattr(n.first_xattr + position);
  return Xattr{rep_->Text(x.name_offset, x.name_length),
               rep_->Text(x.value_offset, x.value_length)};
}

std::optional<NodeIndex> Tree::Walk(std::string_view path) const {
  NodeIndex at = 0;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    if (name.empty()) continue;
    if (Attributes(at).type != NodeType::kDirectory) return std::nullopt;
    const std::optional<NodeIndex> child = Lookup(at, name);
    if (!child) return std::nullopt;
    at = *child;
  }
  return at;
}

}  // namespace ocifs::store
