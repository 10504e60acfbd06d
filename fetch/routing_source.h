// One Source made of several: registries with a Source of their own, and one for all others.
#ifndef OCIFS_FETCH_ROUTING_SOURCE_H_
#define OCIFS_FETCH_ROUTING_SOURCE_H_

#include <map>
#include <memory>
#include <string>

#include "store/source.h"

namespace ocifs::fetch {

// Thread-safe. Adds nothing to the answers of the Source that it asks.
class RoutingSource final : public store::Source {
 public:
  // `routes` by Registry::name(); no pointer may be null.
  RoutingSource(std::map<std::string, std::unique_ptr<store::Source>> routes,
                std::unique_ptr<store::Source> fallback)
      : routes_(std::move(routes)), fallback_(std::move(fallback)) {}

  store::Result<void> FindRegistry(const store::Registry& registry,
                                   const store::FetchContext& context) override {
    return Of(registry).FindRegistry(registry, context);
  }
  store::Result<std::optional<store::RemoteDocument>> FetchManifest(
      const store::Reference& reference, const std::optional<store::Digest>& known,
      const store::FetchContext& context) override {
    return Of(reference.repository().registry()).FetchManifest(reference, known, context);
  }
  store::Result<std::unique_ptr<store::BlobStream>> OpenBlob(
      const store::Repository& repository, const store::Descriptor& blob,
      const store::FetchContext& context) override {
    return Of(repository.registry()).OpenBlob(repository, blob, context);
  }
  store::Result<store::TagPage> ListTags(const store::Repository& repository,
                                         std::string_view cursor,
                                         const store::FetchContext& context) override {
    return Of(repository.registry()).ListTags(repository, cursor, context);
  }
  store::Result<std::vector<std::string>> ListRepositories(
      const store::Registry& registry, const store::FetchContext& context) override {
    return Of(registry).ListRepositories(registry, context);
  }
  bool HasCatalog(const store::Registry& registry) const override {
    return Of(registry).HasCatalog(registry);
  }
  store::Result<std::vector<std::string>> ListCatalog(const store::Registry& registry,
                                                      const store::FetchContext& context) override {
    return Of(registry).ListCatalog(registry, context);
  }
  bool HasAnotherServer(const store::Repository& repository,
                        const store::Descriptor& blob) override {
    return Of(repository.registry()).HasAnotherServer(repository, blob);
  }
  bool RejectBlob(const store::Repository& repository, const store::Descriptor& blob) override {
    return Of(repository.registry()).RejectBlob(repository, blob);
  }
  store::Result<std::vector<store::Descriptor>> ListReferrers(
      const store::Repository& repository, const store::Digest& subject,
      std::string_view artifact_type, const store::FetchContext& context) override {
    return Of(repository.registry()).ListReferrers(repository, subject, artifact_type, context);
  }

 private:
  store::Source& Of(const store::Registry& registry) const {
    const auto route = routes_.find(registry.name());
    return route == routes_.end() ? *fallback_ : *route->second;
  }

  const std::map<std::string, std::unique_ptr<store::Source>> routes_;
  const std::unique_ptr<store::Source> fallback_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_ROUTING_SOURCE_H_
