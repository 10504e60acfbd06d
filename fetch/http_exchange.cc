#include "fetch/http_exchange.h"

#include <algorithm>
#include <utility>

namespace ocifs::fetch {

using store::ErrorCode;
using store::Fail;
using store::Result;

namespace {

// What says how to answer, and nothing about who asks.
bool IsPublicHeader(const HttpHeader& header) {
  return header.name == "Accept" || header.name == "Range" || header.name == "If-Range" ||
         header.name == "If-None-Match";
}

}  // namespace

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

Result<HttpRequest> RedirectedRequest(const HttpRequest& request, const HttpHead& head,
                                      const Url& origin) {
  auto refuse = [&](ErrorCode code, const std::string& why) {
    return Fail(code, "GET " + request.url.ForDisplay() + ": redirect refused: " + why);
  };
  if (request.method != HttpMethod::kGet) return refuse(ErrorCode::kDenied, "not a GET");
  const std::string* const location = head.headers.Find("location");
  if (location == nullptr) return refuse(ErrorCode::kRemote, "it names no Location");
  Result<Url> url = request.url.Resolve(*location);
  if (!url) return refuse(ErrorCode::kRemote, url.error().message);
  if (request.url.is_https() && !url->is_https()) {
    return refuse(ErrorCode::kDenied, "from https to http://" + url->Authority());
  }
  HttpRequest next = request;
  next.url = *std::move(url);
  // Within the origin the request stays as it is. Once it has left, its credentials are gone
  // (passwords, tokens, whatever a configuration adds, the client's certificate), and they do not
  // come back with a redirect home.
  if (!next.url.SameOrigin(request.url)) {
    std::erase_if(next.headers, [](const HttpHeader& header) { return !IsPublicHeader(header); });
    next.tls.certificate_file.clear();
    next.tls.key_file.clear();
    if (!next.url.SameOrigin(origin)) next.reach = std::min(request.reach, head.peer);
  }
  if (const auto scope = ScopeOfHost(next.url.host()); scope && *scope > next.reach) {
    return refuse(ErrorCode::kDenied, "to the " + std::string(AddressScopeName(*scope)) +
                                          " address " + next.url.host());
  }
  return next;
}

HttpExchange::HttpExchange(HttpClient& client, HttpRequest request, std::stop_token stop)
    : client_(client),
      stop_(std::move(stop)),
      origin_(request.url),
      transfer_(client.Start(std::move(request), stop_)) {}

Result<const HttpHead*> HttpExchange::Head() {
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const HttpHead* const head, transfer_->Head());
    if (settled_ || !IsRedirect(head->status)) {
      settled_ = true;
      return head;
    }
    if (++redirects_ > kMaxRedirects) {
      return Fail(ErrorCode::kRemote, Describe() + ": more than " + std::to_string(kMaxRedirects) +
                                          " redirects; the server is misconfigured");
    }
    OCIFS_ASSIGN_OR_RETURN(HttpRequest next,
                           RedirectedRequest(transfer_->request(), *head, origin_));
    Discard();
    transfer_ = client_.Start(std::move(next), stop_);
  }
}

Result<std::span<const std::byte>> HttpExchange::Next() {
  OCIFS_RETURN_IF_ERROR(Head());
  return transfer_->Next();
}

Result<std::string> HttpExchange::ReadAll(size_t max_bytes) {
  OCIFS_RETURN_IF_ERROR(Head());
  return transfer_->ReadAll(max_bytes);
}

void HttpExchange::Discard() {
  const Result<const HttpHead*> head = transfer_->Head();
  // Without a length, or with a long one, a new connection is cheaper than waiting for the end.
  if (!head || !(*head)->content_length || *(*head)->content_length > kMaxDiscardedBytes) return;
  while (true) {
    const Result<std::span<const std::byte>> bytes = transfer_->Next();
    if (!bytes || bytes->empty()) return;
  }
}

}  // namespace ocifs::fetch
