#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "fetch/http_client.h"
#include "tests/harness/http_server.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::AllOf;
using testing::CertificateFault;
using ::testing::HasSubstr;
using testing::HttpServer;
using testing::MakeTestCertificate;
using ::testing::Not;
using testing::ServerRequest;
using testing::ServerResponse;
using testing::TestCertificate;

class HttpTlsTest : public ::testing::Test {
 protected:
  HttpServer::Handler Answer() {
    return [this](const ServerRequest&) {
      ++answered_;
      return ServerResponse{.body = std::make_shared<const std::string>("ok")};
    };
  }
  store::Result<std::string> Fetch(const HttpServer& server, const TlsOptions& tls) {
    return client_
        ->Start({.url = *Url::Parse("https://localhost:" + std::to_string(server.port()) + "/"),
                 .tls = tls},
                {})
        ->ReadAll(100);
  }
  // The failure against a server with that fault, its authority being trusted.
  store::Error Refusal(CertificateFault fault) {
    HttpServer server(Answer(), HttpServer::Transport::kTls, fault);
    const auto text = Fetch(server, {.ca_files = {dir_.Write("ca.pem", server.authority_pem())}});
    EXPECT_EQ(answered_, 0);
    return text ? store::Error{} : text.error();
  }

  std::atomic<int> answered_ = 0;  // by the servers' threads
  testing::TempDir dir_;
  std::unique_ptr<HttpClient> client_ = *HttpClient::Create();
};

TEST_F(HttpTlsTest, SeveralAuthoritiesAreTrusted) {
  HttpServer first(Answer(), HttpServer::Transport::kTls);
  HttpServer second(Answer(), HttpServer::Transport::kTls);
  const TlsOptions both{.ca_files = {dir_.Write("1.pem", first.authority_pem()),
                                     dir_.Write("2.pem", second.authority_pem())}};
  for (const HttpServer* const server : {&first, &second}) {
    const auto text = Fetch(*server, both);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, "ok");
  }
}

TEST_F(HttpTlsTest, FaultsOfCertificatesAreExplained) {
  const struct {
    CertificateFault fault;
    const char* words;
    const char* advice;
  } kCases[] = {
      {CertificateFault::kExpired, "has expired", "clock"},
      {CertificateFault::kNotYetValid, "not valid yet", "clock"},
      {CertificateFault::kWrongHost, "another host", "use a host name"},
      {CertificateFault::kSelfSigned, "is self-signed", "`ca` in the hosts.toml"},
  };
  for (const auto& [fault, words, advice] : kCases) {
    const store::Error error = Refusal(fault);
    EXPECT_EQ(error.code, ErrorCode::kDenied) << words;
    EXPECT_THAT(error.message, AllOf(HasSubstr(words), HasSubstr(advice), HasSubstr("localhost")));
  }
}

TEST_F(HttpTlsTest, UnknownAuthorityIsExplained) {
  HttpServer server(Answer(), HttpServer::Transport::kTls);
  const TestCertificate other = MakeTestCertificate();
  for (const TlsOptions& tls :
       {TlsOptions{}, TlsOptions{.ca_files = {dir_.Write("o.pem", other.authority_pem)}}}) {
    const auto text = Fetch(server, tls);
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().code, ErrorCode::kDenied);
    EXPECT_THAT(text.error().message, HasSubstr("authority"));
    EXPECT_THAT(text.error().message, HasSubstr("`ca` in the hosts.toml of localhost"));
  }
  EXPECT_EQ(answered_, 0);
}

TEST_F(HttpTlsTest, OldProtocolIsExplained) {
  HttpServer server(Answer(), HttpServer::Options{.transport = HttpServer::Transport::kTls,
                                                  .only_old_tls = true});
  const auto text = Fetch(server, {.verify = false});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kDenied);
  EXPECT_THAT(text.error().message, HasSubstr("1.2 or later is needed"));
}

TEST_F(HttpTlsTest, PlainServerIsExplainedAndNotAskedInPlain) {
  HttpServer server(Answer(), HttpServer::Transport::kPlain);
  const auto text = Fetch(server, {});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kDenied);
  EXPECT_THAT(text.error().message, HasSubstr("does not speak TLS on port"));
  EXPECT_EQ(answered_, 0);
}

TEST_F(HttpTlsTest, UnverifiedConnectionsAreNotShared) {
  HttpServer server(Answer(), HttpServer::Transport::kTls, CertificateFault::kWrongHost);
  const std::string authority = dir_.Write("ca.pem", server.authority_pem());
  // With verification off nothing is read that only verification needs.
  ASSERT_TRUE(Fetch(server, {.ca_files = {"/absent"}, .verify = false}));
  EXPECT_FALSE(Fetch(server, {.ca_files = {authority}}));
  EXPECT_FALSE(Fetch(server, {}));
  EXPECT_EQ(answered_, 1);
}

TEST_F(HttpTlsTest, ConnectionsOfOtherAuthoritiesAreNotShared) {
  HttpServer server(Answer(), HttpServer::Transport::kTls);
  const std::string path = dir_.Write("ca.pem", server.authority_pem());
  ASSERT_TRUE(Fetch(server, {.ca_files = {path}}));
  ASSERT_TRUE(Fetch(server, {.ca_files = {path}}));
  EXPECT_EQ(server.connections_accepted(), 1U);
  EXPECT_FALSE(Fetch(server, {})) << "trusted by another request";
  // The same file, with other content.
  dir_.Write("ca.pem", MakeTestCertificate().authority_pem);
  EXPECT_FALSE(Fetch(server, {.ca_files = {path}}));
  EXPECT_EQ(answered_, 2);
}

class ClientCertificateTest : public HttpTlsTest {
 protected:
  TlsOptions WithClient(const std::string& certificate, const std::string& key) {
    return {.ca_files = {dir_.Write("ca.pem", server_.authority_pem())},
            .certificate_file = dir_.Write("client.cert", certificate),
            .key_file = key.empty() ? "" : dir_.Write("client.key", key)};
  }

  const TestCertificate client_certificate_ = MakeTestCertificate();
  HttpServer server_{
      Answer(), HttpServer::Options{.transport = HttpServer::Transport::kTls,
                                    .client_authority_pem = client_certificate_.authority_pem}};
};

TEST_F(ClientCertificateTest, IsShown) {
  const auto text = Fetch(server_, WithClient(client_certificate_.client_certificate_pem,
                                              client_certificate_.client_key_pem));
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text, "ok");
}

TEST_F(ClientCertificateTest, KeyMayStandInTheSameFile) {
  const auto text = Fetch(server_, WithClient(client_certificate_.client_certificate_pem +
                                                  client_certificate_.client_key_pem,
                                              ""));
  ASSERT_TRUE(text) << text.error().message;
}

TEST_F(ClientCertificateTest, ConnectionIsNotSharedWithOthers) {
  ASSERT_TRUE(Fetch(server_, WithClient(client_certificate_.client_certificate_pem,
                                        client_certificate_.client_key_pem)));
  const auto text = Fetch(server_, {.ca_files = {dir_ / "ca.pem"}});
  EXPECT_FALSE(text);
  EXPECT_EQ(answered_, 1);
}

TEST_F(ClientCertificateTest, AbsenceIsExplained) {
  const auto text = Fetch(server_, {.ca_files = {dir_.Write("ca.pem", server_.authority_pem())}});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kDenied) << text.error().message;
  EXPECT_THAT(text.error().message, AllOf(HasSubstr("localhost wants a certificate of its clients"),
                                          HasSubstr("`client` in the hosts.toml of localhost")));
}

TEST_F(ClientCertificateTest, RefusalIsExplained) {
  const TestCertificate stranger = MakeTestCertificate();
  const auto text =
      Fetch(server_, WithClient(stranger.client_certificate_pem, stranger.client_key_pem));
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kDenied) << text.error().message;
  EXPECT_THAT(text.error().message, HasSubstr("refuses our client certificate"));
  EXPECT_EQ(answered_, 0);
}

TEST_F(ClientCertificateTest, KeyOfAnotherCertificateIsInvalid) {
  const TestCertificate stranger = MakeTestCertificate();
  const auto text = Fetch(
      server_, WithClient(client_certificate_.client_certificate_pem, stranger.client_key_pem));
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kInvalid) << text.error().message;
  EXPECT_THAT(text.error().message, HasSubstr("`client` of hosts.toml"));
}

// Files that are wrong by themselves.
class TlsFilesTest : public ::testing::Test {
 protected:
  store::Error Refusal(const TlsOptions& options) {
    const auto material = ReadTlsFiles(options);
    return material ? store::Error{} : material.error();
  }
  testing::TempDir dir_;
  const TestCertificate certificate_ = MakeTestCertificate();
};

TEST_F(TlsFilesTest, GoodFilesAreRead) {
  const auto material =
      ReadTlsFiles({.ca_files = {dir_.Write("1", certificate_.authority_pem),
                                 dir_.Write("2", "# a remark\n" + certificate_.certificate_pem)},
                    .certificate_file = dir_.Write("3", certificate_.client_certificate_pem),
                    .key_file = dir_.Write("4", certificate_.client_key_pem)});
  ASSERT_TRUE(material) << material.error().message;
  EXPECT_THAT(material->authorities, AllOf(HasSubstr(certificate_.authority_pem),
                                           HasSubstr(certificate_.certificate_pem)));
  EXPECT_EQ(material->certificate, certificate_.client_certificate_pem);
  EXPECT_EQ(material->key, certificate_.client_key_pem);
}

TEST_F(TlsFilesTest, BadAuthoritiesAreNamed) {
  std::string cut = certificate_.authority_pem;
  cut.resize(cut.size() / 2);
  // Whole by its lines, with bytes amiss.
  std::string shortened = certificate_.authority_pem;
  shortened.erase(shortened.find('\n') + 1, 64);
  std::string odd = certificate_.authority_pem;
  odd[odd.find('\n') + 5] = '!';
  const struct {
    const char* name;
    std::string content;
    const char* why;
  } kCases[] = {
      {"empty.pem", "", "holds no certificate"},
      {"text.pem", "no PEM at all\n", "holds no certificate"},
      {"key.pem", certificate_.key_pem, "holds no certificate"},
      {"cut.pem", cut, "damaged"},
      {"shortened.pem", shortened, "damaged"},
      {"odd.pem", odd, "damaged"},
      {"large.pem", std::string(size_t{5} << 20, 'x'), "over 4 MiB"},
  };
  const std::string good = dir_.Write("good.pem", certificate_.authority_pem);
  for (const auto& [name, content, why] : kCases) {
    const store::Error error = Refusal({.ca_files = {good, dir_.Write(name, content)}});
    EXPECT_EQ(error.code, ErrorCode::kInvalid) << name;
    EXPECT_THAT(error.message, AllOf(HasSubstr(name), HasSubstr(why), HasSubstr("hosts.toml")));
  }
}

TEST_F(TlsFilesTest, AbsentAndOddFilesAreNamed) {
  EXPECT_EQ(Refusal({.ca_files = {dir_ / "absent.pem"}}).code, ErrorCode::kInvalid);
  EXPECT_THAT(Refusal({.ca_files = {dir_ / "absent.pem"}}).message,
              AllOf(HasSubstr("absent.pem"), HasSubstr("No such file")));
  EXPECT_EQ(Refusal({.ca_files = {""}}).code, ErrorCode::kInvalid);
  EXPECT_EQ(Refusal({.ca_files = {"relative.pem"}}).code, ErrorCode::kInvalid);
  EXPECT_THAT(Refusal({.ca_files = {dir_.path()}}).message, HasSubstr("not a regular file"));
  const std::string fifo = dir_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(Refusal({.ca_files = {fifo}}).message, HasSubstr("not a regular file"));
}

TEST_F(TlsFilesTest, UnreadableFileIsDenied) {
  const std::string path = dir_.Write("secret.pem", certificate_.authority_pem);
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  // Root may read all files.
  const uid_t user = geteuid();
  if (user == 0) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  const store::Error error = Refusal({.ca_files = {path}});
  ASSERT_EQ(seteuid(user), 0);
  EXPECT_EQ(error.code, ErrorCode::kDenied);
  EXPECT_THAT(error.message, AllOf(HasSubstr("secret.pem"), HasSubstr("Permission denied")));
}

TEST_F(TlsFilesTest, DirectoriesOfAuthoritiesAreKnownByTheirNames) {
  EXPECT_FALSE(IsHashedDirectory(dir_ / "absent"));
  EXPECT_FALSE(IsHashedDirectory(dir_.path()));
  for (const char* const name :
       {"bundle.crt", "0123456.0", "012345678.0", "0123456g.0", "01234567.r0", "0123456789"}) {
    dir_.Write(name, "");
  }
  EXPECT_FALSE(IsHashedDirectory(dir_.path()));
  dir_.Write("0a1b2c3d.0", "");
  EXPECT_TRUE(IsHashedDirectory(dir_.path()));
}

TEST_F(TlsFilesTest, BadClientFilesAreNamed) {
  const std::string certificate = dir_.Write("c.pem", certificate_.client_certificate_pem);
  const std::string key = dir_.Write("k.pem", certificate_.client_key_pem);
  const std::string locked = dir_.Write(
      "locked.pem",
      "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH=\n-----END ENCRYPTED PRIVATE KEY-----\n");
  const std::string old_locked =
      dir_.Write("old.pem",
                 "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: "
                 "AES-128-CBC,00\n\nMIH=\n-----END RSA PRIVATE KEY-----\n");
  const struct {
    TlsOptions options;
    const char* why;
  } kCases[] = {
      {{.certificate_file = certificate}, "holds no private key, and no other file is named"},
      {{.certificate_file = key, .key_file = key}, "holds no certificate"},
      {{.certificate_file = certificate, .key_file = certificate}, "holds no private key"},
      {{.certificate_file = certificate, .key_file = locked}, "protected by a password"},
      {{.certificate_file = certificate, .key_file = old_locked}, "protected by a password"},
      {{.key_file = key}, "of no use without a client certificate"},
  };
  for (const auto& [options, why] : kCases) {
    const store::Error error = Refusal(options);
    EXPECT_EQ(error.code, ErrorCode::kInvalid) << why;
    EXPECT_THAT(error.message, AllOf(HasSubstr(why), Not(HasSubstr("MIH"))));
  }
}

}  // namespace
}  // namespace ocifs::fetch
