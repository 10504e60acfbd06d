// Packages on their way out of a store, and into another.
#include "store/layout_export.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/blob_store.h"
#include "store/json.h"
#include "store/layout_writer.h"
#include "store/space.h"
#include "tests/store/layout_fixture.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Names below a directory, sorted.
std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    names.push_back(entry.path().lexically_relative(directory));
  }
  std::sort(names.begin(), names.end());
  return names;
}

template <typename SourceType>
class Exporting : public Cache<SourceType> {
 protected:
  Result<std::vector<ExportedPackage>> Export(const std::vector<std::string_view>& references,
                                              const std::string& destination,
                                              const ExportOptions& options = {}) {
    std::vector<Reference> parsed;
    for (const std::string_view text : references) parsed.push_back(RefOf(text));
    return ExportLayout(this->cache(), parsed, destination, options, kPatient);
  }
  std::string Place(std::string_view name) const { return this->directory_ / name; }
  Json IndexOf(std::string_view layout) const {
    return Must(Json::Parse(ReadFile(Place(layout) + "/index.json")));
  }
  std::string BlobIn(std::string_view layout, const Digest& digest) const {
    return ReadFile(Place(layout) + "/blobs/sha256/" + digest.hex());
  }
};
using LayoutExport = Exporting<harness::ScriptedSource>;
using LayoutExportOfIndexes = Exporting<RawSource>;

TEST_F(LayoutExport, ALayoutHasTheOriginalBytes) {
  const std::string tar = OneFile("f", Noise(100'000, 1));
  const Digest image = source_.AddImage(kRef, {tar});
  const Digest artifact =
      source_.AddArtifact("ghcr.io/kcl/x:1", {{.title = {}, .content = "a = 1\n"}});
  const auto exported = Must(Export({kRef, "ghcr.io/kcl/x:1"}, Place("out")));
  ASSERT_EQ(exported.size(), 2u);
  EXPECT_EQ(exported[0].reference.ToString(), kRef);
  EXPECT_EQ(exported[0].digest, image);
  EXPECT_GT(exported[0].bytes, tar.size());
  EXPECT_THAT(exported[0].platforms, IsEmpty());
  EXPECT_EQ(ReadFile(Place("out/oci-layout")), R"({"imageLayoutVersion":"1.0.0"})");
  EXPECT_EQ(BlobIn("out", DigestOf(tar)), tar);
  EXPECT_EQ(BlobIn("out", DigestOf("a = 1\n")), "a = 1\n");
  EXPECT_EQ(BlobIn("out", DigestOf("{}")), "{}") << "known to ocifs, but not to everybody";
  for (const auto& entry : fs::directory_iterator(Place("out/blobs/sha256"))) {
    EXPECT_EQ(DigestOf(ReadFile(entry.path())).hex(), entry.path().filename());
    struct stat status{};
    ASSERT_EQ(stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0644U);
  }
  const Json index = IndexOf("out");
  EXPECT_EQ(index.FindText("mediaType"), media_type::kOciIndex);
  const Json::Array& manifests = *index.Find("manifests")->array();
  ASSERT_EQ(manifests.size(), 2u);
  EXPECT_EQ(manifests[0].FindText("mediaType"), media_type::kOciManifest);
  EXPECT_EQ(manifests[0].FindText("digest"), image.ToString());
  EXPECT_EQ(*manifests[0].Find("size")->integer(),
            static_cast<int64_t>(BlobIn("out", image).size()));
  EXPECT_EQ(manifests[0].FindText("artifactType"), "");
  EXPECT_EQ(manifests[1].FindText("digest"), artifact.ToString());
  EXPECT_EQ(manifests[1].FindText("artifactType"), "application/vnd.example");
  const Json* const annotations = manifests[0].Find("annotations");
  EXPECT_EQ(annotations->FindText("org.opencontainers.image.ref.name"), kRef);
  EXPECT_EQ(annotations->FindText("io.containerd.image.name"), kRef);
}

TEST_F(LayoutExport, WhatOneStoreExportsAnotherImports) {
  const std::string content = Noise(5'000'000, 2);
  source_.AddImage(kRef, {OneFile("f", content)});
  source_.AddArtifact("ghcr.io/c/d:1", {{.title = "m.wasm", .content = "wasm"}});
  for (const std::string name : {"out", "out.tar"}) {
    Must(Export({kRef, "ghcr.io/c/d:1"}, Place(name)));
    ImportingStore other(Place("other-of-" + name));
    EXPECT_EQ(Must(other.Import(Place(name))).size(), 2u);
    EXPECT_EQ(other.ReadPath(kRef, "f"), content);
    EXPECT_EQ(other.ReadPath("ghcr.io/c/d:1", "m.wasm"), "wasm");
    EXPECT_EQ(other.source().total(), 0u);
    // And on, from there.
    Must(ExportLayout(other.cache(), {RefOf(kRef), RefOf("ghcr.io/c/d:1")}, Place("again-" + name),
                      {}, kPatient));
  }
  EXPECT_EQ(ReadFile(Place("again-out.tar")), ReadFile(Place("out.tar")));
  EXPECT_EQ(NamesIn(Place("again-out")), NamesIn(Place("out")));
}

TEST_F(LayoutExport, WorksOfflineWhenAllIsThere) {
  source_.AddImage(kRef, {OneFile("f", "x")});
  ASSERT_EQ(ReadPath("f"), "x");
  Stop();
  options_.offline = true;
  const size_t before = source_.total();
  Must(Export({kRef}, Place("out")));
  EXPECT_EQ(source_.total(), before);
  EXPECT_THAT(Export({"ghcr.io/a/unknown:1"}, Place("none")), FailsWith(ErrorCode::kUnavailable));
  EXPECT_FALSE(fs::exists(Place("none")));
}

TEST_F(LayoutExport, TheSameTarTwiceAndEachBlobOnce) {
  const std::string tar = OneFile("f", Noise(30'000, 1));
  source_.AddImage("ghcr.io/a/b:1", {tar});
  source_.AddImage("ghcr.io/a/b:2", {tar, OneFile("g", "x")});
  Must(Export({"ghcr.io/a/b:1", "ghcr.io/a/b:2"}, Place("one.tar")));
  Must(Export({"ghcr.io/a/b:2", "ghcr.io/a/b:1", "ghcr.io/a/b:2"}, Place("two.tar")));
  const std::string bytes = ReadFile(Place("one.tar"));
  EXPECT_EQ(bytes, ReadFile(Place("two.tar")));
  const std::string entry = LayoutFiles::BlobName(DigestOf(tar));
  const size_t first = bytes.find(entry);
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(bytes.find(entry, first + 1), std::string::npos);
  // It replaces a file of its name.
  Must(Export({"ghcr.io/a/b:1"}, Place("two.tar")));
  EXPECT_LT(ReadFile(Place("two.tar")).size(), bytes.size());
}

TEST_F(LayoutExport, ALayoutKeepsWhatItHas) {
  const Digest old_digest = source_.AddImage("ghcr.io/a/b:1", {OneFile("f", "old")});
  LayoutFiles theirs;
  const std::string foreign = theirs.Image(
      OneFile("g", "theirs"), R"(,"annotations":{"org.opencontainers.image.ref.name":"v"},)"
                              R"("x-other":[1,-2.5,true,null,{"k":"\u00e9\n"}])");
  theirs.files["index.json"] =
      R"({"schemaVersion":2,"annotations":{"by":"them"},"manifests":[)" + foreign + R"(,)" +
      LayoutFiles::Described("x", "gone",
                             R"(,"annotations":{)"
                             R"("org.opencontainers.image.ref.name":"ghcr.io/a/b:1"})") +
      "]}";
  theirs.WriteTo(directory_, "out");
  Must(Export({"ghcr.io/a/b:1"}, Place("out")));
  Json index = IndexOf("out");
  EXPECT_EQ(index.Find("annotations")->FindText("by"), "them");
  ASSERT_EQ(index.Find("manifests")->array()->size(), 2u);
  EXPECT_THAT(ReadFile(Place("out/index.json")),
              HasSubstr(R"("x-other":[1,-2.5,true,null,{"k":"é\u000a"}])"));
  EXPECT_EQ((*index.Find("manifests")->array())[1].FindText("digest"), old_digest.ToString());
  // The tag moves; a second name comes beside it.
  Stop();
  fs::remove_all(root());
  const Digest new_digest = source_.AddImage("ghcr.io/a/b:1", {OneFile("f", "new")});
  source_.AddImage("ghcr.io/a/b:2", {OneFile("f", "second")});
  Must(Export({"ghcr.io/a/b:1", "ghcr.io/a/b:2"}, Place("out")));
  index = IndexOf("out");
  const Json::Array& manifests = *index.Find("manifests")->array();
  ASSERT_EQ(manifests.size(), 3u);
  EXPECT_EQ(manifests[1].FindText("digest"), new_digest.ToString());
  EXPECT_EQ(BlobIn("out", DigestOf(OneFile("g", "theirs"))), OneFile("g", "theirs"));
}

TEST_F(LayoutExport, OtherDestinationsAreRefusedAndLeftAlone) {
  source_.AddImage(kRef, {OneFile("f", "x")});
  directory_.Write("full/notes.txt", "mine");
  directory_.Write("damaged/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  directory_.Write("damaged/index.json", "{");
  directory_.Write("future/oci-layout", R"({"imageLayoutVersion":"2.0.0"})");
  directory_.Write("future/index.json", "{}");
  directory_.Write("file", "mine");
  for (const std::string_view name :
       {"full", "damaged", "future", "file", "out.tar.gz", "out.tgz"}) {
    EXPECT_THAT(Export({kRef}, Place(name)), FailsWith(ErrorCode::kInvalid)) << name;
  }
  EXPECT_EQ(source_.total(), 0u) << "the destination is looked at first";
  EXPECT_THAT(NamesIn(Place("full")), ElementsAre("notes.txt"));
  EXPECT_THAT(NamesIn(Place("damaged")), ElementsAre("index.json", "oci-layout"));
  EXPECT_FALSE(fs::exists(Place("out.tar.gz")));
  EXPECT_THAT(Export({kRef}, Place("no/such/parent")), FailsWith(ErrorCode::kStoreIo));
  EXPECT_THAT(Export({kRef}, Place("no/such.tar")), FailsWith(ErrorCode::kStoreIo));
  // A directory may be called so.
  fs::create_directory(Place("dir.tar"));
  Must(Export({kRef}, Place("dir.tar/")));
  EXPECT_TRUE(fs::exists(Place("dir.tar/index.json")));
}

TEST_F(LayoutExport, OneProcessAtATimeWritesToADirectory) {
  source_.AddImage(kRef, {OneFile("f", "x")});
  auto first = Must(LayoutWriter::Create(Place("out"), {}));
  const auto second = Export({kRef}, Place("out"));
  ASSERT_THAT(second, FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(second.error().message, HasSubstr("another process"));
  first.reset();
  Must(Export({kRef}, Place("out")));
}

TEST_F(LayoutExport, WhatAKilledExportLeftIsTakenUp) {
  const std::string tar = OneFile("f", Noise(30'000, 1));
  source_.AddImage(kRef, {tar});
  std::string damaged = tar;
  damaged[20'000] ^= 1;
  directory_.Write("out/" + LayoutFiles::BlobName(DigestOf(tar)), damaged);
  directory_.Write("out/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  Must(Export({kRef}, Place("out")));
  EXPECT_EQ(BlobIn("out", DigestOf(tar)), tar);
}

TEST_F(LayoutExport, ADamagedBlobIsFetchedAgain) {
  const std::string tar = OneFile("f", Noise(100'000, 1));
  source_.AddImage(kRef, {tar});
  for (const std::string name : {"out", "out.tar"}) {
    ASSERT_EQ(ReadPath("f"), Noise(100'000, 1));
    Stop();
    ASSERT_EQ(Damage("blobs", std::string_view(tar).substr(50'000, 100)), 1u);
    options_.offline = true;
    const auto offline = Export({kRef}, Place(name));
    ASSERT_THAT(offline, FailsWith(ErrorCode::kCorrupt));
    EXPECT_THAT(offline.error().message, HasSubstr("layer " + DigestOf(tar).ToString()));
    EXPECT_FALSE(fs::exists(Place(name)));
    Stop();
    options_.offline = false;
    const size_t before = source_.count(harness::ScriptedSource::Call::kBlob);
    Must(Export({kRef}, Place(name)));
    EXPECT_EQ(source_.count(harness::ScriptedSource::Call::kBlob), before + 1);
    Stop();
  }
  EXPECT_EQ(BlobIn("out", DigestOf(tar)), tar);
  ImportingStore other(Place("other"));
  Must(other.Import(Place("out.tar")));
  EXPECT_EQ(other.ReadPath(kRef, "f"), Noise(100'000, 1));
}

TEST_F(LayoutExport, AFailureTakesBackWhatWasWrittenToALayout) {
  source_.AddImage("ghcr.io/a/b:1", {OneFile("f", "x")});
  const std::string tar = OneFile("g", Noise(100'000, 1));
  source_.AddImage("ghcr.io/a/b:2", {tar});
  Must(Export({"ghcr.io/a/b:1"}, Place("out")));
  const std::vector<std::string> before = NamesIn(Place("out"));
  const std::string index = ReadFile(Place("out/index.json"));
  ASSERT_EQ(ReadPath("g", "ghcr.io/a/b:2"), Noise(100'000, 1));
  Stop();
  ASSERT_EQ(Damage("blobs", std::string_view(tar).substr(50'000, 100)), 1u);
  options_.offline = true;
  EXPECT_THAT(Export({"ghcr.io/a/b:1", "ghcr.io/a/b:2"}, Place("out")),
              FailsWith(ErrorCode::kCorrupt));
  EXPECT_EQ(NamesIn(Place("out")), before);
  EXPECT_EQ(ReadFile(Place("out/index.json")), index);
}

TEST_F(LayoutExport, ADroppedBlobIsFetchedOnDemandOnly) {
  const std::string tar = OneFile("f", Noise(100'000, 1));
  const Digest manifest = source_.AddImage(kRef, {tar});
  ASSERT_EQ(ReadPath("f"), Noise(100'000, 1));
  Must(cache().Flush({}));
  Must(store_->blobs().Drop(source_.LayerOf(manifest, 0)));
  const auto refused = Export({kRef}, Place("out"));
  ASSERT_THAT(refused, FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(refused.error().message,
              HasSubstr("layer " + DigestOf(tar).ToString() + " of ghcr.io/a/b:1.0 was dropped"));
  EXPECT_THAT(refused.error().message, HasSubstr("--refetch"));
  EXPECT_FALSE(fs::exists(Place("out")));
  const ExportOptions refetch{.dropped = ExportOptions::Dropped::kFetch, .modes = {}};
  Must(Export({kRef}, Place("out"), refetch));
  EXPECT_EQ(BlobIn("out", DigestOf(tar)), tar);
  // A store without room has nothing to copy from.
  Must(store_->blobs().Drop(source_.LayerOf(manifest, 0)));
  store_->SetLimits(StoreLimits{.max_bytes = 1});
  EXPECT_THAT(Export({kRef}, Place("out3"), refetch), FailsWith(ErrorCode::kNoSpace));
  EXPECT_FALSE(fs::exists(Place("out3")));
  store_->SetLimits(StoreLimits());
  Must(Export({kRef}, Place("out3"), refetch));
  // Offline it cannot.
  Must(store_->blobs().Drop(source_.LayerOf(manifest, 0)));
  Stop();
  options_.offline = true;
  EXPECT_THAT(Export({kRef}, Place("out2"), refetch), FailsWith(ErrorCode::kUnavailable));
}

TEST_F(LayoutExport, NamesThatOtherToolsRefuseAreLeftToContainerd) {
  source_.AddImage("ghcr.io/a__b/c:_1", {OneFile("f", "x")});
  Must(Export({"ghcr.io/a__b/c:_1"}, Place("out")));
  const Json* const annotations =
      Json(IndexOf("out")).Find("manifests")->array()->front().Find("annotations");
  EXPECT_NE(annotations, nullptr);
  const std::string text = ReadFile(Place("out/index.json"));
  EXPECT_THAT(text, HasSubstr(R"("io.containerd.image.name":"ghcr.io/a__b/c:_1")"));
  EXPECT_EQ(text.find("org.opencontainers.image.ref.name"), std::string::npos);
  ImportingStore other(Place("other"));
  Must(other.Import(Place("out")));
  EXPECT_EQ(other.ReadPath("ghcr.io/a__b/c:_1", "f"), "x");
  // Exported again, it is still one entry.
  Must(Export({"ghcr.io/a__b/c:_1"}, Place("out")));
  EXPECT_EQ(ReadFile(Place("out/index.json")), text);
}

TEST(LayoutRefName, FollowsTheGrammarOfTheImageSpec) {
  for (const std::string_view good :
       {"a", "1.0", "ghcr.io/a/b:1.0", "127.0.0.1:5000/x/y:latest", "a--b", "a+b", "a@sha256:00"}) {
    EXPECT_TRUE(IsLayoutRefName(good)) << good;
  }
  for (const std::string_view bad :
       {"", "a__b", "-a", "a-", "a:_1", "a//b", "/a", "a/", "a---b", "a b", "[::1]:5000/a:1"}) {
    EXPECT_FALSE(IsLayoutRefName(bad)) << bad;
  }
}

TEST_F(LayoutExportOfIndexes, HoldsThePlatformsThatTheStoreHas) {
  const std::string here = OneFile("f", "here");
  const std::string there = OneFile("f", "there");
  auto add = [&](const std::string& tar, const Platform& platform) {
    const std::string manifest = LayoutFiles::ManifestText(
        source_.AddBlob(media_type::kOciConfig, LayoutFiles::ImageConfig(tar)),
        source_.AddBlob(kTarLayer, tar));
    source_.AddDocument(platform.ToString(), manifest);
    return std::pair(DigestOf(manifest), LayoutFiles::Described(media_type::kOciManifest, manifest,
                                                                LayoutFiles::OfPlatform(platform)));
  };
  const auto [mine, my_entry] = add(here, Platform::Host());
  const auto [other, other_entry] = add(there, ForeignPlatform());
  const Digest root_digest =
      source_.AddDocument("1.0", LayoutFiles::IndexText(my_entry + "," + other_entry));
  auto exported = Must(Export({kRef}, Place("out")));
  EXPECT_EQ(exported[0].digest, root_digest);
  EXPECT_EQ(exported[0].media_type, media_type::kOciIndex);
  EXPECT_THAT(exported[0].platforms, ElementsAre(Platform::Host().ToString()));
  EXPECT_THAT(exported[0].absent_platforms, ElementsAre(ForeignPlatform().ToString()));
  EXPECT_EQ(DigestOf(BlobIn("out", root_digest)), root_digest) << "the index as it was";
  EXPECT_EQ(BlobIn("out", mine).empty(), false);
  EXPECT_FALSE(fs::exists(Place("out/blobs/sha256/" + other.hex())));
  EXPECT_EQ(IndexOf("out").Find("manifests")->array()->front().FindText("mediaType"),
            media_type::kOciIndex);

  // A manifest that was looked at, without its blobs, is not there.
  Must(cache().Resolve(RefOf("ghcr.io/a/b@" + other.ToString()), kPatient));
  exported = Must(Export({kRef}, Place("out2")));
  EXPECT_THAT(exported[0].absent_platforms, ElementsAre(ForeignPlatform().ToString()));
  // Once the other platform has been pulled, too, both are; and gone blobs of it are told.
  Must(cache().Open(RepositoryOf("ghcr.io/a/b"), other, kPatient));
  exported = Must(Export({kRef}, Place("both")));
  EXPECT_THAT(exported[0].absent_platforms, IsEmpty());
  EXPECT_EQ(BlobIn("both", DigestOf(there)), there);
  ImportingStore importing(Place("other"));
  EXPECT_THAT(Must(importing.Import(Place("both")))[0].platforms,
              ElementsAre(Platform::Host().ToString(), ForeignPlatform().ToString()));
  EXPECT_EQ(importing.ReadPath(kRef, "f"), "here");
  Must(store_->blobs().Drop(DigestOf(there)));
  EXPECT_THAT(Export({kRef}, Place("out3")), FailsWith(ErrorCode::kNotFound));
}

TEST(LayoutWriterTest, LongNamesOfATarAreReadBack) {
  const testing::TempDir directory;
  const std::string bytes = "bytes under a digest of 128 digits";
  const Digest short_digest = DigestOf("short");
  const Digest long_digest = DigestOf(bytes, DigestAlgorithm::kSha512);
  auto writer = Must(LayoutWriter::Create(directory / "l.tar", {.file = 0600, .directory = 0700}));
  Must(writer->BeginBlob(short_digest, 5));
  Must(writer->Append(AsBytes("wrong, and much too long to be that: it is begun again")));
  Must(writer->BeginBlob(short_digest, 5));
  Must(writer->Append(AsBytes("short")));
  Must(writer->EndBlob());
  Must(writer->BeginBlob(long_digest, bytes.size()));
  Must(writer->Append(AsBytes(bytes)));
  Must(writer->EndBlob());
  EXPECT_THAT(writer->BeginBlob(short_digest, 5), FailsWith(ErrorCode::kInternal));
  Must(writer->Finish({}));
  struct stat status{};
  ASSERT_EQ(stat((directory / "l.tar").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
  const auto layout = Must(LayoutReader::Open(directory / "l.tar"));
  EXPECT_EQ(Must(layout->SizeOf(short_digest)), 5u);
  EXPECT_EQ(Must(layout->SizeOf(long_digest)), bytes.size());
}

}  // namespace
}  // namespace ocifs::store
