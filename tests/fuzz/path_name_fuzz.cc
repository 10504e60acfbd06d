// Names as a user or a tool may ask for them. What is accepted is spelled back to the same reading,
// and is safe in a path.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "fs/path_name.h"
#include "store/node.h"

namespace {

using ocifs::fs::NameReadings;
using ocifs::fs::Place;
using ocifs::fs::ReadName;

void Check(bool condition) {
  if (!condition) std::abort();
}

bool IsSafe(std::string_view name) {
  return !name.empty() && name.size() <= ocifs::store::kMaxNameBytes && name != "." &&
         name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

void CheckSpelling(Place place, const std::string& spelled, const NameReadings& readings) {
  Check(IsSafe(spelled));
  for (const std::string& name : {spelled, ocifs::fs::WithoutColons(spelled)}) {
    const NameReadings again = ReadName(place, name);
    Check(again.registry == readings.registry && again.digest == readings.digest &&
          again.exact == readings.exact);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view name(reinterpret_cast<const char*>(data), size);
  for (const Place place : {Place::kMountPoint, Place::kRegistry, Place::kRepository}) {
    const NameReadings readings = ReadName(place, name);
    if (readings.empty()) continue;
    Check(IsSafe(name));
    if (readings.registry) {
      Check(place == Place::kMountPoint);
      CheckSpelling(place, ocifs::fs::SpellRegistry(*readings.registry), readings);
      continue;
    }
    Check(!(readings.digest && readings.exact));
    if (readings.digest || readings.exact) Check(!readings.tag && !readings.is_component);
    if (readings.digest) {
      CheckSpelling(place, ocifs::fs::SpellDigest(*readings.digest), readings);
    }
    if (readings.exact) {
      Check(readings.exact->tag.has_value() != readings.exact->digest.has_value());
      CheckSpelling(place, ocifs::fs::SpellExact(*readings.exact), readings);
    }
    if (readings.tag) Check(readings.tag->name() == name);
    const auto registry = ocifs::store::Registry::Parse("reg.example");
    const auto reference = ocifs::fs::PackageReference(*registry, "a", readings);
    if (reference) {
      const auto again = ocifs::store::Reference::Parse(reference->ToString());
      Check(again.has_value() && *again == *reference);
    }
  }
  (void)ocifs::fs::LooksLikeHost(name);
  (void)ocifs::fs::LooksLikeVersion(name);
  return 0;
}
