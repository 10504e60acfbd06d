// The Source that speaks to registries (OCI distribution-spec 1.1, pull side), through mirrors
// where some are configured.
//
// A first access costs the requests that it is made of and no others: where a token is wanted, the
// request that is refused with 401 and the token's; then manifest, config, layers. There is no ping
// and no HEAD. Later requests carry the token at once.
#ifndef OCIFS_FETCH_REGISTRY_SOURCE_H_
#define OCIFS_FETCH_REGISTRY_SOURCE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fetch/attempts.h"
#include "fetch/credentials.h"
#include "fetch/failure.h"
#include "fetch/http_client.h"
#include "fetch/registry_blob_stream.h"
#include "fetch/registry_host.h"
#include "fetch/resolver.h"
#include "fetch/route.h"
#include "fetch/timer.h"
#include "fetch/token.h"
#include "store/mutex.h"
#include "store/source.h"

namespace ocifs::fetch {

struct RegistrySourceOptions {
  HttpClientOptions http = {};
  RetryOptions retry = {};
  BlobTransferOptions blobs = {};
  // Registries, by Registry::name(), that are asked for their catalog when they are listed.
  std::set<std::string> catalogs = {};
};

// What a RegistrySource is made with. No pointer may be null.
struct RegistrySourceParts {
  std::unique_ptr<Router> router;
  std::unique_ptr<CredentialSource> credentials;
  std::unique_ptr<Resolver> resolver = std::make_unique<Resolver>();
  std::unique_ptr<Timer> timer = std::make_unique<Timer>();
};

// Thread-safe. Streams must not outlive it.
class RegistrySource final : public store::Source {
 public:
  // More pages of a list than any registry needs; one that goes on is kTooLarge.
  static constexpr uint64_t kMaxPages = 2000;
  static constexpr size_t kMaxTagPageBytes = size_t{16} << 20;
  // Of referrers and of a catalog; more is kTooLarge.
  static constexpr size_t kMaxListed = 100'000;
  // A server whose bytes for a blob were wrong is not asked for that blob again for that long.
  static constexpr std::chrono::minutes kRejectedFor{10};
  // Servers remembered; those in use beyond that.
  static constexpr size_t kMaxHosts = 1024;

  // Starts the HTTP thread.
  static store::Result<std::unique_ptr<RegistrySource>> Create(RegistrySourceOptions options,
                                                               RegistrySourceParts parts);

  store::Result<void> FindRegistry(const store::Registry& registry,
                                   const store::FetchContext& context) override;
  store::Result<std::optional<store::RemoteDocument>> FetchManifest(
      const store::Reference& reference, const std::optional<store::Digest>& known,
      const store::FetchContext& context) override;
  store::Result<std::unique_ptr<store::BlobStream>> OpenBlob(
      const store::Repository& repository, const store::Descriptor& blob,
      const store::FetchContext& context) override;
  bool HasAnotherServer(const store::Repository& repository,
                        const store::Descriptor& blob) override;
  bool RejectBlob(const store::Repository& repository, const store::Descriptor& blob) override
      OCIFS_EXCLUDES(mutex_);
  store::Result<store::TagPage> ListTags(const store::Repository& repository,
                                         std::string_view cursor,
                                         const store::FetchContext& context) override;
  // kUnsupported: no registry can tell at no cost.
  store::Result<std::vector<std::string>> ListRepositories(
      const store::Registry& registry, const store::FetchContext& context) override;
  bool HasCatalog(const store::Registry& registry) const override {
    return options_.catalogs.contains(registry.name());
  }
  store::Result<std::vector<std::string>> ListCatalog(const store::Registry& registry,
                                                      const store::FetchContext& context) override;
  // GET /v2/<name>/referrers/<digest>; where that is 404, the index under the fallback tag.
  store::Result<std::vector<store::Descriptor>> ListReferrers(
      const store::Repository& repository, const store::Digest& subject,
      std::string_view artifact_type, const store::FetchContext& context) override;

  // Whether the registry accepts this login: GET /v2/, and a token where one is asked for.
  // kUnauthenticated when it does not. A registry that asks for none accepts all.
  store::Result<void> CheckLogin(const store::Registry& registry, const Credential& credential,
                                 const store::FetchContext& context);

 private:
  enum class Need { kPull, kResolve, kReferrers };
  struct Served {
    std::set<std::string> hosts = {};     // keys of those that gave bytes of it
    std::set<std::string> rejected = {};  // and of those whose bytes were wrong
    Timer::TimePoint at;
  };
  template <typename T>
  using Attempt = std::function<Attempted<T>(const Attempts::Turn&)>;

  RegistrySource(RegistrySourceOptions options, RegistrySourceParts parts,
                 std::unique_ptr<HttpClient> client)
      : options_(std::move(options)),
        parts_(std::move(parts)),
        client_(std::move(client)),
        tokens_(*client_) {}

  // The servers that may be asked, in order; never empty.
  store::Result<std::vector<Candidate>> CandidatesFor(const store::Repository& repository,
                                                      Need need);
  std::shared_ptr<RegistryHost> HostOf(const Endpoint& endpoint) OCIFS_EXCLUDES(mutex_);
  store::Result<Route> RouteOf(const store::Repository& repository);
  // One server after the other until an attempt succeeds.
  template <typename T>
  store::Result<T> Ask(std::string what, std::vector<Candidate> candidates,
                       const store::FetchContext& context, const Attempt<T>& attempt);
  // One page of JSON from a server.
  struct Page {
    std::string body;
    std::string media_type;
    std::optional<Url> next;
  };
  Attempted<Page> GetPage(const Attempts::Turn& turn, const Access& access, HttpRequest request,
                          size_t max_bytes, const store::FetchContext& context);
  Attempted<std::vector<store::Descriptor>> AskReferrers(const Attempts::Turn& turn,
                                                         const store::Digest& subject,
                                                         std::string_view artifact_type,
                                                         const store::FetchContext& context);

  void NoteServed(const std::string& digest, const RegistryHost& host) OCIFS_EXCLUDES(mutex_);
  std::set<std::string> RejectedFor(const std::string& digest) OCIFS_EXCLUDES(mutex_);
  std::vector<std::shared_ptr<RegistryHost>> Suspects(const store::Repository& repository,
                                                      const store::Descriptor& blob)
      OCIFS_EXCLUDES(mutex_);

  const RegistrySourceOptions options_;
  const RegistrySourceParts parts_;
  const std::unique_ptr<HttpClient> client_;
  TokenCache tokens_;
  store::Mutex mutex_;
  std::map<std::string, std::shared_ptr<RegistryHost>> hosts_ OCIFS_GUARDED_BY(mutex_);  // by key
  std::map<std::string, Served> served_ OCIFS_GUARDED_BY(mutex_);  // by digest
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_SOURCE_H_
