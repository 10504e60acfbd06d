#include "store/error.h"

#include <cerrno>
#include <system_error>

namespace ocifs::store {

std::string_view ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return "not-found";
    case ErrorCode::kUnauthenticated:
      return "unauthenticated";
    case ErrorCode::kDenied:
      return "denied";
    case ErrorCode::kRateLimited:
      return "rate-limited";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kTimedOut:
      return "timed-out";
    case ErrorCode::kRemote:
      return "remote";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kTooLarge:
      return "too-large";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNoSpace:
      return "no-space";
    case ErrorCode::kStoreIo:
      return "store-io";
    case ErrorCode::kIndexDamaged:
      return "index-damaged";
    case ErrorCode::kOutOfMemory:
      return "out-of-memory";
    case ErrorCode::kTooManyFiles:
      return "too-many-files";
    case ErrorCode::kWouldBlock:
      return "would-block";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kShuttingDown:
      return "shutting-down";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

bool Error::retryable() const {
  switch (code) {
    case ErrorCode::kRateLimited:
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimedOut:
    case ErrorCode::kRemote:
    case ErrorCode::kNoSpace:
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kTooManyFiles:
    case ErrorCode::kWouldBlock:
    case ErrorCode::kCancelled:
      return true;
    case ErrorCode::kNotFound:
    case ErrorCode::kUnauthenticated:
    case ErrorCode::kDenied:
    case ErrorCode::kCorrupt:
    case ErrorCode::kTooLarge:
    case ErrorCode::kUnsupported:
    case ErrorCode::kInvalid:
    case ErrorCode::kStoreIo:
    case ErrorCode::kIndexDamaged:
    case ErrorCode::kShuttingDown:
    case ErrorCode::kInternal:
      return false;
  }
  return false;
}

Error Error::Wrap(std::string_view what) && {
  std::string wrapped;
  wrapped.reserve(what.size() + 2 + message.size());
  wrapped.append(what).append(": ").append(message);
  return Error{code, std::move(wrapped)};
}

Error ErrorFromErrno(int number, std::string_view what) {
  ErrorCode code = ErrorCode::kStoreIo;
  switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EROFS:
      code = ErrorCode::kNoSpace;
      break;
    case EMFILE:
    case ENFILE:
      code = ErrorCode::kTooManyFiles;
      break;
    case ENOMEM:
      code = ErrorCode::kOutOfMemory;
      break;
    default:
      break;
  }
  std::string message(what);
  message.append(": ").append(std::generic_category().message(number));
  return Error{code, std::move(message)};
}

}  // namespace ocifs::store
