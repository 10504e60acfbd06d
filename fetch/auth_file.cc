#include "fetch/auth_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "store/file.h"
#include "store/json.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::ErrorFromErrno;
using store::Fail;
using store::Json;
using store::Registry;
using store::Result;
using store::UniqueFd;

constexpr size_t kMaxAuthFileBytes = size_t{4} << 20;
// Under which Docker, and by its normalisation the containers tools, look for Docker Hub.
constexpr std::string_view kDockerHubKey = "https://index.docker.io/v1/";

// --- reading -------------------------------------------------------------------------------------

// The names under which Docker Hub's credentials are kept, by all tools together.
bool IsDockerHubName(std::string_view host) {
  return host == "docker.io" || host == "index.docker.io" || host == "registry-1.docker.io";
}

// nullopt for `{}`, which Docker leaves where a helper keeps the secret.
Result<std::optional<Credential>> CredentialOf(const Json& entry) {
  Credential credential;
  credential.identity_token = entry.FindText("identitytoken");
  credential.registry_token = entry.FindText("registrytoken");
  credential.username = entry.FindText("username");
  credential.password = entry.FindText("password");
  if (const std::string encoded = entry.FindText("auth"); !encoded.empty()) {
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
std::string_view HostOfKey(std::string_view key, bool legacy_file) {
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

bool SameHost(std::string_view host, const Registry& registry) {
  return host == registry.name() || (registry.is_docker_hub() && IsDockerHubName(host));
}

struct AuthFile {
  Json json;
  bool legacy = false;
  // The map of logins; null when there is none. Points into `json`.
  const Json::Object* logins() const {
    const Json* const auths = legacy ? &json : json.Find("auths");
    return auths == nullptr ? nullptr : auths->object();
  }
  // nullopt when "credHelpers" does not name the registry. Empty: no helper, whatever "credsStore"
  // says.
  std::optional<std::string> HelperFor(const Registry& registry) const {
    const Json* const helpers = json.Find("credHelpers");
    if (helpers == nullptr || helpers->object() == nullptr) return std::nullopt;
    for (const auto& [host, helper] : *helpers->object()) {
      if (SameHost(HostOfKey(host, false), registry) && helper.string() != nullptr) {
        return *helper.string();
      }
    }
    return std::nullopt;
  }
};

Result<AuthFile> ParseAuthFile(std::string_view text) {
  // Docker leaves an empty file behind an interrupted login.
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) text = "{}";
  Result<Json> parsed = Json::Parse(text, {.max_bytes = kMaxAuthFileBytes});
  if (!parsed) return Fail(ErrorCode::kInvalid, parsed.error().message);
  if (parsed->object() == nullptr) return Fail(ErrorCode::kInvalid, "not a JSON object");
  AuthFile file{.json = *std::move(parsed)};
  file.legacy = file.json.Find("auths") == nullptr && file.json.Find("credsStore") == nullptr &&
                file.json.Find("credHelpers") == nullptr;
  return file;
}

// The names under which a helper may keep the registry's login: Docker's, then that of the
// containers tools, then those that the file has for it.
std::vector<std::string> ServersOf(const AuthFile& file, const Registry& registry) {
  std::vector<std::string> servers;
  if (registry.is_docker_hub()) servers.emplace_back(kDockerHubKey);
  servers.push_back(registry.name());
  if (const Json::Object* const logins = file.logins()) {
    for (const auto& [key, entry] : *logins) {
      if (SameHost(HostOfKey(key, file.legacy), registry) &&
          std::find(servers.begin(), servers.end(), key) == servers.end()) {
        servers.push_back(key);
      }
    }
  }
  return servers;
}

// The entries that may hold a login for the repository, the best first.
std::vector<const Json*> EntriesFor(const AuthFile& file, const store::Repository& repository) {
  std::vector<const Json*> entries;
  const Json::Object* const logins = file.logins();
  if (logins == nullptr) return entries;
  std::string key = repository.ToString();
  while (true) {
    for (const auto& [name, entry] : *logins) {
      if (name == key) entries.push_back(&entry);
    }
    const size_t slash = key.rfind('/');
    if (slash == std::string::npos) break;
    key.resize(slash);
  }
  for (const auto& [name, entry] : *logins) {
    if (SameHost(HostOfKey(name, file.legacy), repository.registry())) entries.push_back(&entry);
  }
  return entries;
}

// --- editing -------------------------------------------------------------------------------------

// Where a member of an object stands in a text.
struct MemberSpan {
  std::string key;
  size_t begin;  // of the key
  size_t value;
  size_t end;
};
struct ObjectSpan {
  size_t begin;
  size_t end;  // behind the '}'
  std::vector<MemberSpan> members;

  const MemberSpan* Find(std::string_view key) const {
    for (const MemberSpan& member : members) {
      if (member.key == key) return &member;
    }
    return nullptr;
  }
};

// Walks over a text that Json::Parse has accepted.
class Walker {
 public:
  Walker(std::string_view text, size_t at) : text_(text), at_(at) { SkipSpace(); }

  // The object that begins here.
  ObjectSpan Object() {
    ObjectSpan object{.begin = at_, .end = 0, .members = {}};
    Next();
    while (text_[at_] != '}') {
      MemberSpan member{.key = {}, .begin = at_, .value = 0, .end = 0};
      SkipString();
      const Result<Json> key = Json::Parse(text_.substr(member.begin, at_ - member.begin));
      if (key && key->string() != nullptr) member.key = *key->string();
      SkipSpace();
      Next();  // ':'
      member.value = at_;
      SkipValue();
      member.end = at_;
      object.members.push_back(std::move(member));
      SkipSpace();
      if (text_[at_] == ',') Next();
    }
    object.end = at_ + 1;
    return object;
  }

 private:
  void SkipSpace() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }
  void Next() {
    ++at_;
    SkipSpace();
  }
  void SkipString() {
    for (++at_; text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;
    }
    ++at_;
  }
  void SkipValue() {
    size_t depth = 0;
    do {
      const char c = text_[at_];
      if (c == '"') {
        SkipString();
        continue;
      }
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      ++at_;
    } while (depth > 0 ||
             (at_ < text_.size() && std::string_view(",]} \t\r\n").find(text_[at_]) == text_.npos));
  }

  const std::string_view text_;
  size_t at_;
};

// A text that is an object, being edited.
class Editor {
 public:
  explicit Editor(std::string_view text) : text_(text) {
    if (text_.find_first_not_of(" \t\r\n") == std::string::npos) text_ = "{}\n";
    const ObjectSpan top = Top();
    if (top.members.empty()) return;
    const std::string gap = text_.substr(top.begin + 1, top.members[0].begin - top.begin - 1);
    const size_t line = gap.rfind('\n');
    newline_ = line == std::string::npos ? "" : gap.substr(0, line + 1);
    unit_ = line == std::string::npos ? "" : gap.substr(line + 1);
  }

  ObjectSpan Top() const { return Walker(text_, 0).Object(); }
  // The object that is a value of another.
  ObjectSpan Inner(const MemberSpan& member) const { return Walker(text_, member.value).Object(); }
  std::string_view ValueOf(const MemberSpan& member) const {
    return std::string_view(text_).substr(member.value, member.end - member.value);
  }

  void Replace(const MemberSpan& member, std::string_view value) {
    text_.replace(member.value, member.end - member.value, value);
  }
  // `depth` is that of the new member: 1 in the outermost object.
  void Insert(const ObjectSpan& object, size_t depth, std::string_view key,
              std::string_view value) {
    const std::string member = Gap(depth) + store::JsonQuote(key) + Colon() + std::string(value);
    if (object.members.empty()) {
      text_.replace(object.begin, object.end - object.begin, "{" + member + Gap(depth - 1) + "}");
    } else {
      text_.insert(object.members.back().end, "," + member);
    }
  }
  void Remove(const ObjectSpan& object, size_t index) {
    const std::vector<MemberSpan>& members = object.members;
    size_t from = members[index].begin;
    size_t to = members[index].end;
    if (members.size() == 1) {
      from = object.begin + 1;
      to = object.end - 1;
    } else if (index + 1 < members.size()) {
      to = members[index + 1].begin;
    } else {
      from = members[index - 1].end;
    }
    text_.erase(from, to - from);
  }

  std::string Gap(size_t depth) const {
    std::string gap = newline_;
    for (size_t i = 0; i < depth; ++i) gap += unit_;
    return gap;
  }
  std::string Colon() const { return newline_.empty() ? ":" : ": "; }
  std::string Finish() && { return std::move(text_); }

 private:
  std::string text_;
  // The tools' own layout, unless the file has another.
  std::string newline_ = "\n";
  std::string unit_ = "\t";
};

// Removes all members of the registry except the one called `keep`; whether there were any.
bool RemoveRegistry(Editor& editor, const std::function<ObjectSpan()>& logins,
                    const Registry& registry, bool legacy, std::string_view keep) {
  bool removed = false;
  while (true) {
    const ObjectSpan object = logins();
    const auto found =
        std::find_if(object.members.begin(), object.members.end(), [&](const MemberSpan& member) {
          return member.key != keep && SameHost(HostOfKey(member.key, legacy), registry);
        });
    if (found == object.members.end()) return removed;
    editor.Remove(object, static_cast<size_t>(found - object.members.begin()));
    removed = true;
  }
}

Result<std::string> EntryText(const Editor& editor, const std::optional<Credential>& credential) {
  if (!credential) return "{}";
  if (credential->username.empty() || credential->username.find(':') != std::string::npos ||
      credential->password.empty()) {
    return Fail(ErrorCode::kInvalid,
                "a login is a user name without ':' and a password, neither of them empty");
  }
  return "{" + editor.Gap(3) + "\"auth\"" + editor.Colon() +
         store::JsonQuote(store::ToBase64(credential->username + ":" + credential->password)) +
         editor.Gap(2) + "}";
}

// --- files ---------------------------------------------------------------------------------------

// nullopt when there is no such file.
Result<std::optional<std::string>> ReadForEdit(const std::string& path) {
  // O_NONBLOCK: a FIFO of that name must not hang a lookup.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == ENOENT) return std::nullopt;
  if (!fd) return Fail(ErrorFromErrno(errno, "opening " + path));
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) return Fail(ErrorFromErrno(errno, "looking at " + path));
  if (!S_ISREG(status.st_mode)) return Fail(ErrorCode::kInvalid, path + " is not a regular file");
  std::string text;
  std::string buffer(size_t{64} << 10, '\0');
  while (text.size() <= kMaxAuthFileBytes) {
    const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Fail(ErrorFromErrno(errno, "reading " + path));
    if (count == 0) break;
    text.append(buffer, 0, static_cast<size_t>(count));
  }
  return text;
}

// Where `path` leads: the file to be replaced, which need not exist.
Result<std::string> FollowLinks(std::string path) {
  constexpr int kMaxLinks = 40;  // as the kernel
  for (int i = 0; i < kMaxLinks; ++i) {
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(path, error);
    if (error) return path;  // no link, or nothing there
    path = target.is_absolute() ? target : std::filesystem::path(path).parent_path() / target;
  }
  return Fail(ErrorFromErrno(ELOOP, "following " + path));
}

Result<void> MakeDirectories(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST) return {};
  if (errno != ENOENT) return Fail(ErrorFromErrno(errno, "creating directory " + directory));
  const std::string parent = std::filesystem::path(directory).parent_path();
  if (parent.empty() || parent == directory) {
    return Fail(ErrorFromErrno(ENOENT, "creating directory " + directory));
  }
  OCIFS_RETURN_IF_ERROR(MakeDirectories(parent));
  if (mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return Fail(ErrorFromErrno(errno, "creating directory " + directory));
}

bool LockWhole(int fd) {
  while (flock(fd, LOCK_EX) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

// Holds off other edits of files in a directory as long as it lives. The directory itself is
// locked, which leaves nothing behind; NFS locks only what is open for writing, so there a file
// beside it is.
Result<UniqueFd> LockForEdit(const std::string& directory, const std::string& path) {
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return Fail(ErrorFromErrno(errno, "opening directory " + directory));
  if (LockWhole(fd.get())) return fd;
  const std::string lock = path + ".lock";
  UniqueFd file(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file || !LockWhole(file.get())) return Fail(ErrorFromErrno(errno, "locking " + lock));
  return file;
}

// A file beside the one that it replaces, gone again unless it was given the name.
class Replacement {
 public:
  explicit Replacement(std::string path) : path_(std::move(path)), temporary_(path_ + ".XXXXXX") {
    fd_.reset(mkostemp(temporary_.data(), O_CLOEXEC));  // mode 0600
  }
  ~Replacement() {
    if (fd_) unlink(temporary_.c_str());
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  Result<void> Publish(std::string_view text, int directory) {
    if (!fd_) return Fail(ErrorFromErrno(errno, "creating " + temporary_));
    struct stat old{};
    if (stat(path_.c_str(), &old) == 0 && (old.st_uid != geteuid() || old.st_gid != getegid())) {
      // Root who logs a user in leaves the file to the user; others may not, and need not.
      [[maybe_unused]] const int ignored = fchown(fd_.get(), old.st_uid, old.st_gid);
    }
    OCIFS_RETURN_IF_ERROR(store::WriteExactly(fd_.get(), 0, store::AsBytes(text), temporary_));
    if (fsync(fd_.get()) != 0) return Fail(ErrorFromErrno(errno, "syncing " + temporary_));
    if (rename(temporary_.c_str(), path_.c_str()) != 0) {
      return Fail(ErrorFromErrno(errno, "replacing " + path_));
    }
    fd_.reset();
    return store::SyncDirectory(directory, "the directory of " + path_);
  }

 private:
  const std::string path_;
  std::string temporary_;
  UniqueFd fd_;
};

}  // namespace

Result<AuthFileAnswer> FindInAuthFile(std::string_view text, const store::Repository& repository) {
  OCIFS_ASSIGN_OR_RETURN(const AuthFile file, ParseAuthFile(text));
  const Registry& registry = repository.registry();
  AuthFileAnswer answer;
  const std::optional<std::string> named = file.HelperFor(registry);
  if (!named || named->empty()) {
    for (const Json* const entry : EntriesFor(file, repository)) {
      OCIFS_ASSIGN_OR_RETURN(answer.credential, CredentialOf(*entry));
      if (answer.credential) return answer;
    }
  }
  answer.helper = named ? *named : file.json.FindText("credsStore");
  if (!answer.helper.empty()) answer.servers = ServersOf(file, registry);
  return answer;
}

Result<RegistryLogins> FindRegistryInAuthFile(std::string_view text, const Registry& registry) {
  OCIFS_ASSIGN_OR_RETURN(const AuthFile file, ParseAuthFile(text));
  RegistryLogins logins;
  if (const Json::Object* const entries = file.logins()) {
    for (const auto& [key, entry] : *entries) {
      if (!SameHost(HostOfKey(key, file.legacy), registry)) continue;
      logins.has_key = true;
      const Result<std::optional<Credential>> credential = CredentialOf(entry);
      // A damaged login is one that has to be replaced or taken out.
      if (!credential || *credential) logins.has_login = true;
    }
    logins.legacy = file.legacy && std::any_of(entries->begin(), entries->end(), [](const auto& e) {
                      const Result<std::optional<Credential>> credential = CredentialOf(e.second);
                      return !credential || *credential;
                    });
  }
  logins.helper = file.HelperFor(registry).value_or(file.json.FindText("credsStore"));
  if (!logins.helper.empty()) logins.servers = ServersOf(file, registry);
  return logins;
}

Result<std::vector<Registry>> RegistriesInAuthFile(std::string_view text) {
  OCIFS_ASSIGN_OR_RETURN(const AuthFile file, ParseAuthFile(text));
  std::vector<Registry> registries;
  auto add = [&](const Json::Object* members, bool legacy) {
    if (members == nullptr) return;
    for (const auto& [key, value] : *members) {
      if (legacy && value.object() == nullptr) continue;
      const Result<Registry> registry = Registry::Parse(HostOfKey(key, legacy));
      if (registry && SameHost(HostOfKey(key, legacy), *registry) &&
          std::find(registries.begin(), registries.end(), *registry) == registries.end()) {
        registries.push_back(*registry);
      }
    }
  };
  add(file.logins(), file.legacy);
  const Json* const helpers = file.json.Find("credHelpers");
  add(helpers == nullptr ? nullptr : helpers->object(), false);
  return registries;
}

Result<std::string> WithLogin(std::string_view text, const Registry& registry,
                              const std::optional<Credential>& credential) {
  OCIFS_ASSIGN_OR_RETURN(const RegistryLogins logins, FindRegistryInAuthFile(text, registry));
  if (logins.legacy) {
    return Fail(ErrorCode::kUnsupported,
                "it has the form of ~/.dockercfg, which is not written any more; choose another "
                "file with --authfile");
  }
  const std::string key = registry.is_docker_hub() ? std::string(kDockerHubKey) : registry.name();
  Editor editor(text);
  OCIFS_ASSIGN_OR_RETURN(const std::string entry, EntryText(editor, credential));
  const ObjectSpan top = editor.Top();
  const MemberSpan* const auths = top.Find("auths");
  if (auths == nullptr) {
    const std::string map =
        "{" + editor.Gap(2) + store::JsonQuote(key) + editor.Colon() + entry + editor.Gap(1) + "}";
    editor.Insert(top, 1, "auths", map);
    return std::move(editor).Finish();
  }
  if (editor.ValueOf(*auths) == "null") {
    editor.Replace(*auths, "{}");
  } else if (!editor.ValueOf(*auths).starts_with('{')) {
    return Fail(ErrorCode::kInvalid, "\"auths\" is not an object");
  }
  auto map = [&editor] { return editor.Inner(*editor.Top().Find("auths")); };
  RemoveRegistry(editor, map, registry, false, key);
  const ObjectSpan entries = map();
  if (const MemberSpan* const old = entries.Find(key)) {
    editor.Replace(*old, entry);
  } else {
    editor.Insert(entries, 2, key, entry);
  }
  return std::move(editor).Finish();
}

Result<std::optional<std::string>> WithoutLogin(std::string_view text, const Registry& registry) {
  OCIFS_ASSIGN_OR_RETURN(const AuthFile file, ParseAuthFile(text));
  if (file.logins() == nullptr) return std::nullopt;
  Editor editor(text);
  const bool removed = RemoveRegistry(
      editor,
      [&] {
        const ObjectSpan top = editor.Top();
        return file.legacy ? top : editor.Inner(*top.Find("auths"));
      },
      registry, file.legacy, "");
  if (!removed) return std::nullopt;
  return std::optional(std::move(editor).Finish());
}

std::optional<std::string> ReadAuthFile(const std::string& path) {
  Result<std::optional<std::string>> text = ReadForEdit(path);
  if (!text) return std::nullopt;
  return *std::move(text);
}

Result<bool> EditAuthFile(const std::string& path, const AuthFileEdit& edit) {
  OCIFS_ASSIGN_OR_RETURN(const std::string target, FollowLinks(path));
  std::string directory = std::filesystem::path(target).parent_path();
  if (directory.empty()) directory = ".";
  OCIFS_RETURN_IF_ERROR(MakeDirectories(directory));
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd lock, LockForEdit(directory, target));
  const UniqueFd sync(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!sync) return Fail(ErrorFromErrno(errno, "opening directory " + directory));
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> old, ReadForEdit(target));
  Result<std::optional<std::string>> text = edit(old.value_or(""));
  if (!text) return Fail(std::move(text).error().Wrap(path));
  if (!*text) return false;
  Replacement replacement(target);
  OCIFS_RETURN_IF_ERROR(replacement.Publish(**text, sync.get()));
  return true;
}

}  // namespace ocifs::fetch
