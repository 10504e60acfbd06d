#include "store/pull_through.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/store/cache_fixture.h"
#include "tests/store/child.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using harness::TarWriter;
using ::testing::ElementsAre;
using Call = harness::ScriptedSource::Call;

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
TEST_F(PullThroughTest, WhenAPackageWasUsedSurvivesARestart) {
  source_.AddImage(kRef, {OneFile("f", "content")});
  const Digest manifest = Must(Open())->manifest_digest();
  Stop();
  now_ += 1000;
  EXPECT_EQ(ReadPath("f"), "content");
  cache_.reset();
  EXPECT_EQ(Must(store_->index().FindPackage(manifest))->used_at, now_.load());
}

}  // namespace
}  // namespace ocifs::store
