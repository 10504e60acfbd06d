// Fields of tar header blocks and records of pax headers: where they are and how they are written.
// What they may say is tar_header_policy.h's affair.
#ifndef OCIFS_STORE_TAR_FIELDS_H_
#define OCIFS_STORE_TAR_FIELDS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "store/error.h"

namespace ocifs::store {

inline constexpr size_t kTarBlockBytes = 512;

// A field of a header block. POSIX.1-2017, pax, "ustar Interchange Format"; the GNU ones from GNU
// tar's tar.h, struct oldgnu_header and struct sparse_header.
struct TarField {
  size_t offset;
  size_t size;

  std::string_view Of(std::string_view block) const { return block.substr(offset, size); }
};

namespace tar {
inline constexpr TarField kName{0, 100};
inline constexpr TarField kMode{100, 8};
inline constexpr TarField kUid{108, 8};
inline constexpr TarField kGid{116, 8};
inline constexpr TarField kSize{124, 12};
inline constexpr TarField kMtime{136, 12};
inline constexpr TarField kChecksum{148, 8};
inline constexpr size_t kType = 156;
inline constexpr TarField kLinkName{157, 100};
inline constexpr TarField kMagic{257, 8};  // with the version
inline constexpr TarField kDeviceMajor{329, 8};
inline constexpr TarField kDeviceMinor{337, 8};
inline constexpr TarField kPrefix{345, 155};
inline constexpr TarField kStarTrailer{508, 4};
inline constexpr size_t kStarPrefixBytes = 131;

inline constexpr TarField kGnuSparse{386, 96};
inline constexpr size_t kGnuExtended = 482;
inline constexpr TarField kGnuRealSize{483, 12};
inline constexpr TarField kGnuExtensionSparse{0, 504};
inline constexpr size_t kGnuExtensionExtended = 504;
inline constexpr size_t kGnuSparseEntryBytes = 24;
}  // namespace tar

// A number field: spaces, octal digits, then spaces and NULs to the end; all blank is 0, as old
// writers leave what they do not use. Or GNU tar's base 256: 0x80 and the value, or 0xFF and a
// negative one. nullopt for anything else and beyond 64 bits.
std::optional<int64_t> ParseTarNumber(std::string_view field);
// The same, from 0 to `max`.
std::optional<uint64_t> ParseTarUnsigned(std::string_view field, uint64_t max);

// Whether `block`, of kTarBlockBytes, carries its own checksum (as unsigned bytes, as POSIX has it,
// or as signed bytes, as some old writers).
bool TarChecksumIsRight(std::span<const std::byte> block);

struct TarTime {
  int64_t sec = 0;
  uint32_t nsec = 0;  // below 10^9

  friend bool operator==(const TarTime&, const TarTime&) = default;
};

// Into the years 1 to 9999, which every calendar can print.
TarTime ClampTarTime(TarTime time);

// "-1.25": digits, and perhaps a fraction of which nine digits count. Rounds down, so that the
// nanoseconds are never negative (libarchive reads -1.25 as -0.75). Clamped.
std::optional<TarTime> ParsePaxTime(std::string_view text);

struct PaxRecord {
  std::string_view key;  // not empty, without NUL
  std::string_view value;
};

// The records "length key=value\n" of a pax header's body, in order.
class PaxRecords {
 public:
  // `body` must outlive the records.
  explicit PaxRecords(std::string_view body) : rest_(body) {}

  // The next record; nullopt at the end. kCorrupt for a malformed one, kTooLarge above 999,999
  // bytes, which is libarchive's bound.
  Result<std::optional<PaxRecord>> Next();

 private:
  std::string_view rest_;
};

// Whether all of `bytes` are zero.
bool AllZero(std::span<const std::byte> bytes);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TAR_FIELDS_H_
