// What a stack of layers means, written down plainly: directories are maps, names are strings,
// every rule is a few lines. The store's TreeBuilder is compared with it.
//
// Rules: OCI image-spec 1.1, layer.md, and store/tree_builder.h where that is silent.
#ifndef OCIFS_TESTS_HARNESS_LAYER_MODEL_H_
#define OCIFS_TESTS_HARNESS_LAYER_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/layer.h"
#include "store/node.h"
#include "store/tree.h"

namespace ocifs::harness {

// One archive entry.
struct ModelEntry {
  std::string path;
  store::NodeAttributes attributes;
  bool is_hard_link = false;
  std::string link_target;
  store::Xattrs xattrs;
  std::vector<store::ChunkRef> chunks;
};
using ModelLayer = std::vector<ModelEntry>;

class LayerModel {
 public:
  LayerModel() : root_(std::make_shared<Node>()) { root_->attributes = MadeDirectory(); }

  // False: the layer has no meaning, and the package is refused.
  bool Apply(const ModelLayer& layer, bool whiteouts) {
    if (whiteouts && !ApplyWhiteouts(layer)) return false;
    for (const ModelEntry& entry : layer) {
      if (whiteouts && NamesAWhiteout(entry.path)) continue;
      if (!ApplyEntry(entry)) return false;
    }
    return true;
  }

  // One line per name, in order, with all that can be seen of it.
  std::string Describe() const {
    std::map<const Node*, int> names;
    CountNames(*root_, names);
    std::map<const Node*, std::string> first_names;
    std::ostringstream out;
    DescribeNode(*root_, "", names, first_names, out);
    return out.str();
  }

  // The same of a tree file.
  static std::string Describe(const store::Tree& tree) {
    std::map<store::NodeIndex, std::string> first_names;
    std::ostringstream out;
    DescribeTree(tree, 0, "", first_names, out);
    return out.str();
  }

 private:
  struct Node {
    store::NodeAttributes attributes;
    std::string target;
    store::Xattrs xattrs;
    std::vector<store::ChunkRef> chunks;
    std::map<std::string, std::shared_ptr<Node>> children;

    bool is_directory() const { return attributes.type == store::NodeType::kDirectory; }
    bool is_symlink() const { return attributes.type == store::NodeType::kSymlink; }
  };
  using NodePtr = std::shared_ptr<Node>;

  static store::NodeAttributes MadeDirectory() {
    store::NodeAttributes attributes;
    attributes.type = store::NodeType::kDirectory;
    attributes.mode = 0755;
    return attributes;
  }

  static std::vector<std::string> Components(std::string_view path) {
    std::vector<std::string> components(1);
    for (const char c : path) {
      if (c == '/') {
        components.emplace_back();
      } else {
        components.back().push_back(c);
      }
    }
    std::erase(components, "");
    std::erase(components, ".");
    return components;
  }

  static bool NamesAWhiteout(std::string_view path) {
    for (const std::string& component : Components(path)) {
      if (component.starts_with(".wh.")) return true;
    }
    return false;
  }

  enum class Outcome { kFound, kNone, kRefused };
  struct Place {
    Outcome outcome = Outcome::kNone;
    NodePtr directory;
  };

  // The directory behind `components`, links followed inside the tree. `replaced`: paths at which
  // a link does not count. `make`: what is missing or no directory becomes one.
  Place Walk(const std::vector<std::string>& components, const std::set<std::string>& replaced,
             bool make) {
    std::vector<NodePtr> stack{root_};
    std::deque<std::string> todo(components.begin(), components.end());
    std::string written;  // the path as it was written, while no link was followed
    bool followed = false;
    int links = 0;
    while (!todo.empty()) {
      const std::string name = todo.front();
      todo.pop_front();
      if (name == "..") {
        if (stack.size() > 1) stack.pop_back();
        continue;
      }
      if (!followed) written += (written.empty() ? "" : "/") + name;
      if (name.size() > store::kMaxNameBytes) return {Outcome::kRefused, nullptr};
      const auto found = stack.back()->children.find(name);
      NodePtr child = found == stack.back()->children.end() ? nullptr : found->second;
      if (child != nullptr && child->is_symlink()) {
        if (!followed && replaced.contains(written)) return {Outcome::kNone, nullptr};
        followed = true;
        if (++links > 40) return {Outcome::kRefused, nullptr};
        const std::vector<std::string> target = Components(child->target);
        todo.insert(todo.begin(), target.begin(), target.end());
        if (child->target.starts_with('/')) stack.resize(1);
        continue;
      }
      if (child == nullptr || !child->is_directory()) {
        if (!make) return {Outcome::kNone, nullptr};
        child = std::make_shared<Node>();
        child->attributes = MadeDirectory();
        stack.back()->children[name] = child;
      }
      stack.push_back(child);
    }
    return {Outcome::kFound, stack.back()};
  }

  // All whiteouts look at the layers below as these were, so their order does not matter.
  bool ApplyWhiteouts(const ModelLayer& layer) {
    std::set<std::string> entries;
    for (const ModelEntry& entry : layer) {
      if (!NamesAWhiteout(entry.path)) entries.insert(entry.path);
    }
    std::vector<std::pair<NodePtr, std::string>> hidden;  // "": all children
    for (const ModelEntry& entry : layer) {
      std::vector<std::string> components = Components(entry.path);
      if (components.empty()) continue;
      const std::string name = components.back();
      components.pop_back();
      bool below_whiteout = false;
      for (const std::string& component : components) {
        below_whiteout = below_whiteout || component.starts_with(".wh.");
      }
      if (!name.starts_with(".wh.") || below_whiteout) continue;
      const bool opaque = name == ".wh..wh..opq";
      if (name.starts_with(".wh..wh.") && !opaque) continue;  // of AUFS
      const std::string rest = name.substr(4);
      if (rest.empty() || rest == "." || rest == "..") return false;
      const Place place = Walk(components, entries, false);
      if (place.outcome == Outcome::kRefused) return false;
      if (place.outcome == Outcome::kFound)
        hidden.emplace_back(place.directory, opaque ? "" : rest);
    }
    for (const auto& [directory, name] : hidden) {
      if (name.empty()) {
        directory->children.clear();
      } else {
        directory->children.erase(name);
      }
    }
    return true;
  }

  static void Assign(Node& node, const ModelEntry& entry) {
    node.attributes = entry.attributes;
    node.xattrs = entry.xattrs;
    node.target.clear();
    node.chunks.clear();
    if (entry.attributes.type == store::NodeType::kSymlink) {
      node.target = entry.link_target;
      node.attributes.size = node.target.size();
    }
    if (entry.attributes.type == store::NodeType::kRegular) node.chunks = entry.chunks;
    if (entry.attributes.type == store::NodeType::kDirectory) node.attributes.size = 0;
  }

  bool ApplyEntry(const ModelEntry& entry) {
    const bool directory =
        !entry.is_hard_link && entry.attributes.type == store::NodeType::kDirectory;
    std::vector<std::string> components = Components(entry.path);
    if (components.empty()) {
      if (!directory) return false;
      Assign(*root_, entry);
      return true;
    }
    const std::string name = components.back();
    components.pop_back();
    const Place parent = Walk(components, {}, true);
    if (parent.outcome != Outcome::kFound) return false;
    NodePtr& slot = parent.directory->children[name];
    if (entry.is_hard_link) {
      if (slot == nullptr) parent.directory->children.erase(name);
      return ApplyHardLink(entry, parent.directory, name);
    }
    if (!directory || slot == nullptr || !slot->is_directory()) slot = std::make_shared<Node>();
    Assign(*slot, entry);
    return true;
  }

  bool ApplyHardLink(const ModelEntry& entry, const NodePtr& parent, const std::string& name) {
    std::vector<std::string> components = Components(entry.link_target);
    if (components.empty()) return false;
    const std::string target_name = components.back();
    components.pop_back();
    const Place place = Walk(components, {}, false);
    if (place.outcome != Outcome::kFound) return false;
    const auto target = place.directory->children.find(target_name);
    if (target == place.directory->children.end() || target->second->is_directory()) return false;
    if (place.directory == parent && target_name == name) return false;
    const NodePtr node = target->second;
    parent->children[name] = node;
    return true;
  }

  static void CountNames(const Node& directory, std::map<const Node*, int>& names) {
    for (const auto& [name, child] : directory.children) {
      ++names[child.get()];
      if (child->is_directory()) CountNames(*child, names);
    }
  }

  static void DescribeCommon(const std::string& path, const store::NodeAttributes& a,
                             std::string_view target, size_t links, std::ostringstream& out) {
    out << path << " type=" << static_cast<int>(a.type) << " mode=" << a.mode << " owner=" << a.uid
        << ":" << a.gid << " mtime=" << a.mtime_sec << "." << a.mtime_nsec << " size=" << a.size
        << " device=" << a.device_major << ":" << a.device_minor << " links=" << links << " -> "
        << target;
  }
  static void DescribeChunk(const store::ChunkRef& c, std::ostringstream& out) {
    out << " chunk=" << c.file_offset << "+" << c.length << (c.is_hole ? "hole" : "") << "@"
        << c.layer << ":" << c.stream_offset << "#" << static_cast<int>(c.digest.bytes[0]);
  }

  static void DescribeNode(const Node& node, const std::string& path,
                           const std::map<const Node*, int>& names,
                           std::map<const Node*, std::string>& first_names,
                           std::ostringstream& out) {
    size_t links = 2;
    if (node.is_directory()) {
      for (const auto& [name, child] : node.children) links += child->is_directory() ? 1 : 0;
    } else {
      links = static_cast<size_t>(names.at(&node));
      const auto [at, first] = first_names.emplace(&node, path);
      if (!first) out << "= " << at->second << " ";
    }
    DescribeCommon(path, node.attributes, node.target, links, out);
    for (const store::ChunkRef& chunk : node.chunks) DescribeChunk(chunk, out);
    for (const auto& [name, value] : node.xattrs) out << " " << name << "=" << value;
    out << '\n';
    for (const auto& [name, child] : node.children) {
      DescribeNode(*child, path + "/" + name, names, first_names, out);
    }
  }

  static void DescribeTree(const store::Tree& tree, store::NodeIndex node, const std::string& path,
                           std::map<store::NodeIndex, std::string>& first_names,
                           std::ostringstream& out) {
    const store::NodeAttributes attributes = tree.Attributes(node);
    const bool directory = attributes.type == store::NodeType::kDirectory;
    if (!directory) {
      const auto [at, first] = first_names.emplace(node, path);
      if (!first) out << "= " << at->second << " ";
    }
    const bool symlink = attributes.type == store::NodeType::kSymlink;
    DescribeCommon(path, attributes, symlink ? tree.LinkTarget(node) : "", tree.LinkCount(node),
                   out);
    if (attributes.type == store::NodeType::kRegular) {
      for (uint32_t i = 0; i < tree.ChunkCount(node); ++i) {
        DescribeChunk(tree.ChunkAt(node, i), out);
      }
    }
    for (uint32_t i = 0; i < tree.XattrCount(node); ++i) {
      const store::Tree::Xattr xattr = tree.XattrAt(node, i);
      out << " " << xattr.name << "=" << xattr.value;
    }
    out << '\n';
    if (!directory) return;
    for (uint32_t i = 0; i < tree.ChildCount(node); ++i) {
      const store::Tree::Child child = tree.ChildAt(node, i);
      DescribeTree(tree, child.node, path + "/" + std::string(child.name), first_names, out);
    }
  }

  NodePtr root_;
};

// The layer as the store's decoder would hand it over.
inline store::Layer ToLayer(const ModelLayer& entries) {
  store::Layer layer;
  for (const ModelEntry& entry : entries) {
    store::TarEntry out;
    out.path = entry.path;
    out.attributes = entry.attributes;
    out.is_hard_link = entry.is_hard_link;
    out.link_target = entry.link_target;
    out.xattrs = entry.xattrs;
    layer.Add(out, entry.chunks);
  }
  return layer;
}

}  // namespace ocifs::harness

#endif  // OCIFS_TESTS_HARNESS_LAYER_MODEL_H_
