#include "store/tar_header_policy.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include "store/tar_fields.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr uint64_t kMaxId = uint64_t{0xFFFF'FFFF} - 1;  // 2^32-1 is (uid_t)-1, "no change"
constexpr uint64_t kMaxDevice = 0xFFFF'FFFF;
constexpr uint64_t kMaxSize = std::numeric_limits<int64_t>::max() - 1;  // libarchive's bound

enum class Dialect { kV7, kPosix, kGnu };

std::unexpected<Error> Refuse(std::string_view why) {
  return Fail(ErrorCode::kCorrupt, std::string(why));
}

std::string_view UntilNul(std::string_view field) { return field.substr(0, field.find('\0')); }

bool HasNul(std::string_view text) { return text.find('\0') != text.npos; }

Result<Dialect> DialectOf(std::string_view block) {
  const std::string_view magic = tar::kMagic.Of(block);
  if (magic == std::string_view("ustar  \0", 8)) return Dialect::kGnu;
  if (!magic.starts_with("ustar")) return Dialect::kV7;
  if (magic[5] != '\0') return Refuse("unknown magic in the header");
  // star's older format cuts the prefix to make room for times; other readers do not know that.
  if (tar::kStarTrailer.Of(block) == std::string_view("tar\0", 4) &&
      !HasNul(tar::kPrefix.Of(block).substr(0, tar::kStarPrefixBytes))) {
    return Refuse("a star header whose prefix has two readings");
  }
  return Dialect::kPosix;
}

Result<void> CheckGlobalHeader(std::string_view body) {
  PaxRecords records(body);
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PaxRecord> record, records.Next());
    if (!record) return {};
    if (record->key != "comment") {
      return Refuse("a global pax header that says more than a comment");
    }
  }
}

// The text of a GNU long name or link: up to its NUL, after which nothing may hide.
Result<std::string_view> LongText(std::string_view body) {
  const std::string_view text = UntilNul(body);
  if (text.empty()) return Refuse("an empty GNU long name");
  if (body.find_first_not_of('\0', text.size()) != body.npos) {
    return Refuse("bytes after the NUL of a GNU long name");
  }
  return text;
}

}  // namespace

// Takes blocks and bodies from the front.
class TarHeaderPolicy::Blocks {
 public:
  explicit Blocks(std::span<const std::byte> blocks)
      : rest_(reinterpret_cast<const char*>(blocks.data()), blocks.size()) {}

  std::string_view rest() const { return rest_; }

  Result<std::string_view> TakeBlock() {
    if (rest_.size() < kTarBlockBytes) return Refuse("the header is cut short");
    const std::string_view block = rest_.substr(0, kTarBlockBytes);
    rest_.remove_prefix(kTarBlockBytes);
    return block;
  }

  Result<std::string_view> TakeHeaderBlock() {
    OCIFS_ASSIGN_OR_RETURN(const std::string_view block, TakeBlock());
    if (!TarChecksumIsRight(AsBytes(block))) return Refuse("wrong header checksum");
    return block;
  }

  // The body of an extension, with its padding taken as well.
  Result<std::string_view> TakeBody(std::string_view header) {
    const std::optional<uint64_t> size =
        ParseTarUnsigned(tar::kSize.Of(header), kMaxTarHeaderBytes);
    if (!size) return Refuse("the size of an extension header is not a number in range");
    const size_t padded = (*size + kTarBlockBytes - 1) / kTarBlockBytes * kTarBlockBytes;
    if (padded > rest_.size()) return Refuse("an extension header is cut short");
    const std::string_view body = rest_.substr(0, *size);
    rest_.remove_prefix(padded);
    return body;
  }

 private:
  std::string_view rest_;
};

// The records of an 'x' header that mean something here. Null pointers: not there.
struct TarHeaderPolicy::Pax {
  bool present = false;
  std::optional<std::string_view> path;
  std::optional<std::string_view> linkpath;
  std::optional<uint64_t> size;
  std::optional<uint64_t> uid;
  std::optional<uint64_t> gid;
  std::optional<TarTime> mtime;
  bool device = false;  // SCHILY.devmajor or SCHILY.devminor
  uint64_t xattr_bytes = 0;

  // GNU.sparse.*
  std::optional<std::string_view> sparse_name;
  std::optional<uint64_t> sparse_major;
  std::optional<uint64_t> sparse_minor;
  std::optional<uint64_t> sparse_size;      // formats 0.0 and 0.1
  std::optional<uint64_t> sparse_realsize;  // format 1.0
  std::optional<uint64_t> sparse_numblocks;
  std::optional<std::string_view> sparse_map;
  std::optional<uint64_t> sparse_offset;  // of format 0.0, waiting for its numbytes
  bool sparse_pairs = false;

  bool sparse() const {
    return sparse_name || sparse_major || sparse_minor || sparse_size || sparse_realsize ||
           sparse_numblocks || sparse_map || sparse_pairs;
  }
};

Result<const TarHeader*> TarHeaderPolicy::CheckHeaderBlocks(std::span<const std::byte> blocks) {
  if (blocks.size() > kMaxTarHeaderBytes) {
    return Fail(ErrorCode::kTooLarge, "an entry with more than 8 MiB of headers");
  }
  header_.is_hard_link = false;
  header_.link = {};
  header_.device_major = header_.device_minor = 0;
  header_.is_sparse = false;
  header_.regions.clear();
  header_.xattrs.clear();
  region_bytes_ = 0;

  Blocks rest(blocks);
  Pax pax;
  std::string_view long_name;
  std::string_view long_link;
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::string_view block, rest.TakeHeaderBlock());
    const char type = block[tar::kType];
    const bool extended = pax.present || !long_name.empty() || !long_link.empty();
    switch (type) {
      case 'g': {
        if (extended) return Refuse("a global header between an entry and its extension");
        OCIFS_ASSIGN_OR_RETURN(const std::string_view body, rest.TakeBody(block));
        OCIFS_RETURN_IF_ERROR(CheckGlobalHeader(body));
        continue;
      }
      case 'x': {
        if (extended) return Refuse("a second pax header, or one beside GNU long names");
        OCIFS_ASSIGN_OR_RETURN(const std::string_view body, rest.TakeBody(block));
        if (body.empty()) return Refuse("a pax header without records");
        OCIFS_RETURN_IF_ERROR(ReadPax(body, pax));
        continue;
      }
      case 'L':
      case 'K': {
        std::string_view& text = type == 'L' ? long_name : long_link;
        if (pax.present || !text.empty()) {
          return Refuse("a second GNU long name, or one beside a pax header");
        }
        OCIFS_ASSIGN_OR_RETURN(const std::string_view body, rest.TakeBody(block));
        OCIFS_ASSIGN_OR_RETURN(text, LongText(body));
        continue;
      }
      default:
        break;
    }
    OCIFS_RETURN_IF_ERROR(TakeNames(block, pax, long_name, long_link));
    OCIFS_RETURN_IF_ERROR(TakeNumbers(block, pax));
    OCIFS_RETURN_IF_ERROR(TakeSizes(block, pax, rest));
    if (!rest.rest().empty()) return Refuse("blocks between the header and its content");
    return &header_;
  }
}

Result<void> TarHeaderPolicy::CheckEnd(std::span<const std::byte> blocks) {
  Blocks rest(blocks);
  while (rest.rest().size() >= kTarBlockBytes && rest.rest()[tar::kType] == 'g') {
    OCIFS_ASSIGN_OR_RETURN(const std::string_view block, rest.TakeHeaderBlock());
    OCIFS_ASSIGN_OR_RETURN(const std::string_view body, rest.TakeBody(block));
    OCIFS_RETURN_IF_ERROR(CheckGlobalHeader(body));
  }
  if (!AllZero(AsBytes(rest.rest()))) return Refuse("data after the end of the archive");
  return {};
}

Result<void> TarHeaderPolicy::ReadPax(std::string_view body, Pax& pax) {
  pax.present = true;
  PaxRecords records(body);
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PaxRecord> record, records.Next());
    if (!record) break;
    const auto& [key, value] = *record;
    if (key.starts_with("SCHILY.xattr.")) {
      OCIFS_RETURN_IF_ERROR(TakeXattr(key.substr(std::strlen("SCHILY.xattr.")), value, pax));
    } else if (HasNul(value)) {
      return Refuse("NUL in a pax value");
    } else if (key.starts_with("GNU.sparse.")) {
      OCIFS_RETURN_IF_ERROR(TakeSparseRecord(key, value, pax));
    } else {
      OCIFS_RETURN_IF_ERROR(TakePaxRecord(key, value, pax));
    }
  }
  if (pax.sparse_offset) return Refuse("a sparse region without its length");
  return {};
}

Result<void> TarHeaderPolicy::TakePaxRecord(std::string_view key, std::string_view value,
                                            Pax& pax) {
  const auto take_number = [&](std::optional<uint64_t>& number, uint64_t max) -> Result<void> {
    number = ParseDecimal(value, max);
    if (!number) {
      return Refuse("the pax record " + std::string(key) + " is not a number in range");
    }
    return {};
  };
  const auto take_text = [&](std::optional<std::string_view>& text) -> Result<void> {
    if (value.empty()) return Refuse("the pax record " + std::string(key) + " is empty");
    text = value;
    return {};
  };
  if (key == "path") return take_text(pax.path);
  if (key == "linkpath") return take_text(pax.linkpath);
  if (key == "size") return take_number(pax.size, kMaxSize);
  if (key == "uid") return take_number(pax.uid, kMaxId);
  if (key == "gid") return take_number(pax.gid, kMaxId);
  if (key == "mtime") {
    pax.mtime = ParsePaxTime(value);
    if (!pax.mtime) return Refuse("the pax record mtime is not a time");
  } else if (key == "SCHILY.devmajor" || key == "SCHILY.devminor") {
    pax.device = true;
  } else if (key == "SCHILY.realsize" || key == "SUN.holesdata") {
    return Refuse("a sparse file of a kind that is not read");
  }
  return {};
}

Result<void> TarHeaderPolicy::TakeXattr(std::string_view name, std::string_view value, Pax& pax) {
  if (name.empty()) return Refuse("an xattr without a name");
  pax.xattr_bytes += name.size() + value.size();
  if (name.size() > kMaxNameBytes || value.size() > limits_.max_xattr_value_bytes ||
      pax.xattr_bytes > limits_.max_xattr_bytes) {
    return Fail(ErrorCode::kTooLarge, "xattrs over the limit");
  }
  header_.xattrs.emplace_back(name, value);
  return {};
}

Result<void> TarHeaderPolicy::TakeSparseRecord(std::string_view key, std::string_view value,
                                               Pax& pax) {
  const auto take_number = [&](std::optional<uint64_t>& number) -> Result<void> {
    if (number) return Refuse("the pax record " + std::string(key) + " is there twice");
    number = ParseDecimal(value, kMaxSize);
    if (!number) {
      return Refuse("the pax record " + std::string(key) + " is not a number in range");
    }
    return {};
  };
  const auto take_text = [&](std::optional<std::string_view>& text) -> Result<void> {
    if (text || value.empty()) {
      return Refuse("the pax record " + std::string(key) + " is empty or there twice");
    }
    text = value;
    return {};
  };
  const std::string_view what = key.substr(std::strlen("GNU.sparse."));
  if (what == "name") return take_text(pax.sparse_name);
  if (what == "major") return take_number(pax.sparse_major);
  if (what == "minor") return take_number(pax.sparse_minor);
  if (what == "size") return take_number(pax.sparse_size);
  if (what == "realsize") return take_number(pax.sparse_realsize);
  if (what == "numblocks") return take_number(pax.sparse_numblocks);
  if (what == "map") return take_text(pax.sparse_map);
  // Format 0.0: numblocks, then offset and numbytes in turns. libarchive pairs them in other orders
  // by what an entry before left behind.
  if (what == "offset" && pax.sparse_numblocks && !pax.sparse_offset) {
    pax.sparse_pairs = true;
    return take_number(pax.sparse_offset);
  }
  if (what == "numbytes" && pax.sparse_offset) {
    std::optional<uint64_t> length;
    OCIFS_RETURN_IF_ERROR(take_number(length));
    const uint64_t offset = *pax.sparse_offset;
    pax.sparse_offset.reset();
    return AddRegion(offset, *length);
  }
  return Refuse("an unknown or misplaced pax record " + std::string(key));
}

Result<void> TarHeaderPolicy::TakeNames(std::string_view block, const Pax& pax,
                                        std::string_view long_name, std::string_view long_link) {
  OCIFS_ASSIGN_OR_RETURN(const Dialect dialect, DialectOf(block));
  header_.name = UntilNul(tar::kName.Of(block));
  if (dialect == Dialect::kPosix && block[tar::kPrefix.offset] != '\0') {
    joined_name_.assign(UntilNul(tar::kPrefix.Of(block)));
    if (!joined_name_.ends_with('/')) joined_name_.push_back('/');
    joined_name_.append(header_.name);
    header_.name = joined_name_;
  }
  if (!long_name.empty()) header_.name = long_name;
  if (pax.path) header_.name = *pax.path;
  if (pax.sparse_name) header_.name = *pax.sparse_name;
  if (header_.name.empty()) return Refuse("an entry without a name");

  switch (block[tar::kType]) {
    case '0':
    case '\0':
    case '7':  // a contiguous file: regular where there is no such thing
    case 'S':
      header_.type = NodeType::kRegular;
      // Directories of tar before POSIX.
      if (header_.name.ends_with('/')) header_.type = NodeType::kDirectory;
      break;
    case '1':
      header_.type = NodeType::kRegular;
      header_.is_hard_link = true;
      break;
    case '2':
      header_.type = NodeType::kSymlink;
      break;
    case '3':
      header_.type = NodeType::kCharDevice;
      break;
    case '4':
      header_.type = NodeType::kBlockDevice;
      break;
    case '5':
      header_.type = NodeType::kDirectory;
      break;
    case '6':
      header_.type = NodeType::kFifo;
      break;
    default:
      return Refuse("an entry of unknown type");
  }

  if (header_.is_hard_link || header_.type == NodeType::kSymlink) {
    header_.link = UntilNul(tar::kLinkName.Of(block));
    if (!long_link.empty()) header_.link = long_link;
    if (pax.linkpath) header_.link = *pax.linkpath;
    if (header_.link.empty()) return Refuse("a link without a target");
  } else if (!long_link.empty() || pax.linkpath) {
    // libarchive makes a hard link of it, whatever its type says.
    return Refuse("a link target on an entry that is not a link");
  }

  if (!header_.xattrs.empty()) {
    std::ranges::sort(header_.xattrs, {}, [](const auto& xattr) { return xattr.first; });
    const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
    if (std::ranges::adjacent_find(header_.xattrs, same) != header_.xattrs.end()) {
      return Refuse("the same xattr twice");
    }
  }
  return {};
}

Result<void> TarHeaderPolicy::TakeNumbers(std::string_view block, const Pax& pax) {
  const std::optional<uint64_t> mode = ParseTarUnsigned(tar::kMode.Of(block), kMaxSize);
  if (!mode) return Refuse("the mode is not a number in range");
  header_.mode = static_cast<uint32_t>(*mode & 07777);

  // A number that a pax record overrides may be cut to its field, but is a number all the same.
  const std::optional<uint64_t> uid =
      ParseTarUnsigned(tar::kUid.Of(block), pax.uid ? kMaxSize : kMaxId);
  const std::optional<uint64_t> gid =
      ParseTarUnsigned(tar::kGid.Of(block), pax.gid ? kMaxSize : kMaxId);
  if (!uid || !gid) return Refuse("the owner is not a number up to 2^32-2");
  header_.uid = static_cast<uint32_t>(pax.uid.value_or(*uid));
  header_.gid = static_cast<uint32_t>(pax.gid.value_or(*gid));

  const std::optional<int64_t> mtime = ParseTarNumber(tar::kMtime.Of(block));
  if (!mtime) return Refuse("the modification time is not a number");
  const TarTime time = pax.mtime.value_or(ClampTarTime({*mtime, 0}));
  header_.mtime_sec = time.sec;
  header_.mtime_nsec = time.nsec;

  if (header_.type == NodeType::kCharDevice || header_.type == NodeType::kBlockDevice) {
    OCIFS_ASSIGN_OR_RETURN(const Dialect dialect, DialectOf(block));
    if (dialect == Dialect::kV7) return Refuse("a device in a header without device numbers");
    const std::optional<uint64_t> major = ParseTarUnsigned(tar::kDeviceMajor.Of(block), kMaxDevice);
    const std::optional<uint64_t> minor = ParseTarUnsigned(tar::kDeviceMinor.Of(block), kMaxDevice);
    if (!major || !minor) return Refuse("a device number is not a number in range");
    if (pax.device) return Refuse("device numbers in pax records, which few readers heed");
    header_.device_major = static_cast<uint32_t>(*major);
    header_.device_minor = static_cast<uint32_t>(*minor);
  }
  return {};
}

Result<void> TarHeaderPolicy::TakeSizes(std::string_view block, const Pax& pax, Blocks& blocks) {
  const std::optional<uint64_t> size = ParseTarUnsigned(tar::kSize.Of(block), kMaxSize);
  if (!size) return Refuse("the size is not a number in range");
  header_.stored_size = pax.size.value_or(*size);
  header_.file_size = 0;
  const bool regular = header_.type == NodeType::kRegular && !header_.is_hard_link;
  if (!regular && (*size != 0 || header_.stored_size != 0)) {
    return Refuse("a size on an entry that is not a regular file");
  }
  OCIFS_RETURN_IF_ERROR(ReadSparse(block, pax, blocks));
  if (regular && !header_.is_sparse) header_.file_size = header_.stored_size;
  return {};
}

Result<void> TarHeaderPolicy::ReadSparse(std::string_view block, const Pax& pax, Blocks& blocks) {
  OCIFS_ASSIGN_OR_RETURN(const Dialect dialect, DialectOf(block));
  const char type = block[tar::kType];
  if (type == 'S') {
    if (pax.present || dialect != Dialect::kGnu || header_.type != NodeType::kRegular) {
      return Refuse("a GNU sparse file in a header of another kind");
    }
    header_.is_sparse = true;
    OCIFS_RETURN_IF_ERROR(ReadOldSparse(block, blocks));
  } else {
    // libarchive heeds these fields whatever the type.
    if (dialect == Dialect::kGnu &&
        (block[tar::kGnuRealSize.offset] != '\0' || block[tar::kGnuSparse.offset] != '\0' ||
         block[tar::kGnuExtended] != 0)) {
      return Refuse("a sparse map on an entry that is not sparse");
    }
    if (!pax.sparse()) return {};
    if (type != '0' || header_.type != NodeType::kRegular) {
      return Refuse("a sparse map on an entry that is not a regular file");
    }
    header_.is_sparse = true;
    if (pax.sparse_major || pax.sparse_minor) {
      if (pax.sparse_major != 1 || pax.sparse_minor != 0 || !pax.sparse_realsize ||
          pax.sparse_size || pax.sparse_numblocks || pax.sparse_map || pax.sparse_pairs) {
        return Refuse("an unknown or mixed GNU sparse format");
      }
      header_.file_size = *pax.sparse_realsize;
      OCIFS_RETURN_IF_ERROR(ReadSparseMapBlocks(blocks));
    } else {
      if (!pax.sparse_size || !pax.sparse_numblocks || pax.sparse_realsize ||
          (pax.sparse_map && pax.sparse_pairs)) {
        return Refuse("an incomplete or mixed GNU sparse format");
      }
      header_.file_size = *pax.sparse_size;
      if (pax.sparse_map) OCIFS_RETURN_IF_ERROR(ReadSparseMapText(*pax.sparse_map));
      if (header_.regions.size() != *pax.sparse_numblocks) {
        return Refuse("a sparse map of another length than it says");
      }
    }
  }
  // Ascending order was checked as regions came.
  if (!header_.regions.empty() &&
      header_.regions.back().offset + header_.regions.back().length > header_.file_size) {
    return Refuse("a sparse region beyond the file's end");
  }
  if (region_bytes_ != header_.stored_size) {
    return Refuse("sparse regions that do not sum to the stored size");
  }
  return {};
}

Result<void> TarHeaderPolicy::ReadOldSparse(std::string_view block, Blocks& blocks) {
  const std::optional<uint64_t> real_size = ParseTarUnsigned(tar::kGnuRealSize.Of(block), kMaxSize);
  if (!real_size || block[tar::kGnuRealSize.offset] == '\0') {
    return Refuse("a sparse file without its real size");
  }
  header_.file_size = *real_size;
  std::string_view map = tar::kGnuSparse.Of(block);
  bool more = block[tar::kGnuExtended] != 0;
  while (true) {
    for (; !map.empty(); map.remove_prefix(tar::kGnuSparseEntryBytes)) {
      if (map.front() == '\0') break;
      const std::optional<uint64_t> offset = ParseTarUnsigned(map.substr(0, 12), kMaxSize);
      const std::optional<uint64_t> length = ParseTarUnsigned(map.substr(12, 12), kMaxSize);
      if (!offset || !length) return Refuse("a sparse region that is not a number in range");
      OCIFS_RETURN_IF_ERROR(AddRegion(*offset, *length));
    }
    if (!AllZero(AsBytes(map)) || (more && !map.empty())) {
      return Refuse("a sparse map that goes on after its end");
    }
    if (!more) return {};
    OCIFS_ASSIGN_OR_RETURN(const std::string_view extension, blocks.TakeBlock());
    map = tar::kGnuExtensionSparse.Of(extension);
    more = extension[tar::kGnuExtensionExtended] != 0;
  }
}

// Format 0.1: "offset,length,offset,length".
Result<void> TarHeaderPolicy::ReadSparseMapText(std::string_view map) {
  const auto take_number = [&map]() -> std::optional<uint64_t> {
    const size_t comma = std::min(map.find(','), map.size());
    const std::optional<uint64_t> number = ParseDecimal(map.substr(0, comma), kMaxSize);
    map.remove_prefix(comma);
    return number;
  };
  while (true) {
    const std::optional<uint64_t> offset = take_number();
    if (!offset || map.empty()) return Refuse("a malformed sparse map");
    map.remove_prefix(1);
    const std::optional<uint64_t> length = take_number();
    if (!length) return Refuse("a malformed sparse map");
    OCIFS_RETURN_IF_ERROR(AddRegion(*offset, *length));
    if (map.empty()) return {};
    map.remove_prefix(1);
  }
}

// Format 1.0: the number of regions, then offset and length of each, one decimal number to a line,
// filled up to a block. It stands at the start of the content and is part of the stored size.
Result<void> TarHeaderPolicy::ReadSparseMapBlocks(Blocks& blocks) {
  const size_t available = blocks.rest().size();
  std::string_view text = blocks.rest();
  const auto take_line = [&text]() -> std::optional<uint64_t> {
    const size_t end = text.find('\n');
    if (end == text.npos) return std::nullopt;
    const std::optional<uint64_t> number = ParseDecimal(text.substr(0, end), kMaxSize);
    text.remove_prefix(end + 1);
    return number;
  };
  const std::optional<uint64_t> count = take_line();
  if (!count) return Refuse("a malformed sparse map");
  if (*count > kMaxSparseRegions) {
    return Fail(ErrorCode::kTooLarge, "a file of more than 65,536 sparse regions");
  }
  for (uint64_t i = 0; i < *count; ++i) {
    const std::optional<uint64_t> offset = take_line();
    const std::optional<uint64_t> length = take_line();
    if (!offset || !length) return Refuse("a malformed sparse map");
    OCIFS_RETURN_IF_ERROR(AddRegion(*offset, *length));
  }
  const size_t used = available - text.size();
  const size_t padded = (used + kTarBlockBytes - 1) / kTarBlockBytes * kTarBlockBytes;
  if (padded != available || padded > header_.stored_size) {
    return Refuse("a sparse map of another length than its blocks");
  }
  while (!blocks.rest().empty()) OCIFS_RETURN_IF_ERROR(blocks.TakeBlock());
  header_.stored_size -= padded;
  return {};
}

Result<void> TarHeaderPolicy::AddRegion(uint64_t offset, uint64_t length) {
  const uint64_t end_before =
      header_.regions.empty() ? 0 : header_.regions.back().offset + header_.regions.back().length;
  // Both are below 2^63, so the sum does not wrap.
  if (offset < end_before || offset + length > kMaxSize) {
    return Refuse("sparse regions out of order or overlapping");
  }
  if (header_.regions.size() == kMaxSparseRegions) {
    return Fail(ErrorCode::kTooLarge, "a file of more than 65,536 sparse regions");
  }
  header_.regions.push_back({offset, length});
  region_bytes_ += length;
  return {};
}

}  // namespace ocifs::store
