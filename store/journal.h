// The journal: all that only the index knows, appended (FORMAT.md, section "Journal"). The index is
// made anew from it when it is damaged; nothing else reads it.
#ifndef OCIFS_STORE_JOURNAL_H_
#define OCIFS_STORE_JOURNAL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "store/error.h"
#include "store/file.h"
#include "store/index_records.h"
#include "store/staged_file.h"

namespace ocifs::store {

// A value that was put, as the index has it, or a deletion.
struct JournalRecord {
  IndexTable table;
  std::string_view key;
  std::optional<std::string_view> value;
};

// What a record takes in the file.
uint64_t JournalRecordBytes(size_t key_bytes, size_t value_bytes);

// Writes the journal. To be called inside a write transaction of the index alone: that lock orders
// the writers of all processes. Owned by one Index.
class Journal {
 public:
  static constexpr const char* kName = "journal";

  // `directory_fd` is index/ and outlives the object.
  explicit Journal(int directory_fd) : directory_fd_(directory_fd) {}

  // Appends all, or nothing. With `sync` they survive a power loss when the call returns.
  enum class Durability { kLater, kNow };
  Result<void> Append(std::span<const JournalRecord> records, Durability durability);
  // Takes the last Append back; false when another has written since.
  Result<bool> TakeBack();
  Result<uint64_t> Size();
  // The file's length behind the last Append.
  uint64_t end() const { return after_; }

 private:
  // Opens the file, again if another process has replaced it.
  Result<void> OpenCurrent();

  const int directory_fd_;
  UniqueFd fd_;
  uint64_t before_ = 0;  // length before the last Append
  uint64_t after_ = 0;
};

// A journal that replaces the one there is. Owned by one thread.
class JournalRewriter {
 public:
  static Result<JournalRewriter> Begin(int directory_fd);
  Result<void> Add(const JournalRecord& record);
  // Synced, and in its place, when the call returns.
  Result<void> Publish();

 private:
  JournalRewriter(int directory_fd, StagedFile file)
      : directory_fd_(directory_fd), file_(std::move(file)) {}
  Result<void> Flush();
  int directory_fd_;
  StagedFile file_;
  std::string buffer_;
};

// What a journal says: of each key the last value; keys that were deleted are left out.
struct JournalContent {
  std::map<std::pair<IndexTable, std::string>, std::string> values;
  uint64_t bytes = 0;          // length of the file
  uint64_t damaged_bytes = 0;  // passed over
};
// No file is an empty journal. Damage is passed over up to the next whole record.
Result<JournalContent> ReadJournal(int directory_fd);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_JOURNAL_H_
