// References as the tools take them, and the paths below a mount that they stand for.
#ifndef OCIFS_TOOLS_PACKAGE_PATH_H_
#define OCIFS_TOOLS_PACKAGE_PATH_H_

#include <string>
#include <string_view>

#include "store/error.h"
#include "store/reference.h"

namespace ocifs::tools {

// A package, and a directory or file in it.
struct PackagePath {
  store::Reference reference;
  std::string inner;  // below the package's root; empty: the root
};

// A reference, or "oci://registry/repository//inner/path:tag" (also with @digest), as KCL and Helm
// write it. kInvalid for anything else.
store::Result<PackagePath> ParsePackagePath(std::string_view text);

// "registry/repository/tag/inner" or "registry/repository/sha256:…/inner".
std::string PathBelowMount(const PackagePath& path);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_PACKAGE_PATH_H_
