#include "store/pull_through.h"

#include <gtest/gtest.h>
#include <lmdb.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "store/blob_store.h"
#include "store/store.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/child.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using harness::ScriptedSource;
using harness::TarWriter;
using ::testing::ElementsAre;
using Call = ScriptedSource::Call;

constexpr std::string_view kRef = "ghcr.io/a/b:1.0";
const RequestContext kPatient;
const RequestContext kNever{{}, {}, RequestContext::Wait::kNever};

// A source of documents and blobs as they are given, whatever they are, for lies that
// ScriptedSource does not tell.
class RawSource : public Source {
 public:
  // The document behind the tag and behind the digest of `named` (its own when empty).
  Digest AddDocument(std::string_view tag, const std::string& bytes) {
    const Digest digest = DigestOf(bytes);
    documents_[std::string(tag)] = bytes;
    documents_[digest.ToString()] = bytes;
    return digest;
  }
  void SetDocument(const std::string& key, const std::string& bytes) { documents_[key] = bytes; }
  std::string AddBlob(std::string_view media_type, const std::string& bytes,
                      std::string_view more = "") {
    const std::string digest = DigestOf(bytes).ToString();
    blobs_[digest] = bytes;
    return R"({"mediaType":")" + std::string(media_type) + R"(","digest":")" + digest +
           R"(","size":)" + std::to_string(bytes.size()) + std::string(more) + "}";
  }
  void SetBlob(const Digest& digest, const std::string& bytes) {
    blobs_[digest.ToString()] = bytes;
  }

  void Clear() {
    documents_.clear();
    blobs_.clear();
  }

  std::atomic<int> manifests = 0;
  std::atomic<int> blobs = 0;
  std::atomic<int> pages = 0;
  bool away = false;
  // Answers for pages of tags: cursor → page.
  std::map<std::string, TagPage> tag_pages;

  Result<void> FindRegistry(const Registry&, const FetchContext&) override { return {}; }
  Result<std::optional<RemoteDocument>> FetchManifest(const Reference& reference,
                                                      const std::optional<Digest>& known,
                                                      const FetchContext&) override {
    ++manifests;
    if (away) return Fail(ErrorCode::kUnavailable, "away");
    const auto found =
        documents_.find(reference.tag() ? reference.tag()->name() : reference.digest()->ToString());
    if (found == documents_.end()) return Fail(ErrorCode::kNotFound, "no " + reference.ToString());
    if (known && DigestOf(found->second) == *known) return std::nullopt;
    return RemoteDocument{found->second, ""};
  }
  Result<std::unique_ptr<BlobStream>> OpenBlob(const Repository&, const Descriptor& blob,
                                               const FetchContext&) override {
    ++blobs;
    if (away) return Fail(ErrorCode::kUnavailable, "away");
    const auto found = blobs_.find(blob.digest.ToString());
    if (found == blobs_.end()) return Fail(ErrorCode::kRemote, "no blob");
    return StreamOf(found->second);
  }
  Result<TagPage> ListTags(const Repository&, std::string_view cursor,
                           const FetchContext&) override {
    ++pages;
    if (away) return Fail(ErrorCode::kUnavailable, "away");
    const auto found = tag_pages.find(std::string(cursor));
    if (found == tag_pages.end()) return Fail(ErrorCode::kNotFound, "no such repository");
    return found->second;
  }
  Result<std::vector<std::string>> ListRepositories(const Registry&, const FetchContext&) override {
    return Fail(ErrorCode::kUnsupported, "no list");
  }

 private:
  class Pieces : public BlobStream {
   public:
    explicit Pieces(std::string bytes) : bytes_(std::move(bytes)) {}
    Result<std::span<const std::byte>> Next() override {
      const std::string_view piece = std::string_view(bytes_).substr(at_, 10'000);
      at_ += piece.size();
      return AsBytes(piece);
    }

   private:
    const std::string bytes_;
    size_t at_ = 0;
  };
  static std::unique_ptr<BlobStream> StreamOf(std::string bytes) {
    return std::make_unique<Pieces>(std::move(bytes));
  }
  std::map<std::string, std::string> documents_;
  std::map<std::string, std::string> blobs_;
};

// A store on disk and a pull-through cache over it; both can be begun anew, as by a restart.
template <typename SourceType>
class Cache : public ::testing::Test {
 protected:
  Cache() {
    options_.platform = Platform::Host();
    options_.now = [this] { return now_.load(); };
  }

  PullThrough& cache() {
    if (cache_ == nullptr) {
      store_ = Must(Store::Open(root()));
      cache_ = std::make_unique<PullThrough>(*store_, source_, options_);
    }
    return *cache_;
  }
  void Stop() {
    if (cache_ != nullptr) Must(cache_->Flush({}));
    cache_.reset();
    store_.reset();
  }
  std::string root() const { return directory_ / "store"; }

  Result<std::shared_ptr<const Package>> Open(std::string_view reference = kRef,
                                              const RequestContext& context = kPatient) {
    const Reference parsed = RefOf(reference);
    OCIFS_ASSIGN_OR_RETURN(const Resolution resolution, cache().Resolve(parsed, context));
    return cache().Open(parsed.repository(), resolution.digest, context);
  }
  // The file's content, or the name of the error.
  std::string Read(const Package& package, std::string_view path,
                   const RequestContext& context = kPatient) {
    const std::optional<NodeIndex> node = package.tree().Walk(path);
    if (!node) return "no such file";
    std::string content(package.tree().Attributes(*node).size, '?');
    const Result<size_t> read =
        cache().Read(package, *node, 0, std::as_writable_bytes(std::span(content)), context);
    if (!read) return std::string(ErrorCodeName(read.error().code));
    EXPECT_EQ(*read, content.size());
    return content;
  }
  std::string ReadPath(std::string_view path, std::string_view reference = kRef,
                       const RequestContext& context = kPatient) {
    const Result<std::shared_ptr<const Package>> package = Open(reference, context);
    return package ? Read(**package, path, context)
                   : std::string(ErrorCodeName(package.error().code));
  }

  // Whether any file of the store holds the text; LMDB keeps pages it no longer uses, packs and
  // blobs do not.
  std::vector<std::string> FilesWith(std::string_view text) const {
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(root())) {
      if (entry.is_regular_file() && ReadFile(entry.path()).find(text) != std::string::npos) {
        files.push_back(entry.path().lexically_relative(root()));
      }
    }
    return files;
  }
  // Flips a byte wherever the text stands in files below that directory.
  size_t Damage(const std::string& below, std::string_view text) {
    size_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(root() + "/" + below)) {
      if (!entry.is_regular_file()) continue;
      std::string bytes = ReadFile(entry.path());
      for (size_t at = bytes.find(text); at != std::string::npos; at = bytes.find(text, at + 1)) {
        bytes[at + text.size() / 2] = static_cast<char>(bytes[at + text.size() / 2] ^ 0x20);
        ++count;
      }
      std::ofstream(entry.path(), std::ios::binary | std::ios::in) << bytes;
    }
    return count;
  }
  // Flips the first byte of all values of a table.
  void DamageIndex(const char* table) {
    ASSERT_EQ(store_, nullptr);
    MDB_env* env = nullptr;
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    MDB_cursor* cursor = nullptr;
    ASSERT_EQ(mdb_env_create(&env), 0);
    mdb_env_set_mapsize(env, size_t{64} << 30);
    mdb_env_set_maxdbs(env, 16);
    ASSERT_EQ(mdb_env_open(env, (root() + "/index").c_str(), 0, 0600), 0);
    ASSERT_EQ(mdb_txn_begin(env, nullptr, 0, &txn), 0);
    ASSERT_EQ(mdb_dbi_open(txn, table, 0, &dbi), 0);
    ASSERT_EQ(mdb_cursor_open(txn, dbi, &cursor), 0);
    MDB_val key;
    MDB_val value;
    int count = 0;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
      std::string bytes(static_cast<char*>(value.mv_data), value.mv_size);
      bytes[0] = static_cast<char>(bytes[0] ^ 1);
      value.mv_data = bytes.data();
      ASSERT_EQ(mdb_cursor_put(cursor, &key, &value, MDB_CURRENT), 0);
      ++count;
    }
    mdb_cursor_close(cursor);
    ASSERT_EQ(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    EXPECT_GT(count, 0) << table;
  }

  const testing::TempDir directory_;
  std::atomic<int64_t> now_ = 1'000'000;
  PullThrough::Options options_;
  SourceType source_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<PullThrough> cache_;
};

using PullThroughTest = Cache<ScriptedSource>;
using HostilePull = Cache<RawSource>;

std::string OneFile(std::string_view name, std::string_view content) {
  return TarWriter().File(name, content).End().bytes();
}

// --- what costs a request ------------------------------------------------------------------------

TEST_F(PullThroughTest, TheFirstAccessAsksForManifestConfigAndLayerTheSecondForNothing) {
  source_.AddImage(kRef, {OneFile("f", "content")});
  EXPECT_EQ(ReadPath("f"), "content");
  EXPECT_EQ(source_.count(Call::kManifest), 1U);
  EXPECT_EQ(source_.count(Call::kBlob), 2U);
  EXPECT_EQ(source_.total(), 3U);
  EXPECT_EQ(ReadPath("f"), "content");
  Stop();
  EXPECT_EQ(ReadPath("f"), "content");
  EXPECT_EQ(source_.total(), 3U);
}

TEST_F(PullThroughTest, AnInlineOrEmptyConfigCostsNothing) {
  source_.AddArtifact(kRef, {{.title = "readme", .content = "text"}});
  EXPECT_EQ(ReadPath("readme"), "text");
  EXPECT_EQ(source_.count(Call::kBlob), 1U);
  const std::shared_ptr<const Package> package = Must(Open());
  EXPECT_EQ(package->config_bytes(), "{}");
  std::string config(2, '?');
  EXPECT_THAT(cache().ReadBlob(*package, package->manifest().config, 0,
                               std::as_writable_bytes(std::span(config)), {}),
              IsOk());
  EXPECT_EQ(config, "{}");
  EXPECT_EQ(source_.count(Call::kBlob), 1U);
}

TEST_F(PullThroughTest, AnIndexCostsOneRequestMore) {
  const Digest manifest = source_.AddImage("ghcr.io/a/b:plain", {OneFile("f", "content")});
  const Digest index = source_.AddIndex(kRef, manifest);
  EXPECT_EQ(ReadPath("f"), "content");
  EXPECT_EQ(source_.count(Call::kManifest), 2U);
  const std::shared_ptr<const Package> package = Must(Open());
  EXPECT_EQ(package->root_digest(), index);
  EXPECT_EQ(package->manifest_digest(), manifest);
  EXPECT_FALSE(package->index_bytes().empty());
}

TEST_F(PullThroughTest, RawBlobsAreServedFromTheStore) {
  const std::string tar = OneFile("f", Noise(100'000, 1));
  source_.AddImage(kRef, {tar});
  const std::shared_ptr<const Package> package = Must(Open());
  const Descriptor& layer = package->manifest().layers[0];
  std::string bytes(1000, '?');
  EXPECT_EQ(
      Must(cache().ReadBlob(*package, layer, 5000, std::as_writable_bytes(std::span(bytes)), {})),
      1000U);
  EXPECT_EQ(bytes, tar.substr(5000, 1000));
  EXPECT_EQ(Must(cache().ReadBlob(*package, layer, tar.size() - 10,
                                  std::as_writable_bytes(std::span(bytes)), {})),
            10U);
  EXPECT_EQ(Must(cache().ReadBlob(*package, layer, tar.size(),
                                  std::as_writable_bytes(std::span(bytes)), {})),
            0U);
  EXPECT_EQ(source_.count(Call::kBlob), 2U);
}

TEST_F(PullThroughTest, ReadsStopAtTheEndOfTheFile) {
  const std::string content = Noise(2 * kChunkBytes + 100, 1);
  source_.AddImage(kRef, {TarWriter().File("f", content).File("empty", "").End().bytes()});
  const std::shared_ptr<const Package> package = Must(Open());
  const NodeIndex file = *package->tree().Walk("f");
  std::string out(1000, '?');
  auto read = [&](uint64_t offset) {
    return Must(cache().Read(*package, file, offset, std::as_writable_bytes(std::span(out)), {}));
  };
  EXPECT_EQ(read(content.size()), 0U);
  EXPECT_EQ(read(UINT64_MAX), 0U);
  EXPECT_EQ(read(content.size() - 1), 1U);
  EXPECT_EQ(out[0], content.back());
  EXPECT_EQ(read(kChunkBytes - 500), 1000U);
  EXPECT_EQ(out, content.substr(kChunkBytes - 500, 1000)) << "across two chunks";
  EXPECT_EQ(Read(*package, "f"), content);
  EXPECT_EQ(Read(*package, "empty"), "");
}

TEST_F(PullThroughTest, ManyWhoOpenAtOnceShareOneFetch) {
  source_.AddImage(kRef, {OneFile("f", Noise(300'000, 1)), OneFile("g", "x")});
  source_.Hold(Call::kBlob);
  cache();
  std::vector<std::thread> readers;
  std::atomic<int> good = 0;
  for (int i = 0; i < 64; ++i) {
    readers.emplace_back([&] { good += ReadPath("f") == Noise(300'000, 1) ? 1 : 0; });
  }
  while (source_.waiting(Call::kBlob) == 0) std::this_thread::yield();
  source_.Release(Call::kBlob);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(good, 64);
  EXPECT_EQ(source_.count(Call::kBlob), 3U);
  EXPECT_EQ(source_.count(Call::kManifest), 1U);
}

TEST_F(PullThroughTest, ALayerThatTwoPackagesShareIsFetchedOnce) {
  const std::string base = OneFile("base", Noise(50'000, 1));
  source_.AddImage("ghcr.io/a/b:1", {base, OneFile("f", "1")});
  source_.AddImage("ghcr.io/a/b:2", {base, OneFile("f", "2")});
  EXPECT_EQ(ReadPath("f", "ghcr.io/a/b:1"), "1");
  Must(cache().Flush({}));
  EXPECT_EQ(source_.count(Call::kBlob), 3U);
  EXPECT_EQ(ReadPath("f", "ghcr.io/a/b:2"), "2");
  EXPECT_EQ(source_.count(Call::kBlob), 5U) << "config and one layer";
  EXPECT_EQ(ReadPath("base", "ghcr.io/a/b:2"), Noise(50'000, 1));
  EXPECT_EQ(FilesWith(Noise(50'000, 1)).size(), 2U) << "the raw blob and one pack";
}

TEST_F(PullThroughTest, APackageKnowsTheRepositoryItWasOpenedThrough) {
  const Digest one = source_.AddImage("ghcr.io/a/b:1", {OneFile("f", "x")});
  const Digest two = source_.AddImage("ghcr.io/c/d:1", {OneFile("f", "x")});
  ASSERT_EQ(one, two);
  const std::shared_ptr<const Package> first = Must(Open("ghcr.io/a/b:1"));
  const std::shared_ptr<const Package> second = Must(Open("ghcr.io/c/d:1"));
  EXPECT_EQ(first->origin().path(), "a/b");
  EXPECT_EQ(second->origin().path(), "c/d");
  EXPECT_EQ(source_.count(Call::kBlob), 2U);
}

TEST_F(PullThroughTest, WhoWillNotWaitIsToldSo) {
  source_.AddImage(kRef, {OneFile("f", "content")});
  EXPECT_EQ(ReadPath("f", kRef, kNever), "would-block");
  EXPECT_EQ(source_.total(), 0U);
  EXPECT_EQ(ReadPath("f"), "content");
  EXPECT_EQ(ReadPath("f", kRef, kNever), "content");
}

TEST_F(PullThroughTest, ACallerThatGoesAwayDoesNotStopThePull) {
  source_.AddImage(kRef, {OneFile("f", "content")});
  source_.Hold(Call::kBlob);
  cache();
  std::stop_source stop;
  std::thread reader([&] {
    EXPECT_EQ(ReadPath("f", kRef, {{}, stop.get_token(), RequestContext::Wait::kUntilStalled}),
              "cancelled");
  });
  while (source_.waiting(Call::kBlob) == 0) std::this_thread::yield();
  stop.request_stop();
  reader.join();
  source_.Release(Call::kBlob);
  EXPECT_EQ(ReadPath("f"), "content");
  EXPECT_EQ(source_.count(Call::kBlob), 2U);
}

TEST_F(PullThroughTest, TheEndOfTheCacheStopsWhatIsUnderWay) {
  source_.AddImage(kRef, {OneFile("f", "content")});
  source_.Hold(Call::kBlob);
  cache();
  std::stop_source stop;
  std::thread reader(
      [&] { ReadPath("f", kRef, {{}, stop.get_token(), RequestContext::Wait::kUntilStalled}); });
  while (source_.waiting(Call::kBlob) == 0) std::this_thread::yield();
  stop.request_stop();
  reader.join();
  cache_.reset();  // would wait for ever
  store_.reset();
  source_.Release(Call::kBlob);
  EXPECT_EQ(ReadPath("f"), "content");
}

TEST_F(PullThroughTest, ProgressSaysWhatIsUnderWay) {
  source_.AddArtifact(kRef, {{.title = "f", .content = "content"}});
  source_.Hold(Call::kBlob);
  cache();
  std::thread reader([&] { EXPECT_EQ(ReadPath("f"), "content"); });
  while (source_.waiting(Call::kBlob) == 0) std::this_thread::yield();
  const std::vector<FetchProgress> progress = cache().Progress();
  ASSERT_EQ(progress.size(), 1U);
  EXPECT_EQ(progress[0].bytes_total, 7U);
  source_.Release(Call::kBlob);
  reader.join();
  EXPECT_TRUE(cache().Progress().empty());
}

// --- offline, restart ----------------------------------------------------------------------------

TEST_F(PullThroughTest, OfflineServesWhatIsThereAndAsksNobody) {
  source_.AddImage(kRef, {OneFile("f", "content")});
  source_.AddImage("ghcr.io/a/b:2.0", {OneFile("f", "other")});
  EXPECT_EQ(ReadPath("f"), "content");
  Must(cache().Resolve(RefOf("ghcr.io/a/b:2.0"), {}));
  Stop();
  options_.offline = true;
  const size_t before = source_.total();
  EXPECT_EQ(ReadPath("f"), "content");
  EXPECT_EQ(ReadPath("f", "ghcr.io/a/b:2.0"), "unavailable") << "resolved, but never pulled";
  EXPECT_EQ(ReadPath("f", "ghcr.io/a/b:3.0"), "unavailable");
  EXPECT_THAT(cache().FindRegistry(RegistryOf("ghcr.io"), {}), IsOk());
  EXPECT_THAT(cache().FindRegistry(RegistryOf("quay.io"), {}), FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(cache().Tags(RepositoryOf("ghcr.io/a/b"), PullThrough::TagsNeeded::kAll, {}), IsOk());
  EXPECT_THAT(cache().Tags(RepositoryOf("ghcr.io/x/y"), PullThrough::TagsNeeded::kAll, {}),
              FailsWith(ErrorCode::kUnavailable));
  EXPECT_EQ(source_.total(), before);
}

TEST_F(PullThroughTest, ADigestSeenBehindATagNeedsNoRegistry) {
  const Digest digest = source_.AddImage(kRef, {OneFile("f", "content")});
  EXPECT_EQ(ReadPath("f"), "content");
  source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
  EXPECT_EQ(ReadPath("f", "ghcr.io/a/b@" + digest.ToString()), "content");
}

TEST_F(PullThroughTest, CachedSaysHowMuchIsThere) {
  const Digest digest = source_.AddImage(kRef, {OneFile("f", "content")});
  EXPECT_EQ(Must(cache().Cached(digest)), std::nullopt);
  Must(Open());
  Must(cache().Flush({}));
  EXPECT_EQ(Must(cache().Cached(digest))->bytes_total, 7U);
}

// --- freshness -----------------------------------------------------------------------------------

TEST_F(PullThroughTest, LatestIsAskedAgainWhenItsTimeIsOver) {
  const std::string_view latest = "ghcr.io/a/b:latest";
  source_.AddImage(latest, {OneFile("f", "old")});
  EXPECT_EQ(ReadPath("f", latest), "old");
  now_ += 299;
  EXPECT_EQ(ReadPath("f", latest), "old");
  EXPECT_EQ(source_.count(Call::kManifest), 1U);
  now_ += 1;
  EXPECT_EQ(ReadPath("f", latest), "old");
  EXPECT_EQ(source_.count(Call::kManifest), 2U);
  EXPECT_EQ(source_.count(Call::kBlob), 2U) << "an unchanged digest moves no bytes";
  const Resolution same = Must(cache().Resolve(RefOf(latest), {}));
  EXPECT_EQ(same.fetched_at, 1'000'000);
  EXPECT_EQ(same.validated_at, 1'000'300);
  EXPECT_EQ(same.expires_at, 1'000'600);
  EXPECT_FALSE(same.from_registry);

  source_.AddImage(latest, {OneFile("f", "new")});
  EXPECT_EQ(ReadPath("f", latest), "old");
  now_ += 300;
  EXPECT_EQ(ReadPath("f", latest), "new");
}

TEST_F(PullThroughTest, OtherTagsAreAskedOnce) {
  source_.AddImage(kRef, {OneFile("f", "old")});
  EXPECT_EQ(ReadPath("f"), "old");
  source_.AddImage(kRef, {OneFile("f", "new")});
  now_ += 100'000'000;
  EXPECT_EQ(ReadPath("f"), "old");
  EXPECT_EQ(source_.count(Call::kManifest), 1U);
}

TEST_F(PullThroughTest, WhenTheRegistryIsAwayWhatIsKnownIsServed) {
  const std::string_view latest = "ghcr.io/a/b:latest";
  source_.AddImage(latest, {OneFile("f", "old")});
  EXPECT_EQ(ReadPath("f", latest), "old");
  now_ += 1000;
  for (const ErrorCode code :
       {ErrorCode::kUnavailable, ErrorCode::kTimedOut, ErrorCode::kRemote, ErrorCode::kDenied,
        ErrorCode::kUnauthenticated, ErrorCode::kRateLimited}) {
    source_.FailAllWith(Error{code, "away"});
    const Resolution resolution = Must(cache().Resolve(RefOf(latest), {}));
    EXPECT_TRUE(resolution.stale);
    EXPECT_EQ(ReadPath("f", latest), "old");
  }
}

TEST_F(PullThroughTest, ATagThatIsGoneIsGone) {
  const std::string_view latest = "ghcr.io/a/b:latest";
  source_.AddImage(latest, {OneFile("f", "old")});
  EXPECT_EQ(ReadPath("f", latest), "old");
  source_.RemoveTag(latest);
  now_ += 1000;
  options_.negative_ttl = std::chrono::hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ReadPath("f", latest), "not-found");
  EXPECT_EQ(source_.count(Call::kManifest), 2U) << "and that is remembered";
}

TEST_F(PullThroughTest, AClockSetBackAsksRatherThanTrusts) {
  const std::string_view latest = "ghcr.io/a/b:latest";
  source_.AddImage(latest, {OneFile("f", "old")});
  Must(Open(latest));
  now_ -= 500'000;
  Must(Open(latest));
  EXPECT_EQ(source_.count(Call::kManifest), 2U);
}

TEST_F(PullThroughTest, WhatDoesNotExistIsRemembered) {
  options_.negative_ttl = std::chrono::hours(1);
  source_.AddRegistry("ghcr.io");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ReadPath("f"), "not-found");
  EXPECT_EQ(source_.count(Call::kManifest), 1U);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(cache().FindRegistry(RegistryOf("nowhere.example"), {}),
                FailsWith(ErrorCode::kNotFound));
  }
  EXPECT_EQ(source_.count(Call::kFindRegistry), 1U);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(cache().Tags(RepositoryOf("ghcr.io/a/b"), PullThrough::TagsNeeded::kAll, {}),
                FailsWith(ErrorCode::kNotFound));
  }
  EXPECT_EQ(source_.count(Call::kTags), 1U);
}

TEST_F(PullThroughTest, ErrorsAreNotRemembered) {
  options_.negative_ttl = std::chrono::hours(1);
  source_.AddImage(kRef, {OneFile("f", "content")});
  for (const ErrorCode code : {ErrorCode::kUnavailable, ErrorCode::kDenied, ErrorCode::kRemote}) {
    source_.FailAllWith(Error{code, "for now"});
    EXPECT_EQ(ReadPath("f"), ErrorCodeName(code));
  }
  source_.FailAllWith(std::nullopt);
  source_.FailWith(Call::kBlob, Error{ErrorCode::kRemote, "for now"});
  EXPECT_EQ(ReadPath("f"), "remote");
  source_.FailWith(Call::kBlob, std::nullopt);
  EXPECT_EQ(ReadPath("f"), "content");
}

// --- lists ---------------------------------------------------------------------------------------

TEST_F(PullThroughTest, TagListsAreJoinedFromPagesAndKept) {
  for (int i = 0; i < 25; ++i) source_.AddListedTag("ghcr.io/a/b:t" + std::to_string(i));
  source_.SetPageSize(10);
  const Repository repository = RepositoryOf("ghcr.io/a/b");
  const TagList existence = Must(cache().Tags(repository, PullThrough::TagsNeeded::kExistence, {}));
  EXPECT_EQ(source_.count(Call::kTags), 1U);
  EXPECT_FALSE(existence.complete);
  const TagList all = Must(cache().Tags(repository, PullThrough::TagsNeeded::kAll, {}));
  EXPECT_EQ(source_.count(Call::kTags), 4U);
  EXPECT_TRUE(all.complete);
  EXPECT_EQ(all.tags.size(), 25U);
  EXPECT_TRUE(std::is_sorted(all.tags.begin(), all.tags.end()));
  Must(cache().Tags(repository, PullThrough::TagsNeeded::kAll, {}));
  EXPECT_EQ(source_.count(Call::kTags), 4U) << "fresh";
  now_ += options_.tag_list_ttl.count();
  Must(cache().Tags(repository, PullThrough::TagsNeeded::kAll, {}));
  EXPECT_EQ(source_.count(Call::kTags), 7U);
  source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
  now_ += options_.tag_list_ttl.count();
  const TagList old = Must(cache().Tags(repository, PullThrough::TagsNeeded::kAll, {}));
  EXPECT_EQ(old.tags.size(), 25U);
  EXPECT_FALSE(old.complete);
}

TEST_F(HostilePull, PagesInACircleAreRefused) {
  const Repository repository = RepositoryOf("ghcr.io/a/b");
  const std::vector<std::map<std::string, TagPage>> circles = {
      {{"", {{"a"}, "x"}}, {"x", {{"b"}, "x"}}},
      {{"", {{"a"}, "x"}}, {"x", {{"b"}, "y"}}, {"y", {{}, "x"}}},
  };
  for (const auto& pages : circles) {
    source_.tag_pages = pages;
    EXPECT_THAT(cache().Tags(repository, PullThrough::TagsNeeded::kAll, {}),
                FailsWith(ErrorCode::kRemote));
    EXPECT_LT(source_.pages, 10);
  }
}

TEST_F(PullThroughTest, TheStoreKnowsItsNames) {
  for (const char* ref : {"ghcr.io/a/b:1", "ghcr.io/a/b:2", "ghcr.io/a/b/c:1", "ghcr.io/a-b:1",
                          "localhost:5000/x:1"}) {
    source_.AddImage(ref, {OneFile("f", "x")});
    Must(Open(ref));
  }
  std::vector<std::string> registries;
  for (const Registry& registry : Must(cache().KnownRegistries()))
    registries.push_back(registry.name());
  EXPECT_THAT(registries, ElementsAre("ghcr.io", "localhost:5000"));
  const KnownNames top = Must(cache().Known(RegistryOf("ghcr.io"), ""));
  EXPECT_THAT(top.repositories, ElementsAre("a", "a-b"));
  EXPECT_TRUE(top.tags.empty());
  const KnownNames below = Must(cache().Known(RegistryOf("ghcr.io"), "a/b"));
  EXPECT_THAT(below.repositories, ElementsAre("c"));
  EXPECT_THAT(below.tags, ElementsAre("1", "2"));
  const KnownNames none = Must(cache().Known(RegistryOf("ghcr.io"), std::string(5000, 'x')));
  EXPECT_TRUE(none.repositories.empty() && none.tags.empty());
}

// --- hostile content -----------------------------------------------------------------------------

constexpr std::string_view kBad = "bytes that nobody signed for";

TEST_F(PullThroughTest, WrongBytesAreRefusedAndNothingOfThemIsKept) {
  for (const bool large : {false, true}) {
    const std::string reference = large ? "ghcr.io/a/b:large" : "ghcr.io/a/b:small";
    std::string tar = OneFile("f", large ? Noise(6'000'000, 1) : "content");
    // Same length, other bytes.
    const Digest manifest = source_.AddImage(reference, {tar});
    source_.Damage(source_.LayerOf(manifest, 0));
    EXPECT_EQ(ReadPath("f", reference), "corrupt");
    Stop();
    cache();
    Stop();
    EXPECT_FALSE(fs::exists(root() + "/blobs/sha256/" + source_.LayerOf(manifest, 0).hex()));
    EXPECT_TRUE(fs::is_empty(root() + "/trees"));
    EXPECT_FALSE(Must(Store::Open(root()))->index().FindPackage(manifest)->has_value());
    source_.AddImage(reference, {tar});
    EXPECT_EQ(ReadPath("f", reference), large ? Noise(6'000'000, 1) : "content")
        << "a healthy registry works";
    Stop();
    fs::remove_all(root());
  }
}

std::string ManifestOf(const std::string& config, const std::string& layers) {
  return R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":)" +
         config + R"(,"layers":[)" + layers + "]}";
}
constexpr std::string_view kTar = "application/vnd.oci.image.layer.v1.tar";

std::string ConfigWith(const std::vector<Digest>& diff_ids) {
  std::string list;
  for (const Digest& id : diff_ids) list += (list.empty() ? "\"" : ",\"") + id.ToString() + "\"";
  return R"({"rootfs":{"type":"layers","diff_ids":[)" + list + "]}}";
}

TEST_F(HostilePull, LiesAboutAnImageAreRefusedAndLeaveNothing) {
  const std::string good = OneFile("f", "good");
  const std::string bad = OneFile("f", kBad);
  const std::string other_bad = OneFile("g", std::string(kBad) + Noise(5'000'000, 1));
  struct Case {
    std::string_view name;
    std::function<void()> arrange;
    std::string_view expected = "corrupt";
  };
  auto image = [&](const std::string& config, const std::vector<std::string>& tars) {
    std::string layers;
    for (const std::string& tar : tars)
      layers += (layers.empty() ? "" : ",") + source_.AddBlob(kTar, tar);
    source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, config), layers));
  };
  const Case cases[] = {
      {"layer with other bytes",
       [&] { image(ConfigWith({DigestOf(good)}), {good}), source_.SetBlob(DigestOf(good), bad); }},
      {"second of two layers with other bytes",
       [&] {
         image(ConfigWith({DigestOf(bad), DigestOf(other_bad)}), {bad, other_bad});
         source_.SetBlob(DigestOf(other_bad), other_bad.substr(0, 4'000'000));
       }},
      {"layer cut short",
       [&] {
         image(ConfigWith({DigestOf(bad)}), {bad}),
             source_.SetBlob(DigestOf(bad), bad.substr(0, 700));
       }},
      {"layer that goes on",
       [&] {
         image(ConfigWith({DigestOf(bad)}), {bad}), source_.SetBlob(DigestOf(bad), bad + "x");
       }},
      {"config with other bytes",
       [&] {
         image(ConfigWith({DigestOf(good)}), {good});
         source_.SetBlob(DigestOf(ConfigWith({DigestOf(good)})), std::string(kBad));
       }},
      {"diff_id of something else", [&] { image(ConfigWith({DigestOf("x")}), {bad}); }},
      {"diff_ids in another order",
       [&] { image(ConfigWith({DigestOf(other_bad), DigestOf(bad)}), {bad, other_bad}); }},
      {"a diff_id too many", [&] { image(ConfigWith({DigestOf(bad), DigestOf(bad)}), {bad}); }},
      {"a diff_id too few", [&] { image(ConfigWith({DigestOf(bad)}), {bad, other_bad}); }},
      {"a diff_id that is none", [&] { image(R"({"rootfs":{"diff_ids":["x"]}})", {bad}); }},
      {"config that is no JSON", [&] { image("nonsense", {bad}); }},
      {"a layer that is no archive", [&] { image("{}", {std::string(kBad)}); }},
      {"a name that climbs", [&] { image("{}", {OneFile("../f", kBad)}); }},
      {"a hard link to the host",
       [&] {
         image("{}", {TarWriter().File("f", kBad).HardLink("l", "etc/passwd").End().bytes()});
       }},
      {"a blob the registry does not have",
       [&] {
         source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"),
                                               source_.AddBlob(kTar, bad) +
                                                   R"(,{"mediaType":"x","size":5,"digest":")" +
                                                   DigestOf("never pushed").ToString() + "\"}"));
       },
       "remote"},
      {"a manifest that is none", [&] { source_.AddDocument("1.0", std::string(kBad)); }},
      {"an index for no machine",
       [&] { source_.AddDocument("1.0", R"({"schemaVersion":2,"manifests":[]})"); }, "unsupported"},
      {"a blob over the limit",
       [&] {
         source_.AddDocument(
             "1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"),
                               R"({"mediaType":"x","size":9223372036854775807,"digest":")" +
                                   DigestOf("x").ToString() + "\"}"));
       },
       "too-large"},
      {"a config over the limit",
       [&] {
         source_.AddDocument(
             "1.0", ManifestOf(R"({"mediaType":"x","size":9223372036854775807,"digest":")" +
                                   DigestOf("x").ToString() + "\"}",
                               source_.AddBlob(kTar, bad)));
       },
       "too-large"},
  };
  for (const Case& c : cases) {
    source_.Clear();
    c.arrange();
    EXPECT_EQ(ReadPath("f"), c.expected) << c.name;
    EXPECT_THAT(FilesWith(kBad), ::testing::IsEmpty()) << c.name;
    EXPECT_TRUE(fs::is_empty(root() + "/trees")) << c.name;
    source_.Clear();
    image(ConfigWith({DigestOf(good)}), {good});
    now_ += 1;
    source_.AddDocument(
        "2.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, ConfigWith({DigestOf(good)})),
                          source_.AddBlob(kTar, good)));
    EXPECT_EQ(ReadPath("f", "ghcr.io/a/b:2.0"), "good") << c.name << ", then a good one";
    Stop();
    fs::remove_all(root());
  }
}

TEST_F(HostilePull, AnswersForADigestMustHaveIt) {
  const std::string manifest = ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"), "");
  const Digest digest = DigestOf("what was asked for");
  source_.SetDocument(digest.ToString(), manifest);
  EXPECT_EQ(ReadPath("", "ghcr.io/a/b@" + digest.ToString()), "corrupt");
  // The same behind an index.
  source_.AddDocument("1.0", R"({"schemaVersion":2,"manifests":[{"mediaType":")" +
                                 std::string(media_type::kOciManifest) +
                                 R"(","size":5,"digest":")" + digest.ToString() + "\"}]}");
  EXPECT_EQ(ReadPath(""), "corrupt");
}

TEST_F(HostilePull, IndexesNestedWithoutEndAreRefused) {
  std::string inner = ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"), "");
  std::string_view type = media_type::kOciManifest;
  for (int depth = 0; depth < 10; ++depth) {
    const Digest digest = source_.AddDocument("inner", inner);
    inner = R"({"schemaVersion":2,"manifests":[{"mediaType":")" + std::string(type) +
            R"(","size":)" + std::to_string(inner.size()) + R"(,"digest":")" + digest.ToString() +
            "\"}]}";
    type = media_type::kOciIndex;
    source_.AddDocument("1.0", inner);
    Stop();
    fs::remove_all(root());
    EXPECT_EQ(Open().has_value(), depth < 3) << depth;
  }
}

TEST_F(HostilePull, OneBlobManyTimesIsCountedManyTimes) {
  const std::string tar = TarWriter().File("a", "").File("b", "").File("c", "").End().bytes();
  const std::string layer = source_.AddBlob(kTar, tar);
  std::string layers = layer;
  for (int i = 0; i < 9; ++i) layers += "," + layer;
  source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"), layers));
  options_.limits.max_entries = 29;
  EXPECT_THAT(Open(), FailsWith(ErrorCode::kTooLarge));
  Stop();
  options_.limits.max_entries = 30;
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(HostilePull, OneBlobUnderSeveralTitlesIsSeveralFiles) {
  auto title = [](std::string_view text) {
    return R"(,"annotations":{"org.opencontainers.image.title":")" + std::string(text) + "\"}";
  };
  source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciEmpty, "{}"),
                                        source_.AddBlob("x", "text", title("a")) + "," +
                                            source_.AddBlob("x", "text", title("d/b")) + "," +
                                            source_.AddBlob("x", "other", title("c"))));
  EXPECT_EQ(ReadPath("a"), "text");
  EXPECT_EQ(ReadPath("d/b"), "text");
  EXPECT_EQ(ReadPath("c"), "other");
  EXPECT_EQ(source_.blobs, 2);
}

// --- damage in the store -------------------------------------------------------------------------

class DamagedStore : public PullThroughTest {
 protected:
  static constexpr std::string_view kContent = "the quick brown fox jumps over the lazy dog";
  void Fill() {
    source_.AddImage(kRef,
                     {TarWriter().File("f", kContent).File("big", Noise(200'000, 5)).End().bytes(),
                      OneFile("g", "second layer")});
    ASSERT_EQ(ReadPath("f"), kContent);
    Stop();
    before_ = source_.total();
  }
  size_t requests() const { return source_.total() - before_; }
  void ExpectAllReadable(std::string_view what) {
    EXPECT_EQ(ReadPath("f"), kContent) << what;
    EXPECT_EQ(ReadPath("big"), Noise(200'000, 5)) << what;
    EXPECT_EQ(ReadPath("g"), "second layer") << what;
  }

  size_t before_ = 0;
};

TEST_F(DamagedStore, AChunkIsRestoredFromTheRawBlob) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ExpectAllReadable("pack");
  EXPECT_EQ(requests(), 0U) << "the layer is in the store";
  Stop();
  ExpectAllReadable("after a restart");
}

TEST_F(DamagedStore, AChunkIsFetchedWhenTheRawBlobIsDamagedToo) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  ExpectAllReadable("pack and blob");
  EXPECT_EQ(requests(), 1U);
  Stop();
  ExpectAllReadable("after a restart");
  EXPECT_EQ(requests(), 1U);
}

TEST_F(DamagedStore, WithoutTheRegistryDamageIsAnErrorAndNeverWrongBytes) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ReadPath("f"), "corrupt");
  EXPECT_EQ(ReadPath("big"), Noise(200'000, 5)) << "the rest is good";
  EXPECT_EQ(ReadPath("f", kRef, kNever), "would-block");
  source_.FailAllWith(std::nullopt);
  ExpectAllReadable("when it is back");
}

TEST_F(DamagedStore, APackThatIsGoneIsRestoredInOneGo) {
  source_.AddImage(kRef, {[] {
                     TarWriter tar;
                     for (int i = 0; i < 200; ++i)
                       tar.File("f" + std::to_string(i), Noise(100, static_cast<uint32_t>(i)));
                     return tar.End().bytes();
                   }()});
  ASSERT_EQ(ReadPath("f0"), Noise(100, 0));
  Stop();
  for (const auto& entry : fs::directory_iterator(root() + "/packs")) fs::remove(entry);
  fs::remove_all(root() + "/blobs");
  const size_t before = source_.count(Call::kBlob);
  for (int i = 0; i < 200; ++i)
    EXPECT_EQ(ReadPath("f" + std::to_string(i)), Noise(100, static_cast<uint32_t>(i)));
  EXPECT_LE(source_.count(Call::kBlob), before + 1);
}

TEST_F(DamagedStore, PartsThatAreGoneOrDamagedComeAgain) {
  struct Case {
    std::string_view name;
    std::function<void()> harm;
  };
  auto each_file = [&](const std::string& below, const std::function<void(const fs::path&)>& harm) {
    for (const auto& entry : fs::recursive_directory_iterator(root() + "/" + below)) {
      if (entry.is_regular_file()) harm(entry.path());
    }
  };
  auto flip_middle = [](const fs::path& path) {
    std::string bytes = ReadFile(path);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
  };
  const Case cases[] = {
      {"tree flipped", [&] { each_file("trees", flip_middle); }},
      {"tree cut",
       [&] {
         each_file("trees", [](const fs::path& p) { fs::resize_file(p, fs::file_size(p) / 2); });
       }},
      {"tree empty", [&] { each_file("trees", [](const fs::path& p) { fs::resize_file(p, 0); }); }},
      {"tree gone", [&] { each_file("trees", [](const fs::path& p) { fs::remove(p); }); }},
      {"pack cut", [&] { each_file("packs", [](const fs::path& p) { fs::resize_file(p, 100); }); }},
      {"pack gone", [&] { each_file("packs", [](const fs::path& p) { fs::remove(p); }); }},
      {"pack all zeros",
       [&] {
         each_file("packs", [](const fs::path& p) {
           const auto size = fs::file_size(p);
           fs::resize_file(p, 0);
           fs::resize_file(p, size);
         });
       }},
      {"blobs gone", [&] { each_file("blobs", [](const fs::path& p) { fs::remove(p); }); }},
      {"blobs and packs flipped",
       [&] { each_file("blobs", flip_middle), each_file("packs", flip_middle); }},
      {"blobs and packs gone",
       [&] {
         each_file("blobs", [](const fs::path& p) { fs::remove(p); });
         each_file("packs", [](const fs::path& p) { fs::remove(p); });
       }},
      {"refs", [&] { DamageIndex("refs"); }},
      {"packages", [&] { DamageIndex("packages"); }},
      {"blobs table", [&] { DamageIndex("blobs"); }},
      {"chunks", [&] { DamageIndex("chunks"); }},
      {"packs table", [&] { DamageIndex("packs"); }},
      {"chunks and blobs tables", [&] { DamageIndex("chunks"), DamageIndex("blobs"); }},
      {"all tables",
       [&] {
         for (const char* table : {"refs", "packages", "blobs", "chunks", "packs"})
           DamageIndex(table);
       }},
  };
  for (const Case& c : cases) {
    Fill();
    c.harm();
    ExpectAllReadable(c.name);
    Stop();
    source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
    ExpectAllReadable(std::string(c.name) + ", healed for good");
    source_.FailAllWith(std::nullopt);
    Stop();
    fs::remove_all(root());
  }
}

TEST_F(DamagedStore, ATreeUnderAnotherPackagesNameIsNotServed) {
  Fill();
  source_.AddImage("ghcr.io/a/b:other", {OneFile("f", "of another package")});
  ASSERT_EQ(ReadPath("f", "ghcr.io/a/b:other"), "of another package");
  const Digest one = Must(cache().Resolve(RefOf(kRef), {})).digest;
  const Digest other = Must(cache().Resolve(RefOf("ghcr.io/a/b:other"), {})).digest;
  Stop();
  fs::copy_file(root() + "/trees/" + Store::TreeFileName(other),
                root() + "/trees/" + Store::TreeFileName(one),
                fs::copy_options::overwrite_existing);
  ExpectAllReadable("another's tree");
}

TEST_F(DamagedStore, ARawBlobComesAgainForWhoReadsIt) {
  Fill();
  const std::shared_ptr<const Package> package = Must(Open());
  const Descriptor layer = package->manifest().layers[0];
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  std::string bytes(layer.size, '?');
  EXPECT_EQ(
      Must(cache().ReadBlob(*package, layer, 0, std::as_writable_bytes(std::span(bytes)), {})),
      layer.size);
  EXPECT_EQ(DigestOf(bytes), layer.digest);
  EXPECT_EQ(requests(), 1U);
  fs::remove(root() + "/blobs/sha256/" + layer.digest.hex());
  EXPECT_THAT(cache().ReadBlob(*package, layer, 0, std::as_writable_bytes(std::span(bytes)), {}),
              IsOk());
  EXPECT_EQ(DigestOf(bytes), layer.digest);
  EXPECT_EQ(requests(), 2U);
}

TEST_F(DamagedStore, ManyReadersOfManyDamagedChunksAllGetTheirs) {
  source_.AddImage(kRef, {TarWriter()
                              .File("a", Noise(100'000, 1))
                              .File("b", Noise(100'000, 2))
                              .File("c", Noise(100'000, 3))
                              .End()
                              .bytes()});
  ASSERT_EQ(ReadPath("a"), Noise(100'000, 1));
  Stop();
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    ASSERT_EQ(Damage("packs", Noise(100'000, seed)), 1U);
    ASSERT_EQ(Damage("blobs", Noise(100'000, seed)), 1U);
  }
  const std::shared_ptr<const Package> package = Must(Open());
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 12; ++i) {
    readers.emplace_back([&, i] {
      EXPECT_EQ(Read(*package, std::string(1, static_cast<char>('a' + i % 3))),
                Noise(100'000, 1 + i % 3));
    });
  }
  for (std::thread& reader : readers) reader.join();
}

// --- several processes ---------------------------------------------------------------------------

TEST_F(PullThroughTest, TwoProcessesPullOnePackageOnce) {
  source_.AddImage(kRef, {OneFile("f", Noise(500'000, 1)), OneFile("g", "x")});
  Must(Store::Open(root()));
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 3; ++i) {
    children.push_back(std::make_unique<Child>([&](Child::Channel& channel) {
      cache();
      channel.Tell();
      channel.Await();
      const bool good = ReadPath("f") == Noise(500'000, 1);
      Must(cache().Flush({}));
      channel.Tell(good ? static_cast<char>('0' + source_.count(Call::kBlob)) : '?');
    }));
  }
  for (const auto& child : children) child->Await();
  for (const auto& child : children) child->Tell();
  int fetched = 0;
  for (const auto& child : children) {
    const char answer = child->Await();
    EXPECT_TRUE(answer == '0' || answer == '3') << answer;
    fetched += answer - '0';
    EXPECT_EQ(child->Wait(), 0);
  }
  EXPECT_EQ(fetched, 3) << "one of them fetched all blobs, the others none";
}

TEST_F(PullThroughTest, AProcessThatIsKilledInAPullLeavesAStoreThatWorks) {
  source_.AddImage(kRef, {OneFile("f", Noise(500'000, 1))});
  Must(Store::Open(root()));
  Child child([&](Child::Channel& channel) {
    source_.Hold(Call::kBlob);
    cache();
    std::thread reader([&] { ReadPath("f"); });
    while (source_.waiting(Call::kBlob) == 0) std::this_thread::yield();
    channel.Tell();
    channel.Await();
  });
  child.Await();
  child.Kill();
  EXPECT_EQ(ReadPath("f"), Noise(500'000, 1));
  Stop();
  EXPECT_EQ(ReadPath("f"), Noise(500'000, 1));
}

}  // namespace
}  // namespace ocifs::store
