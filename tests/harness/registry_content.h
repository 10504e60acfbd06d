// What a fake registry has: blobs, manifests, tags and referrers. Mirrors share it.
#ifndef OCIFS_TESTS_HARNESS_REGISTRY_CONTENT_H_
#define OCIFS_TESTS_HARNESS_REGISTRY_CONTENT_H_

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/digest.h"
#include "store/mutex.h"

namespace ocifs::testing {

// Thread-safe. Calls nothing with its lock held.
class RegistryContent {
 public:
  using Bytes = std::shared_ptr<const std::string>;
  struct Manifest {
    Bytes bytes;
    std::string media_type;
  };
  struct Referrer {
    std::string descriptor;  // in JSON, with artifactType and annotations
    std::string artifact_type;
  };
  // Some names in ASCII order.
  struct Names {
    std::vector<std::string> names;
    bool more = false;  // there are others behind the last
  };

  // A copy of what is there now; later changes do not reach it.
  std::shared_ptr<RegistryContent> Copy() const;

  // What is added makes its repository exist.
  void PutBlob(const std::string& repository, const store::Digest& digest, Bytes bytes);
  void PutManifest(const std::string& repository, const store::Digest& digest, Manifest manifest);
  void PutTag(const std::string& repository, const std::string& tag, const store::Digest& manifest);
  void PutReferrer(const std::string& repository, const store::Digest& subject, Referrer referrer);
  void RemoveTag(const std::string& repository, const std::string& tag);
  void RemoveBlob(const store::Digest& digest);

  bool HasRepository(const std::string& repository) const;
  Bytes FindBlob(const std::string& digest) const;  // null: not there
  std::optional<Manifest> FindManifest(const std::string& digest) const;
  // The digest of a manifest.
  std::optional<std::string> FindTag(const std::string& repository, const std::string& tag) const;
  // In the order in which they came.
  std::vector<Referrer> Referrers(const std::string& repository, const std::string& subject) const;
  // At most `limit` names after `last`.
  Names Tags(const std::string& repository, const std::optional<std::string>& last,
             size_t limit) const;
  Names Repositories(const std::optional<std::string>& last, size_t limit) const;

 private:
  struct Repository {
    std::map<std::string, std::string> tags;                 // to digests of manifests
    std::map<std::string, std::vector<Referrer>> referrers;  // by digest of the subject
  };

  mutable store::Mutex mutex_;
  std::map<std::string, Bytes> blobs_ OCIFS_GUARDED_BY(mutex_);         // by digest
  std::map<std::string, Manifest> manifests_ OCIFS_GUARDED_BY(mutex_);  // by digest
  std::map<std::string, Repository> repositories_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_REGISTRY_CONTENT_H_
