#include "tools/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ocifs::tools {
namespace {

using testing::HasSubstr;

TEST(ConfigTest, EmptyTextGivesTheDefaults) {
  const auto config = ParseConfig("", "/etc/ocifs/ocifs.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_FALSE(config->offline);
  EXPECT_EQ(config->request_timeout, std::chrono::seconds(30));
  EXPECT_EQ(config->platform, store::Platform::Host());
  EXPECT_EQ(config->limits.max_entries, store::Limits().max_entries);
  EXPECT_TRUE(config->registries.empty());
  EXPECT_EQ(config->host_files.hosts_dir, std::nullopt);
  EXPECT_EQ(config->host_files.registries_conf, std::nullopt);
  EXPECT_EQ(config->host_files.certs_dir, std::nullopt);
}

TEST(ConfigTest, ReadsEveryKey) {
  const auto config = ParseConfig(R"(
offline = true
request_timeout = "1m30s"
platform = "linux/arm64"
auth_file = "auth.json"
log_file = "/var/log/ocifs.log"
security_capability = true
hosts_dir = "/srv/certs.d"
registries_conf = "registries.conf"
certs_dir = ""

[registry."Registry.Example.com:5000"]
ca = "ca.pem"
scheme = "https"
endpoint = "mirror.example.com"
realm_hosts = ["auth.example.net"]
mirrors = ["https://mirror-1.example/cache", "mirror-2.example:5000"]
client_certificate = "client.pem"
client_key = "/keys/client.key"
insecure = true

[registry."example.local"]
layout = "layout"
repository = "apps"

[store]
path = "/srv/store"
max_size = "20GiB"
min_free = "5%"
max_age = "30d"

[limits]
max_blob = "1GiB"
max_unpacked = 1000
max_expansion = 7
max_entries = 8
max_depth = 9
)",
                                  "/etc/ocifs/ocifs.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->store, "/srv/store");
  EXPECT_EQ(config->max_size->Of(1000), uint64_t{20} << 30);
  EXPECT_EQ(config->min_free->Of(1000), 50U);
  EXPECT_EQ(config->max_age, std::chrono::hours(24 * 30));
  EXPECT_TRUE(config->offline);
  EXPECT_EQ(config->request_timeout, std::chrono::seconds(90));
  EXPECT_EQ(config->platform.ToString(), "linux/arm64");
  EXPECT_EQ(config->auth_file, "/etc/ocifs/auth.json");
  EXPECT_EQ(config->log_file, "/var/log/ocifs.log");
  EXPECT_TRUE(config->security_capability);
  EXPECT_EQ(config->host_files.hosts_dir, "/srv/certs.d");
  EXPECT_EQ(config->host_files.registries_conf, "/etc/ocifs/registries.conf");
  EXPECT_EQ(config->host_files.certs_dir, "");
  ASSERT_TRUE(config->registries.contains("registry.example.com:5000"));
  const RegistryConfig& remote = config->registries.at("registry.example.com:5000");
  EXPECT_EQ(remote.options.tls.ca_files, std::vector<std::string>{"/etc/ocifs/ca.pem"});
  EXPECT_EQ(remote.options.scheme, fetch::Scheme::kHttps);
  EXPECT_EQ(remote.options.endpoint, "mirror.example.com");
  EXPECT_EQ(remote.options.realm_hosts, std::vector<std::string>{"auth.example.net"});
  EXPECT_EQ(remote.options.mirrors,
            (std::vector<std::string>{"https://mirror-1.example/cache", "mirror-2.example:5000"}));
  EXPECT_EQ(remote.options.tls.certificate_file, "/etc/ocifs/client.pem");
  EXPECT_EQ(remote.options.tls.key_file, "/keys/client.key");
  EXPECT_FALSE(remote.options.tls.verify);
  const RegistryConfig& layout = config->registries.at("example.local");
  EXPECT_EQ(layout.layout, "/etc/ocifs/layout");
  EXPECT_EQ(layout.options.tls, fetch::TlsOptions());
  EXPECT_EQ(layout.layout_repository, "apps");
  EXPECT_EQ(config->limits.max_blob_bytes, uint64_t{1} << 30);
  EXPECT_EQ(config->limits.max_unpacked_bytes, 1000u);
  EXPECT_EQ(config->limits.max_expansion, 7u);
  EXPECT_EQ(config->limits.max_entries, 8u);
  EXPECT_EQ(config->limits.max_depth, 9u);
}

struct BadConfig {
  const char* fault;
  const char* text;
  const char* message;
};

class BadConfigTest : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedWithFileAndLine) {
  const auto config = ParseConfig(GetParam().text, "f.toml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, store::ErrorCode::kInvalid);
  EXPECT_THAT(config.error().message, HasSubstr("f.toml"));
  EXPECT_THAT(config.error().message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigTest,
    testing::Values(
        BadConfig{"UnknownKey", "\noffline = true\nofline = true", "f.toml:3: key 'ofline'"},
        BadConfig{"UnknownRegistryKey", "[registry.\"a.b\"]\ncacert = \"x\"", "'cacert'"},
        BadConfig{"WrongType", "offline = \"yes\"", "true or false"},
        BadConfig{"BadDuration", "request_timeout = \"soon\"", "a duration"},
        BadConfig{"ZeroDuration", "request_timeout = \"0s\"", "a duration"},
        BadConfig{"BadSize", "[limits]\nmax_blob = \"much\"", "a size"},
        BadConfig{"NegativeSize", "[limits]\nmax_blob = -1", "a size"},
        BadConfig{"NegativeCount", "[limits]\nmax_entries = -1", "a whole number"},
        BadConfig{"CountBeyondItsType", "[limits]\nmax_depth = 4294967296", "a whole number"},
        BadConfig{"BadScheme", "[registry.\"a.b\"]\nscheme = \"ftp\"", "\"https\""},
        BadConfig{"MirrorsAreNoList", "[registry.\"a.b\"]\nmirrors = \"m.b\"",
                  "f.toml:2: 'mirrors' has to be a list"},
        BadConfig{"MirrorIsNoText", "[registry.\"a.b\"]\nmirrors = [1]", "a list of hosts"},
        BadConfig{"RealmHostIsNoText", "[registry.\"a.b\"]\nrealm_hosts = [\"a\",\n1]",
                  "f.toml:3: 'realm_hosts' has to be a list"},
        BadConfig{"InsecureIsNoBoolean", "[registry.\"a.b\"]\ninsecure = \"yes\"", "true or false"},
        BadConfig{"KeyWithoutCertificate", "[registry.\"a.b\"]\nclient_key = \"k\"",
                  "f.toml:2: 'client_key' has to be with a client_certificate"},
        BadConfig{"PlaceIsNoText", "\nhosts_dir = false", "f.toml:2: 'hosts_dir' has to be a path"},
        BadConfig{"BadHost", "[registry.\"a b\"]\nca = \"x\"", "not a registry host"},
        BadConfig{"BadPlatform", "platform = \"linux\"", "os/architecture"},
        BadConfig{"RegistryIsNoTable", "registry = 1", "tables"},
        BadConfig{"NotToml", "this is no toml", "f.toml:1"}),
    [](const auto& param) { return std::string(param.param.fault); });

TEST(ConfigTest, AMissingFileIsNamed) {
  const auto config = LoadConfig("/nonexistent/ocifs.toml");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("/nonexistent/ocifs.toml"));
}

TEST(ConfigTest, TransferSettings) {
  const auto config = ParseConfig(R"([transfer]
ranges = 8
far = "5ms"
connect_timeout = "3s"
connections = 64
connections_per_host = 48
proxy = "http://proxy.example:3128"
no_proxy = ".internal"
[registry."r.example"]
catalog = true
)",
                                  "/etc/ocifs.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->transfer.blobs.max_ranges, 8);
  EXPECT_EQ(config->transfer.blobs.far, std::chrono::milliseconds(5));
  EXPECT_EQ(config->transfer.http.connect_timeout, std::chrono::seconds(3));
  EXPECT_EQ(config->transfer.http.max_connections, 64U);
  EXPECT_EQ(config->transfer.http.max_connections_per_host, 48U);
  EXPECT_EQ(config->transfer.http.proxy, "http://proxy.example:3128");
  EXPECT_EQ(config->transfer.http.no_proxy, ".internal");
  EXPECT_TRUE(config->registries.at("r.example").catalog);
}

TEST(ConfigTest, TooFewConnectionsAreRefused) {
  for (const char* key : {"connections", "connections_per_host"}) {
    const auto config =
        ParseConfig("[transfer]\n" + std::string(key) + " = 39\n", "/etc/ocifs.toml");
    ASSERT_FALSE(config) << key;
    EXPECT_THAT(config.error().message, HasSubstr("/etc/ocifs.toml:2: "));
    EXPECT_THAT(config.error().message, HasSubstr("at least 40"));
  }
}

TEST(DurationTest, ReadsUnitsAndSums) {
  using std::chrono::milliseconds;
  EXPECT_EQ(ParseDuration("250ms"), milliseconds(250));
  EXPECT_EQ(ParseDuration("30s"), milliseconds(30'000));
  EXPECT_EQ(ParseDuration("1h30m"), milliseconds(5'400'000));
  EXPECT_EQ(ParseDuration("2d"), milliseconds(172'800'000));
  for (const char* bad : {"", "5", "s", "-5s", "5 s", "5x", "1.5h", "99999999999999999999s",
                          "9223372036854775807d"}) {
    EXPECT_EQ(ParseDuration(bad), std::nullopt) << bad;
  }
}

TEST(SizeTest, ReadsUnits) {
  EXPECT_EQ(ParseSize("1000"), 1000u);
  EXPECT_EQ(ParseSize("2KiB"), 2048u);
  EXPECT_EQ(ParseSize("64GiB"), uint64_t{64} << 30);
  EXPECT_EQ(ParseSize("10GB"), 10'000'000'000u);
  for (const char* bad : {"", "GiB", "1gib", "1 GiB", "-1", "1.5GiB", "1GiB1MiB", "99999999TiB"}) {
    EXPECT_EQ(ParseSize(bad), std::nullopt) << bad;
  }
}

TEST(FormatTest, SizesAndTimes) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(1023), "1023 B");
  EXPECT_EQ(FormatSize(1536), "1.5 KiB");
  EXPECT_EQ(FormatSize(uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(FormatTime(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(FormatTime(1'763'640'000), "2025-11-20T12:00:00Z");
}

TEST(PathTest, IsMadeAbsoluteAndPlain) {
  EXPECT_EQ(AbsolutePath("/a/./b/../c/"), "/a/c");
  EXPECT_EQ(AbsolutePath("x", "/base"), "/base/x");
  EXPECT_EQ(AbsolutePath("/", "/base"), "/");
}

}  // namespace
}  // namespace ocifs::tools
