#include "store/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr uint32_t kRecordMagic = 0x314E4A4F;  // "OJN1" as it lies in the file
constexpr size_t kAlignment = 8;

struct RecordHeader {
  uint32_t magic;
  uint32_t crc;  // of the fields below, the key and the value
  uint32_t value_bytes;
  uint16_t key_bytes;
  uint8_t table;
  uint8_t operation;
};
static_assert(sizeof(RecordHeader) == 16);

enum class Operation : uint8_t { kPut = 1, kDelete = 2 };

constexpr uint64_t Aligned(uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

uint32_t RecordCrc(const RecordHeader& header, std::string_view key_and_value) {
  const auto fields =
      std::as_bytes(std::span(&header, 1)).subspan(offsetof(RecordHeader, value_bytes));
  return Crc32c(AsBytes(key_and_value), Crc32c(fields));
}

void AppendRecord(const JournalRecord& record, std::string& out) {
  const size_t start = out.size();
  const std::string_view value = record.value.value_or(std::string_view());
  RecordHeader header{kRecordMagic,
                      0,
                      static_cast<uint32_t>(value.size()),
                      static_cast<uint16_t>(record.key.size()),
                      static_cast<uint8_t>(record.table),
                      static_cast<uint8_t>(record.value ? Operation::kPut : Operation::kDelete)};
  out.append(sizeof header, '\0').append(record.key).append(value);
  header.crc = RecordCrc(header, std::string_view(out).substr(start + sizeof header));
  std::memcpy(out.data() + start, &header, sizeof header);
  out.resize(start + Aligned(out.size() - start), '\0');
}

// The record that begins there, and what it takes; nullopt if none does.
std::optional<std::pair<JournalRecord, size_t>> RecordAt(std::string_view bytes) {
  RecordHeader header;
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const uint64_t content = uint64_t{header.key_bytes} + header.value_bytes;
  if (header.magic != kRecordMagic || content > bytes.size() - sizeof header) return std::nullopt;
  const std::string_view key_and_value = bytes.substr(sizeof header, content);
  if (header.crc != RecordCrc(header, key_and_value)) return std::nullopt;
  JournalRecord record{static_cast<IndexTable>(header.table),
                       key_and_value.substr(0, header.key_bytes), std::nullopt};
  if (header.operation == static_cast<uint8_t>(Operation::kPut)) {
    record.value = key_and_value.substr(header.key_bytes);
  }
  const uint64_t taken = Aligned(sizeof header + content);
  return std::pair(record, static_cast<size_t>(std::min<uint64_t>(taken, bytes.size())));
}

}  // namespace

uint64_t JournalRecordBytes(size_t key_bytes, size_t value_bytes) {
  return Aligned(sizeof(RecordHeader) + key_bytes + value_bytes);
}

// --- Journal -------------------------------------------------------------------------------------

Result<void> Journal::OpenCurrent() {
  if (fd_) {
    struct stat mine;
    struct stat named;
    if (fstat(fd_.get(), &mine) == 0 &&
        fstatat(directory_fd_, kName, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) {
      return {};
    }
  }
  OCIFS_ASSIGN_OR_RETURN(fd_, OpenAt(directory_fd_, kName, O_RDWR | O_CREAT, 0600));
  before_ = after_ = 0;
  return {};
}

Result<uint64_t> Journal::Size() {
  struct stat status;
  if (fstatat(directory_fd_, kName, &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return static_cast<uint64_t>(status.st_size);
  }
  if (errno == ENOENT) return 0;
  return Fail(ErrorFromErrno(errno, "reading the journal of the index"));
}

Result<void> Journal::Append(std::span<const JournalRecord> records, Durability durability) {
  OCIFS_RETURN_IF_ERROR(OpenCurrent());
  OCIFS_ASSIGN_OR_RETURN(before_, Size());
  std::string bytes;
  for (const JournalRecord& record : records) AppendRecord(record, bytes);
  // A writer that was killed may have left half a record, even of odd length.
  const uint64_t start = Aligned(before_);
  after_ = start + bytes.size();
  Result<void> written = WriteExactly(fd_.get(), start, AsBytes(bytes), "the journal of the index");
  if (written && durability == Durability::kNow) {
    written = SyncData(fd_.get(), "the journal of the index");
    if (written && before_ == 0) written = SyncDirectory(directory_fd_, "the index");
  }
  if (!written) {
    // Half a record would be passed over as damage; but the room is somebody's.
    if (ftruncate(fd_.get(), static_cast<off_t>(before_)) == 0) after_ = before_;
  }
  return written;
}

Result<bool> Journal::TakeBack() {
  OCIFS_RETURN_IF_ERROR(OpenCurrent());
  OCIFS_ASSIGN_OR_RETURN(const uint64_t size, Size());
  if (after_ == before_ || size != after_) return false;
  if (ftruncate(fd_.get(), static_cast<off_t>(before_)) != 0) {
    return Fail(ErrorFromErrno(errno, "cutting the journal of the index"));
  }
  after_ = before_;
  return true;
}

// --- JournalRewriter -----------------------------------------------------------------------------

Result<JournalRewriter> JournalRewriter::Begin(int directory_fd) {
  OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(directory_fd));
  return JournalRewriter(directory_fd, std::move(file));
}

Result<void> JournalRewriter::Flush() {
  OCIFS_RETURN_IF_ERROR(file_.Append(AsBytes(buffer_)));
  buffer_.clear();
  return {};
}

Result<void> JournalRewriter::Add(const JournalRecord& record) {
  constexpr size_t kFlushBytes = size_t{1} << 20;
  AppendRecord(record, buffer_);
  if (buffer_.size() >= kFlushBytes) return Flush();
  return {};
}

Result<void> JournalRewriter::Publish() {
  OCIFS_RETURN_IF_ERROR(Flush());
  OCIFS_RETURN_IF_ERROR(file_.Publish(Journal::kName));
  return SyncDirectory(directory_fd_, "the index");
}

// --- reading -------------------------------------------------------------------------------------

Result<JournalContent> ReadJournal(int directory_fd) {
  JournalContent content;
  struct stat status;
  if (fstatat(directory_fd, Journal::kName, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return content;
    return Fail(ErrorFromErrno(errno, "reading the journal of the index"));
  }
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(directory_fd, Journal::kName, O_RDONLY));
  if (fstat(fd.get(), &status) != 0) {
    return Fail(ErrorFromErrno(errno, "reading the journal of the index"));
  }
  if (!S_ISREG(status.st_mode)) return content;
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  OCIFS_RETURN_IF_ERROR(ReadExactly(fd.get(), 0, std::as_writable_bytes(std::span(bytes)),
                                    "the journal of the index"));
  content.bytes = bytes.size();
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const std::optional<std::pair<JournalRecord, size_t>> found = RecordAt(rest);
    if (!found) {
      const size_t skipped = std::min(kAlignment, rest.size());
      content.damaged_bytes += skipped;
      rest.remove_prefix(skipped);
      continue;
    }
    const auto& [record, taken] = *found;
    std::pair key(record.table, std::string(record.key));
    if (record.value) {
      content.values.insert_or_assign(std::move(key), std::string(*record.value));
    } else {
      content.values.erase(key);
    }
    rest.remove_prefix(taken);
  }
  return content;
}

}  // namespace ocifs::store
