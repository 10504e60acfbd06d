// References, registries, tags and digests. Holds for every accepted text: it prints as a reference
// that reads back equal, and nothing in it can climb, hide or break a line in a path or a URL.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "store/reference.h"

namespace {

using ocifs::store::Digest;
using ocifs::store::IsRepositoryComponent;
using ocifs::store::Reference;
using ocifs::store::Registry;
using ocifs::store::Repository;
using ocifs::store::Result;

void Demand(bool condition) {
  if (!condition) std::abort();
}

void DemandGoodComponents(std::string_view path) {
  while (true) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view component = path.substr(0, end);
    Demand(IsRepositoryComponent(component) && component != "." && component != "..");
    Demand(component.size() <= 255);
    if (end == path.size()) return;
    path.remove_prefix(end + 1);
  }
}

void DemandPlain(std::string_view text, std::string_view allowed) {
  for (const char c : text) {
    const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    Demand(alnum || allowed.find(c) != std::string_view::npos);
  }
}

void CheckRegistry(const Registry& registry) {
  DemandPlain(registry.name(), ".-:[]");
  Demand(registry.name().size() <= 300 && !registry.host().empty());
  const Result<Registry> again = Registry::Parse(registry.name());
  Demand(again && *again == registry && again->port() == registry.port());
}

void CheckReference(const Reference& reference) {
  CheckRegistry(reference.repository().registry());
  DemandGoodComponents(reference.repository().path());
  Demand(reference.tag().has_value() != reference.digest().has_value());
  if (reference.tag()) {
    DemandPlain(reference.tag()->name(), "._-");
    Demand(reference.tag()->name() != "." && reference.tag()->name() != "..");
  }
  const std::string printed = reference.ToString();
  Demand(printed.size() < 511);  // a key of the index
  const Result<Reference> again = Reference::Parse(printed);
  Demand(again && *again == reference && again->ToString() == printed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const Result<Reference> reference = Reference::Parse(text)) CheckReference(*reference);
  if (const Result<Registry> registry = Registry::Parse(text)) CheckRegistry(*registry);
  if (const Result<Digest> digest = Digest::Parse(text)) Demand(digest->ToString() == text);
  return 0;
}
