#include "fs/oci_view.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "fs/path_name.h"
#include "store/node.h"

namespace ocifs::fs {
namespace {

constexpr uint32_t kManifest = OciView::kRoot + 1;
constexpr uint32_t kIndex = OciView::kRoot + 2;
constexpr uint32_t kConfig = OciView::kRoot + 3;
constexpr uint32_t kAnnotations = OciView::kRoot + 4;
constexpr uint32_t kBlobs = OciView::kRoot + 5;
constexpr uint32_t kFirstAnnotation = OciView::kRoot + 0x01000000;
constexpr uint32_t kFirstBlob = OciView::kRoot + 0x02000000;

bool IsFileName(std::string_view name) {
  return !name.empty() && name.size() <= store::kMaxNameBytes && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace

std::string AnnotationFileName(std::string_view key) {
  static constexpr char kHexDigits[] = "0123456789ABCDEF";
  const bool dots = key == "." || key == "..";
  std::string name;
  for (size_t i = 0; i < key.size(); ++i) {
    const auto byte = static_cast<unsigned char>(key[i]);
    if (byte < 0x20 || byte == 0x7f || byte == '/' || byte == '%' || (dots && i == 0)) {
      name += '%';
      name += kHexDigits[byte >> 4];
      name += kHexDigits[byte & 15];
    } else {
      name += key[i];
    }
  }
  return IsFileName(name) ? name : std::string();
}

OciView::OciView(const store::Package& package) {
  auto add = [this](uint32_t number, uint32_t parent, std::string name) -> Node& {
    Node node;
    node.number = number;
    node.parent = parent;
    node.name = std::move(name);
    nodes_.push_back(std::move(node));
    return nodes_.back();
  };
  add(kRoot, 0, std::string(kOciViewName)).is_directory = true;
  add(kManifest, kRoot, "manifest.json").bytes = package.manifest_bytes();
  if (!package.index_bytes().empty())
    add(kIndex, kRoot, "index.json").bytes = package.index_bytes();
  add(kConfig, kRoot, "config.json").bytes = package.config_bytes();
  add(kAnnotations, kRoot, "annotations").is_directory = true;
  add(kBlobs, kRoot, "blobs").is_directory = true;

  const store::Manifest& manifest = package.manifest();
  std::unordered_set<std::string> taken;
  annotations_begin_ = nodes_.size();
  for (size_t i = 0; i < manifest.annotations.size(); ++i) {
    const auto& [key, value] = manifest.annotations[i];
    std::string name = AnnotationFileName(key);
    if (name.empty() || !taken.insert(name).second) continue;
    add(kFirstAnnotation + static_cast<uint32_t>(i), kAnnotations, std::move(name)).bytes = value;
  }
  taken.clear();
  blobs_begin_ = nodes_.size();
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    const store::Descriptor& layer = manifest.layers[i];
    const std::string* title = layer.title();
    std::string name = title != nullptr && IsFileName(*title) ? *title : std::string();
    if (name.empty() || taken.contains(name)) name = SpellDigest(layer.digest);
    if (!taken.insert(name).second) continue;  // the same layer twice
    add(kFirstBlob + static_cast<uint32_t>(i), kBlobs, std::move(name)).blob = &layer;
  }
}

const OciView::Node* OciView::Find(uint32_t number) const {
  const auto found =
      std::lower_bound(nodes_.begin(), nodes_.end(), number,
                       [](const Node& node, uint32_t wanted) { return node.number < wanted; });
  return found == nodes_.end() || found->number != number ? nullptr : &*found;
}

const OciView::Node* OciView::Lookup(uint32_t directory, std::string_view name) const {
  for (const Node& node : Children(directory)) {
    if (node.name == name) return &node;
  }
  for (const Node& node : Children(directory)) {
    if (node.blob != nullptr && node.name == SpellDigest(node.blob->digest) &&
        WithoutColons(node.name) == name) {
      return &node;
    }
  }
  return nullptr;
}

std::span<const OciView::Node> OciView::Children(uint32_t directory) const {
  const std::span<const Node> all(nodes_);
  switch (directory) {
    case kRoot:
      return all.subspan(1, annotations_begin_ - 1);
    case kAnnotations:
      return all.subspan(annotations_begin_, blobs_begin_ - annotations_begin_);
    case kBlobs:
      return all.subspan(blobs_begin_);
    default:
      return {};
  }
}

}  // namespace ocifs::fs
