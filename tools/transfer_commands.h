// What ocifs-ctl does to carry packages from store to store, and to say what they cost. As the
// commands of commands.h: the answer on the standard output, failures on the standard error, the
// exit status returned.
#ifndef OCIFS_TOOLS_TRANSFER_COMMANDS_H_
#define OCIFS_TOOLS_TRANSFER_COMMANDS_H_

#include "tools/commands.h"

namespace ocifs::tools {

// REF… DESTINATION: store/layout_export.h.
int Export(const CommandOptions& options);
// LAYOUT [REF]: store/layout_import.h. Makes no request, whatever the configuration says.
int Import(const CommandOptions& options);
// [REF…]: store/disk_usage.h.
int DiskUsage(const CommandOptions& options);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_TRANSFER_COMMANDS_H_
