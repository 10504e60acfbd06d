#include "fetch/failure.h"

#include <curl/curl.h>

#include <algorithm>
#include <string>
#include <utility>

#include "store/text.h"

namespace ocifs::fetch {

using std::chrono::seconds;
using store::ErrorCode;

namespace {

constexpr seconds kMaxRetryAfter{86'400};

}  // namespace

Failure FailureOfTransport(store::Error error, Contact contact) {
  if (error.code == ErrorCode::kInvalid) error.code = ErrorCode::kDenied;
  const ErrorCode code = error.code;
  Failure failure{.error = std::move(error), .contact = contact};
  switch (code) {
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimedOut:
      failure.tries = failure.unreachable() ? 2 : kTransientTries;
      break;
    case ErrorCode::kRemote:
      failure.tries = kTransientTries;
      break;
    default:
      break;
  }
  return failure;
}

Failure FailureOfAnswer(const HttpHead& head, store::Error error,
                        std::chrono::system_clock::time_point wall_clock) {
  Failure failure{.error = std::move(error), .contact = Contact::kAnswered};
  failure.status = head.status;
  switch (head.status) {
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      failure.tries = kTransientTries;
      break;
    default:
      return failure;
  }
  if (const std::string* const value = head.headers.Find("retry-after");
      value != nullptr && (head.status == 429 || head.status == 503)) {
    failure.retry_after = ParseRetryAfter(*value, wall_clock);
  }
  return failure;
}

std::optional<seconds> ParseRetryAfter(std::string_view value,
                                       std::chrono::system_clock::time_point wall_clock) {
  if (const std::optional<uint64_t> number = store::ParseDecimal(value, UINT32_MAX)) {
    return std::min(seconds(*number), kMaxRetryAfter);
  }
  const std::string date(value);
  const time_t when = curl_getdate(date.c_str(), nullptr);
  if (when == -1) return std::nullopt;
  const auto wait = std::chrono::duration_cast<seconds>(
      std::chrono::system_clock::from_time_t(when) - wall_clock);
  return std::clamp(wait, seconds(0), kMaxRetryAfter);
}

}  // namespace ocifs::fetch
