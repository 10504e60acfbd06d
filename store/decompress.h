// From the bytes of a layer blob to the plain bytes inside it.
#ifndef OCIFS_STORE_DECOMPRESS_H_
#define OCIFS_STORE_DECOMPRESS_H_

#include <cstdint>
#include <memory>

#include "store/byte_stream.h"
#include "store/error.h"

namespace ocifs::store {

enum class Compression { kNone, kGzip, kZstd };

struct PlainStream {
  Compression compression = Compression::kNone;
  std::unique_ptr<ByteStream> stream;
};

// Reads the first bytes of `blob` and decides by them alone, because media types lie: gzip (RFC
// 1952, any number of members), zstd (RFC 8878, any number of frames, skippable frames passed over;
// window at most 128 MiB), anything else unchanged. bzip2 and xz are kUnsupported.
//
// The stream gives kCorrupt for a wrong CRC or length, a cut stream, or bytes after the last member
// that are not zero (of zstd: any bytes after the last frame); kTooLarge beyond `max_plain_bytes`.
// It reads `blob` to its end before it reports its own end, so a digest taken on the way covers all
// of it.
Result<PlainStream> Decompress(std::unique_ptr<ByteStream> blob, uint64_t max_plain_bytes);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_DECOMPRESS_H_
