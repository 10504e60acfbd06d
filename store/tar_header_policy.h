// The strict reading of the header blocks of a tar entry.
//
// libarchive reads generously, and other readers read the same bytes differently. This reads the
// raw blocks once more and refuses whatever has more than one reading; tar_reader.cc then demands
// that libarchive has read the same. Formats: POSIX.1-2001 pax and ustar, GNU tar, tar of Unix v7.
#ifndef OCIFS_STORE_TAR_HEADER_POLICY_H_
#define OCIFS_STORE_TAR_HEADER_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/error.h"
#include "store/limits.h"
#include "store/node.h"

namespace ocifs::store {

// Regions with content in one sparse file.
inline constexpr size_t kMaxSparseRegions = 65'536;
// Header blocks of one entry, with all its extensions: a pax header of 1 MiB, a sparse map of
// kMaxSparseRegions, and room. kTooLarge beyond.
inline constexpr size_t kMaxTarHeaderBytes = size_t{8} << 20;

struct SparseRegion {
  uint64_t offset = 0;
  uint64_t length = 0;

  friend bool operator==(const SparseRegion&, const SparseRegion&) = default;
};

// What the blocks say. Views are borrowed from the blocks and from the TarHeaderPolicy.
struct TarHeader {
  bool is_hard_link = false;  // then `type` is kRegular
  NodeType type = NodeType::kRegular;
  std::string_view name;  // as written, not empty, without NUL
  std::string_view link;  // of hard links and symlinks, as written, not empty, without NUL
  uint32_t mode = 0;      // 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_sec = 0;  // clamped to the years 1 to 9999
  uint32_t mtime_nsec = 0;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  uint64_t stored_size = 0;  // bytes after the header blocks, without padding to kTarBlockBytes
  uint64_t file_size = 0;    // of a regular file, with its holes; else 0
  bool is_sparse = false;
  std::vector<SparseRegion> regions;  // of a sparse file: sorted, disjoint, summing to stored_size
  std::vector<std::pair<std::string_view, std::string_view>> xattrs;  // SCHILY.xattr.*, prefix cut
};

// Owned by one thread; reused from entry to entry, so that nothing is allocated for most of them.
class TarHeaderPolicy {
 public:
  explicit TarHeaderPolicy(const Limits& limits) : limits_(limits) {}

  // `blocks` are all blocks of one entry that stand before its content: global headers, extensions,
  // the header itself, and a sparse map where there is one. Borrowed until the next call.
  //
  // Refused (kCorrupt, if nothing else is said):
  //  - a wrong header checksum; a magic that is neither POSIX's, GNU tar's nor absent; a type other
  //    than 0 to 7, NUL, x, g, L, K, S
  //  - a number field with other than octal digits or a base-256 number, a negative one except
  //    mtime, uid or gid above 2^32-2, devices above 2^32-1
  //  - a size that is not zero on anything but a regular file; also on a regular file whose name
  //    ends in '/', which is a directory in all readers
  //  - a global header that says more than a comment
  //  - two pax headers, two long names or two long links on one entry; pax together with GNU long
  //    names, long links or old sparse; an extension without its entry
  //  - pax records that are malformed or hold a NUL outside an xattr's value; an empty value or a
  //    value out of form for path, linkpath, size, uid, gid, mtime. Of equal keys the last one wins
  //    (so do GNU tar, Go, libarchive), but for xattrs and sparse keys, where two are refused
  //  - a name or link with bytes after its NUL in a GNU long header; an empty name
  //  - a link target on what is not a link; a link without a target
  //  - sparse files other than GNU's four formats complete and unmixed; regions out of order,
  //    overlapping, outside the file, or not summing to the stored size (over kMaxSparseRegions:
  //    kTooLarge); holes by SCHILY.realsize or SUN.holesdata
  //  - xattrs over the limits (kTooLarge); LIBARCHIVE.xattr.* and ACLs are passed over
  Result<const TarHeader*> CheckHeaderBlocks(std::span<const std::byte> blocks);

  // `blocks` follow the last entry: global headers, then nothing but zeros. kCorrupt otherwise.
  static Result<void> CheckEnd(std::span<const std::byte> blocks);

 private:
  struct Pax;
  class Blocks;

  Result<void> ReadPax(std::string_view body, Pax& pax);
  Result<void> TakePaxRecord(std::string_view key, std::string_view value, Pax& pax);
  Result<void> TakeSparseRecord(std::string_view key, std::string_view value, Pax& pax);
  Result<void> TakeXattr(std::string_view name, std::string_view value, Pax& pax);
  Result<void> TakeNames(std::string_view block, const Pax& pax, std::string_view long_name,
                         std::string_view long_link);
  Result<void> TakeNumbers(std::string_view block, const Pax& pax);
  Result<void> TakeSizes(std::string_view block, const Pax& pax, Blocks& blocks);
  Result<void> ReadSparse(std::string_view block, const Pax& pax, Blocks& blocks);
  Result<void> ReadOldSparse(std::string_view block, Blocks& blocks);
  Result<void> ReadSparseMapText(std::string_view map);
  Result<void> ReadSparseMapBlocks(Blocks& blocks);
  Result<void> AddRegion(uint64_t offset, uint64_t length);

  const Limits limits_;
  TarHeader header_;
  std::string joined_name_;  // prefix + '/' + name
  uint64_t region_bytes_ = 0;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TAR_HEADER_POLICY_H_
