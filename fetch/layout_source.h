// The Source that reads an OCI image layout on disk (image-spec 1.1, image-layout.md): a directory
// with `oci-layout`, `index.json` and `blobs/<algorithm>/<hex>`, shown as one registry.
#ifndef OCIFS_FETCH_LAYOUT_SOURCE_H_
#define OCIFS_FETCH_LAYOUT_SOURCE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "store/mutex.h"
#include "store/source.h"

namespace ocifs::fetch {

struct LayoutOptions {
  std::string directory;
  // Repository of tags that come without one; empty: the directory's last component.
  std::string repository = {};
};

// The repository and tag that an entry of index.json names by `name`
// (org.opencontainers.image.ref.name or io.containerd.image.name): "[registry/]repo:tag", where a
// leading `registry` is dropped, or a bare tag of `default_repository`. nullopt for anything else.
// Pure.
std::optional<store::Reference> LayoutReference(
    std::string_view name, const store::Registry& registry,
    const std::optional<store::Repository>& default_repository);

// Thread-safe. Every name of index.json is a tag of its repository; every blob that is a manifest
// is there by digest in each repository. index.json is read again when it has changed. Nothing
// outside of the directory is read: names are made from digests, and symbolic links below it are
// refused. A layout that is away (a disk not mounted) is kUnavailable.
class LayoutSource final : public store::Source {
 public:
  // kInvalid when `options.repository` is no repository name. The directory need not be there yet.
  static store::Result<std::unique_ptr<LayoutSource>> Create(store::Registry registry,
                                                             LayoutOptions options);

  store::Result<void> FindRegistry(const store::Registry& registry,
                                   const store::FetchContext& context) override;
  store::Result<std::optional<store::RemoteDocument>> FetchManifest(
      const store::Reference& reference, const std::optional<store::Digest>& known,
      const store::FetchContext& context) override;
  store::Result<std::unique_ptr<store::BlobStream>> OpenBlob(
      const store::Repository& repository, const store::Descriptor& blob,
      const store::FetchContext& context) override;
  // Sorted, all in one page.
  store::Result<store::TagPage> ListTags(const store::Repository& repository,
                                         std::string_view cursor,
                                         const store::FetchContext& context) override;
  store::Result<std::vector<std::string>> ListRepositories(
      const store::Registry& registry, const store::FetchContext& context) override;
  // ListRepositories tells all there is.
  bool HasCatalog(const store::Registry&) const override { return false; }
  store::Result<std::vector<std::string>> ListCatalog(const store::Registry& registry,
                                                      const store::FetchContext& context) override;
  // A disk has no other server to turn to.
  bool HasAnotherServer(const store::Repository&, const store::Descriptor&) override {
    return false;
  }
  bool RejectBlob(const store::Repository&, const store::Descriptor&) override { return false; }
  // Reads every manifest that index.json names.
  store::Result<std::vector<store::Descriptor>> ListReferrers(
      const store::Repository& repository, const store::Digest& subject,
      std::string_view artifact_type, const store::FetchContext& context) override;

 private:
  // What tells one state of index.json from another.
  struct Stamp {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t size = 0;
    int64_t changed_seconds = 0;
    int64_t changed_nanoseconds = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  struct Contents {
    Stamp stamp;
    std::map<std::string, std::map<std::string, store::Descriptor>> repositories;  // by path, tag
    std::map<store::Digest, store::Descriptor> entries;
  };

  LayoutSource(store::Registry registry, LayoutOptions options,
               std::optional<store::Repository> default_repository)
      : registry_(std::move(registry)),
        options_(std::move(options)),
        default_repository_(std::move(default_repository)) {}

  store::Result<std::shared_ptr<const Contents>> Load() OCIFS_EXCLUDES(mutex_);
  store::Result<std::shared_ptr<const Contents>> Read(int directory, int index,
                                                      const Stamp& stamp) const;
  std::string Describe(std::string_view name) const {
    return options_.directory + "/" + std::string(name);
  }

  const store::Registry registry_;
  const LayoutOptions options_;
  const std::optional<store::Repository> default_repository_;
  store::Mutex mutex_;
  std::shared_ptr<const Contents> contents_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_LAYOUT_SOURCE_H_
