// Byte streams for tests.
#ifndef OCIFS_TESTS_HARNESS_BYTE_STREAMS_H_
#define OCIFS_TESTS_HARNESS_BYTE_STREAMS_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/byte_stream.h"
#include "store/error.h"

namespace ocifs::harness {

// Gives `bytes` in pieces of `piece_bytes`, then ends, or fails where an error is given. Each piece
// is an allocation of its own, freed by the next call, so that a sanitizer sees who keeps one too
// long.
class StringStream final : public store::ByteStream {
 public:
  explicit StringStream(std::string bytes, size_t piece_bytes = size_t{64} << 10,
                        std::optional<store::Error> error = std::nullopt)
      : bytes_(std::move(bytes)), piece_bytes_(piece_bytes), error_(std::move(error)) {}

  store::Result<std::span<const std::byte>> Next() override {
    const std::span<const std::byte> rest =
        std::as_bytes(std::span(bytes_.data(), bytes_.size())).subspan(given_);
    const std::span<const std::byte> piece = rest.first(std::min(piece_bytes_, rest.size()));
    piece_ = std::make_unique<std::vector<std::byte>>(piece.begin(), piece.end());
    given_ += piece.size();
    if (piece.empty() && error_) return store::Fail(*error_);
    return std::span<const std::byte>(*piece_);
  }

 private:
  const std::string bytes_;
  const size_t piece_bytes_;
  const std::optional<store::Error> error_;
  size_t given_ = 0;
  std::unique_ptr<std::vector<std::byte>> piece_;
};

inline std::unique_ptr<store::ByteStream> StreamOf(std::string bytes,
                                                   size_t piece_bytes = size_t{64} << 10) {
  return std::make_unique<StringStream>(std::move(bytes), piece_bytes);
}

// A stream that gives `bytes` and then fails with `error`.
inline std::unique_ptr<store::ByteStream> StreamThatFails(std::string bytes, store::Error error,
                                                          size_t piece_bytes = size_t{64} << 10) {
  return std::make_unique<StringStream>(std::move(bytes), piece_bytes, std::move(error));
}

// All bytes of `stream` up to its end.
inline store::Result<std::string> ReadAll(store::ByteStream& stream) {
  std::string all;
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream.Next());
    if (piece.empty()) return all;
    all.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
}

}  // namespace ocifs::harness

#endif  // OCIFS_TESTS_HARNESS_BYTE_STREAMS_H_
