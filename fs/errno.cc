#include "fs/errno.h"

#include <cerrno>

#include "store/log.h"

namespace ocifs::fs {

using store::ErrorCode;

int ToErrno(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
    case ErrorCode::kInvalid:  // a name that cannot be one does not exist
      return ENOENT;
    case ErrorCode::kUnauthenticated:
    case ErrorCode::kDenied:
      return EACCES;
    case ErrorCode::kUnavailable:
      return EHOSTUNREACH;
    case ErrorCode::kTimedOut:
      return ETIMEDOUT;
    case ErrorCode::kRateLimited:
    case ErrorCode::kRemote:
      return EREMOTEIO;
    case ErrorCode::kCorrupt:
      return EBADMSG;
    case ErrorCode::kTooLarge:
      return EFBIG;
    case ErrorCode::kUnsupported:
      return EOPNOTSUPP;
    case ErrorCode::kNoSpace:
      return ENOSPC;
    case ErrorCode::kStoreIo:
    case ErrorCode::kInternal:
      return EIO;
    case ErrorCode::kIndexDamaged:
      return EUCLEAN;
    case ErrorCode::kTooManyFiles:
      return ENFILE;  // EMFILE would blame the caller
    case ErrorCode::kOutOfMemory:
      return ENOMEM;
    case ErrorCode::kCancelled:
      return EINTR;
    case ErrorCode::kShuttingDown:
      return ESHUTDOWN;
    case ErrorCode::kWouldBlock:
      break;
  }
  store::Log(store::LogLevel::kError, "fs: a request ended with '" +
                                          std::string(store::ErrorCodeName(code)) +
                                          "', which is no answer; this is a bug in ocifs");
  return EIO;
}

std::string_view Advice(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnauthenticated:
      return "log in to the registry as the owner of the mount (docker login, podman login)";
    case ErrorCode::kDenied:
      return "check that the account may pull this repository, and the registry's certificate";
    case ErrorCode::kRateLimited:
      return "wait, or log in: registries allow more to known accounts";
    case ErrorCode::kUnavailable:
      return "check the network and the registry's name; what is in the store stays readable";
    case ErrorCode::kTimedOut:
      return "the fetch goes on; try again";
    case ErrorCode::kRemote:
      return "the registry is at fault; try again later or tell those who run it";
    case ErrorCode::kCorrupt:
      return "nothing of it was kept; tell those who publish the artifact or run the registry";
    case ErrorCode::kTooLarge:
      return "raise the limit that the message names if the artifact is to be trusted";
    case ErrorCode::kNoSpace:
      return "free space on the filesystem of the store";
    case ErrorCode::kStoreIo:
      return "check the disk of the store";
    case ErrorCode::kIndexDamaged:
      return "stop ocifs and let it rebuild the index";
    case ErrorCode::kTooManyFiles:
      return "raise the limit of open files (ulimit -n, LimitNOFILE=)";
    case ErrorCode::kOutOfMemory:
      return "give the machine or the service more memory";
    case ErrorCode::kInternal:
      return "this is a bug in ocifs; please report it";
    case ErrorCode::kNotFound:
    case ErrorCode::kUnsupported:
    case ErrorCode::kInvalid:
    case ErrorCode::kWouldBlock:
    case ErrorCode::kCancelled:
    case ErrorCode::kShuttingDown:
      break;
  }
  return {};
}

}  // namespace ocifs::fs
