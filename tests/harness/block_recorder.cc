#include "tests/harness/block_recorder.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <expected>

namespace ocifs::testing {
namespace {

struct RecordHeader {
  uint32_t kind;
  uint32_t length;
  uint64_t offset;
};
static_assert(sizeof(RecordHeader) == 16);

std::unexpected<store::Error> Refused(const char* what) {
  return store::Fail(store::ErrorFromErrno(EIO, std::string(what) + " that was to fail"));
}

}  // namespace

store::Result<std::unique_ptr<BlockRecorder>> BlockRecorder::Create(uint64_t size,
                                                                    const std::string& log) {
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return store::Fail(store::ErrorFromErrno(errno, "memory for a disk"));
  std::FILE* const file = std::fopen(log.c_str(), "wbe");
  if (file == nullptr) {
    const int error = errno;
    munmap(memory, size);
    return store::Fail(store::ErrorFromErrno(error, "creating " + log));
  }
  return std::unique_ptr<BlockRecorder>(
      new BlockRecorder(std::span(static_cast<std::byte*>(memory), size), file));
}

BlockRecorder::~BlockRecorder() { munmap(disk_.data(), disk_.size()); }

store::Result<std::span<const std::byte>> BlockRecorder::Read(uint64_t offset,
                                                              size_t length) const {
  const uint64_t end = offset + std::min<uint64_t>(length, UINT64_MAX - offset);
  for (const BlockFaults::Range& range : faults_.reads) {
    if (offset < range.offset + range.length && range.offset < end) return Refused("a read");
  }
  if (offset >= disk_.size()) return std::span<const std::byte>();
  return disk_.subspan(offset, std::min<uint64_t>(length, disk_.size() - offset));
}

store::Result<void> BlockRecorder::Write(uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > disk_.size() || bytes.size() > disk_.size() - offset) {
    return store::Fail(store::ErrorCode::kNoSpace, "a write beyond the end of the disk");
  }
  if (faults_.writes) return Refused("a write");
  std::ranges::copy(bytes, disk_.subspan(offset).begin());
  return Append(Kind::kWrite, offset, bytes);
}

store::Result<void> BlockRecorder::Flush() {
  if (faults_.flushes) return Refused("a flush");
  return Append(Kind::kFlush, 0, {});
}

store::Result<void> BlockRecorder::Mark(std::string_view text) {
  return Append(Kind::kMark, 0, std::as_bytes(std::span(text)));
}

store::Result<void> BlockRecorder::Save() {
  if (std::fflush(log_.get()) != 0)
    return store::Fail(store::ErrorFromErrno(errno, "writing the log"));
  return {};
}

store::Result<void> BlockRecorder::Append(Kind kind, uint64_t offset,
                                          std::span<const std::byte> bytes) {
  const RecordHeader header{static_cast<uint32_t>(kind), static_cast<uint32_t>(bytes.size()),
                            offset};
  if (std::fwrite(&header, sizeof header, 1, log_.get()) != 1 ||
      (!bytes.empty() && std::fwrite(bytes.data(), bytes.size(), 1, log_.get()) != 1)) {
    return store::Fail(store::ErrorFromErrno(errno, "writing the log"));
  }
  return {};
}

}  // namespace ocifs::testing
