// How much a store may take on its filesystem, and whether it can grow at all.
//
// All that writes content asks Space first. When the store is at its limit, Space makes room by the
// function it was given (the collector's); when there is none to be made, the answer is kNoSpace,
// and the caller goes on without keeping.
#ifndef OCIFS_STORE_SPACE_H_
#define OCIFS_STORE_SPACE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::store {

struct StoreLimits {
  uint64_t max_bytes = UINT64_MAX;  // that the store takes on its filesystem
  uint64_t min_free_bytes = 0;      // that it leaves free there
  int64_t max_age = 0;              // seconds after which an unused package goes; 0: never

  // A tenth of the filesystem, at least 1 GiB; a hundredth of it left free, at most 1 GiB.
  static StoreLimits Defaults(uint64_t filesystem_bytes);
};

// Thread-safe.
class Space {
 public:
  // `directory_fd` lies on the store's filesystem and outlives the object. `measure` gives the
  // bytes that the store takes; `make_room` frees at least so many bytes if it can. Both may be
  // called by any thread that takes, never with a lock held.
  Space(int directory_fd, std::function<Result<uint64_t>()> measure)
      : directory_fd_(directory_fd), measure_(std::move(measure)) {}
  void SetLimits(const StoreLimits& limits, std::function<void(uint64_t)> make_room);
  StoreLimits limits() const;

  // Before `bytes` are written. They are held, beside what a measurement finds, until LetGo: when
  // they lie in a file that has a name, or will not be written. Cost: nothing, but a measurement
  // each 16 MiB, and more of them near a limit.
  Result<void> Take(uint64_t bytes);
  void LetGo(uint64_t bytes);

  // What the store takes now, with what is held, and what may be added to it; measured.
  struct State {
    uint64_t used_bytes = 0;
    uint64_t max_bytes = 0;   // that may be used: the limit, less what the filesystem itself needs
    uint64_t free_bytes = 0;  // of the filesystem, for us
    uint64_t room_bytes = 0;  // until a limit is reached
  };
  Result<State> Measure();

  // Told of each attempt to keep something; the log gets the changes only.
  void Kept();
  void NotKept(const Error& error);

 private:
  Result<State> TakeMeasured(uint64_t bytes);

  const int directory_fd_;
  const std::function<Result<uint64_t>()> measure_;
  mutable Mutex mutex_;
  StoreLimits limits_ OCIFS_GUARDED_BY(mutex_);
  std::function<void(uint64_t)> make_room_ OCIFS_GUARDED_BY(mutex_);
  uint64_t held_ OCIFS_GUARDED_BY(mutex_) = 0;
  uint64_t credit_ OCIFS_GUARDED_BY(mutex_) = 0;  // bytes that may be taken before the next look
  bool keeps_ OCIFS_GUARDED_BY(mutex_) = true;
};

// Whether an error of a write says that the store cannot keep more, which is no reader's trouble:
// full disk, quota, read-only filesystem, a disk that fails.
bool CannotKeep(const Error& error);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_SPACE_H_
