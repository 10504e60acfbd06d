// A pull-through cache over a store on disk and a source in memory.
#ifndef OCIFS_TESTS_STORE_CACHE_FIXTURE_H_
#define OCIFS_TESTS_STORE_CACHE_FIXTURE_H_

#include <gtest/gtest.h>
#include <lmdb.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/pull_through.h"
#include "store/store.h"
#include "tests/harness/byte_streams.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/support.h"

namespace ocifs::store {

inline constexpr std::string_view kRef = "ghcr.io/a/b:1.0";
inline const RequestContext kPatient;
inline const RequestContext kNever{{}, {}, RequestContext::Wait::kNever};

// A source of documents and blobs as they are given, whatever they are, for lies that
// ScriptedSource does not tell.
class RawSource : public Source {
 public:
  // The document behind the tag, and behind its own digest.
  Digest AddDocument(std::string_view tag, const std::string& bytes) {
    const Digest digest = DigestOf(bytes);
    documents_[std::string(tag)] = bytes;
    documents_[digest.ToString()] = bytes;
    return digest;
  }
  void SetDocument(const std::string& key, const std::string& bytes) { documents_[key] = bytes; }
  std::string AddBlob(std::string_view media_type, const std::string& bytes,
                      std::string_view more = "") {
    const std::string digest = DigestOf(bytes).ToString();
    blobs_[digest] = bytes;
    return R"({"mediaType":")" + std::string(media_type) + R"(","digest":")" + digest +
           R"(","size":)" + std::to_string(bytes.size()) + std::string(more) + "}";
  }
  void SetBlob(const Digest& digest, const std::string& bytes) {
    blobs_[digest.ToString()] = bytes;
  }

  void Clear() {
    documents_.clear();
    blobs_.clear();
  }

  // Calls so far.
  std::atomic<int> manifests = 0;
  std::atomic<int> blobs = 0;
  std::atomic<int> pages = 0;
  // Answers for pages of tags: cursor → page.
  std::map<std::string, TagPage> tag_pages;

  Result<void> FindRegistry(const Registry&, const FetchContext&) override { return {}; }
  Result<std::optional<RemoteDocument>> FetchManifest(const Reference& reference,
                                                      const std::optional<Digest>& known,
                                                      const FetchContext&) override {
    ++manifests;
    const auto found =
        documents_.find(reference.tag() ? reference.tag()->name() : reference.digest()->ToString());
    if (found == documents_.end()) return Fail(ErrorCode::kNotFound, "no " + reference.ToString());
    if (known && DigestOf(found->second) == *known) return std::nullopt;
    return RemoteDocument{found->second, ""};
  }
  Result<std::unique_ptr<BlobStream>> OpenBlob(const Repository&, const Descriptor& blob,
                                               const FetchContext&) override {
    ++blobs;
    const auto found = blobs_.find(blob.digest.ToString());
    if (found == blobs_.end()) return Fail(ErrorCode::kRemote, "no blob");
    return harness::StreamOf(found->second, 10'000);
  }
  Result<TagPage> ListTags(const Repository&, std::string_view cursor,
                           const FetchContext&) override {
    ++pages;
    const auto found = tag_pages.find(std::string(cursor));
    if (found == tag_pages.end()) return Fail(ErrorCode::kNotFound, "no such repository");
    return found->second;
  }
  Result<std::vector<std::string>> ListRepositories(const Registry&, const FetchContext&) override {
    return Fail(ErrorCode::kUnsupported, "no list");
  }
  bool HasCatalog(const Registry&) const override { return false; }
  Result<std::vector<std::string>> ListCatalog(const Registry&, const FetchContext&) override {
    return Fail(ErrorCode::kUnsupported, "no catalog");
  }
  // Blobs that the next server has: told of wrong bytes, it serves these from then on.
  std::map<std::string, std::string> better_blobs;
  bool HasAnotherServer(const Repository&, const Descriptor& blob) override {
    return better_blobs.contains(blob.digest.ToString());
  }
  bool RejectBlob(const Repository&, const Descriptor& blob) override {
    const auto better = better_blobs.find(blob.digest.ToString());
    if (better == better_blobs.end()) return false;
    blobs_[better->first] = better->second;
    better_blobs.erase(better);
    return true;
  }
  Result<std::vector<Descriptor>> ListReferrers(const Repository&, const Digest&, std::string_view,
                                                const FetchContext&) override {
    return std::vector<Descriptor>();
  }

 private:
  std::map<std::string, std::string> documents_;
  std::map<std::string, std::string> blobs_;
};

// A store on disk and a pull-through cache over it; both can be begun anew, as by a restart.
template <typename SourceType>
class Cache : public ::testing::Test {
 protected:
  Cache() {
    options_.platform = Platform::Host();
    options_.now = [this] { return now_.load(); };
  }

  PullThrough& cache() {
    if (cache_ == nullptr) {
      store_ = Must(Store::Open(root()));
      cache_ = std::make_unique<PullThrough>(*store_, source_, options_);
    }
    return *cache_;
  }
  void Stop() {
    if (cache_ != nullptr) Must(cache_->Flush({}));
    cache_.reset();
    store_.reset();
  }
  std::string root() const { return directory_ / "store"; }

  Result<std::shared_ptr<const Package>> Open(std::string_view reference = kRef,
                                              const RequestContext& context = kPatient) {
    const Reference parsed = RefOf(reference);
    OCIFS_ASSIGN_OR_RETURN(const Resolution resolution, cache().Resolve(parsed, context));
    return cache().Open(parsed.repository(), resolution.digest, context);
  }
  // The file's content, or the name of the error.
  std::string Read(const Package& package, std::string_view path,
                   const RequestContext& context = kPatient) {
    const std::optional<NodeIndex> node = package.tree().Walk(path);
    if (!node) return "no such file";
    std::string content(package.tree().Attributes(*node).size, '?');
    const Result<size_t> read =
        cache().Read(package, *node, 0, std::as_writable_bytes(std::span(content)), context);
    if (!read) return std::string(ErrorCodeName(read.error().code));
    EXPECT_EQ(*read, content.size());
    return content;
  }
  std::string ReadPath(std::string_view path, std::string_view reference = kRef,
                       const RequestContext& context = kPatient) {
    const Result<std::shared_ptr<const Package>> package = Open(reference, context);
    return package ? Read(**package, path, context)
                   : std::string(ErrorCodeName(package.error().code));
  }

  // Whether any file of the store holds the text; LMDB keeps pages it no longer uses, packs and
  // blobs do not.
  std::vector<std::string> FilesWith(std::string_view text) const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root())) {
      if (entry.is_regular_file() && ReadFile(entry.path()).find(text) != std::string::npos) {
        files.push_back(entry.path().lexically_relative(root()));
      }
    }
    return files;
  }
  // Flips a byte wherever the text stands in files below that directory.
  size_t Damage(const std::string& below, std::string_view text) {
    size_t count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root() + "/" + below)) {
      if (!entry.is_regular_file()) continue;
      std::string bytes = ReadFile(entry.path());
      for (size_t at = bytes.find(text); at != std::string::npos; at = bytes.find(text, at + 1)) {
        bytes[at + text.size() / 2] = static_cast<char>(bytes[at + text.size() / 2] ^ 0x20);
        ++count;
      }
      std::ofstream(entry.path(), std::ios::binary | std::ios::in) << bytes;
    }
    return count;
  }
  // Flips the first byte of all values of a table.
  void DamageIndex(const char* table) {
    ASSERT_EQ(store_, nullptr);
    MDB_env* env = nullptr;
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    MDB_cursor* cursor = nullptr;
    ASSERT_EQ(mdb_env_create(&env), 0);
    mdb_env_set_mapsize(env, size_t{64} << 30);
    mdb_env_set_maxdbs(env, 16);
    ASSERT_EQ(mdb_env_open(env, (root() + "/index").c_str(), 0, 0600), 0);
    ASSERT_EQ(mdb_txn_begin(env, nullptr, 0, &txn), 0);
    ASSERT_EQ(mdb_dbi_open(txn, table, 0, &dbi), 0);
    ASSERT_EQ(mdb_cursor_open(txn, dbi, &cursor), 0);
    MDB_val key;
    MDB_val value;
    int count = 0;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
      std::string bytes(static_cast<char*>(value.mv_data), value.mv_size);
      bytes[0] = static_cast<char>(bytes[0] ^ 1);
      value.mv_data = bytes.data();
      ASSERT_EQ(mdb_cursor_put(cursor, &key, &value, MDB_CURRENT), 0);
      ++count;
    }
    mdb_cursor_close(cursor);
    ASSERT_EQ(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    EXPECT_GT(count, 0) << table;
  }

  const testing::TempDir directory_;
  std::atomic<int64_t> now_ = 1'000'000;
  PullThrough::Options options_;
  SourceType source_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<PullThrough> cache_;
};

using PullThroughTest = Cache<harness::ScriptedSource>;
using HostilePull = Cache<RawSource>;

inline std::string OneFile(std::string_view name, std::string_view content) {
  return harness::TarWriter().File(name, content).End().bytes();
}

}  // namespace ocifs::store

#endif  // OCIFS_TESTS_STORE_CACHE_FIXTURE_H_
