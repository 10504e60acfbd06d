#include "store/tree_builder.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "store/node.h"
#include "store/text.h"
#include "store/tree_format.h"

namespace ocifs::store {
namespace {

constexpr int kMaxLinkHops = 40;
constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kOpaqueWhiteout = ".wh..wh..opq";
constexpr std::string_view kAufsPrefix = ".wh..wh.";
constexpr uint32_t kNone = UINT32_MAX;

std::unexpected<Error> Refuse(std::string_view path, std::string_view reason) {
  return Fail(ErrorCode::kCorrupt,
              "archive entry '" + EscapeForDisplay(path) + "': " + std::string(reason));
}

struct SplitPath {
  std::string_view parent;
  std::string_view name;
};
SplitPath Split(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {{}, path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

// Takes the first component off `path`.
std::string_view TakeComponent(std::string_view& path) {
  const size_t slash = path.find('/');
  const std::string_view name = path.substr(0, slash);
  path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  return name;
}

struct BuildNode {
  NodeAttributes attributes;
  std::string_view link_target;      // of a symlink; lies in a Layer
  std::span<const ChunkRef> chunks;  // lies in a Layer
  const Xattrs* xattrs = nullptr;
  uint32_t layer = 0;
  uint32_t names = 0;             // dirents that point here
  uint32_t parent = 0;            // of a directory
  uint32_t first_dirent = kNone;  // of a directory; some may be dead
  uint32_t children = 0;          // of a directory: dirents that are not
};

struct BuildDirent {
  std::string_view name;  // lies in a Layer, or in made_names_
  uint32_t directory;
  uint32_t node;  // kNone: dead
  uint32_t next;  // in its directory
};

}  // namespace

class TreeBuilder::Impl {
 public:
  explicit Impl(const Limits& limits) : limits_(limits), seed_(std::random_device{}()) {
    nodes_.push_back(ImplicitDirectory(0));
    nodes_[0].names = 1;
  }

  Result<void> Apply(const Layer& layer, bool whiteouts) {
    const uint32_t layer_number = layers_++;
    if (whiteouts) OCIFS_RETURN_IF_ERROR(ApplyWhiteouts(layer));
    for (size_t i = 0; i < layer.size(); ++i) {
      const Layer::Entry entry = layer.At(i);
      if (whiteouts && IsWhiteout(entry.path)) continue;
      OCIFS_RETURN_IF_ERROR(ApplyEntry(entry, layer_number));
    }
    return {};
  }

  Result<std::vector<std::byte>> Finish(const Digest& manifest);

 private:
  BuildNode ImplicitDirectory(uint32_t parent) const {
    BuildNode node;
    node.attributes.type = NodeType::kDirectory;
    node.attributes.mode = 0755;
    node.parent = parent;
    return node;
  }

  bool IsDirectory(uint32_t node) const {
    return nodes_[node].attributes.type == NodeType::kDirectory;
  }

  // --- names -----------------------------------------------------------------------------------
  // One open-addressing table for all directories: (directory, name) → dirent. Seeded, so that an
  // archive cannot be made to collide.
  uint64_t Hash(uint32_t directory, std::string_view name) const {
    uint64_t h = seed_ ^ (uint64_t{directory} * 0x9E3779B97F4A7C15U);
    while (!name.empty()) {
      uint64_t word = 0;
      const size_t count = std::min<size_t>(8, name.size());
      std::memcpy(&word, name.data(), count);
      h = (h ^ word ^ count) * 0xD6E8FEB86659FD93U;
      h ^= h >> 32;
      name.remove_prefix(count);
    }
    h *= 0xD6E8FEB86659FD93U;
    return h ^ h >> 29;
  }

  // Position in table_ of the dirent, or of the first free place.
  size_t Probe(uint32_t directory, std::string_view name) const {
    size_t at = Hash(directory, name) & (table_.size() - 1);
    while (table_[at] != 0) {
      const BuildDirent& d = dirents_[table_[at] - 1];
      if (d.directory == directory && d.name == name) return at;
      at = (at + 1) & (table_.size() - 1);
    }
    return at;
  }

  // The dirent of that name, dead or alive; kNone when there never was one.
  uint32_t FindDirent(uint32_t directory, std::string_view name) const {
    const uint32_t entry = table_[Probe(directory, name)];
    return entry == 0 ? kNone : entry - 1;
  }

  uint32_t FindChild(uint32_t directory, std::string_view name) const {
    const uint32_t dirent = FindDirent(directory, name);
    return dirent == kNone ? kNone : dirents_[dirent].node;
  }

  // Gives `node` the name, which must be free (a dead dirent is used again).
  void Link(uint32_t directory, std::string_view name, uint32_t node) {
    ++nodes_[node].names;
    ++nodes_[directory].children;
    if (const uint32_t dirent = FindDirent(directory, name); dirent != kNone) {
      dirents_[dirent].node = node;
      return;
    }
    if ((dirents_.size() + 1) * 2 > table_.size()) Grow();
    dirents_.push_back(BuildDirent{name, directory, node, nodes_[directory].first_dirent});
    const auto index = static_cast<uint32_t>(dirents_.size());
    nodes_[directory].first_dirent = index - 1;
    table_[Probe(directory, name)] = index;
  }

  void Grow() {
    table_.assign(table_.size() * 2, 0);
    for (uint32_t i = 0; i < dirents_.size(); ++i) {
      table_[Probe(dirents_[i].directory, dirents_[i].name)] = i + 1;
    }
  }

  // Takes the name away, and with a directory all below it.
  void Unlink(uint32_t directory, std::string_view name) {
    const uint32_t dirent = FindDirent(directory, name);
    if (dirent == kNone || dirents_[dirent].node == kNone) return;
    std::vector<uint32_t> doomed;
    Kill(dirent, doomed);
    Clear(std::move(doomed));
  }

  // Takes away all that the directories hold.
  void Clear(std::vector<uint32_t> doomed) {
    ForgetPath();
    while (!doomed.empty()) {
      const uint32_t directory = doomed.back();
      doomed.pop_back();
      // A directory may be cleared again and again: what is dead already costs nothing then.
      for (uint32_t d = nodes_[directory].first_dirent;
           d != kNone && nodes_[directory].children > 0; d = dirents_[d].next) {
        Kill(d, doomed);
      }
    }
  }

  void Kill(uint32_t dirent, std::vector<uint32_t>& doomed) {
    const uint32_t node = std::exchange(dirents_[dirent].node, kNone);
    if (node == kNone) return;
    --nodes_[node].names;
    --nodes_[dirents_[dirent].directory].children;
    if (IsDirectory(node)) doomed.push_back(node);
  }

  // --- paths -----------------------------------------------------------------------------------
  // What to do with a component that is missing or no directory.
  enum class Missing { kFail, kMake };

  // Paths of a layer's entries.
  using Paths = std::unordered_set<std::string_view>;

  // The directory that `path` names, links followed inside the tree. kNone when there is none and
  // none is made. A link at one of the paths `replaced` does not count.
  Result<uint32_t> ResolveDirectory(std::string_view path, Missing missing,
                                    const Paths* replaced = nullptr) {
    if (!path.empty() && path == last_path_ && replaced == nullptr) return last_directory_;
    uint32_t at = 0;
    int hops = 0;
    // Components still to walk; targets of links are put before the rest.
    std::string spliced;
    std::string_view rest = path;
    while (!rest.empty()) {
      const std::string_view name = TakeComponent(rest);
      if (name.empty() || name == ".") continue;
      if (name == "..") {  // only out of link targets; the root's parent is the root
        at = nodes_[at].parent;
        continue;
      }
      if (name.size() > kMaxNameBytes)
        return Refuse(path, "a symbolic link leads to a name over 255 bytes");
      const uint32_t child = FindChild(at, name);
      if (child != kNone && IsDirectory(child)) {
        at = child;
        continue;
      }
      if (child != kNone && nodes_[child].attributes.type == NodeType::kSymlink) {
        // Before the first link, `name` lies in `path`.
        if (replaced != nullptr && hops == 0 &&
            replaced->contains(std::string_view(path.begin(), name.end()))) {
          return kNone;
        }
        if (++hops > kMaxLinkHops) return Refuse(path, "its parents are a loop of symbolic links");
        const std::string_view target = nodes_[child].link_target;
        std::string joined(target);
        joined.append("/").append(rest);
        if (joined.size() > size_t{1} << 16) return Refuse(path, "its parent links are too long");
        spliced = std::move(joined);
        rest = spliced;
        if (target.starts_with('/')) at = 0;
        continue;
      }
      if (missing == Missing::kFail) return kNone;
      if (child != kNone) Unlink(at, name);
      OCIFS_ASSIGN_OR_RETURN(at, MakeDirectory(at, name));
    }
    if (missing == Missing::kMake) {
      last_path_.assign(path);
      last_directory_ = at;
    }
    return at;
  }

  Result<uint32_t> MakeDirectory(uint32_t parent, std::string_view name) {
    OCIFS_ASSIGN_OR_RETURN(const uint32_t node, NewNode(ImplicitDirectory(parent)));
    // The name may lie in a buffer that will not last.
    made_names_.push_back(std::make_unique<std::string>(name));
    Link(parent, *made_names_.back(), node);
    return node;
  }

  Result<uint32_t> NewNode(BuildNode node) {
    if (nodes_.size() > limits_.max_entries) {
      return Fail(ErrorCode::kTooLarge, "package has more than " +
                                            std::to_string(limits_.max_entries) +
                                            " files and directories (limits.max_entries)");
    }
    nodes_.push_back(node);
    return static_cast<uint32_t>(nodes_.size() - 1);
  }

  // The memory of the last path walked is only right while no name is taken away or replaced.
  void ForgetPath() { last_path_.clear(); }

  // --- entries ---------------------------------------------------------------------------------
  static bool IsWhiteout(std::string_view path) {
    while (!path.empty()) {
      if (TakeComponent(path).starts_with(kWhiteoutPrefix)) return true;
    }
    return false;
  }

  struct Hidden {
    uint32_t directory;
    std::string_view name;  // empty: all that the directory holds
  };

  // All whiteouts are looked up before the first one hides anything, so that their order does not
  // matter. A directory of this layer that takes the place of a link is not the link's target:
  // whiteouts below it have nothing to hide.
  Result<void> ApplyWhiteouts(const Layer& layer) {
    std::vector<std::string_view> whiteouts;
    for (size_t i = 0; i < layer.size(); ++i) {
      const std::string_view path = layer.At(i).path;
      const auto [parent, name] = Split(path);
      if (!name.starts_with(kWhiteoutPrefix) || IsWhiteout(parent)) continue;
      if (name != kOpaqueWhiteout && name.starts_with(kAufsPrefix)) continue;
      whiteouts.push_back(path);
    }
    if (whiteouts.empty()) return {};
    Paths replaced;
    for (size_t i = 0; i < layer.size(); ++i) {
      const std::string_view path = layer.At(i).path;
      if (!IsWhiteout(path)) replaced.insert(path);
    }
    std::vector<Hidden> all_hidden;
    for (const std::string_view path : whiteouts) {
      const auto [parent, name] = Split(path);
      const bool opaque = name == kOpaqueWhiteout;
      const std::string_view hidden = name.substr(kWhiteoutPrefix.size());
      if (hidden.empty() || hidden == "." || hidden == "..") {
        return Refuse(path, "it is a whiteout of no name");
      }
      OCIFS_ASSIGN_OR_RETURN(const uint32_t directory,
                             ResolveDirectory(parent, Missing::kFail, &replaced));
      if (directory == kNone) continue;
      all_hidden.push_back(Hidden{directory, opaque ? std::string_view() : hidden});
    }
    for (const Hidden& hidden : all_hidden) {
      if (hidden.name.empty()) {
        Clear({hidden.directory});
      } else {
        Unlink(hidden.directory, hidden.name);
      }
    }
    return {};
  }

  Result<void> ApplyEntry(const Layer::Entry& entry, uint32_t layer) {
    const bool directory_entry =
        !entry.is_hard_link && entry.attributes->type == NodeType::kDirectory;
    if (entry.path.empty()) {
      if (!directory_entry) return Refuse("/", "the root of the tree is not a directory");
      SetAttributes(nodes_[0], entry, layer);
      return {};
    }
    const auto [parent_path, name] = Split(entry.path);
    OCIFS_ASSIGN_OR_RETURN(const uint32_t parent, ResolveDirectory(parent_path, Missing::kMake));
    const uint32_t existing = FindChild(parent, name);
    if (entry.is_hard_link) return ApplyHardLink(entry, parent, name, existing);
    if (directory_entry && existing != kNone && IsDirectory(existing)) {
      SetAttributes(nodes_[existing], entry, layer);
      return {};
    }
    if (existing != kNone) Unlink(parent, name);
    BuildNode node;
    node.parent = directory_entry ? parent : 0;
    SetAttributes(node, entry, layer);
    OCIFS_ASSIGN_OR_RETURN(const uint32_t index, NewNode(node));
    Link(parent, name, index);
    return {};
  }

  Result<void> ApplyHardLink(const Layer::Entry& entry, uint32_t parent, std::string_view name,
                             uint32_t existing) {
    const auto [target_parent, target_name] = Split(entry.link_target);
    OCIFS_ASSIGN_OR_RETURN(const uint32_t directory,
                           ResolveDirectory(target_parent, Missing::kFail));
    const uint32_t target = directory == kNone ? kNone : FindChild(directory, target_name);
    if (target == kNone) {
      return Refuse(entry.path, "it is a hard link to '" + EscapeForDisplay(entry.link_target) +
                                    "', which does not exist");
    }
    if (IsDirectory(target)) return Refuse(entry.path, "it is a hard link to a directory");
    if (directory == parent && target_name == name) {
      return Refuse(entry.path, "it is a hard link to itself");
    }
    if (existing == target) return {};
    if (existing != kNone) Unlink(parent, name);
    Link(parent, name, target);
    return {};
  }

  static void SetAttributes(BuildNode& node, const Layer::Entry& entry, uint32_t layer) {
    node.attributes = *entry.attributes;
    if (node.attributes.type == NodeType::kSymlink) node.attributes.size = entry.link_target.size();
    if (node.attributes.type == NodeType::kDirectory) node.attributes.size = 0;
    node.link_target = entry.link_target;
    node.chunks = entry.chunks;
    node.xattrs = entry.xattrs;
    node.layer = layer;
  }

  const Limits& limits_;
  const uint64_t seed_;
  uint32_t layers_ = 0;
  std::vector<BuildNode> nodes_;
  std::vector<BuildDirent> dirents_;
  std::vector<uint32_t> table_ = std::vector<uint32_t>(1024);  // dirent + 1; 0: free
  std::vector<std::unique_ptr<std::string>> made_names_;
  std::string last_path_;  // the parent made last: archives list directories together
  uint32_t last_directory_ = 0;
};

namespace {

// Collects the sections of a tree file.
class Sections {
 public:
  std::vector<TreeNode> nodes;
  std::vector<TreeChunk> chunks;
  std::vector<TreeDirent> dirents;
  std::vector<TreeXattr> xattrs;
  std::string heap;

  uint32_t AddText(std::string_view text) {
    const size_t offset = heap.size();
    heap.append(text);
    return static_cast<uint32_t>(offset);
  }
};

template <typename T>
void AppendSection(std::vector<std::byte>& out, const std::vector<T>& items) {
  const auto bytes = std::as_bytes(std::span(items));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace

Result<std::vector<std::byte>> TreeBuilder::Impl::Finish(const Digest& manifest) {
  Sections s;
  uint64_t content = 0;
  // Nodes are numbered in the order of a breadth-first walk, each directory's children by name: the
  // files of one directory are neighbours, and their order is that of readdir.
  std::vector<uint32_t> order{0};
  std::unordered_map<uint32_t, uint32_t> shared;  // nodes with several names → number
  std::vector<std::pair<std::string_view, uint32_t>> children;

  for (size_t i = 0; i < order.size(); ++i) {
    const BuildNode& node = nodes_[order[i]];
    const NodeAttributes& a = node.attributes;
    TreeNode out{};
    out.type = static_cast<uint8_t>(a.type);
    out.mode = static_cast<uint16_t>(a.mode & 07777);
    out.uid = a.uid;
    out.gid = a.gid;
    out.link_count = node.names;
    out.mtime_sec = a.mtime_sec;
    out.mtime_nsec = a.mtime_nsec;
    out.size = a.size;
    out.device_major = a.device_major;
    out.device_minor = a.device_minor;
    out.first_xattr = static_cast<uint32_t>(s.xattrs.size());
    if (node.xattrs != nullptr) {
      for (const auto& [name, value] : *node.xattrs) {
        s.xattrs.push_back(TreeXattr{.name_offset = s.AddText(name),
                                     .value_offset = s.AddText(value),
                                     .value_length = static_cast<uint32_t>(value.size()),
                                     .name_length = static_cast<uint16_t>(name.size()),
                                     .reserved = 0});
      }
      out.xattr_count = static_cast<uint32_t>(node.xattrs->size());
    }
    switch (a.type) {
      case NodeType::kDirectory: {
        children.clear();
        for (uint32_t d = node.first_dirent; d != kNone; d = dirents_[d].next) {
          if (dirents_[d].node != kNone) children.emplace_back(dirents_[d].name, dirents_[d].node);
        }
        std::sort(children.begin(), children.end());
        out.first = static_cast<uint32_t>(s.dirents.size());
        out.count = static_cast<uint32_t>(children.size());
        out.link_count = 2;
        for (const auto& [name, child] : children) {
          auto number = static_cast<uint32_t>(order.size());
          if (nodes_[child].names > 1) {
            const auto [at, first] = shared.emplace(child, number);
            number = at->second;
            if (first) order.push_back(child);
          } else {
            order.push_back(child);
          }
          if (IsDirectory(child)) {
            ++out.link_count;
            nodes_[child].parent = static_cast<uint32_t>(i);
          }
          s.dirents.push_back(TreeDirent{.name_offset = s.AddText(name),
                                         .node = number,
                                         .name_length = static_cast<uint16_t>(name.size()),
                                         .reserved = 0});
        }
        out.parent = i == 0 ? 0 : node.parent;
        break;
      }
      case NodeType::kRegular:
        content += a.size;
        out.first = static_cast<uint32_t>(s.chunks.size());
        out.count = static_cast<uint32_t>(node.chunks.size());
        for (const ChunkRef& c : node.chunks) {
          s.chunks.push_back(TreeChunk{.digest = c.digest.bytes,
                                       .file_offset = c.file_offset,
                                       .length = c.length,
                                       .stream_offset = c.stream_offset,
                                       .blob_offset = c.blob_offset,
                                       .blob_length = c.blob_length,
                                       .layer = c.layer,
                                       .flags = c.is_hole ? kTreeChunkHole : 0});
        }
        break;
      case NodeType::kSymlink:
        out.first = s.AddText(node.link_target);
        out.count = static_cast<uint32_t>(node.link_target.size());
        break;
      case NodeType::kCharDevice:
      case NodeType::kBlockDevice:
      case NodeType::kFifo:
        break;
    }
    s.nodes.push_back(out);
    if (s.heap.size() > UINT32_MAX || s.chunks.size() > UINT32_MAX ||
        s.xattrs.size() > UINT32_MAX || content > static_cast<uint64_t>(INT64_MAX)) {
      return Fail(ErrorCode::kTooLarge, "package has more names and xattrs than a tree can hold");
    }
  }

  TreeHeader header{};
  header.magic = kTreeMagic;
  header.version = kTreeVersion;
  header.header_bytes = sizeof header;
  header.node_count = static_cast<uint32_t>(s.nodes.size());
  header.dirent_count = static_cast<uint32_t>(s.dirents.size());
  header.chunk_count = static_cast<uint32_t>(s.chunks.size());
  header.xattr_count = static_cast<uint32_t>(s.xattrs.size());
  header.heap_bytes = s.heap.size();
  header.content_bytes = content;
  header.manifest_algorithm = static_cast<uint8_t>(manifest.algorithm());
  std::copy(manifest.bytes().begin(), manifest.bytes().end(), header.manifest_digest.begin());
  header.file_bytes = sizeof header + std::as_bytes(std::span(s.nodes)).size() +
                      std::as_bytes(std::span(s.chunks)).size() +
                      std::as_bytes(std::span(s.dirents)).size() +
                      std::as_bytes(std::span(s.xattrs)).size() + s.heap.size();
  std::vector<std::byte> file(sizeof header);
  file.reserve(header.file_bytes);
  AppendSection(file, s.nodes);
  AppendSection(file, s.chunks);
  AppendSection(file, s.dirents);
  AppendSection(file, s.xattrs);
  const auto heap = AsBytes(s.heap);
  file.insert(file.end(), heap.begin(), heap.end());
  header.body_crc = Crc32c(std::span(file).subspan(sizeof header));
  header.header_crc =
      Crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(TreeHeader, header_crc)));
  std::memcpy(file.data(), &header, sizeof header);
  return file;
}

TreeBuilder::TreeBuilder(const Limits& limits) : impl_(std::make_unique<Impl>(limits)) {}
TreeBuilder::~TreeBuilder() = default;

Result<void> TreeBuilder::Apply(const Layer& layer, bool whiteouts) {
  return impl_->Apply(layer, whiteouts);
}

Result<std::vector<std::byte>> TreeBuilder::Finish(const Digest& manifest) {
  return impl_->Finish(manifest);
}

}  // namespace ocifs::store
