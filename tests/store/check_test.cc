// What fsck finds in a store, what it mends, and what it does not call damage.
#include "store/check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "store/blob_store.h"
#include "store/collector.h"
#include "store/index.h"
#include "store/pack.h"
#include "store/repair.h"
#include "store/store.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/store/cache_fixture.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using harness::TarWriter;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Call = harness::ScriptedSource::Call;

constexpr std::string_view kOther = "ghcr.io/a/other:2";
constexpr std::string_view kContent = "the quick brown fox jumps over the lazy dog";

class CheckTest : public PullThroughTest {
 protected:
  // Two packages that share "big"; the tree of the second is a file.
  void Fill() {
    const std::string big = Noise(200'000, 5);
    source_.AddImage(
        kRef,
        {TarWriter().File("dir/f", kContent).File("big", big).HardLink("hard", "big").End().bytes(),
         OneFile("g", "second layer")});
    TarWriter other;
    other.File("big", big).File("alone", Noise(30'000, 6));
    for (int i = 0; i < 500; ++i) other.File("many/" + std::to_string(i), "");
    source_.AddImage(kOther, {other.End().bytes()});
    ASSERT_EQ(ReadPath("dir/f"), kContent);
    Must(cache().Flush({}));  // so that the next one shares it
    ASSERT_EQ(ReadPath("alone", kOther), Noise(30'000, 6));
    Stop();
    before_ = source_.total();
  }
  void GoOffline() {
    source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
    options_.offline = true;
  }
  size_t requests() const { return source_.total() - before_; }

  Store& store() { return cache().store(); }
  CheckReport Check() {
    cache();
    return Must(CheckStore(*store_, {}));
  }
  RepairReport Repair(const CheckReport& report) {
    return Must(RepairStore(cache(), report, kPatient));
  }
  Digest ManifestOf(std::string_view reference) {
    return Must(OrMissing(store().index().FindRef(RefOf(reference))))->digest;
  }
  const PackageFindings* Of(const CheckReport& report, std::string_view reference) {
    const Digest manifest = ManifestOf(reference);
    for (const PackageFindings& findings : report.findings) {
      if (findings.manifest == manifest) return &findings;
    }
    return nullptr;
  }
  bool IsComplete(std::string_view reference) {
    return Must(store().index().FindPackage(ManifestOf(reference)))->complete;
  }

  void ExpectAllReadable(std::string_view what) {
    EXPECT_EQ(ReadPath("dir/f"), kContent) << what;
    EXPECT_EQ(ReadPath("big"), Noise(200'000, 5)) << what;
    EXPECT_EQ(ReadPath("g"), "second layer") << what;
    EXPECT_EQ(ReadPath("big", kOther), Noise(200'000, 5)) << what;
    EXPECT_EQ(ReadPath("alone", kOther), Noise(30'000, 6)) << what;
  }
  // Nothing is wrong now, nor after a restart, and all is there without a network.
  void ExpectMended(std::string_view what) {
    EXPECT_TRUE(Check().is_clean()) << what;
    Stop();
    GoOffline();
    EXPECT_TRUE(Check().is_clean()) << what;
    EXPECT_THAT(Check().findings, IsEmpty()) << what;
    ExpectAllReadable(what);
  }
  static void Flip(const fs::path& path, uint64_t offset) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(offset));
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }
  std::vector<fs::path> FilesBelow(const std::string& below) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(root() + "/" + below)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    return files;
  }
  // Flips a byte of the header of the record that holds the text.
  void DamageHeaderOf(std::string_view content) {
    for (const fs::path& pack : FilesBelow("packs")) {
      const size_t at = ReadFile(pack).find(content);
      if (at != std::string::npos) Flip(pack, at - 20);
    }
  }

  size_t before_ = 0;
};

TEST_F(CheckTest, AStoreWithoutDamageIsClean) {
  Fill();
  uint64_t last = 0;
  cache();
  const CheckReport report =
      Must(CheckStore(*store_, {.progress = [&](uint64_t done, uint64_t all) {
        EXPECT_GE(done, last);
        EXPECT_LE(done, all);
        last = done;
        return true;
      }}));
  EXPECT_TRUE(report.is_clean());
  EXPECT_THAT(report.findings, IsEmpty());
  EXPECT_EQ(report.packages, 2U);
  EXPECT_EQ(report.chunks, 4U) << "f, big, g, alone";
  EXPECT_EQ(report.blobs, 7U) << "two manifests, two configs, three layers";
  EXPECT_EQ(report.leftover_files, 0U);
  EXPECT_EQ(report.bytes, last);
  EXPECT_GT(report.bytes, 2 * 230'000U) << "chunks and raw layers";
  EXPECT_EQ(requests(), 0U);
}

TEST_F(CheckTest, AnEmptyStoreIsClean) { EXPECT_TRUE(Check().is_clean()); }

TEST_F(CheckTest, StopsWhenToldTo) {
  Fill();
  cache();
  EXPECT_THAT(CheckStore(*store_, {.progress = [](uint64_t, uint64_t) { return false; }}),
              FailsWith(ErrorCode::kCancelled));
}

TEST_F(CheckTest, ADamagedChunkIsReportedWithAllThatNeedsItAndNothingIsChanged) {
  Fill();
  ASSERT_EQ(Damage("packs", Noise(200'000, 5)), 1U);
  const CheckReport report = Check();
  EXPECT_FALSE(report.is_clean());
  ASSERT_EQ(report.chunk_damage.size(), 1U);
  EXPECT_EQ(report.chunk_damage[0].digest, ChunkDigestOf(Noise(200'000, 5)));
  EXPECT_EQ(report.chunk_damage[0].flaw, DamagedChunk::Flaw::kContent);
  ASSERT_EQ(report.findings.size(), 2U);
  const PackageFindings* const first = Of(report, kRef);
  ASSERT_NE(first, nullptr);
  EXPECT_THAT(first->references, Contains(std::string(kRef)));
  EXPECT_EQ(first->damaged_files, 1U) << "hard links are one file";
  EXPECT_EQ(first->damaged_bytes, 200'000U);
  EXPECT_EQ(first->absent_bytes, 0U);
  const PackageFindings* const other = Of(report, kOther);
  ASSERT_NE(other, nullptr);
  EXPECT_THAT(other->file_names, ElementsAre("big"));
  // It only looked.
  EXPECT_EQ(Check().chunk_damage.size(), 1U);
  EXPECT_TRUE(IsComplete(kRef));
}

TEST_F(CheckTest, FilesAreNamedByTheirPaths) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  const CheckReport report = Check();
  ASSERT_EQ(report.findings.size(), 1U);
  EXPECT_THAT(report.findings[0].file_names, ElementsAre("dir/f"));
}

TEST_F(CheckTest, AChunkIsRestoredFromTheRawBlobWithoutARequest) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  GoOffline();
  const RepairReport repaired = Repair(Check());
  EXPECT_EQ(repaired.dropped_chunks, 1U);
  EXPECT_EQ(repaired.restored_packages, 1U);
  EXPECT_THAT(repaired.lacking, IsEmpty());
  EXPECT_THAT(repaired.uncorrected, IsEmpty());
  EXPECT_EQ(requests(), 0U);
  EXPECT_TRUE(IsComplete(kRef));
  ExpectMended("from the raw blob");
}

TEST_F(CheckTest, AChunkAndItsRawBlobAreFetchedWithOneRequest) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  const CheckReport report = Check();
  ASSERT_EQ(report.blob_damage.size(), 1U);
  EXPECT_THAT(report.blob_damage[0].reason, HasSubstr("digest"));
  ASSERT_EQ(report.findings.size(), 1U);
  EXPECT_THAT(report.findings[0].damaged_blobs, ElementsAre(report.blob_damage[0].digest));
  const RepairReport repaired = Repair(report);
  EXPECT_EQ(repaired.dropped_blobs, 1U);
  EXPECT_EQ(repaired.restored_packages, 1U);
  EXPECT_THAT(repaired.lacking_blobs, IsEmpty());
  EXPECT_EQ(requests(), 1U);
  ExpectMended("from the registry");
}

TEST_F(CheckTest, OfflineDamageIsDroppedAndComesBackLater) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  GoOffline();
  const RepairReport repaired = Repair(Check());
  EXPECT_EQ(requests(), 0U);
  EXPECT_THAT(repaired.uncorrected, IsEmpty());
  ASSERT_EQ(repaired.lacking.size(), 1U);
  EXPECT_EQ(repaired.lacking[0].bytes, kContent.size());
  EXPECT_TRUE(repaired.lacking[0].error);
  EXPECT_EQ(repaired.lacking_blobs.size(), 1U);
  EXPECT_FALSE(IsComplete(kRef));

  // No damage any more; what is not there is told.
  const CheckReport after = Check();
  EXPECT_TRUE(after.is_clean());
  ASSERT_EQ(after.findings.size(), 1U);
  EXPECT_EQ(after.findings[0].absent_bytes, kContent.size());
  EXPECT_EQ(ReadPath("big"), Noise(200'000, 5)) << "the rest of the layer is good";
  EXPECT_EQ(ReadPath("g"), "second layer");
  Stop();
  options_.offline = false;
  source_.FailAllWith(std::nullopt);
  ExpectAllReadable("when the network is back");
  ExpectMended("when the network is back");
}

TEST_F(CheckTest, ARawBlobAloneIsFetchedAgainOnline) {
  Fill();
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  const CheckReport report = Check();
  EXPECT_THAT(report.chunk_damage, IsEmpty());
  ASSERT_EQ(report.blob_damage.size(), 1U);
  const RepairReport repaired = Repair(report);
  EXPECT_EQ(repaired.dropped_blobs, 1U);
  EXPECT_THAT(repaired.lacking_blobs, IsEmpty());
  EXPECT_EQ(requests(), 1U);
  ExpectMended("raw blob");
}

TEST_F(CheckTest, ARecordWhoseHeaderIsDamagedIsMovedAndNothingIsFetched) {
  Fill();
  DamageHeaderOf(kContent);
  GoOffline();
  const CheckReport report = Check();
  ASSERT_EQ(report.chunk_damage.size(), 1U);
  EXPECT_EQ(report.chunk_damage[0].flaw, DamagedChunk::Flaw::kHeader);
  EXPECT_THAT(report.lost_records, IsEmpty());
  EXPECT_THAT(report.findings, IsEmpty()) << "all files can be read";
  const RepairReport repaired = Repair(report);
  EXPECT_EQ(repaired.moved_chunks, 1U);
  EXPECT_EQ(repaired.dropped_chunks, 0U);
  EXPECT_THAT(repaired.uncorrected, IsEmpty());
  ExpectMended("header");
  // An index that is made anew has it, too.
  Stop();
  Store::OpenOptions rebuild;
  rebuild.rebuild_index = true;
  Must(Store::Open(root(), rebuild));
  ExpectMended("rebuilt");
}

TEST_F(CheckTest, LiveRecordsThatNothingLeadsToNeedANewIndex) {
  Fill();
  const Digest manifest = ManifestOf(kRef);
  IndexBatch batch;
  batch.DeletePackage(manifest);
  Must(store().index().Commit(std::move(batch)));
  Stop();
  DamageHeaderOf(kContent);
  const CheckReport report = Check();
  ASSERT_EQ(report.lost_records.size(), 1U);
  EXPECT_EQ(report.lost_records[0].bytes, RecordBytes(kContent.size()));
  EXPECT_TRUE(report.needs_new_index());
  EXPECT_FALSE(report.is_clean());
  Stop();
  Store::OpenOptions rebuild;
  rebuild.rebuild_index = true;
  Must(Store::Open(root(), rebuild));
  EXPECT_TRUE(Check().is_clean());
}

TEST_F(CheckTest, EverythingThatCanBeDamagedIsFoundAndMended) {
  auto each = [&](const std::string& below, const std::function<void(const fs::path&)>& harm) {
    for (const fs::path& path : FilesBelow(below)) harm(path);
  };
  auto flip_middle = [](const fs::path& path) { Flip(path, fs::file_size(path) / 2); };
  struct Case {
    std::string_view name;
    std::function<void()> harm;
    std::function<bool(const CheckReport&)> is_found;
    size_t requests;
  };
  const auto tree = [](const CheckReport& report) {
    return report.findings.size() == 1 && !report.findings[0].tree_error.empty();
  };
  const auto all_chunks = [](const CheckReport& report) { return report.chunk_damage.size() == 4; };
  const auto all_blobs = [](const CheckReport& report) { return report.blob_damage.size() == 2; };
  const Case cases[] = {
      {"tree flipped", [&] { each("trees", flip_middle); }, tree, 0},
      {"tree cut", [&] { each("trees", [](const fs::path& p) { fs::resize_file(p, 100); }); }, tree,
       0},
      {"tree gone", [&] { each("trees", [](const fs::path& p) { fs::remove(p); }); }, tree, 0},
      {"pack cut", [&] { each("packs", [](const fs::path& p) { fs::resize_file(p, 30); }); },
       all_chunks, 0},
      {"pack gone", [&] { each("packs", [](const fs::path& p) { fs::remove(p); }); }, all_chunks,
       0},
      {"pack zeros",
       [&] {
         each("packs", [](const fs::path& p) {
           const auto size = fs::file_size(p);
           fs::resize_file(p, 0);
           fs::resize_file(p, size);
         });
       },
       all_chunks, 0},
      {"blobs flipped", [&] { each("blobs", flip_middle); }, all_blobs, 2},
      {"blobs gone", [&] { each("blobs", [](const fs::path& p) { fs::remove(p); }); }, all_blobs,
       2},
      {"blobs cut", [&] { each("blobs", [](const fs::path& p) { fs::resize_file(p, 9); }); },
       all_blobs, 2},
      {"packs and blobs gone",
       [&] {
         each("packs", [](const fs::path& p) { fs::remove(p); });
         each("blobs", [](const fs::path& p) { fs::remove(p); });
       },
       [&](const CheckReport& report) { return all_chunks(report) && all_blobs(report); }, 2},
  };
  for (const Case& c : cases) {
    Fill();
    c.harm();
    const CheckReport report = Check();
    EXPECT_FALSE(report.is_clean()) << c.name;
    EXPECT_TRUE(c.is_found(report)) << c.name;
    EXPECT_FALSE(report.needs_new_index()) << c.name;
    const RepairReport repaired = Repair(report);
    EXPECT_THAT(repaired.uncorrected, IsEmpty()) << c.name;
    EXPECT_THAT(repaired.lacking, IsEmpty()) << c.name;
    EXPECT_THAT(repaired.lacking_blobs, IsEmpty()) << c.name;
    EXPECT_EQ(requests(), c.requests) << c.name;
    ExpectMended(c.name);
    Stop();
    options_.offline = false;
    source_.FailAllWith(std::nullopt);
    fs::remove_all(root());
  }
}

TEST_F(CheckTest, ADamagedDocumentIsFoundAndFetched) {
  Fill();
  // In the index, with a right checksum: as a program that wrote the wrong thing would leave it.
  const Digest manifest = ManifestOf(kRef);
  BlobRecord wrong = *Must(store().index().FindBlob(manifest));
  wrong.content->back() = '!';
  IndexBatch batch;
  batch.PutBlob(manifest, wrong);
  Must(store().index().Commit(std::move(batch)));
  Stop();
  const CheckReport report = Check();
  ASSERT_EQ(report.blob_damage.size(), 1U);
  EXPECT_EQ(report.blob_damage[0].digest, manifest);
  EXPECT_THAT(report.blob_damage[0].references, Contains(std::string(kRef)));
  const RepairReport repaired = Repair(report);
  EXPECT_THAT(repaired.lacking_blobs, IsEmpty());
  EXPECT_EQ(requests(), 1U) << "the manifest";
  ExpectMended("manifest");
}

TEST_F(CheckTest, ADamagedIndexDocumentIsFetchedThroughItsReference) {
  Fill();
  constexpr std::string_view kIndexed = "ghcr.io/a/b:indexed";
  source_.AddIndex(kIndexed, ManifestOf(kRef));
  ASSERT_EQ(ReadPath("g", kIndexed), "second layer");
  const Digest index = ManifestOf(kIndexed);
  EXPECT_THAT(Check().findings, IsEmpty());
  BlobRecord wrong = *Must(store().index().FindBlob(index));
  wrong.content->front() = '!';
  IndexBatch batch;
  batch.PutBlob(index, wrong);
  Must(store().index().Commit(std::move(batch)));
  Stop();
  const CheckReport report = Check();
  ASSERT_EQ(report.blob_damage.size(), 1U);
  EXPECT_THAT(report.blob_damage[0].references, Contains(std::string(kIndexed)));
  EXPECT_THAT(Repair(report).lacking_blobs, IsEmpty());
  ExpectMended("index");
  EXPECT_EQ(ReadPath("g", kIndexed), "second layer");
}

TEST_F(CheckTest, APackageThatClaimsToBeCompleteIsPutRight) {
  Fill();
  const ChunkDigest chunk = ChunkDigestOf(kContent);
  IndexBatch batch;
  batch.DeleteChunk(chunk);
  Must(store().index().Commit(std::move(batch)));
  Stop();
  GoOffline();
  const CheckReport report = Check();
  ASSERT_EQ(report.findings.size(), 1U);
  EXPECT_TRUE(report.findings[0].claims_too_much);
  EXPECT_EQ(report.findings[0].absent_bytes, kContent.size());
  EXPECT_EQ(Repair(report).restored_packages, 1U) << "the raw blob has it";
  ExpectMended("claim");
}

TEST_F(CheckTest, ATreeThatIsDamagedOfflineIsMadeAgainFromRawBlobs) {
  Fill();
  for (const fs::path& tree : FilesBelow("trees")) Flip(tree, 200);
  GoOffline();
  const RepairReport repaired = Repair(Check());
  EXPECT_EQ(repaired.dropped_packages, 1U);
  EXPECT_EQ(repaired.restored_packages, 1U);
  ExpectMended("tree");
}

TEST_F(CheckTest, ATreeThatCannotBeMadeAgainIsForgotten) {
  Fill();
  for (const fs::path& tree : FilesBelow("trees")) Flip(tree, 200);
  for (const fs::path& blob : FilesBelow("blobs")) Flip(blob, 1000);
  GoOffline();
  const RepairReport repaired = Repair(Check());
  ASSERT_EQ(repaired.lacking.size(), 1U);
  EXPECT_TRUE(repaired.lacking[0].is_forgotten);
  EXPECT_TRUE(Check().is_clean());
  EXPECT_EQ(ReadPath("dir/f"), kContent);
}

TEST_F(CheckTest, WhatWasEvictedIsNoDamage) {
  Fill();
  const Digest layer = source_.LayerOf(ManifestOf(kRef), 0);
  Must(store().blobs().Drop(layer));
  EXPECT_TRUE(Check().is_clean());
  EXPECT_EQ(Check().leftover_files, 1U) << "its file goes with the next collection";
  Must(store().RemoveUnnamedFiles());
  EXPECT_EQ(Check().leftover_files, 0U);
  EXPECT_THAT(Check().findings, IsEmpty());
}

TEST_F(CheckTest, LeftoversAreCounted) {
  Fill();
  cache();
  for (const std::string name : {"packs/00abcdef.pack", "trees/.staged-1", "blobs/sha256/short"}) {
    std::ofstream(root() + "/" + name) << std::string(10'000, 'x');
  }
  const CheckReport report = Check();
  EXPECT_TRUE(report.is_clean());
  EXPECT_EQ(report.leftover_files, 3U);
  EXPECT_GE(report.leftover_bytes, 30'000U);
}

TEST_F(CheckTest, AnIndexThatContradictsItselfIsAllThatIsSaid) {
  Fill();
  cache();  // an opener would make it anew
  Store* const open = store_.get();
  {
    const auto keep_open = std::move(store_);
    cache_.reset();
    DamageIndex("chunks");
    const CheckReport report = Must(CheckStore(*open, {}));
    EXPECT_FALSE(report.index_error.empty());
    EXPECT_TRUE(report.needs_new_index());
    EXPECT_EQ(report.packs, 0U);
  }
  EXPECT_TRUE(Check().is_clean()) << "made anew";
}

TEST_F(CheckTest, WhatWasMendedSinceTheCheckIsLeftAlone) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  const CheckReport report = Check();
  ASSERT_EQ(ReadPath("dir/f"), kContent) << "a reader restores it";
  Must(cache().Flush({}));
  const auto location = Must(store().index().FindChunk(ChunkDigestOf(kContent)));
  const RepairReport repaired = Repair(report);
  EXPECT_EQ(repaired.dropped_chunks, 0U);
  EXPECT_EQ(Must(store().index().FindChunk(ChunkDigestOf(kContent))), location);
  ExpectMended("by a reader");
}

// A package goes while its chunks are looked at: that it was complete does not mean that they have
// to be there.
TEST_F(CheckTest, APackageThatGoesMeanwhileClaimsNothing) {
  TarWriter tar;
  for (uint32_t i = 1; i <= 4; ++i) tar.File("f" + std::to_string(i), Noise(20'000, i));
  source_.AddImage(kRef, {tar.End().bytes()});
  ASSERT_EQ(ReadPath("f1"), Noise(20'000, 1));
  Stop();
  // Without the pack, each chunk is looked at when its package is.
  for (const fs::path& pack : FilesBelow("packs")) fs::remove(pack);
  GoOffline();
  const Digest manifest = ManifestOf(kRef);
  const uint64_t blobs = Check().blobs;
  ASSERT_EQ(blobs, 3U);
  uint64_t calls = 0;
  auto evict = [&](uint64_t, uint64_t) {
    // One call for each blob, as they are small, and then one for each chunk.
    if (++calls == blobs + 1) {
      CollectRequest request;
      request.packages = std::vector<Digest>{manifest};
      EXPECT_EQ(Must(Collector(*store_).Collect(request)).packages, 1U);
    }
    return true;
  };
  const CheckReport report = Must(CheckStore(*store_, {.progress = evict}));
  EXPECT_GT(calls, blobs);
  EXPECT_THAT(report.findings, IsEmpty());
  EXPECT_EQ(report.chunk_damage.size(), 1U) << "found before";
}

// Others evict, pull and collect while the store is checked: no false report.
TEST_F(CheckTest, AStoreInUseIsNotCalledDamaged) {
  constexpr int kPackages = 4;
  constexpr int kRounds = 25;
  auto name = [](int i) { return "ghcr.io/churn/p" + std::to_string(i) + ":1"; };
  for (int i = 0; i < kPackages; ++i) {
    TarWriter tar;
    for (uint32_t file = 0; file < 30; ++file) {
      tar.File("f" + std::to_string(file),
               Noise(20'000, file % 3 == 0 ? file + 1 : file + 100 * static_cast<uint32_t>(i + 1)));
    }
    for (int k = 0; k < 500; ++k) tar.File("many/" + std::to_string(k), "");
    source_.AddImage(name(i), {tar.End().bytes()});
    Must(Open(name(i)));
  }
  Must(cache().Flush({}));
  std::atomic<bool> done = false;
  std::thread churn([&] {
    for (int round = 0; round < kRounds; ++round) {
      const Reference reference = RefOf(name(round % kPackages));
      const Digest manifest = Must(OrMissing(store_->index().FindRef(reference)))->digest;
      CollectRequest request;
      request.packages = std::vector<Digest>{manifest};
      Must(Collector(*store_).Collect(request));
      Must(cache_->Open(reference.repository(), manifest, {}));
      Must(cache_->Flush({}));
    }
    done = true;
  });
  int checks = 0;
  while (!done || checks == 0) {
    const CheckReport report = Must(CheckStore(*store_, {}));
    EXPECT_TRUE(report.is_clean());
    EXPECT_EQ(report.index_error, "");
    for (const PackageFindings& package : report.findings) {
      EXPECT_FALSE(package.is_damaged()) << package.tree_error << package.claims_too_much;
    }
    EXPECT_THAT(report.chunk_damage, IsEmpty());
    EXPECT_THAT(report.blob_damage, IsEmpty());
    EXPECT_THAT(report.lost_records, IsEmpty());
    ++checks;
  }
  churn.join();
  EXPECT_TRUE(Check().is_clean());
}

}  // namespace
}  // namespace ocifs::store
