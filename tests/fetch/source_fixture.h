// A RegistrySource on fake registries, with a login of the test's choice and a clock that only the
// retries' own waits move.
#ifndef OCIFS_TESTS_FETCH_SOURCE_FIXTURE_H_
#define OCIFS_TESTS_FETCH_SOURCE_FIXTURE_H_

#include <gtest/gtest.h>
#include <netdb.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fetch/credentials.h"
#include "fetch/host_router.h"
#include "fetch/registry_source.h"
#include "store/log.h"
#include "store/mutex.h"
#include "tests/harness/fake_registry.h"

namespace ocifs::fetch {

class FixedCredential final : public CredentialSource {
 public:
  explicit FixedCredential(std::optional<Credential> credential)
      : credential_(std::move(credential)) {}
  store::Result<std::optional<Credential>> Lookup(const store::Repository&, Freshness,
                                                  const std::stop_token&) override {
    return credential_;
  }

 private:
  const std::optional<Credential> credential_;
};

inline Credential Login(std::string username, std::string password) {
  return {.username = std::move(username),
          .password = std::move(password),
          .identity_token = {},
          .registry_token = {}};
}

// Waits take no time and move the clock. Thread-safe.
class FakeTimer final : public Timer {
 public:
  TimePoint Now() const override {
    const store::MutexLock lock(mutex_);
    return now_;
  }
  bool Wait(std::chrono::milliseconds duration, const std::stop_token& stop) override {
    const store::MutexLock lock(mutex_);
    now_ += duration;
    waits_.push_back(duration);
    return !stop.stop_requested();
  }
  void Advance(std::chrono::milliseconds duration) {
    const store::MutexLock lock(mutex_);
    now_ += duration;
  }
  std::vector<std::chrono::milliseconds> waits() const {
    const store::MutexLock lock(mutex_);
    return waits_;
  }

 private:
  mutable store::Mutex mutex_;
  TimePoint now_ OCIFS_GUARDED_BY(mutex_) = TimePoint(std::chrono::hours(1));
  std::vector<std::chrono::milliseconds> waits_ OCIFS_GUARDED_BY(mutex_);
};

// Collects what is logged while it lives.
class LogCapture {
 public:
  LogCapture() {
    store::SetLogSink([this](store::LogLevel, std::string_view text) {
      const store::MutexLock lock(mutex_);
      text_ += text;
      text_ += '\n';
    });
  }
  ~LogCapture() { store::SetLogSink({}); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;
  std::string text() const {
    const store::MutexLock lock(mutex_);
    return text_;
  }

 private:
  mutable store::Mutex mutex_;
  std::string text_ OCIFS_GUARDED_BY(mutex_);
};

class SourceFixture : public ::testing::Test {
 protected:
  using Registries = std::map<std::string, RegistryOptions>;

  void UseSource(std::optional<Credential> credential, Registries registries = {},
                 RegistrySourceOptions options = {}) {
    UseCredentials(std::make_unique<FixedCredential>(std::move(credential)), std::move(registries),
                   std::move(options));
  }
  void UseCredentials(std::unique_ptr<CredentialSource> credentials, Registries registries = {},
                      RegistrySourceOptions options = {}) {
    auto router = HostRouter::Create({.registries = std::move(registries)});
    ASSERT_TRUE(router) << router.error().message;
    auto timer = std::make_unique<FakeTimer>();
    timer_ = timer.get();
    auto source = RegistrySource::Create(
        std::move(options), {.router = *std::move(router),
                             .credentials = std::move(credentials),
                             .resolver = std::make_unique<Resolver>([](const std::string& host) {
                               return host == "there.example" || host == "registry-1.docker.io" ? 0
                                      : host == "absent.example" ? EAI_NONAME
                                                                 : EAI_AGAIN;
                             }),
                             .timer = std::move(timer)});
    ASSERT_TRUE(source) << source.error().message;
    source_ = *std::move(source);
  }
  void SetUp() override { UseSource(std::nullopt); }

  store::Result<std::optional<store::RemoteDocument>> Manifest(
      std::string_view tag, std::optional<store::Digest> known = std::nullopt) {
    return source_->FetchManifest(registry_.reference("team/app", tag), known, context_);
  }
  store::Result<std::string> Blob(const store::Descriptor& blob) {
    auto stream = source_->OpenBlob(registry_.repository("team/app"), blob, context_);
    if (!stream) return store::Fail(stream.error());
    std::string text;
    while (true) {
      const auto bytes = (*stream)->Next();
      if (!bytes) return store::Fail(bytes.error());
      if (bytes->empty()) return text;
      text.append(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    }
  }
  // The code of the failure; kInternal when there was none.
  store::ErrorCode BlobError(const store::Descriptor& blob) {
    const auto text = Blob(blob);
    return text ? store::ErrorCode::kInternal : text.error().code;
  }
  store::ErrorCode ManifestError(std::string_view tag = "1.0") {
    const auto manifest = Manifest(tag);
    return manifest ? store::ErrorCode::kInternal : manifest.error().code;
  }

  testing::FakeRegistry registry_;
  testing::FakeRegistry other_;
  FakeTimer* timer_ = nullptr;  // of source_
  std::unique_ptr<RegistrySource> source_;
  store::FetchContext context_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_TESTS_FETCH_SOURCE_FIXTURE_H_
