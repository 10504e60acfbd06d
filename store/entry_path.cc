#include "store/entry_path.h"

#include "store/node.h"

namespace ocifs::store {

Result<void> NormalizeEntryPath(std::string_view raw, const Limits& limits, std::string& path) {
  path.clear();
  if (raw.find('\0') != std::string_view::npos) {
    return Fail(ErrorCode::kCorrupt, "a path that holds a NUL");
  }
  uint32_t depth = 0;
  while (!raw.empty()) {
    const size_t slash = raw.find('/');
    const std::string_view component = raw.substr(0, slash);
    raw.remove_prefix(slash == std::string_view::npos ? raw.size() : slash + 1);
    if (component.empty() || component == ".") continue;
    if (component == "..") return Fail(ErrorCode::kCorrupt, "'..' in a path");
    if (component.size() > kMaxNameBytes) {
      return Fail(ErrorCode::kTooLarge, "a name of more than 255 bytes");
    }
    if (++depth > limits.max_depth) {
      return Fail(ErrorCode::kTooLarge, "a path of more than " + std::to_string(limits.max_depth) +
                                            " components (limits.max_depth)");
    }
    if (!path.empty()) path.push_back('/');
    path.append(component);
    if (path.size() > kMaxPathBytes) {
      return Fail(ErrorCode::kTooLarge, "a path of more than 4095 bytes");
    }
  }
  return {};
}

}  // namespace ocifs::store
