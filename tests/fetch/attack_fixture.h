// What the tests of hostile and failing registries share: a reader that goes on after failures, and
// checks after each test that no credential has strayed.
#ifndef OCIFS_TESTS_FETCH_ATTACK_FIXTURE_H_
#define OCIFS_TESTS_FETCH_ATTACK_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/text.h"
#include "tests/fetch/source_fixture.h"
#include "tests/harness/http_server.h"

namespace ocifs::fetch {

inline constexpr size_t kMiB = size_t{1} << 20;

inline std::string Bytes(size_t size) {
  std::string bytes(size, '\0');
  uint32_t state = 1;
  for (char& c : bytes) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return bytes;
}

// What a reader of a blob got.
struct BlobRead {
  std::string bytes = {};
  std::optional<store::Error> failure = {};  // nullopt: it ended as it should

  store::ErrorCode code() const { return failure ? failure->code : store::ErrorCode::kInternal; }
};

// Reads to the end or the failure, and then twice more: after a failure nothing is handed out, and
// an end stays an end.
inline BlobRead ReadToEnd(store::BlobStream& stream, size_t size) {
  BlobRead read;
  while (true) {
    const auto bytes = stream.Next();
    if (!bytes) {
      read.failure = bytes.error();
      break;
    }
    if (bytes->empty()) break;
    read.bytes.append(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    EXPECT_LE(read.bytes.size(), size) << "more than the descriptor promised was handed out";
  }
  for (int i = 0; i < 2; ++i) {
    const auto again = stream.Next();
    EXPECT_EQ(again.has_value(), !read.failure) << "a stream that failed goes on";
    if (again) {
      EXPECT_TRUE(again->empty());
    } else {
      EXPECT_EQ(again.error().code, read.code());
    }
  }
  return read;
}

// `registry_` is the registry, `other_` a server of somebody else's unless a test says otherwise.
class AttackFixture : public SourceFixture {
 protected:
  static constexpr std::string_view kUser = "user";
  static constexpr std::string_view kPassword = "hunter2-of-the-registry";

  static Credential TheLogin() { return Login(std::string(kUser), std::string(kPassword)); }
  // What nobody but the registry may ever see.
  static std::vector<std::string> Secrets() {
    return {std::string(kPassword),
            store::ToBase64(std::string(kUser) + ":" + std::string(kPassword))};
  }

  BlobRead Read(const store::Descriptor& blob) {
    auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
    if (!stream) return {.bytes = {}, .failure = stream.error()};
    return ReadToEnd(**stream, blob.size);
  }
  store::ErrorCode TagsError() {
    const auto page = source_->ListTags(registry_.repository("team/app"), "", context_);
    return page ? store::ErrorCode::kInternal : page.error().code;
  }

  void TearDown() override {
    if (other_is_foreign_) {
      EXPECT_THAT(other_.authorization_sightings(), ::testing::IsEmpty());
    }
    for (const auto& sighting : registry_.authorization_sightings()) {
      EXPECT_TRUE(sighting.scheme == "Basic" || sighting.scheme == "Bearer") << sighting.scheme;
    }
    source_.reset();
    for (const std::string& secret : Secrets()) {
      EXPECT_THAT(log_.text(), ::testing::Not(::testing::HasSubstr(secret)));
    }
  }

  bool other_is_foreign_ = true;
  LogCapture log_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_TESTS_FETCH_ATTACK_FIXTURE_H_
