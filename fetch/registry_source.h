// The Source that speaks to registries (OCI distribution-spec 1.1, pull side).
//
// A first access costs the requests that it is made of and no others: where a token is wanted, the
// request that is refused with 401 and the token's; then manifest, config, layers. There is no ping
// and no HEAD. Later requests carry the token at once.
#ifndef OCIFS_FETCH_REGISTRY_SOURCE_H_
#define OCIFS_FETCH_REGISTRY_SOURCE_H_

#include <map>
#include <memory>
#include <string>

#include "fetch/credentials.h"
#include "fetch/http_client.h"
#include "fetch/registry_host.h"
#include "fetch/resolver.h"
#include "fetch/token.h"
#include "store/mutex.h"
#include "store/source.h"

namespace ocifs::fetch {

struct RegistrySourceOptions {
  std::map<std::string, RegistryOptions> registries = {};  // by Registry::name()
  HttpClientOptions http = {};
};

// Thread-safe. Streams must not outlive it.
class RegistrySource final : public store::Source {
 public:
  // More pages of tags than any registry needs; a list that goes on is kTooLarge.
  static constexpr uint64_t kMaxTagPages = 2000;
  static constexpr size_t kMaxTagPageBytes = size_t{16} << 20;

  // Starts the HTTP thread. kInvalid when a configured endpoint does not parse. `credentials` and
  // `resolver` must not be null.
  static store::Result<std::unique_ptr<RegistrySource>> Create(
      RegistrySourceOptions options, std::unique_ptr<CredentialSource> credentials,
      std::unique_ptr<Resolver> resolver = std::make_unique<Resolver>());

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

 private:
  RegistrySource(RegistrySourceOptions options, std::unique_ptr<HttpClient> client,
                 std::unique_ptr<CredentialSource> credentials, std::unique_ptr<Resolver> resolver)
      : options_(std::move(options)),
        client_(std::move(client)),
        credentials_(std::move(credentials)),
        resolver_(std::move(resolver)),
        tokens_(*client_) {}

  store::Result<RegistryHost*> HostOf(const store::Registry& registry) OCIFS_EXCLUDES(mutex_);

  const RegistrySourceOptions options_;
  const std::unique_ptr<HttpClient> client_;
  const std::unique_ptr<CredentialSource> credentials_;
  const std::unique_ptr<Resolver> resolver_;
  TokenCache tokens_;
  store::Mutex mutex_;
  std::map<std::string, std::unique_ptr<RegistryHost>> hosts_ OCIFS_GUARDED_BY(mutex_);
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_SOURCE_H_
