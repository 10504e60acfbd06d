// JSON documents: manifests, indexes, image configs. The first byte chooses what the server calls
// them.
//
// Holds for every accepted document: written again it reads the same; a manifest is not ambiguous,
// its sizes are in range, its inline data is what its digest says; the choice of a platform is an
// entry of the index that names an image.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>

#include "store/json.h"
#include "store/manifest.h"
#include "store/text.h"

namespace {

using namespace ocifs::store;

void Demand(bool condition) {
  if (!condition) std::abort();
}

void Write(const Json& json, std::string& out) {
  if (const bool* value = json.boolean()) {
    out += *value ? "true" : "false";
  } else if (const int64_t* integer = json.integer()) {
    out += std::to_string(*integer);
  } else if (json.number() != nullptr) {
    out += "0.5";  // which one does not matter, that it is none of the integers does
  } else if (const std::string* text = json.string()) {
    Demand(IsValidUtf8(*text));
    out += JsonQuote(*text);
  } else if (const Json::Array* array = json.array()) {
    out += '[';
    for (const Json& item : *array) {
      if (out.back() != '[') out += ',';
      Write(item, out);
    }
    out += ']';
  } else if (const Json::Object* object = json.object()) {
    out += '{';
    for (const auto& [key, member] : *object) {
      if (out.back() != '{') out += ',';
      out += JsonQuote(key);
      out += ':';
      Write(member, out);
    }
    out += '}';
  } else {
    Demand(json.is_null());
    out += "null";
  }
}

void CheckJson(std::string_view text) {
  const Result<Json> json = Json::Parse(text);
  if (!json) return;
  std::string written;
  Write(*json, written);
  const Result<Json> again = Json::Parse(written, {.max_bytes = written.size()});
  Demand(again.has_value());
  std::string written_again;
  Write(*again, written_again);
  Demand(written == written_again);
}

void CheckDescriptor(const Descriptor& descriptor) {
  Demand(descriptor.size <= static_cast<uint64_t>(INT64_MAX));
  Demand(descriptor.media_type.find('\0') == std::string::npos);
  if (!descriptor.data) return;
  Demand(descriptor.data->size() == descriptor.size);
  Demand(Digest::Of(AsBytes(*descriptor.data), descriptor.digest.algorithm()) == descriptor.digest);
}

void CheckManifest(const Manifest& manifest) {
  CheckDescriptor(manifest.config);
  Demand(manifest.layers.size() <= 4096);
  for (const Descriptor& layer : manifest.layers) {
    CheckDescriptor(layer);
    for (const Descriptor& other : manifest.layers) {
      Demand(layer.digest != other.digest || layer.size == other.size);
    }
  }
}

void CheckIndex(const ImageIndex& index) {
  for (const Descriptor& entry : index.manifests) CheckDescriptor(entry);
  for (const char* name : {"linux/amd64/v3", "linux/arm/v7", "windows/amd64"}) {
    const Result<Platform> platform = Platform::Parse(name);
    const Result<Descriptor> chosen = SelectPlatform(index, *platform);
    if (!chosen) continue;
    Demand(
        std::any_of(index.manifests.begin(), index.manifests.end(), [&](const Descriptor& entry) {
          return entry.digest == chosen->digest && entry.media_type == chosen->media_type;
        }));
    Demand(chosen->artifact_type.empty() && chosen->os_features.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static constexpr std::array<std::string_view, 6> kTypes = {
      "",
      "application/json",
      media_type::kOciManifest,
      media_type::kOciIndex,
      media_type::kDockerManifest,
      "application/vnd.oci.image.manifest.v1+json; charset=utf-8"};
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  CheckJson(text);
  const auto parsed = ParseManifest(text, kTypes[data[0] % kTypes.size()]);
  if (parsed && std::holds_alternative<Manifest>(*parsed))
    CheckManifest(std::get<Manifest>(*parsed));
  if (parsed && std::holds_alternative<ImageIndex>(*parsed))
    CheckIndex(std::get<ImageIndex>(*parsed));
  if (const auto ids = ParseDiffIds(text)) Demand(ids->size() <= text.size());
  return 0;
}
