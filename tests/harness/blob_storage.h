// Object storage on loopback that a registry redirects to: signed URLs that expire after so many
// uses, ranges, XML errors, and no patience with credentials.
//
//   BlobStorage storage({.uses_per_url = 1});
//   registry.RedirectBlobsTo(&storage);
#ifndef OCIFS_TESTS_HARNESS_BLOB_STORAGE_H_
#define OCIFS_TESTS_HARNESS_BLOB_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "store/mutex.h"
#include "tests/harness/byte_range.h"
#include "tests/harness/fault.h"
#include "tests/harness/http_server.h"

namespace ocifs::testing {

struct BlobStorageOptions {
  int uses_per_url = -1;  // GETs that a URL is good for; -1: any number
  RangeBehaviour ranges = RangeBehaviour::kHonoured;
  HttpServer::Transport transport = HttpServer::Transport::kPlain;
};

// Thread-safe. Outlives the registries that redirect to it.
//
// As Amazon S3 does, it answers 400 to a request that carries Authorization beside the signature,
// 403 with <Code>AccessDenied</Code> to a URL that has expired, and 403 to a HEAD with a URL that
// was signed for GET. Its entity tags are its own: they are no digests.
class BlobStorage {
 public:
  explicit BlobStorage(BlobStorageOptions options = {});

  uint16_t port() const { return server_.port(); }
  std::string host() const { return "127.0.0.1:" + std::to_string(server_.port()); }
  std::string url() const;
  const std::string& authority_pem() const { return server_.authority_pem(); }

  // A URL that no one has had before, under which GET gives `bytes`. `key` is part of its path.
  std::string Sign(const std::string& key, std::shared_ptr<const std::string> bytes);
  // All URLs signed so far are good for nothing.
  void ExpireUrls();
  size_t urls_signed() const;

  // Faults strike requests that have a valid URL and no credentials.
  void Inject(Fault fault);
  void ClearFaults();
  void Release() { server_.Release(); }
  void Step() { server_.Step(); }
  void WaitForStalled(size_t count = 1) { server_.WaitForStalled(count); }
  void CloseConnections() { server_.CloseConnections(); }

  // "METHOD path: why" of each request that a careful client would not have made: with credentials
  // of any kind, with a signature that was never given, or HEAD.
  std::vector<std::string> violations() const;
  std::vector<AuthorizationSighting> authorization_sightings() const {
    return server_.authorization_sightings();
  }
  std::vector<ServerRequest> requests() const;
  // "path range" of each request with a Range header, in their order.
  std::vector<std::string> ranges() const;
  uint64_t body_bytes_sent() const { return server_.body_bytes_sent(); }
  size_t connections_accepted() const { return server_.connections_accepted(); }

 private:
  struct SignedObject {
    std::string path;
    std::shared_ptr<const std::string> bytes;
    int uses_left;  // -1: any number
  };

  ServerResponse Handle(const ServerRequest& request) OCIFS_EXCLUDES(mutex_);

  const BlobStorageOptions options_;
  mutable store::Mutex mutex_;
  std::map<std::string, SignedObject> objects_ OCIFS_GUARDED_BY(mutex_);  // by signature
  FaultList faults_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::string> violations_ OCIFS_GUARDED_BY(mutex_);
  std::vector<ServerRequest> requests_ OCIFS_GUARDED_BY(mutex_);

  HttpServer server_;  // last: its threads use all of the above
};

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_BLOB_STORAGE_H_
