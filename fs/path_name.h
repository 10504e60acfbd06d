// The grammar of names below the mount point: what one component may stand for, before anybody is
// asked whether it exists.
//
// `+` may be written wherever a colon stands (it is legal in no registry, repository or tag name),
// for tools that split paths at colons: localhost+5001, sha256+<hex>, repo+tag.
#ifndef OCIFS_FS_PATH_NAME_H_
#define OCIFS_FS_PATH_NAME_H_

#include <optional>
#include <string>
#include <string_view>

#include "store/digest.h"
#include "store/reference.h"

namespace ocifs::fs {

// Where a component stands.
enum class Place {
  kMountPoint,  // its names are registries
  kRegistry,    // first component of a repository
  kRepository,  // tag or digest of a repository, or its next component
};

// "component:tag" or "component@digest": never ambiguous.
struct ExactName {
  std::string component;
  std::optional<store::Tag> tag;  // set exactly when digest is not
  std::optional<store::Digest> digest;

  friend bool operator==(const ExactName&, const ExactName&) = default;
};

// All readings of one component. At a mount point only `registry` may be set; an exact or a digest
// reading excludes the others.
struct NameReadings {
  std::optional<store::Registry> registry;
  std::optional<ExactName> exact;
  std::optional<store::Digest> digest;
  std::optional<store::Tag> tag;
  bool is_component = false;  // a valid component of a repository's path

  bool empty() const { return !registry && !exact && !digest && !tag && !is_component; }
};

// Pure. No readings: there cannot be such a name, whatever a registry says.
NameReadings ReadName(Place place, std::string_view name);

// The package that a name below `registry`/`path` stands for, read as exact form, digest or tag, in
// this order. None: it can only be a directory.
std::optional<store::Reference> PackageReference(const store::Registry& registry,
                                                 std::string_view path,
                                                 const NameReadings& readings);

// Whether a name at the mount point that nobody configured is taken for a host: it has a dot or a
// port, or is "localhost", is in lower case, and does not end like a file that tools look for while
// they climb a tree (kcl.mod, package.json: no such top-level domains exist).
bool LooksLikeHost(std::string_view name);

// Whether a name is more likely a tag than a part of a repository's path: it starts with a digit,
// or with 'v' and a digit, or is "latest", or cannot be a repository component.
bool LooksLikeVersion(std::string_view name);

// The way each thing is spelled when ocifs lists it; ReadName reads it back.
std::string SpellRegistry(const store::Registry& registry);
std::string SpellExact(const ExactName& exact);
std::string SpellDigest(const store::Digest& digest);
// The same with `+` for every colon.
std::string WithoutColons(std::string_view spelled);

}  // namespace ocifs::fs

#endif  // OCIFS_FS_PATH_NAME_H_
