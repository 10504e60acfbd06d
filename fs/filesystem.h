// The filesystem: operations on inode numbers and names, in our own types. It knows nothing of
// libfuse and is tested without a mount. SEMANTICS.md says what a user sees.
#ifndef OCIFS_FS_FILESYSTEM_H_
#define OCIFS_FS_FILESYSTEM_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/attributes.h"
#include "fs/failures.h"
#include "fs/inode.h"
#include "fs/listing.h"
#include "fs/notifier.h"
#include "fs/resolver.h"
#include "fs/slots.h"
#include "fs/xattrs.h"
#include "store/pull_through.h"

namespace ocifs::fs {

// Thread-safe. Every operation takes a RequestContext: with Wait::kNever it returns kWouldBlock
// where it would have to wait for a network or a fetch, and the caller may call it again, from a
// thread that can wait. Nothing below a package's root ever changes, so there the timeouts are
// kForever. Errors are remembered (user.oci.error) and logged once here.
class Filesystem {
 public:
  struct Owner {
    uint32_t uid = 0;
    uint32_t gid = 0;
  };
  struct Options {
    std::vector<store::Registry> registries;  // listed, and there without a question
    // Shown as the owner of everything. An ordinary user's mount sets it: the kernel checks
    // permissions, and he could not read a 0600 file of root in an image otherwise.
    std::optional<Owner> owner;
    bool show_capabilities = false;  // the attribute security.capability of a tree's files

    std::chrono::seconds directory_timeout{10};  // of what lies outside of packages
    std::chrono::seconds negative_timeout{3};    // of names that are not there
    std::chrono::seconds unopened_timeout{1};    // of a package's attributes before it is open
    std::chrono::seconds listing_pause{10};  // after which a listing directory is no longer listed
    std::chrono::seconds longest_tag_timeout{3600};  // of a tag that never expires
    std::chrono::seconds presumption{60};            // of a directory that nobody vouches for
    std::chrono::seconds error_memory{600};          // of a path's last error
    size_t max_errors = 4096;
    size_t max_negative = size_t{1} << 16;
    SlotTable::Options slots;
  };

  // Reads the slots of earlier lives from the store. `pull` outlives the object.
  static store::Result<std::unique_ptr<Filesystem>> Create(store::PullThrough& pull,
                                                           Options options);
  ~Filesystem();

  // Where changes are reported; null: nowhere. Outlives the requests that run while it is set.
  void SetNotifier(KernelNotifier* notifier);

  // A missing name is a reply without attributes, not an error. May use the network.
  store::Result<LookupReply> Lookup(InodeNumber parent, std::string_view name,
                                    const store::RequestContext& context);
  store::Result<AttributeReply> GetAttributes(InodeNumber inode,
                                              const store::RequestContext& context);
  // Gives the entries after `cookie` (0: from the start) until the sink is full.
  store::Result<void> ReadDirectory(InodeNumber inode, uint64_t cookie, DirectorySink& sink,
                                    const store::RequestContext& context);
  store::Result<std::string_view> ReadLink(InodeNumber inode, const store::RequestContext& context);
  // Reads exactly min(out.size(), size - offset) bytes, or fails.
  store::Result<size_t> Read(InodeNumber inode, uint64_t offset, std::span<std::byte> out,
                             const store::RequestContext& context);
  // None: there is no such attribute.
  store::Result<std::optional<std::string>> GetXattr(InodeNumber inode, std::string_view name,
                                                     const store::RequestContext& context);
  store::Result<std::vector<std::string>> ListXattrs(InodeNumber inode,
                                                     const store::RequestContext& context);
  store::Result<FilesystemStats> Stats();
  // The kernel dropped an inode: nothing to do, numbers are durable (fs/inode.h).
  void Forget(InodeNumber /*inode*/, uint64_t /*count*/) {}

  // To be called when somebody else (ocifs-ctl refresh) found that `reference` stands for `digest`:
  // names that show another package are looked up anew.
  void ReferenceChanged(const store::Reference& reference, const store::Digest& digest);

  SlotTable& slots() { return slots_; }

 private:
  template <typename T>
  using Result = store::Result<T>;

  Filesystem(store::PullThrough& pull, Options options,
             const std::vector<store::SlotRecord>& slots);

  Result<Slot*> FindSlot(InodeNumber inode) const;
  // The open package of a slot, pulled if need be.
  Result<const store::Package*> OpenPackage(Slot& slot, const store::RequestContext& context);
  // The same, and checks that the inode is one of it.
  Result<const store::Package*> PackageOf(InodeNumber inode, Slot& slot,
                                          const store::RequestContext& context);

  Result<LookupReply> LookupInPackage(InodeNumber parent, Slot& slot, std::string_view name,
                                      const store::RequestContext& context);
  Result<LookupReply> LookupOutside(Slot& parent, std::string_view name,
                                    const store::RequestContext& context);
  // What the root of a package shows while it is not open.
  enum class AskedBy { kLookup, kGetAttributes };
  Result<AttributeReply> AttributesOfRoot(InodeNumber inode, Slot& slot, AskedBy asked_by,
                                          const store::RequestContext& context);
  bool IsBeingListed(Slot& directory) const;
  Result<AttributeReply> AttributesOf(InodeNumber inode, Slot& slot, AskedBy asked_by,
                                      const store::RequestContext& context);
  Result<void> ReadPackageDirectory(InodeNumber inode, Slot& slot, uint64_t cookie,
                                    DirectorySink& sink, const store::RequestContext& context);
  void ReadOciDirectory(InodeNumber inode, Slot& slot, uint64_t cookie, DirectorySink& sink);
  Result<void> ReadOutsideDirectory(Slot& slot, uint64_t cookie, DirectorySink& sink,
                                    const store::RequestContext& context);
  Result<size_t> ReadOciFile(InodeNumber inode, Slot& slot, uint64_t offset,
                             std::span<std::byte> out, const store::RequestContext& context);

  bool Shown(const store::Package& package, const store::NodeAttributes& node) const;
  Attributes NodeAttributesOf(const Slot& slot, const store::Package& package,
                              store::NodeIndex node) const;
  Attributes OciAttributesOf(const Slot& slot, const store::Package& package,
                             const OciView::Node& node) const;
  Attributes DirectoryAttributesOf(Slot& slot);
  Attributes UnopenedAttributesOf(const Slot& slot) const;
  void SetOwner(store::NodeAttributes& node) const;
  // Passes a result on, remembering the failure of `inode` if it is one.
  template <typename T>
  Result<T> Noted(InodeNumber inode, std::string_view name, Result<T> result);

  store::PullThrough& pull_;
  const Options options_;
  SlotTable slots_;
  Lister lister_;
  Resolver resolver_;
  FailureMemory failures_;
  Xattrs xattrs_;
  std::atomic<KernelNotifier*> notifier_{nullptr};

  store::Mutex stats_mutex_;
  FilesystemStats stats_ OCIFS_GUARDED_BY(stats_mutex_);
  std::chrono::steady_clock::time_point stats_until_ OCIFS_GUARDED_BY(stats_mutex_);
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_FILESYSTEM_H_
