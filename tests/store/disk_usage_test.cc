// What packages cost and share, to the byte.
#include "store/disk_usage.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "store/blob_store.h"
#include "store/index.h"
#include "tests/store/cache_fixture.h"

namespace ocifs::store {
namespace {

using ::testing::ElementsAre;

using DiskUsageTest = PullThroughTest;

constexpr uint64_t kFileBytes = 10'000;

// 100 files without a pattern; those from `first` on are of another version.
std::string Version(int first, uint32_t version) {
  harness::TarWriter tar;
  for (int i = 0; i < 100; ++i) {
    const auto seed = static_cast<uint32_t>(i + 1);
    tar.File("file" + std::to_string(i),
             Noise(kFileBytes, i < first ? seed : seed + 1000 * version));
  }
  return tar.End().bytes();
}

// What a package has apart from chunks.
uint64_t Rest(Store& store, const Digest& manifest, const std::vector<Digest>& blobs) {
  uint64_t bytes = Must(store.index().FindPackage(manifest))->tree_bytes;
  for (const Digest& blob : blobs) bytes += Must(store.index().FindBlob(blob))->size;
  return bytes;
}

const PackageUsage& Of(const DiskUsage& usage, const Digest& manifest) {
  for (const PackageUsage& package : usage.packages) {
    if (package.manifest == manifest) return package;
  }
  ADD_FAILURE() << "no package " << manifest.ToString();
  return usage.packages.front();
}

TEST_F(DiskUsageTest, TwoVersionsThatShare95PercentOfTheirFiles) {
  const std::string one = Version(95, 1);
  const std::string two = Version(95, 2);
  const Digest first = source_.AddImage("ghcr.io/a/b:1", {one});
  const Digest second = source_.AddImage("ghcr.io/a/b:2", {two});
  const auto first_package = Must(Open("ghcr.io/a/b:1"));
  const auto second_package = Must(Open("ghcr.io/a/b:2"));
  const Digest first_config = first_package->manifest().config.digest;
  const Digest second_config = second_package->manifest().config.digest;
  Must(cache().Flush({}));
  DiskUsage usage = Must(MeasureDiskUsage(*store_));
  ASSERT_EQ(usage.packages.size(), 2u);
  const uint64_t first_rest = Rest(*store_, first, {first, first_config, DigestOf(one)});
  const uint64_t second_rest = Rest(*store_, second, {second, second_config, DigestOf(two)});
  EXPECT_EQ(Of(usage, first).apparent, 100 * kFileBytes);
  EXPECT_EQ(Of(usage, first).stored, 100 * kFileBytes + first_rest);
  EXPECT_EQ(Of(usage, first).shared, 95 * kFileBytes);
  EXPECT_EQ(Of(usage, first).reclaimable, 5 * kFileBytes + first_rest);
  EXPECT_EQ(Of(usage, second).stored, 100 * kFileBytes + second_rest);
  EXPECT_EQ(Of(usage, second).shared, 95 * kFileBytes);
  EXPECT_EQ(Of(usage, second).reclaimable, 5 * kFileBytes + second_rest);
  EXPECT_EQ(usage.apparent, 200 * kFileBytes);
  EXPECT_EQ(usage.stored, 105 * kFileBytes + first_rest + second_rest);
  EXPECT_EQ(usage.shared, 95 * kFileBytes);
  // On disk at least what is stored, in whole blocks, and nothing of LMDB's address space.
  EXPECT_GE(usage.on_disk + 4096, usage.stored);
  EXPECT_LT(usage.on_disk, usage.stored + (uint64_t{4} << 20));

  // Without the raw layers, the second version costs a twentieth of its content.
  Must(store_->blobs().Drop(DigestOf(one)));
  Must(store_->blobs().Drop(DigestOf(two)));
  usage = Must(MeasureDiskUsage(*store_));
  const uint64_t documents = Rest(*store_, second, {second, second_config});
  EXPECT_EQ(Of(usage, second).stored, 100 * kFileBytes + documents);
  EXPECT_EQ(Of(usage, second).reclaimable, 5 * kFileBytes + documents);
  EXPECT_LT(documents, kFileBytes * 2);
}

TEST_F(DiskUsageTest, ThreeUsersOfAChunkAndOneThatHasItTwice) {
  const std::string content = Noise(50'000, 1);
  auto image = [&](std::string_view name) {
    return harness::TarWriter().File(name, content).File("twice", content).End().bytes();
  };
  std::vector<Digest> manifests;
  uint64_t rest = 0;
  for (const std::string_view name : {"a", "b", "c"}) {
    const std::string reference = "ghcr.io/x/y:" + std::string(name);
    manifests.push_back(source_.AddImage(reference, {image(name)}));
    const auto package = Must(Open(reference));
    Must(cache().Flush({}));
    rest += Rest(*store_, manifests.back(),
                 {manifests.back(), package->manifest().config.digest, DigestOf(image(name))});
  }
  const DiskUsage usage = Must(MeasureDiskUsage(*store_));
  for (const Digest& manifest : manifests) {
    EXPECT_EQ(Of(usage, manifest).apparent, 100'000u);
    EXPECT_EQ(Of(usage, manifest).shared, 50'000u);
    EXPECT_EQ(Of(usage, manifest).stored - Of(usage, manifest).shared,
              Of(usage, manifest).reclaimable);
  }
  EXPECT_EQ(usage.stored, 50'000 + rest);
  EXPECT_EQ(usage.shared, 50'000u);
}

TEST_F(DiskUsageTest, BlobsAreSharedTooAndTheWorthiestComesFirst) {
  const std::string base = OneFile("base", Noise(60'000, 1));
  const std::string large = OneFile("large", Noise(90'000, 2));
  const std::string small = OneFile("small", Noise(20'000, 3));
  const Digest one = source_.AddImage("ghcr.io/a/small:1", {base, small});
  const Digest two = source_.AddImage("ghcr.io/a/large:1", {base, large});
  Must(Open("ghcr.io/a/small:1"));
  Must(Open("ghcr.io/a/large:1"));
  Must(cache().Flush({}));
  const DiskUsage usage = Must(MeasureDiskUsage(*store_));
  EXPECT_EQ(Of(usage, one).shared, 60'000 + base.size());
  EXPECT_EQ(Of(usage, two).shared, 60'000 + base.size());
  EXPECT_EQ(usage.shared, 60'000 + base.size());
  EXPECT_EQ(usage.packages[0].manifest, two);
  EXPECT_GT(usage.packages[0].reclaimable, usage.packages[1].reclaimable);
}

TEST_F(DiskUsageTest, PackagesAreNamedByTheReferencesThatLeadToThem) {
  const Digest manifest = source_.AddImage("ghcr.io/a/b:1", {OneFile("f", "x")});
  const Digest index = source_.AddIndex("ghcr.io/a/b:multi", manifest);
  source_.AddIndex("ghcr.io/a/b:again", manifest);
  const Digest unnamed = source_.AddImage("ghcr.io/a/c:1", {OneFile("f", Noise(9, 9))});
  for (const std::string_view tag : {"multi", "again", "1"}) {
    Must(Open("ghcr.io/a/b:" + std::string(tag)));
  }
  Must(Open("ghcr.io/a/c:1"));
  Must(cache().Flush({}));
  IndexBatch batch;
  batch.DeleteRef(RefOf("ghcr.io/a/c:1"));
  batch.DeleteRef(RefOf("ghcr.io/a/c@" + unnamed.ToString()));
  Must(store_->index().Commit(std::move(batch)));
  const DiskUsage usage = Must(MeasureDiskUsage(*store_));
  ASSERT_EQ(usage.packages.size(), 2u);
  EXPECT_THAT(Of(usage, manifest).references,
              ElementsAre("ghcr.io/a/b:1", "ghcr.io/a/b:again", "ghcr.io/a/b:multi"));
  EXPECT_THAT(Of(usage, manifest).roots, ::testing::UnorderedElementsAre(manifest, index));
  EXPECT_TRUE(Of(usage, unnamed).references.empty());
  // The index belongs to it.
  const auto package = Must(Open("ghcr.io/a/b:1"));
  EXPECT_EQ(Of(usage, manifest).stored,
            1 + Rest(*store_, manifest,
                     {manifest, index, package->manifest().config.digest,
                      package->manifest().layers[0].digest}));
}

TEST_F(DiskUsageTest, NothingOfAPinnedPackageIsReclaimable) {
  const Digest old_manifest = source_.AddImage("ghcr.io/a/b:1", {OneFile("f", "old")});
  Must(Open("ghcr.io/a/b:1"));
  const Digest new_manifest = source_.AddImage("ghcr.io/a/b:2", {OneFile("f", "new")});
  source_.AddIndex("ghcr.io/a/b:3", new_manifest);
  Must(Open("ghcr.io/a/b:3"));
  const Digest free_manifest = source_.AddImage("ghcr.io/a/b:4", {OneFile("f", "free")});
  Must(Open("ghcr.io/a/b:4"));
  Must(cache().Flush({}));
  IndexBatch batch;
  // Pinned when it stood for the old one; it has moved since.
  batch.PutPin({"ghcr.io/a/b:3", old_manifest, 1});
  Must(store_->index().Commit(std::move(batch)));
  const DiskUsage usage = Must(MeasureDiskUsage(*store_));
  for (const Digest& pinned : {old_manifest, new_manifest}) {
    EXPECT_TRUE(Of(usage, pinned).pinned);
    EXPECT_GT(Of(usage, pinned).stored, Of(usage, pinned).shared);
    EXPECT_EQ(Of(usage, pinned).reclaimable, 0u);
  }
  EXPECT_FALSE(Of(usage, free_manifest).pinned);
  EXPECT_EQ(usage.packages[0].manifest, free_manifest);
}

TEST_F(DiskUsageTest, ContentThatTheStoreLacksIsNotStored) {
  const std::string content = Noise(30'000, 4);
  const Digest manifest = source_.AddImage(kRef, {OneFile("f", content)});
  Must(Open(kRef));
  Must(cache().Flush({}));
  const uint64_t before = Must(MeasureDiskUsage(*store_)).stored;
  IndexBatch batch;
  batch.DeleteChunk(ChunkDigestOf(content));
  Must(store_->index().Commit(std::move(batch)));
  const DiskUsage usage = Must(MeasureDiskUsage(*store_));
  EXPECT_EQ(usage.stored, before - content.size());
  EXPECT_EQ(Of(usage, manifest).apparent, content.size());
  // Many chunks: the table grows.
  harness::TarWriter tar;
  for (int i = 0; i < 5000; ++i) tar.File("f" + std::to_string(i), "content " + std::to_string(i));
  source_.AddImage("ghcr.io/many/files:1", {tar.End().bytes()});
  const auto many = Must(Open("ghcr.io/many/files:1"));
  Must(cache().Flush({}));
  const DiskUsage grown = Must(MeasureDiskUsage(*store_));
  EXPECT_EQ(
      grown.stored - usage.stored,
      many->tree().content_bytes() + Rest(*store_, many->manifest_digest(),
                                          {many->manifest_digest(), many->manifest().config.digest,
                                           many->manifest().layers[0].digest}));
}

}  // namespace
}  // namespace ocifs::store
