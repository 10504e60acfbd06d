// Content digests: "algorithm:hex" (OCI image-spec 1.1, descriptor.md, "Digests").
#ifndef OCIFS_STORE_DIGEST_H_
#define OCIFS_STORE_DIGEST_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "store/error.h"

struct evp_md_ctx_st;  // EVP_MD_CTX of OpenSSL

namespace ocifs::store {

enum class DigestAlgorithm : uint8_t { kSha256 = 1, kSha512 = 2 };

std::string_view DigestAlgorithmName(DigestAlgorithm algorithm);
// Length of a value: 32 or 64.
size_t DigestAlgorithmBytes(DigestAlgorithm algorithm);

// An algorithm and its value. Made only by Parse, FromBytes or a Hasher, so it is always well
// formed and safe inside a path or a URL.
class Digest {
 public:
  // Accepts exactly "sha256:" + 64 or "sha512:" + 128 lower-case hex digits; kUnsupported for
  // another well-formed algorithm, kInvalid for everything else.
  static Result<Digest> Parse(std::string_view text);
  // `bytes` must have the algorithm's length.
  static Digest FromBytes(DigestAlgorithm algorithm, std::span<const std::byte> bytes);
  // Digest of `content`.
  static Digest Of(std::span<const std::byte> content,
                   DigestAlgorithm algorithm = DigestAlgorithm::kSha256);

  DigestAlgorithm algorithm() const { return algorithm_; }
  std::span<const std::byte> bytes() const { return {bytes_.data(), size_}; }
  std::string hex() const;
  std::string ToString() const;  // "sha256:…"

  friend bool operator==(const Digest&, const Digest&) = default;
  friend auto operator<=>(const Digest&, const Digest&) = default;

 private:
  Digest() = default;

  DigestAlgorithm algorithm_ = DigestAlgorithm::kSha256;
  uint8_t size_ = 32;
  std::array<std::byte, 64> bytes_{};  // unused tail stays zero, so == is plain
};

struct DigestHash {
  size_t operator()(const Digest& digest) const;
};

// SHA-256 of a chunk's plain bytes: the key of the content store.
struct ChunkDigest {
  std::array<std::byte, 32> bytes{};

  friend bool operator==(const ChunkDigest&, const ChunkDigest&) = default;
  friend auto operator<=>(const ChunkDigest&, const ChunkDigest&) = default;
};

struct ChunkDigestHash {
  size_t operator()(const ChunkDigest& digest) const;
};

// Incremental hash. Owned by one thread. Reusable: Finish resets it.
class Hasher {
 public:
  explicit Hasher(DigestAlgorithm algorithm = DigestAlgorithm::kSha256);
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void Update(std::span<const std::byte> bytes);
  Digest Finish();
  // Finish for SHA-256 without the detour over Digest.
  ChunkDigest FinishChunk();

 private:
  struct Deleter {
    void operator()(evp_md_ctx_st* context) const;
  };
  void Reset();

  DigestAlgorithm algorithm_;
  std::unique_ptr<evp_md_ctx_st, Deleter> context_;
};

// CRC-32C (Castagnoli), for records of our own where damage, not malice, is the enemy.
uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_DIGEST_H_
