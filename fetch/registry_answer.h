// What registries and token servers say when they do not give what was asked for, and the small
// texts of theirs that are not manifests (OCI distribution-spec 1.1, "Error Codes", "Listing
// Tags").
#ifndef OCIFS_FETCH_REGISTRY_ANSWER_H_
#define OCIFS_FETCH_REGISTRY_ANSWER_H_

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/http_client.h"
#include "fetch/url.h"
#include "store/error.h"

namespace ocifs::fetch {

inline constexpr size_t kMaxErrorBodyBytes = size_t{64} << 10;
inline constexpr size_t kMaxQuotedBytes = 300;

// ": CODE: message" of the first entry of `errors`, or ": " and the start of a plain text; empty
// when there is nothing to quote. At most kMaxQuotedBytes of the server's. Not escaped: whoever
// prints an error does that. Pure.
std::string QuoteErrorBody(std::string_view media_type, std::string_view body);

// Whether an answer looks like a registry's own and not a proxy's or a web site's: a 404 of these
// says that the thing does not exist.
bool IsRegistryAnswer(const HttpHead& head, std::string_view body);

// The error for an answer that is no success. `what` is "GET https://host/path"; `body` is as much
// of the body as could be read, at most kMaxErrorBodyBytes. 401 → kUnauthenticated, 403 → kDenied,
// 404 → kNotFound or, if it is no registry that says so, kRemote, 408 → kTimedOut, 429 →
// kRateLimited, others → kRemote. Pure.
store::Error ErrorFromAnswer(std::string_view what, const HttpHead& head, std::string_view body);

// Whether the answer is a web page, which no registry sends.
bool IsHtml(const HttpHead& head);
// What to say of it; `what` as above.
std::string WebPageMessage(std::string_view what);

// At most kMaxErrorBodyBytes of a body; what came before a failure.
template <typename Transfer>
std::string ReadErrorBody(Transfer& transfer) {
  std::string body;
  while (body.size() < kMaxErrorBodyBytes) {
    const auto bytes = transfer.Next();
    if (!bytes || bytes->empty()) break;
    body.append(reinterpret_cast<const char*>(bytes->data()),
                std::min(bytes->size(), kMaxErrorBodyBytes - body.size()));
  }
  return body;
}

// The target of rel="next" in Link headers (RFC 8288), resolved against `base`; nullopt when there
// is none; kRemote when it does not parse or leaves the origin. Pure.
store::Result<std::optional<Url>> NextLink(const HttpHeaders& headers, const Url& base);

// `tags` of a tag list, those that are valid tags. kRemote when the body is no tag list. Pure.
store::Result<std::vector<std::string>> ParseTagList(std::string_view body, size_t max_bytes);

// `repositories` of a catalog, those that are valid repository paths. kRemote when the body is no
// catalog. Pure.
store::Result<std::vector<std::string>> ParseCatalog(std::string_view body, size_t max_bytes);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_REGISTRY_ANSWER_H_
