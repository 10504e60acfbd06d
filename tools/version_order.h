// The order in which people look for versions among tags.
#ifndef OCIFS_TOOLS_VERSION_ORDER_H_
#define OCIFS_TOOLS_VERSION_ORDER_H_

#include <string>
#include <vector>

namespace ocifs::tools {

// Versions first, the newest at the top, by the precedence of Semantic Versioning 2.0.0 section 11;
// then all other tags, bytewise. A version is "1", "1.2" or "1.2.3", with or without "v" before it,
// a pre-release ("-rc.1") and build metadata behind it ("_build" too: tags cannot hold a "+", and
// Helm writes it so). Equal versions ("1.0" and "v1.0.0") stand in bytewise order.
void SortTags(std::vector<std::string>& tags);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_VERSION_ORDER_H_
