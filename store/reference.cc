#include "store/reference.h"

#include <algorithm>
#include <array>
#include <utility>

#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr size_t kMaxRepositoryLength = 255;

bool IsLowerAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool IsAlnum(char c) { return IsLowerAlnum(c) || (c >= 'A' && c <= 'Z'); }

// RFC 1123 labels, with '_' as Docker's own grammar does not allow and we neither.
bool IsHostName(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  size_t start = 0;
  while (start <= host.size()) {
    const size_t end = std::min(host.find('.', start), host.size());
    const std::string_view label = host.substr(start, end - start);
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') {
      return false;
    }
    if (!std::all_of(label.begin(), label.end(), [](char c) { return IsAlnum(c) || c == '-'; })) {
      return false;
    }
    start = end + 1;
  }
  return true;
}

// What may stand between the brackets of "[::1]"; the resolver has the last word.
bool IsIpv6Literal(std::string_view text) {
  return text.size() >= 2 && text.size() <= 45 && text.find(':') != std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](char c) {
           c = AsciiLower(c);
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == ':' || c == '.';
         });
}

// The first component of a reference is a host if it looks like one; else it belongs to docker.io.
bool LooksLikeHost(std::string_view component) {
  return component == "localhost" || component.find_first_of(".:[") != std::string_view::npos ||
         std::any_of(component.begin(), component.end(),
                     [](char c) { return c >= 'A' && c <= 'Z'; });
}

}  // namespace

bool IsRepositoryComponent(std::string_view text) {
  if (text.empty() || text.size() > kMaxRepositoryLength) return false;
  size_t i = 0;
  while (true) {
    const size_t start = i;
    while (i < text.size() && IsLowerAlnum(text[i])) ++i;
    if (i == start) return false;
    if (i == text.size()) return true;
    if (text[i] == '.') {
      ++i;
    } else if (text[i] == '_') {
      ++i;
      if (i < text.size() && text[i] == '_') ++i;
    } else if (text[i] == '-') {
      while (i < text.size() && text[i] == '-') ++i;
    } else {
      return false;
    }
  }
}

Result<Registry> Registry::Parse(std::string_view text) {
  auto invalid = [&] {
    return Fail(ErrorCode::kInvalid,
                "'" + std::string(text.substr(0, 300)) + "' is not a registry host (host[:port])");
  };
  Registry registry;
  std::string_view host = text;
  std::string_view port;
  bool has_port = false;
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return invalid();
    host = text.substr(1, close - 1);
    if (!IsIpv6Literal(host)) return invalid();
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty()) {
      if (rest.front() != ':') return invalid();
      port = rest.substr(1);
      has_port = true;
    }
  } else {
    const size_t colon = text.find(':');
    if (colon != std::string_view::npos) {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
      has_port = true;
    }
    if (!IsHostName(host)) return invalid();
  }
  if (has_port) {
    const std::optional<uint64_t> number = ParseDecimal(port, 65535);
    if (!number || *number == 0 || port.front() == '0') return invalid();
    registry.port_ = static_cast<uint16_t>(*number);
  }
  registry.name_.assign(text);
  registry.name_ = AsciiLower(registry.name_);
  if (registry.name_ == "index.docker.io" || registry.name_ == "registry-1.docker.io") {
    registry.name_ = "docker.io";
  }
  return registry;
}

std::string Registry::host() const {
  if (name_.front() == '[') return name_.substr(1, name_.find(']') - 1);
  return name_.substr(0, name_.find(':'));
}

bool Registry::is_loopback() const {
  const std::string name = host();
  if (name == "localhost" || name == "::1") return true;
  // 127/8 as a dotted quad; "127.example.com" is a host like any other.
  int dots = 0;
  for (const char c : name) {
    if (c == '.') {
      ++dots;
    } else if (c < '0' || c > '9') {
      return false;
    }
  }
  return dots == 3 && name.starts_with("127.");
}

Result<Tag> Tag::Parse(std::string_view text) {
  const bool valid = !text.empty() && text.size() <= 128 && (IsAlnum(text[0]) || text[0] == '_') &&
                     std::all_of(text.begin(), text.end(), [](char c) {
                       return IsAlnum(c) || c == '_' || c == '.' || c == '-';
                     });
  if (!valid) {
    return Fail(ErrorCode::kInvalid, "'" + std::string(text.substr(0, 300)) +
                                         "' is not a tag (letters, digits, '_', '.', '-'; at most "
                                         "128 of them; not starting with '.' or '-')");
  }
  Tag tag;
  tag.name_.assign(text);
  return tag;
}

Result<Repository> Repository::Parse(const Registry& registry, std::string_view path) {
  auto invalid = [&] {
    return Fail(ErrorCode::kInvalid, "'" + std::string(path.substr(0, 300)) +
                                         "' is not a repository name (lower-case components of "
                                         "letters and digits, joined by '.', '_' or '-')");
  };
  std::string full(path);
  if (registry.is_docker_hub() && full.find('/') == std::string::npos) full.insert(0, "library/");
  // Host and path together, as most clients limit them; index keys rely on it.
  if (registry.name().size() + 1 + full.size() > kMaxRepositoryLength) return invalid();
  size_t start = 0;
  while (true) {
    const size_t end = std::min(path.find('/', start), path.size());
    if (!IsRepositoryComponent(path.substr(start, end - start))) return invalid();
    if (end == path.size()) break;
    start = end + 1;
  }
  return Repository(registry, std::move(full));
}

std::string Repository::ToString() const { return registry_.name() + "/" + path_; }

Reference::Reference(Repository repository, Tag tag)
    : repository_(std::move(repository)), tag_(std::move(tag)) {}
Reference::Reference(Repository repository, Digest digest)
    : repository_(std::move(repository)), digest_(digest) {}

Result<Reference> Reference::Parse(std::string_view text) {
  const std::string_view original = text;
  auto wrap = [&](Error error) {
    return Fail(std::move(error).Wrap("reference '" + std::string(original.substr(0, 300)) + "'"));
  };
  for (const std::string_view scheme : {"oci://", "docker://"}) {
    if (text.starts_with(scheme)) text.remove_prefix(scheme.size());
  }
  std::optional<Digest> digest;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    Result<Digest> parsed = Digest::Parse(text.substr(at + 1));
    if (!parsed) return wrap(std::move(parsed).error());
    digest = *parsed;
    text = text.substr(0, at);
  }
  if (text.size() == 64 && FromHex(text)) {
    return wrap(
        Error{ErrorCode::kInvalid, "64 hex digits alone are not a name; write repo@sha256:…"});
  }
  std::string_view host = "docker.io";
  if (const size_t slash = text.find('/');
      slash != std::string_view::npos && LooksLikeHost(text.substr(0, slash))) {
    host = text.substr(0, slash);
    text.remove_prefix(slash + 1);
  }
  std::string_view tag_text = "latest";
  // A colon after the last slash starts the tag; the host, which may hold one, is already gone.
  if (const size_t colon = text.rfind(':');
      colon != std::string_view::npos && text.find('/', colon) == std::string_view::npos) {
    tag_text = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  Result<Registry> registry = Registry::Parse(host);
  if (!registry) return wrap(std::move(registry).error());
  // "Host/a" would print as "host/a", which is a repository of docker.io.
  if (!LooksLikeHost(registry->name())) {
    return wrap(Error{ErrorCode::kInvalid,
                      "write the host '" + registry->name() + "' with its domain or its port"});
  }
  Result<Repository> repository = Repository::Parse(*registry, text);
  if (!repository) return wrap(std::move(repository).error());
  Result<Tag> tag = Tag::Parse(tag_text);
  if (!tag) return wrap(std::move(tag).error());
  if (digest) return Reference(*std::move(repository), *digest);
  return Reference(*std::move(repository), *std::move(tag));
}

std::string Reference::ToString() const {
  std::string text = repository_.ToString();
  if (tag_) return text + ":" + tag_->name();
  return text + "@" + digest_->ToString();
}

}  // namespace ocifs::store
