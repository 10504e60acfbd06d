// Names of things in registries: registry, repository, tag, reference.
//
// Grammar: OCI distribution-spec 1.1, "Pulling manifests" (name and tag regular expressions), and
// the reference grammar of the Docker and containers tools for hosts. Each type is made only by its
// parser, so a value in hand is well formed and safe inside a path or a URL.
#ifndef OCIFS_STORE_REFERENCE_H_
#define OCIFS_STORE_REFERENCE_H_

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "store/digest.h"
#include "store/error.h"

namespace ocifs::store {

// "[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", at most 255 bytes.
bool IsRepositoryComponent(std::string_view text);

// A registry host, "host[:port]", lower case; IPv6 addresses in brackets. The names
// index.docker.io and registry-1.docker.io become docker.io.
class Registry {
 public:
  static Result<Registry> Parse(std::string_view text);

  const std::string& name() const { return name_; }  // "ghcr.io", "localhost:5000"
  std::string host() const;                          // without port and brackets
  std::optional<uint16_t> port() const { return port_; }
  bool is_docker_hub() const { return name_ == "docker.io"; }
  // localhost, 127/8 or ::1: plain HTTP is the default there, unless the port is absent or 443.
  bool is_loopback() const;

  friend bool operator==(const Registry& a, const Registry& b) { return a.name_ == b.name_; }
  friend auto operator<=>(const Registry& a, const Registry& b) { return a.name_ <=> b.name_; }

 private:
  Registry() = default;
  std::string name_;
  std::optional<uint16_t> port_;
};

class Tag {
 public:
  // "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
  static Result<Tag> Parse(std::string_view text);
  const std::string& name() const { return name_; }
  friend auto operator<=>(const Tag&, const Tag&) = default;

 private:
  Tag() = default;
  std::string name_;
};

class Repository {
 public:
  // `path` is "component(/component)*", with the host at most 255 bytes; on docker.io a single
  // component gets "library/" before it.
  static Result<Repository> Parse(const Registry& registry, std::string_view path);

  const Registry& registry() const { return registry_; }
  const std::string& path() const { return path_; }  // "kcl-lang/helloworld"
  std::string ToString() const;                      // "ghcr.io/kcl-lang/helloworld"
  friend bool operator==(const Repository&, const Repository&) = default;
  friend auto operator<=>(const Repository&, const Repository&) = default;

 private:
  Repository(Registry registry, std::string path)
      : registry_(std::move(registry)), path_(std::move(path)) {}
  Registry registry_;
  std::string path_;
};

// A repository and what of it: a tag, or a digest. When text gives both, the digest decides and the
// tag is dropped, as in the Docker and containers tools.
class Reference {
 public:
  Reference(Repository repository, Tag tag);
  Reference(Repository repository, Digest digest);

  // "[oci://|docker://][host/]path[:tag][@digest]". Without a host it is docker.io, without tag and
  // digest the tag is "latest".
  static Result<Reference> Parse(std::string_view text);

  const Repository& repository() const { return repository_; }
  const std::optional<Tag>& tag() const { return tag_; }
  const std::optional<Digest>& digest() const { return digest_; }  // set exactly when tag is not
  std::string ToString() const;  // "ghcr.io/a/b:1.0" or "ghcr.io/a/b@sha256:…"
  friend bool operator==(const Reference&, const Reference&) = default;

 private:
  Repository repository_;
  std::optional<Tag> tag_;
  std::optional<Digest> digest_;
};

}  // namespace ocifs::store

#endif  // OCIFS_STORE_REFERENCE_H_
