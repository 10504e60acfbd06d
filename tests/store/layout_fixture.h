// Image layouts made by hand, right ones and wrong ones, and a second store to take them in.
#ifndef OCIFS_TESTS_STORE_LAYOUT_FIXTURE_H_
#define OCIFS_TESTS_STORE_LAYOUT_FIXTURE_H_

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/layout_import.h"
#include "store/layout_reader.h"
#include "store/pull_through.h"
#include "store/store.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/cache_fixture.h"
#include "tests/store/support.h"

namespace ocifs::store {

inline constexpr std::string_view kTarLayer = "application/vnd.oci.image.layer.v1.tar";

// Files of a layout by their names; what they say is up to the test.
class LayoutFiles {
 public:
  std::map<std::string, std::string> files = {{"oci-layout", R"({"imageLayoutVersion":"1.0.0"})"}};

  static std::string BlobName(const Digest& digest) { return "blobs/sha256/" + digest.hex(); }
  static std::string Described(std::string_view media_type, const std::string& bytes,
                               std::string_view more = "") {
    return R"({"mediaType":")" + std::string(media_type) + R"(","digest":")" +
           DigestOf(bytes).ToString() + R"(","size":)" + std::to_string(bytes.size()) +
           std::string(more) + "}";
  }
  // Adds the blob and gives its descriptor; `more` are members of that.
  std::string Blob(std::string_view media_type, const std::string& bytes,
                   std::string_view more = "") {
    files[BlobName(DigestOf(bytes))] = bytes;
    return Described(media_type, bytes, more);
  }
  // An image with one layer.
  static std::string ImageConfig(const std::string& tar) {
    return R"({"os":"linux","rootfs":{"type":"layers","diff_ids":[")" + DigestOf(tar).ToString() +
           R"("]}})";
  }
  static std::string ManifestText(const std::string& config, const std::string& layers) {
    return R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",)"
           R"("config":)" +
           config + R"(,"layers":[)" + layers + "]}";
  }
  std::string Image(const std::string& tar, std::string_view more = "") {
    return Blob(media_type::kOciManifest,
                ManifestText(Blob(media_type::kOciConfig, ImageConfig(tar)), Blob(kTarLayer, tar)),
                more);
  }
  static std::string IndexText(const std::string& manifests) {
    return R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",)"
           R"("manifests":[)" +
           manifests + "]}";
  }
  std::string Index(const std::string& manifests, std::string_view more = "") {
    return Blob(media_type::kOciIndex, IndexText(manifests), more);
  }
  static std::string Name(std::string_view name) {
    return R"(,"annotations":{"io.containerd.image.name":")" + std::string(name) + R"("})";
  }
  static std::string OfPlatform(const Platform& platform) {
    return R"(,"platform":{"os":")" + platform.os + R"(","architecture":")" +
           platform.architecture + R"("})";
  }
  void SetIndex(const std::string& entries) { files["index.json"] = IndexText(entries); }

  void WriteTo(const testing::TempDir& directory, std::string_view name) const {
    for (const auto& [file, bytes] : files) {
      directory.Write(std::string(name) + "/" + file, bytes);
    }
  }
  std::string AsTar() const {
    harness::TarWriter tar;
    for (const auto& [file, bytes] : files) tar.File(file, bytes);
    return tar.End().bytes();
  }
};

// A platform that this machine does not run.
inline Platform ForeignPlatform() {
  return Must(
      Platform::Parse(Platform::Host().architecture == "s390x" ? "linux/riscv64" : "linux/s390x"));
}

// A store of its own, offline.
class ImportingStore {
 public:
  explicit ImportingStore(const std::string& root) : store_(Must(Store::Open(root))) {
    PullThrough::Options options;
    options.platform = Platform::Host();
    options.offline = true;
    options.now = [] { return int64_t{4'000'000}; };
    cache_ = std::make_unique<PullThrough>(*store_, source_, options);
  }

  Result<std::vector<ImportedPackage>> Import(const std::string& path,
                                              const ImportOptions& options = {}) {
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<LayoutReader> layout, LayoutReader::Open(path));
    return ImportLayout(*cache_, *layout, options, kPatient);
  }
  // The content of a file as the mount would show it, or the name of the error.
  std::string ReadPath(std::string_view reference, std::string_view path) {
    const Reference parsed = RefOf(reference);
    const auto resolution = cache_->Resolve(parsed, kPatient);
    if (!resolution) return std::string(ErrorCodeName(resolution.error().code));
    const auto package = cache_->Open(parsed.repository(), resolution->digest, kPatient);
    if (!package) return std::string(ErrorCodeName(package.error().code));
    const auto node = (*package)->tree().Walk(path);
    if (!node) return "no such file";
    std::string content((*package)->tree().Attributes(*node).size, '?');
    const auto read =
        cache_->Read(**package, *node, 0, std::as_writable_bytes(std::span(content)), kPatient);
    return read ? content : std::string(ErrorCodeName(read.error().code));
  }

  Store& store() { return *store_; }
  PullThrough& cache() { return *cache_; }
  const harness::ScriptedSource& source() const { return source_; }

 private:
  harness::ScriptedSource source_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<PullThrough> cache_;
};

}  // namespace ocifs::store

#endif  // OCIFS_TESTS_STORE_LAYOUT_FIXTURE_H_
