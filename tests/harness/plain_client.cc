#include "tests/harness/plain_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <stdexcept>

#include "store/text.h"

namespace ocifs::testing {

std::string PlainAnswer::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

PlainClient::PlainClient(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd_ < 0 || connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    if (fd_ >= 0) close(fd_);
    throw std::runtime_error("connecting to port " + std::to_string(port) + " failed");
  }
}

PlainClient::~PlainClient() { close(fd_); }

void PlainClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;  // reading tells how it ended
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void PlainClient::SendRequest(const std::string& method, const std::string& target,
                              const ServerHeaders& headers, const std::string& body) {
  std::string request = method + " " + target + " HTTP/1.1\r\n";
  const bool has_host = std::any_of(headers.begin(), headers.end(),
                                    [](const auto& header) { return header.first == "Host"; });
  if (!has_host) request += "Host: 127.0.0.1\r\n";
  for (const auto& [name, value] : headers) {
    request.append(name).append(": ").append(value).append("\r\n");
  }
  if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  Send(request + "\r\n" + body);
}

bool PlainClient::Fill() {
  if (end_ != PlainAnswer::End::kWhole) return false;
  std::string buffer(64 << 10, '\0');
  ssize_t count = 0;
  do {
    count = recv(fd_, buffer.data(), buffer.size(), 0);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) {
    end_ = count == 0 ? PlainAnswer::End::kClosed : PlainAnswer::End::kReset;
    return false;
  }
  input_.append(buffer, 0, static_cast<size_t>(count));
  return true;
}

std::string PlainClient::Read(size_t count) {
  while (input_.size() < count && Fill()) {
  }
  std::string bytes = input_.substr(0, count);
  input_.erase(0, bytes.size());
  return bytes;
}

PlainAnswer PlainClient::ReadAnswer(Body body) {
  PlainAnswer answer;
  size_t head_end = 0;
  while ((head_end = input_.find("\r\n\r\n")) == std::string::npos) {
    if (!Fill()) {
      answer.end = end_;
      return answer;
    }
  }
  std::string_view head = std::string_view(input_).substr(0, head_end + 2);
  answer.status = static_cast<int>(store::ParseDecimal(head.substr(9, 3), 999).value_or(0));
  head.remove_prefix(head.find("\r\n") + 2);
  std::optional<uint64_t> length;
  while (!head.empty()) {
    const std::string_view line = head.substr(0, head.find("\r\n"));
    const size_t colon = std::min(line.find(": "), line.size());
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    const std::string value(line.substr(std::min(colon + 2, line.size())));
    if (name == "content-length") length = store::ParseDecimal(value, UINT64_MAX);
    answer.headers.emplace_back(std::move(name), value);
    head.remove_prefix(line.size() + 2);
  }
  input_.erase(0, head_end + 4);
  if (body == Body::kNone || answer.status == 304 || answer.status == 204) return answer;
  answer.body = Read(static_cast<size_t>(length.value_or(SIZE_MAX)));
  if (length && answer.body.size() < *length) answer.end = end_;
  if (!length && end_ == PlainAnswer::End::kReset) answer.end = end_;
  return answer;
}

uint16_t PlainClient::local_port() const {
  sockaddr_in address{};
  socklen_t length = sizeof(address);
  getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

void PlainClient::Finish() { shutdown(fd_, SHUT_WR); }

PlainAnswer Request(const std::string& method, const std::string& url, const ServerHeaders& headers,
                    const std::string& body) {
  const size_t host = url.find("://") + 3;
  const size_t path = std::min(url.find('/', host), url.size());
  const std::string authority = url.substr(host, path - host);
  const auto port = store::ParseDecimal(authority.substr(authority.rfind(':') + 1), UINT16_MAX);
  if (!url.starts_with("http://") || !port) throw std::runtime_error("not of this client: " + url);
  PlainClient client(static_cast<uint16_t>(*port));
  ServerHeaders all = {{"Host", authority}};
  all.insert(all.end(), headers.begin(), headers.end());
  client.SendRequest(method, path < url.size() ? url.substr(path) : "/", all, body);
  return client.ReadAnswer(method == "HEAD" ? PlainClient::Body::kNone
                                            : PlainClient::Body::kExpected);
}

PlainAnswer Get(const std::string& url, const ServerHeaders& headers) {
  return Request("GET", url, headers);
}

}  // namespace ocifs::testing
