// The one error type of ocifs, and the result type that carries it.
//
// Codes of libraries and of the kernel (CURLcode, LMDB, libarchive, errno) are translated to an
// ErrorCode by the wrapper that made the call and nowhere else; fs/errno.h turns an ErrorCode into
// the errno a reader sees.
#ifndef OCIFS_STORE_ERROR_H_
#define OCIFS_STORE_ERROR_H_

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace ocifs::store {

enum class ErrorCode {
  kNotFound,         // a valid answer says that it does not exist
  kUnauthenticated,  // 401: no usable credential
  kDenied,           // 403, failed TLS verification, or a local policy
  kRateLimited,      // 429, and the wait it asks for is longer than ours
  kUnavailable,      // no route, refused, DNS failure, offline
  kTimedOut,         // our own deadline passed
  kRemote,           // 5xx, a missing blob that a verified manifest names, malformed protocol
  kCorrupt,          // digest or size mismatch, malformed or refused artifact
  kTooLarge,         // over a configured limit
  kUnsupported,      // a media type, codec or feature that ocifs does not read
  kInvalid,          // the caller's input does not parse
  kNoSpace,          // the store cannot grow: full disk, quota, read-only
  kStoreIo,          // reading or writing the store failed
  kIndexDamaged,     // the index does not pass its checks
  kOutOfMemory,
  kTooManyFiles,  // out of file descriptors
  kWouldBlock,    // needs the network or a wait, and the caller asked for neither
  kCancelled,     // the caller went away
  kShuttingDown,
  kInternal,  // a broken invariant of ours
};

// Stable lower-case name, for logs, `--json` output and tests: "not-found", "timed-out", …
std::string_view ErrorCodeName(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  // "what we did: why it failed". Never holds a secret. May quote remote text; those who print it
  // to a terminal or a log escape it (store/text.h, EscapeForDisplay).
  std::string message;

  // Whether the same call may succeed a little later.
  bool retryable() const;
  // The same error, with "what: " put before its message.
  Error Wrap(std::string_view what) &&;
};

// std::expected, but dropping it unread is a warning (libstdc++ 12 does not mark the base class).
template <typename T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

[[nodiscard]] inline std::unexpected<Error> Fail(ErrorCode code, std::string message) {
  return std::unexpected<Error>(Error{code, std::move(message)});
}
[[nodiscard]] inline std::unexpected<Error> Fail(Error error) {
  return std::unexpected<Error>(std::move(error));
}

// "what: strerror(number)", with the code that fits a failed call on the local filesystem:
// ENOSPC, EDQUOT, EROFS → kNoSpace; EMFILE, ENFILE → kTooManyFiles; ENOMEM → kOutOfMemory; else
// kStoreIo.
Error ErrorFromErrno(int number, std::string_view what);

}  // namespace ocifs::store

// OCIFS_ASSIGN_OR_RETURN(auto x, F()); and OCIFS_RETURN_IF_ERROR(F()); pass an error on.
#define OCIFS_CONCAT_INNER_(a, b) a##b
#define OCIFS_CONCAT_(a, b) OCIFS_CONCAT_INNER_(a, b)
// NOLINTBEGIN(bugprone-macro-parentheses): `lhs` may be a declaration.
#define OCIFS_ASSIGN_OR_RETURN_(result, lhs, expression)          \
  auto result = (expression);                                     \
  if (!result) return std::unexpected(std::move(result).error()); \
  lhs = std::move(*result)
// NOLINTEND(bugprone-macro-parentheses)
#define OCIFS_ASSIGN_OR_RETURN(lhs, expression) \
  OCIFS_ASSIGN_OR_RETURN_(OCIFS_CONCAT_(ocifs_result_, __LINE__), lhs, expression)
#define OCIFS_RETURN_IF_ERROR(expression)                      \
  do {                                                         \
    if (auto ocifs_status = (expression); !ocifs_status)       \
      return std::unexpected(std::move(ocifs_status).error()); \
  } while (false)

#endif  // OCIFS_STORE_ERROR_H_
