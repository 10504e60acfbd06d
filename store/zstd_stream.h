// Decodes zstd (RFC 8878) with libzstd.
#ifndef OCIFS_STORE_ZSTD_STREAM_H_
#define OCIFS_STORE_ZSTD_STREAM_H_

#include <memory>

#include "store/byte_stream.h"
#include "store/error.h"

namespace ocifs::store {

// The plain bytes of all frames of `compressed`, in pieces of 1 MiB (the last one shorter), so
// where a piece ends does not depend on the pieces of `compressed`. Skippable frames are passed
// over unread. Content checksums are verified where a frame carries one.
//
// kCorrupt for anything malformed, cut, or not a frame of the current format; kTooLarge for a
// window over 128 MiB; kUnsupported for a frame that needs a dictionary. Memory is the window's
// size at most, and taken only when a frame asks for it.
Result<std::unique_ptr<ByteStream>> MakeZstdStream(std::unique_ptr<ByteStream> compressed);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_ZSTD_STREAM_H_
