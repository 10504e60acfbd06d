// OCI image layouts as others made them, a directory or an uncompressed tar of one (image-spec 1.1,
// image-layout.md), for those who take one into a store. (fetch/layout_source.h shows a layout that
// stays where it is as a registry.)
#ifndef OCIFS_STORE_LAYOUT_READER_H_
#define OCIFS_STORE_LAYOUT_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "store/byte_stream.h"
#include "store/digest.h"
#include "store/error.h"
#include "store/manifest.h"

namespace ocifs::store {

// Immutable; thread-safe. What it gives is hostile until its digest matches.
class LayoutReader {
 public:
  // Cost: of a directory two small files; of a tar one pass over all of it (nothing is kept but
  // where each blob lies: about 150 bytes a blob).
  // kInvalid: neither a directory nor an uncompressed tar. kUnsupported: no image layout of version
  // 1; an archive of `docker save` before Docker 25 is named so. kCorrupt: a tar that tar_reader.h
  // refuses, or that names something twice, absolutely, by links, or in `blobs` other than by a
  // digest; an index.json that ParseManifest refuses. kTooLarge: over kMaxDocumentBytes in
  // index.json or kMaxBlobs in a tar.
  static Result<std::unique_ptr<LayoutReader>> Open(const std::string& path);
  virtual ~LayoutReader() = default;
  LayoutReader(const LayoutReader&) = delete;
  LayoutReader& operator=(const LayoutReader&) = delete;

  static constexpr size_t kMaxBlobs = 262'144;

  const std::string& path() const { return path_; }
  // index.json.
  const ImageIndex& index() const { return index_; }

  // The size of a blob; nullopt when the layout has none of that digest. No symbolic link is
  // followed. kCorrupt when what has its name is no regular file.
  virtual Result<std::optional<uint64_t>> SizeOf(const Digest& digest) const = 0;
  // Its bytes, not verified. kCorrupt when the layout has no such blob. The reader outlives the
  // stream.
  virtual Result<std::unique_ptr<ByteStream>> OpenBlob(const Digest& digest) const = 0;

 protected:
  LayoutReader(std::string path, ImageIndex index)
      : path_(std::move(path)), index_(std::move(index)) {}

 private:
  const std::string path_;
  const ImageIndex index_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LAYOUT_READER_H_
