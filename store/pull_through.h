// "Give me this package, this file range", whatever it takes: from the store when it is there, else
// pulled from the source, verified, kept, and then served from the store.
//
// Data flows one way: Source → decoders → packs, tree, index → readers. Readers of one thing share
// one fetch: the first starts it, the others wait; a waiter that goes away does not stop it.
#ifndef OCIFS_STORE_PULL_THROUGH_H_
#define OCIFS_STORE_PULL_THROUGH_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/limits.h"
#include "store/manifest.h"
#include "store/platform.h"
#include "store/reference.h"
#include "store/source.h"
#include "store/tree.h"

namespace ocifs::store {

class Store;

// How long a call may take and for whom it runs.
struct RequestContext {
  Requester requester;
  // Stop requested: the call returns kCancelled at once; what it waited for goes on.
  std::stop_token stop;
  enum class Wait {
    kNever,         // kWouldBlock instead of any wait for a network, a fetch or another process
    kUntilStalled,  // kTimedOut once nothing has moved for Options::stall_timeout
  };
  Wait wait = Wait::kUntilStalled;
};

// What a tag or digest stands for. Times are seconds since the epoch.
struct Resolution {
  Digest digest;                      // of the document the name points to: a manifest or an index
  std::string media_type;             // of that document
  int64_t fetched_at = 0;             // when the digest was first seen behind the name
  int64_t validated_at = 0;           // when the registry last said so
  std::optional<int64_t> expires_at;  // when it will be asked again; none: never
  bool from_registry = false;         // this call asked the registry
  bool stale = false;                 // expired, and the registry could not be asked
};

// A package that is complete in the store, or being committed to it. Immutable, thread-safe.
class Package {
 public:
  virtual ~Package() = default;
  virtual const Repository& origin() const = 0;       // the repository it was opened through
  virtual const Digest& root_digest() const = 0;      // what the reference resolved to
  virtual const Digest& manifest_digest() const = 0;  // of the image manifest for the platform
  virtual const Manifest& manifest() const = 0;
  virtual const std::string& manifest_bytes() const = 0;  // exact
  virtual const std::string& config_bytes() const = 0;    // exact
  // Exact bytes of the index; empty when the reference names the manifest itself.
  virtual const std::string& index_bytes() const = 0;
  virtual const Tree& tree() const = 0;
};

struct TagList {
  std::vector<std::string> tags;  // sorted bytewise, each once
  bool complete = false;          // all the registry has; else only what the store knows, or a part
  int64_t fetched_at = 0;         // 0: never asked
};

// Names directly below a repository path (or a registry, with an empty path) that the store knows.
struct KnownNames {
  std::vector<std::string> repositories;  // next path components
  std::vector<std::string> tags;          // tags of the path itself
};

struct CacheState {
  uint64_t bytes_present = 0;
  uint64_t bytes_total = 0;
};

// Progress of the fetches under way, for progress bars and `status`.
struct FetchProgress {
  std::string what;            // reference or blob digest
  uint64_t bytes_fetched = 0;  // compressed, as they came
  uint64_t bytes_total = 0;    // 0: not known yet
};

// Thread-safe. Every call that may use the network says so.
class PullThrough {
 public:
  struct Options {
    Platform platform;
    Limits limits;
    bool offline = false;  // no request is ever made; what is missing is kUnavailable
    std::chrono::milliseconds stall_timeout{30'000};
    std::chrono::seconds latest_ttl{300};   // how long the tag `latest` is not asked again
    std::chrono::seconds tag_list_ttl{10};  // how long a tag list is fresh
    std::chrono::seconds catalog_ttl{60};   // how long a registry's catalog is fresh
    std::chrono::seconds negative_ttl{10};  // how long "there is none" is believed
    // Seconds since the epoch; a seam for tests.
    std::function<int64_t()> now = [] { return static_cast<int64_t>(std::time(nullptr)); };
  };

  // `store` and `source` outlive the object.
  PullThrough(Store& store, Source& source, Options options);
  // Cancels fetches under way and waits for them.
  ~PullThrough();

  // Whether a registry of that name exists: in the store, or known to the source. May use DNS.
  Result<void> FindRegistry(const Registry& registry, const RequestContext& context);

  // What a reference stands for. A digest is its own answer if the store has it. A known tag that
  // has not expired costs no request; another costs one (conditional if it was known before).
  // kNotFound is remembered for negative_ttl.
  Result<Resolution> Resolve(const Reference& reference, const RequestContext& context);

  // The package behind `root`, pulled if the store lacks it: the manifest for the platform when
  // `root` is an index, the config unless inline, the layers; all blobs at once.
  Result<std::shared_ptr<const Package>> Open(const Repository& repository, const Digest& root,
                                              const RequestContext& context);

  // Reads min(out.size(), size - offset) bytes of a regular file; never fewer. The first read of a
  // chunk in this process verifies its digest. Content that is damaged or gone is fetched again.
  // kCorrupt when it is damaged and cannot be.
  Result<size_t> Read(const Package& package, NodeIndex file, uint64_t offset,
                      std::span<std::byte> out, const RequestContext& context);

  // The same for a raw blob of the package (one of its layers, or the config).
  Result<size_t> ReadBlob(const Package& package, const Descriptor& blob, uint64_t offset,
                          std::span<std::byte> out, const RequestContext& context);

  // Tags of a repository. `need` says how much must come from the registry when the known list is
  // older than tag_list_ttl: the whole list, or only its first page (one request; enough to know
  // that the repository exists). When the registry cannot be asked, the store's tags with
  // complete = false if there are any, else the error. kNotFound is remembered for negative_ttl.
  enum class TagsNeeded { kExistence, kAll };
  Result<TagList> Tags(const Repository& repository, TagsNeeded needed,
                       const RequestContext& context);

  // Repository paths that the source can list at no cost (a layout on disk); else kUnsupported.
  Result<std::vector<std::string>> ListRepositories(const Registry& registry,
                                                    const RequestContext& context);

  // Repository paths by the registry's catalog, at most catalog_ttl old; not all there is, as a
  // registry need not tell everybody everything. kUnsupported where it is not to be asked.
  Result<std::shared_ptr<const std::vector<std::string>>> Catalog(const Registry& registry,
                                                                  const RequestContext& context);

  // What the store knows; no request, no wait.
  Result<std::vector<Registry>> KnownRegistries();
  Result<KnownNames> Known(const Registry& registry, std::string_view path);
  Result<std::optional<Resolution>> KnownResolution(const Reference& reference);
  // How much of the content of the package behind `root` is in the store; nullopt if never pulled.
  Result<std::optional<CacheState>> Cached(const Digest& root);

  // Fetches what the store lacks of an open package's content: some of it may have been evicted, or
  // not kept for want of space. Nothing is done for a package that is whole.
  Result<void> Fill(const Package& package, const RequestContext& context);

  // Waits until all packages opened so far are durable in the store (they are readable before, from
  // content that was verified but not yet synced). The error of the last one that could not be
  // kept whole.
  Result<void> Flush(const RequestContext& context);

  std::vector<FetchProgress> Progress() const;

  const Options& options() const;
  Store& store();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PULL_THROUGH_H_
