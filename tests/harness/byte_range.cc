#include "tests/harness/byte_range.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "store/text.h"

namespace ocifs::testing {
namespace {

constexpr std::string_view kBoundary = "ocifs-boundary";

struct ByteRange {
  uint64_t first;
  uint64_t last;

  uint64_t length() const { return last - first + 1; }
};

std::string_view Trim(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// "a-b", "a-" or "-n" of a body of `size` bytes; nullopt when there is no such byte.
std::optional<ByteRange> ParseOne(std::string_view text, uint64_t size) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos || size == 0) return std::nullopt;
  const auto first = store::ParseDecimal(text.substr(0, dash), UINT64_MAX);
  const auto last = store::ParseDecimal(text.substr(dash + 1), UINT64_MAX);
  if ((!first && dash != 0) || (!last && dash + 1 != text.size())) return std::nullopt;
  if (!first) {
    if (!last || *last == 0) return std::nullopt;
    return ByteRange{size - std::min(*last, size), size - 1};
  }
  if (*first >= size || (last && *last < *first)) return std::nullopt;
  return ByteRange{*first, std::min(last.value_or(size - 1), size - 1)};
}

// Those that can be satisfied; none: 416.
std::vector<ByteRange> ParseRanges(std::string_view header, uint64_t size) {
  std::vector<ByteRange> ranges;
  if (!header.starts_with("bytes=")) return ranges;
  header.remove_prefix(6);
  while (!header.empty()) {
    const std::string_view item = header.substr(0, header.find(','));
    if (const auto range = ParseOne(Trim(item), size)) ranges.push_back(*range);
    header.remove_prefix(std::min(item.size() + 1, header.size()));
  }
  return ranges;
}

std::string ContentRange(ByteRange range, uint64_t total) {
  return "bytes " + std::to_string(range.first) + "-" + std::to_string(range.last) + "/" +
         std::to_string(total);
}

std::string Multipart(const std::string& bytes, const std::vector<ByteRange>& ranges) {
  std::string body;
  for (const ByteRange range : ranges) {
    body.append("--").append(kBoundary).append("\r\nContent-Type: application/octet-stream\r\n");
    body.append("Content-Range: ").append(ContentRange(range, bytes.size())).append("\r\n\r\n");
    body.append(bytes, range.first, range.length()).append("\r\n");
  }
  return body.append("--").append(kBoundary).append("--\r\n");
}

}  // namespace

ServerResponse ServeBytes(const ServerRequest& request, std::shared_ptr<const std::string> bytes,
                          const std::string& etag, ServerHeaders headers,
                          RangeBehaviour behaviour) {
  ServerResponse response{.headers = std::move(headers), .body = bytes};
  response.headers.emplace_back("ETag", etag);
  if (behaviour != RangeBehaviour::kIgnored)
    response.headers.emplace_back("Accept-Ranges", "bytes");
  if (request.Header("if-none-match") == etag) {
    response.status = 304;
    response.body.reset();
    return response;
  }
  const std::string header = request.Header("range");
  const std::string if_range = request.Header("if-range");
  if (header.empty() || request.method != "GET" || behaviour == RangeBehaviour::kIgnored ||
      (!if_range.empty() && if_range != etag)) {
    return response;
  }
  const uint64_t size = bytes->size();
  std::vector<ByteRange> ranges = ParseRanges(header, size);
  if (ranges.empty() || behaviour == RangeBehaviour::kRefused) {
    response.status = 416;
    response.headers.emplace_back("Content-Range", "bytes */" + std::to_string(size));
    response.body.reset();
    return response;
  }
  response.status = 206;
  if (ranges.size() > 1 || behaviour == RangeBehaviour::kMultipart) {
    std::erase_if(response.headers,
                  [](const auto& field) { return field.first == "Content-Type"; });
    response.headers.emplace_back("Content-Type",
                                  "multipart/byteranges; boundary=" + std::string(kBoundary));
    response.body = std::make_shared<const std::string>(Multipart(*bytes, ranges));
    return response;
  }
  ByteRange range = ranges.front();
  if (behaviour == RangeBehaviour::kShorter) {
    range.last = range.first + (range.length() - 1) / 2;
  }
  if (behaviour == RangeBehaviour::kOtherRange) {
    const uint64_t length = range.length();
    range.first = range.first != 0 ? 0 : std::min<uint64_t>(1, size - 1);
    range.last = std::min(range.first + length, size) - 1;
  }
  ByteRange label = range;
  if (behaviour == RangeBehaviour::kMislabelled) {
    ++label.first;
    ++label.last;
  }
  if (behaviour != RangeBehaviour::kUnlabelled) {
    response.headers.emplace_back(
        "Content-Range",
        ContentRange(label, size + (behaviour == RangeBehaviour::kOtherTotal ? 1 : 0)));
  }
  response.body = std::make_shared<const std::string>(bytes->substr(range.first, range.length()));
  return response;
}

}  // namespace ocifs::testing
