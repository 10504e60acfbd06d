// A sequence of bytes that is read once, in order, in pieces that the producer chooses.
#ifndef OCIFS_STORE_BYTE_STREAM_H_
#define OCIFS_STORE_BYTE_STREAM_H_

#include <cstddef>
#include <span>

#include "store/error.h"

namespace ocifs::store {

// Owned by one thread at a time. Destroying a stream early abandons the rest of it.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // The next bytes, at least one; empty at the end, and then again at each call. Borrowed until the
  // next call. Blocks.
  // After an error, the stream is good for nothing but destruction.
  virtual Result<std::span<const std::byte>> Next() = 0;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_BYTE_STREAM_H_
