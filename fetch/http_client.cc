#include "fetch/http_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <unordered_map>
#include <utility>

#include "store/mutex.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Mutex;
using store::MutexLock;
using store::Result;

constexpr size_t kBlockBytes = size_t{256} << 10;

std::string AsciiLower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return lower;
}

std::string_view TrimSpace(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string_view MethodName(HttpMethod method) {
  return method == HttpMethod::kPost ? "POST" : "GET";
}

std::string DescribeRequest(const HttpRequest& request) {
  return std::string(MethodName(request.method)) + " " + request.url.ForDisplay();
}

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

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// A piece of a body. The reader owns the one it looks at, the channel all others.
struct Block {
  std::unique_ptr<std::byte[]> bytes;
  size_t size = 0;
};

}  // namespace

const std::string* HttpHeaders::Find(std::string_view name) const {
  for (const HttpHeader& field : fields_) {
    if (field.name == name) return &field.value;
  }
  return nullptr;
}

std::vector<std::string> HttpHeaders::FindAll(std::string_view name) const {
  std::vector<std::string> values;
  for (const HttpHeader& field : fields_) {
    if (field.name == name) values.push_back(field.value);
  }
  return values;
}

std::string HttpHead::MediaType() const {
  const std::string* const value = headers.Find("content-type");
  if (value == nullptr) return "";
  return AsciiLower(TrimSpace(std::string_view(*value).substr(0, value->find(';'))));
}

// Blocks fill at the back, by the engine's thread, and leave at the front, with the reader. Bytes
// cross once: libcurl's buffer is copied into a block, and the block is handed over whole.
struct HttpChannel {
  explicit HttpChannel(size_t max_buffered) : max_buffered_bytes(max_buffered) {}

  // A description for messages; constant after construction.
  std::string what;
  const size_t max_buffered_bytes;
  size_t max_header_bytes = 0;
  AddressScope reach = AddressScope::kLoopback;

  Mutex mutex;
  store::CondVar changed;
  HttpHead head OCIFS_GUARDED_BY(mutex);  // constant once has_head
  bool has_head OCIFS_GUARDED_BY(mutex) = false;
  bool reused_connection OCIFS_GUARDED_BY(mutex) = false;
  bool finished OCIFS_GUARDED_BY(mutex) = false;
  std::optional<Error> failure OCIFS_GUARDED_BY(mutex);
  bool stopped OCIFS_GUARDED_BY(mutex) = false;    // the caller's stop token
  bool abandoned OCIFS_GUARDED_BY(mutex) = false;  // the reader is gone
  bool paused OCIFS_GUARDED_BY(mutex) = false;
  std::deque<Block> filled OCIFS_GUARDED_BY(mutex);
  std::vector<Block> spare OCIFS_GUARDED_BY(mutex);
  size_t buffered OCIFS_GUARDED_BY(mutex) = 0;

  // Only the reader.
  Block current;

  // Only the engine's thread, once Start has queued the channel.
  std::unique_ptr<CURL, EasyDeleter> easy;
  std::unique_ptr<curl_slist, ListDeleter> header_list;
  std::string post_body;
  std::array<char, CURL_ERROR_SIZE> error_text{};
  HttpHead parsed;
  size_t header_bytes = 0;
  bool head_done = false;
  bool chunked = false;
  bool dirty = false;            // the reader has something to look at
  std::optional<Error> refusal;  // why a callback of ours ended the transfer

  size_t Refuse(ErrorCode code, std::string_view why) {
    if (!refusal) refusal = Error{code, what + ": " + std::string(why)};
    return 0;
  }
  size_t OnHeaderLine(std::string_view line);
  bool OnHeadComplete();
  size_t OnBody(std::span<const std::byte> bytes);
  bool MayConnectTo(std::string_view address);
};

// Returns the length to go on, anything else to end the transfer.
size_t HttpChannel::OnHeaderLine(std::string_view line) {
  const size_t length = line.size();
  header_bytes += length;
  if (header_bytes > max_header_bytes) {
    return Refuse(ErrorCode::kRemote, "more than " + std::to_string(max_header_bytes >> 10) +
                                          " KiB of headers; the server is broken or hostile");
  }
  if (head_done) return length;  // trailers
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.find_first_of(std::string_view("\0\r", 2)) != std::string_view::npos) {
    return Refuse(ErrorCode::kRemote, "control characters in a header line");
  }
  if (line.empty()) return OnHeadComplete() ? length : 0;
  if (line.starts_with("HTTP/") && line.find(':') > line.find(' ')) {
    parsed = HttpHead{.peer = parsed.peer};
    chunked = false;
    const size_t space = line.find(' ');
    const std::string_view status = line.substr(std::min(space, line.size() - 1) + 1, 3);
    const std::optional<uint64_t> number = store::ParseDecimal(status, 999);
    if (space == std::string_view::npos || status.size() != 3 || !number || *number < 100) {
      return Refuse(ErrorCode::kRemote, "the status line does not parse");
    }
    parsed.status = static_cast<int>(*number);
    return length;
  }
  const size_t colon = line.find(':');
  // A line that continues the one before (obsolete since RFC 7230) carries nothing we need.
  if (colon == std::string_view::npos || line.front() == ' ' || line.front() == '\t') return length;
  std::string name = AsciiLower(line.substr(0, colon));
  const std::string_view value = TrimSpace(line.substr(colon + 1));
  if (name == "content-length") {
    const std::optional<uint64_t> number = store::ParseDecimal(value, INT64_MAX);
    if (!number || (parsed.content_length && *parsed.content_length != *number)) {
      return Refuse(ErrorCode::kRemote, "Content-Length is not one number");
    }
    parsed.content_length = number;
  } else if (name == "transfer-encoding") {
    chunked = true;
  }
  parsed.headers.Add(std::move(name), std::string(value));
  return length;
}

bool HttpChannel::OnHeadComplete() {
  if (parsed.status < 200) return true;  // an interim answer; the real one follows
  if (chunked && parsed.content_length) {
    Refuse(ErrorCode::kRemote, "both Content-Length and Transfer-Encoding");
    return false;
  }
  const std::string* const encoding = parsed.headers.Find("content-encoding");
  if (parsed.status < 300 && encoding != nullptr && AsciiLower(*encoding) != "identity") {
    Refuse(ErrorCode::kRemote,
           "answered with Content-Encoding '" + encoding->substr(0, 40) +
               "' though none was accepted; a proxy on the way must not recode the body");
    return false;
  }
  head_done = true;
  dirty = true;
  long connections = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_NUM_CONNECTS, &connections);
  if (connections > 0) {
    curl_off_t connected = 0;
    curl_off_t resolved = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_CONNECT_TIME_T, &connected);
    curl_easy_getinfo(easy.get(), CURLINFO_NAMELOOKUP_TIME_T, &resolved);
    parsed.connect_time = std::chrono::microseconds(std::max<curl_off_t>(connected - resolved, 0));
  }
  const MutexLock lock(mutex);
  reused_connection = connections == 0;
  head = parsed;
  has_head = true;
  return true;
}

size_t HttpChannel::OnBody(std::span<const std::byte> bytes) {
  const size_t length = bytes.size();
  const MutexLock lock(mutex);
  if (abandoned || stopped) return 0;
  if (buffered != 0 && buffered + length > max_buffered_bytes) {
    paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  while (!bytes.empty()) {
    if (filled.empty() || filled.back().size == kBlockBytes) {
      if (spare.empty()) {
        filled.push_back({std::make_unique_for_overwrite<std::byte[]>(kBlockBytes), 0});
      } else {
        filled.push_back(std::move(spare.back()));
        spare.pop_back();
      }
    }
    Block& block = filled.back();
    const size_t count = std::min(bytes.size(), kBlockBytes - block.size);
    std::memcpy(block.bytes.get() + block.size, bytes.data(), count);
    block.size += count;
    bytes = bytes.subspan(count);
  }
  buffered += length;
  dirty = true;
  return length;
}

bool HttpChannel::MayConnectTo(std::string_view address) {
  // A zone ("fe80::1%eth0") does not change the scope.
  const std::optional<AddressScope> scope = ScopeOfAddress(address.substr(0, address.find('%')));
  if (scope) parsed.peer = *scope;
  if (scope && *scope <= reach) return true;
  Refuse(ErrorCode::kDenied,
         "its name stands for the " +
             std::string(AddressScopeName(scope.value_or(AddressScope::kLinkLocal))) + " address " +
             std::string(address) + ", which a server outside of that network may not send us to");
  return false;
}

namespace {

size_t HeaderCallback(char* data, size_t size, size_t count, void* channel) {
  return static_cast<HttpChannel*>(channel)->OnHeaderLine({data, size * count});
}

size_t WriteCallback(char* data, size_t size, size_t count, void* channel) {
  return static_cast<HttpChannel*>(channel)->OnBody(std::as_bytes(std::span(data, size * count)));
}

// Before a connection is made: nothing at all is sent to an address out of reach.
curl_socket_t OpenSocketCallback(void* channel, curlsocktype, curl_sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* bytes = nullptr;
  if (address->family == AF_INET) {
    bytes = &reinterpret_cast<const sockaddr_in*>(&address->addr)->sin_addr;
  } else if (address->family == AF_INET6) {
    bytes = &reinterpret_cast<const sockaddr_in6*>(&address->addr)->sin6_addr;
  }
  if (bytes == nullptr ||
      inet_ntop(address->family, bytes, text.data(), static_cast<socklen_t>(text.size())) ==
          nullptr ||
      !static_cast<HttpChannel*>(channel)->MayConnectTo(text.data())) {
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// Before a request is sent, also on a connection that another request has opened.
int PrerequisiteCallback(void* channel, char* address, char*, int, int) {
  return static_cast<HttpChannel*>(channel)->MayConnectTo(address) ? CURL_PREREQFUNC_OK
                                                                   : CURL_PREREQFUNC_ABORT;
}

ErrorCode CodeOf(CURLcode code, long os_error, bool has_head) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
    case CURLE_PROXY:
    case CURLE_NO_CONNECTION_AVAILABLE:
      return os_error == EMFILE || os_error == ENFILE ? ErrorCode::kTooManyFiles
                                                      : ErrorCode::kUnavailable;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
      return has_head ? ErrorCode::kRemote : ErrorCode::kUnavailable;
    case CURLE_OPERATION_TIMEDOUT:
      return ErrorCode::kTimedOut;
    case CURLE_SSL_CONNECT_ERROR:
      // A connection that broke during the handshake says nothing about trust.
      return os_error == ECONNRESET || os_error == EPIPE ? ErrorCode::kUnavailable
                                                         : ErrorCode::kDenied;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_USE_SSL_FAILED:
      return ErrorCode::kDenied;
    case CURLE_OUT_OF_MEMORY:
      return ErrorCode::kOutOfMemory;
    case CURLE_PARTIAL_FILE:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:  // also an answer in HTTP/0.9
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_BAD_CONTENT_ENCODING:
      return ErrorCode::kRemote;
    default:
      return ErrorCode::kInternal;
  }
}

std::string_view AdviceFor(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "; check the network and the host's name";
    case ErrorCode::kTimedOut:
      return "; the server is too slow or unreachable, try again later";
    case ErrorCode::kDenied:
      return "; if the registry has a certificate of its own, configure its ca_file";
    case ErrorCode::kTooManyFiles:
      return "; raise the limit on open files";
    default:
      return "";
  }
}

// libcurl's text names hosts, ports and lengths, never the URL or a header.
Error ErrorFromCurl(CURLcode code, const HttpChannel& channel) {
  long os_error = 0;
  curl_easy_getinfo(channel.easy.get(), CURLINFO_OS_ERRNO, &os_error);
  const ErrorCode translated = CodeOf(code, os_error, channel.head_done);
  std::string why =
      channel.error_text[0] != '\0' ? channel.error_text.data() : curl_easy_strerror(code);
  if (code == CURLE_PARTIAL_FILE) why = "the connection ended before the body did (" + why + ")";
  return Error{translated, channel.what + ": " + why + std::string(AdviceFor(translated))};
}

Result<void> InitialiseCurlOnce() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code == CURLE_OK) return {};
  return Fail(ErrorCode::kInternal, std::string("starting libcurl: ") + curl_easy_strerror(code));
}

// Sets options one after the other and remembers the first that libcurl refused.
class EasySetup {
 public:
  explicit EasySetup(CURL* easy) : easy_(easy) {}
  template <typename T>
  void Set(CURLoption option, T value) {
    if (code_ == CURLE_OK) code_ = curl_easy_setopt(easy_, option, value);
  }
  CURLcode code() const { return code_; }

 private:
  CURL* easy_;
  CURLcode code_ = CURLE_OK;
};

bool IsSafeHeader(const HttpHeader& header) {
  constexpr std::string_view kForbidden("\r\n\0", 3);
  return header.name.find_first_of(kForbidden) == std::string::npos &&
         header.value.find_first_of(kForbidden) == std::string::npos && !header.value.empty();
}

Result<void> Configure(HttpChannel& channel, const HttpRequest& request,
                       const HttpClientOptions& options) {
  channel.easy.reset(curl_easy_init());
  if (!channel.easy) return Fail(ErrorCode::kOutOfMemory, channel.what + ": out of memory");
  auto add_header = [&](const std::string& line) {
    curl_slist* const longer = curl_slist_append(channel.header_list.get(), line.c_str());
    if (longer == nullptr) return false;
    // libcurl appends in place: the head changes only when the list was empty.
    if (!channel.header_list) channel.header_list.reset(longer);
    return true;
  };
  bool added = add_header("Accept-Encoding: identity");
  for (const HttpHeader& header : request.headers) {
    if (!IsSafeHeader(header)) {
      return Fail(ErrorCode::kInternal, channel.what + ": the value of header " +
                                            header.name.substr(0, 40) +
                                            " is empty or holds a line break");
    }
    added = added && add_header(header.name + ": " + header.value);
  }
  if (!added) return Fail(ErrorCode::kOutOfMemory, channel.what + ": out of memory");

  EasySetup setup(channel.easy.get());
  setup.Set(CURLOPT_PRIVATE, static_cast<void*>(&channel));
  setup.Set(CURLOPT_ERRORBUFFER, channel.error_text.data());
  setup.Set(CURLOPT_URL, request.url.ToString().c_str());
  setup.Set(CURLOPT_PROTOCOLS_STR, "http,https");
  setup.Set(CURLOPT_FOLLOWLOCATION, 0L);
  setup.Set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  setup.Set(CURLOPT_NOSIGNAL, 1L);
  // Without it, cancelling a transfer whose name is being resolved waits for the resolver, and
  // every other transfer with it.
  setup.Set(CURLOPT_QUICK_EXIT, 1L);
  setup.Set(CURLOPT_HTTPHEADER, channel.header_list.get());
  setup.Set(CURLOPT_USERAGENT,
            options.user_agent.empty() ? "ocifs/" OCIFS_VERSION : options.user_agent.c_str());
  setup.Set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  setup.Set(CURLOPT_HTTP_VERSION,
            static_cast<long>(request.connection == HttpConnection::kOwn ? CURL_HTTP_VERSION_1_1
                                                                         : CURL_HTTP_VERSION_2TLS));
  const std::chrono::milliseconds connect_timeout =
      request.connect_timeout.count() > 0 ? request.connect_timeout : options.connect_timeout;
  setup.Set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_timeout.count()));
  setup.Set(CURLOPT_FRESH_CONNECT, request.fresh_connection ? 1L : 0L);
  setup.Set(CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(options.low_speed_bytes_per_second));
  setup.Set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.low_speed_time.count()));
  setup.Set(CURLOPT_TCP_KEEPALIVE, 1L);
  setup.Set(CURLOPT_BUFFERSIZE, static_cast<long>(512 << 10));
  setup.Set(CURLOPT_HEADERFUNCTION, &HeaderCallback);
  setup.Set(CURLOPT_HEADERDATA, static_cast<void*>(&channel));
  setup.Set(CURLOPT_WRITEFUNCTION, &WriteCallback);
  setup.Set(CURLOPT_WRITEDATA, static_cast<void*>(&channel));
  setup.Set(CURLOPT_OPENSOCKETFUNCTION, &OpenSocketCallback);
  setup.Set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&channel));
  setup.Set(CURLOPT_PREREQFUNCTION, &PrerequisiteCallback);
  setup.Set(CURLOPT_PREREQDATA, static_cast<void*>(&channel));
  // A proxy has no way to this host's own loopback interface.
  if (ScopeOfHost(request.url.host()) == AddressScope::kLoopback) {
    setup.Set(CURLOPT_PROXY, "");
  }
  if (!request.tls.ca_files.empty()) {
    setup.Set(CURLOPT_CAINFO, request.tls.ca_files.front().c_str());
  }
  if (request.method == HttpMethod::kPost) {
    channel.post_body = request.body;
    setup.Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(channel.post_body.size()));
    setup.Set(CURLOPT_POSTFIELDS, channel.post_body.data());
  }
  if (setup.code() != CURLE_OK) {
    return Fail(ErrorCode::kInternal, channel.what + ": " + curl_easy_strerror(setup.code()));
  }
  return {};
}

}  // namespace

// Owns the multi handle, which only the thread in Run touches, apart from curl_multi_wakeup.
class HttpEngine {
 public:
  enum class Command { kStart, kResume, kCancel };

  explicit HttpEngine(CURLM* multi) : multi_(multi) {}
  ~HttpEngine() {
    const SignalBlock block;  // idle TLS connections say goodbye
    curl_multi_cleanup(multi_);
  }
  HttpEngine(const HttpEngine&) = delete;
  HttpEngine& operator=(const HttpEngine&) = delete;

  void Run();
  void Stop() OCIFS_EXCLUDES(mutex_);
  void Post(Command command, const std::shared_ptr<HttpChannel>& channel) OCIFS_EXCLUDES(mutex_);

  // Ends a channel; `failure` empty means that the body is complete.
  static void Finish(HttpChannel& channel, std::optional<Error> failure);

 private:
  using Queue = std::vector<std::pair<Command, std::shared_ptr<HttpChannel>>>;

  void Execute(Command command, const std::shared_ptr<HttpChannel>& channel);
  void Remove(HttpChannel& channel, std::optional<Error> failure);
  void CollectFinished();
  void WakeReaders();

  CURLM* const multi_;
  std::unordered_map<HttpChannel*, std::shared_ptr<HttpChannel>> active_;  // only Run's thread
  Mutex mutex_;
  Queue queue_ OCIFS_GUARDED_BY(mutex_);
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
};

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
    Finish(*channel, Error{ErrorCode::kShuttingDown, channel->what + ": shutting down"});
  }
}

void HttpEngine::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  curl_multi_wakeup(multi_);
}

void HttpEngine::Finish(HttpChannel& channel, std::optional<Error> failure) {
  {
    const MutexLock lock(channel.mutex);
    if (channel.finished) return;
    channel.finished = true;
    channel.failure = std::move(failure);
  }
  channel.changed.NotifyAll();
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
      const CURLMcode code = curl_multi_add_handle(multi_, channel->easy.get());
      if (code != CURLM_OK) {
        Finish(*channel,
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
      curl_easy_pause(channel->easy.get(), CURLPAUSE_CONT);
      return;
    case Command::kCancel:
      if (!active_.contains(channel.get())) return;
      Remove(*channel, Error{ErrorCode::kCancelled, channel->what + ": cancelled"});
      return;
  }
}

void HttpEngine::Remove(HttpChannel& channel, std::optional<Error> failure) {
  curl_multi_remove_handle(multi_, channel.easy.get());
  Finish(channel, std::move(failure));
  active_.erase(&channel);
}

void HttpEngine::CollectFinished() {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    void* pointer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
    auto& channel = *static_cast<HttpChannel*>(pointer);
    const CURLcode code = message->data.result;
    std::optional<Error> failure;
    if (!channel.head_done) {
      // Nobody has connected, but somebody was connected: over what an earlier request left.
      long connections = 0;
      long port = 0;
      curl_easy_getinfo(message->easy_handle, CURLINFO_NUM_CONNECTS, &connections);
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIMARY_PORT, &port);
      const MutexLock lock(channel.mutex);
      channel.reused_connection = connections == 0 && port != 0;
    }
    if (code != CURLE_OK) {
      failure = channel.refusal ? *channel.refusal : ErrorFromCurl(code, channel);
    } else if (!channel.head_done) {
      failure = Error{ErrorCode::kRemote, channel.what + ": the answer has no status"};
    }
    Remove(channel, std::move(failure));
  }
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
  OCIFS_RETURN_IF_ERROR(InitialiseCurlOnce());
  CURLM* const multi = curl_multi_init();
  if (multi == nullptr) return Fail(ErrorCode::kOutOfMemory, "starting libcurl: out of memory");
  auto engine = std::make_shared<HttpEngine>(multi);
  curl_multi_setopt(multi, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_MULTIPLEX));
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, static_cast<long>(options.max_idle_connections));
  curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                    static_cast<long>(options.max_connections_per_host));
  curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                    static_cast<long>(options.max_connections));
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

std::unique_ptr<HttpTransfer> HttpClient::Start(HttpRequest request, std::stop_token stop) {
  auto channel = std::make_shared<HttpChannel>(options_.max_buffered_bytes);
  channel->what = DescribeRequest(request);
  channel->max_header_bytes = options_.max_header_bytes;
  channel->reach = request.reach;
  const Result<void> configured = Configure(*channel, request, options_);
  // The transfer exists before the request is queued, so that an early stop is not missed.
  std::unique_ptr<HttpTransfer> transfer(
      new HttpTransfer(engine_, channel, std::move(request), std::move(stop)));
  if (configured) {
    engine_->Post(HttpEngine::Command::kStart, channel);
  } else {
    HttpEngine::Finish(*channel, configured.error());
  }
  return transfer;
}

}  // namespace ocifs::fetch
