#include "fetch/hosts_toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::fetch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kFile[] = "/etc/containerd/certs.d/r.example/hosts.toml";

HostsToml Parse(const std::string& text) {
  auto hosts = ParseHostsToml(text, kFile);
  if (hosts) return *std::move(hosts);
  ADD_FAILURE() << hosts.error().message;
  return {};
}

std::string ParseError(const std::string& text) {
  const auto hosts = ParseHostsToml(text, kFile);
  if (hosts) return "parsed";
  EXPECT_EQ(hosts.error().code, store::ErrorCode::kInvalid);
  return hosts.error().message;
}

std::string Root(const HostsTomlServer& server) {
  return server.api_root ? server.api_root->ToString() : "-";
}

std::vector<std::string> Roots(const HostsToml& hosts) {
  std::vector<std::string> roots;
  for (const HostsTomlServer& mirror : hosts.mirrors) roots.push_back(Root(mirror));
  return roots;
}

// The first host of a file with this URL and these keys.
HostsTomlServer Host(const std::string& url, const std::string& keys = "") {
  HostsToml hosts = Parse("[host.\"" + url + "\"]\n" + keys);
  if (hosts.mirrors.size() == 1) return std::move(hosts.mirrors.front());
  ADD_FAILURE() << url;
  return {};
}

TEST(HostsTomlTest, ApiRootsOfUrls) {
  struct Case {
    const char* url;
    const char* root;
    const char* contact;
  };
  for (const Case& c : {
           Case{"https://m.example", "https://m.example/v2", "m.example"},
           Case{"https://m.example/", "https://m.example/v2", "m.example"},
           Case{"m.example", "https://m.example/v2", "m.example"},
           Case{"m.example:5000/p", "https://m.example:5000/p/v2", "m.example:5000"},
           Case{"http://m.example:5000", "http://m.example:5000/v2", "m.example:5000"},
           Case{"HTTP://M.example", "http://M.example/v2", "m.example"},
           Case{"https://m.example/v2", "https://m.example/v2", "m.example"},
           Case{"https://m.example/v2/", "https://m.example/v2", "m.example"},
           Case{"https://m.example//a/./b/../c/", "https://m.example/a/c/v2", "m.example"},
           Case{"https://m.example/../..", "https://m.example/v2", "m.example"},
           Case{"https://m.example/xv2", "https://m.example/xv2/v2", "m.example"},
           Case{"https://[::1]:5000", "https://[::1]:5000/v2", "[::1]:5000"},
           Case{"https://m.example:443", "https://m.example:443/v2", "m.example:443"},
           Case{"https://registry-1.docker.io", "https://registry-1.docker.io/v2", "docker.io"},
       }) {
    const HostsTomlServer host = Host(c.url);
    EXPECT_EQ(Root(host), c.root) << c.url;
    ASSERT_TRUE(host.contact) << c.url;
    EXPECT_EQ(host.contact->name(), c.contact) << c.url;
  }
}

TEST(HostsTomlTest, OverridePathLeavesThePathAsItIs) {
  EXPECT_EQ(Root(Host("https://m.example/v2/library", "override_path = true")),
            "https://m.example/v2/library");
  EXPECT_EQ(Root(Host("https://m.example/v2/library", "override_path = false")),
            "https://m.example/v2/library/v2");
  EXPECT_EQ(Root(Host("https://m.example", "override_path = true")), "https://m.example/");
}

TEST(HostsTomlTest, HostsKeepTheOrderOfTheFile) {
  const HostsToml hosts = Parse(R"(
server = "https://up.example"
[host."https://z.example"]
[host."https://b.example".header]
  x = "1"
[host."https://a.example"]
[host."https://b.example"]
)");
  EXPECT_THAT(Roots(hosts),
              ElementsAre("https://z.example/v2", "https://b.example/v2", "https://a.example/v2"));
  EXPECT_EQ(Root(hosts.server), "https://up.example/v2");
  EXPECT_EQ(hosts.mirrors[2].line, 6u);
}

TEST(HostsTomlTest, WithoutServerTheTopLevelIsTheRegistryItself) {
  const HostsToml hosts = Parse("skip_verify = true\ncapabilities = [\"pull\"]");
  EXPECT_FALSE(hosts.server.api_root);
  EXPECT_FALSE(hosts.server.contact);
  EXPECT_FALSE(hosts.server.tls.verify);
  EXPECT_TRUE(hosts.server.may_pull);
  EXPECT_FALSE(hosts.server.may_resolve);
  EXPECT_THAT(hosts.mirrors, IsEmpty());
}

TEST(HostsTomlTest, Capabilities) {
  auto of = [](const std::string& keys) {
    const HostsTomlServer host = Host("m.example", keys);
    return std::string(host.may_pull ? "p" : "") + (host.may_resolve ? "r" : "") +
           (host.may_referrers ? "f" : "");
  };
  EXPECT_EQ(of(""), "prf");
  EXPECT_EQ(of("capabilities = []"), "prf");
  EXPECT_EQ(of("capabilities = [\"pull\"]"), "p");
  EXPECT_EQ(of("capabilities = [\"resolve\", \"Pull\"]"), "pr");
  EXPECT_EQ(of("capabilities = [\"referrers\"]"), "f");
  EXPECT_EQ(of("capabilities = [\"push\"]"), "");
}

TEST(HostsTomlTest, TlsSettings) {
  HostsTomlServer host = Host("m.example");
  EXPECT_FALSE(host.tls_is_set);
  EXPECT_EQ(host.tls, TlsOptions());

  host = Host("m.example", "ca = \"ca.pem\"");
  EXPECT_TRUE(host.tls_is_set);
  EXPECT_THAT(host.tls.ca_files, ElementsAre("/etc/containerd/certs.d/r.example/ca.pem"));

  host = Host("m.example", "ca = [\"/abs/a.pem\", \"../b.pem\"]");
  EXPECT_THAT(host.tls.ca_files, ElementsAre("/abs/a.pem", "/etc/containerd/certs.d/b.pem"));

  host = Host("m.example", "skip_verify = false");
  EXPECT_TRUE(host.tls_is_set);
  EXPECT_TRUE(host.tls.verify);
  EXPECT_FALSE(Host("m.example", "skip_verify = true").tls.verify);
}

TEST(HostsTomlTest, ClientCertificates) {
  struct Case {
    const char* keys;
    const char* certificate;
    const char* key;
    size_t pairs;
  };
  for (const Case& c : {
           Case{"client = \"/c/both.pem\"", "/c/both.pem", "", 1},
           Case{"client = [\"/c/1.pem\", \"/c/2.pem\"]", "/c/1.pem", "", 2},
           Case{"client = [[\"/c/1.cert\", \"/c/1.key\"]]", "/c/1.cert", "/c/1.key", 1},
           Case{"client = [[\"/c/both.pem\", \"\"]]", "/c/both.pem", "", 1},
           Case{"client = [[\"/c/1.cert\", \"/c/1.key\"], \"/c/2.pem\"]", "/c/1.cert", "/c/1.key",
                2},
           Case{"client = [[\"c.cert\", \"c.key\"]]", "/etc/containerd/certs.d/r.example/c.cert",
                "/etc/containerd/certs.d/r.example/c.key", 1},
           Case{"client = []", "", "", 0},
       }) {
    const HostsTomlServer host = Host("m.example", c.keys);
    EXPECT_EQ(host.tls.certificate_file, c.certificate) << c.keys;
    EXPECT_EQ(host.tls.key_file, c.key) << c.keys;
    EXPECT_EQ(host.client_pairs, c.pairs) << c.keys;
    EXPECT_TRUE(host.tls_is_set) << c.keys;
  }
}

TEST(HostsTomlTest, Headers) {
  const HostsTomlServer host = Host("m.example", R"(
[host."m.example".header]
  x-token = "secret"
  Authorization = "Basic abc"
  x-many = ["1", "2"]
)");
  std::vector<std::string> lines;
  for (const HttpHeader& header : host.headers) lines.push_back(header.name + ": " + header.value);
  EXPECT_THAT(lines,
              ElementsAre("x-token: secret", "Authorization: Basic abc", "x-many: 1", "x-many: 2"));
}

TEST(HostsTomlTest, DialTimeout) {
  using std::chrono::milliseconds;
  auto timeout = [](const std::string& text) {
    return Host("m.example", "dial_timeout = \"" + text + "\"").dial_timeout;
  };
  EXPECT_EQ(timeout(""), milliseconds(0));
  EXPECT_EQ(timeout("0"), milliseconds(0));
  EXPECT_EQ(timeout("5s"), milliseconds(5000));
  EXPECT_EQ(timeout("1m30s"), milliseconds(90'000));
  EXPECT_EQ(timeout("1.5h"), milliseconds(5'400'000));
  EXPECT_EQ(timeout(".5s"), milliseconds(500));
  EXPECT_EQ(timeout("300ms"), milliseconds(300));
  EXPECT_EQ(timeout("1ns"), milliseconds(1));
  EXPECT_EQ(timeout("1500us"), milliseconds(2));
  EXPECT_EQ(timeout("1500\u00B5s"), milliseconds(2));
  for (const char* bad :
       {"5", "s", "-5s", "5 s", "5x", "1.2.3s", "25h", ".s", "5sm", "99999999999999999999s"}) {
    EXPECT_THAT(ParseError("dial_timeout = \"" + std::string(bad) + "\""),
                HasSubstr("'dial_timeout' has to be a duration"))
        << bad;
  }
}

TEST(HostsTomlTest, UnknownKeysArePassedOver) {
  const HostsToml hosts = Parse("future = 1\n[host.\"m.example\"]\nnew_key = [1, 2]\n[other]\nx=1");
  EXPECT_THAT(Roots(hosts), ElementsAre("https://m.example/v2"));
}

struct BadHosts {
  const char* fault;
  const char* text;
  const char* message;
};

class BadHostsTest : public testing::TestWithParam<BadHosts> {};

TEST_P(BadHostsTest, IsRefusedWithFileAndLineAndNoSecret) {
  const std::string message = ParseError(GetParam().text);
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr(std::string(kFile) + ":"));
  EXPECT_THAT(message, Not(HasSubstr("hunter2")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadHostsTest,
    testing::Values(
        BadHosts{"NotToml", "server = \n", "hosts.toml:1: "},
        BadHosts{"UnknownCapability", "[host.\"a.b\"]\ncapabilities = [\"pull\",\n\"fly\"]",
                 "hosts.toml:3: 'capabilities' has to be"},
        BadHosts{"CapabilityNotAString", "capabilities = [1]", ":1: 'capabilities' has to be"},
        BadHosts{"CapabilitiesNotAList", "capabilities = \"pull\"", "'capabilities' has to be"},
        BadHosts{"ServerNotAString", "\nserver = 1", ":2: 'server' has to be a string"},
        BadHosts{"OtherScheme", "\nserver = \"ftp://a.b\"", ":2: "},
        BadHosts{"UnixSocket", "server = \"unix:///run/x\"", ":1: "},
        BadHosts{"SchemeThatIsAPath", "[host.\"https:/b.e@hunter2://a.b\"]",
                 "begins with https://"},
        BadHosts{"NoHost", "server = \"https:///x\"", ":1: '' is not a registry host"},
        BadHosts{"UserInformation", "[host.\"https://u:hunter2@a.b\"]", ":1: the URL of a server"},
        BadHosts{"UserInformationAtTheServer", "server = \"u:hunter2@a.b\"", "no user name"},
        BadHosts{"Query", "[host.\"https://a.b/?key=hunter2\"]", "no query"},
        BadHosts{"Fragment", "[host.\"https://a.b/#hunter2\"]", "no fragment"},
        BadHosts{"BadPort", "[host.\"a.b:99999\"]", "not a registry host"},
        BadHosts{"ControlCharacter", "[host.\"https://a.b/x\\ny\"]", ":1: "},
        BadHosts{"HostIsNoTable", "host = \"a.b\"", "'host' has to be tables"},
        BadHosts{"HostsAreNoTables", "[host]\n\"a.b\" = 1", ":2: a host has to be a table"},
        BadHosts{"HostIsAnArray", "[[host]]\n", "'host' has to be tables"},
        BadHosts{"HostWithoutName", "[host.\"\"]", "a host without a name"},
        BadHosts{"CaOfWrongType", "ca = 1", ":1: 'ca' has to be a string or a list"},
        BadHosts{"CaListOfWrongType", "ca = [\"a\", 1]", "'ca' has to be a string or a list"},
        BadHosts{"CaEmpty", "ca = \"\"", "the name of a file is empty"},
        BadHosts{"CaWithNul", "ca = \"a\\u0000b\"", "holds a NUL"},
        BadHosts{"ClientOfWrongType", "client = 1", "'client' has to be"},
        BadHosts{"ClientOfThree", "client = [[\"a\", \"b\", \"c\"]]", "'client' has to be"},
        BadHosts{"ClientPairOfNumbers", "client = [[1, 2]]", "'client' has to be"},
        BadHosts{"SkipVerifyOfWrongType", "skip_verify = \"yes\"", "true or false"},
        BadHosts{"OverridePathOfWrongType", "[host.\"a.b\"]\noverride_path = 1",
                 ":2: 'override_path' has to be true or false"},
        BadHosts{"HeaderIsNoTable", "header = \"x: hunter2\"", "'header' has to be a table"},
        BadHosts{"HeaderValueOfWrongType", "[header]\nx = 1", ":2: 'x' has to be a string"},
        BadHosts{"HeaderWithLineBreak", "[header]\nx = \"hunter2\\r\\nEvil: 1\"",
                 ":2: the header 'x' holds a control character"},
        BadHosts{"HeaderWithNul", "[header]\nx = [\"hunter2\\u0000\"]", "a control character"},
        BadHosts{"HeaderNameWithLineBreak", "[header]\n\"x\\ny\" = \"hunter2\"",
                 "the name of a header is not one"},
        BadHosts{"HeaderNameWithColon", "[header]\n\"x:\" = \"hunter2\"", "name of a header"},
        BadHosts{"HeaderOfFraming", "[header]\nContent-Length = \"hunter2\"",
                 "the header 'Content-Length' cannot be set"},
        BadHosts{"DialTimeoutOfWrongType", "dial_timeout = 5", "'dial_timeout' has to be"},
        BadHosts{"SecretInBrokenToml", "[header]\nx = \"hunter2\ny = 1", ":2: "}),
    [](const auto& param) { return std::string(param.param.fault); });

// The examples of containerd's documentation of hosts.toml, in substance.
TEST(HostsTomlTest, DocumentedSetUps) {
  // A mirror of Docker Hub, the origin behind it.
  HostsToml hosts = Parse(R"(
server = "https://docker.io"

[host."https://registry-1.docker.io"]
  capabilities = ["pull", "resolve"]
)");
  EXPECT_THAT(Roots(hosts), ElementsAre("https://registry-1.docker.io/v2"));
  EXPECT_EQ(Root(hosts.server), "https://docker.io/v2");
  EXPECT_FALSE(hosts.mirrors[0].may_referrers);
  EXPECT_TRUE(hosts.server.may_referrers);

  // A local mirror of everything, in _default.
  hosts = Parse(R"(
server = "https://registry.example.com"

[host."http://192.168.31.250:5000"]
  capabilities = ["pull", "resolve", "push"]
  skip_verify = true
)");
  EXPECT_THAT(Roots(hosts), ElementsAre("http://192.168.31.250:5000/v2"));
  EXPECT_TRUE(hosts.mirrors[0].tls_is_set);

  // Several mirrors, each with certificates of its own.
  hosts = Parse(R"(
server = "https://registry-1.docker.io"    # Exclude this to not use upstream

[host."https://public-mirror.example.com"]
  capabilities = ["pull"]                  # Requires less trust, won't resolve tag to digest from this host
[host."https://docker-mirror.internal"]
  capabilities = ["pull", "resolve"]
  ca = "docker-mirror.crt"                 # Or absolute path /etc/containerd/certs.d/docker.io/docker-mirror.crt
[host."https://test-1.registry"]
  client = [["/etc/certs/test-1-client.cert", "/etc/certs/test-1-client.key"], ["/etc/certs/test-1-client.pem", ""]]
[host."https://non-compliant-mirror.registry/v2/upstream"]
  capabilities = ["pull"]
  override_path = true
)");
  EXPECT_THAT(Roots(hosts),
              ElementsAre("https://public-mirror.example.com/v2",
                          "https://docker-mirror.internal/v2", "https://test-1.registry/v2",
                          "https://non-compliant-mirror.registry/v2/upstream"));
  EXPECT_FALSE(hosts.mirrors[0].may_resolve);
  EXPECT_TRUE(hosts.mirrors[1].may_resolve);
  EXPECT_EQ(hosts.mirrors[2].client_pairs, 2u);
  EXPECT_EQ(hosts.server.contact->name(), "docker.io");
}

}  // namespace
}  // namespace ocifs::fetch
