// Log lines of all modules. The program decides where they go (tools/log_setup.cc); libraries only
// say them. A line states what happened to what, why, and, for warnings and errors, what to do.
#ifndef OCIFS_STORE_LOG_H_
#define OCIFS_STORE_LOG_H_

#include <functional>
#include <string_view>

namespace ocifs::store {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

using LogSink = std::function<void(LogLevel, std::string_view)>;

// Replaces the sink; an empty one discards. Call it before threads are started.
void SetLogSink(LogSink sink);

// Thread-safe. The text is escaped for display here, so a caller may quote remote text.
void Log(LogLevel level, std::string_view text);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LOG_H_
