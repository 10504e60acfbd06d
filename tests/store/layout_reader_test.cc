// Archives and directories that look like layouts.
#include "store/layout_reader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/ingest.h"
#include "tests/store/layout_fixture.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using harness::TarWriter;
using ::testing::HasSubstr;

LayoutFiles OneImage() {
  LayoutFiles layout;
  layout.SetIndex(layout.Image(OneFile("f", "x"), LayoutFiles::Name("ghcr.io/a/b:1")));
  return layout;
}

void AddTo(TarWriter& tar, const LayoutFiles& layout) {
  for (const auto& [file, bytes] : layout.files) tar.File(file, bytes);
}

TEST(LayoutReaderTest, TricksInATarAreRefused) {
  const testing::TempDir directory;
  const LayoutFiles layout = OneImage();
  const std::string blob = "some bytes";
  const std::string name = LayoutFiles::BlobName(DigestOf(blob));
  struct Case {
    std::string_view what;
    std::function<void(TarWriter&)> add;
    std::string_view told;
  };
  for (const Case& c : std::vector<Case>{
           {"absolute", [&](TarWriter& t) { t.File("/" + name, blob); }, "an absolute name"},
           {"upwards", [&](TarWriter& t) { t.File("../" + name, blob); }, ".."},
           {"upwards inside", [&](TarWriter& t) { t.File("blobs/../x", blob); }, ".."},
           {"symbolic link", [&](TarWriter& t) { t.Symlink(name, "/etc/passwd"); },
            "not a regular"},
           {"link elsewhere", [&](TarWriter& t) { t.Symlink("x", "y"); }, "not a regular"},
           {"hard link", [&](TarWriter& t) { t.File("x", blob).HardLink(name, "x"); },
            "not a regular"},
           {"blob twice", [&](TarWriter& t) { t.File(name, blob).File(name, blob); }, "twice"},
           {"blob twice, spelled differently",
            [&](TarWriter& t) { t.File(name, blob).File("./" + name, "other"); }, "twice"},
           {"index.json twice", [&](TarWriter& t) { t.File("index.json", "{}"); }, "twice"},
           {"marker twice", [&](TarWriter& t) { t.File("oci-layout", "{}"); }, "twice"},
           {"no digest", [&](TarWriter& t) { t.File("blobs/sha256/abc", blob); }, "no digest"},
           {"blob without algorithm", [&](TarWriter& t) { t.File("blobs/x", blob); }, "no digest"},
           {"a level too deep", [&](TarWriter& t) { t.File(name + "/x", blob); }, "no digest"},
           {"directory among blobs", [&](TarWriter& t) { t.Directory(name + "/"); }, "a directory"},
           {"blobs is a file", [&](TarWriter& t) { t.File("blobs", blob); }, "not a directory"},
           {"sparse blob",
            [&](TarWriter& t) { t.OldSparse(name, {{1 << 20, 10}}, (1 << 20) + 10, blob); },
            "a sparse file"},
           {"all hole", [&](TarWriter& t) { t.OldSparse(name, {}, uint64_t{1} << 30, ""); },
            "a sparse file"},
       }) {
    TarWriter tar;
    AddTo(tar, layout);
    c.add(tar);
    const auto opened = LayoutReader::Open(directory.Write("l.tar", tar.End().bytes()));
    EXPECT_THAT(opened, FailsWith(ErrorCode::kCorrupt)) << c.what;
    if (opened) continue;
    EXPECT_THAT(opened.error().message, HasSubstr(c.told)) << c.what;
  }
}

TEST(LayoutReaderTest, WhatIsBesideTheLayoutIsPassedOver) {
  const testing::TempDir directory;
  const LayoutFiles layout = OneImage();
  TarWriter tar;
  AddTo(tar, layout);
  // An algorithm that nobody asks for, and files of other tools.
  tar.Directory("blobs/sha384/").File("blobs/sha384/" + std::string(96, 'a'), "x");
  tar.File("blobs/sha256/" + std::string(64, 'b'), "unverified, and unasked");
  tar.File("README", "hello").Directory("docs/").File("docs/x", "y");
  Must(LayoutReader::Open(directory.Write("l.tar", tar.End().bytes())));
}

TEST(LayoutReaderTest, OtherFormatsAreCalledByTheirNames) {
  const testing::TempDir directory;
  // As Docker 20.10 wrote it, with the link that stands for a layer that is there already.
  TarWriter docker;
  docker.Directory("0123/").File("0123/VERSION", "1.0").File("0123/layer.tar", "x");
  docker.Symlink("4567/layer.tar", "../0123/layer.tar");
  docker.File("manifest.json", "[]").File("repositories", "{}");
  const auto old = LayoutReader::Open(directory.Write("docker.tar", docker.End().bytes()));
  ASSERT_THAT(old, FailsWith(ErrorCode::kUnsupported));
  EXPECT_THAT(old.error().message, HasSubstr("before Docker 25"));
  EXPECT_THAT(LayoutReader::Open(directory.Write("t.tar", OneFile("f", "x"))),
              FailsWith(ErrorCode::kUnsupported));
  const auto gzip = LayoutReader::Open(directory.Write("t.tar.gz", "\x1f\x8b" + Noise(2000, 1)));
  ASSERT_THAT(gzip, FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(gzip.error().message, HasSubstr("uncompressed first"));
  EXPECT_THAT(LayoutReader::Open(directory.Write("empty", "")), FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(LayoutReader::Open(directory / "nothing"), FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(LayoutReader::Open("/dev/null"), FailsWith(ErrorCode::kInvalid));
  fs::create_directory(directory / "dir");
  EXPECT_THAT(LayoutReader::Open(directory / "dir"), FailsWith(ErrorCode::kUnsupported));
  directory.Write("dir/manifest.json", "[]");
  const auto unpacked = LayoutReader::Open(directory / "dir");
  ASSERT_THAT(unpacked, FailsWith(ErrorCode::kUnsupported));
  EXPECT_THAT(unpacked.error().message, HasSubstr("before Docker 25"));
}

TEST(LayoutReaderTest, ADirectoryLeadsNowhereElse) {
  const testing::TempDir directory;
  const LayoutFiles layout = OneImage();
  layout.WriteTo(directory, "l");
  const std::string secret = "a secret";
  const std::string name = directory / ("l/" + LayoutFiles::BlobName(DigestOf(secret)));
  fs::create_symlink(directory.Write("elsewhere", secret), name);
  const auto opened = Must(LayoutReader::Open(directory / "l"));
  EXPECT_THAT(opened->SizeOf(DigestOf(secret)), FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(opened->OpenBlob(DigestOf(secret)), FailsWith(ErrorCode::kCorrupt));
  EXPECT_EQ(Must(opened->SizeOf(DigestOf("absent"))), std::nullopt);
  EXPECT_THAT(opened->OpenBlob(DigestOf("absent")), FailsWith(ErrorCode::kCorrupt));

  // Nor by its directories; but the name that the user gave may be a link.
  fs::rename(directory / "l/blobs", directory / "moved");
  fs::create_directory_symlink(directory / "moved", directory / "l/blobs");
  fs::create_directory_symlink(directory / "l", directory / "link");
  const auto linked = Must(LayoutReader::Open(directory / "link"));
  EXPECT_EQ(Must(linked->SizeOf(linked->index().manifests[0].digest)), std::nullopt);
  fs::remove(directory / "l/index.json");
  fs::create_symlink(directory.Write("index", "{}"), directory / "l/index.json");
  EXPECT_THAT(LayoutReader::Open(directory / "l"), FailsWith(ErrorCode::kCorrupt));
}

TEST(LayoutReaderTest, BlobsOfATarAreReadWhereTheyLie) {
  const testing::TempDir directory;
  LayoutFiles layout = OneImage();
  const std::string large = Noise(3'000'000, 9);
  layout.Blob("x", large);
  layout.Blob("x", "");
  const auto opened = Must(LayoutReader::Open(directory.Write("l.tar", layout.AsTar())));
  for (const std::string& bytes : {large, std::string()}) {
    EXPECT_EQ(Must(opened->SizeOf(DigestOf(bytes))), bytes.size());
    EXPECT_EQ(Must(ReadAll(*Must(opened->OpenBlob(DigestOf(bytes))), 4'000'000)), bytes);
  }
}

}  // namespace
}  // namespace ocifs::store
