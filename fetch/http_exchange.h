// A request and the redirects it leads to. The rules are ours, not libcurl's: at most five hops, no
// Authorization to another origin, never from https to http, never closer to home than the server
// that sent us (address.h).
#ifndef OCIFS_FETCH_HTTP_EXCHANGE_H_
#define OCIFS_FETCH_HTTP_EXCHANGE_H_

#include <memory>
#include <span>
#include <stop_token>
#include <string>

#include "fetch/http_client.h"

namespace ocifs::fetch {

inline constexpr int kMaxRedirects = 5;
// What is read of a body that nobody wants, so that its connection can be used again.
inline constexpr size_t kMaxDiscardedBytes = size_t{64} << 10;

// Whether `status` with a Location sends a GET elsewhere (RFC 9110 section 15.4).
bool IsRedirect(int status);

// The request that follows `request` after a redirect answer `head`; `origin` is the URL that the
// caller asked for. kRemote when Location is missing or does not parse, kDenied when a rule forbids
// the hop. Pure.
store::Result<HttpRequest> RedirectedRequest(const HttpRequest& request, const HttpHead& head,
                                             const Url& origin);

// Owned by one thread. Must not outlive the client. Destroying it cancels what is not finished.
class HttpExchange {
 public:
  // Sends the first request and returns at once.
  HttpExchange(HttpClient& client, HttpRequest request, std::stop_token stop);

  // The first answer that is no redirect. Blocks.
  store::Result<const HttpHead*> Head();
  // As HttpTransfer::Next and ReadAll, of that answer.
  store::Result<std::span<const std::byte>> Next();
  store::Result<std::string> ReadAll(size_t max_bytes);
  // Reads at most kMaxDiscardedBytes to leave the connection usable; gives up silently.
  void Discard();

  const Url& url() const { return transfer_->request().url; }  // of the last hop
  const HttpRequest& request() const { return transfer_->request(); }
  // Whether the last hop is still on the origin that the caller asked for.
  bool at_origin() const { return url().SameOrigin(origin_); }
  // Whether the server asked first has answered: with a redirect at least.
  bool redirected() const { return redirects_ > 0; }
  // Whether a connection was made for the request: not one that may have died since it was used.
  bool connected() const { return transfer_->connected() && !transfer_->reused_connection(); }
  std::string Describe() const { return transfer_->Describe(); }

 private:
  HttpClient& client_;
  const std::stop_token stop_;
  const Url origin_;
  std::unique_ptr<HttpTransfer> transfer_;  // never null
  int redirects_ = 0;
  bool settled_ = false;  // transfer_ is the last hop
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HTTP_EXCHANGE_H_
