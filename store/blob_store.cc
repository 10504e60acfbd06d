#include "store/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "store/log.h"
#include "store/manifest.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

class MemoryStream final : public ByteStream {
 public:
  explicit MemoryStream(std::string bytes) : bytes_(std::move(bytes)) {}
  Result<std::span<const std::byte>> Next() override {
    if (std::exchange(done_, true)) return std::span<const std::byte>();
    return AsBytes(bytes_);
  }

 private:
  const std::string bytes_;
  bool done_ = false;
};

class FileStream final : public ByteStream {
 public:
  explicit FileStream(UniqueFd fd) : fd_(std::move(fd)), buffer_(size_t{1} << 20) {}
  Result<std::span<const std::byte>> Next() override {
    while (true) {
      const ssize_t count = read(fd_.get(), buffer_.data(), buffer_.size());
      if (count >= 0) return std::span(buffer_).first(static_cast<size_t>(count));
      if (errno == EINTR) continue;
      // As in ReadExactly: what cannot be read is damaged.
      return Fail(ErrorCode::kCorrupt,
                  ErrorFromErrno(errno, "reading a blob of the store").message);
    }
  }

 private:
  const UniqueFd fd_;
  std::vector<std::byte> buffer_;
};

}  // namespace

Result<void> StagedBlob::Append(std::span<const std::byte> bytes) {
  if (file_) return file_->Append(bytes);
  memory_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return {};
}

void StagedBlob::GiveUp(const Error& error) {
  failure_ = error;
  file_.reset();
  memory_.clear();
}

Result<std::unique_ptr<BlobStore>> BlobStore::Open(UniqueFd directory, Index& index, Space* space) {
  OCIFS_ASSIGN_OR_RETURN(UniqueFd sha256, OpenDirectory(directory.get(), "sha256", 0700));
  OCIFS_ASSIGN_OR_RETURN(UniqueFd sha512, OpenDirectory(directory.get(), "sha512", 0700));
  return std::unique_ptr<BlobStore>(
      new BlobStore(std::move(sha256), std::move(sha512), index, space));
}

int BlobStore::DirectoryFor(const Digest& digest) const {
  return digest.algorithm() == DigestAlgorithm::kSha256 ? sha256_.get() : sha512_.get();
}

Result<StagedBlob> BlobStore::Stage(const Digest& digest, uint64_t size) {
  if (IsInline(size)) return StagedBlob(std::string(), std::nullopt);
  OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(DirectoryFor(digest), space_));
  return StagedBlob(std::string(), std::move(file));
}

Result<void> BlobStore::Publish(StagedBlob& blob, const Digest& digest, IndexBatch& batch) {
  if (blob.failure_) return Fail(*blob.failure_);
  if (!blob.file_) {
    batch.PutBlob(digest, BlobRecord{blob.memory_.size(), blob.memory_});
    return {};
  }
  OCIFS_RETURN_IF_ERROR(blob.file_->Publish(digest.hex()));
  OCIFS_RETURN_IF_ERROR(SyncDirectory(DirectoryFor(digest), "blobs"));
  batch.PutBlob(digest, BlobRecord{blob.file_->size(), std::nullopt});
  return {};
}

Result<UniqueFd> BlobStore::OpenFile(const Digest& digest, uint64_t size) const {
  Result<UniqueFd> fd = OpenAt(DirectoryFor(digest), digest.hex(), O_RDONLY);
  if (!fd) {
    if (fd.error().code == ErrorCode::kStoreIo) fd.error().code = ErrorCode::kCorrupt;
    return fd;
  }
  struct stat status;
  if (fstat(fd->get(), &status) != 0) return Fail(ErrorFromErrno(errno, "reading a blob"));
  if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) != size) {
    return Fail(ErrorCode::kCorrupt, "it is not a file of its size");
  }
  return fd;
}

Result<std::unique_ptr<ByteStream>> BlobStore::OpenContent(const Digest& digest,
                                                           BlobRecord record) const {
  if (record.content) return std::make_unique<MemoryStream>(*std::move(record.content));
  OCIFS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(digest, record.size));
  return std::make_unique<FileStream>(std::move(fd));
}

Result<std::unique_ptr<ByteStream>> BlobStore::OpenStream(const Digest& digest) const {
  OCIFS_ASSIGN_OR_RETURN(std::optional<BlobRecord> record, OrMissing(index_.FindBlob(digest)));
  if (!record) return nullptr;
  Result<std::unique_ptr<ByteStream>> stream = OpenContent(digest, *std::move(record));
  if (!stream && stream.error().code == ErrorCode::kCorrupt) {
    Log(LogLevel::kWarning,
        "blob " + digest.ToString() + " is damaged in the store: " + stream.error().message);
    return nullptr;
  }
  return stream;
}

// A store that cannot be written keeps the record, and finds the damage again.
void BlobStore::DropDamaged(const Digest& digest) {
  Log(LogLevel::kWarning, "blob " + digest.ToString() + " is damaged in the store; dropped");
  if (const Result<void> dropped = Drop(digest); !dropped) {
    Log(LogLevel::kWarning, dropped.error().message);
  }
}

Result<std::optional<std::string>> BlobStore::ReadDocument(const Digest& digest) {
  OCIFS_ASSIGN_OR_RETURN(std::optional<BlobRecord> record, OrMissing(index_.FindBlob(digest)));
  if (!record) return std::optional<std::string>();
  if (record->size > kMaxDocumentBytes) {
    return Fail(ErrorCode::kTooLarge, "blob " + digest.ToString() + " is too large for a document");
  }
  auto read = [&]() -> Result<std::string> {
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream,
                           OpenContent(digest, *std::move(record)));
    std::string document;
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream->Next());
      if (piece.empty()) return document;
      document.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    }
  };
  Result<std::string> document = read();
  if (!document && document.error().code != ErrorCode::kCorrupt) {
    return Fail(std::move(document).error());
  }
  if (!document || Digest::Of(AsBytes(*document), digest.algorithm()) != digest) {
    DropDamaged(digest);
    return std::optional<std::string>();
  }
  return *std::move(document);
}

Result<bool> BlobStore::Verify(const Digest& digest, const BlobRecord& record) {
  {
    const MutexLock lock(mutex_);
    if (verified_.contains(digest)) return true;
  }
  Hasher hasher(digest.algorithm());
  auto hash = [&]() -> Result<void> {
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream, OpenContent(digest, record));
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream->Next());
      if (piece.empty()) return {};
      hasher.Update(piece);
    }
  };
  if (Result<void> hashed = hash(); !hashed) {
    if (hashed.error().code == ErrorCode::kCorrupt) return false;
    return Fail(std::move(hashed).error());
  }
  if (hasher.Finish() != digest) return false;
  const MutexLock lock(mutex_);
  verified_.insert(digest);
  return true;
}

Result<bool> BlobStore::Read(const Digest& digest, uint64_t offset, std::span<std::byte> out) {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> record,
                         OrMissing(index_.FindBlob(digest)));
  if (!record) return false;
  if (offset > record->size || out.size() > record->size - offset) {
    return Fail(ErrorCode::kInternal, "read beyond the end of a blob");
  }
  OCIFS_ASSIGN_OR_RETURN(bool good, Verify(digest, *record));
  if (good && record->content) {
    const auto bytes = AsBytes(*record->content).subspan(offset, out.size());
    std::copy(bytes.begin(), bytes.end(), out.begin());
  } else if (good) {
    Result<UniqueFd> fd = OpenFile(digest, record->size);
    const Result<void> read = fd ? ReadExactly(fd->get(), offset, out, digest.ToString())
                                 : Result<void>(Fail(std::move(fd).error()));
    if (!read && read.error().code != ErrorCode::kCorrupt) return Fail(read.error());
    good = read.has_value();
  }
  if (!good) DropDamaged(digest);
  return good;
}

Result<void> BlobStore::Drop(const Digest& digest) {
  IndexBatch batch;
  batch.DeleteBlob(digest);
  OCIFS_RETURN_IF_ERROR(index_.Commit(std::move(batch)));
  const MutexLock lock(mutex_);
  verified_.erase(digest);
  return {};
}

Result<int64_t> BlobStore::ModifiedAt(const Digest& digest) const {
  struct stat status;
  if (fstatat(DirectoryFor(digest), digest.hex().c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return 0;
    return Fail(ErrorFromErrno(errno, "reading a blob"));
  }
  return int64_t{status.st_mtim.tv_sec};
}

Result<uint64_t> BlobStore::RemoveLeftovers() {
  uint64_t bytes = 0;
  for (const DigestAlgorithm algorithm : {DigestAlgorithm::kSha256, DigestAlgorithm::kSha512}) {
    const int fd = algorithm == DigestAlgorithm::kSha256 ? sha256_.get() : sha512_.get();
    OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(fd));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(fd));
    for (const std::string& name : names) {
      const Result<Digest> digest =
          Digest::Parse(std::string(DigestAlgorithmName(algorithm)) + ":" + name);
      if (!digest) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> record,
                             OrMissing(index_.FindBlob(*digest)));
      if (record && !record->content) continue;
      struct stat status;
      if (fstatat(fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (unlinkat(fd, name.c_str(), 0) == 0) bytes += static_cast<uint64_t>(status.st_size);
    }
  }
  return bytes;
}

}  // namespace ocifs::store
