// A registry in memory that answers when it is told to.
#ifndef OCIFS_TESTS_HARNESS_SCRIPTED_SOURCE_H_
#define OCIFS_TESTS_HARNESS_SCRIPTED_SOURCE_H_

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/mutex.h"
#include "store/source.h"

namespace ocifs::harness {

// Thread-safe. Everything that is asked is counted before it is answered.
class ScriptedSource : public store::Source {
 public:
  enum class Call { kFindRegistry, kManifest, kBlob, kTags, kCatalog };
  static constexpr size_t kCalls = 5;

  // --- What there is ---

  // A registry that exists without holding anything.
  void AddRegistry(std::string_view name);
  // An image of one plain tar layer per element, first one lowest; `reference` gets its tag.
  // Returns the manifest's digest. All packages of one source may share a registry.
  store::Digest AddImage(std::string_view reference, const std::vector<std::string>& tars);
  struct File {
    std::string title;  // empty: none
    std::string media_type = "application/octet-stream";
    std::string content;
  };
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  // An artifact whose layers are the files.
  store::Digest AddArtifact(std::string_view reference, const std::vector<File>& files,
                            const Pairs& annotations = {});
  // An index with one entry, for the platform of this machine.
  store::Digest AddIndex(std::string_view reference, const store::Digest& manifest);
  // Lets a tag stand for a manifest that was added to the same repository before.
  void Tag(std::string_view reference, const store::Digest& manifest);
  void RemoveTag(std::string_view reference);
  // A tag in the list that no manifest stands behind.
  void AddListedTag(std::string_view reference);
  // Other bytes of the same length for a blob.
  void Damage(const store::Digest& blob);
  store::Digest LayerOf(const store::Digest& manifest, size_t position) const;

  // --- How it answers ---

  // Calls of that kind wait, until Release or until their caller stops them.
  void Hold(Call call);
  void Release(Call call);
  // Calls of that kind fail so; nullopt: no more.
  void FailWith(Call call, std::optional<store::Error> error);
  void FailAllWith(const std::optional<store::Error>& error);
  // Questions about that repository ("host/path") are refused, as registries do that tell nobody
  // what they hold.
  void Refuse(std::string_view repository);
  // Tags per page; 0: all on one.
  void SetPageSize(size_t size);
  // ListRepositories answers for that registry.
  void AllowListing(std::string_view registry);
  // ListCatalog answers so for that registry.
  void SetCatalog(std::string_view registry, std::vector<std::string> paths);

  // --- What was asked ---

  size_t count(Call call) const;
  size_t total() const;
  // Calls that wait now.
  size_t waiting(Call call) const;
  // The last caller.
  store::Requester last_requester() const;

  // --- store::Source ---

  store::Result<void> FindRegistry(const store::Registry& registry,
                                   const store::FetchContext& context) override;
  store::Result<std::optional<store::RemoteDocument>> FetchManifest(
      const store::Reference& reference, const std::optional<store::Digest>& known,
      const store::FetchContext& context) override;
  store::Result<std::unique_ptr<store::BlobStream>> OpenBlob(
      const store::Repository& repository, const store::Descriptor& blob,
      const store::FetchContext& context) override;
  store::Result<store::TagPage> ListTags(const store::Repository& repository,
                                         std::string_view cursor,
                                         const store::FetchContext& context) override;
  store::Result<std::vector<std::string>> ListRepositories(
      const store::Registry& registry, const store::FetchContext& context) override;
  bool HasCatalog(const store::Registry& registry) const override;
  store::Result<std::vector<std::string>> ListCatalog(const store::Registry& registry,
                                                      const store::FetchContext& context) override;
  bool HasAnotherServer(const store::Repository&, const store::Descriptor&) override {
    return false;
  }
  bool RejectBlob(const store::Repository&, const store::Descriptor&) override { return false; }
  store::Result<std::vector<store::Descriptor>> ListReferrers(const store::Repository&,
                                                              const store::Digest&,
                                                              std::string_view,
                                                              const store::FetchContext&) override {
    return std::vector<store::Descriptor>();
  }

 private:
  class Stream;
  struct Script {
    bool held = false;
    size_t waiting = 0;
    size_t count = 0;
    std::optional<store::Error> error;
  };
  struct Contents {
    std::map<std::string, std::string> tags;                 // tag → digest; "" for a listed one
    std::map<std::string, store::RemoteDocument> manifests;  // by digest
  };

  Script& ScriptOf(Call call) OCIFS_REQUIRES(mutex_) { return scripts_[static_cast<size_t>(call)]; }
  const Script& ScriptOf(Call call) const OCIFS_REQUIRES(mutex_) {
    return scripts_[static_cast<size_t>(call)];
  }
  // Counts the call, waits while it is held, and fails if it shall.
  store::Result<void> Enter(Call call, const store::FetchContext& context);
  store::Digest AddManifest(std::string_view reference, std::string bytes,
                            std::string_view media_type);
  std::string AddBlob(std::string bytes);  // "digest":…,"size":… of it

  mutable store::Mutex mutex_;
  store::CondVar changed_;
  std::array<Script, kCalls> scripts_ OCIFS_GUARDED_BY(mutex_);
  std::map<std::string, Contents> repositories_ OCIFS_GUARDED_BY(mutex_);  // by "host/path"
  std::map<std::string, std::string> blobs_ OCIFS_GUARDED_BY(mutex_);      // by digest
  std::map<std::string, std::vector<std::string>> layers_ OCIFS_GUARDED_BY(mutex_);
  std::set<std::string> registries_ OCIFS_GUARDED_BY(mutex_);
  std::set<std::string> refused_ OCIFS_GUARDED_BY(mutex_);
  std::set<std::string> listing_ OCIFS_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<std::string>> catalogs_ OCIFS_GUARDED_BY(mutex_);
  size_t page_size_ OCIFS_GUARDED_BY(mutex_) = 0;
  store::Requester last_requester_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::harness

#endif  // OCIFS_TESTS_HARNESS_SCRIPTED_SOURCE_H_
