// From our errors to the numbers that a reader sees.
//
// A library's own code must never get here: the kernel refuses a reply whose errno lies outside
// 1..511, and the reader would wait for ever.
#ifndef OCIFS_FS_ERRNO_H_
#define OCIFS_FS_ERRNO_H_

#include "store/error.h"

namespace ocifs::fs {

// The kernel's bounds for an errno in a reply.
inline constexpr int kMinErrno = 1;
inline constexpr int kMaxErrno = 511;

// The errno for `code`; the table is in SEMANTICS.md. kWouldBlock is a question of scheduling and
// never an answer: it is logged and becomes EIO. Never ENOSYS, EAGAIN, ESTALE or ENOTCONN.
int ToErrno(store::ErrorCode code);

// What the person who reads the log can do about an error of that kind; empty if there is nothing.
std::string_view Advice(store::ErrorCode code);

}  // namespace ocifs::fs

#endif  // OCIFS_FS_ERRNO_H_
