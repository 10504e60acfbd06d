// Layouts on their way into a store: whole ones, and all the ways to be broken.
#include "store/layout_import.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/blob_store.h"
#include "store/index.h"
#include "store/manifest.h"
#include "tests/store/layout_fixture.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LayoutImport : public ::testing::Test {
 protected:
  std::string root() const { return directory_ / "store"; }
  ImportingStore& store() {
    if (store_ == nullptr) store_ = std::make_unique<ImportingStore>(root());
    return *store_;
  }
  void Restart() { store_.reset(); }
  // As a directory, or as a tar.
  std::string Write(const LayoutFiles& layout, bool tar) {
    const std::string name = "layout" + std::to_string(count_++);
    if (tar) return directory_.Write(name + ".tar", layout.AsTar());
    layout.WriteTo(directory_, name);
    return directory_ / name;
  }
  void ExpectNothingEntered() {
    EXPECT_TRUE(Must(store().store().index().Refs("")).empty());
    EXPECT_EQ(Must(store().store().index().PackageCount()), 0u);
  }

  const testing::TempDir directory_;
  int count_ = 0;
  std::unique_ptr<ImportingStore> store_;
};

TEST_F(LayoutImport, APackageIsThereByTagAndByDigestWithoutARequest) {
  for (const bool tar : {false, true}) {
    LayoutFiles layout;
    const std::string big = Noise(100'000, 7);
    const std::string image = OneFile("f", big);
    const std::string entry = layout.Image(image, LayoutFiles::Name("ghcr.io/a/b:1.0"));
    layout.SetIndex(entry);
    const auto imported = Must(store().Import(Write(layout, tar)));
    ASSERT_EQ(imported.size(), 1u);
    EXPECT_EQ(imported[0].reference.ToString(), "ghcr.io/a/b:1.0");
    EXPECT_EQ(imported[0].media_type, media_type::kOciManifest);
    EXPECT_EQ(imported[0].content_bytes, big.size());
    EXPECT_FALSE(imported[0].was_there);
    Restart();  // durable
    EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1.0", "f"), big);
    EXPECT_EQ(store().ReadPath("ghcr.io/a/b@" + imported[0].digest.ToString(), "f"), big);
    const auto record = Must(store().store().index().FindRef(RefOf("ghcr.io/a/b:1.0")));
    EXPECT_EQ(record->fetched_at, 4'000'000);
    EXPECT_EQ(record->validated_at, 4'000'000);
    // Its raw blobs are there, too.
    EXPECT_TRUE(Must(store().store().blobs().Read(DigestOf(image), 0, {})));
    EXPECT_EQ(store().source().total(), 0u);
    EXPECT_TRUE(Must(store().Import(Write(layout, tar)))[0].was_there);
    Restart();
    fs::remove_all(root());
  }
}

TEST_F(LayoutImport, OrderInATarDoesNotMatter) {
  LayoutFiles layout;
  layout.SetIndex(layout.Image(OneFile("f", "x"), LayoutFiles::Name("ghcr.io/a/b:1.0")));
  harness::TarWriter tar;
  tar.Directory("./").File("./index.json", layout.files["index.json"]);
  for (auto file = layout.files.rbegin(); file != layout.files.rend(); ++file) {
    if (file->first != "index.json") tar.File("./" + file->first, file->second);
  }
  tar.File("manifest.json", "[]").File("repositories", "{}");  // as docker save adds them
  Must(store().Import(directory_.Write("l.tar", tar.End().bytes())));
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1.0", "f"), "x");
}

TEST_F(LayoutImport, SeveralEntriesThatShareBlobs) {
  LayoutFiles layout;
  const std::string image = layout.Image(OneFile("f", "x"), LayoutFiles::Name("ghcr.io/a/b:1"));
  const std::string again = layout.Image(OneFile("f", "x"), LayoutFiles::Name("docker.io/c/d:2"));
  const std::string file = layout.Blob(
      media_type::kOciManifest,
      LayoutFiles::ManifestText(
          LayoutFiles::Described(media_type::kOciEmpty, "{}"),  // known, so not in the layout
          layout.Blob("application/wasm", "wasm",
                      R"(,"annotations":{"org.opencontainers.image.title":"m.wasm"})")),
      LayoutFiles::Name("ghcr.io/wasm/m:1"));
  layout.SetIndex(image + "," + again + "," + file);
  EXPECT_EQ(Must(store().Import(Write(layout, true))).size(), 3u);
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1", "f"), "x");
  EXPECT_EQ(store().ReadPath("docker.io/c/d:2", "f"), "x");
  EXPECT_EQ(store().ReadPath("ghcr.io/wasm/m:1", "m.wasm"), "wasm");
}

TEST(LayoutEntryReferenceTest, NamesThatSayAllAndNamesThatDoNot) {
  struct Case {
    std::string image_name;
    std::string ref_name;
    std::string_view expected;
  };
  const std::string digest = "sha256:" + std::string(64, 'a');
  for (const Case& c : std::vector<Case>{
           {"ghcr.io/a/b:1", "", "ghcr.io/a/b:1"},
           {"ghcr.io/a/b:1", "1", "ghcr.io/a/b:1"},
           {"ghcr.io/a/b:1", "ghcr.io/c/d:2", "ghcr.io/a/b:1"},
           {"docker.io/library/alpine:3", "3", "docker.io/library/alpine:3"},
           {"not a name", "ghcr.io/a/b:2", "ghcr.io/a/b:2"},
           {"", "localhost:5000/a:x", "localhost:5000/a:x"},
           {"", "ghcr.io/a/b@" + digest, "ghcr.io/a/b@sha256:aaaa"},
           {"", "latest", ""},
           {"", "1.0", ""},
           {"", "alpine:3", ""},     // docker.io would be filled in
           {"", "a/b:3", ""},        // the same
           {"", "ghcr.io/a/b", ""},  // latest would be filled in
           {"", "", ""},
       }) {
    Descriptor entry{.media_type = {},
                     .digest = DigestOf(""),
                     .size = 0,
                     .artifact_type = {},
                     .annotations = {},
                     .platform = std::nullopt,
                     .os_features = {},
                     .data = std::nullopt};
    if (!c.image_name.empty()) {
      entry.annotations.emplace_back("io.containerd.image.name", c.image_name);
    }
    if (!c.ref_name.empty()) {
      entry.annotations.emplace_back("org.opencontainers.image.ref.name", c.ref_name);
    }
    const std::optional<Reference> reference = LayoutEntryReference(entry);
    const std::string text = reference ? reference->ToString() : "";
    EXPECT_EQ(text.substr(0, c.expected.size()), c.expected) << c.image_name << ' ' << c.ref_name;
    EXPECT_EQ(text.empty(), c.expected.empty()) << c.image_name << ' ' << c.ref_name;
  }
}

TEST_F(LayoutImport, TheOnlyEntryMayBeNamedByTheCaller) {
  LayoutFiles layout;
  layout.SetIndex(layout.Image(OneFile("f", "x")));
  const std::string path = Write(layout, false);
  const auto unnamed = store().Import(path);
  ASSERT_THAT(unnamed, FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(unnamed.error().message, HasSubstr("give it after the layout"));
  Must(store().Import(path, {.reference = RefOf("ghcr.io/a/b:mine")}));
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:mine", "f"), "x");

  layout.SetIndex(layout.Image(OneFile("f", "x")) + "," + layout.Image(OneFile("f", "y")));
  const std::string two = Write(layout, false);
  EXPECT_THAT(store().Import(two, {.reference = RefOf("ghcr.io/a/b:mine")}),
              FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(store().Import(two), FailsWith(ErrorCode::kInvalid));
  layout.SetIndex("");
  EXPECT_THAT(store().Import(Write(layout, true)), FailsWith(ErrorCode::kInvalid));
}

TEST_F(LayoutImport, ADigestInANameHasToBeTheEntrysOwn) {
  LayoutFiles layout;
  layout.SetIndex(layout.Image(OneFile("f", "x"),
                               LayoutFiles::Name("ghcr.io/a/b@sha256:" + std::string(64, 'a'))));
  EXPECT_THAT(store().Import(Write(layout, false)), FailsWith(ErrorCode::kCorrupt));
  // One name for two packages means neither.
  layout.SetIndex(layout.Image(OneFile("f", "x"), LayoutFiles::Name("ghcr.io/a/b:1")) + "," +
                  layout.Image(OneFile("f", "y"), LayoutFiles::Name("ghcr.io/a/b:1")));
  EXPECT_THAT(store().Import(Write(layout, false)), FailsWith(ErrorCode::kCorrupt));
  ExpectNothingEntered();
}

TEST_F(LayoutImport, AReferenceThatStandsForSomethingElseIsReplacedOnlyOnDemand) {
  LayoutFiles first;
  first.SetIndex(first.Image(OneFile("f", "old"), LayoutFiles::Name("ghcr.io/a/b:1")));
  const Digest old_digest = Must(store().Import(Write(first, true)))[0].digest;
  LayoutFiles second;
  second.SetIndex(second.Image(OneFile("f", "new"), LayoutFiles::Name("ghcr.io/a/b:1")));
  const std::string path = Write(second, true);
  const auto refused = store().Import(path);
  ASSERT_THAT(refused, FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(refused.error().message, HasSubstr(old_digest.ToString()));
  EXPECT_THAT(refused.error().message, HasSubstr("--replace"));
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1", "f"), "old");
  const auto replaced = Must(
      store().Import(path, {.reference = std::nullopt, .known = ImportOptions::Known::kReplace}));
  EXPECT_THAT(refused.error().message, HasSubstr(replaced[0].digest.ToString()));
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1", "f"), "new");
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b@" + old_digest.ToString(), "f"), "old");
}

TEST_F(LayoutImport, AnIndexBringsThePlatformsThatTheLayoutHolds) {
  const std::string here = OneFile("f", "here");
  const std::string there = OneFile("f", Noise(20'000, 3));
  LayoutFiles layout;
  const std::string absent =
      LayoutFiles::Described(media_type::kOciManifest, "of another machine",
                             R"(,"platform":{"os":"plan9","architecture":"mips"})");
  const std::string mine = layout.Image(here, LayoutFiles::OfPlatform(Platform::Host()));
  const std::string other = layout.Image(there, LayoutFiles::OfPlatform(ForeignPlatform()));
  layout.SetIndex(
      layout.Index(absent + "," + mine + "," + other, LayoutFiles::Name("ghcr.io/a/b:1")));
  const auto imported = Must(store().Import(Write(layout, true)));
  EXPECT_THAT(imported[0].platforms,
              ElementsAre(Platform::Host().ToString(), ForeignPlatform().ToString()));
  EXPECT_THAT(imported[0].absent_platforms, ElementsAre("plan9/mips"));
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1", "f"), "here");
  // Raw, for whoever carries it on.
  EXPECT_TRUE(Must(store().store().blobs().Read(DigestOf(there), 0, {})));
  Restart();
  fs::remove_all(root());

  // Blobs that only others miss do not matter.
  layout.files.erase(LayoutFiles::BlobName(DigestOf(there)));
  EXPECT_THAT(Must(store().Import(Write(layout, true)))[0].absent_platforms,
              ElementsAre("plan9/mips", ForeignPlatform().ToString()));
}

TEST_F(LayoutImport, AnIndexWithoutThePlatformOfThisMachineIsRefused) {
  LayoutFiles layout;
  const std::string tar = OneFile("f", "x");
  const std::string absent = LayoutFiles::Described(media_type::kOciManifest, "my own",
                                                    LayoutFiles::OfPlatform(Platform::Host()));
  const std::string other = layout.Image(tar, LayoutFiles::OfPlatform(ForeignPlatform()));
  layout.SetIndex(layout.Index(absent + "," + other, LayoutFiles::Name("ghcr.io/a/b:1")));
  const auto refused = store().Import(Write(layout, false));
  ASSERT_THAT(refused, FailsWith(ErrorCode::kUnsupported));
  EXPECT_THAT(refused.error().message, HasSubstr("which holds " + ForeignPlatform().ToString()));
  layout.SetIndex(layout.Index(other, LayoutFiles::Name("ghcr.io/a/b:1")));
  EXPECT_THAT(store().Import(Write(layout, false)), FailsWith(ErrorCode::kUnsupported));
  ExpectNothingEntered();
}

TEST_F(LayoutImport, BrokenLayoutsAreRefusedAndNothingIsEntered) {
  const std::string tar = OneFile("f", Noise(40'000, 2));
  const std::string config = LayoutFiles::ImageConfig(tar);
  struct Case {
    std::string_view what;
    std::function<void(LayoutFiles&)> edit;
    ErrorCode code = ErrorCode::kCorrupt;
  };
  const auto with_index = [&](int levels) {
    return [&, levels](LayoutFiles& layout) {
      std::string entry = layout.Image(tar, LayoutFiles::OfPlatform(Platform::Host()));
      for (int i = 1; i < levels; ++i) {
        entry = layout.Index(entry, LayoutFiles::OfPlatform(Platform::Host()));
      }
      layout.SetIndex(layout.Index(entry, LayoutFiles::Name("ghcr.io/a/b:1")));
    };
  };
  const std::vector<Case> cases = {
      {"missing layer",
       [&](LayoutFiles& l) { l.files.erase(LayoutFiles::BlobName(DigestOf(tar))); }},
      {"missing config",
       [&](LayoutFiles& l) { l.files.erase(LayoutFiles::BlobName(DigestOf(config))); }},
      {"missing manifest",
       [&](LayoutFiles& l) {
         l.SetIndex(LayoutFiles::Described(media_type::kOciManifest, "nowhere",
                                           LayoutFiles::Name("ghcr.io/a/b:1")));
       }},
      {"layer of another content",
       [&](LayoutFiles& l) { l.files[LayoutFiles::BlobName(DigestOf(tar))][20'000] ^= 1; }},
      {"layer cut short",
       [&](LayoutFiles& l) { l.files[LayoutFiles::BlobName(DigestOf(tar))].pop_back(); }},
      {"layer too long",
       [&](LayoutFiles& l) { l.files[LayoutFiles::BlobName(DigestOf(tar))] += 'x'; }},
      {"config of another content",
       [&](LayoutFiles& l) { l.files[LayoutFiles::BlobName(DigestOf(config))][3] ^= 1; }},
      {"manifest of another content",
       [&](LayoutFiles& l) {
         std::string text = LayoutFiles::ManifestText("{}", "");
         l.SetIndex(LayoutFiles::Described(media_type::kOciManifest, text,
                                           LayoutFiles::Name("ghcr.io/a/b:1")));
         text[text.size() - 3] = ' ';
         l.files[LayoutFiles::BlobName(DigestOf(LayoutFiles::ManifestText("{}", "")))] = text;
       }},
      {"layer that is not what the config says",
       [&](LayoutFiles& l) {
         const std::string other = OneFile("f", "other");
         l.SetIndex(l.Blob(media_type::kOciManifest,
                           LayoutFiles::ManifestText(l.Blob(media_type::kOciConfig, config),
                                                     l.Blob(kTarLayer, other)),
                           LayoutFiles::Name("ghcr.io/a/b:1")));
       }},
      {"indexes nested too deep", with_index(4)},
      {"index.json that is a manifest",
       [&](LayoutFiles& l) { l.files["index.json"] = LayoutFiles::ManifestText("{}", ""); }},
      {"index.json that is no JSON", [](LayoutFiles& l) { l.files["index.json"] = "{"; }},
      {"no index.json", [](LayoutFiles& l) { l.files.erase("index.json"); }},
      {"huge index.json",
       [](LayoutFiles& l) { l.files["index.json"].append(kMaxDocumentBytes, ' '); },
       ErrorCode::kTooLarge},
      {"manifest too large",
       [&](LayoutFiles& l) {
         const std::string text =
             LayoutFiles::ManifestText("{}", "") + std::string(kMaxDocumentBytes, ' ');
         l.SetIndex(l.Blob(media_type::kOciManifest, text, LayoutFiles::Name("ghcr.io/a/b:1")));
       },
       ErrorCode::kTooLarge},
      {"config too large",
       [&](LayoutFiles& l) {
         l.SetIndex(l.Blob(
             media_type::kOciManifest,
             LayoutFiles::ManifestText(
                 l.Blob(media_type::kOciConfig, config + std::string(kMaxDocumentBytes, ' ')),
                 l.Blob(kTarLayer, tar)),
             LayoutFiles::Name("ghcr.io/a/b:1")));
       },
       ErrorCode::kTooLarge},
      {"another version",
       [](LayoutFiles& l) { l.files["oci-layout"] = R"({"imageLayoutVersion":"2.0"})"; },
       ErrorCode::kUnsupported},
      {"no marker", [](LayoutFiles& l) { l.files.erase("oci-layout"); }, ErrorCode::kUnsupported},
  };
  for (const bool as_tar : {false, true}) {
    for (const Case& c : cases) {
      LayoutFiles layout;
      layout.SetIndex(layout.Image(tar, LayoutFiles::Name("ghcr.io/a/b:1")));
      c.edit(layout);
      EXPECT_THAT(store().Import(Write(layout, as_tar)), FailsWith(c.code)) << c.what << as_tar;
      ExpectNothingEntered();
      Restart();
      fs::remove_all(root());
    }
  }
  LayoutFiles deep;
  with_index(3)(deep);
  Must(store().Import(Write(deep, true)));
  EXPECT_EQ(store().ReadPath("ghcr.io/a/b:1", "f"), Noise(40'000, 2));
}

TEST_F(LayoutImport, ADamagedBlobOfTheStoreIsReplaced) {
  LayoutFiles layout;
  const std::string tar = OneFile("f", Noise(100'000, 5));
  layout.SetIndex(layout.Image(tar, LayoutFiles::Name("ghcr.io/a/b:1")));
  const std::string path = Write(layout, true);
  Must(store().Import(path));
  Restart();
  const std::string blob = root() + "/" + LayoutFiles::BlobName(DigestOf(tar));
  std::string bytes = ReadFile(blob);
  bytes[50'000] ^= 1;
  directory_.Write("store/" + LayoutFiles::BlobName(DigestOf(tar)), bytes);
  Must(store().Import(path));
  Restart();
  EXPECT_EQ(ReadFile(blob), tar);
}

}  // namespace
}  // namespace ocifs::store
