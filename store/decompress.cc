#include "store/decompress.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "store/gzip_stream.h"
#include "store/zstd_stream.h"

namespace ocifs::store {
namespace {

// The longest magic below: bzip2's, with the first block's, because "BZh" and a digit alone may
// well start a plain file.
constexpr size_t kSniffBytes = 10;

enum class Format { kPlain, kGzip, kZstd, kBzip2, kXz };

Format SniffFormat(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (text.starts_with("\x1F\x8B\x08")) return Format::kGzip;
  if (text.starts_with("\x28\xB5\x2F\xFD")) return Format::kZstd;
  // A skippable frame, 184D2A50 to 184D2A5F: pzstd begins with one.
  if (text.size() >= 4 && (static_cast<unsigned char>(text[0]) & 0xF0) == 0x50 &&
      text.substr(1, 3) == "\x2A\x4D\x18") {
    return Format::kZstd;
  }
  if (text.starts_with(std::string_view("\xFD\x37\x7A\x58\x5A\x00", 6))) return Format::kXz;
  if (text.size() >= kSniffBytes && text.starts_with("BZh") && text[3] >= '1' && text[3] <= '9' &&
      (text.substr(4, 6) == "\x31\x41\x59\x26\x53\x59" ||
       text.substr(4, 6) == "\x17\x72\x45\x38\x50\x90")) {
    return Format::kBzip2;
  }
  return Format::kPlain;
}

// `rest`, with bytes that were already taken from it put back in front.
class ResumedStream final : public ByteStream {
 public:
  explicit ResumedStream(std::unique_ptr<ByteStream> rest) : rest_(std::move(rest)) {}

  // Reads until at least kSniffBytes are known, or all. Next gives them again.
  Result<std::span<const std::byte>> Peek() {
    OCIFS_RETURN_IF_ERROR(Refill());
    if (piece_.size() >= kSniffBytes) return piece_;
    while (gathered_ < kSniffBytes && !piece_.empty()) {
      const size_t taken = std::min(piece_.size(), kSniffBytes - gathered_);
      std::memcpy(head_.data() + gathered_, piece_.data(), taken);
      gathered_ += taken;
      piece_ = piece_.subspan(taken);
      if (gathered_ < kSniffBytes) OCIFS_RETURN_IF_ERROR(Refill());
    }
    return std::span<const std::byte>(head_.data(), gathered_);
  }

  Result<std::span<const std::byte>> Next() override {
    if (gathered_ != 0)
      return std::span<const std::byte>(head_.data(), std::exchange(gathered_, 0));
    if (piece_.empty() && !ended_) OCIFS_RETURN_IF_ERROR(Refill());
    return std::exchange(piece_, {});
  }

 private:
  Result<void> Refill() {
    OCIFS_ASSIGN_OR_RETURN(piece_, rest_->Next());
    ended_ = piece_.empty();
    return {};
  }

  const std::unique_ptr<ByteStream> rest_;
  std::array<std::byte, kSniffBytes> head_{};
  size_t gathered_ = 0;               // bytes in head_ not yet given
  std::span<const std::byte> piece_;  // what is left of the piece last taken from rest_
  bool ended_ = false;
};

// Ends with kTooLarge instead of giving byte `limit` + 1.
class BoundedStream final : public ByteStream {
 public:
  BoundedStream(std::unique_ptr<ByteStream> stream, uint64_t limit)
      : stream_(std::move(stream)), limit_(limit), left_(limit) {}

  Result<std::span<const std::byte>> Next() override {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream_->Next());
    if (piece.size() > left_) {
      return Fail(ErrorCode::kTooLarge,
                  "unpacking: more than " + std::to_string(limit_) +
                      " plain bytes (limits.max_expansion, limits.max_unpacked)");
    }
    left_ -= piece.size();
    return piece;
  }

 private:
  const std::unique_ptr<ByteStream> stream_;
  const uint64_t limit_;
  uint64_t left_;
};

}  // namespace

Result<PlainStream> Decompress(std::unique_ptr<ByteStream> blob, uint64_t max_plain_bytes) {
  auto resumed = std::make_unique<ResumedStream>(std::move(blob));
  OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> head, resumed->Peek());
  PlainStream plain{Compression::kNone, nullptr};
  switch (SniffFormat(head)) {
    case Format::kPlain:
      plain.stream = std::move(resumed);
      break;
    case Format::kGzip: {
      plain.compression = Compression::kGzip;
      OCIFS_ASSIGN_OR_RETURN(plain.stream, MakeGzipStream(std::move(resumed)));
      break;
    }
    case Format::kZstd: {
      plain.compression = Compression::kZstd;
      OCIFS_ASSIGN_OR_RETURN(plain.stream, MakeZstdStream(std::move(resumed)));
      break;
    }
    case Format::kBzip2:
      return Fail(ErrorCode::kUnsupported, "unpacking: bzip2 is not read");
    case Format::kXz:
      return Fail(ErrorCode::kUnsupported, "unpacking: xz is not read");
  }
  plain.stream = std::make_unique<BoundedStream>(std::move(plain.stream), max_plain_bytes);
  return plain;
}

}  // namespace ocifs::store
