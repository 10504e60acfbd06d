#include "fetch/registries_conf.h"

#include <algorithm>
#include <map>
#include <utility>

#include "fetch/toml.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

constexpr std::string_view kWildcard = "*.";

bool EndsMatch(std::string_view name, size_t length) {
  return length == name.size() ||
         std::string_view("/:@").find(name[length]) != std::string_view::npos;
}

// Reads `key`, a place in the space of names: no scheme, no final slash.
Result<std::string> ReadPlace(const TomlReader& reader, std::string_view key) {
  OCIFS_ASSIGN_OR_RETURN(std::string text, reader.Text(key));
  if (text.empty()) return text;
  const std::string name = "'" + std::string(key) + "'";
  // Nothing is quoted: a password may stand before '@'.
  if (text.find("://") != std::string::npos) {
    return reader.Wrong(*reader.Find(key), name + " is host[:port][/path], without a scheme");
  }
  while (text.ends_with('/')) text.pop_back();
  if (text.empty() || text.find_first_of("@?#\\ \t\r\n") != std::string::npos ||
      text.find('\0') != std::string::npos) {
    return reader.Wrong(*reader.Find(key), name + " has to be host[:port][/path]");
  }
  return text;
}

Result<RegistriesConfMirror> ReadMirror(const Toml& table, const std::string& file,
                                        bool by_digest_only) {
  const TomlReader reader(table, file);
  if (table.table() == nullptr) {
    return reader.Wrong(table, "write mirrors as tables: [[registry.mirror]]");
  }
  RegistriesConfMirror mirror{.location = {}, .line = table.line()};
  OCIFS_ASSIGN_OR_RETURN(mirror.location, ReadPlace(reader, "location"));
  if (mirror.location.empty()) return reader.Wrong(table, "a mirror without a location");
  OCIFS_ASSIGN_OR_RETURN(mirror.insecure, reader.Bool("insecure", false));
  OCIFS_ASSIGN_OR_RETURN(const std::string pull, reader.Text("pull-from-mirror"));
  if (!pull.empty() && by_digest_only) {
    return reader.Wrong(*reader.Find("pull-from-mirror"),
                        "'pull-from-mirror' and 'mirror-by-digest-only' exclude each other");
  }
  if (pull == "digest-only" || by_digest_only) {
    mirror.pull = PullFromMirror::kDigestOnly;
  } else if (pull == "tag-only") {
    mirror.pull = PullFromMirror::kTagOnly;
  } else if (!pull.empty() && pull != "all") {
    return reader.Wrong(*reader.Find("pull-from-mirror"),
                        "'pull-from-mirror' has to be \"all\", \"digest-only\" or \"tag-only\"");
  }
  return mirror;
}

Result<RegistriesConfEntry> ReadEntry(const Toml& table, const std::string& file) {
  const TomlReader reader(table, file);
  if (table.table() == nullptr) {
    return reader.Wrong(table, "write registries as tables: [[registry]]");
  }
  RegistriesConfEntry entry{.prefix = {}, .location = {}, .file = file, .line = table.line()};
  OCIFS_ASSIGN_OR_RETURN(entry.prefix, ReadPlace(reader, "prefix"));
  OCIFS_ASSIGN_OR_RETURN(entry.location, ReadPlace(reader, "location"));
  if (entry.prefix.empty()) entry.prefix = entry.location;
  if (entry.prefix.empty()) return reader.Wrong(table, "a registry without prefix and location");
  const bool wildcard = entry.prefix.starts_with(kWildcard);
  if (entry.location.empty() && !wildcard) {
    return reader.Wrong(table, "a registry without location; only \"*.\" prefixes need none");
  }
  if (entry.location.find('*') != std::string::npos ||
      entry.prefix.find('*', wildcard ? 1 : 0) != std::string::npos) {
    return reader.Wrong(table, "'*' may stand only at the beginning of a prefix, as \"*.\"");
  }
  if (wildcard && (entry.prefix.size() == kWildcard.size() || entry.prefix[2] == '/')) {
    return reader.Wrong(table, "'prefix' has no domain after \"*.\"");
  }
  OCIFS_ASSIGN_OR_RETURN(entry.insecure, reader.Bool("insecure", false));
  OCIFS_ASSIGN_OR_RETURN(entry.blocked, reader.Bool("blocked", false));
  OCIFS_ASSIGN_OR_RETURN(const bool by_digest_only, reader.Bool("mirror-by-digest-only", false));
  if (const Toml* const pull = reader.Find("pull-from-mirror")) {
    return reader.Wrong(*pull, "'pull-from-mirror' belongs into a [[registry.mirror]]");
  }
  if (const Toml* const mirrors = reader.Find("mirror")) {
    if (mirrors->array() == nullptr) {
      return reader.Wrong(*mirrors, "write mirrors as tables: [[registry.mirror]]");
    }
    for (const Toml& item : *mirrors->array()) {
      OCIFS_ASSIGN_OR_RETURN(RegistriesConfMirror mirror, ReadMirror(item, file, by_digest_only));
      entry.mirrors.push_back(std::move(mirror));
    }
  }
  return entry;
}

// Version 1 had lists of insecure and of blocked registries. Its list of registries to search has
// no meaning here; the others do, and must not be passed over.
Result<void> RefuseVersion1(const TomlReader& reader) {
  const Toml* const registries = reader.Find("registries");
  if (registries == nullptr) return {};
  for (const std::string_view section : {"insecure", "block"}) {
    const Toml* const table = registries->Find(section);
    const Toml* const list = table == nullptr ? nullptr : table->Find("registries");
    if (list == nullptr || (list->array() != nullptr && list->array()->empty())) continue;
    return reader.Wrong(*list, "[registries." + std::string(section) +
                                   "] is of version 1 of this format; write [[registry]]");
  }
  return {};
}

// Entries of one place, under different prefixes, are one registry, which is insecure or not.
Result<void> CheckConflicts(const std::vector<RegistriesConfEntry>& entries) {
  auto place = [](const RegistriesConfEntry& entry) {
    return std::string_view(entry.location.empty() ? entry.prefix : entry.location);
  };
  std::vector<const RegistriesConfEntry*> sorted;
  sorted.reserve(entries.size());
  for (const RegistriesConfEntry& entry : entries) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(), [&](const auto* a, const auto* b) {
    return std::pair(place(*a), a->line) < std::pair(place(*b), b->line);
  });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const RegistriesConfEntry& a = *sorted[i - 1];
    const RegistriesConfEntry& b = *sorted[i];
    if (place(a) != place(b) || (a.insecure == b.insecure && a.blocked == b.blocked)) continue;
    return Fail(ErrorCode::kInvalid, b.file + ":" + std::to_string(b.line) + ": '" +
                                         std::string(place(b)) + "' is defined in line " +
                                         std::to_string(a.line) + ", too, with another '" +
                                         (a.insecure != b.insecure ? "insecure" : "blocked") + "'");
  }
  return {};
}

}  // namespace

Result<std::vector<RegistriesConfEntry>> ParseRegistriesConf(std::string_view text,
                                                             const std::string& file) {
  OCIFS_ASSIGN_OR_RETURN(const Toml root, Toml::Parse(text, file));
  const TomlReader reader(root, file);
  OCIFS_RETURN_IF_ERROR(RefuseVersion1(reader));
  const Toml* const registries = reader.Find("registry");
  std::vector<RegistriesConfEntry> entries;
  if (registries == nullptr) return entries;
  if (registries->array() == nullptr) {
    return reader.Wrong(*registries, "write registries as tables: [[registry]]");
  }
  for (const Toml& item : *registries->array()) {
    OCIFS_ASSIGN_OR_RETURN(RegistriesConfEntry entry, ReadEntry(item, file));
    entries.push_back(std::move(entry));
  }
  OCIFS_RETURN_IF_ERROR(CheckConflicts(entries));
  std::vector<RegistriesConfEntry> unique;
  MergeRegistriesConf(unique, std::move(entries));
  return unique;
}

void MergeRegistriesConf(std::vector<RegistriesConfEntry>& entries,
                         std::vector<RegistriesConfEntry> later) {
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < entries.size(); ++i) places.emplace(entries[i].prefix, i);
  for (RegistriesConfEntry& entry : later) {
    const auto [place, is_new] = places.emplace(entry.prefix, entries.size());
    if (is_new) {
      entries.push_back(std::move(entry));
    } else {
      entries[place->second] = std::move(entry);
    }
  }
}

size_t MatchPrefix(std::string_view name, std::string_view prefix) {
  if (!prefix.starts_with(kWildcard)) {
    return !prefix.empty() && name.starts_with(prefix) && EndsMatch(name, prefix.size())
               ? prefix.size()
               : 0;
  }
  const std::string_view domain = prefix.substr(1);
  const size_t host_end = std::min(name.find('/'), name.size());
  for (size_t at = name.find(domain); at < host_end; at = name.find(domain, at + 1)) {
    if (at > 0 && EndsMatch(name, at + domain.size())) return at + domain.size();
  }
  return 0;
}

const RegistriesConfEntry* FindInRegistriesConf(const std::vector<RegistriesConfEntry>& entries,
                                                std::string_view name) {
  const RegistriesConfEntry* longest = nullptr;
  for (const RegistriesConfEntry& entry : entries) {
    if (MatchPrefix(name, entry.prefix) == 0) continue;
    if (longest == nullptr || entry.prefix.size() > longest->prefix.size()) longest = &entry;
  }
  return longest;
}

Result<store::Repository> RewriteRepository(const store::Repository& repository,
                                            std::string_view prefix, std::string_view location) {
  if (location.empty()) return repository;
  const std::string name = repository.ToString();
  const std::string text = std::string(location) + name.substr(MatchPrefix(name, prefix));
  const std::string_view host = std::string_view(text).substr(0, text.find('/'));
  // The grammar of references: what looks like no host belongs to docker.io, which is not meant.
  const bool is_host = host == "localhost" || host.find_first_of(".:") != std::string_view::npos;
  Result<store::Repository> rewritten = Fail(ErrorCode::kInvalid, "it is no repository of a host");
  if (is_host && host.size() < text.size()) {
    rewritten = [&]() -> Result<store::Repository> {
      OCIFS_ASSIGN_OR_RETURN(const store::Registry registry, store::Registry::Parse(host));
      return store::Repository::Parse(registry, std::string_view(text).substr(host.size() + 1));
    }();
  }
  if (!rewritten) return Fail(std::move(rewritten).error().Wrap("'" + text + "'"));
  return rewritten;
}

}  // namespace ocifs::fetch
