#include "store/manifest.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>

#include "store/json.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr size_t kMaxDescriptors = 4096;
constexpr size_t kMaxInlineData = size_t{64} << 10;

std::unexpected<Error> Malformed(std::string reason) {
  return Fail(ErrorCode::kCorrupt, "manifest: " + std::move(reason));
}

// Other readers match keys without regard to case (Go's encoding/json), ours does not. A document
// that the two would read differently is refused.
Result<void> CheckKeyCase(const Json& object, std::span<const std::string_view> known) {
  for (const auto& [key, value] : *object.object()) {
    for (const std::string_view name : known) {
      if (key != name && EqualsIgnoringCase(key, name)) {
        return Malformed("key \"" + key + "\" stands where \"" + std::string(name) + "\" is meant");
      }
    }
  }
  return {};
}

// An optional string member: absent and null are empty.
Result<std::string> StringMember(const Json& object, std::string_view key) {
  const Json* value = object.Find(key);
  if (value == nullptr || value->is_null()) return std::string();
  if (value->string() == nullptr) return Malformed("\"" + std::string(key) + "\" is not a string");
  if (value->string()->find('\0') != std::string::npos) {
    return Malformed("\"" + std::string(key) + "\" holds a NUL");
  }
  return *value->string();
}

Result<Annotations> ParseAnnotations(const Json& object) {
  Annotations annotations;
  const Json* value = object.Find("annotations");
  if (value == nullptr || value->is_null()) return annotations;
  if (value->object() == nullptr) return Malformed("\"annotations\" is not an object");
  for (const auto& [key, member] : *value->object()) {
    if (member.string() == nullptr) return Malformed("annotation \"" + key + "\" is not a string");
    annotations.emplace_back(key, *member.string());
  }
  return annotations;
}

Result<Descriptor> ParseDescriptor(const Json& json, std::string_view where) {
  static constexpr std::array<std::string_view, 8> kKnown = {
      "mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"};
  auto wrap = [&](Error error) { return Fail(std::move(error).Wrap(where)); };
  if (json.object() == nullptr) return Malformed(std::string(where) + " is not an object");
  OCIFS_RETURN_IF_ERROR(CheckKeyCase(json, kKnown));
  OCIFS_ASSIGN_OR_RETURN(const std::string digest_text, StringMember(json, "digest"));
  Result<Digest> digest = Digest::Parse(digest_text);
  if (!digest) {
    if (digest.error().code == ErrorCode::kInvalid) digest.error().code = ErrorCode::kCorrupt;
    return wrap(std::move(digest).error());
  }
  Descriptor descriptor{.media_type = {},
                        .digest = *digest,
                        .size = 0,
                        .artifact_type = {},
                        .annotations = {},
                        .platform = std::nullopt,
                        .os_features = {},
                        .data = std::nullopt};
  const Json* size = json.Find("size");
  if (size == nullptr || size->integer() == nullptr || *size->integer() < 0) {
    return Malformed(std::string(where) + ": \"size\" is not a whole number of bytes");
  }
  descriptor.size = static_cast<uint64_t>(*size->integer());
  OCIFS_ASSIGN_OR_RETURN(descriptor.media_type, StringMember(json, "mediaType"));
  OCIFS_ASSIGN_OR_RETURN(descriptor.artifact_type, StringMember(json, "artifactType"));
  OCIFS_ASSIGN_OR_RETURN(descriptor.annotations, ParseAnnotations(json));
  if (const Json* platform = json.Find("platform"); platform != nullptr && !platform->is_null()) {
    static constexpr std::array<std::string_view, 5> kPlatformKeys = {
        "os", "architecture", "variant", "os.version", "os.features"};
    if (platform->object() == nullptr) return Malformed("\"platform\" is not an object");
    OCIFS_RETURN_IF_ERROR(CheckKeyCase(*platform, kPlatformKeys));
    OCIFS_ASSIGN_OR_RETURN(const std::string os, StringMember(*platform, "os"));
    OCIFS_ASSIGN_OR_RETURN(const std::string arch, StringMember(*platform, "architecture"));
    OCIFS_ASSIGN_OR_RETURN(const std::string variant, StringMember(*platform, "variant"));
    descriptor.platform = Platform::Normalised(os, arch, variant);
    const Json* features = platform->Find("os.features");
    if (features != nullptr && features->array() != nullptr) {
      for (const Json& feature : *features->array()) {
        if (feature.string() != nullptr) descriptor.os_features.push_back(*feature.string());
      }
    }
  }
  // `data` is a hint: what does not fit the descriptor is not used, and the blob is fetched.
  if (const Json* data = json.Find("data");
      data != nullptr && data->string() != nullptr && descriptor.size <= kMaxInlineData) {
    std::optional<std::string> bytes = FromBase64(*data->string());
    if (bytes && bytes->size() == descriptor.size &&
        Digest::Of(AsBytes(*bytes), descriptor.digest.algorithm()) == descriptor.digest) {
      descriptor.data = std::move(bytes);
    }
  }
  return descriptor;
}

Result<std::vector<Descriptor>> ParseDescriptors(const Json* json, std::string_view key) {
  std::vector<Descriptor> descriptors;
  if (json == nullptr || json->is_null()) return descriptors;
  if (json->array() == nullptr) return Malformed("\"" + std::string(key) + "\" is not an array");
  if (json->array()->size() > kMaxDescriptors) {
    return Fail(ErrorCode::kTooLarge, "manifest: more than " + std::to_string(kMaxDescriptors) +
                                          " entries in \"" + std::string(key) + "\"");
  }
  for (const Json& item : *json->array()) {
    const std::string where = std::string(key) + "[" + std::to_string(descriptors.size()) + "]";
    OCIFS_ASSIGN_OR_RETURN(Descriptor descriptor, ParseDescriptor(item, where));
    descriptors.push_back(std::move(descriptor));
  }
  return descriptors;
}

// Image formats that share OCI's envelope but not its layers. Reading their layers as tars would
// show garbage.
Result<void> RefuseConverted(const Manifest& manifest) {
  for (const Descriptor& layer : manifest.layers) {
    std::string_view format;
    if (layer.media_type.starts_with("application/vnd.oci.image.layer.nydus") ||
        FindAnnotation(layer.annotations, "containerd.io/snapshot/nydus-bootstrap") != nullptr) {
      format = "Nydus";
    } else if (FindAnnotation(layer.annotations, "containerd.io/snapshot/overlaybd/blob-digest") !=
               nullptr) {
      format = "overlaybd";
    }
    if (!format.empty()) {
      return Fail(ErrorCode::kUnsupported, "image was converted to " + std::string(format) +
                                               "; use the plain OCI image it was made from");
    }
    if (layer.media_type.ends_with("+encrypted")) {
      return Fail(ErrorCode::kUnsupported,
                  "layer " + layer.digest.ToString() + " is encrypted; ocifs has no keys");
    }
  }
  return {};
}

std::string_view WithoutParameters(std::string_view content_type) {
  content_type = content_type.substr(0, content_type.find(';'));
  while (!content_type.empty() && (content_type.back() == ' ' || content_type.back() == '\t')) {
    content_type.remove_suffix(1);
  }
  return content_type;
}

bool IsIndexType(std::string_view type) {
  return type == media_type::kOciIndex || type == media_type::kDockerIndex;
}
bool IsManifestType(std::string_view type) {
  return type == media_type::kOciManifest || type == media_type::kDockerManifest;
}

// One digest must mean one size, or the two uses would be verified differently.
Result<void> CheckSizes(std::span<const Descriptor> descriptors,
                        std::map<Digest, uint64_t> sizes = {}) {
  for (const Descriptor& descriptor : descriptors) {
    const auto [at, inserted] = sizes.emplace(descriptor.digest, descriptor.size);
    if (!inserted && at->second != descriptor.size) {
      return Malformed(descriptor.digest.ToString() + " is given two different sizes");
    }
  }
  return {};
}

}  // namespace

const std::string* FindAnnotation(const Annotations& annotations, std::string_view key) {
  for (const auto& [name, value] : annotations) {
    if (name == key) return &value;
  }
  return nullptr;
}

const std::string* Descriptor::title() const {
  return FindAnnotation(annotations, "org.opencontainers.image.title");
}

bool Manifest::is_image() const {
  return config.media_type == media_type::kOciConfig ||
         config.media_type == media_type::kDockerConfig;
}

Result<std::variant<Manifest, ImageIndex>> ParseManifest(std::string_view bytes,
                                                         std::string_view content_type) {
  static constexpr std::array<std::string_view, 8> kKnown = {
      "schemaVersion", "mediaType", "config",      "layers",
      "manifests",     "subject",   "annotations", "artifactType"};
  Result<Json> parsed = Json::Parse(bytes, {.max_bytes = kMaxDocumentBytes});
  if (!parsed) return Fail(std::move(parsed).error().Wrap("manifest"));
  const Json& json = *parsed;
  if (json.object() == nullptr) return Malformed("not a JSON object");
  OCIFS_RETURN_IF_ERROR(CheckKeyCase(json, kKnown));

  const Json* version = json.Find("schemaVersion");
  if ((version != nullptr && version->integer() != nullptr && *version->integer() == 1) ||
      json.Find("fsLayers") != nullptr) {
    return Fail(ErrorCode::kUnsupported,
                "manifest is in Docker's schema 1, which has no digests that can be trusted; push "
                "the image again with a current tool");
  }
  if (version == nullptr || version->integer() == nullptr || *version->integer() != 2) {
    return Malformed("\"schemaVersion\" is not 2");
  }

  OCIFS_ASSIGN_OR_RETURN(const std::string inner_type, StringMember(json, "mediaType"));
  const std::string_view outer_type = WithoutParameters(content_type);
  const bool outer_known = IsIndexType(outer_type) || IsManifestType(outer_type);
  if (!inner_type.empty() && outer_known && inner_type != outer_type) {
    return Malformed("its mediaType is " + inner_type + " but the server calls it " +
                     std::string(outer_type));
  }
  // Both kinds in one document would be read differently by different tools (CVE-2021-41190).
  const bool has_manifests = json.Find("manifests") != nullptr;
  const bool has_layers = json.Find("layers") != nullptr || json.Find("config") != nullptr;
  if (has_manifests && has_layers) {
    return Malformed("it holds both \"manifests\" and \"layers\" or \"config\"");
  }
  std::string type = inner_type;
  if (type.empty() && outer_known) type = outer_type;
  if (type.empty()) type = has_manifests ? media_type::kOciIndex : media_type::kOciManifest;
  if ((IsIndexType(type) && has_layers) || (IsManifestType(type) && has_manifests)) {
    return Malformed("its mediaType " + type + " does not fit its members");
  }
  OCIFS_ASSIGN_OR_RETURN(Annotations annotations, ParseAnnotations(json));

  if (IsIndexType(type)) {
    OCIFS_ASSIGN_OR_RETURN(auto manifests, ParseDescriptors(json.Find("manifests"), "manifests"));
    OCIFS_RETURN_IF_ERROR(CheckSizes(manifests));
    return ImageIndex{std::move(type), std::move(manifests), std::move(annotations)};
  }
  if (!IsManifestType(type)) {
    return Fail(ErrorCode::kUnsupported, "manifest of media type " + type + " is not known");
  }
  const Json* config = json.Find("config");
  if (config == nullptr) return Malformed("\"config\" is missing");
  OCIFS_ASSIGN_OR_RETURN(Descriptor config_descriptor, ParseDescriptor(*config, "config"));
  OCIFS_ASSIGN_OR_RETURN(std::vector<Descriptor> layers,
                         ParseDescriptors(json.Find("layers"), "layers"));
  std::optional<Descriptor> subject;
  if (const Json* value = json.Find("subject"); value != nullptr && !value->is_null()) {
    OCIFS_ASSIGN_OR_RETURN(subject, ParseDescriptor(*value, "subject"));
  }
  OCIFS_ASSIGN_OR_RETURN(std::string artifact_type, StringMember(json, "artifactType"));
  if (artifact_type.empty()) artifact_type = config_descriptor.media_type;
  Manifest manifest{std::move(type),   std::move(artifact_type), std::move(config_descriptor),
                    std::move(layers), std::move(subject),       std::move(annotations)};
  OCIFS_RETURN_IF_ERROR(
      CheckSizes(manifest.layers, {{manifest.config.digest, manifest.config.size}}));
  OCIFS_RETURN_IF_ERROR(RefuseConverted(manifest));
  return manifest;
}

Result<Descriptor> SelectPlatform(const ImageIndex& index, const Platform& platform) {
  std::vector<const Descriptor*> images;
  const Descriptor* without_platform = nullptr;
  size_t without_platform_count = 0;
  for (const Descriptor& entry : index.manifests) {
    if (!entry.artifact_type.empty()) continue;
    if (!IsManifestType(entry.media_type) && !IsIndexType(entry.media_type)) continue;
    const std::string* reference_type =
        FindAnnotation(entry.annotations, "vnd.docker.reference.type");
    if (reference_type != nullptr && *reference_type == "attestation-manifest") continue;
    if (!entry.platform || entry.platform->os.empty()) {
      without_platform = &entry;
      ++without_platform_count;
      continue;
    }
    if (entry.platform->os == "unknown" || entry.platform->architecture == "unknown") continue;
    if (!entry.os_features.empty()) continue;
    images.push_back(&entry);
  }
  for (const Platform& candidate : platform.Candidates()) {
    for (const Descriptor* entry : images) {
      if (*entry->platform == candidate) return *entry;
    }
  }
  if (without_platform_count == 1) return *without_platform;
  std::set<std::string> offered;
  for (const Descriptor* entry : images) offered.insert(entry->platform->ToString());
  std::string list;
  for (const std::string& name : offered) list += (list.empty() ? "" : ", ") + name;
  return Fail(ErrorCode::kUnsupported, "no image for platform " + platform.ToString() +
                                           "; there is " +
                                           (list.empty() ? "none for any platform" : list));
}

Result<std::vector<Digest>> ParseDiffIds(std::string_view config) {
  Result<Json> json = Json::Parse(config, {.max_bytes = kMaxDocumentBytes});
  if (!json) return Fail(std::move(json).error().Wrap("image config"));
  static constexpr std::array<std::string_view, 1> kConfigKeys = {"rootfs"};
  static constexpr std::array<std::string_view, 2> kRootfsKeys = {"type", "diff_ids"};
  if (json->object() != nullptr) OCIFS_RETURN_IF_ERROR(CheckKeyCase(*json, kConfigKeys));
  std::vector<Digest> diff_ids;
  const Json* rootfs = json->Find("rootfs");
  if (rootfs != nullptr && rootfs->object() != nullptr) {
    OCIFS_RETURN_IF_ERROR(CheckKeyCase(*rootfs, kRootfsKeys));
  }
  const Json* list = rootfs == nullptr ? nullptr : rootfs->Find("diff_ids");
  if (list == nullptr || list->is_null()) return diff_ids;
  if (list->array() == nullptr) {
    return Fail(ErrorCode::kCorrupt, "image config: diff_ids is not an array");
  }
  for (const Json& item : *list->array()) {
    if (item.string() == nullptr) {
      return Fail(ErrorCode::kCorrupt, "image config: a diff_id is not a string");
    }
    Result<Digest> digest = Digest::Parse(*item.string());
    if (!digest) {
      if (digest.error().code == ErrorCode::kInvalid) digest.error().code = ErrorCode::kCorrupt;
      return Fail(std::move(digest).error().Wrap("image config, diff_ids"));
    }
    diff_ids.push_back(*digest);
  }
  return diff_ids;
}

}  // namespace ocifs::store
