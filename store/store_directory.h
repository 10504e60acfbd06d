// The directory of a store, up to the open index: whose it is, what format it has, who has it open
// (FORMAT.md, sections "format" and "lock").
#ifndef OCIFS_STORE_STORE_DIRECTORY_H_
#define OCIFS_STORE_STORE_DIRECTORY_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "store/digest.h"
#include "store/error.h"
#include "store/file.h"
#include "store/index.h"

namespace ocifs::store {

// Bytes of the file `lock`.
inline constexpr off_t kInUseByte = 0;
inline constexpr off_t kDaemonByte = 1;
inline constexpr off_t kCollectorByte = 2;
inline constexpr off_t kPublishByte = 3;
inline constexpr off_t kFirstDigestByte = 64;

// Sets an open-file-description lock on one byte; false when somebody is in the way, unless it
// waits.
enum class LockWait { kNever, kAlways };
Result<bool> SetLock(int fd, short type, off_t byte, LockWait wait = LockWait::kNever);

inline constexpr std::string_view kTreeSuffix = ".tree";
// Whose tree has that name; nullopt for other names.
std::optional<Digest> ManifestOfTree(std::string_view name);

struct StoreDirectory {
  UniqueFd root;
  UniqueFd lock;
  UniqueFd trees;
  UniqueFd packs;
  UniqueFd blobs;
  std::unique_ptr<Index> index;
  // Nobody else has the store open, nor can before Share.
  bool alone = false;
  bool read_only = false;  // the filesystem is

  // From alone to one of many.
  Result<void> Share();
};

// Errors as Store::Open. An index that is damaged is made anew, if the caller is alone.
enum class IndexRebuild { kIfDamaged, kAlways };
Result<StoreDirectory> OpenStoreDirectory(const std::string& root, IndexRebuild rebuild);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_STORE_DIRECTORY_H_
