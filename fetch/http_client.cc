#include "fetch/http_client.h"

#include <utility>

#include "fetch/http_channel.h"
#include "fetch/http_engine.h"
#include "fetch/http_handle.h"
#include "store/mutex.h"

namespace ocifs::fetch {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
using store::Result;

// Wakes the reader when the caller's stop token fires.
class HttpTransfer::StopWatcher {
 public:
  StopWatcher(std::stop_token stop, HttpChannel& channel)
      : callback_(std::move(stop), Wake{channel}) {}

 private:
  struct Wake {
    HttpChannel& channel;
    void operator()() const {
      {
        const MutexLock lock(channel.mutex);
        channel.stopped = true;
      }
      channel.changed.NotifyAll();
    }
  };
  std::stop_callback<Wake> callback_;
};

HttpTransfer::HttpTransfer(std::shared_ptr<HttpEngine> engine, std::shared_ptr<HttpChannel> channel,
                           HttpRequest request, std::stop_token stop)
    : request_(std::move(request)),
      engine_(std::move(engine)),
      channel_(std::move(channel)),
      stop_watcher_(std::make_unique<StopWatcher>(std::move(stop), *channel_)) {}

HttpTransfer::~HttpTransfer() {
  stop_watcher_.reset();
  bool finished = false;
  {
    const MutexLock lock(channel_->mutex);
    channel_->abandoned = true;
    finished = channel_->finished;
  }
  if (!finished) engine_->Post(HttpEngine::Command::kCancel, channel_);
}

std::string HttpTransfer::Describe() const { return DescribeRequest(request_); }

bool HttpTransfer::connected() const { return channel_->connected.load(); }

bool HttpTransfer::reused_connection() const {
  const MutexLock lock(channel_->mutex);
  return channel_->reused_connection;
}

size_t HttpTransfer::buffered_bytes() const {
  const MutexLock lock(channel_->mutex);
  return channel_->buffered;
}

Result<const HttpHead*> HttpTransfer::Head() {
  HttpChannel& channel = *channel_;
  const MutexLock lock(channel.mutex);
  while (true) {
    if (channel.stopped) return Fail(ErrorCode::kCancelled, channel.what + ": cancelled");
    if (channel.has_head) return &channel.head;
    if (channel.finished) {
      return Fail(channel.failure.value_or(
          Error{ErrorCode::kInternal, channel.what + ": ended without an answer"}));
    }
    channel.changed.Wait(channel.mutex);
  }
}

Result<std::span<const std::byte>> HttpTransfer::Next() {
  HttpChannel& channel = *channel_;
  bool resume = false;
  {
    const MutexLock lock(channel.mutex);
    if (channel.current.bytes) {
      channel.current.size = 0;
      channel.spare.push_back(std::move(channel.current));
    }
    while (channel.filled.empty() || channel.stopped) {
      if (channel.stopped) return Fail(ErrorCode::kCancelled, channel.what + ": cancelled");
      if (channel.failure) return Fail(*channel.failure);
      if (channel.finished) return std::span<const std::byte>();
      channel.changed.Wait(channel.mutex);
    }
    channel.current = std::move(channel.filled.front());
    channel.filled.pop_front();
    channel.buffered -= channel.current.size;
    // With room for half a buffer the network works while the reader does.
    resume = channel.paused && channel.buffered <= channel.max_buffered_bytes / 2;
    if (resume) channel.paused = false;
  }
  if (resume) engine_->Post(HttpEngine::Command::kResume, channel_);
  return std::span<const std::byte>(channel.current.bytes.get(), channel.current.size);
}

Result<std::string> HttpTransfer::ReadAll(size_t max_bytes) {
  OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, Head());
  auto too_large = [&] {
    return Fail(ErrorCode::kTooLarge,
                Describe() + ": the answer is longer than " + std::to_string(max_bytes) + " bytes");
  };
  if (head->content_length && *head->content_length > max_bytes) return too_large();
  std::string text;
  if (head->content_length) text.reserve(*head->content_length);
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, Next());
    if (bytes.empty()) return text;
    if (bytes.size() > max_bytes - text.size()) return too_large();
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
}

Result<std::unique_ptr<HttpClient>> HttpClient::Create(HttpClientOptions options) {
  OCIFS_ASSIGN_OR_RETURN(std::shared_ptr<HttpEngine> engine, HttpEngine::Create(options));
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(options), std::move(engine)));
}

HttpClient::HttpClient(HttpClientOptions options, std::shared_ptr<HttpEngine> engine)
    : options_(std::move(options)),
      engine_(std::move(engine)),
      thread_([this] { engine_->Run(); }) {}

HttpClient::~HttpClient() {
  engine_->Stop();
  thread_.join();
}

bool HttpClient::HasProxyFor(const Url& url) const {
  const Result<std::optional<Proxy>> proxy = engine_->proxies().Find(url);
  return proxy && proxy->has_value();
}

std::unique_ptr<HttpTransfer> HttpClient::Start(HttpRequest request, std::stop_token stop) {
  auto channel = std::make_shared<HttpChannel>(request, options_);
  Result<std::unique_ptr<HttpHandle>> handle =
      HttpHandle::Make(*channel, request, options_, engine_->proxies(), engine_->sockets());
  // The transfer exists before the request is queued, so that an early stop is not missed.
  std::unique_ptr<HttpTransfer> transfer(
      new HttpTransfer(engine_, channel, std::move(request), std::move(stop)));
  if (handle) {
    channel->handle = *std::move(handle);
    engine_->Post(HttpEngine::Command::kStart, channel);
  } else {
    channel->Finish(std::move(handle).error());
  }
  return transfer;
}

}  // namespace ocifs::fetch
