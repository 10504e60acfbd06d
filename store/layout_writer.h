// Writes an OCI image layout (image-spec 1.1, image-layout.md): a directory, or an uncompressed tar
// of one. Nothing that is not whole ever has its final name.
#ifndef OCIFS_STORE_LAYOUT_WRITER_H_
#define OCIFS_STORE_LAYOUT_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/manifest.h"

namespace ocifs::store {

// Permissions of what is made.
struct LayoutModes {
  uint32_t file = 0644;
  uint32_t directory = 0755;
};

// One entry of index.json.
struct LayoutEntry {
  std::string name;  // the whole reference
  Descriptor descriptor;
};

// Whether `name` may stand in org.opencontainers.image.ref.name (image-spec, annotations.md):
//   ref       = component *("/" component)
//   component = alphanum *(separator alphanum)
//   separator = "-" | "." | "_" | ":" | "@" | "+" | "--"
// Tools refuse a layout's name that does not fit (skopeo: "oci:DIR:NAME").
bool IsLayoutRefName(std::string_view name);

// Owned by one thread. Destroyed without Finish, it removes what it has written.
class LayoutWriter {
 public:
  // `destination` that ends in ".tar" and is no directory: a tar, which replaces a file of that
  // name at the end. Entries are sorted, with times and owners 0: the same content is the same tar.
  // Else a directory, made if it is missing: an empty one, what a killed export has left, or a
  // layout, which keeps what it has. kInvalid for a directory with anything else in it, a name that
  // promises compression, and while another process writes to the directory (by flock, on file
  // systems that have it).
  static Result<std::unique_ptr<LayoutWriter>> Create(const std::string& destination,
                                                      const LayoutModes& modes);
  virtual ~LayoutWriter() = default;
  LayoutWriter(const LayoutWriter&) = delete;
  LayoutWriter& operator=(const LayoutWriter&) = delete;

  // Whether the layout has the blob already, whole. Cost: reads it.
  virtual Result<bool> Has(const Descriptor& blob) = 0;
  // A blob is begun, gets its bytes, and is ended once they are known to be right; one that is not
  // ended is forgotten when the next is begun. Blobs come in rising order of digest.
  virtual Result<void> BeginBlob(const Digest& digest, uint64_t size) = 0;
  virtual Result<void> Append(std::span<const std::byte> bytes) = 0;
  virtual Result<void> EndBlob() = 0;
  // Writes index.json with these entries; one of a name that is there replaces it, all others stay.
  // Durable when the call returns.
  virtual Result<void> Finish(const std::vector<LayoutEntry>& entries) = 0;

 protected:
  LayoutWriter() = default;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LAYOUT_WRITER_H_
