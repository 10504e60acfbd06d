// The LMDB index: what the store has and where it lies (FORMAT.md, section "Index").
//
// Reads are one short transaction each, never kept across calls, but for an IndexSnapshot. Writes
// are collected in an IndexBatch and become visible and durable together. Each value carries a
// CRC-32C over its key and itself, because LMDB finds no damage of its own; a value that fails it
// is kIndexDamaged, and leaves a marker (crash_marker.h), so that the next start makes the index
// anew. What the index alone knows (references, pins, slots, inline blobs and trees) is written to
// the journal too (journal.h), from which rebuild.h takes it.
#ifndef OCIFS_STORE_INDEX_H_
#define OCIFS_STORE_INDEX_H_

#include <chrono>
#include <cstdint>
#include <functional>
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
  int64_t used_at = 0;              // last use, to the minutes that it is written behind (Touch)
  std::optional<std::string> tree;  // kept inside the index; else it is a file
  // Whether all of its content was in the store at its commit and has not been found damaged since.
  bool complete = true;

  friend bool operator==(const PackageRecord&, const PackageRecord&) = default;
};

// As a listing has it.
struct PackageEntry {
  Digest manifest;
  PackageRecord record;  // without the tree
  bool has_inline_tree = false;
};

// A raw blob. `content` is set when it is kept inside the index, else it is a file.
struct BlobRecord {
  uint64_t size = 0;
  std::optional<std::string> content;
};

struct PackRecord {
  static constexpr uint64_t kUnknownLength = UINT64_MAX;
  uint32_t id = 0;
  uint64_t length = 0;      // bytes that committed records may lie in
  uint64_t live_bytes = 0;  // of records that the chunks table names, as RecordBytes counts them
};

// What a chunk of that length takes in a pack: header and content, filled up to 8 bytes.
constexpr uint64_t RecordBytes(uint64_t length) { return 48 + (length + 7) / 8 * 8; }

// Sums over the tables, kept right by every commit.
struct IndexTotals {
  uint64_t packages = 0;
  uint64_t blob_file_bytes = 0;  // of raw blobs that are files
  uint64_t tree_file_bytes = 0;  // of trees that are files
  uint64_t live_bytes = 0;       // of all packs
  uint64_t evictions = 0;        // commits so far that took away chunks, blobs or packages

  friend bool operator==(const IndexTotals&, const IndexTotals&) = default;
};

// Keeps a reference and the package behind it from being evicted.
struct PinRecord {
  std::string reference;  // as text
  Digest digest;          // root digest when it was pinned
  int64_t pinned_at = 0;
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

enum class IndexTable : uint8_t;  // index_records.h
class IndexWriter;

// Changes that belong together. Of several changes to one key the last counts; but deletions and
// moves of chunks are made before chunks are put. Thread-compatible.
class IndexBatch {
 public:
  void PutRef(const Reference& reference, const RefRecord& record);
  void DeleteRef(const Reference& reference);
  void PutPackage(const Digest& manifest, const PackageRecord& record);
  void DeletePackage(const Digest& manifest);
  // Raises used_at of a package that is there; changes nothing else.
  void Touch(const Digest& manifest, int64_t used_at);
  void PutPin(const PinRecord& pin);
  void DeletePin(const Reference& reference);
  void PutBlob(const Digest& digest, const BlobRecord& record);
  void DeleteBlob(const Digest& digest);
  void PutChunk(const ChunkDigest& digest, const ChunkLocation& location);
  void DeleteChunk(const ChunkDigest& digest);
  // Of chunks that moved from one pack to another: put only where the index still has `from`.
  void MoveChunk(const ChunkDigest& digest, const ChunkLocation& from, const ChunkLocation& to);
  // Deletes a chunk only where the index still has that location.
  void DeleteChunkAt(const ChunkDigest& digest, const ChunkLocation& location);
  // Raises the length; never lowers it. live_bytes is the index's own business.
  void RaisePack(uint32_t pack, uint64_t length);
  // Ids are never given again.
  void DeletePack(uint32_t pack);
  void PutTagList(const Repository& repository, const TagListRecord& record);
  void PutSlot(const SlotRecord& record);

  bool empty() const { return changes_.empty() && moves_.empty() && chunks_.empty(); }

 private:
  friend class Index;
  friend class IndexWriter;
  struct Change {
    enum class Kind { kPut, kDelete, kRaisePack, kTouch };
    Kind kind;
    IndexTable table;
    std::string key;
    std::string value;    // kPut
    uint64_t length = 0;  // kRaisePack
    int64_t used_at = 0;  // kTouch
  };
  // Of a chunk that must (or need not) lie at `from`, which then lies at `to` or nowhere.
  struct Move {
    ChunkDigest digest;
    std::optional<ChunkLocation> from;
    std::optional<ChunkLocation> to;
  };
  void Put(IndexTable table, std::string key, std::string value);
  void Delete(IndexTable table, std::string key);

  std::vector<Change> changes_;
  std::vector<Move> moves_;
  // Apart from the rest, because there may be millions of them.
  std::vector<std::pair<ChunkDigest, ChunkLocation>> chunks_;
};

// One state of the index. Owned by one thread.
class IndexSnapshot {
 public:
  IndexSnapshot(IndexSnapshot&& other) noexcept;
  IndexSnapshot& operator=(IndexSnapshot&&) = delete;
  ~IndexSnapshot();

  Result<std::optional<RefRecord>> FindRef(const Reference& reference) const;
  Result<std::optional<PinRecord>> FindPin(const Reference& reference) const;
  Result<std::optional<PackageRecord>> FindPackage(const Digest& manifest) const;
  Result<std::optional<BlobRecord>> FindBlob(const Digest& digest) const;
  Result<std::optional<ChunkLocation>> FindChunk(const ChunkDigest& digest) const;
  Result<std::optional<PackRecord>> FindPack(uint32_t pack) const;
  Result<std::vector<Digest>> Packages() const;
  Result<std::vector<PinRecord>> Pins() const;
  Result<std::vector<std::pair<std::string, RefRecord>>> Refs(std::string_view prefix) const;
  Result<IndexTotals> Totals() const;

 private:
  friend class Index;
  class Rep;
  explicit IndexSnapshot(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

// Thread-safe; several processes may have the same index open, but each process once. Must not be
// carried over a fork.
class Index {
 public:
  struct Options {
    // Address space, not disk: the file grows as it is used. Less where the process may not have so
    // much; more when it is full, which costs those who read at the moment a pause.
    uint64_t map_bytes = uint64_t{64} << 30;
    bool read_only = false;
  };
  // `path` is the directory of the LMDB environment; it must exist. kIndexDamaged when what lies
  // there is none, or not all of one.
  static Result<std::unique_ptr<Index>> Open(const std::string& path, const Options& options);
  static Result<std::unique_ptr<Index>> Open(const std::string& path) { return Open(path, {}); }
  ~Index();
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  // One transaction, synced to the disk when the call returns. kNoSpace when the disk is full or
  // the store read-only. Nothing is changed after an error.
  Result<void> Commit(IndexBatch batch);
  // The same; `check` is asked inside the transaction, before any change, and may add to the batch
  // or give up with an error. No other process commits between what it sees and what is written. It
  // reads through the snapshot that it is given, and calls nothing else of the index; it may be
  // asked again when the transaction has to be. Gives the transaction's number.
  using Check = std::function<Result<void>(const IndexSnapshot&, IndexBatch&)>;
  Result<uint64_t> Commit(IndexBatch batch, const Check& check);
  // Number of the last transaction that was committed by anybody.
  Result<uint64_t> LastTransaction() const;
  // Waits until nobody, in any process, reads a state older than that of transaction `number`.
  // False when somebody still does after `patience`. Snapshots of the caller count.
  Result<bool> WaitForReaders(uint64_t number, std::chrono::milliseconds patience) const;

  // A state of the index that stays while the object lives: what a chunk's location points to is
  // not punched or unlinked before that. Shortly, one per thread at a time; no other call of the
  // index by this thread meanwhile.
  Result<IndexSnapshot> Snapshot() const;

  Result<std::optional<RefRecord>> FindRef(const Reference& reference) const;
  Result<std::optional<PinRecord>> FindPin(const Reference& reference) const;
  Result<std::optional<PackageRecord>> FindPackage(const Digest& manifest) const;
  Result<std::optional<BlobRecord>> FindBlob(const Digest& digest) const;
  // The hot path: one lookup, no allocation.
  Result<std::optional<ChunkLocation>> FindChunk(const ChunkDigest& digest) const;
  Result<std::optional<PackRecord>> FindPack(uint32_t pack) const;
  // By id. A pack whose value is damaged has kUnknownLength.
  Result<std::vector<PackRecord>> Packs() const;
  Result<std::optional<TagListRecord>> FindTagList(const Repository& repository) const;
  Result<IndexTotals> Totals() const;
  // These and the listings below pass over damaged values, with a line in the log.
  Result<std::vector<SlotRecord>> Slots() const;
  Result<std::vector<PinRecord>> Pins() const;

  // All keys of the refs table that start with `prefix` ("ghcr.io/a/b:"), in bytewise order; this
  // and the listings below in a transaction of its own each thousand, so that a long listing holds
  // no reader back.
  Result<std::vector<std::pair<std::string, RefRecord>>> Refs(std::string_view prefix) const;
  Result<std::vector<Registry>> Registries() const;
  Result<bool> HasRegistry(const Registry& registry) const;
  Result<std::vector<Digest>> Packages() const;
  Result<std::vector<PackageEntry>> PackageEntries() const;
  Result<uint64_t> PackageCount() const;
  // Without the content of those that are inline: an empty one stands for it.
  Result<std::vector<std::pair<Digest, BlobRecord>>> Blobs() const;

  // The next pack id, entered with `length` at once (one commit). Ids are never given again.
  Result<uint32_t> ReservePack(uint64_t length);

  // Writes the journal anew from the tables if most of it is out of date, or some of it is gone.
  // Called by whoever is alone with the store, and by the collector. Cost: when there is something
  // to do, a write of all that lies in the index alone, inside a write transaction.
  Result<void> CompactJournal();

  // Reads everything in one transaction: the order of keys, all checksums, and whether the sums,
  // the counts of entries and of pages, and the journal say the same. kIndexDamaged, with the
  // reason, and the marker is left. Writers in all processes wait meanwhile. Cost: reads the whole
  // index and the journal.
  Result<void> Verify() const;
  // Bytes of the file that are in use.
  uint64_t FileBytes() const;

 private:
  friend class IndexSnapshot;
  friend class IndexWriter;
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
