// The LMDB index: what the store has and where it lies (FORMAT.md, section "Index").
//
// Reads are one short transaction each, never kept across calls. Writes are collected in an
// IndexBatch and become visible and durable together. Each value carries a CRC-32C, because LMDB
// finds no damage of its own; a value that fails it is kIndexDamaged.
#ifndef OCIFS_STORE_INDEX_H_
#define OCIFS_STORE_INDEX_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/chunk_location.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/log.h"
#include "store/reference.h"

namespace ocifs::store {

// What a tag or digest of a repository stood for when the registry last said so.
struct RefRecord {
  Digest digest;
  std::string media_type;
  int64_t fetched_at = 0;
  int64_t validated_at = 0;
};

struct PackageRecord {
  uint64_t tree_bytes = 0;
  uint64_t content_bytes = 0;  // as Tree::content_bytes
  uint32_t nodes = 0;
  int64_t fetched_at = 0;
};

// A raw blob. `content` is set when it is kept inside the index, else it is a file.
struct BlobRecord {
  uint64_t size = 0;
  std::optional<std::string> content;
};

struct PackRecord {
  static constexpr uint64_t kUnknownLength = UINT64_MAX;
  uint32_t id = 0;
  uint64_t length = 0;  // bytes that committed records may lie in
};

struct TagListRecord {
  std::vector<std::string> tags;
  bool complete = false;
  int64_t fetched_at = 0;
};

// A name for a directory below a mount point, kept so that inode numbers survive a restart.
struct SlotRecord {
  uint32_t slot = 0;
  std::string path;              // below the mount point, as it was spelled
  std::optional<Digest> digest;  // root digest of the package the directory shows
};

// Changes that belong together. Deletions of chunks are made before chunks are put; of other
// changes to one key the last counts. Thread-compatible.
class IndexBatch {
 public:
  void PutRef(const Reference& reference, const RefRecord& record);
  void DeleteRef(const Reference& reference);
  void PutPackage(const Digest& manifest, const PackageRecord& record);
  void DeletePackage(const Digest& manifest);
  void PutBlob(const Digest& digest, const BlobRecord& record);
  void DeleteBlob(const Digest& digest);
  void PutChunk(const ChunkDigest& digest, const ChunkLocation& location);
  void DeleteChunk(const ChunkDigest& digest);
  // Raises the length; never lowers it.
  void RaisePack(const PackRecord& record);
  void PutTagList(const Repository& repository, const TagListRecord& record);
  void PutSlot(const SlotRecord& record);

  bool empty() const { return changes_.empty() && chunks_.empty(); }

 private:
  friend class Index;
  enum class Table { kRefs, kPackages, kBlobs, kChunks, kPacks, kSlots, kTags };
  struct Change {
    Table table;
    bool raise_only;
    std::string key;
    std::optional<std::string> value;  // none: delete
  };
  void Put(Table table, std::string key, std::string value, bool raise_only = false);
  void Delete(Table table, std::string key);

  std::vector<Change> changes_;
  // Apart from the rest, because there may be millions of them.
  std::vector<std::pair<ChunkDigest, ChunkLocation>> chunks_;
};

// Thread-safe; several processes may have the same index open. Must not be carried over a fork.
class Index {
 public:
  // `path` is the directory of the LMDB environment; it must exist.
  static Result<std::unique_ptr<Index>> Open(const std::string& path);
  ~Index();
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  // One transaction, synced to the disk when the call returns. kNoSpace when the disk is full.
  Result<void> Commit(IndexBatch batch);

  Result<std::optional<RefRecord>> FindRef(const Reference& reference) const;
  Result<std::optional<PackageRecord>> FindPackage(const Digest& manifest) const;
  Result<std::optional<BlobRecord>> FindBlob(const Digest& digest) const;
  // The hot path: one lookup, no allocation.
  Result<std::optional<ChunkLocation>> FindChunk(const ChunkDigest& digest) const;
  Result<std::optional<PackRecord>> FindPack(uint32_t pack) const;
  // By id. A pack whose value is damaged has kUnknownLength.
  Result<std::vector<PackRecord>> Packs() const;
  Result<std::optional<TagListRecord>> FindTagList(const Repository& repository) const;
  // These and the listings below pass over damaged values, with a line in the log.
  Result<std::vector<SlotRecord>> Slots() const;

  // All keys of the refs table that start with `prefix` ("ghcr.io/a/b:"), in bytewise order; in a
  // transaction of its own each thousand, so that a long listing holds no reader back.
  Result<std::vector<std::pair<std::string, RefRecord>>> Refs(std::string_view prefix) const;
  Result<std::vector<Registry>> Registries() const;
  Result<bool> HasRegistry(const Registry& registry) const;
  Result<std::vector<Digest>> Packages() const;
  Result<uint64_t> PackageCount() const;
  Result<std::vector<std::pair<Digest, BlobRecord>>> Blobs() const;

  // The next free pack id, entered with `length` at once (one commit).
  Result<uint32_t> ReservePack(uint64_t length);

 private:
  class Rep;
  explicit Index(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

// A damaged record is as good as none: all that the index knows can be had again. Logged.
template <typename Record>
Result<std::optional<Record>> OrMissing(Result<std::optional<Record>> found) {
  if (found || found.error().code != ErrorCode::kIndexDamaged) return found;
  Log(LogLevel::kWarning, found.error().message + "; it counts as missing");
  return std::optional<Record>();
}

}  // namespace ocifs::store

#endif  // OCIFS_STORE_INDEX_H_
