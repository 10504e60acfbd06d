#include "store/space.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "store/log.h"

namespace ocifs::store {
namespace {

// What may be written between two looks at the disk.
constexpr uint64_t kCreditBytes = uint64_t{16} << 20;
// The part of the limit (one of so many) that is left for what the filesystem itself needs: blocks
// that are not full, maps of extents, directories.
constexpr uint64_t kMetadataPart = 32;

}  // namespace

StoreLimits StoreLimits::Defaults(uint64_t filesystem_bytes) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  return StoreLimits{.max_bytes = std::max(filesystem_bytes / 10, kGiB),
                     .min_free_bytes = std::min(filesystem_bytes / 100, kGiB),
                     .max_age = 0};
}

void Space::SetLimits(const StoreLimits& limits, std::function<void(uint64_t)> make_room) {
  const MutexLock lock(mutex_);
  limits_ = limits;
  make_room_ = std::move(make_room);
  credit_ = 0;
}

StoreLimits Space::limits() const {
  const MutexLock lock(mutex_);
  return limits_;
}

Result<Space::State> Space::Measure() { return TakeMeasured(UINT64_MAX); }

// Holds the bytes if there is room for them.
Result<Space::State> Space::TakeMeasured(uint64_t bytes) {
  uint64_t held_before;
  {
    const MutexLock lock(mutex_);
    held_before = held_;
  }
  OCIFS_ASSIGN_OR_RETURN(const uint64_t named, measure_());
  struct statvfs space;
  if (fstatvfs(directory_fd_, &space) != 0) {
    return Fail(ErrorFromErrno(errno, "reading the space of the store's filesystem"));
  }
  const MutexLock lock(mutex_);
  State state;
  // What was held when the measurement began may have been written behind its back.
  state.used_bytes = named + std::max(held_before, held_);
  state.free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  const uint64_t max = limits_.max_bytes - limits_.max_bytes / kMetadataPart;
  state.max_bytes = max;
  const uint64_t below_max = max > state.used_bytes ? max - state.used_bytes : 0;
  const uint64_t above_min =
      state.free_bytes > limits_.min_free_bytes ? state.free_bytes - limits_.min_free_bytes : 0;
  state.room_bytes = std::min(below_max, above_min);
  if (state.room_bytes >= bytes) {
    held_ += bytes;
    // A part of the room only: other processes take of it, too.
    credit_ = std::min(kCreditBytes, (state.room_bytes - bytes) / 4);
  }
  return state;
}

Result<void> Space::Take(uint64_t bytes) {
  std::function<void(uint64_t)> make_room;
  {
    const MutexLock lock(mutex_);
    if (bytes <= credit_) {
      credit_ -= bytes;
      held_ += bytes;
      return {};
    }
    make_room = make_room_;
  }
  for (const bool last : {false, true}) {
    OCIFS_ASSIGN_OR_RETURN(const State state, TakeMeasured(bytes));
    if (state.room_bytes >= bytes) return {};
    if (last || !make_room) {
      const StoreLimits set = limits();
      const bool by_limit = state.used_bytes + bytes > set.max_bytes;
      return Fail(ErrorCode::kNoSpace,
                  by_limit ? "the store is at its limit of " + std::to_string(set.max_bytes) +
                                 " bytes (store.max_size), and nothing more can be evicted"
                           : "the filesystem of the store has " + std::to_string(state.free_bytes) +
                                 " bytes left, of which " + std::to_string(set.min_free_bytes) +
                                 " are to stay free (store.min_free)");
    }
    make_room(bytes);
  }
  return {};
}

void Space::LetGo(uint64_t bytes) {
  const MutexLock lock(mutex_);
  held_ -= std::min(held_, bytes);
}

void Space::Kept() {
  const MutexLock lock(mutex_);
  if (std::exchange(keeps_, true)) return;
  Log(LogLevel::kInfo, "the store keeps what is pulled again");
}

void Space::NotKept(const Error& error) {
  const MutexLock lock(mutex_);
  if (!std::exchange(keeps_, false)) return;
  Log(LogLevel::kWarning,
      "the store does not keep what is pulled; readers are served without it: " + error.message);
}

bool CannotKeep(const Error& error) {
  return error.code == ErrorCode::kNoSpace || error.code == ErrorCode::kStoreIo;
}

}  // namespace ocifs::store
