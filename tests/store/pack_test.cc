#include "store/pack.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/index.h"
#include "store/tree.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

// One index and, as each process has one, any number of pack sets over it.
class Packs : public ::testing::Test {
 protected:
  Packs() {
    std::filesystem::create_directories(directory_ / "index");
    std::filesystem::create_directories(directory_ / "packs");
    index_ = Must(Index::Open(directory_ / "index"));
  }

  std::unique_ptr<PackSet> NewSet() {
    return std::make_unique<PackSet>(
        UniqueFd(open((directory_ / "packs").c_str(), O_RDONLY | O_DIRECTORY)), *index_);
  }
  static ChunkLocation Append(PackWriter& writer, std::string_view content) {
    writer.Begin();
    Must(writer.Append(AsBytes(content)));
    return Must(writer.Keep(ChunkDigestOf(content)));
  }
  static std::string Read(const PackSet& packs, const ChunkLocation& location, uint64_t skip = 0) {
    std::string content(location.length - skip, '?');
    const Result<void> read =
        packs.Read(location, skip, std::as_writable_bytes(std::span(content)));
    return read ? content : std::string(ErrorCodeName(read.error().code));
  }
  void Commit(const PackWriter& writer) {
    IndexBatch batch;
    batch.RaisePack(writer.pack(), writer.length());
    Must(index_->Commit(std::move(batch)));
  }
  std::string PathOf(uint32_t pack) const {
    return directory_ / ("packs/" + PackSet::FileName(pack));
  }
  // All records of a pack by scanning it.
  static std::vector<std::pair<ChunkDigest, ChunkLocation>> Scanned(const PackSet& packs,
                                                                    uint32_t pack) {
    std::vector<std::pair<ChunkDigest, ChunkLocation>> found;
    Must(packs.Scan(pack, [&](const ChunkDigest& digest, const ChunkLocation& location) {
      found.emplace_back(digest, location);
    }));
    return found;
  }

  const testing::TempDir directory_;
  std::unique_ptr<Index> index_;
};

TEST_F(Packs, WhatIsAppendedIsReadBack) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  std::vector<std::pair<std::string, ChunkLocation>> kept;
  for (const size_t size : {0UL, 1UL, 7UL, 8UL, 9UL, 100'000UL, size_t{kChunkBytes}, 3UL}) {
    const std::string content = Noise(size, static_cast<uint32_t>(size));
    kept.emplace_back(content, Append(*writer, content));
  }
  Must(writer->Flush());
  for (const auto& [content, location] : kept) {
    EXPECT_EQ(Read(*packs, location), content);
    if (content.size() > 5) {
      EXPECT_EQ(Read(*packs, location, 5), content.substr(5));
    }
  }
  const auto scanned = Scanned(*packs, writer->pack());
  ASSERT_EQ(scanned.size(), kept.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(scanned[i].first, ChunkDigestOf(kept[i].first));
    EXPECT_EQ(scanned[i].second, kept[i].second);
  }
}

TEST_F(Packs, ADroppedRecordLeavesNothing) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  const ChunkLocation a = Append(*writer, "first");
  writer->Begin();
  Must(writer->Append(AsBytes("secret that is dropped")));
  EXPECT_EQ(TextOf(writer->Pending()), "secret that is dropped");
  writer->Drop();
  const ChunkLocation b = Append(*writer, "second");
  Must(writer->Flush());
  EXPECT_EQ(Read(*packs, a), "first");
  EXPECT_EQ(Read(*packs, b), "second");
  EXPECT_EQ(Scanned(*packs, writer->pack()).size(), 2U);
  EXPECT_EQ(ReadFile(PathOf(writer->pack())).find("secret"), std::string::npos);
}

TEST_F(Packs, AChunkOverTheLimitIsRefused) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  writer->Begin();
  const std::vector<std::byte> half(kMaxChunkBytes / 2);
  Must(writer->Append(half));
  Must(writer->Append(half));
  EXPECT_THAT(writer->Append(std::span(half).first(1)), FailsWith(ErrorCode::kInternal));
}

TEST_F(Packs, RollingBackForgetsWhatCameAfterAndNothingElse) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  struct Case {
    std::string_view name;
    bool flush_before;
    bool flush_after;
  };
  for (const Case& c :
       {Case{"both in the buffer", false, false},
        Case{"mark on disk, rest in the buffer", true, false}, Case{"both on disk", true, true}}) {
    const ChunkLocation kept = Append(*writer, "kept");
    if (c.flush_before) Must(writer->Flush());
    const uint64_t mark = writer->length();
    Append(*writer, "forgotten one");
    if (c.flush_after) Must(writer->Flush());
    writer->Begin();
    Must(writer->Append(AsBytes("forgotten and never finished")));
    Must(writer->RollBackTo(mark));
    EXPECT_EQ(writer->length(), mark) << c.name;
    const ChunkLocation next = Append(*writer, "next");
    Must(writer->Flush());
    EXPECT_EQ(Read(*packs, kept), "kept") << c.name;
    EXPECT_EQ(Read(*packs, next), "next") << c.name;
    EXPECT_EQ(ReadFile(PathOf(writer->pack())).find("forgotten"), std::string::npos) << c.name;
  }
  EXPECT_EQ(Scanned(*packs, writer->pack()).size(), 6U);
}

TEST_F(Packs, ReadsBeyondTheFileAreDamage) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  const ChunkLocation location = Append(*writer, "content");
  Must(writer->Flush());
  EXPECT_EQ(Read(*packs, ChunkLocation{location.pack, location.offset, 1000}), "corrupt")
      << "cut short";
  EXPECT_EQ(Read(*packs, ChunkLocation{location.pack, uint64_t{1} << 40, 5}), "corrupt");
  EXPECT_EQ(Read(*packs, ChunkLocation{77, 24, 5}), "corrupt") << "pack that is gone";
  EXPECT_EQ(Read(*packs, ChunkLocation{0xFFFFFFFF, 24, 5}), "index-damaged")
      << "pack that cannot be";
}

TEST_F(Packs, SpecialFilesInsteadOfAPackAreDamage) {
  const std::unique_ptr<PackSet> packs = NewSet();
  directory_.Write("secret", "outside of the store");
  ASSERT_EQ(symlink((directory_ / "secret").c_str(), PathOf(5).c_str()), 0);
  ASSERT_EQ(mkfifo(PathOf(6).c_str(), 0600), 0);
  EXPECT_EQ(Read(*packs, ChunkLocation{5, 0, 7}), "corrupt");
  EXPECT_NE(Read(*packs, ChunkLocation{6, 0, 7}).size(), 7U) << "must not wait for a writer";
}

TEST_F(Packs, ATailThatNobodyCommittedIsCutOff) {
  ChunkLocation kept;
  uint32_t pack = 0;
  {
    const std::unique_ptr<PackSet> packs = NewSet();
    const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
    pack = writer->pack();
    kept = Append(*writer, "committed");
    Must(writer->Flush());
    Commit(*writer);
    Append(*writer, "lost in the crash");
    Must(writer->Flush());
  }
  EXPECT_NE(ReadFile(PathOf(pack)).find("lost"), std::string::npos);
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  ASSERT_EQ(writer->pack(), pack) << "goes on where the last one stopped";
  EXPECT_EQ(ReadFile(PathOf(pack)).find("lost"), std::string::npos);
  const ChunkLocation next = Append(*writer, "next");
  Must(writer->Flush());
  EXPECT_EQ(Read(*packs, kept), "committed");
  EXPECT_EQ(Read(*packs, next), "next");
  EXPECT_EQ(Scanned(*packs, pack).size(), 2U);
}

TEST_F(Packs, APackThatIsShorterThanTheIndexSaysGetsNoMore) {
  uint32_t pack = 0;
  {
    const std::unique_ptr<PackSet> packs = NewSet();
    const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
    pack = writer->pack();
    Append(*writer, "content");
    Must(writer->Flush());
    Commit(*writer);
  }
  std::filesystem::resize_file(PathOf(pack), 30);
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  EXPECT_NE(writer->pack(), pack);
  EXPECT_EQ(std::filesystem::file_size(PathOf(pack)), 30U);
}

TEST_F(Packs, TwoWritersNeverShareAPack) {
  const std::unique_ptr<PackSet> one = NewSet();
  const std::unique_ptr<PackSet> other = NewSet();  // as another process would have
  const std::unique_ptr<PackWriter> a = Must(one->Acquire());
  const std::unique_ptr<PackWriter> b = Must(one->Acquire());
  std::unique_ptr<PackWriter> c = Must(other->Acquire());
  EXPECT_NE(a->pack(), b->pack());
  EXPECT_NE(a->pack(), c->pack());
  EXPECT_NE(b->pack(), c->pack());
  const ChunkLocation x = Append(*a, "of a");
  const ChunkLocation y = Append(*c, "of c");
  Must(a->Flush());
  Must(c->Flush());
  EXPECT_EQ(Read(*other, x), "of a");
  EXPECT_EQ(Read(*one, y), "of c");
}

TEST_F(Packs, AWriterThatWasGivenBackIsUsedAgain) {
  const std::unique_ptr<PackSet> packs = NewSet();
  std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  const uint32_t pack = writer->pack();
  packs->Release(std::move(writer));
  EXPECT_EQ(Must(packs->Acquire())->pack(), pack);
}

TEST_F(Packs, LeftoversGoUnlessSomebodyWritesThem) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  directory_.Write("packs/00000099.pack", "left over");
  directory_.Write("packs/notes.txt", "not ours");
  Must(NewSet()->RemoveLeftovers());
  EXPECT_FALSE(std::filesystem::exists(PathOf(0x99)));
  EXPECT_TRUE(std::filesystem::exists(PathOf(writer->pack())));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "packs/notes.txt"));
}

TEST_F(Packs, AScanEndsAtTheFirstRecordThatIsNotWhole) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  Append(*writer, "one");
  const ChunkLocation two = Append(*writer, "two");
  Append(*writer, "three");
  Must(writer->Flush());
  const std::string good = ReadFile(PathOf(writer->pack()));
  constexpr size_t kRecordHeader = 48;
  for (size_t at = two.offset - kRecordHeader; at < two.offset; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x40);
    directory_.Write("packs/" + PackSet::FileName(writer->pack()), bad);
    EXPECT_EQ(Scanned(*packs, writer->pack()).size(), 1U) << at;
  }
  for (size_t size = 24; size < good.size(); ++size) {
    directory_.Write("packs/" + PackSet::FileName(writer->pack()), good.substr(0, size));
    EXPECT_LE(Scanned(*packs, writer->pack()).size(), 3U) << size;
  }
  for (size_t at = 0; at < 20; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    directory_.Write("packs/" + PackSet::FileName(writer->pack()), bad);
    EXPECT_THAT(packs->Scan(writer->pack(), [](const auto&, const auto&) {}),
                FailsWith(ErrorCode::kCorrupt))
        << at;
  }
}

}  // namespace
}  // namespace ocifs::store
