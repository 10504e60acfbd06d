#include "fs/xattrs.h"

#include <array>
#include <ctime>
#include <utility>

namespace ocifs::fs {
namespace {

using store::Digest;
using store::RequestContext;
using store::Resolution;

constexpr std::array<std::string_view, 8> kPackageKeys = {
    "reference", "digest", "media_type", "fetched_at", "expires_at", "cached", "source", "stale"};

// RFC 3339, UTC.
std::string FormatTime(int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm fields{};
  char text[32];
  if (gmtime_r(&time, &fields) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &fields) == 0) {
    return "unknown";
  }
  return text;
}

bool IsPackageRoot(InodeNumber inode, const Slot& slot) {
  return slot.kind() == SlotKind::kPackage && inode.node() == 0;
}

}  // namespace

bool Xattrs::Shown(std::string_view name) const {
  if (name == "security.capability") return options_.show_capabilities;
  return name.starts_with("user.") && !name.starts_with("user.overlay.") &&
         !name.starts_with(kOciXattrPrefix);
}

store::Result<std::optional<std::string>> Xattrs::Get(InodeNumber inode, Slot& slot,
                                                      std::string_view name,
                                                      const RequestContext& context) {
  if (name == kErrorXattr) return failures_.Last(inode);
  if (name.starts_with(kOciXattrPrefix)) {
    if (!IsPackageRoot(inode, slot)) return std::optional<std::string>();
    return GetOfPackage(slot, name.substr(kOciXattrPrefix.size()), context);
  }
  const store::Package* package = slot.package();
  if (!Shown(name) || package == nullptr || inode.in_oci_view()) {
    return std::optional<std::string>();
  }
  const store::Tree& tree = package->tree();
  const uint32_t count = tree.XattrCount(inode.node());
  for (uint32_t i = 0; i < count; ++i) {
    const store::Tree::Xattr xattr = tree.XattrAt(inode.node(), i);
    if (xattr.name == name) return std::optional<std::string>(std::string(xattr.value));
  }
  return std::optional<std::string>();
}

std::vector<std::string> Xattrs::List(InodeNumber inode, const Slot& slot) {
  std::vector<std::string> names;
  if (IsPackageRoot(inode, slot)) {
    for (const std::string_view key : kPackageKeys) {
      names.push_back(std::string(kOciXattrPrefix) + std::string(key));
    }
  }
  if (failures_.Last(inode)) names.emplace_back(kErrorXattr);
  const store::Package* package = slot.package();
  if (package == nullptr || inode.in_oci_view()) return names;
  const store::Tree& tree = package->tree();
  const uint32_t count = tree.XattrCount(inode.node());
  for (uint32_t i = 0; i < count; ++i) {
    const store::Tree::Xattr xattr = tree.XattrAt(inode.node(), i);
    if (Shown(xattr.name)) names.emplace_back(xattr.name);
  }
  return names;
}

store::Result<std::optional<std::string>> Xattrs::GetOfPackage(Slot& package, std::string_view key,
                                                               const RequestContext& context) {
  using Value = std::optional<std::string>;
  const store::Reference& reference = *package.reference();
  if (key == "reference") return Value(reference.ToString());
  bool ours = false;
  for (const std::string_view candidate : kPackageKeys) ours = ours || candidate == key;
  if (!ours) return Value();

  OCIFS_ASSIGN_OR_RETURN(const Digest* digest, resolver_.Bind(package, context));
  if (key == "digest") return Value(digest->ToString());
  if (key == "source") return Value(package.from_registry.load() ? "registry" : "cache");
  if (key == "cached") {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<store::CacheState> cached, pull_.Cached(*digest));
    if (!cached) {
      // Open but not in the index yet: all of it is here, and about to be made durable.
      const store::Package* open = package.package();
      const std::string bytes = std::to_string(open == nullptr ? 0 : open->tree().content_bytes());
      return Value(bytes + "/" + bytes);
    }
    return Value(std::to_string(cached->bytes_present) + "/" + std::to_string(cached->bytes_total));
  }
  OCIFS_ASSIGN_OR_RETURN(const std::optional<Resolution> known, pull_.KnownResolution(reference));
  const bool moved = known && known->digest != *digest;
  if (key == "stale") return Value(moved || package.stale.load() ? "1" : "0");
  if (key == "media_type") return Value(known && !moved ? known->media_type : "");
  if (key == "fetched_at") {
    const int64_t fetched =
        known && !moved && known->fetched_at != 0 ? known->fetched_at : package.fetched_at.load();
    return Value(FormatTime(fetched));
  }
  // expires_at
  if (!known || !known->expires_at) return Value("never");
  return Value(FormatTime(*known->expires_at));
}

}  // namespace ocifs::fs
