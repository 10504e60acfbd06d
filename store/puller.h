// Pulls one package: documents, layers, tree; verified, readable at once, durable soon after.
#ifndef OCIFS_STORE_PULLER_H_
#define OCIFS_STORE_PULLER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/committer.h"
#include "store/flight.h"
#include "store/ingest.h"
#include "store/package.h"
#include "store/pull_through.h"
#include "store/source.h"
#include "store/store.h"

namespace ocifs::store {

// Thread-safe.
class Puller {
 public:
  Puller(Store& store, Source& source, const PullThrough::Options& options, Committer& committer,
         UnkeptChunks& unkept)
      : store_(store), source_(source), options_(options), committer_(committer), unkept_(unkept) {}

  // Gets the package behind `root`, unless the store has it. Blocks; runs on a job thread.
  Result<std::shared_ptr<const StoredPackage>> Pull(const Repository& repository,
                                                    const Digest& root, const FetchContext& context,
                                                    FlightProgress& progress);

  // Goes through the content of a package again, that of one layer or (nullopt) of all, and keeps
  // what the store lacks or has damaged. From the raw blobs that the store has, else fetched.
  Result<void> Restore(const StoredPackage& package, std::optional<uint32_t> layer,
                       const FetchContext& context, FlightProgress& progress);

  // Gets one blob into the store (already there: no-op).
  Result<void> PullBlob(const Repository& repository, const Descriptor& blob,
                        const FetchContext& context, FlightProgress& progress);

  // Reads out.size() bytes of a blob at `offset` without keeping it: all of it is fetched, and
  // verified before the call returns.
  Result<void> StreamBlob(const Repository& repository, const Descriptor& blob, uint64_t offset,
                          std::span<std::byte> out, const FetchContext& context,
                          FlightProgress& progress);

  // One document by digest, verified; from the store, or fetched and then entered in `batch`.
  Result<std::string> GetDocument(const Repository& repository, const Descriptor& descriptor,
                                  const FetchContext& context, IndexBatch& batch);

 private:
  struct LayerJob;
  class Layers;

  // `get` again while what it gets is not the blob's content and another server may have that.
  template <typename Function>
  auto FromAnyServer(const Repository& repository, const Descriptor& blob, Function get)
      -> decltype(get()) {
    auto got = get();
    while (!got && got.error().code == ErrorCode::kCorrupt &&
           source_.RejectBlob(repository, blob)) {
      got = get();
    }
    return got;
  }

  Result<std::unique_ptr<Store::Lock>> Lock(const Digest& digest, const FetchContext& context,
                                            FlightProgress& progress);
  Result<std::unique_ptr<const Tree>> KeepTree(std::vector<std::byte> bytes, Committer::Work& work);
  Result<PackageDocuments> GetDocuments(const Repository& repository, const Digest& root,
                                        const FetchContext& context, IndexBatch& batch);
  Result<std::unique_ptr<ByteStream>> OpenRemote(const Repository& repository,
                                                 const Descriptor& blob,
                                                 const FetchContext& context);

  Store& store_;
  Source& source_;
  const PullThrough::Options& options_;
  Committer& committer_;
  UnkeptChunks& unkept_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_PULLER_H_
