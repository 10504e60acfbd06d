// A blob as it arrives from registries and mirrors: resumed after a break where it broke off, from
// another server if need be, and in several ranges at once when the server is far.
#ifndef OCIFS_FETCH_REGISTRY_BLOB_STREAM_H_
#define OCIFS_FETCH_REGISTRY_BLOB_STREAM_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>

#include "fetch/attempts.h"
#include "fetch/http_client.h"
#include "fetch/registry_host.h"
#include "store/manifest.h"
#include "store/source.h"

namespace ocifs::fetch {

struct BlobTransferOptions {
  // Servers at least that far away are asked for large blobs in ranges, several at a time: over a
  // long way a connection's window holds it back before the line does. The figures here and below
  // are those of tests/bench/far_registry.py. At 20 ms a window of 1 MiB gives 50 MB/s; ranges
  // double that where the line allows, and cost 5% where the window is no limit. The nearer, the
  // less there is to gain; on loopback they would cost a third to all of the time again.
  std::chrono::microseconds far{20'000};
  // Of one range at most, and at least half of it. No more than a transfer buffers, so that a range
  // that is not its turn yet can arrive whole. No less either: each waits for one round trip, and
  // at 80 ms and 100 Mbit/s ranges of 1 MiB take a tenth to a fifth longer than one request with a
  // window that is large enough; those of 4 MiB do not.
  uint64_t range_bytes = uint64_t{4} << 20;
  // Ranges under way for one blob; 1: never more than one request. Four windows of 256 KiB fill
  // 100 Mbit/s at 80 ms.
  int max_ranges = 4;
};

// Checks sizes and ranges while the bytes pass; the digest is for the reader, who hashes anyway.
//
// A reader sees one sequence of exactly blob.size bytes, or an error, whatever the servers do: what
// was handed out is never asked for again, except of a server that ignores ranges, whose first
// bytes are then read past.
class RegistryBlobStream final : public store::BlobStream {
 public:
  // `served` is told of each server whose bytes are handed out, once for each time it is chosen.
  // Sends the first request at once unless its server wants to be waited for.
  RegistryBlobStream(std::unique_ptr<Attempts> attempts, store::Descriptor blob,
                     const BlobTransferOptions& options, std::function<void(RegistryHost&)> served,
                     std::stop_token stop);
  ~RegistryBlobStream() override;

  store::Result<std::span<const std::byte>> Next() override;

 private:
  class Part;

  store::Result<std::span<const std::byte>> Read();
  // Finds the server whose turn it is.
  store::Result<void> TakeTurn();
  // Puts a part that begins at received_ in front.
  store::Result<void> OpenFront();
  void OpenMore();
  store::Result<std::unique_ptr<Part>> OpenPart(uint64_t begin, uint64_t end, bool extra);
  void Opened(Part& part);
  store::Result<void> Recover(Failure failure);
  bool IsFar() const;
  uint64_t EvenRange() const;

  const std::unique_ptr<Attempts> attempts_;
  const store::Descriptor blob_;
  const BlobTransferOptions options_;
  const std::function<void(RegistryHost&)> served_;
  const std::stop_token stop_;

  const Candidate* candidate_ = nullptr;  // whose turn it is
  bool has_turn_ = false;
  bool served_is_told_ = false;  // in this turn
  std::chrono::milliseconds connect_timeout_{0};
  bool fresh_connection_ = false;
  // Where the server that the registry redirects to gave a range of this blob: asked directly for
  // the others, until it refuses (signed URLs expire).
  std::optional<HttpRequest> direct_;
  bool no_ranges_ = false;                   // the server whose turn it is does not do them
  uint64_t range_bytes_ = 0;                 // of the ranges that are asked for now
  std::string etag_;                         // of that server's answers; only strong ones
  std::deque<std::unique_ptr<Part>> parts_;  // in order; the first is being read
  uint64_t received_ = 0;
  std::optional<store::Error> failure_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_BLOB_STREAM_H_
