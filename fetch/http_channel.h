// What the engine's thread and one reader share of a transfer: the answer's head, and blocks of its
// body. Knows HTTP's framing rules, and nothing of libcurl.
#ifndef OCIFS_FETCH_HTTP_CHANNEL_H_
#define OCIFS_FETCH_HTTP_CHANNEL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/http_client.h"
#include "fetch/http_failure.h"
#include "fetch/proxy.h"
#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

class HttpHandle;  // libcurl's side of the transfer

// "GET https://host/path", without the query.
std::string DescribeRequest(const HttpRequest& request);

// Blocks fill at the back, by the engine's thread, and leave at the front, with the reader. Bytes
// cross once: libcurl's buffer is copied into a block, and the block is handed over whole.
struct HttpChannel {
  // A piece of a body. The reader owns the one it looks at, the channel all others.
  struct Block {
    std::unique_ptr<std::byte[]> bytes;
    size_t size = 0;
  };
  enum class Accept { kAll, kPause, kEnd };

  HttpChannel(const HttpRequest& request, const HttpClientOptions& options);
  ~HttpChannel();
  HttpChannel(const HttpChannel&) = delete;
  HttpChannel& operator=(const HttpChannel&) = delete;

  // Constant once Start has queued the channel.
  const std::string what;  // for messages
  const HttpMethod method;
  const AddressScope reach;
  const size_t max_buffered_bytes;
  const size_t max_header_bytes;
  HttpRoute route;
  std::optional<AddressScope> named_scope;  // of the host, when it is an address or localhost

  store::Mutex mutex;
  store::CondVar changed;
  HttpHead head OCIFS_GUARDED_BY(mutex);  // constant once has_head
  bool has_head OCIFS_GUARDED_BY(mutex) = false;
  bool reused_connection OCIFS_GUARDED_BY(mutex) = false;
  std::atomic<bool> connected = false;
  bool finished OCIFS_GUARDED_BY(mutex) = false;
  std::optional<store::Error> failure OCIFS_GUARDED_BY(mutex);
  bool stopped OCIFS_GUARDED_BY(mutex) = false;    // the caller's stop token
  bool abandoned OCIFS_GUARDED_BY(mutex) = false;  // the reader is gone
  bool paused OCIFS_GUARDED_BY(mutex) = false;
  std::deque<Block> filled OCIFS_GUARDED_BY(mutex);
  std::vector<Block> spare OCIFS_GUARDED_BY(mutex);
  size_t buffered OCIFS_GUARDED_BY(mutex) = 0;

  // Only the reader.
  Block current;

  // Only the engine's thread, once Start has queued the channel.
  std::unique_ptr<HttpHandle> handle;
  HttpHead parsed;
  size_t header_bytes = 0;
  bool head_done = false;
  bool chunked = false;
  bool dirty = false;                   // the reader has something to look at
  bool stale = false;                   // the connection held bytes before our request was sent
  bool renewed = false;                 // this is the second try, on a connection of its own
  std::optional<store::Error> refusal;  // why a callback of ours ended the transfer

  // Each is false when the transfer must end; `refusal` then says why.
  bool OnHeaderLine(std::string_view line);
  bool OnAddress(std::string_view address);  // of whom we are about to connect to, or have

  Accept OnBody(std::span<const std::byte> bytes) OCIFS_EXCLUDES(mutex);
  // Publishes the head once OnHeaderLine has seen all of it.
  void PublishHead(bool reused) OCIFS_EXCLUDES(mutex);
  // Ends the channel, once; an empty `why` means that the body is complete.
  void Finish(std::optional<store::Error> why) OCIFS_EXCLUDES(mutex);
  // Forgets what the first try has brought, which is no head.
  void Renew();

 private:
  bool Refuse(store::ErrorCode code, std::string_view why);
  bool OnStatusLine(std::string_view line);
  bool OnHeadComplete();
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HTTP_CHANNEL_H_
