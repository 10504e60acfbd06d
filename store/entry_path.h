// Paths that archives and artifacts give their entries.
#ifndef OCIFS_STORE_ENTRY_PATH_H_
#define OCIFS_STORE_ENTRY_PATH_H_

#include <string>
#include <string_view>

#include "store/error.h"
#include "store/limits.h"

namespace ocifs::store {

// `raw` as components joined by '/', in `path` (whose memory is used again). Leading, doubled and
// trailing slashes and "." vanish. kCorrupt for ".." or a NUL; kTooLarge beyond
// kMaxNameBytes, kMaxPathBytes or limits.max_depth. Empty: the root.
Result<void> NormalizeEntryPath(std::string_view raw, const Limits& limits, std::string& path);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_ENTRY_PATH_H_
