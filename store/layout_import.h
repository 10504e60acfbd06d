// Takes an OCI image layout into a store, without a request.
#ifndef OCIFS_STORE_LAYOUT_IMPORT_H_
#define OCIFS_STORE_LAYOUT_IMPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/layout_reader.h"
#include "store/pull_through.h"
#include "store/reference.h"

namespace ocifs::store {

struct ImportOptions {
  // What the only entry of the layout is to be called, whatever it says itself.
  std::optional<Reference> reference;
  // What to do about a reference that stands for another digest in the store.
  enum class Known { kRefuse, kReplace };
  Known known = Known::kRefuse;
};

struct ImportedPackage {
  Reference reference;
  Digest digest;           // of the document that the reference stands for
  std::string media_type;  // of that document
  uint64_t content_bytes = 0;
  bool was_there = false;  // the reference stood for it in the store already
  // Below an index: whose blobs the layout holds, and whose not.
  std::vector<std::string> platforms;
  std::vector<std::string> absent_platforms;
};

// The reference that an entry of index.json gives itself: io.containerd.image.name, else
// org.opencontainers.image.ref.name if that begins with a registry and ends with a tag or digest
// (many tools put a bare tag there). nullopt when there is none.
std::optional<Reference> LayoutEntryReference(const Descriptor& entry);

// Each entry of the layout becomes a package under its reference, by tag and by digest, as if it
// had been resolved and pulled now. All blobs that the layout holds of it are kept, also those for
// other platforms; the package for the platform of `pull`, which must be offline, is unpacked and
// durable when the call returns. Blobs that no entry leads to are passed over.
// On an error no reference has been entered; verified blobs may have been kept.
// kInvalid: an entry without a reference; ImportOptions::reference with several entries; a
// reference that stands for something else in the store. kCorrupt: a document or blob that is
// missing, or is not what its descriptor says; indexes nested deeper than kMaxIndexDepth.
// kUnsupported: nothing in an index for the platform. kTooLarge: over the limits of `pull`, or more
// than 256 MiB of manifests and indexes.
// Cost: reads each blob once, and once more to unpack it.
Result<std::vector<ImportedPackage>> ImportLayout(PullThrough& pull, const LayoutReader& layout,
                                                  const ImportOptions& options,
                                                  const RequestContext& context);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_LAYOUT_IMPORT_H_
