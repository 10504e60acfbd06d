#include "fs/request_counts.h"

namespace ocifs::fs {

std::string_view OperationName(Operation operation) {
  switch (operation) {
    case Operation::kLookup:
      return "lookup";
    case Operation::kForget:
      return "forget";
    case Operation::kGetAttributes:
      return "getattr";
    case Operation::kReadLink:
      return "readlink";
    case Operation::kOpen:
      return "open";
    case Operation::kRead:
      return "read";
    case Operation::kOpenDirectory:
      return "opendir";
    case Operation::kReadDirectory:
      return "readdir";
    case Operation::kGetXattr:
      return "getxattr";
    case Operation::kListXattrs:
      return "listxattr";
    case Operation::kStats:
      return "statfs";
  }
  return "unknown";
}

uint64_t RequestCounts::total() const {
  uint64_t sum = 0;
  for (const uint64_t count : by_operation) sum += count;
  return sum;
}

}  // namespace ocifs::fs
