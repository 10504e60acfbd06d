#include "store/ingest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/tree.h"
#include "tests/harness/byte_streams.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/gzip.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using harness::StreamOf;
using harness::TarWriter;

std::string Zstd(std::string_view plain) {
  std::string out(ZSTD_compressBound(plain.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 3));
  return out;
}

struct SeenFile {
  std::string path;
  std::string content;
  std::string chunks;  // "4194304 hole:4194304 5"
};

// Layers taken into one pack, as a pull does, without a tree or an index record.
class Ingests : public ::testing::Test {
 protected:
  Ingests() {
    std::filesystem::create_directories(directory_ / "index");
    std::filesystem::create_directories(directory_ / "packs");
    index_ = Must(Index::Open(directory_ / "index"));
    packs_ = std::make_unique<PackSet>(
        UniqueFd(open((directory_ / "packs").c_str(), O_RDONLY | O_DIRECTORY)), *index_);
    writer_ = std::make_unique<ChunkWriter>(Must(packs_->Acquire()), *index_, unkept_);
    pack_ = writer_->pack()->pack();
  }

  static Descriptor Describe(std::string_view blob, std::string_view title = "") {
    Descriptor descriptor{.media_type = "application/octet-stream",
                          .digest = DigestOf(blob),
                          .size = blob.size(),
                          .artifact_type = {},
                          .annotations = {},
                          .platform = std::nullopt,
                          .os_features = {},
                          .data = std::nullopt};
    if (!title.empty())
      descriptor.annotations.emplace_back("org.opencontainers.image.title", title);
    return descriptor;
  }
  enum class Kind { kImage, kArtifact };
  // `served` comes from the registry for that descriptor.
  Result<IngestedLayer> IngestAs(Kind kind, const Descriptor& descriptor, std::string served,
                                 size_t piece = 60'000) {
    auto verified = VerifyBlob(StreamOf(std::move(served), piece), descriptor, nullptr, nullptr);
    return writer_->Ingest(std::move(verified), descriptor, 5, kind == Kind::kImage, limits_);
  }
  Result<IngestedLayer> Ingest(Kind kind, const std::string& blob, std::string_view title = "",
                               size_t piece = 60'000) {
    return IngestAs(kind, Describe(blob, title), blob, piece);
  }

  std::vector<SeenFile> Files(const IngestedLayer& ingested) {
    Must(writer_->Flush());
    std::vector<SeenFile> files;
    for (size_t i = 0; i < ingested.layer.size(); ++i) {
      const Layer::Entry entry = ingested.layer.At(i);
      SeenFile file{std::string(entry.path), "", ""};
      uint64_t at = 0;
      for (const ChunkRef& chunk : entry.chunks) {
        EXPECT_EQ(chunk.file_offset, at);
        EXPECT_EQ(chunk.layer, 5U);
        at += chunk.length;
        file.chunks += (file.chunks.empty() ? "" : " ") +
                       std::string(chunk.is_hole ? "hole:" : "") + std::to_string(chunk.length);
        std::string bytes(chunk.length, '\0');
        if (!chunk.is_hole) {
          Must(packs_->Read(writer_->added().at(chunk.digest), 0,
                            std::as_writable_bytes(std::span(bytes))));
          EXPECT_EQ(ChunkDigestOf(bytes), chunk.digest);
        }
        file.content += bytes;
      }
      EXPECT_EQ(at, entry.attributes->size);
      files.push_back(std::move(file));
    }
    return files;
  }
  std::string PackText() const {
    return ReadFile(directory_ / ("packs/" + PackSet::FileName(pack_)));
  }

  const testing::TempDir directory_;
  Limits limits_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<PackSet> packs_;
  UnkeptChunks unkept_;
  uint32_t pack_ = 0;
  std::unique_ptr<ChunkWriter> writer_;
};

// --- what a blob is ------------------------------------------------------------------------------

TEST_F(Ingests, ArchivesInEveryWrapping) {
  const std::string tar =
      TarWriter().Directory("d").File("d/a", "alpha").File("b", Noise(9000, 1)).End().bytes();
  const std::string half = tar.substr(0, 700);
  const std::string rest = tar.substr(700);
  const std::vector<std::pair<std::string_view, std::string>> blobs = {
      {"tar", tar},
      {"gzip", Gzip(tar)},
      {"gzip of many members", Gzip(half) + Gzip("") + Gzip(rest)},
      {"gzip of a member for each kilobyte",
       [&] {
         std::string all;
         for (size_t at = 0; at < tar.size(); at += 1000) all += Gzip(tar.substr(at, 1000));
         return all;
       }()},
      {"zstd", Zstd(tar)},
      {"zstd of many frames",
       Zstd(half) + std::string("\x50\x2A\x4D\x18\x04\0\0\0skip", 12) + Zstd(rest)},
  };
  for (const auto& [name, blob] : blobs) {
    for (const Kind kind : {Kind::kImage, Kind::kArtifact}) {
      for (const size_t piece : {size_t{1}, size_t{513}, size_t{1} << 20}) {
        const Result<IngestedLayer> ingested = Ingest(kind, blob, "any.tgz", piece);
        ASSERT_THAT(ingested, IsOk()) << name;
        EXPECT_EQ(ingested->diff_id, DigestOf(tar)) << name;
        const std::vector<SeenFile> files = Files(*ingested);
        ASSERT_EQ(files.size(), 3U) << name;
        EXPECT_EQ(files[1].path, "d/a");
        EXPECT_EQ(files[1].content, "alpha");
        EXPECT_EQ(files[2].content, Noise(9000, 1));
      }
    }
  }
}

TEST_F(Ingests, WhatIsNoArchiveIsAFileOfAnArtifact) {
  struct Case {
    std::string_view name;
    std::string blob;
    std::string title;
    std::string path;
  };
  const std::string text = "just text\n";
  const Case cases[] = {
      {"titled", text, "dir/readme.txt", "dir/readme.txt"},
      {"no title", text, "", "sha256-" + DigestOf(text).hex()},
      {"title that is the root", text, "/./", "sha256-" + DigestOf(text).hex()},
      {"absolute title", text, "/etc/passwd", "etc/passwd"},
      {"empty", "", "empty", "empty"},
      {"gzip that is no tar stays as it is", Gzip(text), "doc.gz", "doc.gz"},
      {"zstd that is no tar stays as it is", Zstd(text), "doc.zst", "doc.zst"},
      {"broken gzip", Gzip(text).substr(0, 15), "doc.gz", "doc.gz"},
      {"gzip magic only", "\x1F\x8B", "x", "x"},
      {"a large gzip that is no tar", Gzip(Noise(3'000'000, 9)), "doc.gz", "doc.gz"},
      {"Wasm", std::string("\0asm\1\0\0\0", 8), "module.wasm", "module.wasm"},
      {"one byte", "x", "x", "x"},
      {"511 bytes", Noise(511, 2), "x", "x"},
      {"a disk image that begins with zeros", std::string(100'000, '\0') + "data", "disk.img",
       "disk.img"},
  };
  for (const Case& c : cases) {
    for (const size_t piece : {size_t{1}, size_t{100'000}}) {
      if (piece == 1 && c.blob.size() > 200'000) continue;
      const Result<IngestedLayer> ingested = Ingest(Kind::kArtifact, c.blob, c.title, piece);
      ASSERT_THAT(ingested, IsOk()) << c.name;
      EXPECT_EQ(ingested->diff_id, std::nullopt) << c.name;
      const std::vector<SeenFile> files = Files(*ingested);
      ASSERT_EQ(files.size(), 1U) << c.name;
      EXPECT_EQ(files[0].path, c.path) << c.name;
      EXPECT_EQ(files[0].content, c.blob) << c.name;
    }
    if (c.blob.empty()) continue;
    EXPECT_THAT(Ingest(Kind::kImage, c.blob), FailsWith(ErrorCode::kCorrupt)) << c.name;
    Must(writer_->RollBackTo(writer_->pack_length()));
  }
}

TEST_F(Ingests, EmptyLayersOfAnImage) {
  for (const std::string& blob :
       {std::string(), std::string(1024, '\0'), Gzip(std::string(10'240, '\0')), Gzip("")}) {
    const Result<IngestedLayer> ingested = Ingest(Kind::kImage, blob);
    ASSERT_THAT(ingested, IsOk()) << blob.size();
    EXPECT_EQ(ingested->layer.size(), 0U);
    EXPECT_TRUE(ingested->diff_id);
  }
}

TEST_F(Ingests, TitlesThatClimbAreRefused) {
  for (const std::string_view title : {"../x", "a/../../x", "..", "/..", "a/.."}) {
    EXPECT_THAT(Ingest(Kind::kArtifact, "text", title), FailsWith(ErrorCode::kCorrupt)) << title;
  }
  EXPECT_THAT(Ingest(Kind::kArtifact, "text", std::string(256, 'x')),
              FailsWith(ErrorCode::kTooLarge));
  EXPECT_THAT(Ingest(Kind::kArtifact, "text", std::string_view("a\0b", 3)),
              FailsWith(ErrorCode::kCorrupt));
}

// --- content -------------------------------------------------------------------------------------

TEST_F(Ingests, FilesAreCutAtMultiplesOfAChunk) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, kChunkBytes - 1, kChunkBytes,
                              kChunkBytes + 1, 2 * kChunkBytes, 2 * kChunkBytes + 1}) {
    const std::string content = Noise(size, static_cast<uint32_t>(size));
    const IngestedLayer ingested =
        Must(Ingest(Kind::kImage, TarWriter().File("f", content).End().bytes(), "", 1 << 20));
    const std::vector<SeenFile> files = Files(ingested);
    ASSERT_EQ(files.size(), 1U);
    EXPECT_EQ(files[0].content, content) << size;
    std::string expected;
    for (uint64_t rest = size; rest > 0;) {
      const uint64_t part = std::min(rest, kChunkBytes);
      expected += (expected.empty() ? "" : " ") + std::to_string(part);
      rest -= part;
    }
    EXPECT_EQ(files[0].chunks, expected) << size;
  }
}

TEST_F(Ingests, RunsOfZerosThatFillAChunkAreHoles) {
  const std::string zeros(kChunkBytes, '\0');
  const std::string data = Noise(kChunkBytes, 1);
  const std::string some(100, '\0');
  const IngestedLayer ingested = Must(Ingest(
      Kind::kImage,
      TarWriter().File("f", zeros + data + zeros + zeros + "tail").File("z", some).End().bytes(),
      "", 1 << 20));
  const std::vector<SeenFile> files = Files(ingested);
  ASSERT_EQ(files.size(), 2U);
  EXPECT_EQ(files[0].chunks, "hole:4194304 4194304 hole:8388608 4");
  EXPECT_EQ(files[0].content, zeros + data + zeros + zeros + "tail");
  EXPECT_EQ(files[1].chunks, "100") << "too small to be worth one";
}

TEST_F(Ingests, SparseFilesKeepTheirHoles) {
  const uint64_t real = 5 * kChunkBytes + 10;
  TarWriter tar;
  tar.OldSparse("s", {{0, 512}, {2 * kChunkBytes, 512}, {real, 0}}, real, Noise(1024, 3)).End();
  const IngestedLayer ingested = Must(Ingest(Kind::kImage, tar.bytes()));
  const std::vector<SeenFile> files = Files(ingested);
  ASSERT_EQ(files.size(), 1U);
  EXPECT_EQ(files[0].chunks, "4194304 hole:4194304 4194304 hole:8388618");
  std::string expected(real, '\0');
  expected.replace(0, 512, Noise(1024, 3).substr(0, 512));
  expected.replace(2 * kChunkBytes, 512, Noise(1024, 3).substr(512));
  EXPECT_EQ(files[0].content, expected);
}

TEST_F(Ingests, AHoleOfATebibyteCostsNothing) {
  limits_.max_unpacked_bytes = uint64_t{1} << 41;
  const uint64_t real = uint64_t{1} << 40;
  const IngestedLayer ingested = Must(Ingest(
      Kind::kImage,
      TarWriter().OldSparse("s", {{real - 512, 512}}, real, std::string(512, 'x')).End().bytes()));
  EXPECT_LT(writer_->pack_length(), 2 * kChunkBytes);
  EXPECT_EQ(ingested.layer.At(0).attributes->size, real);
}

TEST_F(Ingests, EqualContentIsStoredOnce) {
  const std::string content = Noise(100'000, 1);
  const std::string tar = TarWriter().File("a", content).File("b", content).End().bytes();
  Must(Ingest(Kind::kImage, tar));
  Must(Ingest(Kind::kImage, Gzip(tar)));
  EXPECT_EQ(writer_->added().size(), 1U);
  EXPECT_LT(writer_->pack_length(), 101'000U);
}

TEST_F(Ingests, WhatTheIndexKnowsIsNotStoredAgain) {
  const std::string content = Noise(100'000, 1);
  Must(Ingest(Kind::kArtifact, content, "a"));
  IndexBatch batch;
  for (const auto& [digest, location] : writer_->added()) batch.PutChunk(digest, location);
  Must(writer_->Flush());
  Must(index_->Commit(std::move(batch)));
  const uint64_t length = writer_->pack_length();
  ChunkWriter next(writer_->TakePack(), *index_, unkept_);
  Must(next.Ingest(StreamOf(content), Describe(content, "b"), 0, false, limits_));
  EXPECT_TRUE(next.added().empty());
  EXPECT_EQ(next.pack_length(), length);

  // One that compares finds what is damaged, and only that.
  ChunkWriter careful(next.TakePack(), *index_, unkept_, packs_.get());
  Must(careful.Ingest(StreamOf(content), Describe(content, "b"), 0, false, limits_));
  EXPECT_TRUE(careful.added().empty());
  std::string bytes = PackText();
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  directory_.Write("packs/" + PackSet::FileName(pack_), bytes);
  Must(careful.Ingest(StreamOf(content), Describe(content, "b"), 0, false, limits_));
  EXPECT_EQ(careful.added().size(), 1U);
}

// --- what does not fit its descriptor ------------------------------------------------------------

TEST_F(Ingests, WrongBytesAreRefusedAndRolledBack) {
  const std::string good =
      TarWriter().File("secret-name", "wrong content " + Noise(5'000'000, 1)).End().bytes();
  std::string flipped = good;
  flipped.back() = 'x';
  std::string other = good;
  other[600] = static_cast<char>(other[600] ^ 1);
  struct Case {
    std::string_view name;
    std::string promised;
    std::string served;
  };
  const Case cases[] = {
      {"one byte flipped in the content", good, other},
      {"last byte of the padding flipped", good, flipped},
      {"cut in the content", good, good.substr(0, 3'000'000)},
      {"cut after the last entry", good, good.substr(0, good.size() - 1024)},
      {"cut to nothing", good, ""},
      {"zeros behind the end", good, good + std::string(1024, '\0')},
      {"garbage behind the end", good, good + "garbage"},
      {"gzip instead", good, Gzip(good)},
      {"another archive of the same size", good,
       TarWriter().File("secret-name", "wrong content!" + Noise(5'000'000, 2)).End().bytes()},
  };
  Must(Ingest(Kind::kArtifact, "kept before", "kept"));
  const uint64_t mark = writer_->pack_length();
  for (const Case& c : cases) {
    for (const Kind kind : {Kind::kImage, Kind::kArtifact}) {
      EXPECT_THAT(IngestAs(kind, Describe(c.promised, "title"), c.served),
                  FailsWith(ErrorCode::kCorrupt))
          << c.name;
      Must(writer_->RollBackTo(mark));
      Must(writer_->Flush());
      EXPECT_EQ(PackText().find("wrong content"), std::string::npos) << c.name;
      EXPECT_EQ(writer_->added().size(), 1U) << c.name;
    }
  }
  const IngestedLayer after = Must(Ingest(Kind::kArtifact, "right content", "a"));
  EXPECT_EQ(Files(after)[0].content, "right content") << "and the next one is not confused";
}

TEST_F(Ingests, WrongBytesOfAPlainFile) {
  const std::string good = Noise(50'000, 1);
  EXPECT_THAT(IngestAs(Kind::kArtifact, Describe(good, "f"), Noise(50'000, 2)),
              FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(IngestAs(Kind::kArtifact, Describe(good, "f"), good + "x"),
              FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(IngestAs(Kind::kArtifact, Describe(good, "f"), good.substr(1)),
              FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(IngestAs(Kind::kArtifact, Describe("", "f"), "x"), FailsWith(ErrorCode::kCorrupt));
}

TEST_F(Ingests, ErrorsOfTheRegistryKeepTheirCode) {
  const std::string tar = TarWriter().File("a", Noise(100'000, 1)).End().bytes();
  for (const size_t got : {size_t{0}, size_t{100}, size_t{50'000}}) {
    for (const bool archive_only : {false, true}) {
      const Descriptor descriptor = Describe(tar, "x");
      auto stream = harness::StreamThatFails(tar.substr(0, got),
                                             Error{ErrorCode::kTimedOut, "stalled"}, 7000);
      EXPECT_THAT(writer_->Ingest(VerifyBlob(std::move(stream), descriptor, nullptr, nullptr),
                                  descriptor, 0, archive_only, limits_),
                  FailsWith(ErrorCode::kTimedOut))
          << got;
    }
  }
}

TEST_F(Ingests, DamagedArchivesAreNotTakenForFiles) {
  const std::string tar = TarWriter().File("a", "x").Raw(std::string(512, 'g')).bytes();
  EXPECT_THAT(Ingest(Kind::kArtifact, tar, "x.tar"), FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(Ingest(Kind::kImage, tar), FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(Ingest(Kind::kImage, TarWriter().File("../a", "x").End().bytes()),
              FailsWith(ErrorCode::kCorrupt));
}

// --- limits --------------------------------------------------------------------------------------

TEST_F(Ingests, LimitsHold) {
  limits_.max_blob_bytes = 1000;
  EXPECT_THAT(Ingest(Kind::kArtifact, Noise(1001, 1), "x"), FailsWith(ErrorCode::kTooLarge));
  limits_ = Limits();
  limits_.max_unpacked_bytes = 200'000;
  EXPECT_THAT(
      Ingest(Kind::kImage,
             TarWriter().File("a", Noise(100'000, 1)).File("b", Noise(100'001, 2)).End().bytes()),
      FailsWith(ErrorCode::kTooLarge));
  limits_ = Limits();
  limits_.max_entries = 2;
  EXPECT_THAT(
      Ingest(Kind::kImage, TarWriter().File("a", "").File("b", "").File("c", "").End().bytes()),
      FailsWith(ErrorCode::kTooLarge));
}

TEST_F(Ingests, ABombIsStopped) {
  const std::string bomb =
      Zstd(TarWriter().File("zeros", std::string(80'000'000, '\0')).End().bytes());
  ASSERT_LT(bomb.size(), 4'000'000U) << "counts as 4 MiB";
  EXPECT_THAT(Ingest(Kind::kImage, bomb), IsOk());
  limits_.max_expansion = 10;
  EXPECT_THAT(Ingest(Kind::kImage, bomb), FailsWith(ErrorCode::kTooLarge));
}

// Skippable frames and empty members hold nothing, for gigabytes if somebody wants.
TEST_F(Ingests, ABlobThatNeverComesToThePointIsNotKeptInMemory) {
  std::string skip("\x50\x2A\x4D\x18", 4);
  const uint32_t length = 40 << 20;
  skip.append(reinterpret_cast<const char*>(&length), sizeof length).append(length, 's');
  const Result<IngestedLayer> ingested = Ingest(Kind::kArtifact, skip + Zstd("x"), "x", 1 << 20);
  ASSERT_THAT(ingested, IsOk());
  EXPECT_EQ(ingested->diff_id, std::nullopt) << "a file, and not one byte of it lost";
  EXPECT_EQ(ingested->layer.At(0).attributes->size, skip.size() + Zstd("x").size());
}

// --- the verifier alone --------------------------------------------------------------------------

TEST(VerifyBlob, PassesTheBytesOnAndThenTheEndForEver) {
  uint64_t moved = 0;
  Descriptor descriptor{.media_type = {},
                        .digest = DigestOf("content", DigestAlgorithm::kSha512),
                        .size = 7,
                        .artifact_type = {},
                        .annotations = {},
                        .platform = std::nullopt,
                        .os_features = {},
                        .data = std::nullopt};
  const auto stream = VerifyBlob(StreamOf("content", 3), descriptor, nullptr,
                                 [&](uint64_t bytes) { moved += bytes; });
  EXPECT_EQ(Must(harness::ReadAll(*stream)), "content");
  EXPECT_EQ(moved, 7U);
  EXPECT_TRUE(Must(stream->Next()).empty());
}

TEST(ReadAll, IsBounded) {
  EXPECT_EQ(Must(ReadAll(*StreamOf("12345", 2), 5)), "12345");
  EXPECT_THAT(ReadAll(*StreamOf("123456", 4), 5), FailsWith(ErrorCode::kTooLarge));
}

}  // namespace
}  // namespace ocifs::store
