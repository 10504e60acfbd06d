#include "store/decompress.h"

#include <gtest/gtest.h>
#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/harness/byte_streams.h"

namespace ocifs::store {
namespace {

using harness::ReadAll;
using harness::StreamOf;
using harness::StreamThatFails;

constexpr uint64_t kNoLimit = uint64_t{1} << 40;

std::string SomeText(size_t size) {
  std::minstd_rand random(7);
  std::string text;
  while (text.size() < size) text += "line " + std::to_string(random() % 5000) + "\n";
  text.resize(size);
  return text;
}

std::string Noise(size_t size) {
  std::minstd_rand random(11);
  std::string noise(size, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  return noise;
}

// Raw deflate of `plain`.
std::string Deflate(std::string plain) {
  std::string out(plain.size() * 2 + 1024, '\0');
  isal_zstream stream;
  isal_deflate_stateless_init(&stream);
  stream.next_in = reinterpret_cast<uint8_t*>(plain.data());
  stream.avail_in = static_cast<uint32_t>(plain.size());
  stream.next_out = reinterpret_cast<uint8_t*>(out.data());
  stream.avail_out = static_cast<uint32_t>(out.size());
  stream.end_of_stream = 1;
  stream.flush = NO_FLUSH;
  EXPECT_EQ(isal_deflate_stateless(&stream), COMP_OK);
  out.resize(stream.total_out);
  return out;
}

std::string LittleEndian32(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i, value >>= 8) bytes.push_back(static_cast<char>(value & 0xFF));
  return bytes;
}

// Bit by bit as RFC 1952 defines it, independent of the library that is tested.
uint32_t PlainCrc32(const std::string& bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (0xEDB88320 & -(crc & 1));
  }
  return ~crc;
}

const std::string kPlainHeader("\x1F\x8B\x08\0\0\0\0\0\0\xFF", 10);

std::string Gzip(const std::string& plain, const std::string& header = kPlainHeader) {
  return header + Deflate(plain) + LittleEndian32(PlainCrc32(plain)) +
         LittleEndian32(static_cast<uint32_t>(plain.size()));
}

// A header with every optional part.
std::string FullHeader() {
  std::string header("\x1F\x8B\x08\x1E\1\2\3\4\0\x03", 10);
  header += std::string("\x06\0", 2) + std::string("ab\2\0xy", 6);
  header += std::string("a name.tar\0", 11);
  header += std::string("a comment\0", 10);
  const uint32_t crc = PlainCrc32(header);
  header.push_back(static_cast<char>(crc & 0xFF));
  header.push_back(static_cast<char>(crc >> 8 & 0xFF));
  return header;
}

std::string Zstd(const std::string& plain, bool checksum = true) {
  ZSTD_CCtx* encoder = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(encoder, ZSTD_c_checksumFlag, checksum ? 1 : 0);
  std::string out(ZSTD_compressBound(plain.size()), '\0');
  out.resize(ZSTD_compress2(encoder, out.data(), out.size(), plain.data(), plain.size()));
  ZSTD_freeCCtx(encoder);
  return out;
}

std::string Skippable(const std::string& content, unsigned variant = 0) {
  return LittleEndian32(0x184D2A50 + variant) +
         LittleEndian32(static_cast<uint32_t>(content.size())) + content;
}

Result<std::string> Unpack(std::string blob, size_t piece_bytes = 4096, uint64_t limit = kNoLimit) {
  OCIFS_ASSIGN_OR_RETURN(const PlainStream plain,
                         Decompress(StreamOf(std::move(blob), piece_bytes), limit));
  return ReadAll(*plain.stream);
}

void ExpectPlain(const std::string& blob, const std::string& plain) {
  for (const size_t piece_bytes : {size_t{1}, size_t{3}, size_t{509}, size_t{1} << 30}) {
    if (blob.size() / piece_bytes > 100'000) continue;  // slow, and says nothing new
    const Result<std::string> unpacked = Unpack(blob, piece_bytes);
    ASSERT_TRUE(unpacked) << unpacked.error().message << ", pieces of " << piece_bytes;
    ASSERT_TRUE(*unpacked == plain) << "pieces of " << piece_bytes;
  }
}

void ExpectRefused(const std::string& blob, ErrorCode code = ErrorCode::kCorrupt) {
  for (const size_t piece_bytes : {size_t{1}, size_t{7}, size_t{1} << 30}) {
    const Result<std::string> unpacked = Unpack(blob, piece_bytes);
    ASSERT_FALSE(unpacked) << "pieces of " << piece_bytes;
    EXPECT_EQ(unpacked.error().code, code) << unpacked.error().message;
  }
}

Compression CompressionOf(const std::string& blob) {
  Result<PlainStream> plain = Decompress(StreamOf(blob, 1), kNoLimit);
  EXPECT_TRUE(plain);
  return plain->compression;
}

TEST(DecompressTest, AnythingElseComesUnchanged) {
  for (const std::string& blob :
       {std::string("x"), std::string("{}"), std::string("\x1F\x8B"), std::string("\x1F\x8B\0", 3),
        std::string("BZh9 is a fine name"), std::string("\xFD\x37zXY"), SomeText(3'000'000)}) {
    ExpectPlain(blob, blob);
    EXPECT_EQ(CompressionOf(blob), Compression::kNone);
  }
}

TEST(DecompressTest, AnEmptyBlobIsAnEmptyPlainStream) {
  ExpectPlain("", "");
  EXPECT_EQ(CompressionOf(""), Compression::kNone);
}

TEST(DecompressTest, Bzip2AndXzAreUnsupported) {
  ExpectRefused("BZh91AY&SY and so on", ErrorCode::kUnsupported);
  ExpectRefused("BZh1\x17\x72\x45\x38\x50\x90....", ErrorCode::kUnsupported);
  ExpectRefused(std::string("\xFD\x37\x7A\x58\x5A\0....", 10), ErrorCode::kUnsupported);
}

TEST(DecompressTest, AnErrorOfTheBlobIsPassedOn) {
  const Error error{ErrorCode::kTimedOut, "reading: too slow"};
  for (const std::string& begin :
       {std::string(), std::string("abc"), Gzip(SomeText(99)).substr(0, 50),
        Zstd(SomeText(9999)).substr(0, 50)}) {
    Result<PlainStream> plain = Decompress(StreamThatFails(begin, error, 1), kNoLimit);
    const Result<std::string> all =
        plain ? ReadAll(*plain->stream) : Result<std::string>(Fail(plain.error()));
    ASSERT_FALSE(all);
    EXPECT_EQ(all.error().code, ErrorCode::kTimedOut);
  }
}

TEST(DecompressTest, MoreThanTheLimitIsTooLarge) {
  const std::string plain = SomeText(2'500'000);
  for (const std::string& blob : {plain, Gzip(plain), Zstd(plain)}) {
    const Result<std::string> exact = Unpack(blob, 4096, plain.size());
    ASSERT_TRUE(exact) << exact.error().message;
    const Result<std::string> over = Unpack(blob, 4096, plain.size() - 1);
    ASSERT_FALSE(over);
    EXPECT_EQ(over.error().code, ErrorCode::kTooLarge);
  }
}

TEST(GzipTest, OneMember) {
  for (const size_t size : {0, 1, 100, 65'536, 1 << 20, (1 << 20) + 1}) {
    ExpectPlain(Gzip(SomeText(size)), SomeText(size));
    ExpectPlain(Gzip(Noise(size)), Noise(size));
  }
  EXPECT_EQ(CompressionOf(Gzip("x")), Compression::kGzip);
}

TEST(GzipTest, EveryPartOfTheHeaderInPiecesOfAnySize) {
  ExpectPlain(Gzip(SomeText(1000), FullHeader()), SomeText(1000));
  for (int flags = 0; flags < 32; ++flags) {
    if ((flags & 2) != 0) continue;  // the header CRC is FullHeader's business
    std::string header = kPlainHeader;
    header[3] = static_cast<char>(flags);
    if ((flags & 4) != 0) header += std::string("\0\0", 2);
    if ((flags & 8) != 0) header += std::string("n\0", 2);
    if ((flags & 16) != 0) header += std::string("\0", 1);
    ExpectPlain(Gzip("content", header), "content");
  }
}

TEST(GzipTest, ManyMembersAndZerosAfterTheLast) {
  const std::string blob =
      Gzip("one,") + Gzip("", FullHeader()) + Gzip(SomeText(50'000)) + Gzip("!");
  ExpectPlain(blob, "one," + SomeText(50'000) + "!");
  ExpectPlain(blob + std::string(1, '\0'), "one," + SomeText(50'000) + "!");
  ExpectPlain(blob + std::string(5000, '\0'), "one," + SomeText(50'000) + "!");
}

TEST(GzipTest, AMillionEmptyMembersCostNoDepth) {
  const std::string member = Gzip("");
  std::string blob;
  blob.reserve(member.size() * 1'000'000);
  for (int i = 0; i < 1'000'000; ++i) blob += member;
  const Result<std::string> unpacked = Unpack(std::move(blob), 1 << 20);
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_TRUE(unpacked->empty());
}

TEST(GzipTest, AWrongChecksumIsRefused) {
  std::string blob = Gzip(SomeText(1000));
  for (size_t i = blob.size() - 8; i < blob.size() - 4; ++i) {
    std::string wrong = blob;
    wrong[i] ^= 1;
    ExpectRefused(wrong);
    ExpectRefused(wrong + Gzip("another member"));
  }
}

TEST(GzipTest, AWrongLengthIsRefused) {
  std::string blob = Gzip(SomeText(1000));
  for (size_t i = blob.size() - 4; i < blob.size(); ++i) {
    std::string wrong = blob;
    wrong[i] ^= 1;
    ExpectRefused(wrong);
    ExpectRefused(wrong + Gzip("another member"));
  }
}

TEST(GzipTest, ACutAnywhereIsRefused) {
  const std::string blob = Gzip(SomeText(300), FullHeader());
  for (size_t size = 3; size < blob.size(); ++size) ExpectRefused(blob.substr(0, size));
  const std::string two = Gzip("first") + blob;
  for (size_t size = Gzip("first").size() + 1; size < two.size(); ++size) {
    ExpectRefused(two.substr(0, size));
  }
}

TEST(GzipTest, OtherBytesAfterTheLastMemberAreRefused) {
  const std::string blob = Gzip("content");
  ExpectRefused(blob + "x");
  ExpectRefused(blob + "\x1F\x8C");
  ExpectRefused(blob + std::string("\0\0\0x", 4));
  ExpectRefused(blob + std::string("\0", 1) + Gzip("a member after zeros"));
  ExpectRefused(blob + Zstd("another format"));
}

TEST(GzipTest, DamagedHeadersAreRefused) {
  std::string reserved_flag = Gzip("content");
  reserved_flag[3] = '\x20';
  ExpectRefused(reserved_flag);
  std::string header_crc = Gzip("content", FullHeader());
  header_crc[4] ^= 1;  // the time, which only the header CRC covers
  ExpectRefused(header_crc);
  std::string second_method = Gzip("content");
  second_method[2] = 7;
  ExpectRefused(Gzip("first") + second_method);
}

TEST(GzipTest, FlippedBitsNeverGiveOtherBytes) {
  const std::string plain = SomeText(2000);
  const std::string blob = Gzip(plain);
  for (size_t i = kPlainHeader.size(); i < blob.size(); ++i) {
    std::string wrong = blob;
    wrong[i] = static_cast<char>(wrong[i] ^ (1 << (i % 8)));
    const Result<std::string> unpacked = Unpack(wrong);
    if (unpacked) {
      EXPECT_EQ(*unpacked, plain) << "byte " << i;
    }
  }
}

TEST(ZstdTest, OneFrame) {
  for (const size_t size : {0, 1, 100, 65'536, 1 << 20, (1 << 20) + 1, 3'333'333}) {
    ExpectPlain(Zstd(SomeText(size)), SomeText(size));
    ExpectPlain(Zstd(Noise(size), false), Noise(size));
  }
  EXPECT_EQ(CompressionOf(Zstd("x")), Compression::kZstd);
}

TEST(ZstdTest, ManyFramesAndSkippableOnes) {
  const std::string blob = Skippable("") + Zstd("one,") + Skippable(Noise(70'000), 15) + Zstd("") +
                           Zstd(SomeText(50'000)) + Skippable("table of contents", 14);
  ExpectPlain(blob, "one," + SomeText(50'000));
  EXPECT_EQ(CompressionOf(blob), Compression::kZstd);
}

TEST(ZstdTest, AMillionSkippableFramesCostNoDepth) {
  std::string blob = Zstd("content");
  for (int i = 0; i < 1'000'000; ++i) blob += Skippable("");
  const Result<std::string> unpacked = Unpack(std::move(blob), 1 << 20);
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_EQ(*unpacked, "content");
}

TEST(ZstdTest, ACutAnywhereIsRefused) {
  const std::string blob = Zstd(SomeText(3000)) + Skippable("ignored");
  const size_t boundary = Zstd(SomeText(3000)).size();
  for (size_t size = 4; size < blob.size(); ++size) {
    if (size != boundary) ExpectRefused(blob.substr(0, size));
  }
}

TEST(ZstdTest, OtherBytesAfterTheLastFrameAreRefused) {
  ExpectRefused(Zstd("content") + "x");
  ExpectRefused(Zstd("content") + std::string(4, '\0'));
  ExpectRefused(Zstd("content") + Gzip("another format"));
  ExpectRefused(Zstd("content") + "\x27\xB5\x2F\xFD a frame of zstd 0.7");
}

// libzstd 1.5.4 takes the frame inside for the whole when the outer header comes in two pieces.
TEST(ZstdTest, AFrameInsideAFrameHeaderIsNotRead) {
  const std::string magic("\x28\xB5\x2F\xFD");
  ExpectRefused(magic + Skippable("skipped"));
  ExpectRefused(magic + Zstd("content"));
  // A content size that reads as a frame, with the window of that size.
  ExpectRefused(magic + "\xE0" + Zstd("content"), ErrorCode::kTooLarge);
}

TEST(ZstdTest, AWrongChecksumIsRefused) {
  std::string blob = Zstd(SomeText(1000));
  blob.back() ^= 1;
  ExpectRefused(blob);
}

TEST(ZstdTest, AnEmptyFrameThatClaimsContentIsRefused) {
  // One segment of 163 bytes, says the header; one empty raw block, the last, follows.
  const std::string frame("\x28\xB5\x2F\xFD\x20\xA3\x01\x00\x00", 9);
  ExpectRefused(frame);
}

TEST(ZstdTest, AWindowOver128MiBIsTooLarge) {
  // Magic, a descriptor without single segment, a window byte, an empty last block.
  const auto frame = [](int window_log) {
    return std::string("\x28\xB5\x2F\xFD\0", 5) + static_cast<char>((window_log - 10) << 3) +
           std::string("\1\0\0", 3);
  };
  ExpectPlain(frame(27), "");
  ExpectRefused(frame(28), ErrorCode::kTooLarge);
  ExpectRefused(frame(31), ErrorCode::kTooLarge);
}

TEST(ZstdTest, AFrameThatNeedsADictionaryIsUnsupported) {
  ExpectRefused(std::string("\x28\xB5\x2F\xFD\x21\x07\x00\x01\0\0", 10), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace ocifs::store
