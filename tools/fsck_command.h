// ocifs-ctl fsck: reads all of a store, says what is damaged, and mends it (store/check.h,
// store/repair.h).
#ifndef OCIFS_TOOLS_FSCK_COMMAND_H_
#define OCIFS_TOOLS_FSCK_COMMAND_H_

#include "tools/commands.h"

namespace ocifs::tools {

// As fsck(8) has them.
enum FsckStatus : int {
  kFsckClean = 0,
  kFsckCorrected = 1,
  kFsckUncorrected = 4,
  kFsckFailed = 8,
  kFsckUsage = 16,
  kFsckCancelled = 32,
};

// Prints what it found, and gives one of FsckStatus. SIGINT ends the check; a second one the
// process. With `repair`, what was damaged and cannot be had again is dropped: offline that counts
// as corrected, else as uncorrected.
int Fsck(const CommandOptions& options);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_FSCK_COMMAND_H_
