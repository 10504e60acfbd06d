// What the filesystem answers about a file or directory.
#ifndef OCIFS_FS_ATTRIBUTES_H_
#define OCIFS_FS_ATTRIBUTES_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "fs/inode.h"
#include "store/node.h"

namespace ocifs::fs {

// For what never changes: the kernel asks once and keeps the answer.
inline constexpr std::chrono::seconds kForever{1'000'000'000};

struct Attributes {
  InodeNumber inode = InodeNumber::MountPoint();
  store::NodeAttributes node;
  uint32_t link_count = 1;
};

// `timeout` is how long the kernel may believe it without asking again.
struct AttributeReply {
  Attributes attributes;
  std::chrono::seconds timeout{0};
};

struct LookupReply {
  std::optional<Attributes> attributes;   // none: there is no such name
  std::chrono::seconds entry_timeout{0};  // of the name, or of its absence
  std::chrono::seconds attribute_timeout{0};
};

struct DirectoryEntry {
  std::string_view name;
  uint64_t cookie = 0;  // where to go on after this entry; never 0
  uint64_t inode = 0;   // number to show; kUnknownInode when the name has none yet
  store::NodeType type = store::NodeType::kDirectory;
  // What a lookup of the name would answer, if that is known without one and was asked for.
  std::optional<LookupReply> lookup;
};
inline constexpr uint64_t kUnknownInode = 0xffffffff;

// Takes the entries of a directory in order.
class DirectorySink {
 public:
  virtual ~DirectorySink() = default;
  // Whether LookupReplies are of use.
  virtual bool wants_attributes() const = 0;
  // False: it was full and did not take the entry.
  virtual bool Add(const DirectoryEntry& entry) = 0;
};

struct FilesystemStats {
  uint64_t block_size = 4096;
  uint64_t blocks = 0;       // kept by the store, plus free
  uint64_t free_blocks = 0;  // of the filesystem below the store
  uint64_t max_name_bytes = store::kMaxNameBytes;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_ATTRIBUTES_H_
