#include "fetch/http_handle.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

// inet_ntop of an IPv4 or IPv6 address; empty for other families.
std::string AddressText(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* bytes = nullptr;
  if (address->sa_family == AF_INET) {
    bytes = &reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
  } else if (address->sa_family == AF_INET6) {
    bytes = &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  }
  if (bytes == nullptr || inet_ntop(address->sa_family, bytes, text.data(),
                                    static_cast<socklen_t>(text.size())) == nullptr) {
    return "";
  }
  return text.data();
}

// CURLE_TOO_LARGE of libcurl 8.6 and later.
constexpr int kCurlTooLarge = 100;

size_t HeaderCallback(char* data, size_t size, size_t count, void* handle) {
  return static_cast<HttpHandle*>(handle)->OnHeaderLine({data, size * count});
}

size_t WriteCallback(char* data, size_t size, size_t count, void* handle) {
  return static_cast<HttpHandle*>(handle)->OnBody({data, size * count});
}

// Before a connection is made: nothing at all is sent to an address out of reach.
curl_socket_t OpenSocketCallback(void* handle, curlsocktype, curl_sockaddr* address) {
  const std::string text = AddressText(&address->addr);
  if (text.empty()) return CURL_SOCKET_BAD;
  return static_cast<HttpHandle*>(handle)->OnOpenSocket(address->family, address->socktype,
                                                        address->protocol, text.c_str());
}

// Outlives the handle that opened the socket.
int CloseSocketCallback(void* sockets, curl_socket_t fd) {
  static_cast<OpenSockets*>(sockets)->Close(fd);
  return 0;
}

// Before a request is sent, also on a connection that another request has opened.
int PrerequisiteCallback(void* handle, char* address, char* local_address, int, int local_port) {
  return static_cast<HttpHandle*>(handle)->OnConnected(address, local_address, local_port)
             ? CURL_PREREQFUNC_OK
             : CURL_PREREQFUNC_ABORT;
}

bool IsSafeHeader(const HttpHeader& header) {
  constexpr std::string_view kForbidden("\r\n\0", 3);
  return header.name.find_first_of(kForbidden) == std::string::npos &&
         header.value.find_first_of(kForbidden) == std::string::npos && !header.value.empty();
}

// Sets options one after the other and remembers the first that libcurl refused.
class EasySetup {
 public:
  explicit EasySetup(CURL* easy) : easy_(easy) {}
  template <typename T>
  void Set(CURLoption option, T value) {
    if (code_ == CURLE_OK) code_ = curl_easy_setopt(easy_, option, value);
  }
  // The text is borrowed.
  void SetBlob(CURLoption option, std::string& text) {
    curl_blob blob{text.data(), text.size(), CURL_BLOB_NOCOPY};
    Set(option, &blob);
  }
  CURLcode code() const { return code_; }

 private:
  CURL* easy_;
  CURLcode code_ = CURLE_OK;
};

// Where libcurl was built to look for the system's authorities; null where it was not.
struct SystemAuthorities {
  const char* bundle = nullptr;
  bool hashed_directory = false;
};

const SystemAuthorities& FindSystemAuthorities() {
  static const SystemAuthorities found = [] {
    const curl_version_info_data* const info = curl_version_info(CURLVERSION_NOW);
    if (info->age < CURLVERSION_SEVENTH) return SystemAuthorities{};
    return SystemAuthorities{info->cainfo,
                             info->capath != nullptr && IsHashedDirectory(info->capath)};
  }();
  return found;
}

// Authorities given as a blob stand in the place of the system's bundle, but beside its directory.
// A system that has only a bundle gets it back.
Result<void> AddSystemAuthorities(std::string& authorities) {
  const SystemAuthorities& info = FindSystemAuthorities();
  if (info.hashed_directory || info.bundle == nullptr) return {};
  OCIFS_ASSIGN_OR_RETURN(const TlsMaterial system, ReadTlsFiles({.ca_files = {info.bundle}}));
  authorities += system.authorities;
  return {};
}

}  // namespace

void OpenSockets::Close(int fd) {
  fds_.erase(fd);
  close(fd);
}

bool OpenSockets::HasUnreadBytes(const std::string& address, int port) const {
  return std::any_of(fds_.begin(), fds_.end(), [&](int fd) {
    union {
      sockaddr generic;
      sockaddr_in v4;
      sockaddr_in6 v6;
    } local{};
    socklen_t length = sizeof(local);
    // The port stands at the same place in both.
    if (getsockname(fd, &local.generic, &length) != 0 || ntohs(local.v4.sin_port) != port ||
        AddressText(&local.generic) != address) {
      return false;
    }
    char byte = 0;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  });
}

void HttpHandle::CurlDeleter::operator()(void* curl) const { curl_easy_cleanup(curl); }
void HttpHandle::ListDeleter::operator()(void* list) const {
  curl_slist_free_all(static_cast<curl_slist*>(list));
}

HttpHandle::HttpHandle(HttpChannel& channel, OpenSockets& sockets, bool https)
    : channel_(channel),
      sockets_(sockets),
      https_(https),
      error_text_(std::make_unique<char[]>(CURL_ERROR_SIZE)),
      curl_(curl_easy_init()) {}

HttpHandle::~HttpHandle() = default;

Result<std::unique_ptr<HttpHandle>> HttpHandle::Make(HttpChannel& channel,
                                                     const HttpRequest& request,
                                                     const HttpClientOptions& options,
                                                     const ProxyRules& proxies,
                                                     OpenSockets& sockets) {
  auto with_name = [&](store::Error error) { return Fail(std::move(error).Wrap(channel.what)); };
  std::unique_ptr<HttpHandle> handle(new HttpHandle(channel, sockets, request.url.is_https()));
  if (!handle->curl_) return Fail(ErrorCode::kOutOfMemory, channel.what + ": out of memory");
  Result<std::optional<Proxy>> proxy = proxies.Find(request.url);
  if (!proxy) return with_name(std::move(proxy).error());
  if (*proxy) {
    channel.route.proxy = (*proxy)->display;
    channel.route.proxy_has_login = (*proxy)->has_login;
    handle->proxy_url_ = std::move((*proxy)->url);
  }
  if (request.url.is_https()) {
    Result<TlsMaterial> tls = ReadTlsFiles(request.tls);
    if (!tls) return with_name(std::move(tls).error());
    handle->tls_ = *std::move(tls);
    if (!handle->tls_.authorities.empty()) {
      if (Result<void> added = AddSystemAuthorities(handle->tls_.authorities); !added) {
        return with_name(std::move(added).error());
      }
    }
  }
  OCIFS_RETURN_IF_ERROR(handle->AddHeaders(request));
  OCIFS_RETURN_IF_ERROR(handle->SetOptions(request, options));
  return handle;
}

Result<void> HttpHandle::AddHeaders(const HttpRequest& request) {
  auto add = [&](const std::string& line) {
    curl_slist* const longer =
        curl_slist_append(static_cast<curl_slist*>(header_list_.get()), line.c_str());
    if (longer == nullptr) return false;
    // libcurl appends in place: the head changes only when the list was empty.
    if (!header_list_) header_list_.reset(longer);
    return true;
  };
  bool added = add("Accept-Encoding: identity");
  for (const HttpHeader& header : request.headers) {
    if (!IsSafeHeader(header)) {
      return Fail(ErrorCode::kInternal, channel_.what + ": the value of header " +
                                            header.name.substr(0, 40) +
                                            " is empty or holds a line break");
    }
    added = added && add(header.name + ": " + header.value);
  }
  if (!added) return Fail(ErrorCode::kOutOfMemory, channel_.what + ": out of memory");
  return {};
}

Result<void> HttpHandle::SetOptions(const HttpRequest& request, const HttpClientOptions& options) {
  EasySetup setup(curl());
  setup.Set(CURLOPT_PRIVATE, static_cast<void*>(&channel_));
  setup.Set(CURLOPT_ERRORBUFFER, error_text_.get());
  setup.Set(CURLOPT_URL, request.url.ToString().c_str());
  setup.Set(CURLOPT_PROTOCOLS_STR, "http,https");
  setup.Set(CURLOPT_FOLLOWLOCATION, 0L);
  setup.Set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  setup.Set(CURLOPT_NOSIGNAL, 1L);
  // Without it, cancelling a transfer whose name is being resolved waits for the resolver, and
  // every other transfer with it.
  setup.Set(CURLOPT_QUICK_EXIT, 1L);
  setup.Set(CURLOPT_HTTPHEADER, static_cast<curl_slist*>(header_list_.get()));
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
  setup.Set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  setup.Set(CURLOPT_WRITEFUNCTION, &WriteCallback);
  setup.Set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  setup.Set(CURLOPT_OPENSOCKETFUNCTION, &OpenSocketCallback);
  setup.Set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(this));
  setup.Set(CURLOPT_CLOSESOCKETFUNCTION, &CloseSocketCallback);
  setup.Set(CURLOPT_CLOSESOCKETDATA, static_cast<void*>(&sockets_));
  setup.Set(CURLOPT_PREREQFUNCTION, &PrerequisiteCallback);
  setup.Set(CURLOPT_PREREQDATA, static_cast<void*>(this));
  // Empty texts keep libcurl from looking into the environment: ProxyRules has.
  setup.Set(CURLOPT_PROXY, proxy_url_.c_str());
  setup.Set(CURLOPT_NOPROXY, "");
  setup.Set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  // libcurl compares all of these before it lets two requests share a connection or a session.
  setup.Set(CURLOPT_SSL_VERIFYPEER, request.tls.verify ? 1L : 0L);
  setup.Set(CURLOPT_SSL_VERIFYHOST, request.tls.verify ? 2L : 0L);
  // The directory has what the bundle has. Of the bundle, OpenSSL parses all of the some 140
  // certificates for each connection, which holds every transfer of the thread for 30 ms or more.
  if (FindSystemAuthorities().hashed_directory) {
    setup.Set(CURLOPT_CAINFO, static_cast<const char*>(nullptr));
  }
  if (!tls_.authorities.empty()) setup.SetBlob(CURLOPT_CAINFO_BLOB, tls_.authorities);
  if (!tls_.certificate.empty()) {
    setup.SetBlob(CURLOPT_SSLCERT_BLOB, tls_.certificate);
    setup.SetBlob(CURLOPT_SSLKEY_BLOB, tls_.key);
  }
  if (request.method == HttpMethod::kPost) {
    post_body_ = request.body;
    setup.Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(post_body_.size()));
    setup.Set(CURLOPT_POSTFIELDS, post_body_.data());
  }
  if (setup.code() != CURLE_OK) {
    return Fail(ErrorCode::kInternal, channel_.what + ": " + curl_easy_strerror(setup.code()));
  }
  return {};
}

long HttpHandle::ConnectionsMade() const {
  long count = 0;
  curl_easy_getinfo(curl(), CURLINFO_NUM_CONNECTS, &count);
  return count;
}

bool HttpHandle::Reuses() const {
  long port = 0;
  curl_easy_getinfo(curl(), CURLINFO_PRIMARY_PORT, &port);
  return port != 0 && ConnectionsMade() == 0;
}

std::optional<std::chrono::microseconds> HttpHandle::ConnectTime() const {
  if (ConnectionsMade() == 0) return std::nullopt;
  curl_off_t connected = 0;
  curl_off_t resolved = 0;
  curl_easy_getinfo(curl(), CURLINFO_CONNECT_TIME_T, &connected);
  curl_easy_getinfo(curl(), CURLINFO_NAMELOOKUP_TIME_T, &resolved);
  return std::chrono::microseconds(std::max<curl_off_t>(connected - resolved, 0));
}

HttpFailure HttpHandle::Failure(int code) const {
  long os_error = 0;
  long proxy_status = 0;
  curl_easy_getinfo(curl(), CURLINFO_OS_ERRNO, &os_error);
  curl_easy_getinfo(curl(), CURLINFO_HTTP_CONNECTCODE, &proxy_status);
  curl_off_t first_byte = 0;
  curl_easy_getinfo(curl(), CURLINFO_STARTTRANSFER_TIME_T, &first_byte);
  // A header line longer than libcurl takes is reported as a lack of memory, later as
  // CURLE_TOO_LARGE: the server's fault, which must not end the search for another.
  if ((code == CURLE_OUT_OF_MEMORY || code == kCurlTooLarge) && first_byte > 0 &&
      !channel_.head_done) {
    return {.code = CURLE_WEIRD_SERVER_REPLY,
            .os_error = 0,
            .proxy_status = static_cast<int>(proxy_status),
            .text = "a header line is too long; the server is broken or hostile",
            .has_head = false};
  }
  return {.code = code,
          .os_error = static_cast<int>(os_error),
          .proxy_status = static_cast<int>(proxy_status),
          .text = error_text_[0] != '\0' ? error_text_.get()
                                         : curl_easy_strerror(static_cast<CURLcode>(code)),
          .has_head = channel_.head_done};
}

void HttpHandle::UseFreshConnection() {
  error_text_[0] = '\0';
  curl_easy_setopt(curl(), CURLOPT_FRESH_CONNECT, 1L);
}

void HttpHandle::ForbidReuse() { curl_easy_setopt(curl(), CURLOPT_FORBID_REUSE, 1L); }

// Returns the length to go on, anything else to end the transfer.
size_t HttpHandle::OnHeaderLine(std::string_view line) {
  const bool had_head = channel_.head_done;
  if (!channel_.OnHeaderLine(line)) {
    // libcurl closes an HTTP/1.1 connection that is left in the middle by itself.
    ForbidReuse();
    return 0;
  }
  if (channel_.head_done && !had_head) {
    channel_.parsed.connect_time = ConnectTime();
    channel_.PublishHead(Reuses());
  }
  return line.size();
}

size_t HttpHandle::OnBody(std::string_view bytes) {
  switch (channel_.OnBody(std::as_bytes(std::span(bytes.data(), bytes.size())))) {
    case HttpChannel::Accept::kAll:
      return bytes.size();
    case HttpChannel::Accept::kPause:
      return CURL_WRITEFUNC_PAUSE;
    case HttpChannel::Accept::kEnd:
      break;
  }
  return 0;
}

int HttpHandle::OnOpenSocket(int family, int type, int protocol, const char* address) {
  if (!channel_.OnAddress(address)) return CURL_SOCKET_BAD;
  const int fd = socket(family, type | SOCK_CLOEXEC, protocol);
  if (fd < 0) return CURL_SOCKET_BAD;
  sockets_.Add(fd);
  return fd;
}

bool HttpHandle::OnConnected(const char* address, const char* local_address, int local_port) {
  if (!channel_.OnAddress(address)) return false;
  // Another address of the same name may have been refused before.
  channel_.refusal.reset();
  // What an idle connection holds is no answer to a request that has not been sent: the one before
  // had more body than its Content-Length said. Under TLS it may be a session ticket as well.
  if (!https_ && Reuses() && sockets_.HasUnreadBytes(local_address, local_port)) {
    channel_.stale = true;
    return false;
  }
  channel_.connected = true;
  return true;
}

Result<void> InitialiseCurl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code == CURLE_OK) return {};
  return Fail(ErrorCode::kInternal, std::string("starting libcurl: ") + curl_easy_strerror(code));
}

}  // namespace ocifs::fetch
