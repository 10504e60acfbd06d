// Extended attributes: what a package's tree carries and may be shown, and `user.oci.*`, which say
// where a package came from.
#ifndef OCIFS_FS_XATTRS_H_
#define OCIFS_FS_XATTRS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/failures.h"
#include "fs/resolver.h"
#include "fs/slots.h"
#include "store/pull_through.h"

namespace ocifs::fs {

// Ours; an attribute of an artifact whose name begins so is not shown.
inline constexpr std::string_view kOciXattrPrefix = "user.oci.";
inline constexpr std::string_view kErrorXattr = "user.oci.error";

// Thread-safe.
class Xattrs {
 public:
  struct Options {
    bool show_capabilities = false;  // security.capability
  };

  // All outlive the object.
  Xattrs(store::PullThrough& pull, Resolver& resolver, const FailureMemory& failures,
         Options options)
      : pull_(pull), resolver_(resolver), failures_(failures), options_(options) {}

  // The value; none: there is no such attribute. `slot` is where `inode` lies, with the package
  // open if the inode is inside of one. Asks the network only for a tag that was listed and never
  // looked into; never pulls a package.
  store::Result<std::optional<std::string>> Get(InodeNumber inode, Slot& slot,
                                                std::string_view name,
                                                const store::RequestContext& context);
  // Every name for which Get has a value. No request.
  std::vector<std::string> List(InodeNumber inode, const Slot& slot);

 private:
  bool Shown(std::string_view name) const;
  store::Result<std::optional<std::string>> GetOfPackage(Slot& package, std::string_view key,
                                                         const store::RequestContext& context);

  store::PullThrough& pull_;
  Resolver& resolver_;
  const FailureMemory& failures_;
  const Options options_;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_XATTRS_H_
