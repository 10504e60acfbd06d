#include "tools/login.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "fetch/auth_file.h"
#include "store/text.h"
#include "tools/terminal.h"

namespace ocifs::tools {
namespace {

using fetch::AuthPlaces;
using fetch::Credential;
using fetch::CredentialHelpers;
using fetch::RegistryLogins;
using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Registry;
using store::Result;

int Complain(const Error& error) {
  std::fprintf(stderr, "ocifs-ctl: %s\n", store::EscapeForDisplay(error.message).c_str());
  return 1;
}

void Print(const std::string& line) { std::printf("%s\n", store::EscapeForDisplay(line).c_str()); }

AuthPlaces PlacesOf(const LoginOptions& options) {
  const std::string file =
      options.auth_file.empty() ? options.config.auth_file : AbsolutePath(options.auth_file);
  return fetch::FindAuthPlaces(file, fetch::ProcessEnvironment, geteuid());
}

// A person waits for it at a terminal, and may have to unlock a keychain first.
fetch::CredentialHelperOptions HelpersOfAPerson() {
  return {.timeout = std::chrono::minutes(2), .standard_error = fetch::ChildStderr::kInherit};
}

// Nothing at all, as of an absent file, when it cannot be read.
Result<RegistryLogins> LoginsIn(const std::string& file, const Registry& registry) {
  Result<RegistryLogins> logins =
      fetch::FindRegistryInAuthFile(fetch::ReadAuthFile(file).value_or(""), registry);
  if (!logins) return Fail(std::move(logins).error().Wrap("auth file " + file));
  return logins;
}

Result<void> StoreIn(const std::string& file, CredentialHelpers& helpers, const Registry& registry,
                     const Credential& credential, std::vector<std::string>& lines) {
  OCIFS_ASSIGN_OR_RETURN(const RegistryLogins logins, LoginsIn(file, registry));
  const bool by_helper = !logins.helper.empty();
  if (by_helper) {
    OCIFS_RETURN_IF_ERROR(helpers.Store(logins.helper, logins.servers.front(), credential, {}));
  }
  // Where a helper has it, the file says so with an empty entry, as Docker does.
  Result<bool> done =
      fetch::EditAuthFile(file, [&](std::string_view text) -> Result<std::optional<std::string>> {
        return fetch::WithLogin(text, registry,
                                by_helper ? std::nullopt : std::optional(credential));
      });
  if (!done) return Fail(std::move(done).error().Wrap("storing the login"));
  lines.push_back(by_helper ? "Stored the login for " + registry.name() +
                                  " with the credential helper '" + logins.helper + "' of " + file
                            : "Stored the login for " + registry.name() + " in " + file);
  return {};
}

// Whether there was something to take out.
Result<bool> RemoveFromHelper(const RegistryLogins& logins, CredentialHelpers& helpers) {
  bool removed = false;
  for (const std::string& server : logins.servers) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<Credential> known,
                           helpers.Get(logins.helper, server, fetch::Freshness::kFresh, {}));
    if (!known) continue;
    OCIFS_RETURN_IF_ERROR(helpers.Erase(logins.helper, server, {}));
    removed = true;
  }
  return removed;
}

void RemoveFrom(const std::string& file, CredentialHelpers& helpers, const Registry& registry,
                RemovedLogins& result) {
  Result<RegistryLogins> logins = LoginsIn(file, registry);
  if (!logins) {
    result.failures.push_back(std::move(logins).error());
    return;
  }
  if (!logins->helper.empty()) {
    Result<bool> removed = RemoveFromHelper(*logins, helpers);
    if (!removed) {
      result.failures.push_back(std::move(removed).error().Wrap("auth file " + file));
      // The entry says that the helper still has it.
      if (!logins->has_login) return;
    } else if (*removed) {
      result.removed.push_back("Removed the login for " + registry.name() +
                               " from the credential helper '" + logins->helper + "' of " + file);
    }
  }
  if (!logins->has_key) return;
  Result<bool> edited = fetch::EditAuthFile(
      file, [&](std::string_view text) { return fetch::WithoutLogin(text, registry); });
  if (!edited) {
    result.failures.push_back(std::move(edited).error().Wrap("removing the login"));
  } else if (*edited && logins->has_login) {
    result.removed.push_back("Removed the login for " + registry.name() + " from " + file);
  }
}

// What $DOCKER_AUTH_CONFIG says about the registry.
bool IsInEnvironment(const AuthPlaces& places, const Registry& registry) {
  const Result<RegistryLogins> logins = fetch::FindRegistryInAuthFile(places.inline_file, registry);
  return logins && (logins->has_login || !logins->helper.empty());
}

Result<Credential> AskForLogin(const LoginOptions& options, const Registry& registry) {
  Credential credential{.username = options.user};
  if (options.password_stdin && credential.username.empty()) {
    return Fail(ErrorCode::kInvalid, "--password-stdin needs --user");
  }
  auto advise = [](Error error) {
    if (error.code == ErrorCode::kUnsupported) {
      error.message += "; use --user and --password-stdin";
    }
    return Fail(std::move(error));
  };
  if (credential.username.empty()) {
    Result<std::string> user = AskAtTerminal("User name for " + registry.name() + ": ", Echo::kOn);
    if (!user) return advise(std::move(user).error());
    credential.username = *std::move(user);
  }
  Result<std::string> password =
      options.password_stdin
          ? ReadSecretFromInput()
          : AskAtTerminal("Password for " + credential.username + " at " + registry.name() + ": ",
                          Echo::kOff);
  if (!password) return advise(std::move(password).error());
  credential.password = *std::move(password);
  if (credential.username.empty() || credential.username.find(':') != std::string::npos) {
    return Fail(ErrorCode::kInvalid, "a user name is not empty and holds no ':'");
  }
  if (credential.password.empty() || credential.password.find('\0') != std::string::npos) {
    return Fail(ErrorCode::kInvalid, "a password is not empty and holds no NUL");
  }
  return credential;
}

}  // namespace

Result<Registry> ParseLoginRegistry(std::string_view text) {
  const std::string_view whole = text;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (text.starts_with(scheme)) {
      text.remove_prefix(scheme.size());
      text = text.substr(0, text.find('/'));
      break;
    }
  }
  if (text.ends_with('/')) text.remove_suffix(1);
  if (text.find('/') != std::string_view::npos) {
    return Fail(ErrorCode::kInvalid, "'" + std::string(whole) +
                                         "' is more than a registry: give its host, and its port "
                                         "if it has one");
  }
  return Registry::Parse(text);
}

Result<std::vector<std::string>> StoreLogin(const AuthPlaces& places, CredentialHelpers& helpers,
                                            const Registry& registry,
                                            const Credential& credential) {
  std::string place = places.login_file;
  bool in_transient = false;
  for (const std::string& file : places.files) {
    OCIFS_ASSIGN_OR_RETURN(const RegistryLogins logins, LoginsIn(file, registry));
    if (logins.legacy || (!logins.has_login && logins.helper.empty())) continue;
    if (file == places.transient_file && file != places.login_file) {
      in_transient = true;
      continue;
    }
    place = file;
    break;
  }
  std::vector<std::string> lines;
  OCIFS_RETURN_IF_ERROR(StoreIn(place, helpers, registry, credential, lines));
  if (in_transient) {
    OCIFS_RETURN_IF_ERROR(StoreIn(places.transient_file, helpers, registry, credential, lines));
  }
  if (place == places.transient_file) {
    lines.push_back("Note: " + place + " is gone after the last session of its user.");
  }
  if (IsInEnvironment(places, registry)) {
    lines.emplace_back("Note: $DOCKER_AUTH_CONFIG has another login for it, which comes first.");
  }
  return lines;
}

RemovedLogins RemoveLogin(const AuthPlaces& places, CredentialHelpers& helpers,
                          const Registry& registry) {
  RemovedLogins result;
  for (const std::string& file : places.files) RemoveFrom(file, helpers, registry, result);
  if (IsInEnvironment(places, registry)) {
    result.failures.push_back({ErrorCode::kInvalid, "the login for " + registry.name() +
                                                        " in $DOCKER_AUTH_CONFIG stays until that "
                                                        "variable is unset"});
  }
  return result;
}

RemovedLogins RemoveAllLogins(const AuthPlaces& places, CredentialHelpers& helpers) {
  RemovedLogins all;
  for (const std::string& file : places.files) {
    Result<std::vector<Registry>> registries =
        fetch::RegistriesInAuthFile(fetch::ReadAuthFile(file).value_or(""));
    if (!registries) {
      all.failures.push_back(std::move(registries).error().Wrap("auth file " + file));
      continue;
    }
    for (const Registry& registry : *registries) {
      RemoveFrom(file, helpers, registry, all);
    }
  }
  if (const auto registries = fetch::RegistriesInAuthFile(places.inline_file);
      registries && !registries->empty()) {
    all.failures.push_back({ErrorCode::kInvalid,
                            "the logins in $DOCKER_AUTH_CONFIG stay until that variable is unset"});
  }
  return all;
}

int Login(const LoginOptions& options, const LoginCheck& check) {
  const Result<Registry> registry = ParseLoginRegistry(options.registry);
  if (!registry) return Complain(registry.error());
  const Result<Credential> credential = AskForLogin(options, *registry);
  if (!credential) return Complain(credential.error());
  if (!options.no_verify) {
    if (options.config.offline) {
      return Complain({ErrorCode::kUnavailable,
                       "offline: the registry cannot be asked whether it accepts the login; "
                       "--no-verify stores it unasked"});
    }
    if (Result<void> checked = check(options.config, *registry, *credential); !checked) {
      Error error = std::move(checked).error();
      error.message += "; nothing was stored";
      return Complain(error);
    }
  }
  CredentialHelpers helpers(HelpersOfAPerson());
  const Result<std::vector<std::string>> lines =
      StoreLogin(PlacesOf(options), helpers, *registry, *credential);
  if (!lines) return Complain(lines.error());
  for (const std::string& line : *lines) Print(line);
  return 0;
}

int Logout(const LoginOptions& options) {
  CredentialHelpers helpers(HelpersOfAPerson());
  RemovedLogins result;
  std::string what;
  if (options.all) {
    result = RemoveAllLogins(PlacesOf(options), helpers);
  } else {
    const Result<Registry> registry = ParseLoginRegistry(options.registry);
    if (!registry) return Complain(registry.error());
    what = " for " + registry->name();
    result = RemoveLogin(PlacesOf(options), helpers, *registry);
  }
  for (const std::string& line : result.removed) Print(line);
  for (const Error& failure : result.failures) Complain(failure);
  if (result.removed.empty() && result.failures.empty()) {
    return Complain({ErrorCode::kNotFound, "there is no login" + what});
  }
  return result.failures.empty() ? 0 : 1;
}

}  // namespace ocifs::tools
