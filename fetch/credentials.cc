#include "fetch/credentials.h"

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "fetch/auth_file.h"

namespace ocifs::fetch {
namespace {

using store::Fail;
using store::Result;

std::optional<std::string> HomeOfUser() {
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 16384> buffer;
  if (getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr || found->pw_dir == nullptr) {
    return std::nullopt;
  }
  return found->pw_dir;
}

}  // namespace

std::optional<std::string> ProcessEnvironment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  if (value != nullptr) return value;
  return name == "HOME" ? HomeOfUser() : std::nullopt;
}

AuthPlaces FindAuthPlaces(std::string_view explicit_file, const EnvironmentLookup& environment,
                          uint32_t uid) {
  auto only = [](std::string file) { return AuthPlaces{.files = {file}, .login_file = file}; };
  if (!explicit_file.empty()) return only(std::string(explicit_file));
  auto variable = [&](const char* name) { return environment(name).value_or(""); };
  if (std::string file = variable("REGISTRY_AUTH_FILE"); !file.empty()) return only(file);

  AuthPlaces places{.inline_file = variable("DOCKER_AUTH_CONFIG")};
  auto add = [&](std::string file) -> const std::string& {
    return places.files.emplace_back(std::move(file));
  };
  const std::string docker = variable("DOCKER_CONFIG");
  if (!docker.empty()) places.login_file = add(docker + "/config.json");
  const std::string runtime = variable("XDG_RUNTIME_DIR");
  places.transient_file =
      add((runtime.empty() ? "/run/containers/" + std::to_string(uid) : runtime + "/containers") +
          "/auth.json");
  const std::string home = variable("HOME");
  std::string config = variable("XDG_CONFIG_HOME");
  if (config.empty() && !home.empty()) config = home + "/.config";
  if (!config.empty()) {
    const std::string& file = add(config + "/containers/auth.json");
    if (places.login_file.empty()) places.login_file = file;
  }
  if (docker.empty() && !home.empty()) add(home + "/.docker/config.json");
  if (!home.empty()) add(home + "/.dockercfg");
  if (places.login_file.empty()) places.login_file = places.transient_file;
  return places;
}

Result<std::optional<Credential>> AuthFiles::LookupIn(std::string_view text,
                                                      const store::Repository& repository,
                                                      Freshness freshness,
                                                      const std::stop_token& stop) {
  OCIFS_ASSIGN_OR_RETURN(AuthFileAnswer answer, FindInAuthFile(text, repository));
  if (answer.credential) return std::move(answer.credential);
  for (const std::string& server : answer.servers) {
    OCIFS_ASSIGN_OR_RETURN(std::optional<Credential> credential,
                           helpers_.Get(answer.helper, server, freshness, stop));
    if (credential) return credential;
  }
  return std::nullopt;
}

Result<std::optional<Credential>> AuthFiles::Lookup(const store::Repository& repository,
                                                    Freshness freshness,
                                                    const std::stop_token& stop) {
  if (!places_.inline_file.empty()) {
    Result<std::optional<Credential>> found =
        LookupIn(places_.inline_file, repository, freshness, stop);
    if (!found) return Fail(std::move(found).error().Wrap("$DOCKER_AUTH_CONFIG"));
    if (*found) return found;
  }
  for (const std::string& path : places_.files) {
    const std::optional<std::string> text = ReadAuthFile(path);
    if (!text) continue;
    Result<std::optional<Credential>> found = LookupIn(*text, repository, freshness, stop);
    if (!found) return Fail(std::move(found).error().Wrap("auth file " + path));
    if (*found) return found;
  }
  return std::nullopt;
}

}  // namespace ocifs::fetch
