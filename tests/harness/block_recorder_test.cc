#include "tests/harness/block_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "store/text.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::testing {
namespace {

using store::AsBytes;
using ::testing::ElementsAre;

struct Entry {
  uint32_t kind;
  uint64_t offset;
  std::string bytes;
  friend bool operator==(const Entry&, const Entry&) = default;
};

std::vector<Entry> ReadLog(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string log{std::istreambuf_iterator<char>(file), {}};
  std::vector<Entry> entries;
  for (size_t at = 0; at < log.size();) {
    struct {
      uint32_t kind;
      uint32_t length;
      uint64_t offset;
    } header;
    std::memcpy(&header, log.data() + at, sizeof header);
    at += sizeof header;
    entries.push_back({header.kind, header.offset, log.substr(at, header.length)});
    at += header.length;
  }
  return entries;
}

class BlockRecorderTest : public ::testing::Test {
 protected:
  std::string Read(uint64_t offset, size_t length) {
    const std::span<const std::byte> bytes = *disk_->Read(offset, length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  const TempDir directory_;
  const std::string log_ = directory_.path() + "/log";
  const std::unique_ptr<BlockRecorder> disk_ = *BlockRecorder::Create(8192, log_);
};

TEST_F(BlockRecorderTest, IsADisk) {
  EXPECT_EQ(Read(0, 4), std::string(4, '\0'));
  ASSERT_TRUE(disk_->Write(8190, AsBytes("ab")));
  EXPECT_EQ(Read(8189, 100), std::string("\0ab", 3));
  EXPECT_EQ(Read(8192, 1), "");
  EXPECT_EQ(Read(UINT64_MAX, 1), "");
}

TEST_F(BlockRecorderTest, WritesDownWhatIsDoneInOrder) {
  ASSERT_TRUE(disk_->Write(4096, AsBytes("one")));
  ASSERT_TRUE(disk_->Flush());
  ASSERT_TRUE(disk_->Mark("stored"));
  ASSERT_TRUE(disk_->Write(0, AsBytes("two")));
  ASSERT_TRUE(disk_->Save());
  EXPECT_THAT(ReadLog(log_), ElementsAre(Entry{1, 4096, "one"}, Entry{2, 0, ""},
                                         Entry{3, 0, "stored"}, Entry{1, 0, "two"}));
}

TEST_F(BlockRecorderTest, EndsWhereItEnds) {
  EXPECT_EQ(disk_->Write(8191, AsBytes("ab")).error().code, store::ErrorCode::kNoSpace);
  EXPECT_EQ(disk_->Write(UINT64_MAX, AsBytes("a")).error().code, store::ErrorCode::kNoSpace);
  ASSERT_TRUE(disk_->Save());
  EXPECT_THAT(ReadLog(log_), ElementsAre());
  EXPECT_EQ(Read(8191, 1), std::string(1, '\0'));
}

TEST_F(BlockRecorderTest, RefusesWhatItIsTold) {
  ASSERT_TRUE(disk_->Write(0, AsBytes("old")));
  disk_->SetFaults({.reads = {{100, 10}, {200, 1}}, .writes = true, .flushes = true});
  EXPECT_FALSE(disk_->Write(0, AsBytes("new")));
  EXPECT_FALSE(disk_->Flush());
  EXPECT_EQ(Read(0, 100), "old" + std::string(97, '\0'));
  EXPECT_EQ(Read(110, 90).size(), 90u);
  for (const auto& [offset, length] : {std::pair(0, 101), {109, 1}, {105, 2}, {150, 51}}) {
    EXPECT_FALSE(disk_->Read(offset, length)) << offset;
  }
  disk_->SetFaults({});
  EXPECT_TRUE(disk_->Read(0, 8192));
  ASSERT_TRUE(disk_->Flush());
  ASSERT_TRUE(disk_->Save());
  EXPECT_THAT(ReadLog(log_), ElementsAre(Entry{1, 0, "old"}, Entry{2, 0, ""}));
}

TEST(BlockRecorder, NeedsAPlaceForItsLog) {
  EXPECT_FALSE(BlockRecorder::Create(4096, "/nonexistent/log"));
}

}  // namespace
}  // namespace ocifs::testing
