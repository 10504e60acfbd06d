// Auth files and answers of credential helpers. A login is found only under a key that names
// exactly the repository's host; a file that takes a login gives it back, gives it up again, and
// keeps all else that it says; nothing of a text stands in the message that refuses it.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "fetch/auth_file.h"
#include "fetch/credential_helper.h"
#include "store/json.h"
#include "store/reference.h"

namespace {

using ocifs::fetch::AuthFileAnswer;
using ocifs::fetch::Credential;
using ocifs::store::Json;
using ocifs::store::Registry;
using ocifs::store::Repository;
using ocifs::store::Result;

void Demand(bool condition) {
  if (!condition) std::abort();
}

bool Same(const Json& a, const Json& b) {
  if (const Json::Object* const object = a.object()) {
    if (b.object() == nullptr || object->size() != b.object()->size()) return false;
    for (const auto& [key, value] : *object) {
      const Json* const other = b.Find(key);
      if (other == nullptr || !Same(value, *other)) return false;
    }
    return true;
  }
  if (const Json::Array* const array = a.array()) {
    if (b.array() == nullptr || array->size() != b.array()->size()) return false;
    for (size_t i = 0; i < array->size(); ++i) {
      if (!Same((*array)[i], (*b.array())[i])) return false;
    }
    return true;
  }
  if (a.string() != nullptr) return b.string() != nullptr && *a.string() == *b.string();
  if (a.integer() != nullptr) return b.integer() != nullptr && *a.integer() == *b.integer();
  if (a.number() != nullptr) return b.number() != nullptr && *a.number() == *b.number();
  if (a.boolean() != nullptr) return b.boolean() != nullptr && *a.boolean() == *b.boolean();
  return a.is_null() && b.is_null();
}

// Whether a key means the repository's registry, or a part of it that holds the repository: the
// rules of the format once more.
bool NamesRepository(std::string_view key, const Repository& repository) {
  const std::string whole = repository.ToString();
  if (whole.starts_with(key) && (key.size() == whole.size() || whole[key.size()] == '/')) {
    return true;
  }
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!key.starts_with(scheme)) continue;
    key.remove_prefix(scheme.size());
    break;
  }
  key = key.substr(0, key.find('/'));
  return key == repository.registry().name() ||
         (repository.registry().is_docker_hub() &&
          (key == "index.docker.io" || key == "registry-1.docker.io"));
}

bool AnyKeyNames(const Json* map, const Repository& repository) {
  if (map == nullptr || map->object() == nullptr) return false;
  for (const auto& [key, value] : *map->object()) {
    if (NamesRepository(key, repository)) return true;
  }
  return false;
}

void CheckReading(std::string_view text, const Repository& repository) {
  const Result<AuthFileAnswer> answer = ocifs::fetch::FindInAuthFile(text, repository);
  if (!answer) return;
  const Result<Json> json = Json::Parse(text);
  if (answer->credential) {
    Demand(json.has_value());
    Demand(AnyKeyNames(json->Find("auths"), repository) || AnyKeyNames(&*json, repository));
    Demand(answer->helper.empty());
  }
  Demand(answer->helper.empty() == answer->servers.empty());
}

void CheckEditing(std::string_view text, const Repository& repository) {
  const Registry& registry = repository.registry();
  const Credential credential{.username = "user\"\\", .password = "p:\xFF"};
  const Result<std::string> edited = ocifs::fetch::WithLogin(text, registry, credential);
  if (!edited) return;
  const Result<Json> before = Json::Parse(text);
  const Result<Json> after = Json::Parse(*edited);
  Demand(after && after->Find("auths") != nullptr);
  // Everything outside of "auths" is as it was.
  if (before) {
    for (const auto& [key, value] : *before->object()) {
      const Json* const now = after->Find(key);
      Demand(now != nullptr && (key == "auths" || Same(value, *now)));
    }
  }
  const Result<ocifs::fetch::RegistryLogins> logins =
      ocifs::fetch::FindRegistryInAuthFile(*edited, registry);
  Demand(logins && logins->has_login);
  const Result<AuthFileAnswer> answer = ocifs::fetch::FindInAuthFile(*edited, repository);
  // A helper, or a login for a part of the registry, has precedence.
  if (answer && answer->credential && logins->helper.empty()) {
    Demand(!answer->credential->username.empty() || !answer->credential->identity_token.empty() ||
           !answer->credential->registry_token.empty());
  }
  const Result<std::string> again = ocifs::fetch::WithLogin(*edited, registry, credential);
  Demand(again && *again == *edited);
  const Result<std::optional<std::string>> without = ocifs::fetch::WithoutLogin(*edited, registry);
  Demand(without && *without);
  const Result<ocifs::fetch::RegistryLogins> rest =
      ocifs::fetch::FindRegistryInAuthFile(**without, registry);
  Demand(rest && !rest->has_key);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::array<Repository, 3> kRepositories = {
      *Repository::Parse(*Registry::Parse("r.example"), "team/app"),
      *Repository::Parse(*Registry::Parse("r.example:5000"), "a"),
      *Repository::Parse(*Registry::Parse("docker.io"), "alpine")};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const Repository& repository : kRepositories) {
    CheckReading(text, repository);
    CheckEditing(text, repository);
  }
  const auto answer = ocifs::fetch::ParseHelperAnswer(text);
  if (answer && *answer) {
    Demand((*answer)->identity_token.empty() != (*answer)->password.empty());
    Demand((*answer)->username.empty() == (*answer)->password.empty());
  }
  return 0;
}
