#include "fs/filesystem.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fs/steady_now.h"
#include "store/store.h"

namespace ocifs::fs {
namespace {

using store::ErrorCode;
using store::Fail;
using store::NodeAttributes;
using store::NodeIndex;
using store::NodeType;
using store::Package;
using store::RequestContext;

constexpr uint32_t kDirectoryMode = 0555;
constexpr uint32_t kFileMode = 0444;
constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

std::unexpected<store::Error> NoSuchInode(InodeNumber inode) {
  return Fail(ErrorCode::kNotFound, "there is no inode " + std::to_string(inode.value()));
}

std::unexpected<store::Error> NotOfThatType(InodeNumber inode, std::string_view type) {
  return Fail(ErrorCode::kInvalid,
              "inode " + std::to_string(inode.value()) + " is not a " + std::string(type));
}

InodeNumber InodeOf(const Slot& slot, uint32_t node) {
  return InodeNumber::Of(slot.number(), node);
}

}  // namespace

store::Result<std::unique_ptr<Filesystem>> Filesystem::Create(store::PullThrough& pull,
                                                              Options options) {
  OCIFS_ASSIGN_OR_RETURN(const std::vector<store::SlotRecord> slots, pull.store().LoadSlots());
  return std::unique_ptr<Filesystem>(new Filesystem(pull, std::move(options), slots));
}

Filesystem::Filesystem(store::PullThrough& pull, Options options,
                       const std::vector<store::SlotRecord>& slots)
    : pull_(pull),
      options_(std::move(options)),
      slots_(
          slots,
          [&pull](std::span<const store::SlotRecord> records) {
            return pull.store().SaveSlots(records);
          },
          options_.slots),
      lister_(pull, slots_,
              Lister::Options{.registries = options_.registries,
                              .local_ttl = options_.directory_timeout}),
      resolver_(pull, slots_, lister_,
                Resolver::Options{.registries = options_.registries,
                                  .directory_timeout = options_.directory_timeout,
                                  .longest_tag_timeout = options_.longest_tag_timeout,
                                  .presumption = options_.presumption,
                                  .max_negative = options_.max_negative}),
      failures_(options_.error_memory, options_.max_errors),
      xattrs_(pull, resolver_, failures_,
              Xattrs::Options{.show_capabilities = options_.show_capabilities}) {}

Filesystem::~Filesystem() = default;

void Filesystem::SetNotifier(KernelNotifier* notifier) {
  notifier_.store(notifier);
  lister_.SetNotifier(notifier);
  resolver_.SetNotifier(notifier);
}

void Filesystem::ReferenceChanged(const store::Reference& reference, const store::Digest& digest) {
  resolver_.TagMoved(reference, digest);
}

template <typename T>
store::Result<T> Filesystem::Noted(InodeNumber inode, std::string_view name, Result<T> result) {
  if (result || result.error().code == ErrorCode::kWouldBlock) return result;
  const Slot* slot = slots_.Find(inode.slot());
  std::string what = "/";
  if (slot != nullptr) what += slot->path();
  if (!name.empty()) what += (what.ends_with('/') ? "" : "/") + std::string(name);
  failures_.Remember(inode, what, result.error());
  return result;
}

store::Result<Slot*> Filesystem::FindSlot(InodeNumber inode) const {
  Slot* slot = inode.valid() ? slots_.Find(inode.slot()) : nullptr;
  if (slot == nullptr) return NoSuchInode(inode);
  if (slot->kind() != SlotKind::kPackage && inode.node() != 0) return NoSuchInode(inode);
  return slot;
}

store::Result<const Package*> Filesystem::OpenPackage(Slot& slot, const RequestContext& context) {
  if (const Package* package = slot.package(); package != nullptr) return package;
  OCIFS_ASSIGN_OR_RETURN(const store::Digest* digest, resolver_.Bind(slot, context));
  OCIFS_ASSIGN_OR_RETURN(std::shared_ptr<const Package> package,
                         pull_.Open(slot.reference()->repository(), *digest, context));
  const Package& opened = slot.SetPackage(std::move(package));
  // The kernel may have been shown the attributes of a package that nobody had looked into.
  if (KernelNotifier* notifier = notifier_.load()) notifier->InvalidateInode(slot.inode());
  return &opened;
}

store::Result<const Package*> Filesystem::PackageOf(InodeNumber inode, Slot& slot,
                                                    const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const Package* package, OpenPackage(slot, context));
  const bool exists = inode.in_oci_view() ? slot.oci_view()->Find(inode.node()) != nullptr
                                          : inode.node() < package->tree().node_count();
  if (!exists) return NoSuchInode(inode);
  return package;
}

// --- Attributes ---

void Filesystem::SetOwner(NodeAttributes& node) const {
  if (!options_.owner) return;
  node.uid = options_.owner->uid;
  node.gid = options_.owner->gid;
}

// Device nodes and pipes of an image are part of it, and the mount makes them inert (nodev); in an
// artifact they have no business. A character device 0:0 is overlayfs's whiteout: never.
bool Filesystem::Shown(const Package& package, const NodeAttributes& node) const {
  switch (node.type) {
    case NodeType::kRegular:
    case NodeType::kDirectory:
    case NodeType::kSymlink:
      return true;
    case NodeType::kCharDevice:
      if (node.device_major == 0 && node.device_minor == 0) return false;
      break;
    case NodeType::kBlockDevice:
    case NodeType::kFifo:
      break;
  }
  return package.manifest().is_image();
}

Attributes Filesystem::NodeAttributesOf(const Slot& slot, const Package& package,
                                        NodeIndex node) const {
  Attributes attributes;
  attributes.inode = InodeOf(slot, node);
  attributes.node = package.tree().Attributes(node);
  attributes.link_count = package.tree().LinkCount(node);
  SetOwner(attributes.node);
  return attributes;
}

Attributes Filesystem::OciAttributesOf(const Slot& slot, const Package& package,
                                       const OciView::Node& node) const {
  const NodeAttributes root = package.tree().Attributes(0);
  Attributes attributes;
  attributes.inode = InodeOf(slot, node.number);
  attributes.node.type = node.is_directory ? NodeType::kDirectory : NodeType::kRegular;
  attributes.node.mode = node.is_directory ? kDirectoryMode : kFileMode;
  attributes.node.mtime_sec = root.mtime_sec;
  attributes.node.mtime_nsec = root.mtime_nsec;
  attributes.node.size = node.is_directory ? 0 : node.size();
  SetOwner(attributes.node);
  return attributes;
}

// One link: "not counted", as btrfs says it; what lies below is not known without asking.
Attributes Filesystem::DirectoryAttributesOf(Slot& slot) {
  const int64_t changed = lister_.ChangeTime(slot);
  Attributes attributes;
  attributes.inode = slot.inode();
  attributes.node.type = NodeType::kDirectory;
  attributes.node.mode = kDirectoryMode;
  attributes.node.mtime_sec = changed / static_cast<int64_t>(kNanosecondsPerSecond);
  attributes.node.mtime_nsec = static_cast<uint32_t>(changed % kNanosecondsPerSecond);
  SetOwner(attributes.node);
  return attributes;
}

Attributes Filesystem::UnopenedAttributesOf(const Slot& slot) const {
  Attributes attributes;
  attributes.inode = slot.inode();
  attributes.node.type = NodeType::kDirectory;
  attributes.node.mode = kDirectoryMode;
  attributes.node.mtime_sec = slot.fetched_at.load(std::memory_order_relaxed);
  SetOwner(attributes.node);
  return attributes;
}

// Somebody who lists a directory looks at each name in it, and a listing must not pull every tag;
// so for a while after a listing was read, and as long as names are looked at without a pause,
// roots of packages show no more than is known.
bool Filesystem::IsBeingListed(Slot& directory) const {
  const int64_t now = SteadyNow();
  if (now >= directory.being_listed_until.load(std::memory_order_relaxed)) return false;
  directory.being_listed_until.store(now + Nanoseconds(options_.listing_pause),
                                     std::memory_order_relaxed);
  return true;
}

// Whoever names a package and asks what it is (stat, tar, cp) is told the truth, which is in its
// tree; the pull that this takes is the one that the next look inside would start. A lookup alone
// does not say what it is for.
store::Result<AttributeReply> Filesystem::AttributesOfRoot(InodeNumber inode, Slot& slot,
                                                           AskedBy asked_by,
                                                           const RequestContext& context) {
  RequestContext at_once = context;
  at_once.wait = RequestContext::Wait::kNever;
  if (slot.package() == nullptr && (slot.digest() == nullptr || !OpenPackage(slot, at_once))) {
    const AttributeReply unopened{UnopenedAttributesOf(slot), options_.unopened_timeout};
    if (IsBeingListed(*slot.parent())) return unopened;
    if (asked_by == AskedBy::kLookup) {
      return AttributeReply{unopened.attributes, std::chrono::seconds(0)};
    }
    if (SteadyNow() < slot.unopenable_until.load(std::memory_order_relaxed)) return unopened;
    Result<const Package*> opened = Noted(inode, {}, OpenPackage(slot, context));
    if (!opened) {
      const ErrorCode code = opened.error().code;
      if (code == ErrorCode::kWouldBlock || code == ErrorCode::kCancelled) {
        return Fail(std::move(opened).error());
      }
      // The directory is there, and its user.oci.error has to be readable; a look inside fails.
      slot.unopenable_until.store(SteadyNow() + Nanoseconds(options_.listing_pause),
                                  std::memory_order_relaxed);
      return unopened;
    }
  }
  return AttributeReply{NodeAttributesOf(slot, *slot.package(), 0), kForever};
}

store::Result<AttributeReply> Filesystem::AttributesOf(InodeNumber inode, Slot& slot,
                                                       AskedBy asked_by,
                                                       const RequestContext& context) {
  if (slot.kind() != SlotKind::kPackage) {
    return AttributeReply{DirectoryAttributesOf(slot), options_.directory_timeout};
  }
  if (inode.node() == 0) return AttributesOfRoot(inode, slot, asked_by, context);
  OCIFS_ASSIGN_OR_RETURN(const Package* package, PackageOf(inode, slot, context));
  if (inode.in_oci_view()) {
    return AttributeReply{OciAttributesOf(slot, *package, *slot.oci_view()->Find(inode.node())),
                          kForever};
  }
  return AttributeReply{NodeAttributesOf(slot, *package, inode.node()), kForever};
}

store::Result<AttributeReply> Filesystem::GetAttributes(InodeNumber inode,
                                                        const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(inode));
  return Noted(inode, {}, AttributesOf(inode, *slot, AskedBy::kGetAttributes, context));
}

// --- Names ---

store::Result<LookupReply> Filesystem::Lookup(InodeNumber parent, std::string_view name,
                                              const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(parent));
  if (slot->kind() == SlotKind::kPackage) {
    return Noted(parent, name, LookupInPackage(parent, *slot, name, context));
  }
  return Noted(parent, name, LookupOutside(*slot, name, context));
}

store::Result<LookupReply> Filesystem::LookupOutside(Slot& parent, std::string_view name,
                                                     const RequestContext& context) {
  auto found = resolver_.Find(parent, name, context);
  if (!found) {
    if (found.error().code != ErrorCode::kNotFound) return Fail(std::move(found).error());
    return LookupReply{.attributes = {}, .entry_timeout = options_.negative_timeout};
  }
  OCIFS_ASSIGN_OR_RETURN(
      const AttributeReply reply,
      AttributesOf(found->slot->inode(), *found->slot, AskedBy::kLookup, context));
  return LookupReply{.attributes = reply.attributes,
                     .entry_timeout = found->timeout,
                     .attribute_timeout = reply.timeout};
}

store::Result<LookupReply> Filesystem::LookupInPackage(InodeNumber parent, Slot& slot,
                                                       std::string_view name,
                                                       const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const Package* package, PackageOf(parent, slot, context));
  LookupReply reply{.attributes = {}, .entry_timeout = kForever, .attribute_timeout = kForever};
  if (parent.in_oci_view()) {
    if (const OciView::Node* node = slot.oci_view()->Lookup(parent.node(), name)) {
      reply.attributes = OciAttributesOf(slot, *package, *node);
    }
    return reply;
  }
  const store::Tree& tree = package->tree();
  if (tree.Attributes(parent.node()).type != NodeType::kDirectory) {
    return NotOfThatType(parent, "directory");
  }
  if (const std::optional<NodeIndex> node = tree.Lookup(parent.node(), name)) {
    const Attributes attributes = NodeAttributesOf(slot, *package, *node);
    if (Shown(*package, attributes.node)) reply.attributes = attributes;
  } else if (parent.node() == 0 && name == kOciViewName) {
    reply.attributes = OciAttributesOf(slot, *package, *slot.oci_view()->Find(OciView::kRoot));
  }
  return reply;
}

// --- Listings ---

store::Result<void> Filesystem::ReadDirectory(InodeNumber inode, uint64_t cookie,
                                              DirectorySink& sink, const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(inode));
  if (slot->kind() == SlotKind::kPackage) {
    return Noted(inode, {}, ReadPackageDirectory(inode, *slot, cookie, sink, context));
  }
  return Noted(inode, {}, ReadOutsideDirectory(*slot, cookie, sink, context));
}

// Adds "." and "..", with the cookies 1 and 2; false when the sink is full.
namespace {
bool AddDots(uint64_t cookie, InodeNumber self, InodeNumber parent, DirectorySink& sink) {
  if (cookie < 1 && !sink.Add(DirectoryEntry{.name = ".",
                                             .cookie = 1,
                                             .inode = self.value(),
                                             .type = NodeType::kDirectory,
                                             .lookup = {}})) {
    return false;
  }
  return cookie >= 2 || sink.Add(DirectoryEntry{.name = "..",
                                                .cookie = 2,
                                                .inode = parent.value(),
                                                .type = NodeType::kDirectory,
                                                .lookup = {}});
}
}  // namespace

store::Result<void> Filesystem::ReadPackageDirectory(InodeNumber inode, Slot& slot, uint64_t cookie,
                                                     DirectorySink& sink,
                                                     const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const Package* package, PackageOf(inode, slot, context));
  if (inode.in_oci_view()) {
    if (!slot.oci_view()->Find(inode.node())->is_directory)
      return NotOfThatType(inode, "directory");
    ReadOciDirectory(inode, slot, cookie, sink);
    return {};
  }
  const store::Tree& tree = package->tree();
  if (tree.Attributes(inode.node()).type != NodeType::kDirectory) {
    return NotOfThatType(inode, "directory");
  }
  const InodeNumber parent =
      inode.node() == 0 ? slot.parent()->inode() : InodeOf(slot, tree.Parent(inode.node()));
  if (!AddDots(cookie, inode, parent, sink)) return {};
  // Trees never change: the cookie is the position, after the two dots.
  const uint64_t count = tree.ChildCount(inode.node());
  for (uint64_t i = cookie < 2 ? 0 : cookie - 2; i < count; ++i) {
    const store::Tree::Child child = tree.ChildAt(inode.node(), static_cast<uint32_t>(i));
    const Attributes attributes = NodeAttributesOf(slot, *package, child.node);
    if (!Shown(*package, attributes.node)) continue;
    DirectoryEntry entry{.name = child.name,
                         .cookie = i + 3,
                         .inode = attributes.inode.value(),
                         .type = attributes.node.type,
                         .lookup = {}};
    if (sink.wants_attributes()) entry.lookup = LookupReply{attributes, kForever, kForever};
    if (!sink.Add(entry)) return {};
  }
  return {};
}

void Filesystem::ReadOciDirectory(InodeNumber inode, Slot& slot, uint64_t cookie,
                                  DirectorySink& sink) {
  const OciView& view = *slot.oci_view();
  const uint32_t parent = view.Find(inode.node())->parent;
  if (!AddDots(cookie, inode, InodeOf(slot, parent), sink)) return;
  const std::span<const OciView::Node> children = view.Children(inode.node());
  for (uint64_t i = cookie < 2 ? 0 : cookie - 2; i < children.size(); ++i) {
    const OciView::Node& node = children[i];
    DirectoryEntry entry{.name = node.name,
                         .cookie = i + 3,
                         .inode = InodeOf(slot, node.number).value(),
                         .type = node.is_directory ? NodeType::kDirectory : NodeType::kRegular,
                         .lookup = {}};
    if (sink.wants_attributes()) {
      entry.lookup = LookupReply{OciAttributesOf(slot, *slot.package(), node), kForever, kForever};
    }
    if (!sink.Add(entry)) return;
  }
}

store::Result<void> Filesystem::ReadOutsideDirectory(Slot& slot, uint64_t cookie,
                                                     DirectorySink& sink,
                                                     const RequestContext& context) {
  slot.being_listed_until.store(SteadyNow() + Nanoseconds(options_.listing_pause),
                                std::memory_order_relaxed);
  auto listing = lister_.List(slot, cookie, context);
  if (!listing) {
    if (listing.error().code == ErrorCode::kNotFound && slot.kind() == SlotKind::kRepository) {
      // That there is no such repository says nothing about longer names that begin with this one.
      // Shells list a directory to complete such a name: it is empty, and stays there.
      if (slot.standing() == Standing::kPresumed) {
        const InodeNumber parent = slot.parent()->inode();
        AddDots(cookie, slot.inode(), parent, sink);
        return {};
      }
      resolver_.Disprove(slot);
    }
    return Fail(std::move(listing).error());
  }
  const InodeNumber parent = slot.parent() == nullptr ? slot.inode() : slot.parent()->inode();
  if (!AddDots(cookie, slot.inode(), parent, sink)) return {};
  const std::vector<Listing::Item>& items = (*listing)->items();
  for (size_t i = (*listing)->After(cookie); i < items.size(); ++i) {
    DirectoryEntry entry{.name = items[i].name,
                         .cookie = items[i].cookie,
                         .inode = kUnknownInode,
                         .type = NodeType::kDirectory,
                         .lookup = {}};
    // Whether a tag still stands for what it did is a question for a lookup, so tags carry no
    // attributes; neither do names that nobody looked at.
    if (Slot* package = slots_.FindPackage(slot, items[i].name)) {
      entry.inode = package->inode().value();
    } else if (Slot* directory = slots_.FindDirectory(slot, items[i].name);
               directory != nullptr && directory->standing() >= Standing::kProven) {
      entry.inode = directory->inode().value();
      if (sink.wants_attributes()) {
        entry.lookup = LookupReply{DirectoryAttributesOf(*directory), options_.directory_timeout,
                                   options_.directory_timeout};
      }
    }
    if (!sink.Add(entry)) return {};
  }
  return {};
}

// --- Content ---

store::Result<std::string_view> Filesystem::ReadLink(InodeNumber inode,
                                                     const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(inode));
  if (slot->kind() != SlotKind::kPackage || inode.in_oci_view()) {
    return NotOfThatType(inode, "symbolic link");
  }
  auto package = Noted(inode, {}, PackageOf(inode, *slot, context));
  if (!package) return Fail(std::move(package).error());
  const store::Tree& tree = (*package)->tree();
  if (tree.Attributes(inode.node()).type != NodeType::kSymlink) {
    return NotOfThatType(inode, "symbolic link");
  }
  return tree.LinkTarget(inode.node());
}

store::Result<size_t> Filesystem::Read(InodeNumber inode, uint64_t offset, std::span<std::byte> out,
                                       const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(inode));
  if (slot->kind() != SlotKind::kPackage) return NotOfThatType(inode, "file");
  auto package = Noted(inode, {}, PackageOf(inode, *slot, context));
  if (!package) return Fail(std::move(package).error());
  if (inode.in_oci_view()) {
    return Noted(inode, {}, ReadOciFile(inode, *slot, offset, out, context));
  }
  const NodeAttributes node = (*package)->tree().Attributes(inode.node());
  if (node.type != NodeType::kRegular) return NotOfThatType(inode, "file");
  if (offset >= node.size || out.empty()) return size_t{0};
  const uint64_t expected = std::min<uint64_t>(out.size(), node.size - offset);
  auto count = pull_.Read(**package, inode.node(), offset, out.first(expected), context);
  if (count && *count != expected) {
    // The kernel takes a short answer for the end of the file: silent loss of data.
    count = Fail(ErrorCode::kInternal,
                 "a read of " + std::to_string(expected) + " bytes gave " + std::to_string(*count));
  }
  return Noted(inode, {}, std::move(count));
}

store::Result<size_t> Filesystem::ReadOciFile(InodeNumber inode, Slot& slot, uint64_t offset,
                                              std::span<std::byte> out,
                                              const RequestContext& context) {
  const OciView::Node& node = *slot.oci_view()->Find(inode.node());
  if (node.is_directory) return NotOfThatType(inode, "file");
  if (offset >= node.size() || out.empty()) return size_t{0};
  const uint64_t expected = std::min<uint64_t>(out.size(), node.size() - offset);
  if (node.blob == nullptr) {
    std::memcpy(out.data(), node.bytes.data() + offset, expected);
    return static_cast<size_t>(expected);
  }
  OCIFS_ASSIGN_OR_RETURN(const size_t count, pull_.ReadBlob(*slot.package(), *node.blob, offset,
                                                            out.first(expected), context));
  if (count != expected) {
    return Fail(ErrorCode::kInternal, "a read of " + std::to_string(expected) +
                                          " bytes of a blob gave " + std::to_string(count));
  }
  return count;
}

store::Result<std::optional<std::string>> Filesystem::GetXattr(InodeNumber inode,
                                                               std::string_view name,
                                                               const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(inode));
  if (inode.node() != 0) {
    auto package = PackageOf(inode, *slot, context);
    if (!package) return Fail(std::move(package).error());
  }
  return xattrs_.Get(inode, *slot, name, context);
}

store::Result<std::vector<std::string>> Filesystem::ListXattrs(InodeNumber inode,
                                                               const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(Slot * slot, FindSlot(inode));
  if (inode.node() != 0) {
    auto package = PackageOf(inode, *slot, context);
    if (!package) return Fail(std::move(package).error());
  }
  return xattrs_.List(inode, *slot);
}

store::Result<FilesystemStats> Filesystem::Stats() {
  const auto now = std::chrono::steady_clock::now();
  {
    store::MutexLock lock(stats_mutex_);
    if (now < stats_until_) return stats_;
  }
  OCIFS_ASSIGN_OR_RETURN(const store::StoreUsage usage, pull_.store().Usage());
  FilesystemStats stats;
  stats.free_blocks = usage.filesystem_free / stats.block_size;
  const uint64_t kept = usage.pack_bytes;
  stats.blocks = stats.free_blocks + (kept + stats.block_size - 1) / stats.block_size;
  store::MutexLock lock(stats_mutex_);
  stats_ = stats;
  stats_until_ = now + std::chrono::seconds(1);
  return stats;
}

}  // namespace ocifs::fs
