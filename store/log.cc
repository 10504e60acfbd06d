#include "store/log.h"

#include <utility>

#include "store/text.h"

namespace ocifs::store {
namespace {
LogSink& Sink() {
  static LogSink sink;
  return sink;
}
}  // namespace

void SetLogSink(LogSink sink) { Sink() = std::move(sink); }

void Log(LogLevel level, std::string_view text) {
  if (const LogSink& sink = Sink()) sink(level, EscapeForDisplay(text));
}

}  // namespace ocifs::store
