// One layer blob on its way into the store: verified, decompressed, cut into chunks, appended to a
// pack.
//
//   blob stream → verify + keep raw → decompress → diff_id │ → tar → chunks → pack
//                    (one thread)                          │     (the caller's thread)
#ifndef OCIFS_STORE_INGEST_H_
#define OCIFS_STORE_INGEST_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/blob_store.h"
#include "store/byte_stream.h"
#include "store/chunk_location.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/index.h"
#include "store/layer.h"
#include "store/limits.h"
#include "store/manifest.h"
#include "store/pack.h"
#include "store/unkept_chunks.h"

namespace ocifs::store {

using ChunkMap = std::unordered_map<ChunkDigest, ChunkLocation, ChunkDigestHash>;

// Passes a blob's bytes on, and ends with an error instead of the end unless they were exactly the
// descriptor's (kCorrupt: more bytes, fewer bytes, another digest). Copies them to `keep` when
// given. `moved` is told of each piece.
std::unique_ptr<ByteStream> VerifyBlob(std::unique_ptr<ByteStream> upstream,
                                       const Descriptor& expected, StagedBlob* keep,
                                       std::function<void(uint64_t)> moved);

// Reads a stream of at most `max_bytes` into memory; kTooLarge beyond.
Result<std::string> ReadAll(ByteStream& stream, uint64_t max_bytes);

// What an ingested layer is made of.
struct IngestedLayer {
  Layer layer;
  // SHA-256 of the plain stream; none when the blob was taken as a file, not as an archive.
  std::optional<Digest> diff_id;
};

// Cuts content into chunks and appends those that the store lacks. When the store cannot grow, the
// rest is not kept, but offered to `unkept`; nothing fails for that. Owned by one thread.
class ChunkWriter {
 public:
  // Without `pack` nothing is kept. With `stored`, what the index knows is compared with its packs
  // first, and appended again where it differs: the way to restore damaged content.
  ChunkWriter(std::unique_ptr<PackWriter> pack, const Index& index, UnkeptChunks& unkept,
              const PackSet* stored = nullptr);
  ~ChunkWriter();

  // Takes one layer's blob. `archive_only`: what is not a tar is kCorrupt (images); else it becomes
  // one file of the name that its title gives, or "<algorithm>-<hex>" (artifacts). `blob` must be a
  // stream that verifies. `layer_number` goes into the chunks.
  Result<IngestedLayer> Ingest(std::unique_ptr<ByteStream> blob, const Descriptor& descriptor,
                               uint32_t layer_number, bool archive_only, const Limits& limits);

  // Hands what is buffered to the kernel.
  Result<void> Flush();
  // Forgets what was appended since the pack had that length.
  Result<void> RollBackTo(uint64_t pack_length);
  uint64_t pack_length() const { return pack_ == nullptr ? 0 : pack_->length(); }

  PackWriter* pack() const { return pack_.get(); }
  std::unique_ptr<PackWriter> TakePack() { return std::move(pack_); }
  // Why some chunks were not kept.
  const std::optional<Error>& failure() const { return failure_; }

  // Chunks appended so far that were new to the store.
  const ChunkMap& added() const { return added_; }

 private:
  class File;
  Result<void> IngestArchive(std::unique_ptr<ByteStream> plain, uint32_t layer_number,
                             const Limits& limits, Layer& layer);
  Result<void> IngestFile(std::unique_ptr<ByteStream> content, const Descriptor& descriptor,
                          uint32_t layer_number, const Limits& limits, Layer& layer);
  bool keeps() const { return pack_ != nullptr && !failure_; }
  void BeginChunk();
  Result<void> AppendToChunk(std::span<const std::byte> bytes);
  std::span<const std::byte> Chunk() const;
  void DropChunk();
  // Ends the open chunk: keeps it, or drops it when the store has that content.
  Result<ChunkDigest> FinishChunk();
  // Whether the open chunk's bytes are what lies at `location`.
  bool IsStoredAt(const ChunkLocation& location);
  // From now on nothing is kept.
  Result<void> GiveUp(Error error);

  std::unique_ptr<PackWriter> pack_;
  const Index& index_;
  UnkeptChunks& unkept_;
  std::optional<Error> failure_;
  std::vector<std::byte> loose_;  // the open chunk, when there is no pack to hold it
  const PackSet* const stored_;
  std::vector<std::byte> compared_;
  ChunkMap added_;
  Hasher hasher_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_INGEST_H_
