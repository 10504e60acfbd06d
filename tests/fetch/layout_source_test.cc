#include "fetch/layout_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "fetch/routing_source.h"
#include "store/json.h"
#include "store/text.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::Digest;
using store::ErrorCode;
using ::testing::ElementsAre;

class LayoutSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_.Write("shelf/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    layer_ = AddBlob("layer");
    manifest_ =
        R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":)" +
        Entry(AddBlob("{}"), "application/vnd.oci.empty.v1+json", "") + R"(,"layers":[)" +
        Entry(layer_, "application/octet-stream", "") + "]}";
    manifest_blob_ = AddBlob(manifest_);
    WriteIndex({"1.0", "team/app:2.0", "shelf.local/team/app:3.0"});
    source_ = *LayoutSource::Create(registry_, {.directory = dir_ / "shelf"});
  }

  store::Descriptor AddBlob(const std::string& bytes) {
    const Digest digest = Digest::Of(store::AsBytes(bytes));
    dir_.Write("shelf/blobs/sha256/" + digest.hex(), bytes);
    return {.media_type = "application/octet-stream",
            .digest = digest,
            .size = bytes.size(),
            .artifact_type = {},
            .annotations = {},
            .platform = {},
            .os_features = {},
            .data = {}};
  }
  static std::string Entry(const store::Descriptor& blob, const std::string& type,
                           const std::string& name) {
    std::string json = R"({"mediaType":")" + type + R"(","digest":")" + blob.digest.ToString() +
                       R"(","size":)" + std::to_string(blob.size);
    if (!name.empty()) {
      json +=
          R"(,"annotations":{"org.opencontainers.image.ref.name":)" + store::JsonQuote(name) + "}";
    }
    return json + "}";
  }
  void WriteIndex(const std::vector<std::string>& names) {
    std::string json = R"({"schemaVersion":2,"manifests":[)";
    for (const std::string& name : names) {
      if (!json.ends_with('[')) json += ",";
      json += Entry(manifest_blob_, "application/vnd.oci.image.manifest.v1+json", name);
    }
    dir_.Write("shelf/index.json", json + "]}");
  }
  store::Reference Ref(const std::string& rest) {
    return *store::Reference::Parse("shelf.local/" + rest);
  }
  store::Result<std::string> Blob(const store::Descriptor& blob) {
    auto stream = source_->OpenBlob(Ref("shelf:1.0").repository(), blob, context_);
    if (!stream) return store::Fail(stream.error());
    std::string text;
    while (true) {
      const auto bytes = (*stream)->Next();
      if (!bytes) return store::Fail(bytes.error());
      if (bytes->empty()) return text;
      text.append(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    }
  }

  testing::TempDir dir_;
  store::Registry registry_ = *store::Registry::Parse("shelf.local");
  store::FetchContext context_;
  store::Descriptor layer_{.media_type = {},
                           .digest = Digest::Of({}),
                           .artifact_type = {},
                           .annotations = {},
                           .platform = {},
                           .os_features = {},
                           .data = {}};
  store::Descriptor manifest_blob_ = layer_;
  std::string manifest_;
  std::unique_ptr<LayoutSource> source_;
};

TEST_F(LayoutSourceTest, NamesBecomeRepositoriesAndTags) {
  EXPECT_THAT(*source_->ListRepositories(registry_, context_), ElementsAre("shelf", "team/app"));
  EXPECT_THAT(source_->ListTags(Ref("shelf:x").repository(), "", context_)->tags,
              ElementsAre("1.0"));
  EXPECT_THAT(source_->ListTags(Ref("team/app:x").repository(), "", context_)->tags,
              ElementsAre("2.0", "3.0"));
  EXPECT_EQ(source_->ListTags(Ref("other:x").repository(), "", context_).error().code,
            ErrorCode::kNotFound);
}

TEST_F(LayoutSourceTest, GivesManifestsByTagAndDigest) {
  const auto by_tag = source_->FetchManifest(Ref("team/app:2.0"), {}, context_);
  ASSERT_TRUE(by_tag && *by_tag) << by_tag.error().message;
  EXPECT_EQ((*by_tag)->bytes, manifest_);
  EXPECT_EQ((*by_tag)->media_type, store::media_type::kOciManifest);
  const Digest digest = manifest_blob_.digest;
  EXPECT_EQ((*source_->FetchManifest(Ref("shelf@" + digest.ToString()), {}, context_))->bytes,
            manifest_);
  EXPECT_FALSE(*source_->FetchManifest(Ref("team/app:2.0"), digest, context_)) << "unchanged";
  EXPECT_EQ(source_->FetchManifest(Ref("team/app:9"), {}, context_).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(source_->FetchManifest(Ref("shelf@sha256:" + std::string(64, 'a')), {}, context_)
                .error()
                .code,
            ErrorCode::kNotFound);
}

TEST_F(LayoutSourceTest, StreamsBlobs) {
  EXPECT_EQ(*Blob(layer_), "layer");
  const std::string large(3'000'000, 'l');
  EXPECT_TRUE(*Blob(AddBlob(large)) == large);
  EXPECT_EQ(*Blob(AddBlob("")), "");
}

TEST_F(LayoutSourceTest, BlobErrors) {
  store::Descriptor wrong = layer_;
  wrong.size = 4;
  EXPECT_EQ(Blob(wrong).error().code, ErrorCode::kCorrupt);
  wrong.size = 6;
  EXPECT_EQ(Blob(wrong).error().code, ErrorCode::kCorrupt);
  wrong.digest = Digest::Of(store::AsBytes("never written"));
  EXPECT_EQ(Blob(wrong).error().code, ErrorCode::kRemote);
  std::stop_source stop;
  stop.request_stop();
  context_.stop = stop.get_token();
  EXPECT_EQ(Blob(layer_).error().code, ErrorCode::kCancelled);
}

TEST_F(LayoutSourceTest, IndexIsReadAgainWhenItChanges) {
  ASSERT_TRUE(source_->FetchManifest(Ref("shelf:1.0"), {}, context_));
  WriteIndex({"1.0", "later"});
  EXPECT_TRUE(source_->FetchManifest(Ref("shelf:later"), {}, context_));
  EXPECT_FALSE(source_->FetchManifest(Ref("team/app:2.0"), {}, context_));
}

TEST_F(LayoutSourceTest, LayoutThatIsAwayIsUnavailable) {
  std::filesystem::remove_all(dir_ / "shelf");
  EXPECT_EQ(source_->FetchManifest(Ref("shelf:1.0"), {}, context_).error().code,
            ErrorCode::kUnavailable);
  EXPECT_EQ(Blob(layer_).error().code, ErrorCode::kUnavailable);
}

TEST_F(LayoutSourceTest, SymbolicLinksOutOfTheLayoutAreNotFollowed) {
  const std::string secret = dir_.Write("secret", "secret");
  const Digest digest = Digest::Of(store::AsBytes("secret"));
  ASSERT_EQ(symlink(secret.c_str(), (dir_ / ("shelf/blobs/sha256/" + digest.hex())).c_str()), 0);
  store::Descriptor blob = layer_;
  blob.digest = digest;
  blob.size = 6;
  EXPECT_EQ(Blob(blob).error().code, ErrorCode::kDenied);
  EXPECT_EQ(source_->FetchManifest(Ref("shelf@" + digest.ToString()), {}, context_).error().code,
            ErrorCode::kDenied);
  std::filesystem::remove(dir_ / "shelf/index.json");
  ASSERT_EQ(symlink(secret.c_str(), (dir_ / "shelf/index.json").c_str()), 0);
  EXPECT_EQ(source_->FetchManifest(Ref("shelf:1.0"), {}, context_).error().code,
            ErrorCode::kDenied);
}

TEST_F(LayoutSourceTest, MalformedLayouts) {
  auto code = [&](const char* file, const std::string& text) {
    SetUp();
    dir_.Write(file, text);
    return source_->FetchManifest(Ref("shelf:1.0"), {}, context_).error().code;
  };
  EXPECT_EQ(code("shelf/oci-layout", "{}"), ErrorCode::kUnsupported);
  EXPECT_EQ(code("shelf/oci-layout", R"({"imageLayoutVersion":"2.0.0"})"), ErrorCode::kUnsupported);
  EXPECT_EQ(code("shelf/index.json", "{"), ErrorCode::kCorrupt);
  EXPECT_EQ(code("shelf/index.json", manifest_), ErrorCode::kCorrupt);
  EXPECT_EQ(code("shelf/index.json", std::string(5 << 20, ' ')), ErrorCode::kTooLarge);
}

TEST_F(LayoutSourceTest, ManifestThatIndexNamesButIsNotThereIsRemote) {
  std::filesystem::remove(dir_ / ("shelf/blobs/sha256/" + manifest_blob_.digest.hex()));
  EXPECT_EQ(source_->FetchManifest(Ref("shelf:1.0"), {}, context_).error().code,
            ErrorCode::kRemote);
}

TEST_F(LayoutSourceTest, KnowsItsOwnRegistryOnly) {
  EXPECT_TRUE(source_->FindRegistry(registry_, context_));
  EXPECT_EQ(source_->FindRegistry(*store::Registry::Parse("ghcr.io"), context_).error().code,
            ErrorCode::kNotFound);
}

TEST(LayoutReferenceTest, Names) {
  const auto registry = *store::Registry::Parse("shelf.local:5000");
  const auto fallback = *store::Repository::Parse(registry, "shelf");
  auto show = [&](const char* name) {
    const auto reference = LayoutReference(name, registry, fallback);
    return reference ? reference->ToString() : "none";
  };
  EXPECT_EQ(show("1.0"), "shelf.local:5000/shelf:1.0");
  EXPECT_EQ(show("a/b:1"), "shelf.local:5000/a/b:1");
  EXPECT_EQ(show("shelf.local:5000/a:1"), "shelf.local:5000/a:1");
  EXPECT_EQ(show("docker.io/library/alpine:3"), "shelf.local:5000/docker.io/library/alpine:3");
  for (const char* name : {"", "../x:1", "a:../x", "/etc/passwd", "a//b:1", "A:1", "a:", ":1",
                           "a/b", "a:1@sha256:0"}) {
    EXPECT_EQ(show(name), "none") << name;
  }
  EXPECT_FALSE(LayoutReference("1.0", registry, std::nullopt));
}

TEST_F(LayoutSourceTest, RoutingAsksTheSourceOfTheRegistry) {
  const testing::TempDir empty;
  std::map<std::string, std::unique_ptr<store::Source>> routes;
  routes["shelf.local"] = std::move(source_);
  RoutingSource routing(std::move(routes),
                        *LayoutSource::Create(*store::Registry::Parse("other.local"),
                                              {.directory = empty.path(), .repository = "x"}));
  EXPECT_TRUE(routing.FindRegistry(registry_, context_));
  EXPECT_TRUE(routing.FindRegistry(*store::Registry::Parse("other.local"), context_));
  EXPECT_FALSE(routing.FindRegistry(*store::Registry::Parse("third.local"), context_));
  EXPECT_TRUE(routing.FetchManifest(Ref("shelf:1.0"), {}, context_));
  EXPECT_TRUE(routing.OpenBlob(Ref("shelf:1.0").repository(), layer_, context_));
  EXPECT_TRUE(routing.ListTags(Ref("shelf:1.0").repository(), "", context_));
  EXPECT_TRUE(routing.ListRepositories(registry_, context_));
  EXPECT_EQ(
      routing.FetchManifest(*store::Reference::Parse("third.local/x:1"), {}, context_).error().code,
      ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace ocifs::fetch
