#include "store/pack.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "store/index.h"
#include "store/log.h"
#include "store/text.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

constexpr std::array<char, 8> kPackMagic = {'O', 'C', 'I', 'F', 'S', 'P', 'A', 'K'};
constexpr uint32_t kPackVersion = 1;
constexpr uint32_t kRecordMagic = 0x4B484346;  // "FCHK" as it lies in the file

struct PackHeader {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t pack;
  uint32_t crc;  // of the fields above
  uint32_t reserved;
};
static_assert(sizeof(PackHeader) == 24);

struct RecordHeader {
  uint32_t magic;
  uint32_t crc;  // of the fields below
  uint64_t length;
  std::array<std::byte, 32> digest;
};
static_assert(sizeof(RecordHeader) == 48);

constexpr size_t kRecordAlignment = 8;
constexpr size_t kFlushBytes = size_t{4} << 20;
// The kernel is told to start writing in steps of this size, so that the sync at the end of a pull
// finds little left to do.
constexpr uint64_t kWriteBackBytes = uint64_t{16} << 20;

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

uint32_t RecordCrc(const RecordHeader& header) {
  return Crc32c(BytesOf(header).subspan(offsetof(RecordHeader, length)));
}
uint32_t HeaderCrc(const PackHeader& header) {
  return Crc32c(BytesOf(header).first(offsetof(PackHeader, crc)));
}

}  // namespace

// --- PackWriter ----------------------------------------------------------------------------------

PackWriter::PackWriter(uint32_t pack, UniqueFd fd, uint64_t length)
    : pack_(pack), fd_(std::move(fd)), flushed_(length), write_back_from_(length) {}
PackWriter::~PackWriter() = default;

void PackWriter::Begin() {
  while (buffer_.size() % kRecordAlignment != 0) buffer_.push_back(std::byte{0});
  record_ = buffer_.size();
  buffer_.resize(record_ + sizeof(RecordHeader));
}

Result<void> PackWriter::Append(std::span<const std::byte> bytes) {
  if (Pending().size() + bytes.size() > kMaxChunkBytes) {
    return Fail(ErrorCode::kInternal, "a chunk grew beyond its limit");
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  return {};
}

std::span<const std::byte> PackWriter::Pending() const {
  return std::span(buffer_).subspan(record_ + sizeof(RecordHeader));
}

Result<ChunkLocation> PackWriter::Keep(const ChunkDigest& digest) {
  RecordHeader header{kRecordMagic, 0, Pending().size(), digest.bytes};
  header.crc = RecordCrc(header);
  std::memcpy(buffer_.data() + record_, &header, sizeof header);
  const ChunkLocation location{pack_, flushed_ + record_ + sizeof header, header.length};
  record_ = buffer_.size();
  if (buffer_.size() >= kFlushBytes) OCIFS_RETURN_IF_ERROR(Flush());
  return location;
}

void PackWriter::Drop() { buffer_.resize(record_); }

Result<void> PackWriter::Flush() {
  while (buffer_.size() % kRecordAlignment != 0) buffer_.push_back(std::byte{0});
  OCIFS_RETURN_IF_ERROR(WriteExactly(fd_.get(), flushed_, buffer_, PackSet::FileName(pack_)));
  flushed_ += buffer_.size();
  buffer_.clear();
  record_ = 0;
  if (flushed_ - write_back_from_ >= kWriteBackBytes) {
    // A hint; what it cannot do, the sync does.
    sync_file_range(fd_.get(), static_cast<off_t>(write_back_from_),
                    static_cast<off_t>(flushed_ - write_back_from_), SYNC_FILE_RANGE_WRITE);
    write_back_from_ = flushed_;
  }
  return {};
}

Result<void> PackWriter::RollBackTo(uint64_t length) {
  if (length >= flushed_) {
    buffer_.resize(static_cast<size_t>(length - flushed_));
    record_ = buffer_.size();
    return {};
  }
  buffer_.clear();
  record_ = 0;
  if (ftruncate(fd_.get(), static_cast<off_t>(length)) != 0) {
    return Fail(ErrorFromErrno(errno, "cutting " + PackSet::FileName(pack_)));
  }
  flushed_ = length;
  write_back_from_ = std::min(write_back_from_, length);
  return {};
}

// --- PackSet -------------------------------------------------------------------------------------

PackSet::PackSet(UniqueFd directory, Index& index)
    : directory_(std::move(directory)),
      index_(index),
      descriptors_(std::make_unique<std::array<std::atomic<int>, kMaxPacks>>()) {
  for (std::atomic<int>& descriptor : *descriptors_) {
    descriptor.store(-1, std::memory_order_relaxed);
  }
}

PackSet::~PackSet() {
  for (const std::atomic<int>& descriptor : *descriptors_) {
    if (descriptor.load() >= 0) close(descriptor.load());
  }
}

std::string PackSet::FileName(uint32_t pack) {
  std::array<std::byte, 4> bytes;
  for (int i = 0; i < 4; ++i) bytes[3 - i] = static_cast<std::byte>(pack >> (8 * i));
  return ToHex(bytes) + ".pack";
}

Result<std::unique_ptr<PackWriter>> PackSet::Acquire() {
  {
    const MutexLock lock(mutex_);
    while (!idle_.empty()) {
      std::unique_ptr<PackWriter> writer = std::move(idle_.back());
      idle_.pop_back();
      if (writer->length() < kFullBytes) return writer;
    }
  }
  // The newest packs are the ones that may have room and no writer.
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, index_.Packs());
  constexpr size_t kTried = 4;
  for (size_t i = 0; i < std::min(kTried, packs.size()); ++i) {
    const PackRecord& pack = packs[packs.size() - 1 - i];
    if (pack.length >= kFullBytes) continue;
    Result<std::unique_ptr<PackWriter>> writer = OpenForAppend(pack.id, pack.length);
    if (writer) {
      if (*writer != nullptr) return writer;
    } else {
      Log(LogLevel::kWarning,
          "pack " + FileName(pack.id) + " is passed over: " + writer.error().message);
    }
  }
  return Create();
}

// Null when another process writes it.
Result<std::unique_ptr<PackWriter>> PackSet::OpenForAppend(uint32_t pack, uint64_t length) {
  OCIFS_ASSIGN_OR_RETURN(UniqueFd fd,
                         OpenAt(directory_.get(), FileName(pack), O_RDWR | O_CREAT, 0600));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return nullptr;
  // Its last writer may have committed more between our look at the index and the lock.
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackRecord> record, index_.FindPack(pack));
  if (record) length = record->length;
  if (length <= sizeof(PackHeader)) {
    // Reserved, and never committed to: whatever is in the file, nobody needs it.
    if (ftruncate(fd.get(), 0) != 0)
      return Fail(ErrorFromErrno(errno, "cutting " + FileName(pack)));
    PackHeader header{kPackMagic, kPackVersion, pack, 0, 0};
    header.crc = HeaderCrc(header);
    OCIFS_RETURN_IF_ERROR(WriteExactly(fd.get(), 0, BytesOf(header), FileName(pack)));
    OCIFS_RETURN_IF_ERROR(SyncDirectory(directory_.get(), "packs"));
    return std::unique_ptr<PackWriter>(new PackWriter(pack, std::move(fd), sizeof header));
  }
  struct stat status;
  if (fstat(fd.get(), &status) != 0) {
    return Fail(ErrorFromErrno(errno, "reading " + FileName(pack)));
  }
  if (static_cast<uint64_t>(status.st_size) < length) {
    return Fail(ErrorCode::kCorrupt, FileName(pack) + " is shorter than the index says");
  }
  if (ftruncate(fd.get(), static_cast<off_t>(length)) != 0) {
    return Fail(ErrorFromErrno(errno, "cutting " + FileName(pack)));
  }
  return std::unique_ptr<PackWriter>(new PackWriter(pack, std::move(fd), length));
}

Result<std::unique_ptr<PackWriter>> PackSet::Create() {
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const uint32_t pack, index_.ReservePack(sizeof(PackHeader)));
    if (pack >= kMaxPacks) {
      return Fail(ErrorCode::kNoSpace, "the store has " + std::to_string(kMaxPacks) +
                                           " packs, which is as many as it can hold");
    }
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<PackWriter> writer,
                           OpenForAppend(pack, sizeof(PackHeader)));
    if (writer != nullptr) return writer;  // else somebody saw it first and took it
  }
}

void PackSet::Release(std::unique_ptr<PackWriter> writer) {
  const MutexLock lock(mutex_);
  idle_.push_back(std::move(writer));
}

Result<int> PackSet::Descriptor(uint32_t pack) const {
  if (pack >= kMaxPacks) return Fail(ErrorCode::kIndexDamaged, "a chunk lies in no pack");
  std::atomic<int>& slot = (*descriptors_)[pack];
  int fd = slot.load(std::memory_order_acquire);
  if (fd >= 0) return fd;
  Result<UniqueFd> opened = OpenAt(directory_.get(), FileName(pack), O_RDONLY);
  if (!opened) {
    if (opened.error().code == ErrorCode::kStoreIo) opened.error().code = ErrorCode::kCorrupt;
    return Fail(std::move(opened).error());
  }
  int expected = -1;
  if (slot.compare_exchange_strong(expected, opened->get(), std::memory_order_acq_rel)) {
    return opened->release();
  }
  return expected;
}

Result<void> PackSet::Read(const ChunkLocation& location, uint64_t skip,
                           std::span<std::byte> out) const {
  OCIFS_ASSIGN_OR_RETURN(const int fd, Descriptor(location.pack));
  return ReadExactly(fd, location.offset + skip, out, FileName(location.pack));
}

Result<void> PackSet::RemoveLeftovers() {
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, index_.Packs());
  OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory_.get()));
  for (const std::string& name : names) {
    if (!name.ends_with(".pack")) continue;
    const bool known = std::any_of(packs.begin(), packs.end(), [&](const PackRecord& pack) {
      return FileName(pack.id) == name;
    });
    if (known) continue;
    const Result<UniqueFd> fd = OpenAt(directory_.get(), name, O_RDWR);
    if (!fd || flock(fd->get(), LOCK_EX | LOCK_NB) != 0) continue;
    unlinkat(directory_.get(), name.c_str(), 0);
    Log(LogLevel::kInfo, "removed pack " + name + ", which no package uses");
  }
  return {};
}

Result<void> PackSet::Scan(
    uint32_t pack,
    const std::function<void(const ChunkDigest&, const ChunkLocation&)>& visit) const {
  OCIFS_ASSIGN_OR_RETURN(const int fd, Descriptor(pack));
  struct stat status;
  if (fstat(fd, &status) != 0) return Fail(ErrorFromErrno(errno, "reading " + FileName(pack)));
  const auto size = static_cast<uint64_t>(status.st_size);
  PackHeader header;
  OCIFS_RETURN_IF_ERROR(
      ReadExactly(fd, 0, std::as_writable_bytes(std::span(&header, 1)), FileName(pack)));
  if (header.magic != kPackMagic || header.version != kPackVersion || header.pack != pack ||
      header.crc != HeaderCrc(header)) {
    return Fail(ErrorCode::kCorrupt, FileName(pack) + " does not start as a pack does");
  }
  uint64_t at = sizeof header;
  while (at + sizeof(RecordHeader) <= size) {
    RecordHeader record;
    OCIFS_RETURN_IF_ERROR(
        ReadExactly(fd, at, std::as_writable_bytes(std::span(&record, 1)), FileName(pack)));
    at += sizeof record;
    if (record.magic != kRecordMagic || record.crc != RecordCrc(record) ||
        record.length > size - at) {
      break;
    }
    visit(ChunkDigest{record.digest}, ChunkLocation{pack, at, record.length});
    at += (record.length + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
  }
  return {};
}

Result<void> PackSet::Sync(uint32_t pack) const {
  OCIFS_ASSIGN_OR_RETURN(const int fd, Descriptor(pack));
  return SyncData(fd, FileName(pack));
}

}  // namespace ocifs::store
