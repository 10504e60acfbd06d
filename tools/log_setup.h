// Where log lines go.
#ifndef OCIFS_TOOLS_LOG_SETUP_H_
#define OCIFS_TOOLS_LOG_SETUP_H_

#include <string>

#include "store/error.h"
#include "store/log.h"

namespace ocifs::tools {

enum class LogTarget { kStandardError, kSyslog };

// Lines go to `file` if it is not empty, else to the target. Lower levels than `level` are dropped.
store::Result<void> SetUpLog(LogTarget target, const std::string& file, store::LogLevel level);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_LOG_SETUP_H_
