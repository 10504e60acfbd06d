// Runs a stream on a thread of its own, a bounded number of bytes ahead of its reader.
#ifndef OCIFS_STORE_READ_AHEAD_H_
#define OCIFS_STORE_READ_AHEAD_H_

#include <cstddef>
#include <memory>

#include "store/byte_stream.h"

namespace ocifs::store {

// `upstream` is read, and destroyed, on the new thread; its pieces are copied into at most
// `buffers` buffers of `buffer_bytes` each (small pieces are gathered until a buffer is full, so
// the hand-over costs one wake-up per buffer). Errors come in order, after the bytes before them.
// Destroying the returned stream stops the thread as soon as upstream's Next() returns.
std::unique_ptr<ByteStream> ReadAhead(std::unique_ptr<ByteStream> upstream,
                                      size_t buffer_bytes = size_t{1} << 20, int buffers = 4);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_READ_AHEAD_H_
