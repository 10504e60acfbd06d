#include "store/digest.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using namespace std::string_literals;

constexpr std::string_view kAbc256 =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr std::string_view kAbc512 =
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

TEST(Digest, KnownValues) {
  EXPECT_EQ(DigestOf("").ToString(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(DigestOf("abc").hex(), kAbc256);
  EXPECT_EQ(DigestOf("abc", DigestAlgorithm::kSha512).ToString(), "sha512:" + std::string(kAbc512));
}

TEST(Digest, ParseRoundTrips) {
  for (const std::string& text :
       {"sha256:" + std::string(kAbc256), "sha512:" + std::string(kAbc512)}) {
    const Result<Digest> digest = Digest::Parse(text);
    ASSERT_THAT(digest, IsOk());
    EXPECT_EQ(digest->ToString(), text);
  }
  EXPECT_EQ(Must(Digest::Parse("sha256:" + std::string(kAbc256))), DigestOf("abc"));
  EXPECT_NE(DigestOf("abc"), DigestOf("abc", DigestAlgorithm::kSha512));
}

TEST(Digest, ParseRefuses) {
  const std::string hex(kAbc256);
  std::string upper = hex;
  upper[0] = 'B';
  struct Case {
    std::string_view name;
    std::string text;
    ErrorCode code = ErrorCode::kInvalid;
  };
  const Case cases[] = {
      {"empty", ""},
      {"no colon", "sha256"},
      {"no algorithm", ":" + hex},
      {"no hex", "sha256:"},
      {"path instead of hex", "sha256:../../x"},
      {"path of the right length", "sha256:" + std::string(61, '.') + "/.."},
      {"upper case hex", "sha256:" + upper},
      {"upper case algorithm", "SHA256:" + hex},
      {"63 digits", "sha256:" + hex.substr(1)},
      {"65 digits", "sha256:" + hex + "0"},
      {"66 digits", "sha256:" + hex + "00"},
      {"sha512 with 64 digits", "sha512:" + hex},
      {"sha256 with 128 digits", "sha256:" + hex + hex},
      {"NUL in hex", "sha256:" + hex.substr(0, 63) + "\0"s},
      {"NUL behind", "sha256:" + hex + "\0"s},
      {"newline behind", "sha256:" + hex + "\n"},
      {"space in front", " sha256:" + hex},
      {"two colons", "sha256::" + hex},
      {"empty component", "sha256+:" + hex},
      {"separator first", "+sha256:" + hex},
      {"two separators", "a+-b:" + hex},
      {"slash in the algorithm", "../sha256:" + hex},
      {"10 kB", "sha256:" + std::string(10'000, 'a')},
      {"10 kB of algorithm", std::string(10'000, 'a') + ":" + hex},
      {"md5", "md5:d41d8cd98f00b204e9800998ecf8427e", ErrorCode::kUnsupported},
      {"blake3", "blake3:" + hex, ErrorCode::kUnsupported},
      {"combined algorithm", "sha256+b64u:" + hex, ErrorCode::kUnsupported},
  };
  for (const Case& c : cases) EXPECT_THAT(Digest::Parse(c.text), FailsWith(c.code)) << c.name;
}

TEST(Hasher, IsGoodForMoreThanOneUse) {
  Hasher hasher;
  for (int i = 0; i < 3; ++i) {
    hasher.Update(AsBytes("a"));
    hasher.Update({});
    hasher.Update(AsBytes("bc"));
    EXPECT_EQ(hasher.Finish().hex(), kAbc256);
  }
  hasher.Update(AsBytes("abc"));
  EXPECT_EQ(ToHex(hasher.FinishChunk().bytes), kAbc256);
  Hasher moved = std::move(hasher);
  moved.Update(AsBytes("abc"));
  EXPECT_EQ(moved.Finish().hex(), kAbc256);
}

// RFC 3720, B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, KnownVectors) {
  std::string up;
  std::string down;
  for (int i = 0; i < 32; ++i) {
    up.push_back(static_cast<char>(i));
    down.push_back(static_cast<char>(31 - i));
  }
  EXPECT_EQ(Crc32c(AsBytes("123456789")), 0xE3069283U);
  EXPECT_EQ(Crc32c(AsBytes(std::string(32, '\0'))), 0x8A9136AAU);
  EXPECT_EQ(Crc32c(AsBytes(std::string(32, '\xFF'))), 0x62A8AB43U);
  EXPECT_EQ(Crc32c(AsBytes(up)), 0x46DD794EU);
  EXPECT_EQ(Crc32c(AsBytes(down)), 0x113FDB5CU);
  EXPECT_EQ(Crc32c({}), 0U);
}

TEST(Crc32c, ContinuesFromAnEarlierValue) {
  const std::string bytes = Noise(1000, 3);
  const uint32_t whole = Crc32c(AsBytes(bytes));
  for (const size_t cut : {0U, 1U, 7U, 8U, 63U, 999U, 1000U}) {
    const std::string_view view(bytes);
    EXPECT_EQ(Crc32c(AsBytes(view.substr(cut)), Crc32c(AsBytes(view.substr(0, cut)))), whole)
        << cut;
  }
}

}  // namespace
}  // namespace ocifs::store
