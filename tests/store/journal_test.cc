#include "store/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/harness/temp_dir.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;

class Journals : public ::testing::Test {
 protected:
  Journals() : fd_(open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY)), journal_(fd_.get()) {}

  void Put(std::string_view key, std::string_view value) {
    const std::vector<JournalRecord> records = {{IndexTable::kRefs, key, value}};
    Must(journal_.Append(records, Journal::Durability::kLater));
  }
  void Delete(std::string_view key) {
    const std::vector<JournalRecord> records = {{IndexTable::kRefs, key, std::nullopt}};
    Must(journal_.Append(records, Journal::Durability::kNow));
  }
  std::string Value(const std::string& key) {
    const JournalContent content = Must(ReadJournal(fd_.get()));
    const auto found = content.values.find({IndexTable::kRefs, key});
    return found == content.values.end() ? "none" : found->second;
  }
  std::string path() const { return directory_ / Journal::kName; }

  const testing::TempDir directory_;
  const UniqueFd fd_;
  Journal journal_;
};

TEST_F(Journals, TheLastRecordOfAKeyCounts) {
  EXPECT_TRUE(Must(ReadJournal(fd_.get())).values.empty()) << "no file is an empty journal";
  Put("a", "1");
  Put("b", "2");
  Put("a", "3");
  Put("empty", "");
  Delete("b");
  EXPECT_EQ(Value("a"), "3");
  EXPECT_EQ(Value("b"), "none");
  EXPECT_EQ(Value("empty"), "");
  EXPECT_EQ(Must(ReadJournal(fd_.get())).damaged_bytes, 0U);
  EXPECT_EQ(fs::file_size(path()) % 8, 0U);
}

TEST_F(Journals, TablesAreApart) {
  const std::vector<JournalRecord> records = {{IndexTable::kRefs, "k", "ref"},
                                              {IndexTable::kPins, "k", "pin"}};
  Must(journal_.Append(records, Journal::Durability::kNow));
  const JournalContent content = Must(ReadJournal(fd_.get()));
  EXPECT_EQ(content.values.at({IndexTable::kPins, "k"}), "pin");
  EXPECT_EQ(content.values.at({IndexTable::kRefs, "k"}), "ref");
}

// Whatever one bit says, the other records are read, and the damaged one never in another form.
TEST_F(Journals, OneFlippedBitCostsOneRecord) {
  for (const char* key : {"one", "two", "three"}) Put(key, "the value of " + std::string(key));
  const std::string whole = ReadFile(path());
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    std::ofstream(path(), std::ios::binary) << bytes;
    size_t right = 0;
    for (const auto& [key, value] : Must(ReadJournal(fd_.get())).values) {
      EXPECT_EQ(value, "the value of " + key.second) << "bit " << bit;
      ++right;
    }
    EXPECT_GE(right, 2U) << "bit " << bit;
  }
}

TEST_F(Journals, AnEndThatWasCutIsPassedOverAndWrittenBehind) {
  Put("a", "1");
  Put("b", "a longer value than fits into eight bytes");
  const auto size = fs::file_size(path());
  for (uintmax_t cut = 1; cut < 40; ++cut) {
    fs::resize_file(path(), size - cut);
    Put("c", std::to_string(cut));
    EXPECT_EQ(Value("a"), "1") << cut;
    EXPECT_EQ(Value("c"), std::to_string(cut)) << cut;
    fs::resize_file(path(), 24);
    Put("b", "a longer value than fits into eight bytes");
  }
}

TEST_F(Journals, AnAppendCanBeTakenBackUntilTheNext) {
  Put("a", "1");
  Put("a", "2");
  EXPECT_TRUE(Must(journal_.TakeBack()));
  EXPECT_EQ(Value("a"), "1");
  EXPECT_FALSE(Must(journal_.TakeBack())) << "once";
  Put("a", "3");
  Journal another(fd_.get());
  const std::vector<JournalRecord> records = {{IndexTable::kRefs, "b", "by another process"}};
  Must(another.Append(records, Journal::Durability::kLater));
  EXPECT_FALSE(Must(journal_.TakeBack()));
  EXPECT_EQ(Value("a"), "3");
}

TEST_F(Journals, AWriterNoticesThatTheFileWasReplaced) {
  Put("a", "1");
  JournalRewriter rewriter = Must(JournalRewriter::Begin(fd_.get()));
  Must(rewriter.Add({IndexTable::kRefs, "a", "rewritten"}));
  Must(rewriter.Publish());
  EXPECT_EQ(Value("a"), "rewritten");
  Put("b", "into the new file");
  EXPECT_EQ(Value("b"), "into the new file");
  fs::remove(path());
  Put("c", "3");
  EXPECT_EQ(Value("c"), "3");
}

TEST_F(Journals, WhatIsNoFileIsNoJournal) {
  ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);
  EXPECT_TRUE(Must(ReadJournal(fd_.get())).values.empty());
}

}  // namespace
}  // namespace ocifs::store
