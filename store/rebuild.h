// Makes the index of a store anew from what else lies there: the journal, packs, trees and blobs.
//
// What comes back: references, pins, slots, packages, chunks, blobs. What does not: lists of tags,
// which are fetched again, and when packages were used last, if their trees are files.
#ifndef OCIFS_STORE_REBUILD_H_
#define OCIFS_STORE_REBUILD_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "store/error.h"

namespace ocifs::store {

struct RebuildReport {
  uint64_t references = 0;
  uint64_t pins = 0;
  uint64_t packages = 0;
  uint64_t blobs = 0;
  uint64_t chunks = 0;   // records found; a digest that was found twice counts twice
  uint64_t refused = 0;  // files and journal records that fail their checks
  std::chrono::milliseconds duration{0};
};

// For a process that has the store for itself. `root` is the path that `root_fd` was opened by;
// `why` is logged. The new index takes the place of the old one at the end: a crash leaves one of
// the two. kNoSpace when there is no room for it beside the old one. Cost: reads the headers of all
// packs and all trees.
Result<RebuildReport> RebuildIndex(int root_fd, const std::string& root, std::string_view why);

// Undoes what a rebuild that was cut short left behind. For a process that has the store for
// itself.
Result<void> FinishRebuild(int root_fd);

// Whether packs, trees, blobs or the journal have anything that an index should know.
Result<bool> HoldsContent(int root_fd);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_REBUILD_H_
