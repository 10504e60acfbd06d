#include "store/blob_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/staged_file.h"
#include "tests/harness/byte_streams.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename());
  return names;
}

UniqueFd OpenPath(const std::string& path) {
  return UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECTORY));
}

// --- staged files --------------------------------------------------------------------------------

TEST(StagedFile, HasNoNameUntilItIsPublished) {
  const testing::TempDir directory;
  const UniqueFd fd = OpenPath(directory.path());
  StagedFile file = Must(StagedFile::Create(fd.get()));
  Must(file.Append(AsBytes("con")));
  Must(file.Append(AsBytes("tent")));
  EXPECT_EQ(file.size(), 7U);
  for (const std::string& name : NamesIn(directory.path())) {
    EXPECT_TRUE(name.starts_with(StagedFile::kLeftoverPrefix)) << name;
  }
  Must(file.Publish("name"));
  EXPECT_EQ(NamesIn(directory.path()), std::vector<std::string>{"name"});
  EXPECT_EQ(ReadFile(directory / "name"), "content");
}

TEST(StagedFile, AbandonedItLeavesNothing) {
  const testing::TempDir directory;
  const UniqueFd fd = OpenPath(directory.path());
  {
    StagedFile file = Must(StagedFile::Create(fd.get()));
    Must(file.Append(AsBytes("content")));
    StagedFile other = Must(StagedFile::Create(fd.get()));
    other = std::move(file);
  }
  EXPECT_TRUE(NamesIn(directory.path()).empty());
}

TEST(StagedFile, PublishingReplacesWhatHadTheName) {
  const testing::TempDir directory;
  directory.Write("file", "damaged by a crash");
  directory.Write("target", "outside");
  ASSERT_EQ(symlink((directory / "target").c_str(), (directory / "link").c_str()), 0);
  const UniqueFd fd = OpenPath(directory.path());
  for (const char* name : {"file", "link"}) {
    StagedFile file = Must(StagedFile::Create(fd.get()));
    Must(file.Append(AsBytes("whole")));
    Must(file.Publish(name));
    EXPECT_EQ(ReadFile(directory / name), "whole");
    EXPECT_FALSE(fs::is_symlink(directory / name));
  }
  EXPECT_EQ(ReadFile(directory / "target"), "outside");
}

TEST(StagedFile, LeftoversGoAndNothingElse) {
  const testing::TempDir directory;
  directory.Write(".staged-0123", "left by a killed process");
  directory.Write("kept", "x");
  const UniqueFd fd = OpenPath(directory.path());
  Must(StagedFile::RemoveLeftovers(fd.get()));
  EXPECT_EQ(NamesIn(directory.path()), std::vector<std::string>{"kept"});
}

// --- blobs ---------------------------------------------------------------------------------------

class Blobs : public ::testing::Test {
 protected:
  Blobs() {
    fs::create_directories(directory_ / "index");
    fs::create_directories(directory_ / "blobs");
    index_ = Must(Index::Open(directory_ / "index"));
    Reopen();
  }
  // As a restart does: nothing is known to be good any more.
  void Reopen() { blobs_ = Must(BlobStore::Open(OpenPath(directory_ / "blobs"), *index_)); }

  Digest Put(std::string_view content, DigestAlgorithm algorithm = DigestAlgorithm::kSha256) {
    const Digest digest = DigestOf(content, algorithm);
    StagedBlob staged = Must(blobs_->Stage(digest, content.size()));
    Must(staged.Append(AsBytes(content.substr(0, content.size() / 2))));
    Must(staged.Append(AsBytes(content.substr(content.size() / 2))));
    IndexBatch batch;
    Must(blobs_->Publish(staged, digest, batch));
    Must(index_->Commit(std::move(batch)));
    return digest;
  }
  // The bytes, or "none".
  std::string Get(const Digest& digest, uint64_t offset, size_t size) {
    std::string out(size, '?');
    const Result<bool> read = blobs_->Read(digest, offset, std::as_writable_bytes(std::span(out)));
    if (!read) return std::string(ErrorCodeName(read.error().code));
    return *read ? out : "none";
  }
  std::string PathOf(const Digest& digest) const {
    return directory_ /
           ("blobs/" + std::string(DigestAlgorithmName(digest.algorithm())) + "/" + digest.hex());
  }
  bool IsKnown(const Digest& digest) { return Must(index_->FindBlob(digest)).has_value(); }

  const testing::TempDir directory_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(Blobs, SmallOnesLieInTheIndexOthersInFiles) {
  const std::string small = Noise(BlobStore::kInlineBytes, 1);
  const std::string large = Noise(BlobStore::kInlineBytes + 1, 2);
  for (const DigestAlgorithm algorithm : {DigestAlgorithm::kSha256, DigestAlgorithm::kSha512}) {
    const Digest a = Put(small, algorithm);
    const Digest b = Put(large, algorithm);
    EXPECT_FALSE(fs::exists(PathOf(a)));
    EXPECT_EQ(ReadFile(PathOf(b)), large);
    EXPECT_EQ(Get(a, 5, 10), small.substr(5, 10));
    EXPECT_EQ(Get(b, 100, 1000), large.substr(100, 1000));
    EXPECT_EQ(Get(b, large.size(), 0), "");
    for (const auto& [digest, content] : {std::pair(a, small), std::pair(b, large)}) {
      const std::unique_ptr<ByteStream> stream = Must(blobs_->OpenStream(digest));
      ASSERT_NE(stream, nullptr);
      EXPECT_EQ(Must(harness::ReadAll(*stream)), content);
      EXPECT_EQ(Must(blobs_->ReadDocument(digest)), content);
    }
  }
  const Digest empty = Put("");
  EXPECT_EQ(Must(blobs_->ReadDocument(empty)), "");
}

TEST_F(Blobs, WhatIsNotThereIsNotThere) {
  const Digest digest = DigestOf("never stored");
  EXPECT_EQ(Get(digest, 0, 1), "none");
  EXPECT_EQ(Must(blobs_->OpenStream(digest)), nullptr);
  EXPECT_EQ(Must(blobs_->ReadDocument(digest)), std::nullopt);
}

TEST_F(Blobs, ReadsBeyondTheEndAreAMistake) {
  const Digest digest = Put("content");
  EXPECT_EQ(Get(digest, 0, 8), "internal");
  EXPECT_EQ(Get(digest, 8, 0), "internal");
  EXPECT_EQ(Get(digest, UINT64_MAX, 2), "internal");
}

TEST_F(Blobs, AStagedBlobThatIsAbandonedLeavesNothing) {
  {
    Must(Must(blobs_->Stage(DigestOf("x"), 1 << 20)).Append(AsBytes("half")));
  }
  EXPECT_TRUE(NamesIn(directory_ / "blobs/sha256").empty());
}

TEST_F(Blobs, DamagedOnesAreDropped) {
  const std::string content = Noise(100'000, 3);
  struct Case {
    std::string_view name;
    std::function<void(const std::string&)> harm;
  };
  const Case cases[] = {
      {"one bit",
       [&](const std::string& path) {
         std::string bad = content;
         bad[50'000] = static_cast<char>(bad[50'000] ^ 1);
         std::ofstream(path, std::ios::binary) << bad;
       }},
      {"cut short", [](const std::string& path) { fs::resize_file(path, 99'999); }},
      {"grown", [](const std::string& path) { fs::resize_file(path, 100'001); }},
      {"a hole of 1 TiB behind it",
       [](const std::string& path) { fs::resize_file(path, uint64_t{1} << 40); }},
      {"empty", [](const std::string& path) { fs::resize_file(path, 0); }},
      {"other content of the same size",
       [](const std::string& path) { std::ofstream(path, std::ios::binary) << Noise(100'000, 4); }},
      {"gone", [](const std::string& path) { fs::remove(path); }},
      {"a link to the same content",
       [&](const std::string& path) {
         fs::rename(path, directory_ / "elsewhere");
         fs::create_symlink(directory_ / "elsewhere", path);
       }},
      {"a FIFO",
       [](const std::string& path) {
         fs::remove(path);
         ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
       }},
      {"a directory",
       [](const std::string& path) {
         fs::remove(path);
         fs::create_directory(path);
       }},
  };
  for (const Case& c : cases) {
    for (const bool as_document : {false, true}) {
      const Digest digest = Put(content);
      c.harm(PathOf(digest));
      Reopen();
      if (as_document) {
        EXPECT_EQ(Must(blobs_->ReadDocument(digest)), std::nullopt) << c.name;
      } else {
        EXPECT_EQ(Get(digest, 10, 10), "none") << c.name;
      }
      EXPECT_FALSE(IsKnown(digest)) << c.name;
      fs::remove_all(PathOf(digest));
      EXPECT_EQ(Get(Put(content), 10, 10), content.substr(10, 10))
          << c.name << ": it can come again";
      Must(blobs_->Drop(digest));
    }
  }
}

TEST_F(Blobs, ABlobThatVanishesAfterItWasVerifiedIsDropped) {
  const std::string content = Noise(100'000, 3);
  const Digest digest = Put(content);
  EXPECT_EQ(Get(digest, 0, 3), content.substr(0, 3));
  fs::resize_file(PathOf(digest), 10);
  EXPECT_EQ(Get(digest, 50'000, 10), "none");
  EXPECT_FALSE(IsKnown(digest));
  Put(content);
  EXPECT_EQ(Get(digest, 0, 3), content.substr(0, 3));
  fs::remove(PathOf(digest));
  EXPECT_EQ(Get(digest, 0, 3), "none");
  EXPECT_FALSE(IsKnown(digest));
}

TEST_F(Blobs, AValidBlobUnderAnotherDigestIsNoticed) {
  const Digest a = Put(Noise(50'000, 1));
  const Digest b = Put(Noise(50'000, 2));
  fs::copy_file(PathOf(a), PathOf(b), fs::copy_options::overwrite_existing);
  Reopen();
  EXPECT_EQ(Get(b, 0, 10), "none");
  EXPECT_NE(Get(a, 0, 10), "none");
}

TEST_F(Blobs, LeftoversGoAndKnownOnesStay) {
  const Digest known = Put(Noise(50'000, 1));
  const Digest unknown = DigestOf("unknown");
  std::ofstream(PathOf(unknown)) << "unknown";
  std::ofstream(directory_ / "blobs/sha256/.staged-1") << "x";
  std::ofstream(directory_ / "blobs/sha256/notes.txt") << "not ours";
  Must(blobs_->RemoveLeftovers());
  EXPECT_TRUE(fs::exists(PathOf(known)));
  EXPECT_FALSE(fs::exists(PathOf(unknown)));
  EXPECT_FALSE(fs::exists(directory_ / "blobs/sha256/.staged-1"));
  EXPECT_TRUE(fs::exists(directory_ / "blobs/sha256/notes.txt"));
}

}  // namespace
}  // namespace ocifs::store
