#include "store/zstd_stream.h"

#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace ocifs::store {
namespace {

constexpr size_t kOutputBytes = size_t{1} << 20;
constexpr size_t kMagicBytes = 4;
constexpr size_t kMaxFrameHeaderBytes = 18;
constexpr int kMaxWindowLog = 27;  // 128 MiB; also libzstd's own default, made explicit

std::unexpected<Error> Corrupt(std::string_view why) {
  return Fail(ErrorCode::kCorrupt, "decoding zstd: " + std::string(why));
}

std::unexpected<Error> DecoderError(size_t code) {
  ErrorCode ours = ErrorCode::kCorrupt;
  switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_frameParameter_windowTooLarge:
      ours = ErrorCode::kTooLarge;
      break;
    case ZSTD_error_dictionary_wrong:
      ours = ErrorCode::kUnsupported;
      break;
    case ZSTD_error_memory_allocation:
      ours = ErrorCode::kOutOfMemory;
      break;
    default:
      break;
  }
  return Fail(ours, std::string("decoding zstd: ") + ZSTD_getErrorName(code));
}

struct DecoderDeleter {
  void operator()(ZSTD_DCtx* decoder) const { ZSTD_freeDCtx(decoder); }
};
using Decoder = std::unique_ptr<ZSTD_DCtx, DecoderDeleter>;

// Frame heads are looked at here before libzstd sees them: it would also decode the formats of
// zstd 0.5 to 0.7, and a skippable frame costs nothing when it is counted off here.
class ZstdStream final : public ByteStream {
 public:
  ZstdStream(std::unique_ptr<ByteStream> compressed, Decoder decoder)
      : compressed_(std::move(compressed)),
        decoder_(std::move(decoder)),
        output_(std::make_unique_for_overwrite<std::byte[]>(kOutputBytes)) {}

  Result<std::span<const std::byte>> Next() override {
    size_t produced = 0;
    while (part_ != Part::kEnd) {
      if (part_ == Part::kFrame) {
        OCIFS_ASSIGN_OR_RETURN(const Progress progress, Decode(produced));
        if (progress == Progress::kOutputFull) break;
        if (progress == Progress::kFrameEnd) continue;
      }
      if (input_.empty()) {
        OCIFS_RETURN_IF_ERROR(Refill());
      } else if (part_ == Part::kSkippable) {
        Skip();
      } else if (part_ != Part::kFrame) {
        OCIFS_RETURN_IF_ERROR(ReadHead());
      }
    }
    return std::span(output_.get(), produced);
  }

 private:
  enum class Part {
    kMagic,
    kSkippableLength,
    kSkippable,
    kFrameHeader,
    kFrame,  // the blocks, and the checksum
    kEnd,
  };
  enum class Progress { kOutputFull, kNeedsInput, kFrameEnd };

  Result<void> Refill() {
    OCIFS_ASSIGN_OR_RETURN(input_, compressed_->Next());
    if (!input_.empty()) return {};
    if (part_ != Part::kMagic || head_size_ != 0 || !any_frame_) {
      return Corrupt("the data ends inside a frame");
    }
    part_ = Part::kEnd;
    return {};
  }

  // Takes bytes of what stands before the blocks of a frame.
  Result<void> ReadHead() {
    const size_t taken = std::min(head_wanted_ - head_size_, input_.size());
    std::memcpy(head_.data() + head_size_, input_.data(), taken);
    head_size_ += taken;
    input_ = input_.subspan(taken);
    if (head_size_ < head_wanted_) return {};
    switch (part_) {
      case Part::kMagic:
        return TakeMagic();
      case Part::kSkippableLength:
        skip_ = HeadValue();
        EnterPart(Part::kSkippable, 0);
        Skip();
        return {};
      default:
        return TakeFrameHeader();
    }
  }

  Result<void> TakeMagic() {
    const uint32_t magic = HeadValue();
    if ((magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START) {
      EnterPart(Part::kSkippableLength, kMagicBytes);
      return {};
    }
    if (magic != ZSTD_MAGICNUMBER) {
      return Corrupt(any_frame_ ? "bytes after the last frame" : "no zstd frame");
    }
    part_ = Part::kFrameHeader;
    head_wanted_ = kMagicBytes + 1;
    return {};
  }

  // libzstd gets the frame header whole and alone. Cut in two, a small frame's header makes it look
  // for a frame of its own in the second piece (1.5.4, ZSTD_decompressStream, "single-pass mode"),
  // and what it finds there takes the place of the real one.
  Result<void> TakeFrameHeader() {
    head_wanted_ = FrameHeaderBytes(std::to_integer<uint8_t>(head_[kMagicBytes]));
    if (head_size_ < head_wanted_) return {};
    ZSTD_inBuffer header{head_.data(), head_size_, 0};
    ZSTD_outBuffer none{nullptr, 0, 0};
    const size_t code = ZSTD_decompressStream(decoder_.get(), &none, &header);
    if (ZSTD_isError(code) != 0) return DecoderError(code);
    if (header.pos != header.size || code == 0) return Corrupt("invalid frame header");
    frame_bytes_ = 0;
    frame_size_ = ZSTD_getFrameContentSize(head_.data(), head_size_);
    EnterPart(Part::kFrame, 0);
    return {};
  }

  // RFC 8878 section 3.1.1.1: with the magic number, from the descriptor behind it.
  static size_t FrameHeaderBytes(uint8_t descriptor) {
    constexpr std::array<size_t, 4> kDictionaryIdBytes{0, 1, 2, 4};
    constexpr std::array<size_t, 4> kContentSizeBytes{0, 2, 4, 8};
    const bool single_segment = (descriptor >> 5 & 1) != 0;
    const size_t size_flag = descriptor >> 6;
    const size_t content_size = single_segment && size_flag == 0 ? 1 : kContentSizeBytes[size_flag];
    return kMagicBytes + 1 + (single_segment ? 0 : 1) + kDictionaryIdBytes[descriptor & 3] +
           content_size;
  }

  uint32_t HeadValue() const {
    uint32_t value = 0;
    for (size_t i = 4; i-- > 0;) value = value << 8 | std::to_integer<uint32_t>(head_[i]);
    return value;
  }

  void Skip() {
    const size_t skipped = std::min<size_t>(skip_, input_.size());
    input_ = input_.subspan(skipped);
    skip_ -= static_cast<uint32_t>(skipped);
    if (skip_ == 0) EndFrame();
  }

  Result<Progress> Decode(size_t& produced) {
    ZSTD_inBuffer in{input_.data(), input_.size(), 0};
    ZSTD_outBuffer out{output_.get(), kOutputBytes, produced};
    const size_t code = ZSTD_decompressStream(decoder_.get(), &out, &in);
    const bool progressed = in.pos != 0 || out.pos != produced;
    frame_bytes_ += out.pos - produced;
    produced = out.pos;
    input_ = input_.subspan(in.pos);
    if (ZSTD_isError(code) != 0) return DecoderError(code);
    if (code == 0) {
      // libzstd's streaming side lets an empty frame claim to hold something.
      if (frame_size_ != ZSTD_CONTENTSIZE_UNKNOWN && frame_size_ != frame_bytes_) {
        return Corrupt("a frame does not have the size that its header gives");
      }
      EndFrame();
      return Progress::kFrameEnd;
    }
    if (produced == kOutputBytes) return Progress::kOutputFull;
    if (!input_.empty() && !progressed) return Corrupt("the decoder makes no progress");
    return Progress::kNeedsInput;
  }

  void EndFrame() {
    any_frame_ = true;
    EnterPart(Part::kMagic, kMagicBytes);
  }

  void EnterPart(Part part, size_t head_wanted) {
    part_ = part;
    head_size_ = 0;
    head_wanted_ = head_wanted;
  }

  const std::unique_ptr<ByteStream> compressed_;
  const Decoder decoder_;
  const std::unique_ptr<std::byte[]> output_;
  std::span<const std::byte> input_;  // rest of the current piece of compressed_
  Part part_ = Part::kMagic;
  bool any_frame_ = false;
  // A frame's magic number and header, or a skippable frame's length.
  std::array<std::byte, kMaxFrameHeaderBytes> head_{};
  size_t head_size_ = 0;
  size_t head_wanted_ = kMagicBytes;
  unsigned long long frame_size_ = ZSTD_CONTENTSIZE_UNKNOWN;  // by the frame's header
  uint64_t frame_bytes_ = 0;                                  // of the frame, so far
  uint32_t skip_ = 0;
};

}  // namespace

Result<std::unique_ptr<ByteStream>> MakeZstdStream(std::unique_ptr<ByteStream> compressed) {
  Decoder decoder(ZSTD_createDCtx());
  if (decoder == nullptr) {
    return Fail(ErrorCode::kOutOfMemory, "decoding zstd: no memory for the decoder");
  }
  const size_t code = ZSTD_DCtx_setParameter(decoder.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  if (ZSTD_isError(code) != 0) return DecoderError(code);
  try {
    return std::make_unique<ZstdStream>(std::move(compressed), std::move(decoder));
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kOutOfMemory, "decoding zstd: no memory for the decoder");
  }
}

}  // namespace ocifs::store
