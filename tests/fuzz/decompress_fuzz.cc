// gzip, zstd and the limit on plain bytes. The first two bytes choose the limit, the rest is a
// blob.
//
// Holds for every input: no byte above the limit comes out; the verdict and the bytes do not depend
// on the pieces the blob came in.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "store/decompress.h"
#include "tests/harness/byte_streams.h"

namespace {

using ocifs::store::PlainStream;
using ocifs::store::Result;

// The plain bytes; nullopt when the blob is refused.
std::optional<std::string> Unpack(const std::string& blob, size_t piece_bytes, uint64_t limit) {
  Result<PlainStream> plain =
      ocifs::store::Decompress(ocifs::harness::StreamOf(blob, piece_bytes), limit);
  if (!plain) return std::nullopt;
  std::string all;
  while (true) {
    const auto piece = plain->stream->Next();
    if (all.size() > limit) std::abort();
    if (!piece) return std::nullopt;
    if (piece->empty()) return all;
    all.append(reinterpret_cast<const char*>(piece->data()), piece->size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  // 0 to 4 MiB, mostly beyond what small inputs unpack to.
  const uint64_t limit = (uint64_t{data[0]} << 8 | data[1]) << 6;
  const std::string blob(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::optional<std::string> whole = Unpack(blob, size_t{1} << 20, limit);
  const size_t odd_piece = 1 + data[1] % 97;
  if (Unpack(blob, odd_piece, limit) != whole) std::abort();
  return 0;
}
