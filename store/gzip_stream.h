// Decodes gzip (RFC 1952) with ISA-L.
#ifndef OCIFS_STORE_GZIP_STREAM_H_
#define OCIFS_STORE_GZIP_STREAM_H_

#include <memory>

#include "store/byte_stream.h"
#include "store/error.h"

namespace ocifs::store {

// The plain bytes of all members of `compressed`, in pieces of 1 MiB (the last one shorter), so
// where a piece ends does not depend on the pieces of `compressed`. Members may be empty and any
// number; zeros may follow the last one. CRC-32 and length of each member are checked, and the
// header CRC where there is one: a piece that holds bytes of a member with a fault may have been
// given out before the fault was seen, so the bytes count only once the stream has ended well.
//
// kCorrupt for anything malformed, cut, or followed by other bytes; an empty stream counts as cut.
Result<std::unique_ptr<ByteStream>> MakeGzipStream(std::unique_ptr<ByteStream> compressed);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_GZIP_STREAM_H_
