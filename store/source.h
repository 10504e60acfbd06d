// Where packages come from. The store declares this interface, fetch implements it, and only the
// pull-through cache calls it, so every byte that enters passes the verifier and the index.
#ifndef OCIFS_STORE_SOURCE_H_
#define OCIFS_STORE_SOURCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "store/byte_stream.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/manifest.h"
#include "store/reference.h"

namespace ocifs::store {

// On whose behalf a fetch runs.
struct Requester {
  uint32_t uid = 0;
  uint32_t pid = 0;
};

struct FetchContext {
  Requester requester;
  // When stop is requested, calls return kCancelled soon (well under 100 ms).
  std::stop_token stop;
};

// A blob's bytes as they arrive: not verified. Errors that the server reported for the whole blob
// appear at the first Next(). Destroying the stream early cancels the transfer.
using BlobStream = ByteStream;

// A manifest or an index as a server sent it: bytes not verified against a digest.
struct RemoteDocument {
  std::string bytes;
  std::string media_type;  // Content-Type without parameters; may be empty
};

struct TagPage {
  std::vector<std::string> tags;  // valid tags, in the server's order; others are dropped
  std::string next;               // opaque cursor of the next page; empty after the last
};

// Thread-safe. Calls ask mirrors and try again as failures deserve, but none goes on for longer
// than about 30 s without progress; none caches anything but connections and tokens.
class Source {
 public:
  virtual ~Source() = default;

  // Whether there is such a registry at all: configured, or resolved by DNS. kNotFound when a
  // resolver says that there is no such name. Sends nothing to the registry itself.
  virtual Result<void> FindRegistry(const Registry& registry, const FetchContext& context) = 0;

  // One GET of a manifest or index, by tag or by digest. At most kMaxDocumentBytes. kNotFound only
  // from a valid registry answer (404 in the distribution-spec's form).
  // With `known`, the request is conditional; nullopt then says that the tag still has that digest.
  virtual Result<std::optional<RemoteDocument>> FetchManifest(const Reference& reference,
                                                              const std::optional<Digest>& known,
                                                              const FetchContext& context) = 0;

  // Starts to get a blob and returns at once. The stream gives exactly blob.size bytes or an error;
  // breaks on the way are mended. A missing blob is kRemote, not kNotFound: a manifest names it.
  virtual Result<std::unique_ptr<BlobStream>> OpenBlob(const Repository& repository,
                                                       const Descriptor& blob,
                                                       const FetchContext& context) = 0;

  // Whether there is another server that may have this blob than those that OpenBlob has got it
  // from.
  virtual bool HasAnotherServer(const Repository& repository, const Descriptor& blob) = 0;
  // What OpenBlob gave for this blob a moment ago was not its content. True when there is another
  // server that may have it: then opening it again is worth while.
  virtual bool RejectBlob(const Repository& repository, const Descriptor& blob) = 0;

  // One page of a repository's tags; `cursor` is empty for the first, else TagPage::next.
  // kNotFound when the registry says that there is no such repository.
  virtual Result<TagPage> ListTags(const Repository& repository, std::string_view cursor,
                                   const FetchContext& context) = 0;

  // Repository paths of a registry, where it can tell at no cost (a layout on disk); kUnsupported
  // where it cannot.
  virtual Result<std::vector<std::string>> ListRepositories(const Registry& registry,
                                                            const FetchContext& context) = 0;

  // Whether this registry is to be asked for its catalog. No request.
  virtual bool HasCatalog(const Registry& registry) const = 0;
  // Repository paths by the registry's catalog (GET /v2/_catalog), all or those that it cares to
  // tell; kUnsupported without HasCatalog.
  virtual Result<std::vector<std::string>> ListCatalog(const Registry& registry,
                                                       const FetchContext& context) = 0;

  // What refers to a manifest by its `subject`: descriptors with artifact type and annotations, all
  // or those of one `artifact_type`. Empty where there is nothing.
  virtual Result<std::vector<Descriptor>> ListReferrers(const Repository& repository,
                                                        const Digest& subject,
                                                        std::string_view artifact_type,
                                                        const FetchContext& context) = 0;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_SOURCE_H_
