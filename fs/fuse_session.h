// A mounted filesystem: libfuse's low-level interface on one side, Filesystem on the other. The
// only file pair that includes libfuse.
//
// Session threads read requests and answer what is at hand. What has to wait moves to a thread of
// the cold pool, so a cached read never stands behind a slow registry, and FUSE_INTERRUPT is always
// seen. The first OPEN and OPENDIR are answered ENOSYS: the kernel then opens files on its own and
// keeps what it read across opens. That is the one place where ENOSYS is an answer.
#ifndef OCIFS_FS_FUSE_SESSION_H_
#define OCIFS_FS_FUSE_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "fs/cold_pool.h"
#include "fs/filesystem.h"
#include "fs/request_counts.h"
#include "store/error.h"

namespace ocifs::fs {

// Thread-safe, but for Run, which is called once.
class FuseSession {
 public:
  struct Options {
    std::string mount_point;
    bool allow_other = false;  // other users may enter: they see what the owner's credentials fetch
    size_t session_threads = 8;
    ColdPool::Options cold;
    uint32_t readahead_bytes = 1u << 20;  // asked for; root gets it, others what the kernel gives
    // Run returns on SIGTERM, SIGINT and SIGHUP, as on an unmount.
    bool handle_signals = false;
    // Called from a session thread when the kernel has accepted the mount.
    std::function<void()> on_ready;
  };

  // Mounts, always read-only, noatime, nosuid, nodev and with default_permissions; an ordinary user
  // through fusermount3. `filesystem` outlives the session. kInvalid with the reason if it fails.
  static store::Result<std::unique_ptr<FuseSession>> Mount(Options options, Filesystem& filesystem);
  // Ends the session if it still runs, and unmounts.
  ~FuseSession();
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  // Serves until somebody unmounts, Stop, or a signal; then the mount point is free again (lazily,
  // if files are open: their readers get ENOTCONN). Requests that wait are answered first.
  store::Result<void> Run();
  // Makes Run return. Only takes note; safe in a signal handler.
  void Stop();

  RequestCounts counts() const;

 private:
  class Impl;
  explicit FuseSession(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_FUSE_SESSION_H_
