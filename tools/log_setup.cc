#include "tools/log_setup.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <syslog.h>

#include <memory>

namespace ocifs::tools {
namespace {

spdlog::level::level_enum ToSpdlog(store::LogLevel level) {
  switch (level) {
    case store::LogLevel::kDebug:
      return spdlog::level::debug;
    case store::LogLevel::kInfo:
      return spdlog::level::info;
    case store::LogLevel::kWarning:
      return spdlog::level::warn;
    case store::LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

store::Result<void> SetUpLog(LogTarget target, const std::string& file, store::LogLevel level) {
  spdlog::sink_ptr sink;
  try {
    if (!file.empty()) {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    } else if (target == LogTarget::kSyslog) {
      sink = std::make_shared<spdlog::sinks::syslog_sink_mt>("ocifs", LOG_PID, LOG_DAEMON, false);
    } else {
      sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    }
  } catch (const spdlog::spdlog_ex& error) {
    return store::Fail(store::ErrorCode::kInvalid, std::string("log file: ") + error.what());
  }
  auto logger = std::make_shared<spdlog::logger>("ocifs", std::move(sink));
  logger->set_level(ToSpdlog(level));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->flush_on(spdlog::level::debug);
  store::SetLogSink(
      [logger = std::move(logger)](store::LogLevel line_level, std::string_view text) {
        logger->log(ToSpdlog(line_level), text);
      });
  return {};
}

}  // namespace ocifs::tools
