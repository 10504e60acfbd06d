// Reads all that a store has and says what of it is damaged, and what is not there.
//
// Content is read pack after pack, in the order in which it lies there. Other processes may use the
// store meanwhile, pull, and collect garbage: what looks wrong is looked up anew, in one state of
// the index, and read once more before it counts, as it may have moved or gone. Nothing is changed;
// repair.h does that.
#ifndef OCIFS_STORE_CHECK_H_
#define OCIFS_STORE_CHECK_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "store/chunk_location.h"
#include "store/digest.h"
#include "store/error.h"

namespace ocifs::store {

class Store;

struct CheckOptions {
  // Told now and then how many bytes of content were read, and how many there are. False ends the
  // check with kCancelled.
  std::function<bool(uint64_t done, uint64_t total)> progress;
};

struct DamagedChunk {
  enum class Flaw {
    kContent,  // cannot be read, or has another digest or length
    // The content is right, but the record's header in the pack is not: an index that is made anew
    // would not have the chunk.
    kHeader,
  };
  ChunkDigest digest;
  ChunkLocation location;
  Flaw flaw = Flaw::kContent;
};

struct DamagedBlob {
  Digest digest;
  std::string reason;
  std::vector<std::string> references;  // that stand for this very document
};

// Live records of a pack that neither a walk through it nor a package leads to: what the index says
// of them has to be made anew.
struct LostRecords {
  uint32_t pack = 0;
  uint64_t bytes = 0;
};

// A package of which something is damaged or not there.
struct PackageFindings {
  static constexpr size_t kNamedFiles = 8;

  Digest manifest;
  std::vector<std::string> references;  // that lead to it, as text
  std::string tree_error;               // why its tree cannot be used; else empty
  bool claims_too_much = false;         // it is said to be complete, and is not
  uint64_t damaged_files = 0;
  uint64_t damaged_bytes = 0;           // of chunks whose content is damaged
  std::vector<std::string> file_names;  // the first kNamedFiles of these files
  std::vector<Digest> damaged_blobs;    // its manifest, config or layers
  uint64_t absent_bytes = 0;            // of content that is not in the store: no damage
  bool is_damaged() const {
    return !tree_error.empty() || claims_too_much || damaged_files > 0 || !damaged_blobs.empty();
  }
};

struct CheckReport {
  // What there was.
  uint64_t packs = 0;
  uint64_t packages = 0;
  uint64_t chunks = 0;
  uint64_t blobs = 0;
  uint64_t bytes = 0;  // of chunks and blobs

  // Why the index cannot be believed; nothing else was looked at then.
  std::string index_error;
  std::vector<DamagedChunk> chunk_damage;  // by pack and offset
  std::vector<DamagedBlob> blob_damage;
  std::vector<LostRecords> lost_records;
  std::vector<PackageFindings> findings;

  // Files that the index does not know, which an opener that is alone or the next collection
  // removes; some may be on their way in. No damage.
  uint64_t leftover_files = 0;
  uint64_t leftover_bytes = 0;

  bool is_clean() const;
  // Whether only an index that is made anew can be right.
  bool needs_new_index() const { return !index_error.empty() || !lost_records.empty(); }
};

// kCancelled; kTooManyFiles, kOutOfMemory and the like when the check cannot be done; never an
// error for what is damaged. A package that is not complete, or a raw blob that was dropped, is
// none. Memory: what is damaged, 8 bytes for each record of one pack, and as much for each pack
// that has lost records. Cost: reads the whole store once, and each tree.
Result<CheckReport> CheckStore(Store& store, const CheckOptions& options);

// What the check is made of, for who has to look at one thing again.
enum class ChunkState { kAbsent, kWhole, kDamagedHeader, kDamaged };
struct CheckedChunk {
  ChunkState state = ChunkState::kAbsent;
  ChunkLocation location;  // of what is not absent
};
// The chunk as the index has it now.
Result<CheckedChunk> CheckChunk(Store& store, const ChunkDigest& digest);

// Why a raw blob of the store is damaged; empty when it is whole, or not there.
Result<std::string> CheckBlob(Store& store, const Digest& digest);

// A document as the store has it, damaged or not; empty when it is not there. Unlike
// BlobStore::ReadDocument it drops nothing.
Result<std::string> PeekDocument(Store& store, const Digest& digest);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_CHECK_H_
