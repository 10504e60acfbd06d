#include "store/manifest.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kOciLayer = "application/vnd.oci.image.layer.v1.tar+gzip";

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

// A descriptor of `content`; `more` are further members, each with a comma before it.
std::string DescriptorText(std::string_view media_type, std::string_view content,
                           std::string_view more = "") {
  return R"({"mediaType":)" + Quoted(media_type) + R"(,"digest":)" +
         Quoted(DigestOf(content).ToString()) + R"(,"size":)" + std::to_string(content.size()) +
         std::string(more) + "}";
}

std::string ManifestText(std::string_view config, std::string_view layers,
                         std::string_view more = "") {
  return R"({"schemaVersion":2,"config":)" + std::string(config) + R"(,"layers":[)" +
         std::string(layers) + "]" + std::string(more) + "}";
}

std::string ImageText(std::string_view more = "") {
  return ManifestText(DescriptorText(media_type::kOciConfig, "config"),
                      DescriptorText(kOciLayer, "layer"), more);
}

std::string IndexText(std::string_view entries, std::string_view more = "") {
  return R"({"schemaVersion":2,"manifests":[)" + std::string(entries) + "]" + std::string(more) +
         "}";
}

std::string PlatformText(std::string_view os, std::string_view arch,
                         std::string_view variant = "") {
  std::string text = R"(,"platform":{"os":)" + Quoted(os) + R"(,"architecture":)" + Quoted(arch);
  if (!variant.empty()) text += R"(,"variant":)" + Quoted(variant);
  return text + "}";
}

Manifest ParsedManifest(std::string_view text, std::string_view content_type = "") {
  return std::get<Manifest>(Must(ParseManifest(text, content_type)));
}
ImageIndex ParsedIndex(std::string_view text) {
  return std::get<ImageIndex>(Must(ParseManifest(text, "")));
}

// --- good ones -----------------------------------------------------------------------------------

TEST(ParseManifest, OciImage) {
  const Manifest manifest =
      ParsedManifest(ImageText(R"(,"mediaType":)" + Quoted(media_type::kOciManifest)),
                     std::string(media_type::kOciManifest) + "; charset=utf-8");
  EXPECT_TRUE(manifest.is_image());
  EXPECT_EQ(manifest.media_type, media_type::kOciManifest);
  ASSERT_EQ(manifest.layers.size(), 1U);
  EXPECT_EQ(manifest.layers[0].digest, DigestOf("layer"));
  EXPECT_EQ(manifest.layers[0].size, 5U);
  EXPECT_EQ(manifest.config.digest, DigestOf("config"));
}

TEST(ParseManifest, WithoutAnyMediaType) {
  EXPECT_EQ(ParsedManifest(ImageText()).media_type, media_type::kOciManifest);
  EXPECT_EQ(ParsedIndex(IndexText("")).media_type, media_type::kOciIndex);
}

TEST(ParseManifest, DockerSchema2) {
  const std::string text =
      ManifestText(DescriptorText(media_type::kDockerConfig, "config"),
                   DescriptorText("application/vnd.docker.image.rootfs.diff.tar.gzip", "layer"),
                   R"(,"mediaType":)" + Quoted(media_type::kDockerManifest));
  const Manifest manifest = ParsedManifest(text, media_type::kDockerManifest);
  EXPECT_TRUE(manifest.is_image());
  EXPECT_EQ(manifest.media_type, media_type::kDockerManifest);
}

TEST(ParseManifest, AContentTypeThatSaysNothingIsNoContradiction) {
  const std::string text = ImageText(R"(,"mediaType":)" + Quoted(media_type::kOciManifest));
  for (const std::string_view type :
       {"", "application/json", "text/plain", "application/octet-stream"}) {
    EXPECT_THAT(ParseManifest(text, type), IsOk()) << type;
  }
}

// KCL pushes three shapes; all are known only by their annotations.
TEST(ParseManifest, KclShapes) {
  const std::string annotations =
      R"(,"annotations":{"org.kcllang.package.name":"helloworld","org.kcllang.package.version":"0.1.4"})";
  const std::string layer_config =
      ManifestText(DescriptorText("application/vnd.oci.image.layer.v1.tar", "{}"),
                   DescriptorText("application/vnd.oci.image.layer.v1.tar", "tar"), annotations);
  const std::string title =
      R"(,"annotations":{"org.opencontainers.image.title":"helloworld_0.1.4.tar"})";
  const std::string empty_config =
      ManifestText(DescriptorText(media_type::kOciEmpty, "{}", R"(,"data":"e30=")"),
                   DescriptorText("application/vnd.oci.image.layer.v1.tar", "tar", title),
                   R"(,"artifactType":"application/vnd.oci.image.layer.v1.tar")" + annotations);
  for (const std::string& text : {layer_config, empty_config}) {
    const Manifest manifest = ParsedManifest(text);
    EXPECT_FALSE(manifest.is_image());
    EXPECT_EQ(manifest.artifact_type, "application/vnd.oci.image.layer.v1.tar");
    EXPECT_EQ(*FindAnnotation(manifest.annotations, "org.kcllang.package.name"), "helloworld");
  }
  EXPECT_EQ(ParsedManifest(layer_config).layers[0].title(), nullptr);
  EXPECT_EQ(*ParsedManifest(empty_config).layers[0].title(), "helloworld_0.1.4.tar");
  EXPECT_EQ(ParsedManifest(empty_config).config.data, "{}");
}

TEST(ParseManifest, OptionalMembersMayBeNull) {
  const Manifest manifest = ParsedManifest(ManifestText(
      DescriptorText(media_type::kOciConfig, "config", R"(,"annotations":null,"urls":null)"), "",
      R"(,"mediaType":null,"annotations":null,"subject":null,"artifactType":null)"));
  EXPECT_TRUE(manifest.layers.empty());
  EXPECT_FALSE(manifest.subject);
}

TEST(ParseManifest, ZeroLayers) {
  EXPECT_TRUE(
      ParsedManifest(ManifestText(DescriptorText(media_type::kOciConfig, "c"), "")).layers.empty());
}

TEST(ParseManifest, SubjectIsRead) {
  const Manifest manifest = ParsedManifest(
      ImageText(R"(,"subject":)" + DescriptorText(media_type::kOciManifest, "subject")));
  ASSERT_TRUE(manifest.subject);
  EXPECT_EQ(manifest.subject->digest, DigestOf("subject"));
}

// --- hostile ones --------------------------------------------------------------------------------

TEST(ParseManifest, Refuses) {
  struct Case {
    std::string_view name;
    std::string text;
    ErrorCode code = ErrorCode::kCorrupt;
    std::string_view content_type = "";
  };
  const std::string config = DescriptorText(media_type::kOciConfig, "config");
  const std::string layer = DescriptorText(kOciLayer, "layer");
  const std::string hex(64, 'a');
  auto layer_with = [&](std::string_view members) {
    return ManifestText(config, "{" + std::string(members) + "}");
  };
  auto digest_of = [&](const std::string& digest) {
    return layer_with(R"("mediaType":"x","size":1,"digest":)" + Quoted(digest));
  };
  auto size_of = [&](std::string_view size) {
    return layer_with(R"("mediaType":"x","digest":"sha256:)" + hex + R"(","size":)" +
                      std::string(size));
  };
  std::string many = layer;
  for (int i = 0; i < 4096; ++i) many += "," + layer;
  const Case cases[] = {
      {"not JSON", "<html>"},
      {"an array", "[]"},
      {"a string", "\"a\""},
      {"an empty object", "{}"},
      {"4 MiB and one byte", ImageText() + std::string((size_t{4} << 20) + 1, ' '),
       ErrorCode::kTooLarge},
      {"both layers and manifests", ManifestText(config, layer, R"(,"manifests":[])")},
      {"both config and manifests",
       R"({"schemaVersion":2,"manifests":[],"config":)" + config + "}"},
      {"both, the other kind null", ManifestText(config, layer, R"(,"manifests":null)")},
      {"index type with layers", ImageText(R"(,"mediaType":)" + Quoted(media_type::kOciIndex))},
      {"manifest type with manifests",
       IndexText("", R"(,"mediaType":)" + Quoted(media_type::kOciManifest))},
      {"manifest served as an index", ImageText(), ErrorCode::kCorrupt, media_type::kOciIndex},
      {"index served as a manifest", IndexText(""), ErrorCode::kCorrupt, media_type::kOciManifest},
      {"OCI inside, Docker outside",
       ImageText(R"(,"mediaType":)" + Quoted(media_type::kOciManifest)), ErrorCode::kCorrupt,
       media_type::kDockerManifest},
      {"digest key twice",
       layer_with(R"("digest":"sha256:)" + hex + R"(","digest":"sha256:)" + hex + R"(","size":1)")},
      {"layers twice", ManifestText(config, layer, R"(,"layers":[])")},
      {"mediaType twice", ImageText(R"(,"mediaType":"a","mediaType":"a")")},
      {"Layers", ManifestText(config, layer, R"(,"Layers":[])")},
      {"MEDIATYPE", ImageText(R"(,"MEDIATYPE":"x")")},
      {"Manifests beside layers", ManifestText(config, layer, R"(,"Manifests":[])")},
      {"Digest in a descriptor",
       layer_with(R"("Digest":"sha256:)" + hex + R"(","digest":"sha256:)" + hex + R"(","size":1)")},
      {"SIZE in a descriptor", size_of(R"(1,"SIZE":2)")},
      {"schemaVersion missing", R"({"config":)" + config + R"(,"layers":[]})"},
      {"schemaVersion 3", R"({"schemaVersion":3,"config":)" + config + "}"},
      {"schemaVersion as text", R"({"schemaVersion":"2","config":)" + config + "}"},
      {"schemaVersion 2.0", R"({"schemaVersion":2.0,"config":)" + config + "}"},
      {"schema 1", R"({"schemaVersion":1,"fsLayers":[],"history":[]})", ErrorCode::kUnsupported},
      {"schema 1 in disguise", ManifestText(config, layer, R"(,"fsLayers":[])"),
       ErrorCode::kUnsupported},
      {"unknown media type", ImageText(R"(,"mediaType":"application/vnd.example")"),
       ErrorCode::kUnsupported},
      {"media type with a NUL",
       ImageText(R"(,"mediaType":"application/vnd.oci.image.manifest.v1+json\u0000")")},
      {"media type a number", ImageText(R"(,"mediaType":1)")},
      {"config missing", R"({"schemaVersion":2,"layers":[]})"},
      {"config null", ManifestText("null", layer)},
      {"config a list", ManifestText("[]", layer)},
      {"config without size",
       ManifestText(R"({"mediaType":"x","digest":"sha256:)" + hex + R"("})", layer)},
      {"layers an object", R"({"schemaVersion":2,"layers":{},"config":)" + config + "}"},
      {"layer null", ManifestText(config, "null")},
      {"layer text", ManifestText(config, "\"x\"")},
      {"manifests an object", R"({"schemaVersion":2,"manifests":{}})"},
      {"annotations a list", ImageText(R"(,"annotations":[])")},
      {"annotation a number", ImageText(R"(,"annotations":{"a":1})")},
      {"digest missing", layer_with(R"("mediaType":"x","size":1)")},
      {"digest null", layer_with(R"("mediaType":"x","size":1,"digest":null)")},
      {"digest empty", digest_of("")},
      {"digest that climbs", digest_of("sha256:../../../../etc/passwd")},
      {"digest in upper case", digest_of("sha256:" + std::string(64, 'A'))},
      {"digest of 63 digits", digest_of("sha256:" + hex.substr(1))},
      {"digest of 65 digits", digest_of("sha256:" + hex + "a")},
      {"digest sha512 with 64 digits", digest_of("sha512:" + hex)},
      {"digest with a NUL", digest_of("sha256:" + hex + "\\u0000")},
      {"digest of 10 kB", digest_of("sha256:" + std::string(10'000, 'a'))},
      {"digest of md5", digest_of("md5:" + std::string(32, 'a')), ErrorCode::kUnsupported},
      {"size missing", layer_with(R"("mediaType":"x","digest":"sha256:)" + hex + "\"")},
      {"size -1", size_of("-1")},
      {"size 1.0", size_of("1.0")},
      {"size 1e3", size_of("1e3")},
      {"size 2^63", size_of("9223372036854775808")},
      {"size 2^64", size_of("18446744073709551616")},
      {"size 1e400", size_of("1e400")},
      {"size as text", size_of("\"12\"")},
      {"size null", size_of("null")},
      {"size of 100 kB", size_of(std::string(100'000, '9'))},
      {"platform a list",
       IndexText(DescriptorText(media_type::kOciManifest, "m", R"(,"platform":[])"))},
      {"platform os with a NUL",
       IndexText(DescriptorText(media_type::kOciManifest, "m",
                                R"(,"platform":{"os":"linux\u0000","architecture":"amd64"})"))},
      {"one digest, two sizes",
       ManifestText(config, layer + R"(,{"mediaType":"x","digest":)" +
                                Quoted(DigestOf("layer").ToString()) + R"(,"size":6})")},
      {"config and layer of one digest, two sizes",
       ManifestText(config, R"({"mediaType":"x","digest":)" +
                                Quoted(DigestOf("config").ToString()) + R"(,"size":7})")},
      {"4097 layers", ManifestText(config, many), ErrorCode::kTooLarge},
      {"Nydus",
       ManifestText(config, DescriptorText("application/vnd.oci.image.layer.nydus.blob.v1", "n")),
       ErrorCode::kUnsupported},
      {"Nydus bootstrap",
       ManifestText(
           config,
           DescriptorText(kOciLayer, "n",
                          R"(,"annotations":{"containerd.io/snapshot/nydus-bootstrap":"true"})")),
       ErrorCode::kUnsupported},
      {"overlaybd",
       ManifestText(
           config,
           DescriptorText(
               kOciLayer,
               "n", R"(,"annotations":{"containerd.io/snapshot/overlaybd/blob-digest":"x"})")),
       ErrorCode::kUnsupported},
      {"encrypted layer",
       ManifestText(config,
                    DescriptorText("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "e")),
       ErrorCode::kUnsupported},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(ParseManifest(c.text, c.content_type), FailsWith(c.code)) << c.name;
  }
}

TEST(ParseManifest, InlineDataIsUsedOnlyWhenItIsTheContent) {
  auto data_of = [](std::string_view content, std::string_view data) {
    return ParsedManifest(ManifestText(DescriptorText(media_type::kOciEmpty, content,
                                                      R"(,"data":)" + std::string(data)),
                                       ""))
        .config.data;
  };
  EXPECT_EQ(data_of("{}", "\"e30=\""), "{}");
  EXPECT_EQ(data_of("{}", "\"W10=\""), std::nullopt) << "other content of the same size";
  EXPECT_EQ(data_of("{}", "\"e30\""), std::nullopt) << "no base64";
  EXPECT_EQ(data_of("{}", "\"e30=e30=\""), std::nullopt);
  EXPECT_EQ(data_of("{}", "\"\""), std::nullopt);
  EXPECT_EQ(data_of("{}", "1"), std::nullopt);
  EXPECT_EQ(data_of("{}", "null"), std::nullopt);
  const std::string large(70'000, 'x');
  EXPECT_EQ(data_of(large, Quoted(ToBase64(large))), std::nullopt) << "a blob in disguise";
}

// --- choosing from an index ----------------------------------------------------------------------

std::string ChosenFrom(std::string_view entries, std::string_view platform) {
  const Result<Descriptor> chosen =
      SelectPlatform(ParsedIndex(IndexText(entries)), Must(Platform::Parse(platform)));
  if (!chosen) return std::string(ErrorCodeName(chosen.error().code));
  for (const std::string_view content : {"a", "b", "c", "d"}) {
    if (chosen->digest == DigestOf(content)) return std::string(content);
  }
  return "?";
}

std::string Entry(std::string_view content, std::string_view more = "") {
  return DescriptorText(media_type::kOciManifest, content, more);
}

TEST(SelectPlatform, TakesTheBestAndThenTheFirst) {
  const std::string list = Entry("a", PlatformText("linux", "arm64", "v8")) + "," +
                           Entry("b", PlatformText("linux", "amd64")) + "," +
                           Entry("c", PlatformText("linux", "amd64")) + "," +
                           Entry("d", PlatformText("linux", "arm", "v6"));
  EXPECT_EQ(ChosenFrom(list, "linux/amd64"), "b");
  EXPECT_EQ(ChosenFrom(list, "linux/amd64/v3"), "b");
  EXPECT_EQ(ChosenFrom(list, "linux/arm64"), "a");
  EXPECT_EQ(ChosenFrom(list, "linux/arm/v7"), "d");
  EXPECT_EQ(ChosenFrom(list, "linux/arm/v5"), "unsupported");
  EXPECT_EQ(ChosenFrom(list, "windows/amd64"), "unsupported");
}

TEST(SelectPlatform, PrefersTheHigherVariantWhereverItStands) {
  const std::string list = Entry("a", PlatformText("linux", "amd64")) + "," +
                           Entry("b", PlatformText("linux", "amd64", "v2")) + "," +
                           Entry("c", PlatformText("linux", "amd64", "v4"));
  EXPECT_EQ(ChosenFrom(list, "linux/amd64/v3"), "b");
  EXPECT_EQ(ChosenFrom(list, "linux/amd64"), "a");
}

TEST(SelectPlatform, SpellingOfThePlatformDoesNotMatter) {
  EXPECT_EQ(ChosenFrom(Entry("a", PlatformText("Linux", "x86_64")), "linux/amd64"), "a");
}

TEST(SelectPlatform, NeverTakesWhatIsNoImage) {
  const std::string attestation =
      R"(,"annotations":{"vnd.docker.reference.type":"attestation-manifest"})" +
      PlatformText("linux", "amd64");
  const std::string list =
      Entry("a", attestation) + "," +
      Entry("b", R"(,"artifactType":"application/spdx")" + PlatformText("linux", "amd64")) + "," +
      Entry("c", PlatformText("unknown", "unknown")) + "," +
      DescriptorText("application/vnd.example", "d", PlatformText("linux", "amd64"));
  EXPECT_EQ(ChosenFrom(list, "linux/amd64"), "unsupported");
}

TEST(SelectPlatform, NeverTakesAnImageThatNeedsMoreThanWeHave) {
  const std::string features =
      R"(,"platform":{"os":"linux","architecture":"amd64","os.features":["win32k"]})";
  EXPECT_EQ(ChosenFrom(Entry("a", features), "linux/amd64"), "unsupported");
}

TEST(SelectPlatform, AnEntryWithoutPlatformIsTheLastResort) {
  EXPECT_EQ(ChosenFrom(Entry("a"), "linux/amd64"), "a");
  EXPECT_EQ(
      ChosenFrom(Entry("a") + "," + Entry("b", PlatformText("linux", "amd64")), "linux/amd64"),
      "b");
  EXPECT_EQ(ChosenFrom(Entry("a") + "," + Entry("b"), "linux/amd64"), "unsupported")
      << "which of the two?";
}

TEST(SelectPlatform, AnIndexMayStandInAnIndex) {
  EXPECT_EQ(ChosenFrom(DescriptorText(media_type::kOciIndex, "a", PlatformText("linux", "amd64")),
                       "linux/amd64"),
            "a");
}

TEST(SelectPlatform, SaysWhatThereIs) {
  const ImageIndex index = ParsedIndex(IndexText(Entry("a", PlatformText("linux", "s390x"))));
  const Result<Descriptor> chosen = SelectPlatform(index, Must(Platform::Parse("linux/amd64")));
  ASSERT_THAT(chosen, FailsWith(ErrorCode::kUnsupported));
  EXPECT_THAT(chosen.error().message, HasSubstr("linux/s390x"));
}

// --- image configs -------------------------------------------------------------------------------

TEST(ParseDiffIds, ReadsThem) {
  const std::string id = DigestOf("x").ToString();
  const Result<std::vector<Digest>> ids = ParseDiffIds(
      R"({"rootfs":{"type":"layers","diff_ids":[)" + Quoted(id) + "," + Quoted(id) + "]}}");
  ASSERT_THAT(ids, IsOk());
  EXPECT_EQ(*ids, (std::vector{DigestOf("x"), DigestOf("x")}));
}

TEST(ParseDiffIds, NoneIsNone) {
  for (const std::string_view text :
       {"{}", "null", R"({"rootfs":null})", R"({"rootfs":{"diff_ids":null}})", "[]"}) {
    const Result<std::vector<Digest>> ids = ParseDiffIds(text);
    ASSERT_THAT(ids, IsOk()) << text;
    EXPECT_TRUE(ids->empty()) << text;
  }
}

TEST(ParseDiffIds, RefusesWhatIsNone) {
  for (const std::string_view text :
       {"", "{", R"({"rootfs":{"diff_ids":{}}})", R"({"rootfs":{"diff_ids":[1]}})",
        R"({"rootfs":{"diff_ids":[""]}})", R"({"rootfs":{"diff_ids":["sha256:../x"]}})",
        R"({"rootfs":{"diff_ids":[]},"rootfs":{}})"}) {
    EXPECT_THAT(ParseDiffIds(text), FailsWith(ErrorCode::kCorrupt)) << text;
  }
}

}  // namespace
}  // namespace ocifs::store
