#include "fetch/host_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <optional>
#include <thread>

#include "store/log.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using ocifs::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

store::Repository Repo(std::string_view registry, std::string_view path = "team/app") {
  return *store::Repository::Parse(*store::Registry::Parse(registry), path);
}

// One line for each endpoint: role, API root, name there, and what is not the default.
std::vector<std::string> Show(const store::Result<Route>& route) {
  if (!route) {
    return {std::string(store::ErrorCodeName(route.error().code)) + ": " + route.error().message};
  }
  std::vector<std::string> lines;
  for (const Endpoint& endpoint : route->endpoints) {
    std::string line = endpoint.is_origin ? "origin " : "mirror ";
    line += endpoint.api_root.ToString() + " " + endpoint.repository.ToString();
    if (!endpoint.may_pull) line += " -pull";
    if (!endpoint.may_resolve) line += " -resolve";
    if (!endpoint.may_referrers) line += " -referrers";
    if (!endpoint.ns.empty()) line += " ns=" + endpoint.ns;
    if (!endpoint.tls.verify) line += " unverified";
    for (const std::string& file : endpoint.tls.ca_files) line += " ca=" + file;
    if (!endpoint.tls.certificate_file.empty()) {
      line += " client=" + endpoint.tls.certificate_file + "," + endpoint.tls.key_file;
    }
    for (const HttpHeader& header : endpoint.headers)
      line += " " + header.name + ":" + header.value;
    if (endpoint.dial_timeout.count() != 0) {
      line += " dial=" + std::to_string(endpoint.dial_timeout.count());
    }
    for (const std::string& host : endpoint.realm_hosts) line += " realm=" + host;
    lines.push_back(std::move(line));
  }
  return lines;
}

class HostRouterTest : public ::testing::Test {
 protected:
  // Places below a directory of the test's own, all of them in use.
  HostRouterOptions Options() {
    HostRouterOptions options;
    options.hosts_dirs = {dir_ / "hosts"};
    options.registries_conf = {
        {.file = dir_ / "registries.conf", .drop_in_directories = {dir_ / "registries.conf.d"}}};
    options.certs_dirs = {dir_ / "certs-1", dir_ / "certs-2"};
    options.clock = [this] { return now_; };
    return options;
  }
  HostRouter& Use(HostRouterOptions options) {
    auto router = HostRouter::Create(std::move(options));
    if (!router) throw std::runtime_error(router.error().message);
    router_ = *std::move(router);
    return *router_;
  }
  std::vector<std::string> RouteOf(std::string_view registry, std::string_view path = "team/app") {
    if (!router_) Use(Options());
    return Show(router_->RouteOf(Repo(registry, path)));
  }
  std::vector<std::string> OwnRoute(std::map<std::string, RegistryOptions> registries,
                                    std::string_view registry = "r.example") {
    HostRouterOptions options = Options();
    options.registries = std::move(registries);
    Use(std::move(options));
    return RouteOf(registry);
  }

  TempDir dir_;
  std::chrono::steady_clock::time_point now_{std::chrono::hours(1)};
  std::unique_ptr<HostRouter> router_;
};

TEST_F(HostRouterTest, WithoutConfigurationARegistryIsItself) {
  EXPECT_THAT(RouteOf("r.example"), ElementsAre("origin https://r.example/v2 r.example/team/app"));
  EXPECT_THAT(RouteOf("r.example:5000"),
              ElementsAre("origin https://r.example:5000/v2 r.example:5000/team/app"));
  EXPECT_THAT(RouteOf("docker.io", "alpine"),
              ElementsAre("origin https://registry-1.docker.io/v2 docker.io/library/alpine"));
  EXPECT_THAT(RouteOf("localhost:5000"),
              ElementsAre("origin http://localhost:5000/v2 localhost:5000/team/app"));
  EXPECT_THAT(RouteOf("localhost:443"),
              ElementsAre("origin https://localhost:443/v2 localhost:443/team/app"));
  EXPECT_THAT(RouteOf("127.0.0.1"), ElementsAre("origin https://127.0.0.1/v2 127.0.0.1/team/app"));
}

TEST_F(HostRouterTest, OwnMirrorsComeFirstAndAreToldTheNamespace) {
  EXPECT_THAT(
      OwnRoute({{"r.example",
                 {.mirrors = {"https://m.example/cache/", "localhost:5001", "n.example"}}}}),
      ElementsAre("mirror https://m.example/cache/v2 m.example/team/app ns=r.example",
                  "mirror http://localhost:5001/v2 localhost:5001/team/app ns=r.example",
                  "mirror https://n.example/v2 n.example/team/app ns=r.example",
                  "origin https://r.example/v2 r.example/team/app"));
}

TEST_F(HostRouterTest, AMirrorIsSpokenToAsItsOwnOptionsSay) {
  EXPECT_THAT(OwnRoute({{"r.example", {.mirrors = {"m.example:5000", "n.example", "o.example"}}},
                        {"m.example:5000", {.scheme = Scheme::kHttp}},
                        {"n.example", {.tls = {.ca_files = {"/n.pem"}}, .realm_hosts = {"auth"}}},
                        {"o.example", {.tls = {.verify = false}}}}),
              ElementsAre("mirror http://m.example:5000/v2 m.example:5000/team/app ns=r.example",
                          "mirror https://n.example/v2 n.example/team/app ns=r.example ca=/n.pem "
                          "realm=auth",
                          "mirror https://o.example/v2 o.example/team/app ns=r.example unverified",
                          "mirror http://o.example/v2 o.example/team/app ns=r.example",
                          "origin https://r.example/v2 r.example/team/app"));
}

TEST_F(HostRouterTest, OwnEndpointIsTheRegistryElsewhere) {
  EXPECT_THAT(OwnRoute({{"r.example", {.endpoint = "https://else.example:8443/base/"}}}),
              ElementsAre("origin https://else.example:8443/base/v2 else.example:8443/team/app"));
  EXPECT_THAT(OwnRoute({{"r.example", {.endpoint = "127.0.0.1:5000", .realm_hosts = {"auth"}}}}),
              ElementsAre("origin http://127.0.0.1:5000/v2 127.0.0.1:5000/team/app realm=auth"));
}

TEST_F(HostRouterTest, OwnInsecureRegistryIsTriedBothWaysUnlessAWayIsNamed) {
  const TlsOptions insecure{.verify = false};
  EXPECT_THAT(OwnRoute({{"r.example", {.tls = insecure}}}),
              ElementsAre("origin https://r.example/v2 r.example/team/app unverified",
                          "origin http://r.example/v2 r.example/team/app"));
  EXPECT_THAT(OwnRoute({{"r.example", {.scheme = Scheme::kHttps, .tls = insecure}}}),
              ElementsAre("origin https://r.example/v2 r.example/team/app unverified"));
  EXPECT_THAT(OwnRoute({{"r.example", {.scheme = Scheme::kHttp, .tls = insecure}}}),
              ElementsAre("origin http://r.example/v2 r.example/team/app"));
  EXPECT_THAT(OwnRoute({{"r.example", {.endpoint = "https://e.example", .tls = insecure}}}),
              ElementsAre("origin https://e.example/v2 e.example/team/app unverified"));
}

TEST_F(HostRouterTest, OwnOptionsThatAreWrongAreRefusedAtTheStart) {
  for (const char* bad : {"https://u:hunter2@m.example", "u:hunter2@m.example", "not a host",
                          "https://m.example/?x=1", "ftp://m.example", ""}) {
    HostRouterOptions options;
    options.registries = {{"r.example", {.mirrors = {bad}}}};
    const auto router = HostRouter::Create(options);
    ASSERT_FALSE(router) << bad;
    EXPECT_EQ(router.error().code, store::ErrorCode::kInvalid) << bad;
    EXPECT_THAT(router.error().message, Not(HasSubstr("hunter2")));
  }
  HostRouterOptions options;
  options.registries = {{"r.example", {.endpoint = "https://u:hunter2@m.example"}}};
  EXPECT_FALSE(HostRouter::Create(options));
}

TEST_F(HostRouterTest, HostsTomlGivesMirrorsAndTheServer) {
  dir_.Write("hosts/r.example/ca.pem", "");
  dir_.Write("hosts/r.example/hosts.toml", R"(
server = "https://up.example"
ca = "ca.pem"
[host."http://m.example:5000"]
  capabilities = ["pull"]
  dial_timeout = "3s"
  [host."http://m.example:5000".header]
    x-key = "v"
[host."https://push.example"]
  capabilities = ["push"]
[host."https://r.example/proxy"]
)");
  EXPECT_THAT(RouteOf("r.example"),
              ElementsAre("mirror http://m.example:5000/v2 m.example:5000/team/app -resolve "
                          "-referrers ns=r.example x-key:v dial=3000",
                          "mirror https://r.example/proxy/v2 r.example/team/app",
                          "origin https://up.example/v2 up.example/team/app ns=r.example ca=" +
                              (dir_ / "hosts/r.example/ca.pem")));
}

TEST_F(HostRouterTest, DockerHubIsNoProxyOfItself) {
  dir_.Write("hosts/docker.io/hosts.toml",
             "server = \"https://registry-1.docker.io\"\n[host.\"https://m.example\"]");
  EXPECT_THAT(RouteOf("docker.io", "alpine"),
              ElementsAre("mirror https://m.example/v2 m.example/library/alpine ns=docker.io",
                          "origin https://registry-1.docker.io/v2 docker.io/library/alpine"));
  dir_.Write("hosts/ghcr.io/hosts.toml", "[host.\"https://registry-1.docker.io\"]");
  EXPECT_THAT(RouteOf("ghcr.io"),
              ElementsAre("mirror https://registry-1.docker.io/v2 docker.io/team/app ns=ghcr.io",
                          "origin https://ghcr.io/v2 ghcr.io/team/app"));
}

TEST_F(HostRouterTest, HttpWithTlsSettingsMayBeEither) {
  dir_.Write("hosts/a.example/hosts.toml", R"(
[host."http://m.example:5000"]
skip_verify = true
[host."http://m.example"]
skip_verify = true
[host."http://m.example:80"]
skip_verify = true
)");
  EXPECT_THAT(
      RouteOf("a.example"),
      ElementsAre(
          "mirror https://m.example:5000/v2 m.example:5000/team/app ns=a.example unverified",
          "mirror http://m.example:5000/v2 m.example:5000/team/app ns=a.example",
          "mirror http://m.example/v2 m.example/team/app ns=a.example",
          "mirror http://m.example:80/v2 m.example:80/team/app ns=a.example",
          "origin https://a.example/v2 a.example/team/app"));
  dir_.Write("hosts/localhost:5000/hosts.toml", "skip_verify = true");
  EXPECT_THAT(RouteOf("localhost:5000"),
              ElementsAre("origin https://localhost:5000/v2 localhost:5000/team/app unverified",
                          "origin http://localhost:5000/v2 localhost:5000/team/app"));
}

TEST_F(HostRouterTest, DirectoriesOfHostsAreTriedInContainerdsOrder) {
  auto mirror = [&](const std::string& directory, const std::string& name) {
    dir_.Write("hosts/" + directory + "/hosts.toml", "[host.\"https://" + name + ".example\"]");
  };
  auto first = [&](std::string_view registry) {
    router_.reset();
    return RouteOf(registry).front().substr(0, 22);
  };
  mirror("_default", "default");
  mirror("r.example", "without");
  EXPECT_EQ(first("r.example:5000"), "mirror https://default");
  EXPECT_EQ(first("r.example"), "mirror https://without");
  mirror("r.example:5000", "coloned");
  EXPECT_EQ(first("r.example:5000"), "mirror https://coloned");
  mirror("r.example_5000_", "scoring");
  EXPECT_EQ(first("r.example:5000"), "mirror https://scoring");
  mirror("[::1]_5000_", "literal");
  EXPECT_EQ(first("[::1]:5000"), "mirror https://literal");
  EXPECT_EQ(first("other.example"), "mirror https://default");
}

TEST_F(HostRouterTest, TheFirstHostsDirectoryThatKnowsARegistryDecides) {
  HostRouterOptions options = Options();
  options.hosts_dirs = {dir_ / "absent", dir_ / "one", dir_ / "two"};
  dir_.Write("one/a.example/hosts.toml", "[host.\"https://one.example\"]");
  dir_.Write("two/a.example/hosts.toml", "[host.\"https://two.example\"]");
  dir_.Write("two/_default/hosts.toml", "[host.\"https://two.example\"]");
  Use(std::move(options));
  EXPECT_THAT(RouteOf("a.example")[0], HasSubstr("https://one.example"));
  EXPECT_THAT(RouteOf("b.example")[0], HasSubstr("https://two.example"));
}

TEST_F(HostRouterTest, WithoutHostsTomlADirectoryHoldsCertificates) {
  for (const char* name : {"ca.crt", "client.cert", "client.key", "other.txt"}) {
    dir_.Write("hosts/r.example/" + std::string(name), "x");
  }
  ASSERT_EQ(mkfifo((dir_ / "hosts/r.example/fifo.crt").c_str(), 0600), 0);
  const std::string base = dir_ / "hosts/r.example/";
  const std::string expected = "origin https://r.example/v2 r.example/team/app ca=" + base +
                               "ca.crt client=" + base + "client.cert," + base + "client.key";
  EXPECT_THAT(RouteOf("r.example"), ElementsAre(expected));
  dir_.Write("hosts/r.example/hosts.toml", "");  // as containerd: as if it were not there
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example"), ElementsAre(expected));
  dir_.Write("hosts/r.example/hosts.toml", "# nothing\n");
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example"), ElementsAre("origin https://r.example/v2 r.example/team/app"));
}

TEST_F(HostRouterTest, ABrokenHostsTomlIsAnErrorOfItsRegistryAlone) {
  dir_.Write("hosts/r.example/hosts.toml", "server = \"https://up.example\"\nca = 1\n");
  dir_.Write("hosts/r.example/ca.crt", "x");
  EXPECT_THAT(RouteOf("r.example"),
              ElementsAre("invalid: " + (dir_ / "hosts/r.example/hosts.toml") +
                          ":2: 'ca' has to be a string or a list of strings"));
  EXPECT_THAT(RouteOf("other.example"),
              ElementsAre("origin https://other.example/v2 other.example/team/app"));
}

TEST_F(HostRouterTest, FilesThatHostsTomlNamesHaveToBeThere) {
  dir_.Write("hosts/a.example/hosts.toml", "\nserver = \"https://a.example\"\nca = \"ca.pem\"");
  EXPECT_THAT(RouteOf("a.example"),
              ElementsAre("invalid: " + (dir_ / "hosts/a.example/hosts.toml") +
                          ":2: " + (dir_ / "hosts/a.example/ca.pem") + " is missing"));
  ASSERT_EQ(mkfifo((dir_ / "hosts/a.example/ca.pem").c_str(), 0600), 0);
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("a.example")[0], HasSubstr("ca.pem is no regular file"));
  std::filesystem::remove(dir_ / "hosts/a.example/ca.pem");
  dir_.Write("hosts/a.example/ca.pem", "x");
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("a.example")[0], HasSubstr("origin https://a.example/v2"));
}

TEST_F(HostRouterTest, AFifoInPlaceOfAFileIsAnError) {
  std::filesystem::create_directories(dir_ / "hosts/r.example");
  ASSERT_EQ(mkfifo((dir_ / "hosts/r.example/hosts.toml").c_str(), 0600), 0);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("hosts.toml: not a regular file"));
  ASSERT_EQ(mkfifo((dir_ / "registries.conf").c_str(), 0600), 0);
  EXPECT_THAT(RouteOf("other.example")[0], HasSubstr("origin"));
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("other.example")[0], HasSubstr("registries.conf: not a regular file"));
}

TEST_F(HostRouterTest, RegistriesConfRewritesMirrorsThenLocation) {
  dir_.Write("registries.conf", R"(
[[registry]]
prefix = "docker.io/library"
location = "internal.example/hub"
[[registry.mirror]]
location = "m.example/foo"
[[registry.mirror]]
location = "n.example:5000"
insecure = true
[[registry.mirror]]
location = "d.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "t.example"
pull-from-mirror = "tag-only"
)");
  EXPECT_THAT(RouteOf("docker.io", "alpine"),
              ElementsAre("mirror https://m.example/v2 m.example/foo/alpine",
                          "mirror https://n.example:5000/v2 n.example:5000/alpine unverified",
                          "mirror http://n.example:5000/v2 n.example:5000/alpine",
                          "mirror https://d.example/v2 d.example/alpine -resolve -referrers",
                          "mirror https://t.example/v2 t.example/alpine -pull -referrers",
                          "origin https://internal.example/v2 internal.example/hub/alpine"));
  EXPECT_THAT(RouteOf("docker.io", "team/app"),
              ElementsAre("origin https://registry-1.docker.io/v2 docker.io/team/app"));
}

TEST_F(HostRouterTest, RegistriesConfUsesHttpOnlyWhereItSaysInsecure) {
  dir_.Write("registries.conf", R"(
[[registry]]
location = "localhost:5000"
[[registry]]
location = "lan.example"
insecure = true
[[registry]]
prefix = "hub.example"
location = "docker.io"
[[registry]]
prefix = "*.wild.example"
insecure = true
)");
  EXPECT_THAT(RouteOf("localhost:5000"),
              ElementsAre("origin https://localhost:5000/v2 localhost:5000/team/app"));
  EXPECT_THAT(RouteOf("lan.example"),
              ElementsAre("origin https://lan.example/v2 lan.example/team/app unverified",
                          "origin http://lan.example/v2 lan.example/team/app"));
  EXPECT_THAT(RouteOf("hub.example"),
              ElementsAre("origin https://registry-1.docker.io/v2 docker.io/team/app"));
  EXPECT_THAT(RouteOf("a.wild.example"),
              ElementsAre("origin https://a.wild.example/v2 a.wild.example/team/app unverified",
                          "origin http://a.wild.example/v2 a.wild.example/team/app"));
}

TEST_F(HostRouterTest, ABlockedRegistryIsDeniedUnlessOurOwnOptionsPlaceIt) {
  dir_.Write("registries.conf", "[[registry]]\nlocation = \"r.example/team\"\nblocked = true");
  const std::string denied =
      "denied: registry 'r.example/team' is blocked in " + (dir_ / "registries.conf") + ":1";
  EXPECT_THAT(RouteOf("r.example"), ElementsAre(denied));
  EXPECT_THAT(RouteOf("r.example", "other/app")[0], HasSubstr("origin"));
  dir_.Write("hosts/_default/hosts.toml", "[host.\"https://m.example\"]");
  router_.reset();
  EXPECT_THAT(RouteOf("r.example"), ElementsAre(denied));
  EXPECT_THAT(OwnRoute({{"r.example", {.realm_hosts = {"auth"}}}}), ElementsAre(denied));
  EXPECT_THAT(OwnRoute({{"r.example", {.scheme = Scheme::kHttps}}}),
              ElementsAre("origin https://r.example/v2 r.example/team/app"));
}

TEST_F(HostRouterTest, AnImpossibleRewriteNamesItsLine) {
  dir_.Write("registries.conf",
             "[[registry]]\nlocation = \"r.example\"\n[[registry.mirror]]\nlocation = \"m/x\"");
  EXPECT_THAT(RouteOf("r.example"),
              ElementsAre("invalid: " + (dir_ / "registries.conf") +
                          ":3: 'm/x/team/app': it is no repository of a host"));
}

TEST_F(HostRouterTest, DropInsComeInOrderOverTheMainFile) {
  auto location = [&](const std::string& file, const std::string& place) {
    dir_.Write(file, "[[registry]]\nprefix = \"r.example\"\nlocation = \"" + place + "\"");
  };
  HostRouterOptions options = Options();
  options.registries_conf[0].drop_in_directories = {dir_ / "d1", dir_ / "d2"};
  location("registries.conf", "main.example");
  const auto get = [&] {
    Use(options);
    return RouteOf("r.example")[0];
  };
  EXPECT_THAT(get(), HasSubstr("main.example"));
  location("d1/20.conf", "d1-20.example");
  location("d1/10.conf", "d1-10.example");
  location("d1/30.conf.bak", "backup.example");
  std::filesystem::create_directories(dir_ / "d1/40.conf");
  EXPECT_THAT(get(), HasSubstr("d1-20.example"));
  location("d2/00.conf", "d2-00.example");
  EXPECT_THAT(get(), HasSubstr("d2-00.example"));
  dir_.Write("d1/20.conf", "[[registry]]\n");
  EXPECT_EQ(get(),
            "invalid: " + (dir_ / "d1/20.conf") + ":1: a registry without prefix and location");
}

TEST_F(HostRouterTest, TheFirstRegistriesConfThatIsThereCounts) {
  HostRouterOptions options = Options();
  options.registries_conf = {
      {.file = dir_ / "user.conf", .drop_in_directories = {dir_ / "user.d"}},
      {.file = dir_ / "system.conf", .drop_in_directories = {dir_ / "system.d", dir_ / "user.d"}}};
  auto entry = [&](const std::string& file, const std::string& registry) {
    dir_.Write(file, "[[registry]]\nlocation = \"" + registry + "\"\nblocked = true");
  };
  entry("system.conf", "a.example");
  entry("system.d/1.conf", "b.example");
  entry("user.d/1.conf", "c.example");
  auto blocked = [&] {
    Use(options);
    std::string names;
    for (const char* name : {"a.example", "b.example", "c.example", "d.example"}) {
      if (RouteOf(name)[0].starts_with("denied")) names += name[0];
    }
    return names;
  };
  EXPECT_EQ(blocked(), "abc");
  entry("user.conf", "d.example");
  EXPECT_EQ(blocked(), "cd");
  options.registries_conf = {{.file = dir_ / "missing.conf"}};
  EXPECT_EQ(blocked(), "");
  options.registries_conf[0].required = true;
  Use(options);
  EXPECT_THAT(RouteOf("a.example"),
              ElementsAre("invalid: reading " + (dir_ / "missing.conf") + ": it is missing"));
}

TEST_F(HostRouterTest, PrecedenceIsOwnThenContainerdThenContainersTools) {
  dir_.Write("registries.conf", "[[registry]]\nprefix = \"r.example\"\nlocation = \"c.example\"");
  EXPECT_THAT(RouteOf("r.example"), ElementsAre("origin https://c.example/v2 c.example/team/app"));
  dir_.Write("hosts/r.example/hosts.toml", "server = \"https://b.example\"");
  router_.reset();
  EXPECT_THAT(RouteOf("r.example"),
              ElementsAre("origin https://b.example/v2 b.example/team/app ns=r.example"));
  EXPECT_THAT(OwnRoute({{"r.example", {.endpoint = "a.example"}}}),
              ElementsAre("origin https://a.example/v2 a.example/team/app"));
}

TEST_F(HostRouterTest, OwnOptionsThatNameNoServerLeaveThePlaceToOthers) {
  dir_.Write("hosts/r.example/hosts.toml", "[host.\"https://m.example\"]");
  EXPECT_THAT(OwnRoute({{"r.example", {.realm_hosts = {"auth.example"}}}}),
              ElementsAre("mirror https://m.example/v2 m.example/team/app ns=r.example",
                          "origin https://r.example/v2 r.example/team/app realm=auth.example"));
}

TEST_F(HostRouterTest, CertificatesGoToTheHostTheyAreFor) {
  dir_.Write("certs-2/m.example:5000/ca.crt", "x");
  dir_.Write("certs-2/r.example/second.crt", "x");
  dir_.Write("certs-1/r.example/first.crt", "x");
  dir_.Write("registries.conf",
             "[[registry]]\nlocation = \"r.example\"\n[[registry.mirror]]\nlocation = "
             "\"m.example:5000\"\ninsecure = true");
  EXPECT_THAT(
      RouteOf("r.example"),
      ElementsAre("mirror https://m.example:5000/v2 m.example:5000/team/app unverified ca=" +
                      (dir_ / "certs-2/m.example:5000/ca.crt"),
                  "mirror http://m.example:5000/v2 m.example:5000/team/app",
                  "origin https://r.example/v2 r.example/team/app ca=" +
                      (dir_ / "certs-1/r.example/first.crt")));
  // What hosts.toml itself says of TLS stands alone; what it leaves open does not.
  dir_.Write("hosts/h.example/hosts.toml",
             "server = \"https://r.example\"\n[host.\"https://m.example:5000\"]\n"
             "skip_verify = true");
  EXPECT_THAT(RouteOf("h.example"),
              ElementsAre("mirror https://m.example:5000/v2 m.example:5000/team/app ns=h.example "
                          "unverified",
                          "origin https://r.example/v2 r.example/team/app ns=h.example ca=" +
                              (dir_ / "certs-1/r.example/first.crt")));
}

TEST_F(HostRouterTest, ACertificateWithoutKeyIsAnError) {
  dir_.Write("certs-1/r.example/client.cert", "x");
  EXPECT_THAT(RouteOf("r.example")[0],
              HasSubstr("invalid: " + (dir_ / "certs-1/r.example") + "/client.cert: its key"));
}

TEST_F(HostRouterTest, SeveralClientCertificatesAreReportedOnce) {
  std::vector<std::string> lines;
  store::SetLogSink([&](store::LogLevel, std::string_view text) { lines.emplace_back(text); });
  for (const char* name : {"a.cert", "a.key", "b.cert", "b.key"}) {
    dir_.Write("certs-1/r.example/" + std::string(name), "x");
    dir_.Write("hosts/_default/" + std::string(name), "x");
  }
  dir_.Write("hosts/_default/hosts.toml",
             "[host.\"https://r.example\"]\n[host.\"https://m.example\"]\n"
             "client = [[\"a.cert\", \"a.key\"], [\"b.cert\", \"b.key\"]]");
  EXPECT_THAT(RouteOf("x.example")[0], HasSubstr("client=" + (dir_ / "certs-1/r.example/a.cert")));
  EXPECT_THAT(RouteOf("x.example")[1], HasSubstr("client=" + (dir_ / "hosts/_default/a.cert")));
  RouteOf("y.example");
  store::SetLogSink({});
  EXPECT_THAT(lines, ElementsAre(HasSubstr("_default/hosts.toml has 2 certificates of the client"),
                                 HasSubstr("certs-1/r.example has 2 certificates of the client")));
}

TEST_F(HostRouterTest, ChangesCountAfterASecondAndBrokenFilesAreErrorsUntilMended) {
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("origin https://r.example"));
  dir_.Write("hosts/r.example/hosts.toml", "server = \"https://one.example\"");
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("origin https://r.example"));
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("origin https://one.example"));
  dir_.Write("hosts/r.example/hosts.toml", "server = ");
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("invalid: "));
  dir_.Write("hosts/r.example/hosts.toml", "server = \"https://three.example\"");
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("origin https://three.example"));
  std::filesystem::remove_all(dir_ / "hosts/r.example");
  dir_.Write("registries.conf", "[[registry]]\nlocation = \"r.example\"\nblocked = true");
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("denied: "));
  dir_.Write("certs-1/r.example/ca.crt", "x");
  std::filesystem::remove(dir_ / "registries.conf");
  now_ += std::chrono::seconds(1);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("ca=" + (dir_ / "certs-1/r.example/ca.crt")));
}

TEST_F(HostRouterTest, NothingIsExpandedFromTheEnvironment) {
  dir_.Write("hosts/r.example/hosts.toml", "[header]\nx = \"$HOME ${HOME}\"");
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("x:$HOME ${HOME}"));
}

TEST_F(HostRouterTest, ConfiguredIsWhatIsNamed) {
  HostRouterOptions options = Options();
  options.registries = {{"own.example", {.realm_hosts = {"x"}}}};
  HostRouter& router = Use(std::move(options));
  dir_.Write("hosts/_default/hosts.toml", "[host.\"https://m.example\"]");
  dir_.Write("hosts/dir.example_5000_/hosts.toml", "is not even read");
  dir_.Write("registries.conf",
             "[[registry]]\nlocation = \"conf.example/team\"\n[[registry]]\nprefix = "
             "\"*.wild.example\"");
  auto configured = [&](const char* name) {
    return router.IsConfigured(*store::Registry::Parse(name));
  };
  EXPECT_TRUE(configured("own.example"));
  EXPECT_TRUE(configured("dir.example:5000"));
  EXPECT_FALSE(configured("dir.example"));
  EXPECT_TRUE(configured("conf.example"));
  EXPECT_FALSE(configured("conf.example:5000"));
  EXPECT_FALSE(configured("a.wild.example"));
  EXPECT_FALSE(configured("m.example"));
  dir_.Write("registries.conf", "broken");
  now_ += std::chrono::seconds(1);
  EXPECT_FALSE(configured("conf.example"));
}

TEST_F(HostRouterTest, ServesManyThreadsWhileFilesChange) {
  HostRouterOptions options = Options();
  std::atomic<int64_t> seconds{1};
  options.clock = [&] {  // each look is due
    return std::chrono::steady_clock::time_point(std::chrono::seconds(seconds.fetch_add(1)));
  };
  HostRouter& router = Use(std::move(options));
  std::atomic<bool> wrong{false};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        for (int round = 0; round < 200; ++round) {
          const auto route =
              router.RouteOf(Repo("r" + std::to_string((i + round) % 3) + ".example"));
          if (!route || route->endpoints.empty()) wrong = true;
          router.IsConfigured(*store::Registry::Parse("r.example"));
        }
      });
    }
    for (int round = 0; round < 50; ++round) {
      dir_.Write("next", "[host.\"https://m" + std::to_string(round) + ".example\"]");
      std::filesystem::create_directories(dir_ / "hosts/_default");
      std::filesystem::rename(dir_ / "next", dir_ / "hosts/_default/hosts.toml");
    }
  }
  EXPECT_FALSE(wrong);
  EXPECT_THAT(RouteOf("r.example")[0], HasSubstr("mirror https://m49.example"));
}

// "hosts | registries.conf + drop-ins | certs".
std::string Places(const HostFilePlaces& places, std::map<std::string, std::string> environment,
                   uint32_t uid) {
  const HostRouterOptions options = HostRouterOptionsFor(
      places,
      [&](const std::string& name) -> std::optional<std::string> {
        const auto found = environment.find(name);
        if (found == environment.end()) return std::nullopt;
        return found->second;
      },
      uid);
  std::string text;
  for (const std::string& path : options.hosts_dirs) text += path + " ";
  text += "|";
  for (const RegistriesConfPlace& place : options.registries_conf) {
    text += " " + place.file + (place.required ? "!" : "");
    for (const std::string& path : place.drop_in_directories) text += "+" + path;
  }
  text += " |";
  for (const std::string& path : options.certs_dirs) text += " " + path;
  return text;
}

TEST(HostFilePlacesTest, RootHasTheFilesOfTheSystem) {
  EXPECT_EQ(Places({}, {{"HOME", "/home/u"}, {"XDG_CONFIG_HOME", "/x"}}, 0),
            "/etc/containerd/certs.d | /etc/containers/registries.conf+"
            "/etc/containers/registries.conf.d | /etc/containers/certs.d /etc/docker/certs.d");
}

TEST(HostFilePlacesTest, OthersHaveTheirOwnFirst) {
  EXPECT_EQ(Places({}, {{"HOME", "/h"}}, 1000),
            "/h/.config/containerd/certs.d /etc/containerd/certs.d | "
            "/h/.config/containers/registries.conf+/h/.config/containers/registries.conf.d "
            "/etc/containers/registries.conf+/etc/containers/registries.conf.d+"
            "/h/.config/containers/registries.conf.d | /h/.config/containers/certs.d "
            "/etc/containers/certs.d /etc/docker/certs.d");
  EXPECT_THAT(Places({}, {{"HOME", "/h"}, {"XDG_CONFIG_HOME", "/x"}}, 1000),
              ::testing::StartsWith("/x/containerd/certs.d /etc/containerd/certs.d | "));
  EXPECT_THAT(Places({}, {{"HOME", "relative"}}, 1000),
              ::testing::StartsWith("/etc/containerd/certs.d | /etc/containers/registries.conf+"));
}

TEST(HostFilePlacesTest, TheEnvironmentNamesTheMainFile) {
  EXPECT_EQ(Places({.hosts_dir = "", .certs_dir = ""},
                   {{"HOME", "/h"}, {"CONTAINERS_REGISTRIES_CONF", "/r.conf"}}, 1000),
            "| /r.conf!+/etc/containers/registries.conf.d+/h/.config/containers/"
            "registries.conf.d |");
  EXPECT_EQ(
      Places({.hosts_dir = "", .certs_dir = ""}, {{"CONTAINERS_REGISTRIES_CONF", "/r.conf"}}, 0),
      "| /r.conf!+/etc/containers/registries.conf.d |");
}

TEST(HostFilePlacesTest, EachCanBeElsewhereOrOff) {
  EXPECT_EQ(Places({"/h", "/r.conf", "/c"}, {{"CONTAINERS_REGISTRIES_CONF", "/e"}}, 0),
            "/h | /r.conf!+/r.conf.d | /c");
  EXPECT_EQ(Places({"", "", ""}, {{"HOME", "/h"}, {"CONTAINERS_REGISTRIES_CONF", "/e"}}, 1000),
            "| |");
}

}  // namespace
}  // namespace ocifs::fetch
