// Content-Range (RFC 9110 section 14.4): which part of a whole an answer holds.
#ifndef OCIFS_FETCH_CONTENT_RANGE_H_
#define OCIFS_FETCH_CONTENT_RANGE_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace ocifs::fetch {

struct ContentRange {
  uint64_t first = 0;
  uint64_t last = 0;              // inclusive, at least `first`
  std::optional<uint64_t> total;  // nullopt: "*"
};

// "bytes 0-499/1234" or "bytes 0-499/*"; nullopt for anything else, also for "bytes */1234" and for
// a range outside of its total. Pure.
std::optional<ContentRange> ParseContentRange(std::string_view value);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CONTENT_RANGE_H_
