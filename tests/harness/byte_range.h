// Byte ranges as servers serve them (RFC 9110 section 14), and as they get them wrong.
#ifndef OCIFS_TESTS_HARNESS_BYTE_RANGE_H_
#define OCIFS_TESTS_HARNESS_BYTE_RANGE_H_

#include <memory>
#include <string>

#include "tests/harness/http_server.h"

namespace ocifs::testing {

enum class RangeBehaviour {
  kHonoured,  // several ranges are answered with multipart/byteranges, as docker-registry does
  kIgnored,   // 200 and the whole, and no Accept-Ranges
  kRefused,   // 416 for every range
  // 206 with one fault each; the bytes are those asked for unless said.
  kMislabelled,  // Content-Range begins one byte later than what was sent
  kOtherRange,   // another range of that length, rightly labelled
  kOtherTotal,   // Content-Range has a total one too large
  kUnlabelled,   // no Content-Range
  kShorter,      // the first half of what was asked for, rightly labelled; legal
  kMultipart,    // multipart/byteranges with a single part, for a single range
};

// The answer to a GET or HEAD of `bytes`: 200, 206, 304 for If-None-Match with `etag`, or 416.
// `etag` is a strong entity tag with its quotation marks; If-Range with anything else gets the
// whole (RFC 9110 section 13.1.5). A Range header that is no range gets 416, as from
// docker-registry.
ServerResponse ServeBytes(const ServerRequest& request, std::shared_ptr<const std::string> bytes,
                          const std::string& etag, ServerHeaders headers, RangeBehaviour behaviour);

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_BYTE_RANGE_H_
