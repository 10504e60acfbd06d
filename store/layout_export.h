// Packages of the store as an OCI image layout, with their original bytes.
#ifndef OCIFS_STORE_LAYOUT_EXPORT_H_
#define OCIFS_STORE_LAYOUT_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/layout_writer.h"
#include "store/pull_through.h"
#include "store/reference.h"

namespace ocifs::store {

struct ExportOptions {
  // What to do about a blob that the store had and has dropped to save space: say so, or get it.
  enum class Dropped { kRefuse, kFetch };
  Dropped dropped = Dropped::kRefuse;
  LayoutModes modes;
};

struct ExportedPackage {
  Reference reference;
  Digest digest;           // of the document that the reference stands for
  std::string media_type;  // of that document
  uint64_t bytes = 0;      // of its documents and blobs, each once
  // Below an index: what of it is in the layout and what is not, as the store does not have it.
  std::vector<std::string> platforms;
  std::vector<std::string> absent_platforms;
};

// Writes the packages, pulled if the store lacks them, to `destination` (LayoutWriter::Create): the
// document that each reference stands for; below an index those manifests of which the store has
// all (the image-spec lets the others be absent, image-layout.md, "Blobs"), one of them for the
// platform of `pull`; configs and layers. index.json gets one entry a reference, sorted.
// Every blob is verified while it is copied; a damaged one is fetched again, or is kCorrupt
// offline. On an error nothing has been written, but what a layout there already held. kNotFound
// for a dropped blob, unless `options` say to fetch it. Cost: reads each blob once; documents (up
// to 4 MiB each, usually a few KiB) are held in memory.
Result<std::vector<ExportedPackage>> ExportLayout(PullThrough& pull,
                                                  std::vector<Reference> references,
                                                  const std::string& destination,
                                                  const ExportOptions& options,
                                                  const RequestContext& context);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LAYOUT_EXPORT_H_
