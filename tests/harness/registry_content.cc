#include "tests/harness/registry_content.h"

#include <utility>

namespace ocifs::testing {
namespace {

using store::MutexLock;

template <typename Map>
RegistryContent::Names KeysAfter(const Map& map, const std::optional<std::string>& last,
                                 size_t limit) {
  RegistryContent::Names page;
  auto entry = last ? map.upper_bound(*last) : map.begin();
  for (; entry != map.end() && page.names.size() < limit; ++entry) {
    page.names.push_back(entry->first);
  }
  page.more = entry != map.end();
  return page;
}

}  // namespace

std::shared_ptr<RegistryContent> RegistryContent::Copy() const {
  auto copy = std::make_shared<RegistryContent>();
  const MutexLock lock(mutex_);
  const MutexLock copy_lock(copy->mutex_);
  copy->blobs_ = blobs_;
  copy->manifests_ = manifests_;
  copy->repositories_ = repositories_;
  return copy;
}

void RegistryContent::PutBlob(const std::string& repository, const store::Digest& digest,
                              Bytes bytes) {
  const MutexLock lock(mutex_);
  repositories_[repository];
  blobs_[digest.ToString()] = std::move(bytes);
}
void RegistryContent::PutManifest(const std::string& repository, const store::Digest& digest,
                                  Manifest manifest) {
  const MutexLock lock(mutex_);
  repositories_[repository];
  manifests_[digest.ToString()] = std::move(manifest);
}
void RegistryContent::PutTag(const std::string& repository, const std::string& tag,
                             const store::Digest& manifest) {
  const MutexLock lock(mutex_);
  repositories_[repository].tags[tag] = manifest.ToString();
}
void RegistryContent::PutReferrer(const std::string& repository, const store::Digest& subject,
                                  Referrer referrer) {
  const MutexLock lock(mutex_);
  repositories_[repository].referrers[subject.ToString()].push_back(std::move(referrer));
}
void RegistryContent::RemoveTag(const std::string& repository, const std::string& tag) {
  const MutexLock lock(mutex_);
  repositories_[repository].tags.erase(tag);
}
void RegistryContent::RemoveBlob(const store::Digest& digest) {
  const MutexLock lock(mutex_);
  blobs_.erase(digest.ToString());
}

bool RegistryContent::HasRepository(const std::string& repository) const {
  const MutexLock lock(mutex_);
  return repositories_.contains(repository);
}
RegistryContent::Bytes RegistryContent::FindBlob(const std::string& digest) const {
  const MutexLock lock(mutex_);
  const auto blob = blobs_.find(digest);
  return blob == blobs_.end() ? nullptr : blob->second;
}
std::optional<RegistryContent::Manifest> RegistryContent::FindManifest(
    const std::string& digest) const {
  const MutexLock lock(mutex_);
  const auto manifest = manifests_.find(digest);
  if (manifest == manifests_.end()) return std::nullopt;
  return manifest->second;
}
std::optional<std::string> RegistryContent::FindTag(const std::string& repository,
                                                    const std::string& tag) const {
  const MutexLock lock(mutex_);
  const auto found = repositories_.find(repository);
  if (found == repositories_.end()) return std::nullopt;
  const auto digest = found->second.tags.find(tag);
  if (digest == found->second.tags.end()) return std::nullopt;
  return digest->second;
}
std::vector<RegistryContent::Referrer> RegistryContent::Referrers(
    const std::string& repository, const std::string& subject) const {
  const MutexLock lock(mutex_);
  const auto found = repositories_.find(repository);
  if (found == repositories_.end()) return {};
  const auto referrers = found->second.referrers.find(subject);
  if (referrers == found->second.referrers.end()) return {};
  return referrers->second;
}
RegistryContent::Names RegistryContent::Tags(const std::string& repository,
                                             const std::optional<std::string>& last,
                                             size_t limit) const {
  const MutexLock lock(mutex_);
  const auto found = repositories_.find(repository);
  if (found == repositories_.end()) return {};
  return KeysAfter(found->second.tags, last, limit);
}
RegistryContent::Names RegistryContent::Repositories(const std::optional<std::string>& last,
                                                     size_t limit) const {
  const MutexLock lock(mutex_);
  return KeysAfter(repositories_, last, limit);
}

}  // namespace ocifs::testing
