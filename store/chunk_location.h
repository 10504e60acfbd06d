// Where a chunk's plain bytes lie.
#ifndef OCIFS_STORE_CHUNK_LOCATION_H_
#define OCIFS_STORE_CHUNK_LOCATION_H_

#include <cstdint>

namespace ocifs::store {

struct ChunkLocation {
  uint32_t pack = 0;
  uint64_t offset = 0;  // in the pack file
  uint64_t length = 0;

  friend bool operator==(const ChunkLocation&, const ChunkLocation&) = default;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_CHUNK_LOCATION_H_
