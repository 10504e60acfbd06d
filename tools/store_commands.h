// The commands that say what the store keeps: gc, rm, prune, pin, unpin. As in commands.h.
#ifndef OCIFS_TOOLS_STORE_COMMANDS_H_
#define OCIFS_TOOLS_STORE_COMMANDS_H_

#include "tools/commands.h"

namespace ocifs::tools {

int CollectGarbage(const CommandOptions& options);
int Remove(const CommandOptions& options);
int Prune(const CommandOptions& options);
int Pin(const CommandOptions& options);
int Unpin(const CommandOptions& options);
// What the store takes, may take, and whether it can be written; `status` without a reference.
int StoreStatus(const CommandOptions& options);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_STORE_COMMANDS_H_
