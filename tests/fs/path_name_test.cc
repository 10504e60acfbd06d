#include "fs/path_name.h"

#include <gtest/gtest.h>

#include <string>

namespace ocifs::fs {
namespace {

const std::string kHex(64, 'a');

TEST(ReadName, AtTheMountPointNamesAreRegistries) {
  for (const char* name : {"ghcr.io", "localhost", "localhost:5000", "localhost+5000",
                           "127.0.0.1:1", "[::1]:5000", "[++1]+5000", "my-registry"}) {
    const NameReadings readings = ReadName(Place::kMountPoint, name);
    ASSERT_TRUE(readings.registry) << name;
    EXPECT_FALSE(readings.tag || readings.digest || readings.exact || readings.is_component);
  }
  EXPECT_EQ(ReadName(Place::kMountPoint, "localhost+5000").registry->name(), "localhost:5000");
  for (const char* name : {".git", ".Trash-1000", "a..b", "-x", "host:", "host:99999", "a b", "",
                           "host:5000:6000", "a/b", "_x"}) {
    EXPECT_TRUE(ReadName(Place::kMountPoint, name).empty()) << name;
  }
}

TEST(ReadName, BelowARegistryNamesAreComponents) {
  const NameReadings readings = ReadName(Place::kRegistry, "kcl-lang");
  EXPECT_TRUE(readings.is_component);
  EXPECT_FALSE(readings.tag);  // a registry itself has no tags
  EXPECT_TRUE(ReadName(Place::kRegistry, "UPPER").empty());
  EXPECT_TRUE(ReadName(Place::kRegistry, ".git").empty());
}

TEST(ReadName, InARepositoryNamesAreTagsAndComponents) {
  NameReadings readings = ReadName(Place::kRepository, "1.0");
  EXPECT_TRUE(readings.is_component);
  EXPECT_EQ(readings.tag->name(), "1.0");
  readings = ReadName(Place::kRepository, "V1_RC");
  EXPECT_FALSE(readings.is_component);
  EXPECT_TRUE(readings.tag);
  for (const char* name : {".git", ".Trash-1000", "a b", "-x", "%2e%2e", "a\nb", "é"}) {
    EXPECT_TRUE(ReadName(Place::kRepository, name).empty()) << name;
  }
  EXPECT_TRUE(ReadName(Place::kRepository, std::string(256, 'a')).empty());
}

TEST(ReadName, DigestsAreReadWithEitherSeparator) {
  for (const std::string& name : {"sha256:" + kHex, "sha256+" + kHex}) {
    const NameReadings readings = ReadName(Place::kRepository, name);
    ASSERT_TRUE(readings.digest) << name;
    EXPECT_FALSE(readings.exact || readings.tag || readings.is_component);
    EXPECT_EQ(readings.digest->ToString(), "sha256:" + kHex);
  }
  for (const std::string& name :
       {"sha256:" + kHex + "a", "sha256:" + std::string(64, 'A'), "md5:" + kHex}) {
    EXPECT_FALSE(ReadName(Place::kRepository, name).digest) << name;
  }
}

TEST(ReadName, ExactFormsAreNeverAnythingElse) {
  for (const std::string name : {"alpine:3.19", "alpine+3.19"}) {
    for (const Place place : {Place::kRegistry, Place::kRepository}) {
      const NameReadings readings = ReadName(place, name);
      ASSERT_TRUE(readings.exact) << name;
      EXPECT_EQ(readings.exact->component, "alpine");
      EXPECT_EQ(readings.exact->tag->name(), "3.19");
      EXPECT_FALSE(readings.tag || readings.is_component || readings.digest);
    }
  }
  for (const std::string& name : {"alpine@sha256:" + kHex, "alpine@sha256+" + kHex}) {
    const NameReadings readings = ReadName(Place::kRegistry, name);
    ASSERT_TRUE(readings.exact) << name;
    EXPECT_EQ(readings.exact->digest->ToString(), "sha256:" + kHex);
  }
  for (const std::string& name :
       {std::string("a:"), std::string(":a"), std::string("a@b"), "a@sha256:" + kHex.substr(1),
        std::string("A:b"), std::string("a:b:c"), std::string("a@")}) {
    EXPECT_TRUE(ReadName(Place::kRepository, name).empty()) << name;
  }
  // Below a registry there is nothing whose digest it could be: a repository of that name.
  EXPECT_TRUE(ReadName(Place::kRegistry, "sha256:" + kHex).exact);
}

TEST(ReadName, ReadsBackWhatIsSpelled) {
  const auto registry = *store::Registry::Parse("[::1]:5000");
  for (const std::string& name :
       {SpellRegistry(registry), WithoutColons(SpellRegistry(registry))}) {
    EXPECT_EQ(*ReadName(Place::kMountPoint, name).registry, registry);
  }
  const auto digest = *store::Digest::Parse("sha256:" + kHex);
  for (const std::string& name : {SpellDigest(digest), WithoutColons(SpellDigest(digest))}) {
    EXPECT_EQ(*ReadName(Place::kRepository, name).digest, digest);
  }
  ExactName exact;
  exact.component = "a.b";
  exact.tag = *store::Tag::Parse("1.0");
  EXPECT_EQ(*ReadName(Place::kRepository, SpellExact(exact)).exact, exact);
  EXPECT_EQ(*ReadName(Place::kRepository, WithoutColons(SpellExact(exact))).exact, exact);
  exact.tag.reset();
  exact.digest = digest;
  EXPECT_EQ(*ReadName(Place::kRegistry, SpellExact(exact)).exact, exact);
  EXPECT_EQ(*ReadName(Place::kRegistry, WithoutColons(SpellExact(exact))).exact, exact);
}

TEST(PackageReference, PutsNamesTogether) {
  const auto registry = *store::Registry::Parse("docker.io");
  auto reference = [&](std::string_view path, std::string_view name) {
    const Place place = path.empty() ? Place::kRegistry : Place::kRepository;
    const auto result = PackageReference(registry, path, ReadName(place, name));
    return result ? result->ToString() : "none";
  };
  EXPECT_EQ(reference("a/b", "1.0"), "docker.io/a/b:1.0");
  EXPECT_EQ(reference("alpine", "3.19"), "docker.io/library/alpine:3.19");
  EXPECT_EQ(reference("", "alpine:3.19"), "docker.io/library/alpine:3.19");
  EXPECT_EQ(reference("a", "b+1.0"), "docker.io/a/b:1.0");
  EXPECT_EQ(reference("a/b", "sha256+" + kHex), "docker.io/a/b@sha256:" + kHex);
  EXPECT_EQ(reference("", "alpine"), "none");
}

TEST(LooksLikeHost, KeepsFilesThatToolsLookForAwayFromResolvers) {
  for (const char* name : {"ghcr.io", "localhost", "localhost:5000", "a+1", "10.0.0.1"}) {
    EXPECT_TRUE(LooksLikeHost(name)) << name;
  }
  for (const char* name : {"kcl.mod", "go.mod", "package.json", "Cargo.toml", "README.md",
                           "Makefile", "lost+Found", "etc", "pnpm-lock.yaml", "poetry.lock"}) {
    EXPECT_FALSE(LooksLikeHost(name)) << name;
  }
}

TEST(LooksLikeVersion, TellsVersionsFromWords) {
  for (const char* name : {"1", "0.1.4", "v1", "v1.2", "latest", "3.19-alpine", "V1", "A_B"}) {
    EXPECT_TRUE(LooksLikeVersion(name)) << name;
  }
  for (const char* name : {"edge", "charts", "v", "version", "kcl.mod", "helloworld"}) {
    EXPECT_FALSE(LooksLikeVersion(name)) << name;
  }
}

}  // namespace
}  // namespace ocifs::fs
