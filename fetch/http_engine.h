// libcurl's multi handle and the thread that drives it.
#ifndef OCIFS_FETCH_HTTP_ENGINE_H_
#define OCIFS_FETCH_HTTP_ENGINE_H_

#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fetch/http_channel.h"
#include "fetch/http_client.h"
#include "fetch/http_handle.h"
#include "fetch/proxy.h"
#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

// Thread-safe but for Run. Owns the multi handle, which only the thread in Run touches, apart from
// its wake-up.
class HttpEngine {
 public:
  enum class Command { kStart, kResume, kCancel };

  static store::Result<std::shared_ptr<HttpEngine>> Create(const HttpClientOptions& options);
  ~HttpEngine();
  HttpEngine(const HttpEngine&) = delete;
  HttpEngine& operator=(const HttpEngine&) = delete;

  // Until Stop; then all channels fail with kShuttingDown.
  void Run();
  void Stop() OCIFS_EXCLUDES(mutex_);
  void Post(Command command, const std::shared_ptr<HttpChannel>& channel) OCIFS_EXCLUDES(mutex_);

  const ProxyRules& proxies() const { return proxies_; }
  OpenSockets& sockets() { return sockets_; }

 private:
  using Queue = std::vector<std::pair<Command, std::shared_ptr<HttpChannel>>>;

  HttpEngine(void* multi, ProxyRules proxies) : multi_(multi), proxies_(std::move(proxies)) {}

  void Execute(Command command, const std::shared_ptr<HttpChannel>& channel);
  void Remove(HttpChannel& channel, std::optional<store::Error> failure);
  void CollectFinished();
  void Complete(HttpChannel& channel, int code);
  bool TryAgain(HttpChannel& channel, int code, const std::optional<store::Error>& failure);
  void WakeReaders();

  void* const multi_;
  const ProxyRules proxies_;
  // Only Run's thread, and the destructor.
  OpenSockets sockets_;
  std::unordered_map<HttpChannel*, std::shared_ptr<HttpChannel>> active_;
  store::Mutex mutex_;
  Queue queue_ OCIFS_GUARDED_BY(mutex_);
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HTTP_ENGINE_H_
