// gzip, zstd and the limit on plain bytes. The first two bytes choose the limit, the rest is a
// blob.
//
// Holds for every input: no byte above the limit comes out; the verdict and the bytes do not depend
// on the pieces the blob came in; what is accepted as zstd, libzstd's one-shot decoder reads the
// same.
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "store/decompress.h"
#include "tests/harness/byte_streams.h"

namespace {

using ocifs::store::Compression;
using ocifs::store::PlainStream;
using ocifs::store::Result;

struct Unpacked {
  Compression compression = Compression::kNone;
  std::string bytes;

  friend bool operator==(const Unpacked&, const Unpacked&) = default;
};

// Nullopt when the blob is refused.
std::optional<Unpacked> Unpack(const std::string& blob, size_t piece_bytes, uint64_t limit) {
  Result<PlainStream> plain =
      ocifs::store::Decompress(ocifs::harness::StreamOf(blob, piece_bytes), limit);
  if (!plain) return std::nullopt;
  Unpacked unpacked{plain->compression, {}};
  while (true) {
    const auto piece = plain->stream->Next();
    if (!piece) return std::nullopt;
    if (piece->empty()) return unpacked;
    unpacked.bytes.append(reinterpret_cast<const char*>(piece->data()), piece->size());
    if (unpacked.bytes.size() > limit) std::abort();
  }
}

void CompareWithOneShot(const std::string& blob, const Unpacked& unpacked) {
  std::string plain(unpacked.bytes.size() + 1, '\0');
  const size_t size = ZSTD_decompress(plain.data(), plain.size(), blob.data(), blob.size());
  if (ZSTD_isError(size) != 0 || plain.substr(0, size) != unpacked.bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  // 0 to 4 MiB, mostly beyond what small inputs unpack to.
  const uint64_t limit = (uint64_t{data[0]} << 8 | data[1]) << 6;
  const std::string blob(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::optional<Unpacked> whole = Unpack(blob, size_t{1} << 20, limit);
  const size_t odd_piece = 1 + data[1] % 97;
  if (Unpack(blob, odd_piece, limit) != whole) std::abort();
  if (whole && whole->compression == Compression::kZstd) CompareWithOneShot(blob, *whole);
  return 0;
}
