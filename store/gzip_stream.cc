#include "store/gzip_stream.h"

#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace ocifs::store {
namespace {

constexpr size_t kOutputBytes = size_t{1} << 20;
// isal_inflate counts its input in 32 bits.
constexpr size_t kMaxInflateInput = size_t{1} << 30;

// RFC 1952 section 2.3.1.
constexpr uint8_t kFlagHeaderCrc = 1 << 1;
constexpr uint8_t kFlagExtra = 1 << 2;
constexpr uint8_t kFlagName = 1 << 3;
constexpr uint8_t kFlagComment = 1 << 4;
constexpr uint8_t kFlagsReserved = 0xE0;
constexpr uint8_t kMethodDeflate = 8;
constexpr size_t kFixedHeaderBytes = 10;

std::unexpected<Error> Corrupt(std::string_view why) {
  return Fail(ErrorCode::kCorrupt, "decoding gzip: " + std::string(why));
}

std::string_view InflateErrorText(int code) {
  switch (code) {
    case ISAL_INVALID_BLOCK:
      return "invalid deflate block";
    case ISAL_INVALID_SYMBOL:
      return "invalid deflate symbol";
    case ISAL_INVALID_LOOKBACK:
      return "deflate distance before the start of the data";
    case ISAL_INCORRECT_CHECKSUM:
      return "a member's checksum or length is wrong";
    default:
      return "invalid data";
  }
}

// The member header is read here and not by ISA-L: isal_inflate (2.30) forgets the header's flags
// when its input ends inside the header, and then takes a file name for deflate data. The trailer
// is ISA-L's (ISAL_GZIP_NO_HDR_VER), which carries it over such a boundary and compares CRC and
// length.
class GzipStream final : public ByteStream {
 public:
  explicit GzipStream(std::unique_ptr<ByteStream> compressed)
      : compressed_(std::move(compressed)),
        inflate_(std::make_unique_for_overwrite<inflate_state>()),
        output_(std::make_unique_for_overwrite<uint8_t[]>(kOutputBytes)) {
    isal_inflate_init(inflate_.get());
    inflate_->crc_flag = ISAL_GZIP_NO_HDR_VER;
  }

  Result<std::span<const std::byte>> Next() override {
    size_t produced = 0;
    while (part_ != Part::kEnd) {
      if (part_ == Part::kDeflate) {
        OCIFS_ASSIGN_OR_RETURN(const Progress progress, Inflate(produced));
        if (progress == Progress::kOutputFull) break;
        if (progress == Progress::kMemberEnd) continue;
      }
      if (input_.empty()) {
        OCIFS_RETURN_IF_ERROR(Refill());
        continue;
      }
      if (part_ == Part::kPadding) {
        if (std::ranges::any_of(input_, [](uint8_t byte) { return byte != 0; })) {
          return Corrupt("bytes after the last member");
        }
        input_ = {};
      } else {
        OCIFS_RETURN_IF_ERROR(ReadHeader());
      }
    }
    return std::as_bytes(std::span(output_.get(), produced));
  }

 private:
  // What the next input byte belongs to.
  enum class Part {
    kStart,  // a member's first byte, or what follows the last member
    kFixed,
    kExtraLength,
    kExtra,
    kName,
    kComment,
    kHeaderCrc,
    kDeflate,  // and the trailer
    kPadding,
    kEnd,
  };
  enum class Progress { kOutputFull, kNeedsInput, kMemberEnd };

  Result<void> Refill() {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, compressed_->Next());
    if (!piece.empty()) {
      input_ = {reinterpret_cast<const uint8_t*>(piece.data()), piece.size()};
      return {};
    }
    if (part_ != Part::kPadding && (part_ != Part::kStart || !any_member_)) {
      return Corrupt("the data ends inside a member");
    }
    part_ = Part::kEnd;
    return {};
  }

  Result<Progress> Inflate(size_t& produced) {
    const size_t offered = std::min(input_.size(), kMaxInflateInput);
    inflate_->next_in = const_cast<uint8_t*>(input_.data());  // only read
    inflate_->avail_in = static_cast<uint32_t>(offered);
    inflate_->next_out = output_.get() + produced;
    inflate_->avail_out = static_cast<uint32_t>(kOutputBytes - produced);
    const int code = isal_inflate(inflate_.get());
    // After an error the counts mean nothing: bits that came with an earlier piece may be put back.
    if (code != ISAL_DECOMP_OK) return Corrupt(InflateErrorText(code));
    produced = kOutputBytes - inflate_->avail_out;
    input_ = input_.subspan(offered - inflate_->avail_in);
    if (inflate_->block_state == ISAL_BLOCK_FINISH) {
      isal_inflate_reset(inflate_.get());
      any_member_ = true;
      part_ = Part::kStart;
      return Progress::kMemberEnd;
    }
    if (inflate_->avail_out == 0) return Progress::kOutputFull;
    if (inflate_->avail_in != 0) return Corrupt("the decoder makes no progress");
    return Progress::kNeedsInput;
  }

  // Takes header bytes until the header or the input ends.
  Result<void> ReadHeader() {
    if (part_ == Part::kStart && any_member_ && input_.front() == 0) {
      part_ = Part::kPadding;
      return {};
    }
    size_t used = 0;
    while (used < input_.size() && part_ != Part::kDeflate) {
      OCIFS_RETURN_IF_ERROR(TakeHeaderByte(input_[used++]));
    }
    input_ = input_.subspan(used);
    return {};
  }

  Result<void> TakeHeaderByte(uint8_t byte) {
    // The header CRC covers every header byte before itself.
    if (part_ != Part::kHeaderCrc) header_crc_ = crc32_gzip_refl(header_crc_, &byte, 1);
    switch (part_) {
      case Part::kStart:
        header_crc_ = crc32_gzip_refl(0, &byte, 1);
        if (byte != 0x1F) {
          return Corrupt(any_member_ ? "bytes after the last member" : "no gzip header");
        }
        count_ = 1;
        part_ = Part::kFixed;
        return {};
      case Part::kFixed:
        return TakeFixedByte(byte);
      case Part::kExtraLength:
        little_endian_ |= static_cast<uint16_t>(byte << (8 * count_));
        if (++count_ < 2) return {};
        count_ = little_endian_;
        part_ = Part::kExtra;
        if (count_ == 0) EnterNextPart();
        return {};
      case Part::kExtra:
        if (--count_ == 0) EnterNextPart();
        return {};
      case Part::kName:
      case Part::kComment:
        if (byte == 0) EnterNextPart();
        return {};
      case Part::kHeaderCrc:
        little_endian_ |= static_cast<uint16_t>(byte << (8 * count_));
        if (++count_ < 2) return {};
        if (little_endian_ != (header_crc_ & 0xFFFF)) return Corrupt("wrong header checksum");
        EnterNextPart();
        return {};
      case Part::kDeflate:
      case Part::kPadding:
      case Part::kEnd:
        break;
    }
    return Fail(ErrorCode::kInternal, "decoding gzip: not in a header");
  }

  Result<void> TakeFixedByte(uint8_t byte) {
    if (count_ == 1 && byte != 0x8B) {
      return Corrupt(any_member_ ? "bytes after the last member" : "no gzip header");
    }
    if (count_ == 2 && byte != kMethodDeflate) return Corrupt("unknown compression method");
    if (count_ == 3) {
      if ((byte & kFlagsReserved) != 0) return Corrupt("reserved header flags");
      flags_ = byte;
    }
    if (++count_ == kFixedHeaderBytes) EnterNextPart();
    return {};
  }

  // From the end of one header part to the next one that the flags announce.
  void EnterNextPart() {
    count_ = 0;
    little_endian_ = 0;
    const auto announced = [this](uint8_t flag) { return (flags_ & flag) != 0; };
    switch (part_) {
      case Part::kFixed:
        if (announced(kFlagExtra)) {
          part_ = Part::kExtraLength;
          return;
        }
        [[fallthrough]];
      case Part::kExtra:
        if (announced(kFlagName)) {
          part_ = Part::kName;
          return;
        }
        [[fallthrough]];
      case Part::kName:
        if (announced(kFlagComment)) {
          part_ = Part::kComment;
          return;
        }
        [[fallthrough]];
      case Part::kComment:
        if (announced(kFlagHeaderCrc)) {
          part_ = Part::kHeaderCrc;
          return;
        }
        [[fallthrough]];
      default:
        part_ = Part::kDeflate;
        return;
    }
  }

  const std::unique_ptr<ByteStream> compressed_;
  const std::unique_ptr<inflate_state> inflate_;
  const std::unique_ptr<uint8_t[]> output_;
  std::span<const uint8_t> input_;  // rest of the current piece of compressed_
  Part part_ = Part::kStart;
  bool any_member_ = false;
  uint8_t flags_ = 0;
  size_t count_ = 0;            // bytes taken of the part, or in kExtra still to come
  uint16_t little_endian_ = 0;  // the two-byte field being read
  uint32_t header_crc_ = 0;
};

}  // namespace

Result<std::unique_ptr<ByteStream>> MakeGzipStream(std::unique_ptr<ByteStream> compressed) {
  try {
    return std::make_unique<GzipStream>(std::move(compressed));
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kOutOfMemory, "decoding gzip: no memory for the decoder");
  }
}

}  // namespace ocifs::store
