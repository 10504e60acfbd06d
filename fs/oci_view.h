// The directory `.oci` in the root of a package: what the registry holds, byte for byte.
//
//   .oci/manifest.json          the manifest, exact
//   .oci/index.json             the index, exact, if the reference names one
//   .oci/config.json            the config, exact
//   .oci/annotations/<key>      value of an annotation of the manifest, without a newline
//   .oci/blobs/<title>          a layer as it was pulled; <digest> when it has no usable title
//
// A key that is no file name is percent-encoded ('/', '%', control bytes, and the first byte of "."
// and ".."). A title that is no file name, or is another layer's already, gives way to the digest.
#ifndef OCIFS_FS_OCI_VIEW_H_
#define OCIFS_FS_OCI_VIEW_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/inode.h"
#include "store/manifest.h"
#include "store/pull_through.h"

namespace ocifs::fs {

inline constexpr std::string_view kOciViewName = ".oci";

// Thread-safe: immutable. Borrows from the package.
class OciView {
 public:
  // Node numbers follow from the manifest alone, so they are the same in every life.
  static constexpr uint32_t kRoot = InodeNumber::kOciViewBit;

  struct Node {
    uint32_t number = 0;
    uint32_t parent = 0;
    bool is_directory = false;
    std::string name;
    std::string_view bytes;                   // content, unless it is a blob
    const store::Descriptor* blob = nullptr;  // content comes from ReadBlob
    uint64_t size() const { return blob != nullptr ? blob->size : bytes.size(); }
  };

  explicit OciView(const store::Package& package);

  // Null if there is none.
  const Node* Find(uint32_t number) const;
  // Names of digests may be spelled with '+' for ':'.
  const Node* Lookup(uint32_t directory, std::string_view name) const;
  std::span<const Node> Children(uint32_t directory) const;

 private:
  std::vector<Node> nodes_;  // by number; children of one directory are adjacent
  size_t annotations_begin_ = 0;
  size_t blobs_begin_ = 0;
};

// The file name for an annotation's key; empty if it is too long to have one.
std::string AnnotationFileName(std::string_view key);

}  // namespace ocifs::fs

#endif  // OCIFS_FS_OCI_VIEW_H_
