// Attacks through documents: rows 33 to 53 of tests/ATTACKS.md that no other test covers. Most of
// them are cases of json_test.cc and manifest_test.cc.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <variant>

#include "store/json.h"
#include "store/manifest.h"
#include "store/platform.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

std::string Repeat(std::string_view text, size_t count) {
  std::string all;
  all.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) all.append(text);
  return all;
}

std::string DescriptorText(std::string_view media_type, std::string_view content,
                           std::string_view more = "") {
  return R"({"mediaType":")" + std::string(media_type) + R"(","digest":")" +
         DigestOf(content).ToString() + R"(","size":)" + std::to_string(content.size()) +
         std::string(more) + "}";
}
std::string ManifestWith(std::string_view layers, std::string_view more = "") {
  return R"({"schemaVersion":2,"config":)" + DescriptorText(media_type::kOciConfig, "config") +
         R"(,"layers":[)" + std::string(layers) + "]" + std::string(more) + "}";
}
std::string IndexWith(std::string_view entries) {
  return R"({"schemaVersion":2,"manifests":[)" + std::string(entries) + "]}";
}

// --- JSON ----------------------------------------------------------------------------------------

TEST(AttackDocuments, Row33NestingInsideOfADocumentIsRefused) {
  for (const std::string& deep : {Repeat("[", 200'000), Repeat("{\"a\":", 200'000),
                                  Repeat("[", 200'000) + Repeat("]", 200'000)}) {
    EXPECT_THAT(ParseManifest(ManifestWith("", R"(,"x":)" + deep), ""),
                FailsWith(ErrorCode::kCorrupt));
    EXPECT_THAT(ParseDiffIds(R"({"rootfs":)" + deep), FailsWith(ErrorCode::kCorrupt));
  }
}

TEST(AttackDocuments, Row34KeysTwiceAnywhereAreRefused) {
  const std::string id = "\"" + DigestOf("x").ToString() + "\"";
  EXPECT_THAT(ParseDiffIds(R"({"rootfs":{"diff_ids":[)" + id + R"(],"diff_ids":[]}})"),
              FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(ParseManifest(ManifestWith("", R"(,"annotations":{"a":"1","a":"2"})"), ""),
              FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(
      ParseManifest(IndexWith(DescriptorText(
                        media_type::kOciManifest, "m",
                        R"(,"platform":{"os":"linux","os":"windows","architecture":"amd64"})")),
                    ""),
      FailsWith(ErrorCode::kCorrupt));
}

// Go's readers match keys without regard to case: a document must not say one thing to them and
// another to us.
TEST(AttackDocuments, Row40KeysOfPlatformsInAnotherCaseAreRefused) {
  for (const std::string_view platform :
       {R"({"OS":"linux","architecture":"amd64"})",
        R"({"os":"linux","architecture":"amd64","Architecture":"arm64"})",
        R"({"os":"linux","architecture":"arm","VARIANT":"v7"})",
        R"({"os":"linux","architecture":"amd64","OS.features":["win32k"]})"}) {
    EXPECT_THAT(ParseManifest(IndexWith(DescriptorText(media_type::kOciManifest, "m",
                                                       R"(,"platform":)" + std::string(platform))),
                              ""),
                FailsWith(ErrorCode::kCorrupt))
        << platform;
  }
}

TEST(AttackDocuments, Row40KeysOfAConfigInAnotherCaseAreRefused) {
  const std::string id = "[\"" + DigestOf("x").ToString() + "\"]";
  for (const std::string& config :
       {R"({"RootFS":{"type":"layers","diff_ids":)" + id + "}}",
        R"({"rootfs":{"type":"layers","diff_ids":)" + id + R"(},"rootFs":{}})",
        R"({"rootfs":{"type":"layers","Diff_IDs":)" + id + "}}"}) {
    EXPECT_THAT(ParseDiffIds(config), FailsWith(ErrorCode::kCorrupt)) << config;
  }
}

TEST(AttackDocuments, Row41AHundredThousandLayersAreTooMany) {
  const std::string entry = R"({"digest":"sha256:)" + std::string(64, 'a') + R"(","size":1},)";
  const std::string layers = Repeat(entry, 40'000);
  EXPECT_THAT(ParseManifest(ManifestWith(layers.substr(0, layers.size() - 1)), ""),
              FailsWith(ErrorCode::kTooLarge));
  EXPECT_THAT(ParseManifest(IndexWith(layers.substr(0, layers.size() - 1)), ""),
              FailsWith(ErrorCode::kTooLarge));
  const std::string small = Repeat("{},", 1'000'000);
  EXPECT_THAT(ParseManifest(ManifestWith(small.substr(0, small.size() - 1)), ""),
              FailsWith(ErrorCode::kTooLarge));
}

TEST(AttackDocuments, Row41FourMebibytesOfAnnotationsAreReadInBoundedTime) {
  std::string annotations;
  while (annotations.size() < kMaxDocumentBytes - 1'000) {
    annotations +=
        (annotations.empty() ? "\"" : ",\"") + std::to_string(annotations.size()) + "\":\"v\"";
  }
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(ParseManifest(ManifestWith("", R"(,"annotations":{)" + annotations + "}"), ""),
              IsOk());
  // Linear in the input: a search for duplicates by comparing each with each would take hours.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

// --- Manifests and indexes -----------------------------------------------------------------------

TEST(AttackDocuments, Row43ParametersOfAContentTypeAreIgnoredAndNothingElseIs) {
  const std::string manifest =
      ManifestWith("", R"(,"mediaType":")" + std::string(media_type::kOciManifest) + "\"");
  const std::string type(media_type::kOciManifest);
  for (const std::string& good : {type + ";charset=utf-8", type + " ; a=b; c=\"d\"", type}) {
    EXPECT_THAT(ParseManifest(manifest, good), IsOk()) << good;
  }
  EXPECT_THAT(ParseManifest(manifest, std::string(media_type::kOciIndex) + "; " + type),
              FailsWith(ErrorCode::kCorrupt));
}

TEST(AttackDocuments, Row46OneDigestWithTwoSizesInAnIndexIsRefused) {
  const std::string once = DescriptorText(media_type::kOciManifest, "m");
  const std::string other =
      R"({"mediaType":"x","size":2,"digest":")" + DigestOf("m").ToString() + "\"}";
  EXPECT_THAT(ParseManifest(IndexWith(once + "," + once), ""), IsOk());
  EXPECT_THAT(ParseManifest(IndexWith(once + "," + other), ""), FailsWith(ErrorCode::kCorrupt));
}

// Artifacts use one empty blob as config and as layer. Each use is verified by the same digest and
// size, and what its media type says decides for that use alone.
TEST(AttackDocuments, Row46OneDigestWithTwoMediaTypesIsTwoUsesOfOneBlob) {
  const std::string twice = DescriptorText("application/vnd.oci.image.layer.v1.tar", "l") + "," +
                            DescriptorText("application/octet-stream", "l");
  const auto parsed = ParseManifest(ManifestWith(twice), "");
  ASSERT_THAT(parsed, IsOk());
  const auto& layers = std::get<Manifest>(*parsed).layers;
  EXPECT_EQ(layers.at(0).digest, layers.at(1).digest);
  EXPECT_NE(layers.at(0).media_type, layers.at(1).media_type);
}

TEST(AttackDocuments, Row51OfTwoEntriesForOnePlatformTheFirstCountsInEverySpelling) {
  const auto entry = [](std::string_view content, std::string_view os, std::string_view arch) {
    return DescriptorText(media_type::kOciManifest, content,
                          R"(,"platform":{"os":")" + std::string(os) + R"(","architecture":")" +
                              std::string(arch) + "\"}");
  };
  const auto parsed = ParseManifest(
      IndexWith(entry("a", "Linux", "x86_64") + "," + entry("b", "linux", "amd64")), "");
  ASSERT_THAT(parsed, IsOk());
  const auto chosen =
      SelectPlatform(std::get<ImageIndex>(*parsed), Must(Platform::Parse("linux/amd64")));
  ASSERT_THAT(chosen, IsOk());
  EXPECT_EQ(chosen->digest, DigestOf("a"));
}

}  // namespace
}  // namespace ocifs::store
