// registries.conf of podman. Holds for every accepted text: prefixes are there once, the longest
// one that matches is found, and what a name is rewritten to is a repository or an error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/registries_conf.h"

namespace {

using ocifs::fetch::FindInRegistriesConf;
using ocifs::fetch::MatchPrefix;
using ocifs::fetch::MergeRegistriesConf;
using ocifs::fetch::ParseRegistriesConf;
using ocifs::fetch::RegistriesConfEntry;
using ocifs::fetch::RegistriesConfMirror;
using ocifs::fetch::RewriteRepository;
using ocifs::store::ErrorCode;
using ocifs::store::Reference;
using ocifs::store::Repository;
using ocifs::store::Result;

constexpr char kFile[] = "/etc/containers/registries.conf";

void Demand(bool condition) {
  if (!condition) std::abort();
}

void CheckRewrite(const Repository& repository, const std::string& prefix,
                  const std::string& location) {
  const Result<Repository> rewritten = RewriteRepository(repository, prefix, location);
  if (!rewritten) {
    Demand(rewritten.error().code == ErrorCode::kInvalid);
    return;
  }
  const Result<Repository> again = Repository::Parse(rewritten->registry(), rewritten->path());
  Demand(again && *again == *rewritten);
}

void CheckName(const std::vector<RegistriesConfEntry>& entries, const Repository& repository) {
  const std::string name = repository.ToString();
  const RegistriesConfEntry* const found = FindInRegistriesConf(entries, name);
  for (const RegistriesConfEntry& entry : entries) {
    const size_t length = MatchPrefix(name, entry.prefix);
    Demand(length <= name.size());
    if (length == 0) continue;
    Demand(found != nullptr && found->prefix.size() >= entry.prefix.size());
    CheckRewrite(repository, entry.prefix, entry.location);
    for (const RegistriesConfMirror& mirror : entry.mirrors) {
      CheckRewrite(repository, entry.prefix, mirror.location);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Result<std::vector<RegistriesConfEntry>> entries = ParseRegistriesConf(text, kFile);
  if (!entries) {
    Demand(entries.error().code == ErrorCode::kInvalid);
    Demand(entries.error().message.starts_with(kFile));
    return 0;
  }
  std::set<std::string> prefixes;
  for (const RegistriesConfEntry& entry : *entries) {
    Demand(prefixes.insert(entry.prefix).second && !entry.prefix.empty());
    Demand(!entry.location.empty() || entry.prefix.starts_with("*."));
    for (const RegistriesConfMirror& mirror : entry.mirrors) Demand(!mirror.location.empty());
    // A name that the entry is about, where it is one.
    const std::string host =
        entry.prefix.starts_with("*.") ? "a" + entry.prefix.substr(1) : entry.prefix;
    if (const Result<Reference> name = Reference::Parse(host + "/a")) {
      CheckName(*entries, name->repository());
    }
  }
  for (const char* name :
       {"docker.io/library/alpine", "a.example.com/foo/bar", "localhost:5000/x"}) {
    CheckName(*entries, Reference::Parse(name)->repository());
  }
  std::vector<RegistriesConfEntry> merged = *entries;
  MergeRegistriesConf(merged, *entries);
  Demand(merged.size() == entries->size());
  return 0;
}
