// Image manifests and indexes, OCI and Docker schema 2
// (OCI image-spec 1.1: manifest.md, image-index.md, descriptor.md).
#ifndef OCIFS_STORE_MANIFEST_H_
#define OCIFS_STORE_MANIFEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/platform.h"

namespace ocifs::store {

namespace media_type {
inline constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kOciEmpty = "application/vnd.oci.empty.v1+json";
inline constexpr std::string_view kDockerIndex =
    "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr std::string_view kDockerManifest =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
}  // namespace media_type

// Clients agree on this cap for manifests, indexes and configs.
inline constexpr size_t kMaxDocumentBytes = size_t{4} << 20;

using Annotations = std::vector<std::pair<std::string, std::string>>;
// The value, or null.
const std::string* FindAnnotation(const Annotations& annotations, std::string_view key);

struct Descriptor {
  std::string media_type;
  Digest digest;
  uint64_t size = 0;  // bytes of the blob as pulled
  std::string artifact_type;
  Annotations annotations;
  std::optional<Platform> platform;      // only in an index
  std::vector<std::string> os_features;  // only in an index
  // The content itself, when the descriptor carried it in `data` and size and digest fitted.
  std::optional<std::string> data;

  // The file name that an artifact's author gave the blob (org.opencontainers.image.title).
  const std::string* title() const;
};

struct Manifest {
  std::string media_type;
  std::string artifact_type;  // of the artifact: artifactType, else config.mediaType
  Descriptor config;
  std::vector<Descriptor> layers;
  std::optional<Descriptor> subject;
  Annotations annotations;

  // Whether it is a container image (its config is an image config, with diff_ids) or an artifact.
  bool is_image() const;
};

struct ImageIndex {
  std::string media_type;
  std::vector<Descriptor> manifests;
  Annotations annotations;
};

// Parses the bytes of a manifest or an index. `content_type` is what the server called them, or
// empty; parameters in it are ignored. Refuses with kCorrupt what is ambiguous (both `layers` and
// `manifests`; a mediaType inside that differs from the one outside; a known key in other case; one
// digest with two sizes), with kUnsupported schema 1 and images converted to other formats, with
// kTooLarge more than 4,096 entries.
Result<std::variant<Manifest, ImageIndex>> ParseManifest(std::string_view bytes,
                                                         std::string_view content_type);

// The entry of `index` that `platform` runs: first in `Candidates()` order, then in list order.
// Attestations, artifacts and entries of unknown platform are not images and never chosen, except
// that the only entry without a platform is the last resort. kUnsupported names what there is.
Result<Descriptor> SelectPlatform(const ImageIndex& index, const Platform& platform);

// rootfs.diff_ids of an image config; empty when the config names none.
Result<std::vector<Digest>> ParseDiffIds(std::string_view config);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_MANIFEST_H_
