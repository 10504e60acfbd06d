#include "store/pack.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
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
    return writer.Keep(ChunkDigestOf(content));
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

TEST_F(Packs, AScanGoesOnBehindDamage) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  const ChunkLocation one = Append(*writer, "one");
  const ChunkLocation two = Append(*writer, "two");
  const ChunkLocation three = Append(*writer, "three");
  Must(writer->Flush());
  const auto all = Scanned(*packs, writer->pack());
  ASSERT_EQ(all.size(), 3U);
  const std::string good = ReadFile(PathOf(writer->pack()));
  constexpr size_t kRecordHeader = 48;
  for (size_t at = two.offset - kRecordHeader; at < two.offset; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x40);
    directory_.Write("packs/" + PackSet::FileName(writer->pack()), bad);
    const auto found = Scanned(*packs, writer->pack());
    ASSERT_EQ(found.size(), 2U) << at;
    EXPECT_EQ(found[0].second, one) << at;
    EXPECT_EQ(found[1].second, three) << at;
  }
  for (size_t size = 24; size < good.size(); ++size) {
    directory_.Write("packs/" + PackSet::FileName(writer->pack()), good.substr(0, size));
    const size_t whole = (size >= one.offset + 3 ? 1 : 0) + (size >= two.offset + 3 ? 1 : 0) +
                         (size >= three.offset + 5 ? 1 : 0);
    EXPECT_EQ(Scanned(*packs, writer->pack()).size(), whole) << size;
  }
  // Without a header each record proves itself.
  for (size_t at = 0; at < 20; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    directory_.Write("packs/" + PackSet::FileName(writer->pack()), bad);
    EXPECT_EQ(Scanned(*packs, writer->pack()), all) << at;
  }
}

TEST_F(Packs, WhatLooksLikeARecordInsideDamageHasToProveItself) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  // A file that holds the header of a record, as a copy of a pack does, and one that holds a
  // record.
  const ChunkLocation real = Append(*writer, "something real, of which there is a copy");
  Must(writer->Flush());
  const std::string header = ReadFile(PathOf(writer->pack())).substr(real.offset - 48, 48);
  const ChunkLocation forged = Append(*writer, header + std::string(100, 'x'));
  const ChunkLocation last = Append(*writer, "last");
  Must(writer->Flush());
  std::string bad = ReadFile(PathOf(writer->pack()));
  bad[forged.offset - 48] = 'X';
  directory_.Write("packs/" + PackSet::FileName(writer->pack()), bad);
  const auto found = Scanned(*packs, writer->pack());
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].second, real);
  EXPECT_EQ(found[1].second, last);
}

// --- dead records --------------------------------------------------------------------------------

class Reclaims : public Packs {
 protected:
  // Appends and commits; the content of each is Noise(size, seed).
  std::vector<ChunkLocation> Add(PackSet& packs, const std::vector<size_t>& sizes) {
    std::unique_ptr<PackWriter> writer = Must(packs.Acquire());
    std::vector<ChunkLocation> locations;
    IndexBatch batch;
    for (const size_t size : sizes) {
      const std::string content = Noise(size, seed_);
      locations.push_back(Append(*writer, content));
      batch.PutChunk(ChunkDigestOf(content), locations.back());
      contents_[ChunkDigestOf(content)] = content;
      ++seed_;
    }
    Must(writer->Flush());
    Must(packs.Sync(writer->pack()));
    batch.RaisePack(writer->pack(), writer->length());
    Must(index_->Commit(std::move(batch)));
    packs.Release(std::move(writer));
    packs.CloseIdle();
    return locations;
  }
  void Kill(const PackSet& packs, const std::vector<ChunkLocation>& locations) {
    IndexBatch batch;
    for (const ChunkLocation& location : locations) {
      const ChunkDigest digest = ChunkDigestOf(Read(packs, location));
      contents_.erase(digest);
      batch.DeleteChunk(digest);
    }
    Must(index_->Commit(std::move(batch)));
  }
  void ExpectAllReadable(const PackSet& packs) {
    for (const auto& [digest, content] : contents_) {
      const auto location = Must(index_->FindChunk(digest));
      ASSERT_TRUE(location);
      EXPECT_TRUE(Read(packs, *location) == content);
    }
  }
  Reclaimed Reclaim(PackSet& packs, uint32_t pack) {
    return Must(packs.Reclaim(pack, std::chrono::seconds(5)));
  }

  uint32_t seed_ = 1;
  std::unordered_map<ChunkDigest, std::string, ChunkDigestHash> contents_;
};

TEST_F(Reclaims, HolesArePunchedAndTheRestIsReadAsBefore) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const auto at = Add(*packs, {300'000, 2'000'000, 5'000, 700'000, 3'000'000, 9});
  const uint64_t before = Must(packs->DiskBytes(at[0].pack));
  Kill(*packs, {at[1], at[3]});
  const Reclaimed reclaimed = Reclaim(*packs, at[0].pack);
  EXPECT_FALSE(reclaimed.removed);
  EXPECT_EQ(reclaimed.moved, 0U);
  EXPECT_GT(reclaimed.bytes, 2'680'000U);
  EXPECT_EQ(Must(packs->DiskBytes(at[0].pack)), before - reclaimed.bytes);
  ExpectAllReadable(*packs);
  EXPECT_EQ(Scanned(*packs, at[0].pack).size(), 4U) << "what is dead is in no scan";
  // Again, with neighbours that have died since: gaps are joined.
  Kill(*packs, {at[2]});
  Reclaim(*packs, at[0].pack);
  ExpectAllReadable(*packs);
  EXPECT_EQ(Scanned(*packs, at[0].pack).size(), 3U);
  EXPECT_EQ(Reclaim(*packs, at[0].pack).bytes, 0U) << "nothing is left to do";
}

TEST_F(Reclaims, ADeadPackGoesEvenWhileOthersHaveItOpen) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const auto at = Add(*packs, {100'000, 200'000});
  const std::unique_ptr<PackSet> other = NewSet();
  Read(*other, at[0]);  // its descriptor stays
  Kill(*packs, at);
  const Reclaimed reclaimed = Reclaim(*packs, at[0].pack);
  EXPECT_TRUE(reclaimed.removed);
  EXPECT_GE(reclaimed.bytes, 300'000U);
  EXPECT_FALSE(std::filesystem::exists(PathOf(at[0].pack)));
  EXPECT_EQ(Read(*other, at[0]), "corrupt") << "the bytes are gone at once, whoever has the file";
  EXPECT_NE(Add(*packs, {10})[0].pack, at[0].pack) << "ids are not given again";
}

TEST_F(Reclaims, WhatIsLeftBetweenManyHolesMoves) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::vector<size_t> sizes(8000, 600);  // too small for holes between them
  const auto at = Add(*packs, sizes);
  std::vector<ChunkLocation> dead;
  for (size_t i = 0; i < at.size(); ++i) {
    if (i % 4 != 0) dead.push_back(at[i]);
  }
  Kill(*packs, dead);
  const Reclaimed reclaimed = Reclaim(*packs, at[0].pack);
  EXPECT_TRUE(reclaimed.removed);
  EXPECT_EQ(reclaimed.moved, 2000U * 600);
  EXPECT_GT(reclaimed.bytes, 5'000'000U) << "of the pack that went";
  ExpectAllReadable(*packs);
  ExpectAllReadable(*NewSet());
}

TEST_F(Reclaims, APackThatIsBeingWrittenIsLeftAlone) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const auto at = Add(*packs, {100'000});
  Kill(*packs, at);
  const std::unique_ptr<PackWriter> writer = Must(packs->Acquire());
  ASSERT_EQ(writer->pack(), at[0].pack);
  EXPECT_TRUE(Reclaim(*NewSet(), at[0].pack).busy) << "another process's";
  // One's own gets holes below what is committed, and is written on.
  const ChunkLocation later = Append(*writer, "later");
  Must(writer->Flush());
  const Reclaimed reclaimed = Reclaim(*packs, at[0].pack);
  EXPECT_FALSE(reclaimed.removed);
  EXPECT_GT(reclaimed.bytes, 90'000U);
  EXPECT_EQ(Read(*packs, later), "later");
}

TEST_F(Reclaims, NobodyWhoLookedBeforeSeesBytesChange) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const auto at = Add(*packs, {500'000, 500'000});
  const std::string content = Read(*packs, at[0]);
  std::atomic<bool> looked = false;
  std::atomic<bool> read = false;
  std::jthread reader([&] {
    const IndexSnapshot snapshot = Must(index_->Snapshot());
    const auto location = Must(snapshot.FindChunk(ChunkDigestOf(content)));
    looked = true;
    looked.notify_all();
    read.wait(false);
    EXPECT_TRUE(Read(*packs, *location) == content);
  });
  looked.wait(false);
  Kill(*packs, {at[0]});
  EXPECT_TRUE(Must(packs->Reclaim(at[0].pack, std::chrono::milliseconds(20))).postponed);
  read = true;
  read.notify_all();
  reader.join();
  EXPECT_GT(Reclaim(*packs, at[0].pack).bytes, 400'000U);
  ExpectAllReadable(*packs);
}

TEST_F(Reclaims, ARecordThatIsDamagedIsNotLostByMoving) {
  const std::unique_ptr<PackSet> packs = NewSet();
  const std::vector<size_t> sizes(8000, 600);
  const auto at = Add(*packs, sizes);
  std::string bytes = ReadFile(PathOf(at[0].pack));
  bytes[at[3].offset - 48] ^= 1;  // a header: its content is still found by the index
  directory_.Write("packs/" + PackSet::FileName(at[0].pack), bytes);
  std::vector<ChunkLocation> dead;
  for (size_t i = 0; i < at.size(); ++i) {
    if (i % 4 != 3) dead.push_back(at[i]);
  }
  Kill(*packs, dead);
  const Reclaimed reclaimed = Reclaim(*packs, at[0].pack);
  EXPECT_FALSE(reclaimed.removed) << "one record stayed behind";
  ExpectAllReadable(*packs);
}

}  // namespace
}  // namespace ocifs::store
