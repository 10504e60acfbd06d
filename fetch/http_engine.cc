#include "fetch/http_engine.h"

#include <curl/curl.h>
#include <signal.h>

#include <cstdlib>
#include <ctime>

#include "fetch/http_failure.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
using store::Result;

// Blocks all signals of this thread while it lives. With CURLOPT_NOSIGNAL libcurl leaves SIGPIPE to
// us, and OpenSSL's writes to a connection that the peer has closed raise it; other signals belong
// to the program's own threads.
class SignalBlock {
 public:
  SignalBlock() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalBlock() {
    // What arrived meanwhile must not strike now.
    const timespec none{};
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    while (sigtimedwait(&pipe, nullptr, &none) == SIGPIPE) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SignalBlock(const SignalBlock&) = delete;
  SignalBlock& operator=(const SignalBlock&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

Result<std::shared_ptr<HttpEngine>> HttpEngine::Create(const HttpClientOptions& options) {
  OCIFS_RETURN_IF_ERROR(InitialiseCurl());
  CURLM* const multi = curl_multi_init();
  if (multi == nullptr) return Fail(ErrorCode::kOutOfMemory, "starting libcurl: out of memory");
  curl_multi_setopt(multi, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_MULTIPLEX));
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, static_cast<long>(options.max_idle_connections));
  curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                    static_cast<long>(options.max_connections_per_host));
  curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                    static_cast<long>(options.max_connections));
  return std::shared_ptr<HttpEngine>(
      new HttpEngine(multi, ProxyRules(options.proxy, options.no_proxy, &std::getenv)));
}

HttpEngine::~HttpEngine() {
  const SignalBlock block;  // idle TLS connections say goodbye
  curl_multi_cleanup(multi_);
}

void HttpEngine::Post(Command command, const std::shared_ptr<HttpChannel>& channel) {
  bool stopping = false;
  {
    const MutexLock lock(mutex_);
    stopping = stopping_;
    if (!stopping) queue_.emplace_back(command, channel);
  }
  if (!stopping) {
    curl_multi_wakeup(multi_);
  } else if (command == Command::kStart) {
    channel->Finish(Error{ErrorCode::kShuttingDown, channel->what + ": shutting down"});
  }
}

void HttpEngine::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  curl_multi_wakeup(multi_);
}

void HttpEngine::Run() {
  const SignalBlock block;
  Queue queue;
  while (true) {
    bool stopping = false;
    {
      const MutexLock lock(mutex_);
      queue.swap(queue_);
      stopping = stopping_;
    }
    for (const auto& [command, channel] : queue) Execute(command, channel);
    queue.clear();
    if (stopping) break;
    int running = 0;
    curl_multi_perform(multi_, &running);
    CollectFinished();
    WakeReaders();
    // Returns early for sockets, for libcurl's own timers, and for curl_multi_wakeup.
    curl_multi_poll(multi_, nullptr, 0, 60'000, nullptr);
  }
  while (!active_.empty()) {
    HttpChannel& channel = *active_.begin()->first;
    Remove(channel, Error{ErrorCode::kShuttingDown, channel.what + ": shutting down"});
  }
}

void HttpEngine::Execute(Command command, const std::shared_ptr<HttpChannel>& channel) {
  switch (command) {
    case Command::kStart: {
      const CURLMcode code = curl_multi_add_handle(multi_, channel->handle->curl());
      if (code != CURLM_OK) {
        channel->Finish(
            Error{ErrorCode::kInternal, channel->what + ": " + curl_multi_strerror(code)});
        return;
      }
      active_.emplace(channel.get(), channel);
      return;
    }
    case Command::kResume:
      if (!active_.contains(channel.get())) return;
      {
        const MutexLock lock(channel->mutex);
        channel->paused = false;
      }
      // Hands over what libcurl held back, which may pause the transfer again.
      curl_easy_pause(channel->handle->curl(), CURLPAUSE_CONT);
      return;
    case Command::kCancel:
      if (!active_.contains(channel.get())) return;
      Remove(*channel, Error{ErrorCode::kCancelled, channel->what + ": cancelled"});
      return;
  }
}

void HttpEngine::Remove(HttpChannel& channel, std::optional<Error> failure) {
  curl_multi_remove_handle(multi_, channel.handle->curl());
  channel.Finish(std::move(failure));
  active_.erase(&channel);
}

void HttpEngine::CollectFinished() {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    void* channel = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &channel);
    Complete(*static_cast<HttpChannel*>(channel), code);
  }
}

void HttpEngine::Complete(HttpChannel& channel, int code) {
  std::optional<Error> failure;
  if (code != CURLE_OK) {
    failure = channel.refusal
                  ? *channel.refusal
                  : ExplainHttpFailure(channel.handle->Failure(code), channel.route, channel.what);
  } else if (!channel.head_done) {
    failure = Error{ErrorCode::kRemote, channel.what + ": the answer has no status"};
  }
  if (!channel.head_done) {
    if (TryAgain(channel, code, failure)) return;
    const MutexLock lock(channel.mutex);
    channel.reused_connection = channel.handle->Reuses();
  }
  Remove(channel, std::move(failure));
}

// What comes over a connection that an earlier request has left behind may be that request's: more
// body than its Content-Length said. One more try, on a connection of its own, tells. A GET may be
// repeated (RFC 9110 section 9.2.2), and so may what was never sent. libcurl itself repeats
// requests whose old connection turns out to be closed.
bool HttpEngine::TryAgain(HttpChannel& channel, int code, const std::optional<Error>& failure) {
  const bool never_sent = code == CURLE_ABORTED_BY_CALLBACK && channel.stale;
  const bool misled = channel.method == HttpMethod::kGet && failure &&
                      failure->code == ErrorCode::kRemote && channel.handle->Reuses();
  if (channel.renewed || (!never_sent && !misled)) return false;
  curl_multi_remove_handle(multi_, channel.handle->curl());
  channel.Renew();
  channel.handle->UseFreshConnection();
  return curl_multi_add_handle(multi_, channel.handle->curl()) == CURLM_OK;
}

// Once per round, not once per callback: a reader that is faster than the network would otherwise
// be woken for every 16 KiB.
void HttpEngine::WakeReaders() {
  for (const auto& [channel, owner] : active_) {
    if (std::exchange(channel->dirty, false)) {
      // An empty critical section orders the change before the wake-up of a reader about to wait.
      {
        const MutexLock lock(channel->mutex);
      }
      channel->changed.NotifyAll();
    }
  }
}

}  // namespace ocifs::fetch
