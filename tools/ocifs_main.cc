// ocifs: mounts, and serves until unmounted. See ocifs(1).

#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "fs/filesystem.h"
#include "fs/fuse_session.h"
#include "fs/mount_table.h"
#include "store/crash_marker.h"
#include "store/log.h"
#include "tools/config.h"
#include "tools/daemonize.h"
#include "tools/engine.h"
#include "tools/janitor.h"
#include "tools/log_setup.h"
#include "tools/mount_table.h"

namespace ocifs::tools {
namespace {

using store::ErrorCode;
using store::Fail;
using store::LogLevel;
using store::Result;

struct CommandLine {
  std::string store;
  std::string config;
  std::vector<std::string> options;
  std::string mount_point;
  bool foreground = false;
  bool debug = false;
  bool allow_other = false;
};

// What `-o` says, over what stands elsewhere on the command line.
Result<void> ApplyMountOptions(CommandLine& line, bool& offline, std::string& log_file) {
  for (const std::string& list : line.options) {
    std::string_view rest = list;
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      const std::string_view option = rest.substr(0, comma);
      rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
      const size_t equals = option.find('=');
      const std::string_view name = option.substr(0, equals);
      const std::string_view value =
          equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);
      if (name == "allow_other") {
        line.allow_other = true;
      } else if (name == "offline") {
        offline = true;
      } else if (name == "debug") {
        line.debug = true;
      } else if (name == "store" && !value.empty()) {
        line.store = value;
      } else if (name == "config" && !value.empty()) {
        line.config = value;
      } else if (name == "log_file" && !value.empty()) {
        log_file = AbsolutePath(value);
      } else if (name == "ro" || name == "nosuid" || name == "nodev" || name == "noatime" ||
                 name == "default_permissions" || name.empty()) {
        // What a mount of ocifs is in any case.
      } else if (name == "rw" || name == "suid" || name == "dev" || name == "atime") {
        return Fail(ErrorCode::kInvalid,
                    "option " + std::string(name) +
                        ": mounts of ocifs are always ro, nosuid, nodev and noatime");
      } else {
        return Fail(ErrorCode::kInvalid, "option '" + std::string(option) +
                                             "' is not known; there are: allow_other, offline, "
                                             "debug, store=DIR, config=FILE, log_file=FILE");
      }
    }
  }
  return {};
}

Result<void> CheckMountPoint(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOTCONN) {
      return Fail(ErrorCode::kInvalid, path + ": a dead mount is there; run: umount -l " + path);
    }
    return Fail(store::ErrorFromErrno(errno, "mount point " + path));
  }
  if (!S_ISDIR(status.st_mode)) {
    return Fail(ErrorCode::kInvalid, "mount point " + path + " is not a directory");
  }
  return {};
}

std::string ReadMountInfo() {
  std::ifstream file("/proc/self/mountinfo");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// One daemon mounts a store: inode numbers, and what is evicted, are one process's business.
Result<std::unique_ptr<store::Store::Lock>> LockForMount(store::Store& store) {
  // umount(8) is done before the daemon is.
  constexpr auto kEnding = std::chrono::seconds(10);
  const auto patience = std::chrono::steady_clock::now() + kEnding;
  std::string where;
  do {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<store::Store::Lock> lock, store.TryLockDaemon());
    if (lock != nullptr) return lock;
    const std::string mountinfo = ReadMountInfo();
    for (const std::string& mount : ListMounts(store.root())) {
      if (!fs::FindMountDevice(mountinfo, mount)) continue;
      where += (where.empty() ? " at " : ", ") + mount;
    }
    if (where.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  } while (where.empty() && std::chrono::steady_clock::now() < patience);
  return Fail(ErrorCode::kInvalid, "store " + store.root() + " is mounted already" + where +
                                       "; use that mount, bind it elsewhere (mount --bind), or "
                                       "give another --store");
}

// From the fork on: everything that has threads, locks or an index.
Result<void> Serve(const CommandLine& line, const Config& config, ReadySignal& ready) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(config));
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<store::Store::Lock> lock,
                         LockForMount(engine->store()));
  fs::Filesystem::Options options;
  options.registries = engine->registries();
  options.show_capabilities = config.security_capability;
  if (geteuid() != 0) options.owner = fs::Filesystem::Owner{geteuid(), getegid()};
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<fs::Filesystem> filesystem,
                         fs::Filesystem::Create(engine->pull(), std::move(options)));
  bool served = false;
  fs::FuseSession::Options session_options;
  session_options.mount_point = line.mount_point;
  session_options.allow_other = line.allow_other;
  session_options.handle_signals = true;
  session_options.on_ready = [&] {
    served = true;
    store::Log(LogLevel::kInfo, "mounted at " + line.mount_point + ", store " + config.store);
    ready.Ready();
  };
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<fs::FuseSession> session,
                         fs::FuseSession::Mount(std::move(session_options), *filesystem));
  // Logins and tokens are in this memory: it goes into no core file, and is not for other processes
  // of the user to look at. Not before fusermount3 has been started, which must know its caller.
  prctl(PR_SET_DUMPABLE, 0);
  // Only for `ocifs-ctl path`: a mount does not fail because a disk is full.
  const Result<MountEntry> entry = MountEntry::Add(config.store, line.mount_point);
  if (!entry) store::Log(LogLevel::kWarning, entry.error().message);
  const Janitor janitor(engine->store());
  OCIFS_RETURN_IF_ERROR(session->Run());
  if (!served) return Fail(ErrorCode::kInternal, "the mount ended before it was ready");
  store::Log(LogLevel::kInfo, "unmounted " + line.mount_point);
  return {};
}

Result<int> Start(CommandLine line) {
  std::string log_file;
  bool offline = false;
  OCIFS_RETURN_IF_ERROR(ApplyMountOptions(line, offline, log_file));
  OCIFS_ASSIGN_OR_RETURN(Config config, LoadConfig(line.config));
  if (!line.store.empty()) config.store = AbsolutePath(line.store);
  if (config.store.empty()) config.store = DefaultStore();
  if (config.store.empty()) {
    return Fail(ErrorCode::kInvalid, "HOME is not set: say with --store where the store shall be");
  }
  config.offline = config.offline || offline;
  if (!log_file.empty()) config.log_file = log_file;
  line.mount_point = AbsolutePath(line.mount_point);
  OCIFS_RETURN_IF_ERROR(CheckMountPoint(line.mount_point));
  if (line.mount_point == config.store || config.store.starts_with(line.mount_point + "/")) {
    return Fail(ErrorCode::kInvalid, "the store " + config.store + " lies below the mount point");
  }
  umask(077);
  Daemonized daemon;
  if (!line.foreground) {
    OCIFS_ASSIGN_OR_RETURN(daemon, Daemonize());
    if (daemon.exit_status) return *daemon.exit_status;
  }
  Result<void> served = SetUpLog(line.foreground ? LogTarget::kStandardError : LogTarget::kSyslog,
                                 config.log_file, line.debug ? LogLevel::kDebug : LogLevel::kInfo);
  if (served) served = Serve(line, config, daemon.ready);
  if (!served) {
    store::Log(LogLevel::kError, served.error().message);
    daemon.ready.Failed(served.error().message);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace ocifs::tools

int main(int argc, char** argv) {
  ocifs::store::InstallCrashMarker();
  CLI::App app(
      "Mounts a read-only filesystem in which every OCI artifact of every registry is a "
      "directory:\n"
      "MOUNTPOINT/registry/repository/tag/...",
      "ocifs");
  ocifs::tools::CommandLine line;
  app.add_option("--store", line.store,
                 "Where to keep what was pulled (default: /var/lib/ocifs for root, "
                 "$XDG_CACHE_HOME/ocifs for others)")
      ->type_name("DIR");
  app.add_option("--config", line.config, "Configuration, see ocifs.toml(5)")->type_name("FILE");
  app.add_flag("-f,--foreground", line.foreground, "Stay in the foreground, log to standard error");
  app.add_option(
         "-o", line.options,
         "Mount options: allow_other, offline, debug, store=DIR, config=FILE, log_file=FILE")
      ->type_name("OPTION,...")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("MOUNTPOINT", line.mount_point, "Directory to mount at")->required();
  app.set_version_flag("--version", "ocifs " OCIFS_VERSION);
  CLI11_PARSE(app, argc, argv);
  const auto status = ocifs::tools::Start(line);
  if (!status) {
    std::fprintf(stderr, "ocifs: %s\n", status.error().message.c_str());
    return 1;
  }
  return *status;
}
