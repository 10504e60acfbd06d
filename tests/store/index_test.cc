#include "store/index.h"

#include <gtest/gtest.h>
#include <lmdb.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "store/record_codec.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/child.h"
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

// --- sums and packs ------------------------------------------------------------------------------

TEST_F(Indexes, PinsAreKept) {
  const Reference ref = RefOf("a.b/c:1");
  EXPECT_FALSE(Must(index_->FindPin(ref)));
  Commit([&](IndexBatch& batch) {
    batch.PutPin(PinRecord{ref.ToString(), DigestOf("m"), 5});
    batch.PutPin(PinRecord{"a.b/c:2", DigestOf("n"), 6});
  });
  Reopen();
  EXPECT_EQ(Must(index_->FindPin(ref))->digest, DigestOf("m"));
  EXPECT_EQ(Must(index_->FindPin(ref))->pinned_at, 5);
  EXPECT_EQ(Must(index_->Pins()).size(), 2U);
  Commit([&](IndexBatch& batch) { batch.DeletePin(ref); });
  EXPECT_FALSE(Must(index_->FindPin(ref)));
  EXPECT_EQ(Must(index_->Pins())[0].reference, "a.b/c:2");
}

TEST_F(Indexes, ATreeMayLieInTheIndexAndComesAndGoes) {
  const Digest manifest = DigestOf("m");
  Commit([&](IndexBatch& batch) {
    batch.PutPackage(manifest, PackageRecord{.tree_bytes = 4, .tree = "tree"});
  });
  EXPECT_EQ(Must(index_->FindPackage(manifest))->tree, "tree");
  EXPECT_TRUE(Must(index_->PackageEntries())[0].has_inline_tree);
  EXPECT_FALSE(Must(index_->PackageEntries())[0].record.tree);
  EXPECT_EQ(Must(index_->Totals()).tree_file_bytes, 0U);
  Commit([&](IndexBatch& batch) {
    batch.PutPackage(manifest, PackageRecord{.tree_bytes = 99, .tree = {}});
  });
  EXPECT_FALSE(Must(index_->FindPackage(manifest))->tree);
  EXPECT_FALSE(Must(index_->PackageEntries())[0].has_inline_tree);
  EXPECT_EQ(Must(index_->Totals()).tree_file_bytes, 99U);
  EXPECT_EQ(Must(index_->Totals()).packages, 1U);
  Must(index_->Verify());
}

TEST_F(Indexes, ATouchRaisesTheLastUseAndNothingElse) {
  const Digest manifest = DigestOf("m");
  Commit([&](IndexBatch& batch) {
    batch.PutPackage(manifest, PackageRecord{.tree_bytes = 1, .used_at = 10, .tree = "t"});
  });
  Commit([&](IndexBatch& batch) {
    batch.Touch(manifest, 20);
    batch.Touch(DigestOf("unknown"), 20);
  });
  EXPECT_EQ(Must(index_->FindPackage(manifest))->used_at, 20);
  EXPECT_EQ(Must(index_->FindPackage(manifest))->tree, "t");
  Commit([&](IndexBatch& batch) { batch.Touch(manifest, 15); });
  EXPECT_EQ(Must(index_->FindPackage(manifest))->used_at, 20);
  EXPECT_FALSE(Must(index_->FindPackage(DigestOf("unknown"))));
  Must(index_->Verify());
}

TEST_F(Indexes, ChunksMoveAndGoOnlyFromWhereTheyAre) {
  const ChunkDigest chunk = ChunkDigestOf("c");
  const ChunkLocation first{1, 100, 50};
  const ChunkLocation second{2, 200, 50};
  Commit([&](IndexBatch& batch) {
    batch.PutChunk(chunk, first);
    batch.RaisePack(1, 1000);
    batch.RaisePack(2, 1000);
  });
  EXPECT_EQ(Must(index_->FindPack(1))->live_bytes, RecordBytes(50));
  Commit([&](IndexBatch& batch) {
    batch.MoveChunk(chunk, second, first);
    batch.DeleteChunkAt(chunk, second);
  });
  EXPECT_EQ(Must(index_->FindChunk(chunk)), first);
  EXPECT_EQ(Must(index_->Totals()).evictions, 0U);
  Commit([&](IndexBatch& batch) { batch.MoveChunk(chunk, first, second); });
  EXPECT_EQ(Must(index_->FindChunk(chunk)), second);
  EXPECT_EQ(Must(index_->FindPack(1))->live_bytes, 0U);
  EXPECT_EQ(Must(index_->FindPack(2))->live_bytes, RecordBytes(50));
  EXPECT_EQ(Must(index_->Totals()).evictions, 0U) << "a move is none";
  Commit([&](IndexBatch& batch) { batch.DeleteChunkAt(chunk, second); });
  EXPECT_FALSE(Must(index_->FindChunk(chunk)));
  EXPECT_EQ(Must(index_->Totals()).live_bytes, 0U);
  EXPECT_EQ(Must(index_->Totals()).evictions, 1U);
}

TEST_F(Indexes, NumbersOfPacksAreNotGivenAgain) {
  EXPECT_EQ(Must(index_->ReservePack(24)), 1U);
  EXPECT_EQ(Must(index_->ReservePack(24)), 2U);
  Commit([](IndexBatch& batch) {
    batch.DeletePack(1);
    batch.DeletePack(2);
  });
  EXPECT_TRUE(Must(index_->Packs()).empty());
  Reopen();
  EXPECT_EQ(Must(index_->ReservePack(24)), 3U);
}

// The sums against a plain model, the journal against the tables, LMDB's pages against each other:
// after each of many random commits.
TEST_F(Indexes, SumsStayRight) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::map<uint32_t, ChunkLocation> chunks;
  std::map<uint32_t, uint64_t> blob_files;
  std::map<uint32_t, uint64_t> tree_files;  // 0: inline
  auto name = [](uint32_t n) { return std::to_string(n); };
  for (int round = 0; round < 150; ++round) {
    IndexBatch batch;
    for (uint32_t i = random() % 8; i > 0; --i) {  // deletions first, as the index makes them
      const uint32_t n = random() % 20;
      batch.DeleteChunk(ChunkDigestOf(name(n)));
      chunks.erase(n);
    }
    for (uint32_t i = random() % 12; i > 0; --i) {
      const uint32_t n = random() % 20;
      const ChunkLocation location{1 + static_cast<uint32_t>(random() % 4), random() % 1000,
                                   random() % 100};
      batch.PutChunk(ChunkDigestOf(name(n)), location);
      batch.RaisePack(location.pack, location.offset + location.length);
      chunks[n] = location;
    }
    for (uint32_t i = random() % 6; i > 0; --i) {
      const uint32_t n = random() % 20;
      switch (random() % 6) {
        case 0:
          batch.DeleteBlob(DigestOf(name(n)));
          blob_files.erase(n);
          break;
        case 1:
          batch.PutBlob(DigestOf(name(n)), BlobRecord{name(n).size(), name(n)});
          blob_files.erase(n);
          break;
        case 2:
          blob_files[n] = random() % 100'000;
          batch.PutBlob(DigestOf(name(n)), BlobRecord{blob_files[n], std::nullopt});
          break;
        case 3:
          batch.DeletePackage(DigestOf(name(n)));
          tree_files.erase(n);
          break;
        case 4: {
          std::string tree(random() % 16'000, 't');
          batch.PutPackage(DigestOf(name(n)),
                           PackageRecord{.tree_bytes = tree.size(), .tree = std::move(tree)});
          tree_files[n] = 0;
          break;
        }
        default:
          tree_files[n] = 1 + random() % 100'000;
          batch.PutPackage(DigestOf(name(n)),
                           PackageRecord{.tree_bytes = tree_files[n], .tree = {}});
      }
    }
    batch.PutRef(RefOf("a.b/c:" + name(random() % 9)), RefTo(name(random())));
    Must(index_->Commit(std::move(batch)));
    IndexTotals expected;
    std::map<uint32_t, uint64_t> live;
    for (const auto& [n, location] : chunks) live[location.pack] += RecordBytes(location.length);
    for (const auto& [pack, bytes] : live) expected.live_bytes += bytes;
    for (const auto& [n, bytes] : blob_files) expected.blob_file_bytes += bytes;
    for (const auto& [n, bytes] : tree_files) expected.tree_file_bytes += bytes;
    expected.packages = tree_files.size();
    expected.evictions = Must(index_->Totals()).evictions;
    ASSERT_EQ(Must(index_->Totals()), expected) << "round " << round;
    for (const PackRecord& pack : Must(index_->Packs())) {
      ASSERT_EQ(pack.live_bytes, live[pack.id]) << "round " << round;
    }
    ASSERT_THAT(index_->Verify(), IsOk()) << "round " << round;
  }
}

// --- transactions --------------------------------------------------------------------------------

TEST_F(Indexes, ACheckSeesTheStateAndMayAddOrGiveUp) {
  const Digest manifest = DigestOf("m");
  auto add_if_absent = [&](const IndexSnapshot& now, IndexBatch& batch) -> Result<void> {
    OCIFS_ASSIGN_OR_RETURN(const auto found, now.FindPackage(manifest));
    if (found) return Fail(ErrorCode::kInvalid, "it is there");
    batch.PutPackage(manifest, PackageRecord{.tree_bytes = 7, .tree = {}});
    return {};
  };
  IndexBatch batch;
  batch.PutRef(RefOf("a.b/c:1"), RefTo("m"));
  const uint64_t number = Must(index_->Commit(batch, add_if_absent));
  EXPECT_EQ(Must(index_->LastTransaction()), number);
  EXPECT_EQ(Must(index_->FindPackage(manifest))->tree_bytes, 7U);
  batch.PutRef(RefOf("a.b/c:2"), RefTo("m"));
  EXPECT_THAT(index_->Commit(batch, add_if_absent), FailsWith(ErrorCode::kInvalid));
  EXPECT_FALSE(Must(index_->FindRef(RefOf("a.b/c:2")))) << "nothing of it";
  EXPECT_EQ(Must(index_->LastTransaction()), number);
  Must(index_->Verify());
}

TEST_F(Indexes, ASnapshotStaysAndIsWaitedFor) {
  const ChunkDigest chunk = ChunkDigestOf("c");
  Commit([&](IndexBatch& batch) { batch.PutChunk(chunk, ChunkLocation{1, 2, 3}); });
  std::binary_semaphore taken(0);
  std::binary_semaphore done(0);
  std::thread reader([&] {
    const IndexSnapshot snapshot = Must(index_->Snapshot());
    taken.release();
    done.acquire();
    EXPECT_TRUE(Must(snapshot.FindChunk(chunk))) << "as it was";
  });
  taken.acquire();
  IndexBatch batch;
  batch.DeleteChunk(chunk);
  const uint64_t number = Must(index_->Commit(std::move(batch), nullptr));
  EXPECT_FALSE(Must(index_->FindChunk(chunk)));
  EXPECT_FALSE(Must(index_->WaitForReaders(number, std::chrono::milliseconds(0))));
  done.release();
  EXPECT_TRUE(Must(index_->WaitForReaders(number, std::chrono::seconds(60))));
  reader.join();
}

TEST_F(Indexes, ACommitThatChangesNothingIsNotWaitedForInVain) {
  Commit([&](IndexBatch& batch) { batch.PutSlot({1, "x", std::nullopt}); });
  IndexBatch batch;
  batch.DeleteBlob(DigestOf("never was"));
  const uint64_t number = Must(index_->Commit(std::move(batch), nullptr));
  std::binary_semaphore taken(0);
  std::binary_semaphore done(0);
  std::thread reader([&] {
    const IndexSnapshot snapshot = Must(index_->Snapshot());
    taken.release();
    done.acquire();
  });
  taken.acquire();
  EXPECT_TRUE(Must(index_->WaitForReaders(number, std::chrono::milliseconds(0))));
  done.release();
  reader.join();
}

TEST_F(Indexes, ReadersThatWereKilledAreNotWaitedFor) {
  index_.reset();
  Child child([&](Child::Channel& channel) {
    const std::unique_ptr<Index> index = Must(Index::Open(directory_.path()));
    const IndexSnapshot snapshot = Must(index->Snapshot());
    channel.Tell();
    channel.Await();
  });
  child.Await();
  Reopen();
  IndexBatch batch;
  batch.PutSlot({1, "x", std::nullopt});
  const uint64_t number = Must(index_->Commit(std::move(batch), nullptr));
  EXPECT_FALSE(Must(index_->WaitForReaders(number, std::chrono::milliseconds(0))));
  child.Kill();
  EXPECT_TRUE(Must(index_->WaitForReaders(number, std::chrono::milliseconds(0))));
}

// Row D03: a full map is nobody's business.
TEST_F(Indexes, TheMapGrowsUnderReadersAndInOtherProcesses) {
  index_.reset();
  const testing::TempDir directory;
  Index::Options small;
  small.map_bytes = uint64_t{1} << 20;
  auto put = [](Index& index, const std::string& from, int count) {
    for (int i = 0; i < count; ++i) {
      IndexBatch batch;
      for (int j = 0; j < 20; ++j) {
        const std::string name = from + std::to_string(i) + "/" + std::to_string(j);
        batch.PutBlob(DigestOf(name), BlobRecord{8000, std::string(8000, name[0])});
      }
      Must(index.Commit(std::move(batch)));
    }
  };
  Child child([&](Child::Channel& channel) {
    const std::unique_ptr<Index> index = Must(Index::Open(directory.path(), small));
    channel.Tell();
    channel.Await();
    put(*index, "child", 40);  // 6.4 MB
    channel.Tell();
    channel.Await();
    for (int i = 0; i < 40; ++i) {
      if (!Must(index->FindBlob(DigestOf("parent" + std::to_string(i) + "/7")))) std::abort();
    }
  });
  child.Await();
  {
    const std::unique_ptr<Index> index = Must(Index::Open(directory.path(), small));
    put(*index, "first", 1);
    std::atomic<bool> stop = false;
    std::vector<std::thread> readers;
    for (int i = 0; i < 3; ++i) {
      readers.emplace_back([&] {
        while (!stop) {
          const auto blob = Must(index->FindBlob(DigestOf("first0/3")));
          ASSERT_TRUE(blob);
          ASSERT_EQ(blob->content, std::string(8000, 'f'));
        }
      });
    }
    child.Tell();
    put(*index, "parent", 40);
    child.Await();
    EXPECT_TRUE(Must(index->FindBlob(DigestOf("child39/19"))));
    child.Tell();
    EXPECT_EQ(child.Wait(), 0);
    stop = true;
    for (std::thread& reader : readers) reader.join();
    EXPECT_THAT(index->Verify(), IsOk());
  }
}

TEST_F(Indexes, KeysThatAreTooLongAreRefusedAndNotFound) {
  IndexBatch batch;
  batch.PutPin(PinRecord{std::string(512, 'x'), DigestOf("m"), 1});
  EXPECT_THAT(index_->Commit(std::move(batch)), FailsWith(ErrorCode::kTooLarge));
  Must(index_->Verify());
}

// --- the journal ---------------------------------------------------------------------------------

TEST_F(Indexes, TheJournalIsCompactedWhenMostOfItIsOutOfDate) {
  const std::string path = directory_ / "journal";
  const std::string content(16'000, 'x');
  for (int i = 0; i < 400; ++i) {
    IndexBatch batch;
    batch.PutPackage(DigestOf("m"),
                     PackageRecord{.tree_bytes = content.size(), .fetched_at = i, .tree = content});
    Must(index_->Commit(std::move(batch)));
  }
  Commit([](IndexBatch& batch) { batch.PutSlot({1, "x", std::nullopt}); });
  EXPECT_GT(std::filesystem::file_size(path), 4'000'000U);
  Must(index_->CompactJournal());
  EXPECT_LT(std::filesystem::file_size(path), 20'000U);
  Must(index_->Verify());
  Commit([](IndexBatch& batch) { batch.PutSlot({2, "y", std::nullopt}); });
  Must(index_->Verify());
}

TEST_F(Indexes, AJournalThatIsGoneIsWrittenAnew) {
  Commit([](IndexBatch& batch) { batch.PutSlot({1, "x", std::nullopt}); });
  const std::string path = directory_ / "journal";
  const std::string whole = ReadFile(path);
  // As a power loss leaves it: gone, cut, or with zeros where the disk had not got to.
  for (const std::string& left :
       {std::string(), whole.substr(0, whole.size() / 2), std::string(whole.size(), '\0')}) {
    directory_.Write("journal", left);
    EXPECT_THAT(index_->Verify(), IsOk()) << "the index has it all";
    Must(index_->CompactJournal());
    EXPECT_EQ(ReadFile(path), whole);
  }
  std::filesystem::remove(path);
  EXPECT_THAT(index_->Verify(), IsOk());
  Must(index_->CompactJournal());
  EXPECT_EQ(ReadFile(path), whole);
}

TEST_F(Indexes, AJournalThatSaysMoreMeansThatTheIndexIsOlder) {
  Commit([](IndexBatch& batch) { batch.PutSlot({1, "x", std::nullopt}); });
  const std::string older = ReadFile(directory_ / "data.mdb");
  Commit([](IndexBatch& batch) { batch.PutSlot({2, "y", std::nullopt}); });
  index_.reset();
  directory_.Write("data.mdb", older);
  index_ = Must(Index::Open(directory_.path()));
  EXPECT_THAT(index_->Verify(), FailsWith(ErrorCode::kIndexDamaged));
}

TEST_F(Indexes, AStoreThatCannotBeWrittenCanBeRead) {
  Commit([](IndexBatch& batch) { batch.PutSlot({1, "x", std::nullopt}); });
  index_.reset();
  Index::Options options;
  options.read_only = true;
  const std::unique_ptr<Index> index = Must(Index::Open(directory_.path(), options));
  EXPECT_EQ(Must(index->Slots()).size(), 1U);
  IndexBatch batch;
  batch.PutSlot({2, "y", std::nullopt});
  const Result<void> committed = index->Commit(std::move(batch));
  EXPECT_THAT(committed, FailsWith(ErrorCode::kNoSpace));
  EXPECT_THAT(committed.error().message, ::testing::HasSubstr("the store is read-only"));
  EXPECT_EQ(Must(index->Slots()).size(), 1U);
}

// A limit on address space (RLIMIT_AS), as containers and batch systems set it.
TEST_F(Indexes, AProcessWithLittleAddressSpaceGetsASmallerMap) {
  index_.reset();
  Child child([&](Child::Channel&) {
    const rlimit limit{rlim_t{8} << 30, rlim_t{8} << 30};
    if (setrlimit(RLIMIT_AS, &limit) != 0) std::abort();
    const std::unique_ptr<Index> index = Must(Index::Open(directory_.path()));
    IndexBatch batch;
    batch.PutSlot({1, "x", std::nullopt});
    Must(index->Commit(std::move(batch)));
  });
  EXPECT_EQ(child.Wait(), 0);
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

// A disk that gives one page for another.
TEST_F(DamagedIndexes, AValueUnderAnotherKeyIsNoticed) {
  Commit([&](IndexBatch& batch) {
    batch.PutRef(RefOf("a.b/c:1"), RefTo("m"));
    batch.PutRef(RefOf("a.b/c:2"), RefTo("n"));
  });
  std::string first;
  Rewrite("refs", [&](std::string v) {
    if (first.empty()) first = v;
    return first;
  });
  EXPECT_EQ(Must(index_->FindRef(RefOf("a.b/c:1")))->digest, DigestOf("m"));
  EXPECT_THAT(index_->FindRef(RefOf("a.b/c:2")), FailsWith(ErrorCode::kIndexDamaged));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "damaged")) << "the next start shall know";
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
