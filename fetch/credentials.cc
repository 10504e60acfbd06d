#include "fetch/credentials.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "store/json.h"
#include "store/log.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Json;
using store::Result;

constexpr size_t kMaxAuthFileBytes = size_t{4} << 20;

// The names under which Docker Hub's credentials are kept, by all tools together.
bool IsDockerHubName(std::string_view host) {
  return host == "docker.io" || host == "index.docker.io" || host == "registry-1.docker.io";
}

// nullopt when there is no such file, or none that may be read.
std::optional<std::string> ReadAuthFile(const std::string& path) {
  // O_NONBLOCK: a FIFO of that name must not hang a lookup.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  std::optional<std::string> text;
  struct stat status{};
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
    text.emplace();
    std::string buffer(size_t{64} << 10, '\0');
    ssize_t count = 0;
    while (text->size() <= kMaxAuthFileBytes &&
           (count = read(fd, buffer.data(), buffer.size())) > 0) {
      text->append(buffer, 0, static_cast<size_t>(count));
    }
    if (count < 0) text.reset();
  }
  close(fd);
  return text;
}

std::string StringMember(const Json& object, std::string_view key) {
  const Json* const member = object.Find(key);
  const std::string* const text = member == nullptr ? nullptr : member->string();
  return text == nullptr ? "" : *text;
}

// nullopt for `{}`, which Docker leaves where a helper keeps the secret.
Result<std::optional<Credential>> CredentialOf(const Json& entry) {
  Credential credential;
  credential.identity_token = StringMember(entry, "identitytoken");
  credential.registry_token = StringMember(entry, "registrytoken");
  credential.username = StringMember(entry, "username");
  credential.password = StringMember(entry, "password");
  if (const std::string encoded = StringMember(entry, "auth"); !encoded.empty()) {
    std::optional<std::string> pair = store::FromBase64(encoded);
    const size_t colon = pair ? pair->find(':') : std::string::npos;
    if (colon == std::string::npos) {
      return Fail(ErrorCode::kInvalid, "\"auth\" is not the base64 form of user:password");
    }
    // Passwords hold colons, and old clients padded with NULs.
    const size_t last = pair->find_last_not_of('\0');
    pair->resize(last == std::string::npos ? 0 : last + 1);
    credential.username = pair->substr(0, colon);
    credential.password = pair->size() > colon ? pair->substr(colon + 1) : "";
  }
  if (credential.identity_token.empty() && credential.registry_token.empty() &&
      (credential.username.empty() || credential.password.empty())) {
    return std::nullopt;
  }
  return credential;
}

// `key` of an `auths` map without what older tools wrote around the host. A path in a key without a
// scheme is a repository of the containers tools and no decoration.
std::string_view HostOfLegacyKey(std::string_view key, bool legacy_file) {
  const std::string_view whole = key;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (key.starts_with(scheme)) {
      key.remove_prefix(scheme.size());
      break;
    }
  }
  if (legacy_file || key.size() != whole.size()) key = key.substr(0, key.find('/'));
  return key;
}

bool SameHost(std::string_view host, const store::Registry& registry) {
  return host == registry.name() || (registry.is_docker_hub() && IsDockerHubName(host));
}

const Json* FindEntry(const Json::Object& auths, const store::Repository& repository,
                      bool legacy_file) {
  std::string key = repository.ToString();
  while (true) {
    for (const auto& [name, entry] : auths) {
      if (name == key) return &entry;
    }
    const size_t slash = key.rfind('/');
    if (slash == std::string::npos) break;
    key.resize(slash);
  }
  for (const auto& [name, entry] : auths) {
    if (SameHost(HostOfLegacyKey(name, legacy_file), repository.registry())) return &entry;
  }
  return nullptr;
}

}  // namespace

std::optional<std::string> ProcessEnvironment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return value;
}

std::vector<std::string> AuthFilePaths(std::string_view explicit_file,
                                       const EnvironmentLookup& environment, uint32_t uid) {
  if (!explicit_file.empty()) return {std::string(explicit_file)};
  auto variable = [&](const char* name) { return environment(name).value_or(""); };
  if (std::string file = variable("REGISTRY_AUTH_FILE"); !file.empty()) return {file};
  std::vector<std::string> paths;
  const std::string runtime = variable("XDG_RUNTIME_DIR");
  paths.push_back(runtime.empty() ? "/run/containers/" + std::to_string(uid) + "/auth.json"
                                  : runtime + "/containers/auth.json");
  const std::string home = variable("HOME");
  if (std::string config = variable("XDG_CONFIG_HOME"); !config.empty()) {
    paths.push_back(config + "/containers/auth.json");
  } else if (!home.empty()) {
    paths.push_back(home + "/.config/containers/auth.json");
  }
  if (std::string docker = variable("DOCKER_CONFIG"); !docker.empty()) {
    paths.push_back(docker + "/config.json");
  } else if (!home.empty()) {
    paths.push_back(home + "/.docker/config.json");
  }
  if (!home.empty()) paths.push_back(home + "/.dockercfg");
  return paths;
}

Result<AuthFileAnswer> FindInAuthFile(std::string_view text, const store::Repository& repository) {
  AuthFileAnswer answer;
  // Docker leaves an empty file behind an interrupted login.
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return answer;
  Result<Json> parsed = Json::Parse(text, {.max_bytes = kMaxAuthFileBytes});
  if (!parsed) return Fail(ErrorCode::kInvalid, parsed.error().message);
  const Json::Object* const top = parsed->object();
  if (top == nullptr) return Fail(ErrorCode::kInvalid, "not a JSON object");

  const store::Registry& registry = repository.registry();
  if (const Json* const helpers = parsed->Find("credHelpers");
      helpers != nullptr && helpers->object() != nullptr) {
    for (const auto& [host, helper] : *helpers->object()) {
      if (SameHost(HostOfLegacyKey(host, false), registry) && helper.string() != nullptr) {
        answer.helper = *helper.string();
        return answer;
      }
    }
  }
  const Json* const auths = parsed->Find("auths");
  const bool legacy_file = auths == nullptr && parsed->Find("credsStore") == nullptr &&
                           parsed->Find("credHelpers") == nullptr;
  const Json::Object* const entries = legacy_file        ? top
                                      : auths == nullptr ? nullptr
                                                         : auths->object();
  const Json* const entry =
      entries == nullptr ? nullptr : FindEntry(*entries, repository, legacy_file);
  if (entry != nullptr) {
    OCIFS_ASSIGN_OR_RETURN(answer.credential, CredentialOf(*entry));
  }
  if (!answer.credential) answer.helper = StringMember(*parsed, "credsStore");
  return answer;
}

Result<std::optional<Credential>> AuthFiles::Lookup(const store::Repository& repository, Freshness,
                                                    const std::stop_token&) {
  for (const std::string& path : paths_) {
    const std::optional<std::string> text = ReadAuthFile(path);
    if (!text) continue;
    Result<AuthFileAnswer> answer = FindInAuthFile(*text, repository);
    if (!answer) {
      return Fail(std::move(answer).error().Wrap("auth file " + path));
    }
    if (answer->credential) return answer->credential;
    if (!answer->helper.empty()) ReportHelperOnce(path, answer->helper, repository.registry());
  }
  return std::nullopt;
}

void AuthFiles::ReportHelperOnce(const std::string& path, const std::string& helper,
                                 const store::Registry& registry) {
  {
    const store::MutexLock lock(mutex_);
    if (!reported_.insert(path + "\n" + helper + "\n" + registry.name()).second) return;
  }
  store::Log(store::LogLevel::kInfo,
             "auth file " + path + " leaves " + registry.name() + " to the credential helper '" +
                 helper + "', which is not run; to use a login of its own, run `podman login " +
                 registry.name() + "`");
}

}  // namespace ocifs::fetch
