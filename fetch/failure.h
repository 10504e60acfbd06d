// Why one attempt at one server came to nothing, and what that says about the next.
#ifndef OCIFS_FETCH_FAILURE_H_
#define OCIFS_FETCH_FAILURE_H_

#include <chrono>
#include <expected>
#include <optional>
#include <string>
#include <utility>

#include "fetch/http_client.h"
#include "store/error.h"

namespace ocifs::fetch {

// What the server that was to be asked had to do with a failure.
enum class Contact {
  kNone,      // nothing: it was not asked, or refused before any word was said (TLS)
  kSilent,    // it was asked and gave no answer
  kAnswered,  // it answered, itself or by sending us to another
};

struct Failure {
  store::Error error;
  // How often in all this kind of failure deserves to be tried at one server: 1 where the answer
  // will not change, 2 where a second look costs little, more for what passes by itself.
  int tries = 1;
  Contact contact = Contact::kNone;
  // What a 429 or 503 asks for (RFC 9110 section 10.2.3).
  std::optional<std::chrono::seconds> retry_after = {};
  // Of the answer that is the failure; 0 where none came, or where its content is what is wrong.
  int status = 0;

  // Says something about the server, not about the request.
  bool unreachable() const {
    return contact == Contact::kSilent && (error.code == store::ErrorCode::kUnavailable ||
                                           error.code == store::ErrorCode::kTimedOut);
  }
};

// Whatever one attempt is about: its result, or its failure.
template <typename T>
using Attempted = std::expected<T, Failure>;

inline constexpr int kTransientTries = 5;

// The failure of an attempt whose answer had come and is not what was asked for.
inline std::unexpected<Failure> FailedAnswer(store::ErrorCode code, std::string message,
                                             int tries = 1) {
  return std::unexpected(
      Failure{.error = {code, std::move(message)}, .tries = tries, .contact = Contact::kAnswered});
}

// Of an error of the transport, HttpTransfer's and HttpExchange's. What our own configuration does
// wrong (kInvalid: a file that is no certificate) is kDenied: it is not the name that is wrong.
// Pure.
Failure FailureOfTransport(store::Error error, Contact contact);
// Of an answer that is no success, with the error made of it (registry_answer.h): 408, 429, 500,
// 502, 503 and 504 pass by themselves. `wall_clock` is the time for Retry-After dates. Pure.
Failure FailureOfAnswer(const HttpHead& head, store::Error error,
                        std::chrono::system_clock::time_point wall_clock);

// Retry-After in seconds or as an HTTP date, at most a day; nullopt when it is neither. A date in
// the past is 0. Pure.
std::optional<std::chrono::seconds> ParseRetryAfter(
    std::string_view value, std::chrono::system_clock::time_point wall_clock);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_FAILURE_H_
