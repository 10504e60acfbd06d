// Entries of a plain tar stream, strictly read.
//
// libarchive does the reading (POSIX.1-2001 pax, ustar, GNU, old tar). What it lets pass and other
// readers read differently is refused here, so that one archive has one meaning: see the list at
// CheckHeaderBlocks in tar_header_policy.h. Names are bytes; the locale has no say.
#ifndef OCIFS_STORE_TAR_READER_H_
#define OCIFS_STORE_TAR_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "store/byte_stream.h"
#include "store/error.h"
#include "store/limits.h"
#include "store/node.h"

namespace ocifs::store {

struct TarEntry {
  // Components joined by '/', without "." and without a leading or trailing slash; empty for the
  // root. Never holds "..", an empty component, a NUL, or a component over kMaxNameBytes.
  std::string path;
  NodeAttributes attributes;
  bool is_hard_link = false;
  bool is_absolute = false;  // the archive's own name for it starts with '/'
  // Of a symlink: the target as written, 1 to kMaxLinkTargetBytes bytes.
  // Of a hard link: the path of an earlier entry, in the form of `path`.
  std::string link_target;
  Xattrs xattrs;  // all that the archive names, unfiltered; SCHILY.xattr.* without that prefix
};

struct TarBlock {
  uint64_t offset = 0;  // in the file; bytes between blocks, and up to the size, are zero
  std::span<const std::byte> data;
  // Where `data` stands in the plain stream, so that it can be found again.
  uint64_t stream_offset = 0;
};

// Owned by one thread.
class TarReader {
 public:
  // Takes `stream`, the plain tar. An empty stream is an archive without entries. A stream that
  // ends after the last entry without padding or end-of-archive blocks is accepted (umoci writes
  // such layers).
  static Result<std::unique_ptr<TarReader>> Open(std::unique_ptr<ByteStream> stream,
                                                 const Limits& limits);
  virtual ~TarReader() = default;

  // The next entry, null at the end of the archive. Borrowed until the next call. Data of the
  // entry before that was not read is passed over. At the end, the stream has been read to its own
  // end and held nothing but zeros.
  // kCorrupt for a malformed or ambiguous archive, kTooLarge beyond a limit (of Limits, or of
  // node.h for names, paths and link targets), else what the stream reported.
  virtual Result<const TarEntry*> NextEntry() = 0;

  // The next stored bytes of the current regular file, in rising order of offset; `data` is empty
  // at its end. Borrowed until the next call of this object. No copy is made of large blocks.
  virtual Result<TarBlock> NextBlock() = 0;
};

// Whether `head`, the first bytes of a plain stream (512 suffice), start a tar archive: a header
// block whose checksum is right, or two zero blocks.
bool LooksLikeTar(std::span<const std::byte> head);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TAR_READER_H_
