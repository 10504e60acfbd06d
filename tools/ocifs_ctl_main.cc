// ocifs-ctl: the store of ocifs from the command line. See ocifs-ctl(1).

#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "store/text.h"
#include "tools/commands.h"
#include "tools/log_setup.h"

namespace ocifs::tools {
namespace {

struct CommandLine {
  std::string store;
  std::string config;
  bool offline = false;
  CommandOptions options;
};

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
    std::fprintf(stderr, "ocifs-ctl: %s\n",
                 store::EscapeForDisplay(config.error().message).c_str());
    return 1;
  }
  config->offline = config->offline || line.offline;
  line.options.config = *std::move(config);
  umask(077);
  // What a library has to say apart from errors, which commands report themselves.
  if (!SetUpLog(LogTarget::kStandardError, line.options.config.log_file,
                store::LogLevel::kWarning)) {
    return 1;
  }
  return command(line.options);
}

}  // namespace
}  // namespace ocifs::tools

int main(int argc, char** argv) {
  using ocifs::tools::CommandOptions;
  CLI::App app("Fetches and looks up OCI artifacts in the store of ocifs.", "ocifs-ctl");
  app.set_version_flag("--version", "ocifs-ctl " OCIFS_VERSION);
  app.require_subcommand(1);
  ocifs::tools::CommandLine line;
  int (*command)(const CommandOptions&) = nullptr;

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
  add_reference(add("status", "Tell whether a package is in the store", ocifs::tools::Status));

  CLI11_PARSE(app, argc, argv);
  return ocifs::tools::RunCommand(line, command);
}
