// Attacks on the registry protocol by the registry itself or by whoever stands in between: rows 1
// to 15 and 53 of tests/ATTACKS.md that no other test covers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "store/digest.h"
#include "tests/fetch/attack_fixture.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using namespace std::string_literals;

using store::ErrorCode;
using testing::FakeRegistry;
using testing::Fault;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::Paging;
using ::testing::SizeIs;
using Framing = testing::ServerResponse::Framing;

std::string Repeat(std::string_view text, size_t count) {
  std::string all;
  all.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

class AttackProtocolTest : public AttackFixture {
 protected:
  // All that is asked of registries, each answered with `fault`: what becomes of it.
  void ExpectAllFail(const std::function<Fault()>& fault, ErrorCode code) {
    const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(5000)}});
    registry_.ClearFaults();
    registry_.Inject(fault());
    EXPECT_EQ(ManifestError("1.0"), code);
    EXPECT_EQ(ManifestError(artifact.digest.ToString()), code);
    EXPECT_EQ(TagsError(), code);
    const BlobRead read = Read(artifact.layers[0]);
    EXPECT_EQ(read.code(), code);
    EXPECT_EQ(read.bytes, "") << "of an answer that is refused";
    // A token server is a server like any other.
    registry_.ClearFaults();
    Fault at_token = fault();
    at_token.path = "/token";
    registry_.RequireBearer({});
    registry_.Inject(std::move(at_token));
    EXPECT_EQ(ManifestError("1.0"), code) << "of a token server";
    registry_.ClearFaults();
    EXPECT_TRUE(Manifest("1.0")) << "the registry mends its ways";
  }
  store::Result<std::vector<std::string>> Catalog() {
    return source_->ListCatalog(registry_.registry(), context_);
  }
  store::Result<std::vector<store::Descriptor>> Referrers(const store::Digest& subject) {
    return source_->ListReferrers(registry_.repository("team/app"), subject, "", context_);
  }
  // Reads page after page.
  store::Result<size_t> CountTags() {
    size_t count = 0;
    std::string cursor;
    do {
      auto page = source_->ListTags(registry_.repository("team/app"), cursor, context_);
      if (!page) return store::Fail(page.error());
      count += page->tags.size();
      cursor = page->next;
    } while (!cursor.empty());
    return count;
  }
  // Lists of all kinds, and a login that the registry wants for them.
  store::Digest ServeLists() {
    RegistrySourceOptions options;
    options.catalogs = {registry_.host()};
    UseSource(TheLogin(), {}, std::move(options));
    registry_.RequireBasic(std::string(kUser), std::string(kPassword));
    registry_.ServeCatalog();
    registry_.SetReferrersApi(testing::ReferrersApi::kOn);
    const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
    registry_.AddReferrer("team/app", artifact.digest, "application/signature");
    return artifact.digest;
  }
  void ExpectListsFail(const store::Digest& subject, ErrorCode code) {
    const auto tags = CountTags();
    EXPECT_EQ(tags ? ErrorCode::kInternal : tags.error().code, code);
    const auto catalog = Catalog();
    EXPECT_EQ(catalog ? ErrorCode::kInternal : catalog.error().code, code);
    const auto referrers = Referrers(subject);
    EXPECT_EQ(referrers ? ErrorCode::kInternal : referrers.error().code, code);
  }
};

// --- Bodies --------------------------------------------------------------------------------------

TEST_F(AttackProtocolTest, Row01ManifestWithoutEndIsReadToItsLimitOnly) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  for (const std::string& name : {"1.0"s, artifact.digest.ToString()}) {
    registry_.ForgetRequests();
    registry_.ClearFaults();
    registry_.Inject({.body = std::string(kMiB, ' '), .wire = {.endless = true}});
    EXPECT_EQ(ManifestError(name), ErrorCode::kTooLarge);
    EXPECT_THAT(registry_.requests(), SizeIs(1)) << "another look would be no shorter";
  }
  // What the client reads, what it buffers, and what the system holds for it.
  EXPECT_LE(registry_.body_bytes_sent(), 64 * kMiB);
}

TEST_F(AttackProtocolTest, Row02BytesBehindTheEndOfABlobAreNeverHandedOut) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  // The digest is right with the last byte only, which the descriptor does not have.
  store::Descriptor shorter = blob;
  shorter.size = 999;
  for (const Framing framing : {Framing::kContentLength, Framing::kChunked, Framing::kUntilClose}) {
    registry_.ClearFaults();
    registry_.Inject({.wire = {.framing = framing}});
    EXPECT_EQ(Read(shorter).code(), ErrorCode::kCorrupt);
  }
}

TEST_F(AttackProtocolTest, Row02ALateByteBehindTheEndOfABlobIsSeen) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  store::Descriptor shorter = blob;
  shorter.size = 999;
  registry_.Inject({.wire = {.framing = Framing::kChunked, .stall_at = 999}});
  auto stream = source_->OpenBlob(registry_.repository("team/app"), shorter, context_);
  ASSERT_TRUE(stream);
  const auto bytes = (*stream)->Next();
  ASSERT_TRUE(bytes);
  EXPECT_THAT(*bytes, SizeIs(999));
  registry_.WaitForStalled();
  registry_.Release();
  EXPECT_EQ(ReadToEnd(**stream, 0).code(), ErrorCode::kCorrupt);
}

TEST_F(AttackProtocolTest, Row02ARangeThatIsLongerThanItsLabelIsCutOff) {
  const std::string bytes = Bytes(2 * kMiB);
  const auto blob = registry_.AddBlob("team/app", bytes);
  registry_.Inject({.path = "/blobs/", .times = 1, .wire = {.truncate_at = kMiB}});
  registry_.Inject({.path = "/blobs/",
                    .status = 206,
                    .headers = {{"Content-Range", "bytes 1048576-2097151/2097152"}},
                    .body = bytes.substr(kMiB) + "and more",
                    .wire = {.framing = Framing::kChunked}});
  const BlobRead read = Read(blob);
  // Or kRemote, when some of the part was handed out first and the rest of it asked for again.
  EXPECT_THAT(read.code(), ::testing::AnyOf(ErrorCode::kCorrupt, ErrorCode::kRemote));
  EXPECT_EQ(read.bytes, bytes.substr(0, read.bytes.size()));
}

// --- Framing -------------------------------------------------------------------------------------

TEST_F(AttackProtocolTest, Row03AmbiguousHeadsAreRefusedWhateverWasAsked) {
  const std::pair<const char*, std::string> heads[] = {
      {"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk"},
      {"length and chunks",
       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
      {"one bare LF", "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok"},
      {"bare CR", "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 2\r\n\r\nok"},
      {"NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok"s},
      {"a line of 64 KiB",
       "HTTP/1.1 200 OK\r\nX: " + std::string(65'536, 'x') + "\r\nContent-Length: 2\r\n\r\nok"},
      {"a line without end", "HTTP/1.1 200 OK\r\nX: " + std::string(4 * kMiB, 'x')},
      {"no status", "Content-Length: 2\r\n\r\nok"},
  };
  for (const auto& [name, raw] : heads) {
    SCOPED_TRACE(name);
    UseSource(std::nullopt);
    registry_.RequireBearer({});
    ExpectAllFail([&bytes = raw] { return Fault{.wire = {.raw = bytes}}; }, ErrorCode::kRemote);
  }
}

TEST_F(AttackProtocolTest, Row03AConnectionWithAnAmbiguousAnswerIsNotUsedAgain) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  // The server keeps the connection open, with what it takes for the body on it.
  registry_.Inject({.path = "/tags/", .headers = {{"Content-Length", "1"}}});
  EXPECT_EQ(TagsError(), ErrorCode::kRemote);
  const size_t before = registry_.connections_accepted();
  const auto manifest = Manifest("1.0");
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ((*manifest)->bytes, artifact.manifest);
  EXPECT_EQ(registry_.connections_accepted(), before + 1);
}

TEST_F(AttackProtocolTest, Row04APartThatNobodyAskedForIsNoBlob) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  for (const char* const range : {"bytes 0-999/1000", "bytes 0-499/1000", "bytes */1000", "x"}) {
    registry_.ClearFaults();
    registry_.Inject({.path = "/blobs/", .status = 206, .headers = {{"Content-Range", range}}});
    const BlobRead read = Read(blob);
    EXPECT_EQ(read.code(), ErrorCode::kRemote) << range;
    EXPECT_EQ(read.bytes, "") << range;
  }
}

TEST_F(AttackProtocolTest, Row05FloodsOfHeadersAreCutOffWhateverWasAsked) {
  const std::pair<const char*, std::string> floods[] = {
      {"300 kB", "HTTP/1.1 200 OK\r\n" + Repeat("X-Filler: 0123456789012345678901\r\n", 9'000)},
      {"100,000 headers",
       "HTTP/1.1 200 OK\r\n" + Repeat("a: b\r\n", 100'000) + "Content-Length: 0\r\n\r\n"},
      {"interim answers", Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100'000)},
      {"early hints", Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 100'000)},
      {"no head at all", std::string(4 * kMiB, '\n')},
  };
  for (const auto& [name, raw] : floods) {
    SCOPED_TRACE(name);
    UseSource(std::nullopt);
    ExpectAllFail([&bytes = raw] { return Fault{.wire = {.raw = bytes}}; }, ErrorCode::kRemote);
  }
}

TEST_F(AttackProtocolTest, Row05FloodsBehindABodyAreCutOff) {
  const auto blob = registry_.AddBlob("team/app", "0123456789");
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::pair<const char*, std::string> floods[] = {
      {"trailers", chunked + "a\r\n0123456789\r\n0\r\n" + Repeat("a: b\r\n", 100'000)},
      {"an extension of a chunk", chunked + "a\r\n0123456789\r\n0;" + std::string(8 * kMiB, 'x')},
      {"a chunk of 2^64 bytes", chunked + "a\r\n0123456789\r\n10000000000000000\r\nx"},
      {"a chunk of -1 bytes", chunked + "a\r\n0123456789\r\n-1\r\nx"},
  };
  for (const auto& [name, raw] : floods) {
    SCOPED_TRACE(name);
    registry_.ClearFaults();
    registry_.Inject({.path = "/blobs/", .wire = {.raw = raw}});
    const BlobRead read = Read(blob);
    EXPECT_EQ(read.code(), ErrorCode::kInternal) << "all of it is there; its digest decides";
    EXPECT_EQ(read.bytes, "0123456789");
  }
}

TEST_F(AttackProtocolTest, Row06ChainsOfContentEncodingsAreRefusedWhateverWasAsked) {
  for (const std::string& chain :
       {"gzip"s, "deflate, br"s, "GZIP"s, Repeat("gzip, ", 49) + "gzip"}) {
    SCOPED_TRACE(chain.substr(0, 20));
    UseSource(std::nullopt);
    ExpectAllFail([&chain] { return Fault{.headers = {{"Content-Encoding", chain}}}; },
                  ErrorCode::kRemote);
  }
}

// --- Redirects -----------------------------------------------------------------------------------

TEST_F(AttackProtocolTest, Row07RedirectsInACircleEndAfterFiveHops) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  UseSource(TheLogin());
  other_.Inject({.redirect = registry_.url() + "/v2/team/app/blobs/again"});
  registry_.Inject({.redirect = other_.url() + "/again"});
  EXPECT_EQ(Read(blob).code(), ErrorCode::kRemote);
  EXPECT_EQ(ManifestError(), ErrorCode::kRemote);
  EXPECT_EQ(TagsError(), ErrorCode::kRemote);
  const size_t requests = registry_.requests().size() + other_.requests().size();
  EXPECT_LE(requests, size_t{3} * kTransientTries * (1 + kMaxRedirects));
}

TEST_F(AttackProtocolTest, Row08RedirectsOutOfHttpAreRefused) {
  const auto blob = registry_.AddBlob("team/app", Bytes(1000));
  UseSource(TheLogin());
  for (const char* const target :
       {"file:///etc/passwd", "gopher://127.0.0.1/", "dict://127.0.0.1/", "ftp://127.0.0.1/x",
        "unix:/run/docker.sock", "ldap://127.0.0.1/", "data:,x", "//user:password@127.0.0.1/x",
        "http://127.0.0.1:0/", "http://[::1%25lo]/", "http:", ""}) {
    registry_.ClearFaults();
    registry_.Inject({.status = 307, .headers = {{"Location", target}}, .body = ""});
    const BlobRead read = Read(blob);
    EXPECT_EQ(read.code(), ErrorCode::kRemote) << target;
    EXPECT_EQ(read.bytes, "") << target;
    EXPECT_EQ(ManifestError(), ErrorCode::kRemote) << target;
  }
}

TEST_F(AttackProtocolTest, Row08RedirectsFromTlsToPlainHttpAreDenied) {
  FakeRegistry secure(FakeRegistry::Transport::kTls);
  const auto artifact = secure.AddArtifact("team/app", "1.0", {{.bytes = "layer"}});
  secure.RequireBasic(std::string(kUser), std::string(kPassword));
  const testing::TempDir dir;
  UseSource(TheLogin(), {{secure.host(),
                          {.scheme = Scheme::kHttps,
                           .tls = {.ca_files = {dir.Write("ca.pem", secure.authority_pem())}}}}});
  secure.Inject({.redirect = other_.url() + "/x"});
  const auto manifest = source_->FetchManifest(secure.reference("team/app", "1.0"), {}, context_);
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kDenied);
  auto stream = source_->OpenBlob(secure.repository("team/app"), artifact.layers[0], context_);
  ASSERT_TRUE(stream);
  EXPECT_EQ(ReadToEnd(**stream, 5).code(), ErrorCode::kDenied);
  EXPECT_EQ(other_.connections_accepted(), 0U);
}

// --- Lists ---------------------------------------------------------------------------------------

TEST_F(AttackProtocolTest, Row09PagesThatLeadToThemselvesAreRefused) {
  const store::Digest subject = ServeLists();
  registry_.SetPaging({.page_size = 1, .next = Paging::Next::kSame});
  ExpectListsFail(subject, ErrorCode::kRemote);
  EXPECT_LE(registry_.requests().size(), 8U);
}

TEST_F(AttackProtocolTest, Row09PagesWithoutEndAreCutOff) {
  const store::Digest subject = ServeLists();
  registry_.SetPaging({.page_size = 1, .next = Paging::Next::kEndless});
  ExpectListsFail(subject, ErrorCode::kTooLarge);
  EXPECT_LE(registry_.requests().size(), 3 * RegistrySource::kMaxPages + 8);
}

TEST_F(AttackProtocolTest, Row10PagesOnOtherServersAreNeverAskedFor) {
  const store::Digest subject = ServeLists();
  const std::string port = std::to_string(other_.port());
  for (const std::string& url :
       {other_.url(), "https://127.0.0.1:" + port, "//127.0.0.1:" + port, registry_.localhost_url(),
        "http://169.254.169.254"s, "file://"s, "http://user:password@" + registry_.host()}) {
    SCOPED_TRACE(url);
    registry_.SetPaging({.page_size = 1, .next = Paging::Next::kForeign, .foreign_url = url});
    ExpectListsFail(subject, ErrorCode::kRemote);
  }
  EXPECT_EQ(other_.connections_accepted(), 0U);
  for (const auto& sighting : registry_.authorization_sightings()) {
    EXPECT_EQ(sighting.server, registry_.host());
  }
}

TEST_F(AttackProtocolTest, Row11ListsOfAMillionNamesAreTooLarge) {
  const store::Digest subject = ServeLists();
  const std::string names = Repeat("\"abcdef\",", 1'000'000) + "\"z\"]}";
  registry_.Inject({.path = "/tags/", .body = "{\"tags\":[" + names});
  registry_.Inject({.path = "/_catalog", .body = "{\"repositories\":[" + names});
  const std::string entry = R"({"mediaType":"x","size":1,"digest":")" + subject.ToString() + "\"},";
  registry_.Inject({.path = "/referrers/",
                    .body = R"({"schemaVersion":2,"manifests":[)" + Repeat(entry, 30'000) +
                            entry.substr(0, entry.size() - 1) + "]}"});
  ExpectListsFail(subject, ErrorCode::kTooLarge);
}

TEST_F(AttackProtocolTest, Row11ListsWithoutEndAreTooLarge) {
  const store::Digest subject = ServeLists();
  registry_.Inject({.body = std::string(kMiB, ' '), .wire = {.endless = true}});
  ExpectListsFail(subject, ErrorCode::kTooLarge);
}

// --- Words of the server -------------------------------------------------------------------------

TEST_F(AttackProtocolTest, Row12AContentDigestThatFitsTheRequestDoesNotSaveWrongBytes) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  const std::string digest = artifact.digest.ToString();
  registry_.Inject({.headers = {{"Docker-Content-Digest", digest}, {"ETag", "\"" + digest + "\""}},
                    .body = artifact.manifest + " "});
  EXPECT_EQ(ManifestError(digest), ErrorCode::kCorrupt);
}

TEST_F(AttackProtocolTest, Row13WordsOfTheServerAreLoggedWithoutItsControlCharacters) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {});
  // The first is a mirror that fails; its words are logged.
  UseSource(std::nullopt, {{registry_.host(), {.mirrors = {other_.url()}}}});
  const std::string words =
      R"(\u001b]0;owned\u0007\u001b[2J\nerror: log line of somebody else\u202e\u009b31m)";
  other_.Inject({.status = 500,
                 .body = R"({"errors":[{"code":"X\r\nY","message":")" + words +
                         std::string(50'000, 'm') + R"("}]})"});
  ASSERT_TRUE(Manifest("1.0"));
  EXPECT_THAT(log_.text(), HasSubstr("owned"));
  EXPECT_LT(log_.text().size(), 1'500U);
  for (const char* const raw : {"\x1b", "\x07", "\r", "\nerror:", "\xC2\x9B"}) {
    EXPECT_THAT(log_.text(), Not(HasSubstr(raw)));
  }
}

TEST_F(AttackProtocolTest, Row13ErrorBodiesWithoutEndAreReadToTheirLimitOnly) {
  registry_.AddArtifact("team/app", "1.0", {});
  const std::pair<int, ErrorCode> cases[] = {
      {400, ErrorCode::kRemote}, {401, ErrorCode::kUnauthenticated}, {403, ErrorCode::kDenied},
      {404, ErrorCode::kRemote}, {429, ErrorCode::kRateLimited},     {500, ErrorCode::kRemote}};
  for (const auto& [status, code] : cases) {
    UseSource(TheLogin());
    registry_.ClearFaults();
    registry_.Inject({.status = status,
                      .headers = {{"WWW-Authenticate", "Basic realm=\"x\""},
                                  {"Docker-Distribution-Api-Version", ""},
                                  {"Content-Type", "application/json"}},
                      .body = std::string(kMiB, '['),
                      .wire = {.endless = true}});
    const auto manifest = Manifest("1.0");
    ASSERT_FALSE(manifest) << status;
    EXPECT_EQ(manifest.error().code, status == 404 ? ErrorCode::kNotFound : code) << status;
    EXPECT_LT(manifest.error().message.size(), 1'000U);
  }
}

TEST_F(AttackProtocolTest, Row15OnlyBodiesOfGetsAreBelieved) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(3 * kMiB)}});
  // Whatever a HEAD would say, nobody asks.
  registry_.Inject({.method = "HEAD", .status = 404});
  // The tag of an entity that it is not, another one in each answer.
  registry_.Inject({.path = "/blobs/",
                    .times = 1,
                    .headers = {{"ETag", "\"one\""}},
                    .wire = {.truncate_at = kMiB}});
  registry_.Inject({.path = "/blobs/", .headers = {{"ETag", "\"two\""}}});
  registry_.Inject({.path = "/manifests/",
                    .headers = {{"ETag", "\"sha256:" + std::string(64, '0') + "\""},
                                {"Content-Type", "application/octet-stream"}}});
  EXPECT_EQ((*Manifest("1.0"))->bytes, artifact.manifest);
  EXPECT_EQ(Read(artifact.layers[0]).bytes, Bytes(3 * kMiB));
  for (const auto& request : registry_.requests()) EXPECT_EQ(request.method, "GET");
}

TEST_F(AttackProtocolTest, Row15NotModifiedBehindARedirectOrForABlobIsNoAnswer) {
  const auto artifact = registry_.AddArtifact("team/app", "1.0", {{.bytes = Bytes(1000)}});
  registry_.Inject({.status = 304, .body = ""});
  EXPECT_EQ(ManifestError("1.0"), ErrorCode::kRemote);
  EXPECT_EQ(TagsError(), ErrorCode::kRemote);
  const BlobRead read = Read(artifact.layers[0]);
  EXPECT_EQ(read.code(), ErrorCode::kRemote);
  EXPECT_EQ(read.bytes, "");
}

// --- Referrers -----------------------------------------------------------------------------------

TEST_F(AttackProtocolTest, Row53AReferrerOfItselfIsListedAndNotFollowed) {
  const store::Digest subject = ServeLists();
  registry_.Inject(
      {.path = "/referrers/",
       .body = R"({"schemaVersion":2,"manifests":[{"mediaType":"x","size":1,"digest":")" +
               subject.ToString() + "\"}]}"});
  ASSERT_TRUE(Manifest("1.0"));
  registry_.ForgetRequests();
  const auto referrers = Referrers(subject);
  ASSERT_TRUE(referrers) << referrers.error().message;
  ASSERT_THAT(*referrers, SizeIs(1));
  EXPECT_EQ(referrers->front().digest, subject);
  EXPECT_THAT(registry_.requests(), SizeIs(1));
}

TEST_F(AttackProtocolTest, Row53AFallbackTagThatIsNoIndexIsRefused) {
  const store::Digest subject = ServeLists();
  const auto artifact = registry_.AddArtifact("team/app", "2.0", {});
  registry_.SetReferrersApi(testing::ReferrersApi::kOff);
  registry_.Inject({.path = "/manifests/sha256-" + subject.hex(),
                    .status = 200,
                    .headers = {{"Content-Type", std::string(store::media_type::kOciManifest)}},
                    .body = artifact.manifest});
  const auto referrers = Referrers(subject);
  ASSERT_FALSE(referrers);
  EXPECT_EQ(referrers.error().code, ErrorCode::kRemote);
}

TEST_F(AttackProtocolTest, Row53AServerThatFailsHasNotSaidThatThereAreNoReferrers) {
  const store::Digest subject = ServeLists();
  for (const int status : {500, 503, 429}) {
    registry_.ClearFaults();
    registry_.Inject({.path = "/referrers/", .status = status});
    const auto referrers = Referrers(subject);
    ASSERT_FALSE(referrers) << status << ": signatures must not vanish with a server's health";
    EXPECT_EQ(referrers.error().code, status == 429 ? ErrorCode::kRateLimited : ErrorCode::kRemote);
  }
  registry_.ClearFaults();
  registry_.Inject({.path = "/referrers/", .times = 1, .status = 503});
  EXPECT_THAT(*Referrers(subject), SizeIs(1));
}

}  // namespace
}  // namespace ocifs::fetch
