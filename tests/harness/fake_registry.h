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
#include <set>
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

// How a registry asks for tokens.
struct BearerDemand {
  std::string realm = {};  // empty: this server's own /token
  std::string service = "fake";
  std::string scope = {};            // empty: the scope that the request needs
  bool login_required = false;       // anonymous tokens do not suffice
  bool silent_on_resources = false;  // only GET /v2/ carries the challenge
};

// How this server's /token answers.
struct TokenServer {
  std::string username = {};  // empty: no login is known
  std::string password = {};
  std::string refresh_token = {};  // for POST; empty: none is known
  bool anonymous = true;           // tokens without a login are given
  std::optional<int64_t> expires_in = 300;
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
  // Pages of tags/list have that many; 0: all in one.
  void SetTagPageSize(size_t size);
  // Blobs are not served but redirected, each time to a new signed URL of that storage, which is
  // borrowed. Null: served here again.
  void RedirectBlobsTo(BlobStorage* storage, int status = 307);

  // Authorization.
  void RequireBasic(std::string username, std::string password);
  void RequireBearer(BearerDemand demand);
  void SetTokenServer(TokenServer token_server);
  void RevokeTokens();  // those given so far, by any server
  size_t tokens_issued() const;

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
  void ForgetRequests();
  uint64_t body_bytes_sent() const { return server_.body_bytes_sent(); }
  uint64_t body_bytes_sent(const std::string& path) const { return server_.body_bytes_sent(path); }
  // Every credential that has ever arrived here, ForgetRequests or not.
  std::vector<AuthorizationSighting> authorization_sightings() const {
    return server_.authorization_sightings();
  }
  size_t connections_accepted() const { return server_.connections_accepted(); }

 private:
  using Bytes = std::shared_ptr<const std::string>;
  struct Manifest {
    Bytes bytes;
    std::string media_type;
  };
  struct Basic {
    std::string username;
    std::string password;
  };

  ServerResponse Handle(const ServerRequest& request) OCIFS_EXCLUDES(mutex_);
  ServerResponse Answer(const ServerRequest& request, RangeBehaviour ranges) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerToken(const ServerRequest& request) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerManifest(const ServerRequest& request, const std::string& repository,
                                const std::string& name) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerBlob(const ServerRequest& request, const std::string& digest,
                            RangeBehaviour ranges) OCIFS_REQUIRES(mutex_);
  ServerResponse AnswerTags(const ServerRequest& request, const std::string& repository)
      OCIFS_REQUIRES(mutex_);
  std::optional<ServerResponse> Refusal(const ServerRequest& request) OCIFS_REQUIRES(mutex_);
  bool TokenSuffices(const std::string& token, const std::string& scope) OCIFS_REQUIRES(mutex_);

  mutable store::Mutex mutex_;
  std::map<std::string, Bytes> blobs_ OCIFS_GUARDED_BY(mutex_);         // by digest
  std::map<std::string, Manifest> manifests_ OCIFS_GUARDED_BY(mutex_);  // by digest
  std::map<std::string, std::map<std::string, std::string>> tags_ OCIFS_GUARDED_BY(mutex_);
  size_t tag_page_size_ OCIFS_GUARDED_BY(mutex_) = 0;
  std::optional<Basic> basic_ OCIFS_GUARDED_BY(mutex_);
  std::optional<BearerDemand> bearer_ OCIFS_GUARDED_BY(mutex_);
  TokenServer token_server_ OCIFS_GUARDED_BY(mutex_);
  uint64_t first_valid_serial_ OCIFS_GUARDED_BY(mutex_) = 0;
  size_t tokens_issued_ OCIFS_GUARDED_BY(mutex_) = 0;
  BlobStorage* storage_ OCIFS_GUARDED_BY(mutex_) = nullptr;
  int storage_status_ OCIFS_GUARDED_BY(mutex_) = 307;
  FaultList faults_ OCIFS_GUARDED_BY(mutex_);
  RangeBehaviour ranges_ OCIFS_GUARDED_BY(mutex_) = RangeBehaviour::kHonoured;
  std::vector<ServerRequest> requests_ OCIFS_GUARDED_BY(mutex_);

  HttpServer server_;  // last: its threads use all of the above
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_FAKE_REGISTRY_H_
