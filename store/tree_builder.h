// Merges layers into one tree and writes it as a tree file.
//
// Rules: OCI image-spec 1.1, layer.md ("Applying Changesets", "Whiteouts"). Where the specification
// is silent: whiteouts act on the layers below only, wherever they stand in their layer; a parent
// directory that no entry names is made (0755, root); a parent that is a symbolic link is followed
// inside the tree, through at most 40 links; a parent that is anything else but a directory is
// replaced by one; the last of several entries of one name counts.
#ifndef OCIFS_STORE_TREE_BUILDER_H_
#define OCIFS_STORE_TREE_BUILDER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "store/digest.h"
#include "store/error.h"
#include "store/layer.h"
#include "store/limits.h"

namespace ocifs::store {

// Owned by one thread.
class TreeBuilder {
 public:
  explicit TreeBuilder(const Limits& limits);
  ~TreeBuilder();

  // Applies the next layer. With `whiteouts`, names that start with ".wh." hide what lower layers
  // have (images); without, they are names like any other (artifacts). `layer` must outlive the
  // builder. kCorrupt, naming the entry, for what has no meaning: a root that is no directory, a
  // hard link to nothing or to a directory, a loop of links, a whiteout of "." or "..".
  Result<void> Apply(const Layer& layer, bool whiteouts);

  // The bytes of the tree file.
  Result<std::vector<std::byte>> Finish(const Digest& manifest);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TREE_BUILDER_H_
