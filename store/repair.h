// Mends what a check found (check.h).
//
// What is damaged goes out of the index first, so that nobody meets it again; then what went comes
// back: from raw blobs that the store has, else from the registry.
#ifndef OCIFS_STORE_REPAIR_H_
#define OCIFS_STORE_REPAIR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/check.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/pull_through.h"

namespace ocifs::store {

// A package that is not whole after the repair. Readers get it when it can be had again.
struct LackingPackage {
  Digest manifest;
  std::vector<std::string> references;
  uint64_t bytes = 0;          // of its content that the store lacks
  bool is_forgotten = false;   // its tree went: all of it is pulled anew
  std::optional<Error> error;  // why it could not be had; none when no reference leads to it
};

struct RepairReport {
  uint64_t dropped_chunks = 0;
  uint64_t moved_chunks = 0;  // whole ones, whose records were written anew
  uint64_t dropped_blobs = 0;
  uint64_t dropped_packages = 0;  // whose trees were damaged
  uint64_t restored_packages = 0;
  std::vector<LackingPackage> lacking;
  // Raw blobs that were dropped and are not back. Only exports and repairs need them.
  std::vector<Digest> lacking_blobs;
  // What is damaged still, and why.
  std::vector<std::string> uncorrected;
};

// Mends what `report` says, but what needs a new index. Nothing that was written since the check is
// touched. Other processes may use the store. An error when the index cannot be written; what can
// not be fetched is no error. May use the network, unless the cache is offline. Cost: what was
// damaged is read again, and each layer that it was in is unpacked once.
Result<RepairReport> RepairStore(PullThrough& cache, const CheckReport& report,
                                 const RequestContext& context);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_REPAIR_H_
