#include "tools/package_path.h"

#include <algorithm>

#include "store/entry_path.h"

namespace ocifs::tools {

using store::Fail;
using store::Result;

Result<PackagePath> ParsePackagePath(std::string_view text) {
  std::string_view rest = text;
  const size_t scheme = rest.find("://");
  const size_t start = scheme == std::string_view::npos ? 0 : scheme + 3;
  const size_t separator = rest.find("//", start);
  if (separator == std::string_view::npos) {
    OCIFS_ASSIGN_OR_RETURN(store::Reference reference, store::Reference::Parse(text));
    return PackagePath{std::move(reference), {}};
  }
  // The tag or digest stands behind the inner path and belongs to what stands before it.
  std::string_view inner = rest.substr(separator + 2);
  const size_t at = inner.find('@');
  const size_t colon = inner.rfind(':', at == std::string_view::npos ? inner.size() : at);
  const size_t end = std::min({at, colon, inner.size()});
  std::string reference_text(rest.substr(0, separator));
  reference_text.append(inner.substr(end));
  OCIFS_ASSIGN_OR_RETURN(store::Reference reference, store::Reference::Parse(reference_text));
  PackagePath path{std::move(reference), {}};
  if (Result<void> normal =
          store::NormalizeEntryPath(inner.substr(0, end), store::Limits(), path.inner);
      !normal) {
    return Fail(store::ErrorCode::kInvalid, "reference '" + std::string(text) +
                                                "': the path behind '//' holds " +
                                                normal.error().message);
  }
  return path;
}

std::string PathBelowMount(const PackagePath& path) {
  const store::Reference& reference = path.reference;
  std::string text = reference.repository().ToString() + "/";
  text += reference.tag() ? reference.tag()->name() : reference.digest()->ToString();
  if (!path.inner.empty()) text += "/" + path.inner;
  return text;
}

}  // namespace ocifs::tools
