// What a registry that lies, or an artifact that attacks, gets from the pull-through cache.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "store/store.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/store/cache_fixture.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using harness::TarWriter;

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

// --- Another server may have it right ---

TEST_F(HostilePull, WrongBytesFromOneServerAreFetchedFromTheNext) {
  const std::string good = OneFile("f", "good");
  const std::string bad = OneFile("f", kBad);
  const std::string config = ConfigWith({DigestOf(good)});
  source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, config),
                                        source_.AddBlob(kTar, good)));
  source_.SetBlob(DigestOf(good), bad);  // unpacks, and is something else
  source_.better_blobs[DigestOf(good).ToString()] = good;
  source_.SetBlob(DigestOf(config), std::string(kBad).substr(0, 4));
  source_.better_blobs[DigestOf(config).ToString()] = config;
  EXPECT_EQ(ReadPath("f"), "good");
}

TEST_F(HostilePull, WrongBytesThatDoNotUnpackAreFetchedFromTheNext) {
  const std::string good = OneFile("f", Noise(3'000'000, 1));
  source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"),
                                        source_.AddBlob(kTar, good)));
  std::string bad = good;
  bad[700] ^= 1;
  bad[0] ^= 1;  // a header that no reader takes
  source_.SetBlob(DigestOf(good), bad);
  source_.better_blobs[DigestOf(good).ToString()] = good;
  EXPECT_EQ(ReadPath("f"), Noise(3'000'000, 1));
}

TEST_F(HostilePull, AnAuthenticLayerThatDoesNotUnpackIsNobodysLie) {
  const std::string climbs = OneFile("../f", kBad);
  source_.AddDocument("1.0", ManifestOf(source_.AddBlob(media_type::kOciConfig, "{}"),
                                        source_.AddBlob(kTar, climbs)));
  source_.better_blobs[DigestOf(climbs).ToString()] = climbs;
  EXPECT_EQ(ReadPath("f"), "corrupt");
  EXPECT_TRUE(source_.better_blobs.contains(DigestOf(climbs).ToString()))
      << "no server was blamed for it";
  EXPECT_EQ(source_.blobs, 1) << "and none was asked again";
}

}  // namespace
}  // namespace ocifs::store
