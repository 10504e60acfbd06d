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
#include "store/space.h"
#include "store/text.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

constexpr std::array<char, 8> kPackMagic = {'O', 'C', 'I', 'F', 'S', 'P', 'A', 'K'};
constexpr uint32_t kPackVersion = 1;
constexpr uint32_t kRecordMagic = 0x4B484346;  // "FCHK" as it lies in the file
constexpr uint32_t kGapMagic = 0x50414746;     // "FGAP": dead records were here

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

static_assert(RecordBytes(0) == sizeof(RecordHeader));

constexpr size_t kRecordAlignment = 8;
constexpr uint64_t kPageBytes = 4096;  // what holes are made of
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

PackWriter::PackWriter(uint32_t pack, PackLock fd, uint64_t length, Space* space)
    : pack_(pack), fd_(std::move(fd)), space_(space), flushed_(length), write_back_from_(length) {}
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

ChunkLocation PackWriter::Keep(const ChunkDigest& digest) {
  RecordHeader header{kRecordMagic, 0, Pending().size(), digest.bytes};
  header.crc = RecordCrc(header);
  std::memcpy(buffer_.data() + record_, &header, sizeof header);
  const ChunkLocation location{pack_, flushed_ + record_ + sizeof header, header.length};
  record_ = buffer_.size();
  return location;
}

void PackWriter::Drop() { buffer_.resize(record_); }

std::span<const std::byte> PackWriter::Buffered(const ChunkLocation& location) const {
  return std::span(buffer_).subspan(location.offset - flushed_, location.length);
}

bool PackWriter::WantsFlush() const { return buffer_.size() >= kFlushBytes; }

Result<void> PackWriter::Flush() {
  while (buffer_.size() % kRecordAlignment != 0) buffer_.push_back(std::byte{0});
  if (buffer_.empty()) return {};
  if (space_ != nullptr) OCIFS_RETURN_IF_ERROR(space_->Take(buffer_.size()));
  Result<void> written = WriteExactly(fd_->get(), flushed_, buffer_, PackSet::FileName(pack_));
  if (space_ != nullptr) space_->LetGo(buffer_.size());
  if (!written) return written;
  flushed_ += buffer_.size();
  buffer_.clear();
  record_ = 0;
  if (flushed_ - write_back_from_ >= kWriteBackBytes) {
    // A hint; what it cannot do, the sync does.
    sync_file_range(fd_->get(), static_cast<off_t>(write_back_from_),
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
  if (ftruncate(fd_->get(), static_cast<off_t>(length)) != 0) {
    return Fail(ErrorFromErrno(errno, "cutting " + PackSet::FileName(pack_)));
  }
  flushed_ = length;
  write_back_from_ = std::min(write_back_from_, length);
  return {};
}

// --- PackSet: writers ----------------------------------------------------------------------------

PackSet::PackSet(UniqueFd directory, Index& index, Space* space)
    : directory_(std::move(directory)),
      index_(index),
      space_(space),
      descriptors_(std::make_unique<std::array<std::atomic<DescriptorPage*>, kPageEntries>>()) {}

PackSet::~PackSet() {
  for (const std::atomic<DescriptorPage*>& page : *descriptors_) {
    const std::unique_ptr<DescriptorPage> owned(page.load());
    if (owned == nullptr) continue;
    for (const std::atomic<int>& descriptor : *owned) {
      if (descriptor.load() >= 0) close(descriptor.load());
    }
  }
}

std::string PackSet::FileName(uint32_t pack) {
  std::array<std::byte, 4> bytes;
  for (int i = 0; i < 4; ++i) bytes[3 - i] = static_cast<std::byte>(pack >> (8 * i));
  return ToHex(bytes) + ".pack";
}

uint64_t PackSet::full_bytes() const {
  if (space_ == nullptr) return kFullBytes;
  return std::clamp(space_->limits().max_bytes / 16, kLeastFullBytes, kFullBytes);
}

PackLock PackSet::OwnLock(uint32_t pack) {
  const MutexLock lock(mutex_);
  const auto own = own_locks_.find(pack);
  return own == own_locks_.end() ? nullptr : own->second.lock();
}

Result<std::unique_ptr<PackWriter>> PackSet::Acquire() {
  {
    const MutexLock lock(mutex_);
    while (!idle_.empty()) {
      std::unique_ptr<PackWriter> writer = std::move(idle_.back());
      idle_.pop_back();
      if (writer->length() < full_bytes()) return writer;
    }
  }
  // The newest packs are the ones that may have room and no writer.
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, index_.Packs());
  constexpr size_t kTried = 4;
  for (size_t i = 0; i < std::min(kTried, packs.size()); ++i) {
    const PackRecord& pack = packs[packs.size() - 1 - i];
    if (pack.length >= full_bytes()) continue;
    Result<std::unique_ptr<PackWriter>> writer = OpenForAppend(pack.id, pack.length);
    if (writer) {
      if (*writer != nullptr) return writer;
    } else {
      if (writer.error().code == ErrorCode::kNoSpace) return writer;
      Log(LogLevel::kWarning,
          "pack " + FileName(pack.id) + " is passed over: " + writer.error().message);
    }
  }
  return Create();
}

Result<PackLock> PackSet::TryLock(uint32_t pack, int flags) const {
  OCIFS_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(directory_.get(), FileName(pack), flags, 0600));
  struct stat status;
  if (fstat(fd.get(), &status) != 0) {
    return Fail(ErrorFromErrno(errno, "reading " + FileName(pack)));
  }
  if (!S_ISREG(status.st_mode)) return Fail(ErrorCode::kCorrupt, FileName(pack) + " is no file");
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return PackLock();
  return std::make_shared<const UniqueFd>(std::move(fd));
}

Result<std::unique_ptr<PackWriter>> PackSet::OpenForAppend(uint32_t pack, uint64_t length) {
  // A new one is made here; one that was committed to is never made anew.
  const bool is_new = length <= sizeof(PackHeader);
  OCIFS_ASSIGN_OR_RETURN(const PackLock fd, TryLock(pack, O_RDWR | (is_new ? O_CREAT : 0)));
  if (fd == nullptr) return nullptr;
  {
    const MutexLock lock(mutex_);
    std::erase_if(own_locks_, [](const auto& own) { return own.second.expired(); });
    own_locks_[pack] = fd;
  }
  // Its last writer may have committed more between our look at the index and the lock, or a
  // collector may have removed it.
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackRecord> record, index_.FindPack(pack));
  if (!record) {
    unlinkat(directory_.get(), FileName(pack).c_str(), 0);
    return nullptr;
  }
  length = record->length;
  if (length <= sizeof(PackHeader)) {
    // Reserved, and never committed to: whatever is in the file, nobody needs it.
    if (ftruncate(fd->get(), 0) != 0)
      return Fail(ErrorFromErrno(errno, "cutting " + FileName(pack)));
    PackHeader header{kPackMagic, kPackVersion, pack, 0, 0};
    header.crc = HeaderCrc(header);
    OCIFS_RETURN_IF_ERROR(WriteExactly(fd->get(), 0, BytesOf(header), FileName(pack)));
    OCIFS_RETURN_IF_ERROR(SyncDirectory(directory_.get(), "packs"));
    return std::unique_ptr<PackWriter>(new PackWriter(pack, fd, sizeof header, space_));
  }
  struct stat status;
  if (fstat(fd->get(), &status) != 0) {
    return Fail(ErrorFromErrno(errno, "reading " + FileName(pack)));
  }
  if (static_cast<uint64_t>(status.st_size) < length) {
    return Fail(ErrorCode::kCorrupt, FileName(pack) + " is shorter than the index says");
  }
  if (ftruncate(fd->get(), static_cast<off_t>(length)) != 0) {
    return Fail(ErrorFromErrno(errno, "cutting " + FileName(pack)));
  }
  return std::unique_ptr<PackWriter>(new PackWriter(pack, fd, length, space_));
}

Result<std::unique_ptr<PackWriter>> PackSet::Create() {
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const uint32_t pack, index_.ReservePack(sizeof(PackHeader)));
    if (pack >= kMaxPacks) {
      return Fail(ErrorCode::kNoSpace, "the store has had " + std::to_string(kMaxPacks) +
                                           " packs, which is as many as it can number");
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

void PackSet::CloseIdle() {
  const MutexLock lock(mutex_);
  idle_.clear();
}

// --- PackSet: reading ----------------------------------------------------------------------------

Result<std::atomic<int>*> PackSet::DescriptorSlot(uint32_t pack) const {
  if (pack >= kMaxPacks) return Fail(ErrorCode::kIndexDamaged, "a chunk lies in no pack");
  std::atomic<DescriptorPage*>& page = (*descriptors_)[pack / kPageEntries];
  DescriptorPage* entries = page.load(std::memory_order_acquire);
  if (entries == nullptr) {
    auto made = std::make_unique<DescriptorPage>();
    for (std::atomic<int>& descriptor : *made) descriptor.store(-1, std::memory_order_relaxed);
    if (page.compare_exchange_strong(entries, made.get(), std::memory_order_acq_rel)) {
      entries = made.release();
    }
  }
  return &(*entries)[pack % kPageEntries];
}

Result<int> PackSet::Descriptor(uint32_t pack) const {
  OCIFS_ASSIGN_OR_RETURN(std::atomic<int>* const slot, DescriptorSlot(pack));
  int fd = slot->load(std::memory_order_acquire);
  if (fd >= 0) return fd;
  Result<UniqueFd> opened = OpenAt(directory_.get(), FileName(pack), O_RDONLY);
  if (!opened) {
    if (opened.error().code == ErrorCode::kStoreIo) opened.error().code = ErrorCode::kCorrupt;
    return Fail(std::move(opened).error());
  }
  int expected = -1;
  if (slot->compare_exchange_strong(expected, opened->get(), std::memory_order_acq_rel)) {
    return opened->release();
  }
  return expected;
}

Result<void> PackSet::Read(const ChunkLocation& location, uint64_t skip,
                           std::span<std::byte> out) const {
  OCIFS_ASSIGN_OR_RETURN(const int fd, Descriptor(location.pack));
  return ReadExactly(fd, location.offset + skip, out, FileName(location.pack));
}

Result<void> PackSet::Sync(uint32_t pack) const {
  OCIFS_ASSIGN_OR_RETURN(const int fd, Descriptor(pack));
  return SyncData(fd, FileName(pack));
}

Result<uint64_t> PackSet::DiskBytes(uint32_t pack) const {
  struct stat status;
  if (fstatat(directory_.get(), FileName(pack).c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return 0;
    return Fail(ErrorFromErrno(errno, "reading " + FileName(pack)));
  }
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

Result<uint64_t> PackSet::DiskBytes() const {
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, index_.Packs());
  uint64_t total = 0;
  for (const PackRecord& pack : packs) {
    OCIFS_ASSIGN_OR_RETURN(const uint64_t bytes, DiskBytes(pack.id));
    total += bytes;
  }
  return total;
}

// --- PackSet: walking ----------------------------------------------------------------------------

namespace {

// Reads a pack's headers through a window, for most records are smaller than a page.
class Window {
 public:
  Window(int fd, uint64_t size, std::string name) : fd_(fd), size_(size), name_(std::move(name)) {}

  // False when fewer than out.size() bytes are left.
  Result<bool> Read(uint64_t offset, std::span<std::byte> out) {
    if (out.size() > size_ || offset > size_ - out.size()) return false;
    if (offset < start_ || offset + out.size() > start_ + bytes_.size()) {
      start_ = offset;
      bytes_.resize(static_cast<size_t>(std::min<uint64_t>(kBytes, size_ - offset)));
      if (Result<void> read = ReadExactly(fd_, start_, bytes_, name_); !read) {
        bytes_.clear();
        return Fail(std::move(read).error());
      }
    }
    std::memcpy(out.data(), bytes_.data() + (offset - start_), out.size());
    return true;
  }

 private:
  static constexpr size_t kBytes = 65536;
  const int fd_;
  const uint64_t size_;
  const std::string name_;
  uint64_t start_ = 0;
  std::vector<std::byte> bytes_;
};

bool IsHeader(const RecordHeader& header, uint64_t room) {
  return (header.magic == kRecordMagic || header.magic == kGapMagic) &&
         header.crc == RecordCrc(header) && header.length <= room;
}

}  // namespace

// Behind a damaged header the walk looks at each place where a record may begin, and takes the
// first whose content has its digest: what looks like a header may be somebody's file.
Result<void> PackSet::Walk(int fd, uint32_t pack, uint64_t size,
                           const std::function<void(const Extent&)>& visit) const {
  Window window(fd, size, FileName(pack));
  PackHeader header;
  OCIFS_ASSIGN_OR_RETURN(const bool begins,
                         window.Read(0, std::as_writable_bytes(std::span(&header, 1))));
  uint64_t at = sizeof(PackHeader);
  // Of what does not begin as this pack does, only what proves itself is taken.
  bool lost = !begins || header.magic != kPackMagic || header.version != kPackVersion ||
              header.pack != pack || header.crc != HeaderCrc(header);
  std::vector<std::byte> content;
  while (true) {
    RecordHeader record;
    OCIFS_ASSIGN_OR_RETURN(const bool more,
                           window.Read(at, std::as_writable_bytes(std::span(&record, 1))));
    if (!more) return {};
    const uint64_t begin = at;
    const uint64_t start = begin + sizeof record;
    bool found = IsHeader(record, size - start);
    if (found && lost) {
      // A gap has no content to prove it, and what follows a true one is found without it.
      found = record.magic == kRecordMagic && record.length <= kMaxChunkBytes;
      if (found) {
        content.resize(static_cast<size_t>(record.length));
        OCIFS_RETURN_IF_ERROR(ReadExactly(fd, start, content, FileName(pack)));
        Hasher hasher;
        hasher.Update(content);
        found = hasher.FinishChunk().bytes == record.digest;
      }
    }
    if (!found) {
      lost = true;
      at += kRecordAlignment;
      continue;
    }
    lost = false;
    at = begin + RecordBytes(record.length);
    visit(Extent{.is_gap = record.magic == kGapMagic,
                 .begin = begin,
                 .end = std::min(at, size),
                 .digest = ChunkDigest{record.digest},
                 .length = record.length});
  }
}

Result<void> PackSet::Scan(
    uint32_t pack,
    const std::function<void(const ChunkDigest&, const ChunkLocation&)>& visit) const {
  // Not the descriptor that is kept: who scans looks at the name.
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(directory_.get(), FileName(pack), O_RDONLY));
  struct stat status;
  if (fstat(fd.get(), &status) != 0) {
    return Fail(ErrorFromErrno(errno, "reading " + FileName(pack)));
  }
  if (!S_ISREG(status.st_mode)) return Fail(ErrorCode::kCorrupt, FileName(pack) + " is no file");
  return Walk(fd.get(), pack, static_cast<uint64_t>(status.st_size), [&](const Extent& extent) {
    if (extent.is_gap) return;
    visit(extent.digest, ChunkLocation{pack, extent.begin + sizeof(RecordHeader), extent.length});
  });
}

// --- PackSet: removing and reclaiming ------------------------------------------------------------

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

// Records below `length` that the index does not name, neighbours joined, with the gaps among them.
Result<PackSet::Extents> PackSet::DeadExtents(int fd, uint32_t pack, uint64_t length,
                                              Extents* live) const {
  Extents all;
  OCIFS_RETURN_IF_ERROR(
      Walk(fd, pack, length, [&](const Extent& extent) { all.push_back(extent); }));
  Extents dead;
  for (const Extent& extent : all) {
    bool is_live = false;
    if (!extent.is_gap) {
      const ChunkLocation here{pack, extent.begin + sizeof(RecordHeader), extent.length};
      OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                             OrMissing(index_.FindChunk(extent.digest)));
      is_live = location == here;
    }
    if (is_live) {
      live->push_back(extent);
    } else if (!dead.empty() && dead.back().end == extent.begin) {
      dead.back().end = extent.end;
      dead.back().is_gap = false;
    } else {
      dead.push_back(extent);
    }
  }
  return dead;
}

// A gap says that it is one before its content goes: a record whose content is a hole would look
// like a damaged chunk to whoever scans the pack.
Result<void> PackSet::Punch(int fd, uint32_t pack, const Extents& dead) const {
  bool written = false;
  for (const Extent& extent : dead) {
    if (extent.is_gap) continue;
    RecordHeader header{kGapMagic, 0, extent.end - extent.begin - sizeof header, {}};
    header.crc = RecordCrc(header);
    OCIFS_RETURN_IF_ERROR(WriteExactly(fd, extent.begin, BytesOf(header), FileName(pack)));
    written = true;
  }
  if (written) OCIFS_RETURN_IF_ERROR(SyncData(fd, FileName(pack)));
  for (const Extent& extent : dead) {
    const uint64_t begin =
        (extent.begin + sizeof(RecordHeader) + kPageBytes - 1) / kPageBytes * kPageBytes;
    const uint64_t end = extent.end / kPageBytes * kPageBytes;
    if (begin >= end) continue;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                  static_cast<off_t>(end - begin)) != 0) {
      if (errno == EOPNOTSUPP) return Fail(ErrorCode::kUnsupported, "no holes on this filesystem");
      return Fail(ErrorFromErrno(errno, "punching a hole into " + FileName(pack)));
    }
  }
  return {};
}

// Writes records that are still wanted to another pack. What does not have its digest stays where
// it is, and is found by whoever reads it.
Result<uint64_t> PackSet::MoveOut(uint32_t pack, const Extents& live) {
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<PackWriter> writer, Acquire());
  const uint64_t start = writer->length();
  IndexBatch batch;
  std::vector<std::byte> content;
  uint64_t moved = 0;
  auto copy = [&]() -> Result<void> {
    for (const Extent& extent : live) {
      const ChunkLocation from{pack, extent.begin + sizeof(RecordHeader), extent.length};
      content.resize(static_cast<size_t>(extent.length));
      OCIFS_RETURN_IF_ERROR(Read(from, 0, content));
      Hasher hasher;
      hasher.Update(content);
      if (hasher.FinishChunk() != extent.digest) continue;
      writer->Begin();
      OCIFS_RETURN_IF_ERROR(writer->Append(content));
      batch.MoveChunk(extent.digest, from, writer->Keep(extent.digest));
      if (writer->WantsFlush()) OCIFS_RETURN_IF_ERROR(writer->Flush());
      moved += extent.length;
    }
    OCIFS_RETURN_IF_ERROR(writer->Flush());
    OCIFS_RETURN_IF_ERROR(Sync(writer->pack()));
    batch.RaisePack(writer->pack(), writer->length());
    return index_.Commit(std::move(batch));
  };
  Result<void> copied = copy();
  if (!copied) OCIFS_RETURN_IF_ERROR(writer->RollBackTo(start));
  Release(std::move(writer));
  if (!copied) return Fail(std::move(copied).error());
  return moved;
}

// The index forgets the pack, if nothing of it is wanted; then those who had looked before are
// waited for; then the file goes, its content first: other processes may have it open for ever.
Result<bool> PackSet::Remove(uint32_t pack, int fd, std::chrono::milliseconds patience) {
  bool empty = false;
  IndexBatch batch;
  OCIFS_ASSIGN_OR_RETURN(
      const uint64_t number,
      index_.Commit(
          std::move(batch), [&](const IndexSnapshot& now, IndexBatch& changes) -> Result<void> {
            OCIFS_ASSIGN_OR_RETURN(const std::optional<PackRecord> record, now.FindPack(pack));
            empty = record && record->live_bytes == 0;
            if (empty) changes.DeletePack(pack);
            return {};
          }));
  if (!empty) return false;
  OCIFS_ASSIGN_OR_RETURN(const bool alone, index_.WaitForReaders(number, patience));
  // Its name may go at once; an opener that is alone would remove it, too.
  unlinkat(directory_.get(), FileName(pack).c_str(), 0);
  if (alone && ftruncate(fd, 0) != 0) {
    return Fail(ErrorFromErrno(errno, "cutting " + FileName(pack)));
  }
  OCIFS_ASSIGN_OR_RETURN(std::atomic<int>* const slot, DescriptorSlot(pack));
  // Readers of this process that looked before are gone, if all are.
  if (const int old = alone ? slot->exchange(-1, std::memory_order_acq_rel) : -1; old >= 0) {
    close(old);
  }
  return true;
}

Result<Reclaimed> PackSet::Reclaim(uint32_t pack, std::chrono::milliseconds patience) {
  Reclaimed result;
  OCIFS_ASSIGN_OR_RETURN(PackLock lock, TryLock(pack, O_RDWR));
  // What this process writes lies beyond the length that the index knows, and is committed in
  // order: below it, what the index does not name is dead, whoever writes.
  const bool in_use = lock == nullptr;
  if (in_use) lock = OwnLock(pack);
  if (lock == nullptr) {
    result.busy = true;
    return result;
  }
  const int fd = lock->get();
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackRecord> record, index_.FindPack(pack));
  if (!record || record->length == PackRecord::kUnknownLength) return result;
  OCIFS_ASSIGN_OR_RETURN(const uint64_t before, DiskBytes(pack));
  Extents live;
  OCIFS_ASSIGN_OR_RETURN(const Extents dead, DeadExtents(fd, pack, record->length, &live));
  auto finish = [&]() -> Result<Reclaimed> {
    OCIFS_ASSIGN_OR_RETURN(const uint64_t after, DiskBytes(pack));
    result.bytes = before - std::min(before, after);
    return result;
  };
  if (!live.empty() || in_use) {
    // What was dead when the records were looked at was dead for those who look now; those who
    // looked before are waited for.
    OCIFS_ASSIGN_OR_RETURN(const uint64_t number, index_.LastTransaction());
    OCIFS_ASSIGN_OR_RETURN(const bool alone, index_.WaitForReaders(number, patience));
    if (!alone) {
      result.postponed = true;
      return result;
    }
    const Result<void> punched = Punch(fd, pack, dead);
    if (!punched && punched.error().code != ErrorCode::kUnsupported) return Fail(punched.error());
    OCIFS_ASSIGN_OR_RETURN(const uint64_t left, DiskBytes(pack));
    constexpr uint64_t kSlack = uint64_t{1} << 20;
    const bool worth = punched ? left > 2 * record->live_bytes + kSlack
                               : left > record->live_bytes + record->live_bytes / 3 + kSlack;
    if (!worth || in_use) return finish();
    OCIFS_ASSIGN_OR_RETURN(result.moved, MoveOut(pack, live));
  }
  OCIFS_ASSIGN_OR_RETURN(result.removed, Remove(pack, fd, patience));
  return finish();
}

}  // namespace ocifs::store
