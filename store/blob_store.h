// Raw blobs as they were pulled: manifests, configs, layers. Small ones lie in the index, others
// are files, laid out as the blobs of an OCI image layout.
#ifndef OCIFS_STORE_BLOB_STORE_H_
#define OCIFS_STORE_BLOB_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>

#include "store/byte_stream.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/file.h"
#include "store/index.h"
#include "store/mutex.h"
#include "store/staged_file.h"

namespace ocifs::store {

class Space;

// A blob on its way in. Owned by one thread.
class StagedBlob {
 public:
  // kNoSpace when the store must not or cannot grow.
  Result<void> Append(std::span<const std::byte> bytes);
  // After an append that failed: what there is goes.
  void GiveUp(const Error& error);
  bool is_whole() const { return !failure_; }
  const std::optional<Error>& failure() const { return failure_; }

 private:
  friend class BlobStore;
  StagedBlob(std::string memory, std::optional<StagedFile> file)
      : memory_(std::move(memory)), file_(std::move(file)) {}
  std::string memory_;
  std::optional<StagedFile> file_;
  std::optional<Error> failure_;
};

// Thread-safe.
class BlobStore {
 public:
  // Blobs up to this size lie in the index: a file each would cost more than they hold.
  static constexpr uint64_t kInlineBytes = uint64_t{16} << 10;
  static bool IsInline(uint64_t size) { return size <= kInlineBytes; }

  // `directory` is blobs/. Without `space` there is no limit.
  static Result<std::unique_ptr<BlobStore>> Open(UniqueFd directory, Index& index,
                                                 Space* space = nullptr);

  // Room for a blob of `size` bytes.
  Result<StagedBlob> Stage(const Digest& digest, uint64_t size);
  // Makes the verified bytes durable and enters them in `batch`, which the caller commits. From
  // before this call until after that commit the caller holds the store's publish lock, shared.
  Result<void> Publish(StagedBlob& blob, const Digest& digest, IndexBatch& batch);

  // The bytes as a stream, not verified; null when the store has no such blob, or not all of it.
  Result<std::unique_ptr<ByteStream>> OpenStream(const Digest& digest) const;

  // A document: read whole and verified; nullopt when the store has no such blob, or when what it
  // has is damaged (which is logged, and dropped). kTooLarge over kMaxDocumentBytes.
  Result<std::optional<std::string>> ReadDocument(const Digest& digest);

  // Reads exactly out.size() bytes at `offset`, which must lie inside the blob. The first read of a
  // blob in this process verifies it whole. False when the store has no such blob or it turned out
  // damaged (which is logged, and dropped).
  Result<bool> Read(const Digest& digest, uint64_t offset, std::span<std::byte> out);

  // Forgets the blob. Its file goes with the next RemoveLeftovers.
  Result<void> Drop(const Digest& digest);

  // When the blob's file was written, in seconds since the epoch; 0 when there is none.
  Result<int64_t> ModifiedAt(const Digest& digest) const;

  // Removes files that the index does not know, and gives their size. Only while no other process
  // has the store open, or with the store's publish lock held, exclusive.
  Result<uint64_t> RemoveLeftovers();

 private:
  BlobStore(UniqueFd sha256, UniqueFd sha512, Index& index, Space* space)
      : sha256_(std::move(sha256)), sha512_(std::move(sha512)), index_(index), space_(space) {}
  int DirectoryFor(const Digest& digest) const;
  // kCorrupt when there is no regular file of that size.
  Result<UniqueFd> OpenFile(const Digest& digest, uint64_t size) const;
  Result<std::unique_ptr<ByteStream>> OpenContent(const Digest& digest, BlobRecord record) const;
  // Whether the content is what the digest says; asked once a process and blob.
  Result<bool> Verify(const Digest& digest, const BlobRecord& record);
  void DropDamaged(const Digest& digest);

  const UniqueFd sha256_;
  const UniqueFd sha512_;
  Index& index_;
  Space* const space_;
  Mutex mutex_;
  std::unordered_set<Digest, DigestHash> verified_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_BLOB_STORE_H_
