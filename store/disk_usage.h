// What each package of a store costs, and what it shares with others.
#ifndef OCIFS_STORE_DISK_USAGE_H_
#define OCIFS_STORE_DISK_USAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "store/digest.h"
#include "store/error.h"

namespace ocifs::store {

class Store;

// Bytes. What a package is stored as: chunks of its files, raw blobs and config, its manifest and
// the indexes that references lead to it through, its tree. Each counts once a package, and only if
// the store has it; what surrounds it in packs and in the index does not count.
struct PackageUsage {
  Digest manifest;
  // As text, sorted: tags, and digests that no tag of their repository stands for.
  std::vector<std::string> references;
  std::vector<Digest> roots;  // what references that lead to it stand for: it, or indexes
  uint64_t apparent = 0;      // sizes of its files, hard links once
  uint64_t stored = 0;        // of that what the store has
  uint64_t shared = 0;        // of that what other packages of the store consist of, too
  uint64_t reclaimable = 0;   // what removing this package alone would free; nothing if pinned
  bool pinned = false;
};

struct DiskUsage {
  std::vector<PackageUsage> packages;  // those worth removing first
  uint64_t apparent = 0;               // of all packages
  uint64_t stored = 0;                 // of all packages, everything once
  uint64_t shared = 0;                 // of that what more than one package consists of
  uint64_t on_disk = 0;                // blocks of all files of the store, whatever is in them
};

// Cost: reads each tree and each document once, and looks up each distinct chunk in the index.
// Memory: what is counted is told apart by 64 bits of its digest, in tables of 16 bytes a slot that
// are between 3/8 and 3/4 full (so 22 to 43 bytes a distinct chunk, half as much again while a
// table grows), and the result. Of 10^8 chunks, two are taken for one with a chance of 1 in 3,000.
// A package that changes meanwhile is counted as it was at some moment.
Result<DiskUsage> MeasureDiskUsage(Store& store);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_DISK_USAGE_H_
