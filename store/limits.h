// Bounds on what an artifact may cost. Exceeding one is kTooLarge, with the limit's name.
#ifndef OCIFS_STORE_LIMITS_H_
#define OCIFS_STORE_LIMITS_H_

#include <cstdint>

namespace ocifs::store {

struct Limits {
  uint64_t max_blob_bytes = uint64_t{64} << 30;       // of one blob as pulled
  uint64_t max_unpacked_bytes = uint64_t{256} << 30;  // of all file content of one package, plain
  // Plain bytes out of a compressed blob: at most `max_expansion` times its size, where a smaller
  // blob counts as 4 MiB. (Real layers reach about 1:50; a gzip bomb 1:1000, a zstd bomb 1:10,000.)
  uint64_t max_expansion = 250;
  uint64_t max_entries = 5'000'000;              // archive entries of one package
  uint32_t max_depth = 1024;                     // components in a path
  uint64_t max_xattr_bytes = uint64_t{1} << 20;  // names and values of one entry
  uint64_t max_xattr_value_bytes = uint64_t{64} << 10;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LIMITS_H_
