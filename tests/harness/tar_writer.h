// Writes tar archives byte by byte, good ones and hostile ones.
#ifndef OCIFS_TESTS_HARNESS_TAR_WRITER_H_
#define OCIFS_TESTS_HARNESS_TAR_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ocifs::harness {

enum class TarMagic { kPosix, kGnu, kNone };

// What a header block says. Nothing is checked: what does not fit its field is cut.
struct TarFields {
  std::string name = {};
  char type = '0';
  uint64_t size = 0;  // in octal up to 2^33-1, in base 256 beyond
  std::string link = {};
  uint32_t mode = 0644;
  uint64_t uid = 0;
  uint64_t gid = 0;
  int64_t mtime = 1'700'000'000;  // base 256 when negative
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::string prefix = {};
  TarMagic magic = TarMagic::kPosix;
};

// Where the fields stand in a header block, for patches.
namespace tar_offset {
inline constexpr size_t kName = 0;
inline constexpr size_t kMode = 100;
inline constexpr size_t kUid = 108;
inline constexpr size_t kGid = 116;
inline constexpr size_t kSize = 124;
inline constexpr size_t kMtime = 136;
inline constexpr size_t kChecksum = 148;
inline constexpr size_t kType = 156;
inline constexpr size_t kLink = 157;
inline constexpr size_t kMagic = 257;
inline constexpr size_t kDeviceMajor = 329;
inline constexpr size_t kPrefix = 345;
inline constexpr size_t kGnuSparse = 386;
inline constexpr size_t kGnuExtended = 482;
inline constexpr size_t kGnuRealSize = 483;
}  // namespace tar_offset

using Regions = std::vector<std::pair<uint64_t, uint64_t>>;  // offset, length
using PaxPairs = std::vector<std::pair<std::string, std::string>>;

class TarWriter {
 public:
  using Patch = std::function<void(std::span<char> block)>;

  // A header block with its right checksum; `patch` changes bytes before the checksum is taken.
  TarWriter& Header(const TarFields& fields, const Patch& patch = nullptr);
  // Content, filled up with zeros to a block.
  TarWriter& Content(std::string_view content);
  // Bytes as they are.
  TarWriter& Raw(std::string_view bytes);

  // Whole entries.
  TarWriter& File(std::string_view name, std::string_view content);
  TarWriter& Directory(std::string_view name);
  TarWriter& Symlink(std::string_view name, std::string_view target);
  TarWriter& HardLink(std::string_view name, std::string_view target);

  // Extensions of the entry that is written next. A body is taken as it is.
  TarWriter& Pax(const PaxPairs& records) { return Extension('x', PaxBody(records)); }
  TarWriter& GlobalPax(const PaxPairs& records) { return Extension('g', PaxBody(records)); }
  TarWriter& LongName(std::string_view name) { return Extension('L', std::string(name) + '\0'); }
  TarWriter& LongLink(std::string_view name) { return Extension('K', std::string(name) + '\0'); }
  TarWriter& Extension(char type, std::string_view body);

  // A sparse file of GNU's type 'S', with extension blocks as needed. `stored` are the bytes of
  // its regions.
  TarWriter& OldSparse(std::string_view name, const Regions& regions, uint64_t real_size,
                       std::string_view stored);

  // Two zero blocks.
  TarWriter& End() { return Raw(std::string(1024, '\0')); }

  size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }

  static std::string PaxRecord(std::string_view key, std::string_view value);
  static std::string PaxBody(const PaxPairs& records);
  // The map that stands before the content in GNU sparse format 1.0, filled up to a block.
  static std::string SparseMapBlocks(const Regions& regions);

 private:
  std::string bytes_;
};

}  // namespace ocifs::harness

#endif  // OCIFS_TESTS_HARNESS_TAR_WRITER_H_
