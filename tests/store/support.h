// What the tests of the store share.
#ifndef OCIFS_TESTS_STORE_SUPPORT_H_
#define OCIFS_TESTS_STORE_SUPPORT_H_

#include <gmock/gmock.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/reference.h"
#include "store/text.h"

namespace ocifs::store {

MATCHER(IsOk, "is a value") {
  if (!arg) *result_listener << ErrorCodeName(arg.error().code) << ": " << arg.error().message;
  return arg.has_value();
}

MATCHER_P(FailsWith, code, "fails with " + std::string(ErrorCodeName(code))) {
  if (arg) {
    *result_listener << "is a value";
    return false;
  }
  *result_listener << ErrorCodeName(arg.error().code) << ": " << arg.error().message;
  return arg.error().code == code;
}

// The value of a call that is not what the test is about.
template <typename T>
T Must(Result<T> result) {
  if (!result) {
    std::cerr << "unexpected " << ErrorCodeName(result.error().code) << ": "
              << result.error().message << '\n';
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

inline Digest DigestOf(std::string_view text,
                       DigestAlgorithm algorithm = DigestAlgorithm::kSha256) {
  return Digest::Of(AsBytes(text), algorithm);
}

inline ChunkDigest ChunkDigestOf(std::string_view text) {
  Hasher hasher;
  hasher.Update(AsBytes(text));
  return hasher.FinishChunk();
}

inline Reference RefOf(std::string_view text) { return Must(Reference::Parse(text)); }
inline Repository RepositoryOf(std::string_view text) { return RefOf(text).repository(); }
inline Registry RegistryOf(std::string_view text) { return Must(Registry::Parse(text)); }

inline std::vector<std::byte> BytesOf(std::string_view text) {
  const auto bytes = AsBytes(text);
  return {bytes.begin(), bytes.end()};
}

inline std::string TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// Bytes without a pattern, the same for the same seed.
inline std::string Noise(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
  for (char& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<char>(state >> 32);
  }
  return bytes;
}

}  // namespace ocifs::store

#endif  // OCIFS_TESTS_STORE_SUPPORT_H_
