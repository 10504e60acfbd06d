#include <fcntl.h>
#include <unistd.h>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class ReadTest : public Mounted {};

TEST_F(ReadTest, ReadsAFileOfAPackage) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  EXPECT_EQ(Read("reg.example/app/web/1.0/dir/inner"), "inside\n");
  EXPECT_EQ(Read("reg.example/app/web/1.0/link"), "inside\n");
}

TEST_F(ReadTest, SecondReadAsksNobody) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  const size_t requests = source().total();
  const uint64_t messages = session().counts().of(Operation::kRead);
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  EXPECT_EQ(source().total(), requests) << "the registry was asked";
  EXPECT_EQ(session().counts().of(Operation::kRead), messages)
      << "the kernel did not keep the page";
}

TEST_F(ReadTest, OpensAreNotEvenAsked) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  EXPECT_LE(session().counts().of(Operation::kOpen), 1u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(List("reg.example/app/web/1.0/dir").size(), 1u);
  EXPECT_LE(session().counts().of(Operation::kOpenDirectory), 1u);
}

TEST_F(ReadTest, EveryOffsetAndSizeOfALargeFile) {
  const std::string content = Noise(9 * 1024 * 1024 + 123);  // three chunks, an odd end
  TarWriter tar;
  tar.File("big", content).End();
  source().AddImage("reg.example/app/big:1.0", {tar.bytes()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/big/1.0/big"), content);

  const int fd = open(At("reg.example/app/big/1.0/big").c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  const int cached = open(At("reg.example/app/big/1.0/big").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(cached, 0);
  for (const size_t offset :
       {size_t{0}, size_t{1}, size_t{4095}, size_t{4 << 20}, (size_t{4} << 20) - 1,
        (size_t{8} << 20) - 7, content.size() - 5, content.size(), content.size() + 10}) {
    for (const size_t size : {size_t{1}, size_t{5}, size_t{4096}, size_t{1} << 20}) {
      const std::string expected =
          offset < content.size() ? content.substr(offset, size) : std::string();
      for (const int file : {fd, cached}) {
        if (file < 0) continue;
        std::string buffer(size, '\0');
        const ssize_t count = pread(file, buffer.data(), size, static_cast<off_t>(offset));
        if (file == fd && count < 0 && errno == EINVAL) continue;  // direct reads want alignment
        ASSERT_EQ(count, static_cast<ssize_t>(expected.size())) << offset << " " << size;
        buffer.resize(static_cast<size_t>(count));
        ASSERT_EQ(buffer, expected) << offset << " " << size;
      }
    }
  }
  if (fd >= 0) close(fd);
  close(cached);
}

TEST_F(ReadTest, SequentialReadsComeInLargeRequests) {
  const std::string content = Noise(8 << 20);
  TarWriter tar;
  tar.File("big", content).End();
  source().AddImage("reg.example/app/big:1.0", {tar.bytes()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/big/1.0/big"), content);
  EXPECT_LE(session().counts().of(Operation::kRead), 32u);  // 256 KiB and more on average
}

TEST_F(ReadTest, ReadsSparseFilesAndEmptyOnes) {
  TarWriter tar;
  tar.File("empty", "");
  tar.OldSparse("sparse", {{1 << 20, 3}}, 2 << 20, "abc").End();
  source().AddImage("reg.example/app/sparse:1.0", {tar.bytes()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/sparse/1.0/empty"), "");
  std::string expected(2 << 20, '\0');
  expected.replace(1 << 20, 3, "abc");
  EXPECT_EQ(Read("reg.example/app/sparse/1.0/sparse"), expected);
}

TEST_F(ReadTest, RawBlobsAreReadAsTheyWerePulled) {
  const std::string tar = SmallTar();
  source().AddImage("reg.example/app/web:1.0", {tar});
  Mount();
  const std::string digest = store::Digest::Of(std::as_bytes(std::span(tar))).ToString();
  EXPECT_EQ(Read("reg.example/app/web/1.0/.oci/blobs/" + digest), tar);
}

TEST_F(ReadTest, NothingCanBeWritten) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  const std::string file = At("reg.example/app/web/1.0/greeting");
  EXPECT_EQ(open(file.c_str(), O_WRONLY | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(unlink(file.c_str()), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(mkdir(At("reg.example/app/web/1.0/new").c_str(), 0755), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(chmod(file.c_str(), 0600), -1);
  EXPECT_EQ(errno, EROFS);
}

}  // namespace
}  // namespace ocifs::fs::testing
