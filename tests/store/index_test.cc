#include "store/index.h"

#include <gtest/gtest.h>
#include <lmdb.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/record_codec.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using ::testing::ElementsAre;

RefRecord RefTo(std::string_view content) {
  return RefRecord{DigestOf(content), "application/x", 10, 20};
}

class Indexes : public ::testing::Test {
 protected:
  Indexes() { Reopen(); }
  void Reopen() {
    index_.reset();
    index_ = Must(Index::Open(directory_.path()));
  }
  void Commit(const std::function<void(IndexBatch&)>& fill) {
    IndexBatch batch;
    fill(batch);
    Must(index_->Commit(std::move(batch)));
  }
  // Changes each value of a table behind the index's back.
  void Rewrite(const char* table, const std::function<std::string(std::string)>& change) {
    index_.reset();  // one environment a process
    MDB_env* env = nullptr;
    ASSERT_EQ(mdb_env_create(&env), 0);
    mdb_env_set_mapsize(env, size_t{64} << 30);
    mdb_env_set_maxdbs(env, 16);
    ASSERT_EQ(mdb_env_open(env, directory_.path().c_str(), 0, 0600), 0);
    MDB_txn* txn = nullptr;
    ASSERT_EQ(mdb_txn_begin(env, nullptr, 0, &txn), 0);
    MDB_dbi dbi = 0;
    ASSERT_EQ(mdb_dbi_open(txn, table, 0, &dbi), 0);
    MDB_cursor* cursor = nullptr;
    ASSERT_EQ(mdb_cursor_open(txn, dbi, &cursor), 0);
    std::vector<std::pair<std::string, std::string>> items;
    MDB_val key;
    MDB_val value;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
      items.emplace_back(std::string(static_cast<char*>(key.mv_data), key.mv_size),
                         change({static_cast<char*>(value.mv_data), value.mv_size}));
    }
    mdb_cursor_close(cursor);
    for (auto& [k, v] : items) {
      key = {k.size(), k.data()};
      value = {v.size(), v.data()};
      ASSERT_EQ(mdb_put(txn, dbi, &key, &value, 0), 0);
    }
    ASSERT_EQ(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    Reopen();
  }

  const testing::TempDir directory_;
  std::unique_ptr<Index> index_;
};

TEST_F(Indexes, EveryTableKeepsItsRecords) {
  const Reference tag = RefOf("ghcr.io/a/b:1.0");
  const Reference digest =
      RefOf("ghcr.io/a/b@" + DigestOf("m", DigestAlgorithm::kSha512).ToString());
  Commit([&](IndexBatch& batch) {
    batch.PutRef(tag, RefTo("m"));
    batch.PutRef(digest, RefTo("n"));
    batch.PutPackage(DigestOf("m"), PackageRecord{1, 2, 3, -4, 5, {}});
    batch.PutBlob(DigestOf("inline"), BlobRecord{6, "inline"});
    batch.PutBlob(DigestOf("file", DigestAlgorithm::kSha512),
                  BlobRecord{uint64_t{1} << 40, std::nullopt});
    batch.PutBlob(DigestOf(""), BlobRecord{0, ""});
    batch.PutChunk(ChunkDigestOf("c"), ChunkLocation{7, uint64_t{1} << 39, 5});
    batch.RaisePack(7, 1000);
    batch.PutTagList(tag.repository(), TagListRecord{{"a", "b"}, true, 99});
    batch.PutSlot(SlotRecord{5, "ghcr.io/a/b/1.0", DigestOf("m")});
    batch.PutSlot(SlotRecord{0xFFFFFFFF, "", std::nullopt});
  });
  Reopen();
  const auto ref = Must(index_->FindRef(tag));
  ASSERT_TRUE(ref);
  EXPECT_EQ(ref->digest, DigestOf("m"));
  EXPECT_EQ(ref->media_type, "application/x");
  EXPECT_EQ(ref->fetched_at, 10);
  EXPECT_EQ(ref->validated_at, 20);
  EXPECT_EQ(Must(index_->FindRef(digest))->digest, DigestOf("n"));
  const auto package = Must(index_->FindPackage(DigestOf("m")));
  ASSERT_TRUE(package);
  EXPECT_EQ(package->tree_bytes, 1U);
  EXPECT_EQ(package->content_bytes, 2U);
  EXPECT_EQ(package->nodes, 3U);
  EXPECT_EQ(package->fetched_at, -4);
  EXPECT_EQ(Must(index_->FindBlob(DigestOf("inline")))->content, "inline");
  EXPECT_EQ(Must(index_->FindBlob(DigestOf("")))->content, "");
  const auto file = Must(index_->FindBlob(DigestOf("file", DigestAlgorithm::kSha512)));
  EXPECT_EQ(file->size, uint64_t{1} << 40);
  EXPECT_FALSE(file->content);
  EXPECT_EQ(Must(index_->FindChunk(ChunkDigestOf("c"))), (ChunkLocation{7, uint64_t{1} << 39, 5}));
  EXPECT_EQ(Must(index_->FindPack(7))->length, 1000U);
  const auto tags = Must(index_->FindTagList(tag.repository()));
  EXPECT_THAT(tags->tags, ElementsAre("a", "b"));
  EXPECT_TRUE(tags->complete);
  EXPECT_EQ(tags->fetched_at, 99);
  const std::vector<SlotRecord> slots = Must(index_->Slots());
  ASSERT_EQ(slots.size(), 2U);
  EXPECT_EQ(slots[0].slot, 5U);
  EXPECT_EQ(slots[0].digest, DigestOf("m"));
  EXPECT_EQ(slots[1].slot, 0xFFFFFFFFU);
  EXPECT_EQ(slots[1].digest, std::nullopt);
  EXPECT_THAT(Must(index_->Packages()), ElementsAre(DigestOf("m")));
  EXPECT_EQ(Must(index_->PackageCount()), 1U);
  EXPECT_EQ(Must(index_->Blobs()).size(), 3U);
}

TEST_F(Indexes, WhatIsNotThereIsNotFound) {
  EXPECT_EQ(Must(index_->FindRef(RefOf("a.b/c"))).has_value(), false);
  EXPECT_EQ(Must(index_->FindPackage(DigestOf("m"))).has_value(), false);
  EXPECT_EQ(Must(index_->FindBlob(DigestOf("m"))).has_value(), false);
  EXPECT_EQ(Must(index_->FindChunk(ChunkDigestOf("m"))).has_value(), false);
  EXPECT_EQ(Must(index_->FindPack(1)).has_value(), false);
  EXPECT_EQ(Must(index_->FindTagList(RepositoryOf("a.b/c"))).has_value(), false);
  EXPECT_TRUE(Must(index_->Registries()).empty());
  EXPECT_TRUE(Must(index_->Refs("")).empty());
}

TEST_F(Indexes, OfSeveralChangesToOneKeyTheLastCounts) {
  const Reference ref = RefOf("a.b/c:1");
  Commit([&](IndexBatch& batch) {
    batch.PutRef(ref, RefTo("1"));
    batch.DeleteRef(ref);
    batch.PutRef(ref, RefTo("2"));
    batch.PutBlob(DigestOf("x"), BlobRecord{1, "x"});
    batch.DeleteBlob(DigestOf("x"));
    batch.PutChunk(ChunkDigestOf("c"), ChunkLocation{1, 1, 1});
    batch.DeleteChunk(ChunkDigestOf("c"));  // made before the put, by contract
  });
  EXPECT_EQ(Must(index_->FindRef(ref))->digest, DigestOf("2"));
  EXPECT_FALSE(Must(index_->FindBlob(DigestOf("x"))));
  EXPECT_TRUE(Must(index_->FindChunk(ChunkDigestOf("c"))));
  Commit([&](IndexBatch& batch) {
    batch.DeleteRef(ref);
    batch.DeleteChunk(ChunkDigestOf("c"));
    batch.DeletePackage(DigestOf("never was"));
  });
  EXPECT_FALSE(Must(index_->FindRef(ref)));
  EXPECT_FALSE(Must(index_->FindChunk(ChunkDigestOf("c"))));
}

TEST_F(Indexes, PacksOnlyGrow) {
  Commit([](IndexBatch& batch) { batch.RaisePack(3, 500); });
  Commit([](IndexBatch& batch) { batch.RaisePack(3, 400); });
  EXPECT_EQ(Must(index_->FindPack(3))->length, 500U);
  Commit([](IndexBatch& batch) {
    batch.RaisePack(3, 700);
    batch.RaisePack(3, 600);
  });
  EXPECT_EQ(Must(index_->FindPack(3))->length, 700U);
}

TEST_F(Indexes, EveryReservedPackIsANewOne) {
  EXPECT_EQ(Must(index_->ReservePack(24)), 1U);
  EXPECT_EQ(Must(index_->ReservePack(24)), 2U);
  Commit([](IndexBatch& batch) { batch.RaisePack(300, 1); });
  EXPECT_EQ(Must(index_->ReservePack(24)), 301U);
  const std::vector<PackRecord> packs = Must(index_->Packs());
  ASSERT_EQ(packs.size(), 4U);
  EXPECT_EQ(packs.back().id, 301U) << "in the order of numbers, not of their digits";
}

TEST_F(Indexes, RefsOfAPrefix) {
  Commit([&](IndexBatch& batch) {
    for (const char* ref : {"g.io/a:1", "g.io/a:2", "g.io/a-b:1", "g.io/a/b:1", "g.io/ab:1",
                            "g.ioo/a:1", "g.io/a.b:1"}) {
      batch.PutRef(RefOf(ref), RefTo(ref));
    }
  });
  auto keys = [&](std::string_view prefix) {
    std::vector<std::string> found;
    for (const auto& [key, record] : Must(index_->Refs(prefix))) found.push_back(key);
    return found;
  };
  EXPECT_THAT(keys("g.io/a:"), ElementsAre("g.io/a:1", "g.io/a:2"));
  EXPECT_THAT(keys("g.io/a/"), ElementsAre("g.io/a/b:1"));
  EXPECT_THAT(keys("g.io/ab"), ElementsAre("g.io/ab:1"));
  EXPECT_TRUE(keys("h").empty());
  EXPECT_EQ(keys("").size(), 7U);
  EXPECT_TRUE(keys(std::string(5000, 'x')).empty()) << "longer than any key";
}

TEST_F(Indexes, LongListingsAreWhole) {
  Commit([&](IndexBatch& batch) {
    for (int i = 0; i < 2500; ++i) batch.PutRef(RefOf("g.io/a:" + std::to_string(i)), RefTo("x"));
  });
  EXPECT_EQ(Must(index_->Refs("g.io/a:")).size(), 2500U);
}

TEST_F(Indexes, RegistriesOneByOneWhateverTheirNames) {
  const std::vector<std::string> names = {"localhost",      "localhost:5000", "localhost:50001",
                                          "localhost-x.io", "localhost.io",   "localhost0.io",
                                          "[::1]:80",       "a.io",           "a.io:1",
                                          "zz.io"};
  Commit([&](IndexBatch& batch) {
    for (const std::string& name : names) {
      for (const char* rest : {"/a:1", "/a/b/c:1", "/z-z:1"})
        batch.PutRef(RefOf(name + rest), RefTo("x"));
    }
  });
  std::vector<std::string> found;
  for (const Registry& registry : Must(index_->Registries())) found.push_back(registry.name());
  EXPECT_THAT(found, ::testing::UnorderedElementsAreArray(names));
  for (const std::string& name : names)
    EXPECT_TRUE(Must(index_->HasRegistry(RegistryOf(name)))) << name;
  for (const char* name : {"localhost:500", "local", "a.i", "a.io:2", "zzz.io"}) {
    EXPECT_FALSE(Must(index_->HasRegistry(RegistryOf(name)))) << name;
  }
}

TEST_F(Indexes, TwoHandlesSeeOneIndex) {
  // LMDB forbids a second environment in one process; another handle is what a reopen gives.
  Commit([](IndexBatch& batch) { batch.PutSlot({1, "x", std::nullopt}); });
  Reopen();
  EXPECT_EQ(Must(index_->Slots()).size(), 1U);
}

// --- damage --------------------------------------------------------------------------------------

class DamagedIndexes : public Indexes {
 protected:
  void Fill() {
    Commit([&](IndexBatch& batch) {
      batch.PutRef(RefOf("a.b/c:1"), RefTo("m"));
      batch.PutPackage(DigestOf("m"), PackageRecord{1, 2, 3, 4, 5, {}});
      batch.PutBlob(DigestOf("b"), BlobRecord{1, "b"});
      batch.PutChunk(ChunkDigestOf("c"), ChunkLocation{1, 2, 3});
      batch.RaisePack(1, 24);
      batch.PutTagList(RepositoryOf("a.b/c"), TagListRecord{{"1"}, true, 1});
      batch.PutSlot(SlotRecord{1, "p", DigestOf("m")});
    });
  }
  void ExpectDamaged(std::string_view what) {
    EXPECT_THAT(index_->FindRef(RefOf("a.b/c:1")), FailsWith(ErrorCode::kIndexDamaged)) << what;
    EXPECT_THAT(index_->FindPackage(DigestOf("m")), FailsWith(ErrorCode::kIndexDamaged)) << what;
    EXPECT_THAT(index_->FindBlob(DigestOf("b")), FailsWith(ErrorCode::kIndexDamaged)) << what;
    EXPECT_THAT(index_->FindChunk(ChunkDigestOf("c")), FailsWith(ErrorCode::kIndexDamaged)) << what;
    EXPECT_THAT(index_->FindPack(1), FailsWith(ErrorCode::kIndexDamaged)) << what;
    EXPECT_THAT(index_->FindTagList(RepositoryOf("a.b/c")), FailsWith(ErrorCode::kIndexDamaged))
        << what;
  }
};

constexpr const char* kTables[] = {"refs", "packages", "blobs", "chunks", "packs", "tags", "slots"};

TEST_F(DamagedIndexes, EveryFlippedByteOfAValueIsNoticed) {
  struct Case {
    std::string_view name;
    std::function<std::string(std::string)> change;
  };
  const Case cases[] = {
      {"first byte", [](std::string v) { return v[0] ^= 1, v; }},
      {"middle byte", [](std::string v) { return v[v.size() / 2] ^= 0x10, v; }},
      {"last byte", [](std::string v) { return v.back() ^= 0x7F, v; }},
      {"cut by one", [](std::string v) { return v.substr(0, v.size() - 1); }},
      {"cut to four bytes", [](std::string v) { return v.substr(0, 4); }},
      {"cut to one byte", [](std::string v) { return v.substr(0, 1); }},
      {"empty", [](const std::string&) { return std::string(); }},
      {"zeros", [](std::string v) { return std::string(v.size(), '\0'); }},
      {"one byte more", [](std::string v) { return v + '\0'; }},
      {"right checksum of too little",
       [](std::string v) {
         v = v.substr(0, v.size() - 5);
         const uint32_t crc = Crc32c(AsBytes(v));
         return v.append(reinterpret_cast<const char*>(&crc), sizeof crc);
       }},
      {"right checksum of too much",
       [](std::string v) {
         v = v.substr(0, v.size() - 4) + "x";
         const uint32_t crc = Crc32c(AsBytes(v));
         return v.append(reinterpret_cast<const char*>(&crc), sizeof crc);
       }},
  };
  for (const Case& c : cases) {
    Fill();
    for (const char* table : kTables) Rewrite(table, c.change);
    ExpectDamaged(c.name);
  }
}

// One bad value must not hide the good ones, nor keep the store from being opened.
TEST_F(DamagedIndexes, ListingsPassOverDamagedValues) {
  Fill();
  for (const char* table : kTables) Rewrite(table, [](std::string v) { return v[0] ^= 1, v; });
  Commit([&](IndexBatch& batch) {
    batch.PutRef(RefOf("a.b/c:2"), RefTo("m"));
    batch.PutSlot(SlotRecord{2, "q", std::nullopt});
    batch.RaisePack(2, 100);
    batch.PutBlob(DigestOf("good"), BlobRecord{4, "good"});
  });
  EXPECT_EQ(Must(index_->Refs("a.b/")).size(), 1U);
  EXPECT_EQ(Must(index_->Slots()).size(), 1U);
  EXPECT_EQ(Must(index_->Blobs()).size(), 1U);
  EXPECT_EQ(Must(index_->Registries()).size(), 1U);
  const std::vector<PackRecord> packs = Must(index_->Packs());
  ASSERT_EQ(packs.size(), 2U) << "a pack whose length is not known is a pack";
  EXPECT_EQ(packs[0].id, 1U);
  EXPECT_EQ(packs[0].length, PackRecord::kUnknownLength);
}

TEST_F(DamagedIndexes, ANewRecordMendsADamagedOne) {
  Fill();
  for (const char* table : kTables) Rewrite(table, [](std::string v) { return v[0] ^= 1, v; });
  Fill();
  EXPECT_THAT(index_->FindRef(RefOf("a.b/c:1")), IsOk());
  EXPECT_EQ(Must(index_->FindPack(1))->length, 24U);
  EXPECT_EQ(Must(index_->FindChunk(ChunkDigestOf("c")))->offset, 2U);
}

// --- records -------------------------------------------------------------------------------------

constexpr RecordPlace kPlace{"table", "key"};

TEST(RecordCodec, ReadsWhatItWrote) {
  const std::string bytes = RecordEncoder()
                                .Add(uint8_t{7})
                                .Add(int64_t{-1})
                                .AddBytes(std::string_view("a\0b", 3))
                                .AddDigest(DigestOf("x", DigestAlgorithm::kSha512))
                                .AddBytes("")
                                .Finish(kPlace);
  RecordDecoder decoder(kPlace, bytes);
  EXPECT_EQ(decoder.Take<uint8_t>(), 7);
  EXPECT_EQ(decoder.Take<int64_t>(), -1);
  EXPECT_EQ(decoder.TakeBytes(), std::string_view("a\0b", 3));
  EXPECT_EQ(decoder.TakeDigest(), DigestOf("x", DigestAlgorithm::kSha512));
  EXPECT_FALSE(decoder.Done()) << "something is left";
  EXPECT_EQ(decoder.TakeBytes(), "");
  EXPECT_TRUE(decoder.Done());
}

TEST(RecordCodec, AReadBeyondTheEndIsBadForGood) {
  RecordDecoder decoder(kPlace, RecordEncoder().Add(uint32_t{1}).Finish(kPlace));
  EXPECT_EQ(decoder.Take<uint64_t>(), 0U);
  EXPECT_EQ(decoder.Take<uint8_t>(), 0U) << "though there are bytes";
  EXPECT_FALSE(decoder.ok());
}

TEST(RecordCodec, LengthsAndAlgorithmsAreChecked) {
  const std::string longer = RecordEncoder().Add(uint32_t{0xFFFFFFFF}).Add('x').Finish(kPlace);
  EXPECT_EQ(RecordDecoder(kPlace, longer).TakeBytes(), "");
  for (const uint8_t algorithm : {0, 2, 3, 255}) {
    const std::string bytes =
        RecordEncoder().Add(algorithm).AddBytes(std::string(32, 'x')).Finish(kPlace);
    EXPECT_EQ(RecordDecoder(kPlace, bytes).TakeDigest(), std::nullopt) << int{algorithm};
  }
}

}  // namespace
}  // namespace ocifs::store
