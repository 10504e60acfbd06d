#include "fetch/registries_conf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFile[] = "/etc/containers/registries.conf";

std::vector<RegistriesConfEntry> Parse(const std::string& text, const std::string& file = kFile) {
  auto entries = ParseRegistriesConf(text, file);
  if (entries) return *std::move(entries);
  ADD_FAILURE() << entries.error().message;
  return {};
}

std::string ParseError(const std::string& text) {
  const auto entries = ParseRegistriesConf(text, kFile);
  if (entries) return "parsed";
  EXPECT_EQ(entries.error().code, store::ErrorCode::kInvalid);
  return entries.error().message;
}

store::Repository Repo(const char* registry, const char* path) {
  return *store::Repository::Parse(*store::Registry::Parse(registry), path);
}

// "prefix -> location (mirrors)" of each.
std::vector<std::string> Show(const std::vector<RegistriesConfEntry>& entries) {
  std::vector<std::string> lines;
  for (const RegistriesConfEntry& entry : entries) {
    std::string line = entry.prefix + " -> " + entry.location;
    if (entry.insecure) line += " insecure";
    if (entry.blocked) line += " blocked";
    for (const RegistriesConfMirror& mirror : entry.mirrors) {
      line += ", " + mirror.location;
      if (mirror.insecure) line += " insecure";
      if (mirror.pull == PullFromMirror::kDigestOnly) line += " digest-only";
      if (mirror.pull == PullFromMirror::kTagOnly) line += " tag-only";
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

TEST(RegistriesConfTest, ReadsEveryKey) {
  const auto entries = Parse(R"(
unqualified-search-registries = ["docker.io"]
credential-helpers = ["containers-auth.json"]
short-name-mode = "enforcing"

[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar/"
insecure = true
blocked = false
[[registry.mirror]]
location = "mirror-1.example/foo"
[[registry.mirror]]
location = "mirror-2.example:5000"
insecure = true
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "mirror-3.example"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "mirror-4.example"
pull-from-mirror = "all"

[[registry]]
location = "blocked.example"
blocked = true

[[registry]]
prefix = "*.example.net"

[aliases]
"alpine" = "docker.io/library/alpine"
)");
  EXPECT_THAT(Show(entries),
              ElementsAre("example.com/foo -> internal.example/bar insecure, mirror-1.example/foo, "
                          "mirror-2.example:5000 insecure digest-only, mirror-3.example tag-only, "
                          "mirror-4.example",
                          "blocked.example -> blocked.example blocked", "*.example.net -> "));
  EXPECT_EQ(entries[0].file, kFile);
  EXPECT_EQ(entries[0].line, 6u);
  EXPECT_EQ(entries[0].mirrors[1].line, 13u);
}

TEST(RegistriesConfTest, MirrorByDigestOnlyCountsForAllMirrors) {
  EXPECT_THAT(Show(Parse(R"(
[[registry]]
location = "a.example"
mirror-by-digest-only = true
mirror = [{location = "b.example"}, {location = "c.example"}]
)")),
              ElementsAre("a.example -> a.example, b.example digest-only, c.example digest-only"));
}

TEST(RegistriesConfTest, PrefixesMatchWholeComponents) {
  struct Case {
    const char* name;
    const char* prefix;
    size_t length;
  };
  for (const Case& c : {
           Case{"example.com/foo", "example.com", 11},
           Case{"example.com", "example.com", 11},
           Case{"example.com:5000/foo", "example.com", 11},
           Case{"example.com@sha256:1", "example.com", 11},
           Case{"example.com.evil/foo", "example.com", 0},
           Case{"example.community/foo", "example.com", 0},
           Case{"sub.example.com/foo", "example.com", 0},
           Case{"example.com/foobar", "example.com/foo", 0},
           Case{"example.com/foo/bar", "example.com/foo", 15},
           Case{"example.co", "example.com", 0},
           Case{"example.com", "", 0},
           Case{"a.example.com/foo", "*.example.com", 13},
           Case{"a.b.example.com:80/foo", "*.example.com", 15},
           Case{"example.com/foo", "*.example.com", 0},
           Case{"aexample.com/foo", "*.example.com", 0},
           Case{"evil.com/a.example.com", "*.example.com", 0},
           Case{"a.example.com.evil/foo", "*.example.com", 0},
           Case{"a.example.com.b.example.com/x", "*.example.com", 27},
           Case{"a.example.com/foo/x", "*.example.com/foo", 17},
           Case{"a.example.com/bar", "*.example.com/foo", 0},
       }) {
    EXPECT_EQ(MatchPrefix(c.name, c.prefix), c.length) << c.name << " " << c.prefix;
  }
}

TEST(RegistriesConfTest, TheLongestPrefixWins) {
  const auto entries = Parse(R"(
[[registry]]
location = "example.com/foo/bar"
[[registry]]
location = "example.com"
[[registry]]
location = "example.com/foo"
[[registry]]
prefix = "*.example.com"
[[registry]]
location = "a.example.com"
)");
  auto found = [&](const char* name) {
    const RegistriesConfEntry* const entry = FindInRegistriesConf(entries, name);
    return entry == nullptr ? "none" : entry->prefix;
  };
  EXPECT_EQ(found("example.com/x"), "example.com");
  EXPECT_EQ(found("example.com/foo"), "example.com/foo");
  EXPECT_EQ(found("example.com/foo/bar/baz"), "example.com/foo/bar");
  EXPECT_EQ(found("example.com/foo/barn"), "example.com/foo");
  EXPECT_EQ(found("b.example.com/x"), "*.example.com");
  // Both have 13 characters: the first stays.
  EXPECT_EQ(found("a.example.com/x"), "*.example.com");
  EXPECT_EQ(found("example.org/x"), "none");
}

TEST(RegistriesConfTest, Rewrites) {
  struct Case {
    store::Repository repository;
    const char* prefix;
    const char* location;
    const char* rewritten;
  };
  for (const Case& c : {
           Case{Repo("example.com", "foo/img"), "example.com/foo", "internal.example/bar",
                "internal.example/bar/img"},
           Case{Repo("example.com", "foo"), "example.com/foo", "internal.example/bar",
                "internal.example/bar"},
           Case{Repo("docker.io", "alpine"), "docker.io", "mirror.local",
                "mirror.local/library/alpine"},
           Case{Repo("docker.io", "alpine"), "docker.io/library", "mirror.local:5000/hub",
                "mirror.local:5000/hub/alpine"},
           Case{Repo("a.example.com", "x/y"), "*.example.com", "", "a.example.com/x/y"},
           Case{Repo("a.example.com", "x/y"), "*.example.com", "one.example/all",
                "one.example/all/x/y"},
           Case{Repo("example.com:5000", "x"), "example.com", "other.example",
                "other.example:5000/x"},
           Case{Repo("quay.io", "x"), "quay.io", "localhost/quay", "localhost/quay/x"},
           Case{Repo("quay.io", "x"), "quay.io", "mirror/quay", "invalid"},
           Case{Repo("quay.io", "x"), "quay.io/x", "mirror.local", "invalid"},
           Case{Repo("quay.io", "x"), "quay.io", "mirror.local/UPPER", "invalid"},
       }) {
    const auto rewritten = RewriteRepository(c.repository, c.prefix, c.location);
    EXPECT_EQ(rewritten ? rewritten->ToString()
                        : std::string(store::ErrorCodeName(rewritten.error().code)),
              c.rewritten)
        << c.repository.ToString() << " " << c.prefix << " " << c.location;
  }
}

TEST(RegistriesConfTest, DropInsReplaceWholeEntries) {
  auto entries = Parse(R"(
[[registry]]
location = "a.example"
insecure = true
[[registry.mirror]]
location = "m.example"
[[registry]]
location = "b.example"
)");
  MergeRegistriesConf(entries, Parse(R"(
[[registry]]
prefix = "c.example"
location = "d.example"
[[registry]]
location = "a.example"
)",
                                     "/etc/containers/registries.conf.d/50.conf"));
  EXPECT_THAT(Show(entries), ElementsAre("a.example -> a.example", "b.example -> b.example",
                                         "c.example -> d.example"));
  EXPECT_EQ(entries[0].file, "/etc/containers/registries.conf.d/50.conf");
}

TEST(RegistriesConfTest, SearchListsOfVersion1MeanNothingHere) {
  EXPECT_THAT(Show(Parse("[registries.search]\nregistries = [\"docker.io\"]\n"
                         "[registries.insecure]\nregistries = []\n")),
              ElementsAre());
}

struct BadRegistries {
  const char* fault;
  const char* text;
  const char* message;
};

class BadRegistriesTest : public testing::TestWithParam<BadRegistries> {};

TEST_P(BadRegistriesTest, IsRefusedWithFileAndLine) {
  const std::string message = ParseError(GetParam().text);
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr(std::string(kFile) + ":"));
  EXPECT_THAT(message, Not(HasSubstr("hunter2")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadRegistriesTest,
    testing::Values(
        BadRegistries{"NotToml", "[[registry]\n", "registries.conf:1: "},
        BadRegistries{"RegistryIsATable", "\n[registry]\nlocation = \"a.b\"",
                      ":2: write registries as tables"},
        BadRegistries{"RegistryIsAListOfOthers", "registry = [1]", "write registries as tables"},
        BadRegistries{"NeitherPrefixNorLocation", "\n\n[[registry]]\ninsecure = true",
                      ":3: a registry without prefix and location"},
        BadRegistries{"PrefixWithoutLocation", "[[registry]]\nprefix = \"a.b\"",
                      ":1: a registry without location"},
        BadRegistries{"LocationWithScheme", "[[registry]]\nlocation = \"https://a.b\"",
                      ":2: 'location' is host[:port][/path], without a scheme"},
        BadRegistries{"PrefixWithScheme", "[[registry]]\nprefix = \"http://a.b\"",
                      ":2: 'prefix' is host"},
        BadRegistries{"LocationWithUser", "[[registry]]\nlocation = \"u:hunter2@a.b\"",
                      ":2: 'location' has to be"},
        BadRegistries{"LocationWithQuery", "[[registry]]\nlocation = \"a.b?x=hunter2\"",
                      ":2: 'location' has to be"},
        BadRegistries{"LocationOfSlashes", "[[registry]]\nlocation = \"//\"",
                      ":2: 'location' has to be"},
        BadRegistries{"LocationOfWrongType", "[[registry]]\nlocation = 1",
                      ":2: 'location' has to be a string"},
        BadRegistries{"InsecureOfWrongType", "[[registry]]\nlocation = \"a.b\"\ninsecure = \"yes\"",
                      ":3: 'insecure' has to be true or false"},
        BadRegistries{"BlockedOfWrongType", "[[registry]]\nlocation = \"a.b\"\nblocked = 1",
                      ":3: 'blocked' has to be true or false"},
        BadRegistries{"WildcardInside", "[[registry]]\nprefix = \"a.*.b\"\nlocation = \"a.b\"",
                      "'*' may stand only"},
        BadRegistries{"WildcardTwice", "[[registry]]\nprefix = \"*.a.*\"\nlocation = \"a.b\"",
                      "'*' may stand only"},
        BadRegistries{"WildcardLocation", "[[registry]]\nlocation = \"*.a.b\"",
                      "'*' may stand only"},
        BadRegistries{"WildcardOfNothing", "[[registry]]\nprefix = \"*.\"", "no domain"},
        BadRegistries{"MirrorWithoutLocation",
                      "[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\ninsecure = true",
                      ":3: a mirror without a location"},
        BadRegistries{"MirrorIsATable", "[[registry]]\nlocation = \"a.b\"\nmirror = \"c.d\"",
                      ":3: write mirrors as tables"},
        BadRegistries{"UnknownPull",
                      "[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\nlocation = "
                      "\"c.d\"\npull-from-mirror = \"never\"",
                      ":5: 'pull-from-mirror' has to be"},
        BadRegistries{"PullAndByDigestOnly",
                      "[[registry]]\nlocation = \"a.b\"\nmirror-by-digest-only = true\n"
                      "[[registry.mirror]]\nlocation = \"c.d\"\npull-from-mirror = \"all\"",
                      ":6: 'pull-from-mirror' and 'mirror-by-digest-only' exclude each other"},
        BadRegistries{"PullOfARegistry",
                      "[[registry]]\nlocation = \"a.b\"\npull-from-mirror = \"all\"",
                      ":3: 'pull-from-mirror' belongs into"},
        BadRegistries{"ConflictingInsecure",
                      "[[registry]]\nlocation = \"a.b\"\n[[registry]]\nprefix = \"c.d\"\n"
                      "location = \"a.b\"\ninsecure = true",
                      ":3: 'a.b' is defined in line 1, too, with another 'insecure'"},
        BadRegistries{"ConflictingBlocked",
                      "[[registry]]\nlocation = \"a.b\"\n[[registry]]\nlocation = \"a.b\"\n"
                      "blocked = true",
                      "with another 'blocked'"},
        BadRegistries{"Version1Insecure", "\n[registries.insecure]\nregistries = [\"a.b\"]",
                      ":3: [registries.insecure] is of version 1"},
        BadRegistries{"Version1Block", "[registries.block]\nregistries = [\"a.b\"]",
                      ":2: [registries.block] is of version 1"}),
    [](const auto& param) { return std::string(param.param.fault); });

// The examples of containers-registries.conf(5), in substance.
TEST(RegistriesConfTest, DocumentedSetUps) {
  const auto entries = Parse(R"(
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"

[[registry.mirror]]
location = "mirror.registry.com"
)");
  const RegistriesConfEntry* entry = FindInRegistriesConf(entries, "example.com/foo/image");
  ASSERT_NE(entry, nullptr);
  auto rewritten = [&](const std::string& location) {
    return RewriteRepository(Repo("example.com", "foo/image"), entry->prefix, location)->ToString();
  };
  EXPECT_EQ(rewritten(entry->mirrors[0].location), "example-mirror-0.local/mirror-for-foo/image");
  EXPECT_EQ(rewritten(entry->mirrors[1].location), "example-mirror-1.local/mirrors/foo/image");
  EXPECT_EQ(rewritten(entry->location), "internal-registry-for-example.com/bar/image");
  entry = FindInRegistriesConf(entries, "registry.com/image");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->mirrors[0].location, "mirror.registry.com");
}

}  // namespace
}  // namespace ocifs::fetch
