// What ocifs-ctl does, one function for each command. Each prints its answer to the standard
// output, failures to the standard error, and returns the exit status: 0 for success, 1 when
// something that was asked for failed or is not there.
#ifndef OCIFS_TOOLS_COMMANDS_H_
#define OCIFS_TOOLS_COMMANDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tools/config.h"

namespace ocifs::tools {

struct CommandOptions {
  Config config;
  bool json = false;
  std::vector<std::string> arguments;
  std::string file;            // prefetch -f; what is imported
  std::string mount_point;     // path --mount
  std::string artifact_type;   // referrers --artifact-type
  bool dry_run = false;        // gc, rm, prune --dry-run
  uint64_t free_bytes = 0;     // gc --free
  std::string older_than;      // prune --older-than
  bool refetch = false;        // export --refetch
  bool replace = false;        // import --replace
  bool repair = false;         // fsck --repair
  bool rebuild_index = false;  // fsck --rebuild-index
  uint32_t umask = 022;        // as the user has it, for files that are not the store's
};

int Prefetch(const CommandOptions& options);
int ResolveReference(const CommandOptions& options);
int ShowPath(const CommandOptions& options);
int List(const CommandOptions& options);
int Status(const CommandOptions& options);
int Tags(const CommandOptions& options);
int Referrers(const CommandOptions& options);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_COMMANDS_H_
