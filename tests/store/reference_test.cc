#include "store/reference.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kHex =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Reference, Parses) {
  const std::string digest = "@sha256:" + std::string(kHex);
  struct Case {
    std::string text;
    std::string printed;
  };
  const Case cases[] = {
      {"alpine", "docker.io/library/alpine:latest"},
      {"ghcr.io", "docker.io/library/ghcr.io:latest"},
      {"alpine:3.18", "docker.io/library/alpine:3.18"},
      {"docker.io/alpine", "docker.io/library/alpine:latest"},
      {"index.docker.io/alpine", "docker.io/library/alpine:latest"},
      {"registry-1.docker.io/alpine", "docker.io/library/alpine:latest"},
      {"kcllang/kcl", "docker.io/kcllang/kcl:latest"},
      {"ghcr.io/kcl-lang/helloworld:0.1.4", "ghcr.io/kcl-lang/helloworld:0.1.4"},
      {"oci://ghcr.io/a/b", "ghcr.io/a/b:latest"},
      {"docker://ghcr.io/a/b", "ghcr.io/a/b:latest"},
      {"GHCR.IO/a/b", "ghcr.io/a/b:latest"},
      {"localhost/a", "localhost/a:latest"},
      {"localhost:5000/a", "localhost:5000/a:latest"},
      {"localhost:5000/a:5001", "localhost:5000/a:5001"},
      {"127.0.0.1:5000/a/b/c/d/e", "127.0.0.1:5000/a/b/c/d/e:latest"},
      {"[::1]:5000/a", "[::1]:5000/a:latest"},
      {"[FE80::1]/a", "[fe80::1]/a:latest"},
      {"ghcr.io/a/b" + digest, "ghcr.io/a/b" + digest},
      {"ghcr.io/a/b:1.0" + digest, "ghcr.io/a/b" + digest},
      {"alpine" + digest, "docker.io/library/alpine" + digest},
      {"ghcr.io/a__b/c---d/e.f_g", "ghcr.io/a__b/c---d/e.f_g:latest"},
      {"ghcr.io/a:_.-", "ghcr.io/a:_.-"},
      {"ghcr.io/" + std::string(kHex), "ghcr.io/" + std::string(kHex) + ":latest"},
  };
  for (const Case& c : cases) {
    const Result<Reference> reference = Reference::Parse(c.text);
    ASSERT_THAT(reference, IsOk()) << c.text;
    EXPECT_EQ(reference->ToString(), c.printed) << c.text;
    EXPECT_EQ(Must(Reference::Parse(reference->ToString())), *reference) << c.text;
    EXPECT_NE(reference->tag().has_value(), reference->digest().has_value()) << c.text;
  }
}

TEST(Reference, Refuses) {
  struct Case {
    std::string_view name;
    std::string text;
    ErrorCode code = ErrorCode::kInvalid;
  };
  const std::string hex(kHex);
  const Case cases[] = {
      {"empty", ""},
      {"scheme only", "oci://"},
      {"other scheme", "https://ghcr.io/a"},
      {"host that its own lower-case form does not name", "Host/a"},
      {"host and slash", "ghcr.io/"},
      {"slash first", "/a"},
      {"parent directory", "ghcr.io/../x"},
      {"parent directory inside", "ghcr.io/a/../x"},
      {"dot component", "ghcr.io/./x"},
      {"escaped parent directory", "ghcr.io/%2e%2e/x"},
      {"empty component", "ghcr.io/a//b"},
      {"slash last", "ghcr.io/a/"},
      {"upper case path", "ghcr.io/A"},
      {"control byte", "ghcr.io/a\x01"},
      {"NUL", std::string("ghcr.io/a\0b", 11)},
      {"space", "ghcr.io/a b"},
      {"not ASCII", "ghcr.io/\xC3\xA9"},
      {"separator first", "ghcr.io/-a"},
      {"separator last", "ghcr.io/a-"},
      {"three underscores", "ghcr.io/a___b"},
      {"two dots", "ghcr.io/a..b"},
      {"mixed separators", "ghcr.io/a.-b"},
      {"300 bytes of path", "ghcr.io/" + std::string(300, 'a')},
      {"empty tag", "ghcr.io/a:"},
      {"tag starts with a dot", "ghcr.io/a:.x"},
      {"tag starts with a dash", "ghcr.io/a:-x"},
      {"tag with a slash", "ghcr.io/a:x/y"},
      {"tag with a plus", "ghcr.io/a:1+2"},
      {"129 bytes of tag", "ghcr.io/a:" + std::string(129, 'a')},
      {"two tags", "ghcr.io/a:x:y"},
      {"bad tag before a digest", "ghcr.io/a:-x@sha256:" + hex},
      {"empty digest", "ghcr.io/a@"},
      {"short digest", "ghcr.io/a@sha256:00"},
      {"two digests", "ghcr.io/a@sha256:" + hex + "@sha256:" + hex},
      {"digest that is a path", "ghcr.io/a@sha256:../../x"},
      {"digest of unknown algorithm", "ghcr.io/a@blake3:" + hex, ErrorCode::kUnsupported},
      {"hex alone", hex},
      {"port 0", "host:0/a"},
      {"port 65536", "host:65536/a"},
      {"port 99999", "host:99999/a"},
      {"empty port", "host:/a"},
      {"port with a sign", "host:+1/a"},
      {"port with a leading zero", "host:080/a"},
      {"two ports", "host:1:2/a"},
      {"user in the host", "user@host.com/a"},
      {"dash first in the host", "-a.com/a"},
      {"dot first in the host", ".a.com/a"},
      {"dot last in the host", "a.com./a"},
      {"underscore in the host", "a_b.com/a"},
      {"label of 64 bytes", std::string(64, 'a') + ".com/a"},
      {"host of 260 bytes", std::string(52, 'a') + "." + std::string(52, 'a') + "." +
                                std::string(52, 'a') + "." + std::string(52, 'a') + "." +
                                std::string(48, 'a') + "/a"},
      {"open bracket", "[::1/a"},
      {"empty brackets", "[]/a"},
      {"no address in brackets", "[abc]/a"},
      {"zone in brackets", "[fe80::1%eth0]/a"},
      {"text behind brackets", "[::1]x/a"},
  };
  for (const Case& c : cases) EXPECT_THAT(Reference::Parse(c.text), FailsWith(c.code)) << c.name;
}

TEST(Reference, LongestNamesFitAKeyOfTheIndex) {
  const Registry hub = RegistryOf("docker.io");
  const Result<Repository> repository = Repository::Parse(hub, std::string(237, 'a'));
  ASSERT_THAT(repository, IsOk());
  EXPECT_THAT(Repository::Parse(hub, std::string(238, 'a')), FailsWith(ErrorCode::kInvalid));
  const Reference reference(*repository, Must(Tag::Parse(std::string(128, 't'))));
  EXPECT_LT(reference.ToString().size(), 511U);
  EXPECT_LT(Reference(*repository, DigestOf("", DigestAlgorithm::kSha512)).ToString().size(), 511U);
}

TEST(Registry, KnowsLoopback) {
  for (const std::string_view text :
       {"localhost", "localhost:5000", "127.0.0.1", "127.255.0.9:1", "[::1]"}) {
    EXPECT_TRUE(RegistryOf(text).is_loopback()) << text;
  }
  for (const std::string_view text : {"127.example.com", "localhost.evil.com", "127.0.0.1.nip.io",
                                      "128.0.0.1", "[::2]", "1.127.0.0", "127.1"}) {
    EXPECT_FALSE(RegistryOf(text).is_loopback()) << text;
  }
}

TEST(Registry, SplitsHostAndPort) {
  EXPECT_EQ(RegistryOf("Host.Example:443").host(), "host.example");
  EXPECT_EQ(RegistryOf("host.example:443").port(), 443);
  EXPECT_EQ(RegistryOf("[FE80::1]:65535").host(), "fe80::1");
  EXPECT_EQ(RegistryOf("[fe80::1]:65535").port(), 65535);
  EXPECT_EQ(RegistryOf("[fe80::1]").port(), std::nullopt);
}

TEST(IsRepositoryComponent, FollowsTheGrammar) {
  for (const std::string_view good :
       {"a"sv, "0"sv, "a.b"sv, "a_b"sv, "a__b"sv, "a-b"sv, "a----b"sv, "kcl.mod"sv}) {
    EXPECT_TRUE(IsRepositoryComponent(good)) << good;
  }
  for (const std::string_view bad : {""sv, "."sv, ".."sv, ".git"sv, "a."sv, "a/b"sv, "A"sv,
                                     "a___b"sv, "a._b"sv, "a_"sv, "a:b"sv, "a\0b"sv, "a\n"sv}) {
    EXPECT_FALSE(IsRepositoryComponent(bad)) << EscapeForDisplay(bad);
  }
}

}  // namespace
}  // namespace ocifs::store
