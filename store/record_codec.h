// Values of the index as bytes: fixed-width little-endian integers and length-prefixed strings,
// closed by a CRC-32C over the table's name, the key and all before it, so that a value that turns
// up in another place fails.
#ifndef OCIFS_STORE_RECORD_CODEC_H_
#define OCIFS_STORE_RECORD_CODEC_H_

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "store/digest.h"
#include "store/text.h"

namespace ocifs::store {

// Where a value lies.
struct RecordPlace {
  std::string_view table;
  std::string_view key;
};

// The checksum that closes a value: over table, key and value, begun with the key's length. No
// table's name begins with another's, so it is clear where each part ends.
inline uint32_t RecordChecksum(const RecordPlace& place, std::string_view value) {
  const uint32_t table = Crc32c(AsBytes(place.table), static_cast<uint32_t>(place.key.size()));
  return Crc32c(AsBytes(value), Crc32c(AsBytes(place.key), table));
}

class RecordEncoder {
 public:
  template <typename Integer>
  RecordEncoder& Add(Integer value) {
    static_assert(std::is_integral_v<Integer>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  RecordEncoder& AddBytes(std::string_view text) {
    Add(static_cast<uint32_t>(text.size()));
    bytes_.append(text);
    return *this;
  }
  RecordEncoder& AddDigest(const Digest& digest) {
    Add(static_cast<uint8_t>(digest.algorithm()));
    return AddBytes({reinterpret_cast<const char*>(digest.bytes().data()), digest.bytes().size()});
  }
  // The value for that place; the encoder is empty afterwards.
  std::string Finish(const RecordPlace& place) {
    Add(RecordChecksum(place, bytes_));
    return std::exchange(bytes_, {});
  }

 private:
  std::string bytes_;
};

// Reads what RecordEncoder wrote. Any read beyond the end, or a wrong checksum, makes ok() false
// for good; what was read then is zero or empty.
class RecordDecoder {
 public:
  RecordDecoder(const RecordPlace& place, std::string_view bytes) {
    uint32_t crc;
    if (bytes.size() < sizeof crc) return;
    std::memcpy(&crc, bytes.data() + bytes.size() - sizeof crc, sizeof crc);
    bytes_ = bytes.substr(0, bytes.size() - sizeof crc);
    ok_ = RecordChecksum(place, bytes_) == crc;
  }

  template <typename Integer>
  Integer Take() {
    static_assert(std::is_integral_v<Integer>);
    Integer value{};
    if (!ok_ || bytes_.size() < sizeof value) {
      ok_ = false;
      return value;
    }
    bytes_.copy(reinterpret_cast<char*>(&value), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return value;
  }
  std::string_view TakeBytes() {
    const auto size = Take<uint32_t>();
    if (!ok_ || bytes_.size() < size) {
      ok_ = false;
      return {};
    }
    const std::string_view value = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return value;
  }
  std::optional<Digest> TakeDigest() {
    const auto algorithm = Take<uint8_t>();
    const std::string_view value = TakeBytes();
    const bool known =
        (algorithm == 1 && value.size() == 32) || (algorithm == 2 && value.size() == 64);
    if (!ok_ || !known) {
      ok_ = false;
      return std::nullopt;
    }
    return Digest::FromBytes(static_cast<DigestAlgorithm>(algorithm), AsBytes(value));
  }

  // Whether all reads were good and nothing is left over.
  bool Done() const { return ok_ && bytes_.empty(); }
  bool ok() const { return ok_; }

 private:
  std::string_view bytes_;
  bool ok_ = false;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_RECORD_CODEC_H_
