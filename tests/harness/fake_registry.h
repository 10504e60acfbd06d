// An in-memory registry on loopback that speaks the distribution-spec's pull side, and lies, stalls
// and refuses on command.
//
//   FakeRegistry registry;
//   registry.AddArtifact("team/app", "1.0", {{.bytes = "hello"}});
//   registry.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = 3}});
#ifndef OCIFS_TESTS_HARNESS_FAKE_REGISTRY_H_
#define OCIFS_TESTS_HARNESS_FAKE_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/digest.h"
#include "store/manifest.h"
#include "store/mutex.h"
#include "store/reference.h"
#include "tests/harness/blob_storage.h"
#include "tests/harness/byte_range.h"
#include "tests/harness/fault.h"
#include "tests/harness/http_server.h"
#include "tests/harness/registry_content.h"
#include "tests/harness/token_issuer.h"

namespace ocifs::testing {

struct FakeLayer {
  std::string bytes;
  std::string media_type = "application/octet-stream";
  std::string title = {};  // org.opencontainers.image.title; empty: none
};

struct FakeArtifact {
  store::Digest digest;  // of the manifest
  std::string manifest;
  store::Descriptor config;
  std::vector<store::Descriptor> layers;
};

// How lists are paged: tags, the catalog, referrers.
struct Paging {
  // Where Link points.
  enum class Next {
    kPath,      // "/v2/a/tags/list?n=2&last=b"
    kRelative,  // "list?n=2&last=b", relative to the request
    kAbsolute,  // with scheme and host
    kForeign,   // to `foreign_url` in place of scheme and host, on every page
    kSame,      // to the request itself, on every page
    kEndless,   // there is always another page, of names never seen before
  };
  size_t page_size = 0;  // 0: as many as the client's `n` allows; it is heeded in any case
  Next next = Next::kPath;
  std::string foreign_url = {};
};

enum class ReferrersApi {
  kOff,         // 404, as from docker-registry: AddReferrer keeps the fallback tag
  kOn,          // artifactType in the query is ignored
  kFilters,     // and heeded, and OCI-Filters-Applied says so
  kFiltersNot,  // says so, but it is not
};

struct MirrorOptions {
  enum class Behaviour {
    kFaithful,    // has what the upstream has, now and later
    kStale,       // has what the upstream had when MirrorOf was called
    kEmpty,       // 404 for all but GET /v2/
    kBroken,      // 500
    kWrongBytes,  // one bit in the middle of each manifest and blob is wrong
  };
  Behaviour behaviour = Behaviour::kFaithful;
  std::string prefix = {};  // "proxy": the upstream's team/app is proxy/team/app here
  // Requests without ns=<host of the upstream> get 404 (distribution-spec, registry proxying).
  bool namespace_required = false;
};

// Thread-safe.
class FakeRegistry {
 public:
  using Transport = HttpServer::Transport;

  explicit FakeRegistry(Transport transport = Transport::kPlain,
                        CertificateFault fault = CertificateFault::kNone);

  std::string host() const { return "127.0.0.1:" + std::to_string(server_.port()); }
  uint16_t port() const { return server_.port(); }
  std::string url() const;
  // Under "localhost", which is another origin for the same server.
  std::string localhost_url() const;
  const std::string& authority_pem() const { return server_.authority_pem(); }
  store::Registry registry() const;
  store::Repository repository(std::string_view path) const;
  store::Reference reference(std::string_view path, std::string_view tag_or_digest) const;

  // Content.
  store::Descriptor AddBlob(const std::string& repository, std::string bytes,
                            const std::string& media_type = "application/octet-stream");
  // `tag` may be empty: then it is there by digest only.
  store::Digest AddManifest(const std::string& repository, const std::string& tag,
                            std::string bytes, const std::string& media_type);
  // A manifest with an empty config and these layers.
  FakeArtifact AddArtifact(const std::string& repository, const std::string& tag,
                           std::vector<FakeLayer> layers);
  void AddTags(const std::string& repository, const std::vector<std::string>& tags,
               const store::Digest& manifest);
  void RemoveTag(const std::string& repository, const std::string& tag);
  void RemoveBlob(const store::Digest& digest);
  // An artifact with `subject`; in the list of the referrers API, or in the fallback tag if that is
  // off (distribution-spec, "Referrers Tag Schema").
  FakeArtifact AddReferrer(const std::string& repository, const store::Digest& subject,
                           const std::string& artifact_type,
                           const std::map<std::string, std::string>& annotations = {},
                           std::vector<FakeLayer> layers = {});
  void SetPaging(Paging paging);
  // The page size alone.
  void SetTagPageSize(size_t size);
  // /v2/_catalog, which answers 404 until then; its scope is "registry:catalog:*".
  void ServeCatalog();
  void SetReferrersApi(ReferrersApi api);
  // Has the content of `upstream` from now on, and answers by `options`. What is added to a
  // faithful mirror is added to its upstream. Logins and faults are the mirror's own.
  void MirrorOf(const FakeRegistry& upstream, MirrorOptions options = {});
  // Blobs are not served but redirected, each time to a new signed URL of that storage, which is
  // borrowed. Null: served here again.
  void RedirectBlobsTo(BlobStorage* storage, int status = 307);

  // Authorization.
  void RequireBasic(std::string username, std::string password);
  void RequireBearer(BearerDemand demand);
  void SetTokenServer(TokenServer token_server);
  void RevokeTokens();  // those given so far, by any server
  // Tokens expire by that clock, both those given here and those that come here.
  void SetClock(TestClock clock);
  size_t tokens_issued() const;
  // The one that the token server takes now.
  std::string refresh_token() const;

  // Faults. They strike answers to authorized requests only; those that lack authorization get
  // their 401 as ever.
  void Inject(Fault fault);
  void ClearFaults();
  size_t faults_struck() const;
  // Of all blobs; a Fault's own comes first.
  void SetRanges(RangeBehaviour behaviour);
  void Release() { server_.Release(); }
  void Step() { server_.Step(); }
  void WaitForStalled(size_t count = 1) { server_.WaitForStalled(count); }
  void CloseConnections() { server_.CloseConnections(); }

  // What happened.
  std::vector<ServerRequest> requests() const;
  // "METHOD path" of each request, in their order.
  std::vector<std::string> request_lines() const;
  size_t CountRequests(std::string_view path_part) const;
  // "path range" of each request with a Range header, in their order.
  std::vector<std::string> ranges() const;
  // The decoded `ns` of each request, in their order; empty where there was none.
  std::vector<std::string> namespaces() const;
  void ForgetRequests();
  uint64_t body_bytes_sent() const { return server_.body_bytes_sent(); }
  uint64_t body_bytes_sent(const std::string& path) const { return server_.body_bytes_sent(path); }
  // Every credential that has ever arrived here, ForgetRequests or not.
  std::vector<AuthorizationSighting> authorization_sightings() const {
    return server_.authorization_sightings();
  }
  size_t connections_accepted() const { return server_.connections_accepted(); }

 private:
  using Bytes = RegistryContent::Bytes;
  struct Basic {
    std::string username;
    std::string password;
  };
  // What a list answers, before its Link.
  struct Page {
    std::vector<std::string> items = {};
    std::optional<std::string> last = {};  // `last` of the next page; nullopt: there is none
    size_t size = 0;
  };

  std::shared_ptr<RegistryContent> content() const OCIFS_EXCLUDES(mutex_);
  FakeArtifact AddManifestOf(const std::string& repository, const std::string& tag,
                             std::vector<FakeLayer> layers, const std::string& more_fields);
  void KeepFallbackTag(const std::string& repository, const store::Digest& subject);

  ServerResponse Handle(const ServerRequest& request) OCIFS_EXCLUDES(mutex_);
  ServerResponse Answer(const ServerRequest& request, RangeBehaviour ranges) OCIFS_REQUIRES(mutex_);
  // What a mirror answers before it looks for anything, or nullopt.
  std::optional<ServerResponse> MirrorRefusal(const ServerRequest& request) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerManifest(const ServerRequest& request, const std::string& repository,
                                const std::string& name) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerBlob(const ServerRequest& request, const std::string& digest,
                            RangeBehaviour ranges) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerTags(const ServerRequest& request, const std::string& repository)
      OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerCatalog(const ServerRequest& request) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerReferrers(const ServerRequest& request, const std::string& repository,
                                 const std::string& subject) OCIFS_REQUIRES(mutex_);
  Page TakeNames(const ServerRequest& request,
                 const std::function<RegistryContent::Names(const std::optional<std::string>& last,
                                                            size_t limit)>& names)
      OCIFS_REQUIRES(mutex_);
  void AddLink(const ServerRequest& request, const Page& page, ServerResponse& response)
      OCIFS_REQUIRES(mutex_);
  std::optional<ServerResponse> Refusal(const ServerRequest& request) OCIFS_REQUIRES(mutex_);
  // What is served for these bytes; a lying mirror's are others.
  Bytes Served(Bytes bytes) OCIFS_REQUIRES(mutex_);

  mutable store::Mutex mutex_;
  std::shared_ptr<RegistryContent> content_ OCIFS_GUARDED_BY(mutex_) =
      std::make_shared<RegistryContent>();
  std::optional<MirrorOptions> mirror_ OCIFS_GUARDED_BY(mutex_);
  std::string upstream_host_ OCIFS_GUARDED_BY(mutex_);
  Paging paging_ OCIFS_GUARDED_BY(mutex_);
  uint64_t endless_names_ OCIFS_GUARDED_BY(mutex_) = 0;
  bool catalog_ OCIFS_GUARDED_BY(mutex_) = false;
  ReferrersApi referrers_api_ OCIFS_GUARDED_BY(mutex_) = ReferrersApi::kOff;
  std::optional<Basic> basic_ OCIFS_GUARDED_BY(mutex_);
  std::optional<BearerDemand> bearer_ OCIFS_GUARDED_BY(mutex_);
  TokenIssuer issuer_ OCIFS_GUARDED_BY(mutex_);
  BlobStorage* storage_ OCIFS_GUARDED_BY(mutex_) = nullptr;
  int storage_status_ OCIFS_GUARDED_BY(mutex_) = 307;
  FaultList faults_ OCIFS_GUARDED_BY(mutex_);
  RangeBehaviour ranges_ OCIFS_GUARDED_BY(mutex_) = RangeBehaviour::kHonoured;
  std::vector<ServerRequest> requests_ OCIFS_GUARDED_BY(mutex_);

  HttpServer server_;  // last: its threads use all of the above
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_FAKE_REGISTRY_H_
