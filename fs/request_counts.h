// How often the kernel asked for what.
#ifndef OCIFS_FS_REQUEST_COUNTS_H_
#define OCIFS_FS_REQUEST_COUNTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ocifs::fs {

enum class Operation : uint8_t {
  kLookup,
  kForget,
  kGetAttributes,
  kReadLink,
  kOpen,
  kRead,
  kOpenDirectory,
  kReadDirectory,
  kGetXattr,
  kListXattrs,
  kStats,
};
inline constexpr size_t kOperations = 11;
std::string_view OperationName(Operation operation);

// Requests since the mount. Reading pages, listings and attributes that the kernel keeps makes
// none.
struct RequestCounts {
  std::array<uint64_t, kOperations> by_operation{};
  uint64_t cold = 0;         // of these, had to wait
  uint64_t interrupted = 0;  // of these, by a signal
  uint64_t of(Operation operation) const { return by_operation[static_cast<size_t>(operation)]; }
  uint64_t total() const;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_REQUEST_COUNTS_H_
