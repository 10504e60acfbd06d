// ocifs-ctl: the store of ocifs from the command line. See ocifs-ctl(1).

#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "store/crash_marker.h"
#include "store/text.h"
#include "tools/commands.h"
#include "tools/fsck_command.h"
#include "tools/log_setup.h"
#include "tools/login.h"
#include "tools/remote.h"
#include "tools/store_commands.h"
#include "tools/transfer_commands.h"

namespace ocifs::tools {
namespace {

struct CommandLine {
  std::string store;
  std::string config;
  bool offline = false;
  int failure = 1;  // exit status when the command cannot be run
  CommandOptions options;
  LoginOptions login;
};

int Complain(const store::Error& error) {
  std::fprintf(stderr, "ocifs-ctl: %s\n", store::EscapeForDisplay(error.message).c_str());
  return 1;
}

int RunCommand(CommandLine& line, int (*command)(const CommandOptions&)) {
  store::Result<Config> config = LoadConfig(line.config);
  if (config) {
    if (!line.store.empty()) config->store = AbsolutePath(line.store);
    if (config->store.empty()) config->store = DefaultStore();
    if (config->store.empty()) {
      config = store::Fail(store::ErrorCode::kInvalid,
                           "HOME is not set: say with --store where the store is");
    }
  }
  if (!config) {
    Complain(config.error());
    return line.failure;
  }
  config->offline = config->offline || line.offline;
  line.options.config = *std::move(config);
  line.options.umask = umask(077);
  // What a library has to say apart from errors, which commands report themselves.
  if (!SetUpLog(LogTarget::kStandardError, line.options.config.log_file,
                store::LogLevel::kWarning)) {
    return line.failure;
  }
  return command(line.options);
}

// Logins have nothing to do with a store.
// Asks the registry whether it accepts the login, with the settings that `config` has for it.
store::Result<void> CheckLogin(const Config& config, const store::Registry& registry,
                               const fetch::Credential& credential) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Remote> remote, Remote::Create(config));
  return remote->CheckLogin(registry, credential);
}

int RunLogin(CommandLine& line, int (*command)(const LoginOptions&)) {
  store::Result<Config> config = LoadConfig(line.config);
  if (!config) return Complain(config.error());
  line.login.config = *std::move(config);
  umask(077);
  if (!SetUpLog(LogTarget::kStandardError, line.login.config.log_file, store::LogLevel::kWarning)) {
    return 1;
  }
  return command(line.login);
}

}  // namespace
}  // namespace ocifs::tools

int main(int argc, char** argv) {
  ocifs::store::InstallCrashMarker();
  using ocifs::tools::CommandOptions;
  using ocifs::tools::LoginOptions;
  CLI::App app("Fetches and looks up OCI artifacts in the store of ocifs.", "ocifs-ctl");
  app.set_version_flag("--version", "ocifs-ctl " OCIFS_VERSION);
  app.require_subcommand(1);
  ocifs::tools::CommandLine line;
  std::string free_size;
  int (*command)(const CommandOptions&) = nullptr;
  int (*login_command)(const LoginOptions&) = nullptr;

  auto add = [&](const char* name, const char* what, int (*run)(const CommandOptions&)) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->add_flag("--json", line.options.json, "Print JSON, for programs");
    sub->add_option("--store", line.store, "The store (default: that of ocifs)")->type_name("DIR");
    sub->add_option("--config", line.config, "Configuration, see ocifs.toml(5)")->type_name("FILE");
    sub->add_flag("--offline", line.offline, "Make no request");
    sub->callback([&command, run] { command = run; });
    return sub;
  };
  auto add_reference = [&](CLI::App* sub) {
    sub->add_option("REFERENCE", line.options.arguments,
                    "registry/repository:tag or ...@sha256:hex")
        ->required()
        ->expected(1);
  };

  CLI::App* prefetch = add("prefetch", "Pull packages into the store", ocifs::tools::Prefetch);
  CLI::Option* references =
      prefetch->add_option("REFERENCE", line.options.arguments, "What to pull");
  CLI::Option* file = prefetch
                          ->add_option("-f,--file", line.options.file,
                                       "A file of references, one a line; - is "
                                       "the standard input")
                          ->type_name("FILE");
  prefetch->callback([&, references, file] {
    if (references->count() == 0 && file->count() == 0) {
      throw CLI::RequiredError("REFERENCE or --file");
    }
    command = ocifs::tools::Prefetch;
  });
  add_reference(add("resolve", "Print a reference with the digest it stands for",
                    ocifs::tools::ResolveReference));
  CLI::App* path = add("path", "Print where a package is below the mount", ocifs::tools::ShowPath);
  add_reference(path);
  path->add_option("--mount", line.options.mount_point,
                   "The mount point (default: where the store is mounted)")
      ->type_name("DIR");
  add("ls", "List what the store holds", ocifs::tools::List);
  add_reference(
      add("tags", "List the tags of a repository, newest version first", ocifs::tools::Tags));
  CLI::App* referrers = add("referrers", "List what refers to a package: signatures, SBOMs, …",
                            ocifs::tools::Referrers);
  add_reference(referrers);
  referrers->add_option("--artifact-type", line.options.artifact_type, "Only those of this type")
      ->type_name("TYPE");
  add("status", "Tell how the store is, or whether a package is in it",
      [](const CommandOptions& options) {
        return options.arguments.empty() ? ocifs::tools::StoreStatus(options)
                                         : ocifs::tools::Status(options);
      })
      ->add_option("REFERENCE", line.options.arguments, "registry/repository:tag or ...@sha256:hex")
      ->expected(0, 1);

  auto add_dry_run = [&](CLI::App* sub) {
    sub->add_flag("-n,--dry-run", line.options.dry_run, "Tell what would go; change nothing");
    return sub;
  };
  CLI::App* gc = add_dry_run(
      add("gc", "Collect garbage: bring the store below its limits", ocifs::tools::CollectGarbage));
  gc->add_option("--free", free_size, "Free at least so much")->type_name("SIZE");
  gc->callback([&] {
    const std::optional<uint64_t> bytes = ocifs::tools::ParseSize(free_size);
    if (!free_size.empty() && !bytes) throw CLI::ValidationError("--free", "a size such as 2GiB");
    line.options.free_bytes = bytes.value_or(0);
    command = ocifs::tools::CollectGarbage;
  });
  add_dry_run(add("rm", "Remove packages from the store", ocifs::tools::Remove))
      ->add_option("REFERENCE", line.options.arguments, "What to remove")
      ->required();
  add_dry_run(add("prune", "Remove packages that were not used for long", ocifs::tools::Prune))
      ->add_option("--older-than", line.options.older_than, "How long: 12h, 30d")
      ->type_name("DURATION")
      ->required();
  add("pin", "Fetch packages and never evict them; without a reference, list pins",
      ocifs::tools::Pin)
      ->add_option("REFERENCE", line.options.arguments, "What to keep");
  add("unpin", "Let packages be evicted again", ocifs::tools::Unpin)
      ->add_option("REFERENCE", line.options.arguments, "What not to keep")
      ->required();
  CLI::App* exporting =
      add("export", "Write packages to an OCI image layout, to be carried elsewhere",
          ocifs::tools::Export);
  exporting
      ->add_option("REFERENCE... DESTINATION", line.options.arguments,
                   "What to write, and where to: a directory, or a file that ends in .tar")
      ->type_name("")
      ->required();
  exporting->add_flag("--refetch", line.options.refetch,
                      "Get blobs that the store has dropped from the registry again");
  CLI::App* importing = add("import", "Take the packages of an OCI image layout into the store",
                            ocifs::tools::Import);
  importing->add_option("LAYOUT", line.options.file, "A directory or an uncompressed tar of one")
      ->type_name("")
      ->required();
  importing
      ->add_option("REFERENCE", line.options.arguments, "What its only package is to be called")
      ->type_name("")
      ->expected(0, 1);
  importing->add_flag("--replace", line.options.replace,
                      "Let references stand for what the layout says");
  CLI::App* fsck = add("fsck", "Read the whole store and say what is damaged", ocifs::tools::Fsck);
  fsck->add_flag("--repair", line.options.repair,
                 "Drop what is damaged and get it again, from raw blobs or the registry");
  fsck->add_flag("--rebuild-index", line.options.rebuild_index,
                 "Make the index anew first; nobody else may use the store");
  fsck->callback([&] {
    line.failure = ocifs::tools::kFsckFailed;
    command = ocifs::tools::Fsck;
  });
  add("du", "Tell what packages cost on disk and what they share", ocifs::tools::DiskUsage)
      ->add_option("REFERENCE", line.options.arguments, "Only these");

  auto add_login = [&](const char* name, const char* what, int (*run)(const LoginOptions&)) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->add_option("--authfile", line.login.auth_file,
                    "The only file to look at (default: those of podman and docker)")
        ->type_name("FILE");
    sub->add_option("--config", line.config, "Configuration, see ocifs.toml(5)")->type_name("FILE");
    sub->callback([&login_command, run] { login_command = run; });
    return sub;
  };
  CLI::App* login =
      add_login("login", "Store a login for a registry", [](const LoginOptions& options) {
        return ocifs::tools::Login(options, ocifs::tools::CheckLogin);
      });
  login->add_option("REGISTRY", line.login.registry, "host or host:port")->required();
  login->add_option("-u,--user,--username", line.login.user, "The user name (default: asked for)")
      ->type_name("USER");
  login->add_flag("--password-stdin", line.login.password_stdin,
                  "Read the password from the standard input (default: asked for)");
  login->add_flag("--no-verify", line.login.no_verify,
                  "Store it without asking the registry whether it is right");
  CLI::App* logout = add_login("logout", "Remove a login for a registry", ocifs::tools::Logout);
  CLI::Option* registry = logout->add_option("REGISTRY", line.login.registry, "host or host:port");
  CLI::Option* all = logout->add_flag("--all", line.login.all, "Remove those for all registries");
  registry->excludes(all);
  logout->callback([&, registry, all] {
    if (registry->count() == 0 && all->count() == 0) {
      throw CLI::RequiredError("REGISTRY or --all");
    }
    login_command = ocifs::tools::Logout;
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);  // 0 for --help
    return status != 0 && fsck->parsed() ? ocifs::tools::kFsckUsage : status;
  }
  if (login_command != nullptr) return ocifs::tools::RunLogin(line, login_command);
  return ocifs::tools::RunCommand(line, command);
}
