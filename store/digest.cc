#include "store/digest.h"

#include <isa-l/crc.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "store/text.h"

namespace ocifs::store {
namespace {

// Fetched once: EVP_sha256() would look its implementation up at each use (OpenSSL 3,
// EVP_MD_fetch).
const EVP_MD* Implementation(DigestAlgorithm algorithm) {
  static const EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  static const EVP_MD* const sha512 = EVP_MD_fetch(nullptr, "SHA512", nullptr);
  return algorithm == DigestAlgorithm::kSha256 ? sha256 : sha512;
}

// image-spec: algorithm ::= component (separator component)*, component ::= [a-z0-9]+.
bool IsAlgorithmName(std::string_view name) {
  bool after_separator = true;
  for (const char c : name) {
    const bool separator = c == '+' || c == '.' || c == '_' || c == '-';
    if (separator && after_separator) return false;
    if (!separator && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) return false;
    after_separator = separator;
  }
  return !after_separator;
}

}  // namespace

std::string_view DigestAlgorithmName(DigestAlgorithm algorithm) {
  return algorithm == DigestAlgorithm::kSha256 ? "sha256" : "sha512";
}

size_t DigestAlgorithmBytes(DigestAlgorithm algorithm) {
  return algorithm == DigestAlgorithm::kSha256 ? 32 : 64;
}

Result<Digest> Digest::Parse(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || text.size() > 1024) {
    return Fail(ErrorCode::kInvalid, "not a digest (want sha256:<64 hex digits>)");
  }
  const std::string_view name = text.substr(0, colon);
  DigestAlgorithm algorithm;
  if (name == "sha256") {
    algorithm = DigestAlgorithm::kSha256;
  } else if (name == "sha512") {
    algorithm = DigestAlgorithm::kSha512;
  } else if (IsAlgorithmName(name)) {
    return Fail(ErrorCode::kUnsupported,
                "digest algorithm " + std::string(name) + " is not known; sha256 and sha512 are");
  } else {
    return Fail(ErrorCode::kInvalid, "not a digest (want sha256:<64 hex digits>)");
  }
  const std::optional<std::string> bytes = FromHex(text.substr(colon + 1));
  if (!bytes || bytes->size() != DigestAlgorithmBytes(algorithm)) {
    return Fail(ErrorCode::kInvalid, "digest " + std::string(name) + " needs " +
                                         std::to_string(DigestAlgorithmBytes(algorithm) * 2) +
                                         " lower-case hex digits");
  }
  return FromBytes(algorithm, AsBytes(*bytes));
}

Digest Digest::FromBytes(DigestAlgorithm algorithm, std::span<const std::byte> bytes) {
  Digest digest;
  digest.algorithm_ = algorithm;
  digest.size_ = static_cast<uint8_t>(DigestAlgorithmBytes(algorithm));
  if (bytes.size() != digest.size_) std::abort();  // a bug of the caller, never of the input
  std::copy(bytes.begin(), bytes.end(), digest.bytes_.begin());
  return digest;
}

Digest Digest::Of(std::span<const std::byte> content, DigestAlgorithm algorithm) {
  Hasher hasher(algorithm);
  hasher.Update(content);
  return hasher.Finish();
}

std::string Digest::hex() const { return ToHex(bytes()); }

std::string Digest::ToString() const {
  std::string text(DigestAlgorithmName(algorithm_));
  text.push_back(':');
  text.append(hex());
  return text;
}

size_t DigestHash::operator()(const Digest& digest) const {
  size_t hash;
  std::memcpy(&hash, digest.bytes().data(), sizeof hash);
  return hash;
}

size_t ChunkDigestHash::operator()(const ChunkDigest& digest) const {
  size_t hash;
  std::memcpy(&hash, digest.bytes.data(), sizeof hash);
  return hash;
}

void Hasher::Deleter::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Hasher::Hasher(DigestAlgorithm algorithm) : algorithm_(algorithm), context_(EVP_MD_CTX_new()) {
  if (!context_) std::abort();  // out of memory before any work was begun
  Reset();
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::Reset() { EVP_DigestInit_ex2(context_.get(), Implementation(algorithm_), nullptr); }

void Hasher::Update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
}

Digest Hasher::Finish() {
  std::array<std::byte, 64> value;
  unsigned size = 0;
  EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(value.data()), &size);
  Reset();
  return Digest::FromBytes(algorithm_, {value.data(), size});
}

ChunkDigest Hasher::FinishChunk() {
  if (algorithm_ != DigestAlgorithm::kSha256) std::abort();
  ChunkDigest digest;
  EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.bytes.data()),
                     nullptr);
  Reset();
  return digest;
}

uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t seed) {
  // ISA-L's iSCSI CRC neither inverts its start value nor its result; CRC-32C does both. It takes
  // an int length and a pointer that it does not write through.
  uint32_t crc = ~seed;
  while (!bytes.empty()) {
    const size_t count = std::min<size_t>(bytes.size(), size_t{1} << 30);
    auto* data = const_cast<std::byte*>(bytes.data());
    crc = crc32_iscsi(reinterpret_cast<unsigned char*>(data), static_cast<int>(count), crc);
    bytes = bytes.subspan(count);
  }
  return ~crc;
}

}  // namespace ocifs::store
