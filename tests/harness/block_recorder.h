// A disk in memory that writes down what is done to it: each write with its bytes, each flush, and
// marks of the tests between them, in the order in which they were answered. What a power loss may
// leave of the disk at any moment can be made from that (tests/crash/power_loss.py): all that was
// written before the last flush, and any part of what was written after it.
//
// Layout of the log, all integers little-endian: records of
//   u32 kind    1 a write, 2 a flush, 3 a mark
//   u32 length  of the bytes that follow the record
//   u64 offset  of a write on the disk; else 0
#ifndef OCIFS_TESTS_HARNESS_BLOCK_RECORDER_H_
#define OCIFS_TESTS_HARNESS_BLOCK_RECORDER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/error.h"

namespace ocifs::testing {

// What the disk refuses with EIO, until it is told otherwise.
struct BlockFaults {
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  std::vector<Range> reads;  // all that touch one of these
  bool writes = false;
  bool flushes = false;
};

// Owned by one thread: the order of the log is that of the calls.
class BlockRecorder {
 public:
  // A disk of zeros. Memory is taken as it is written to. Creates the log.
  static store::Result<std::unique_ptr<BlockRecorder>> Create(uint64_t size,
                                                              const std::string& log);
  ~BlockRecorder();
  BlockRecorder(const BlockRecorder&) = delete;
  BlockRecorder& operator=(const BlockRecorder&) = delete;

  uint64_t size() const { return disk_.size(); }

  void SetFaults(BlockFaults faults) { faults_ = std::move(faults); }

  // What lies at `offset`; less than `length` bytes, or none, at the end of the disk.
  store::Result<std::span<const std::byte>> Read(uint64_t offset, size_t length) const;
  // kNoSpace beyond the end of the disk. The log has nothing of what fails.
  store::Result<void> Write(uint64_t offset, std::span<const std::byte> bytes);
  store::Result<void> Flush();
  store::Result<void> Mark(std::string_view text);

  // The log is whole in its file, for who reads it while recording goes on.
  store::Result<void> Save();

 private:
  enum class Kind : uint32_t { kWrite = 1, kFlush = 2, kMark = 3 };

  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  BlockRecorder(std::span<std::byte> disk, std::FILE* log) : disk_(disk), log_(log) {}
  store::Result<void> Append(Kind kind, uint64_t offset, std::span<const std::byte> bytes);

  const std::span<std::byte> disk_;  // a mapping
  const std::unique_ptr<std::FILE, Closer> log_;
  BlockFaults faults_;
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_BLOCK_RECORDER_H_
