#include "fs/errno.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

namespace ocifs::fs {
namespace {

using store::ErrorCode;

struct Case {
  ErrorCode code;
  int number;
};

// The table of SEMANTICS.md.
constexpr Case kTable[] = {
    {ErrorCode::kNotFound, ENOENT},
    {ErrorCode::kUnauthenticated, EACCES},
    {ErrorCode::kDenied, EACCES},
    {ErrorCode::kRateLimited, EREMOTEIO},
    {ErrorCode::kUnavailable, EHOSTUNREACH},
    {ErrorCode::kTimedOut, ETIMEDOUT},
    {ErrorCode::kRemote, EREMOTEIO},
    {ErrorCode::kCorrupt, EBADMSG},
    {ErrorCode::kTooLarge, EFBIG},
    {ErrorCode::kUnsupported, EOPNOTSUPP},
    {ErrorCode::kInvalid, ENOENT},
    {ErrorCode::kNoSpace, ENOSPC},
    {ErrorCode::kStoreIo, EIO},
    {ErrorCode::kIndexDamaged, EUCLEAN},
    {ErrorCode::kOutOfMemory, ENOMEM},
    {ErrorCode::kTooManyFiles, ENFILE},
    {ErrorCode::kWouldBlock, EIO},
    {ErrorCode::kCancelled, EINTR},
    {ErrorCode::kShuttingDown, ESHUTDOWN},
    {ErrorCode::kInternal, EIO},
};

TEST(Errno, FollowsTheTable) {
  for (const Case& entry : kTable) {
    EXPECT_EQ(ToErrno(entry.code), entry.number) << store::ErrorCodeName(entry.code);
  }
}

TEST(Errno, TheTableKnowsEveryCode) {
  std::set<ErrorCode> seen;
  for (const Case& entry : kTable) seen.insert(entry.code);
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    EXPECT_TRUE(seen.contains(static_cast<ErrorCode>(code))) << code;
  }
}

TEST(Errno, NeverLeavesTheKernelsBoundsNorSaysWhatMisleads) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    const int number = ToErrno(static_cast<ErrorCode>(code));
    EXPECT_GE(number, kMinErrno);
    EXPECT_LE(number, kMaxErrno);
    EXPECT_NE(number, ENOSYS);    // sticks
    EXPECT_NE(number, EAGAIN);    // callers spin
    EXPECT_NE(number, ESTALE);    // lookups are doubled
    EXPECT_NE(number, ENOTCONN);  // the kernel's word for a dead mount
  }
}

}  // namespace
}  // namespace ocifs::fs
