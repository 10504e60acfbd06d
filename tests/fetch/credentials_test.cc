#include "fetch/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "store/text.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using ::testing::ElementsAre;

store::Repository Repo(const char* registry, const char* path) {
  return *store::Repository::Parse(*store::Registry::Parse(registry), path);
}

std::string Auth(std::string_view pair) { return R"({"auth":")" + store::ToBase64(pair) + R"("})"; }

// "user:password" of what a file holds, "none", or the error's code.
std::string Found(const std::string& text, const store::Repository& repository) {
  const auto answer = FindInAuthFile(text, repository);
  if (!answer) return std::string(store::ErrorCodeName(answer.error().code));
  if (!answer->credential) return answer->helper.empty() ? "none" : "helper " + answer->helper;
  return answer->credential->username + ":" + answer->credential->password;
}

TEST(CredentialsTest, MostSpecificKeyWins) {
  const std::string file = R"({"auths":{"r.example":)" + Auth("host:1") + R"(,"r.example/team":)" +
                           Auth("team:2") + R"(,"r.example/team/app":)" + Auth("app:3") + "}}";
  EXPECT_EQ(Found(file, Repo("r.example", "team/app")), "app:3");
  EXPECT_EQ(Found(file, Repo("r.example", "team/other")), "team:2");
  EXPECT_EQ(Found(file, Repo("r.example", "team2/app")), "host:1");
  EXPECT_EQ(Found(file, Repo("r.example", "other")), "host:1");
}

TEST(CredentialsTest, OlderKeysMatchTheHostAlone) {
  for (const char* key : {"https://r.example/v1/", "https://r.example", "http://r.example/v2/"}) {
    EXPECT_EQ(Found(R"({"auths":{")" + std::string(key) + R"(":)" + Auth("u:p") + "}}",
                    Repo("r.example", "a")),
              "u:p")
        << key;
  }
}

TEST(CredentialsTest, OtherHostsGetNothing) {
  const std::string file = R"({"auths":{"r.example":)" + Auth("u:p") +
                           R"(,"other.example/team/app":)" + Auth("x:y") + "}}";
  for (const char* host : {"r.example.evil.com", "r.example:5000", "example", "evil-r.example"}) {
    EXPECT_EQ(Found(file, Repo(host, "a")), "none") << host;
  }
  // A key of another repository of the same host.
  EXPECT_EQ(Found(file, Repo("other.example", "b")), "none");
  EXPECT_EQ(Found(R"({"auths":{"user@r.example":)" + Auth("u:p") + R"(,"r.example.":)" +
                      Auth("u:p") + "}}",
                  Repo("r.example", "a")),
            "none");
}

TEST(CredentialsTest, DockerHubGoesByManyNames) {
  for (const char* key : {"https://index.docker.io/v1/", "docker.io", "index.docker.io",
                          "registry-1.docker.io", "https://registry-1.docker.io"}) {
    EXPECT_EQ(Found(R"({"auths":{")" + std::string(key) + R"(":)" + Auth("u:p") + "}}",
                    Repo("docker.io", "alpine")),
              "u:p")
        << key;
  }
  EXPECT_EQ(Found(R"({"auths":{"docker.io/library/alpine":)" + Auth("u:p") + "}}",
                  Repo("docker.io", "alpine")),
            "u:p");
}

TEST(CredentialsTest, PasswordsHoldColonsAndOldClientsPadWithNul) {
  const auto repository = Repo("r.example", "a");
  EXPECT_EQ(Found(R"({"auths":{"r.example":)" + Auth("u:p:q:") + "}}", repository), "u:p:q:");
  EXPECT_EQ(
      Found(R"({"auths":{"r.example":)" + Auth(std::string_view("u:p\0\0", 5)) + "}}", repository),
      "u:p");
  EXPECT_EQ(Found(R"({"auths":{"r.example":{"username":"u","password":"p"}}})", repository), "u:p");
}

TEST(CredentialsTest, TokensAreKept) {
  const auto repository = Repo("r.example", "a");
  auto answer = FindInAuthFile(R"({"auths":{"r.example":{"auth":")" +
                                   store::ToBase64("00000000-0000-0000-0000-000000000000:") +
                                   R"(","identitytoken":"idt"}}})",
                               repository);
  ASSERT_TRUE(answer && answer->credential);
  EXPECT_EQ(answer->credential->identity_token, "idt");
  answer = FindInAuthFile(R"({"auths":{"r.example":{"registrytoken":"rt"}}})", repository);
  ASSERT_TRUE(answer && answer->credential);
  EXPECT_EQ(answer->credential->registry_token, "rt");
}

TEST(CredentialsTest, HelpersAreNamedAndNotRun) {
  const auto repository = Repo("r.example", "a");
  EXPECT_EQ(
      Found(R"({"credHelpers":{"r.example":"secret"},"auths":{"r.example":)" + Auth("u:p") + "}}",
            repository),
      "helper secret");
  EXPECT_EQ(Found(R"({"credHelpers":{"other":"x"},"auths":{"r.example":)" + Auth("u:p") + "}}",
                  repository),
            "u:p");
  EXPECT_EQ(Found(R"({"credsStore":"desktop","auths":{"r.example":{}}})", repository),
            "helper desktop");
  EXPECT_EQ(Found(R"({"credsStore":"desktop"})", repository), "helper desktop");
}

TEST(CredentialsTest, LegacyFileIsTheMapItself) {
  EXPECT_EQ(Found(R"({"https://r.example/v1/":)" + Auth("u:p") + "}", Repo("r.example", "a")),
            "u:p");
}

TEST(CredentialsTest, OddAndMalformedFiles) {
  const auto repository = Repo("r.example", "a");
  EXPECT_EQ(Found("", repository), "none");
  EXPECT_EQ(Found(" \n", repository), "none");
  EXPECT_EQ(Found("{}", repository), "none");
  EXPECT_EQ(Found(R"({"auths":null})", repository), "none");
  EXPECT_EQ(Found(R"({"auths":{"r.example":null}})", repository), "none");
  EXPECT_EQ(Found(R"({"auths":{"r.example":{}}})", repository), "none");
  EXPECT_EQ(Found("{", repository), "invalid");
  EXPECT_EQ(Found("[]", repository), "invalid");
  EXPECT_EQ(Found(R"({"auths":{"r.example":{"auth":"not base64!"}}})", repository), "invalid");
  EXPECT_EQ(Found(R"({"auths":{"r.example":{"auth":"bm9jb2xvbg=="}}})", repository), "invalid");
}

TEST(CredentialsTest, SearchOrder) {
  auto environment = [](const std::map<std::string, std::string>& values) {
    return [values](const std::string& name) -> std::optional<std::string> {
      const auto found = values.find(name);
      if (found == values.end()) return std::nullopt;
      return found->second;
    };
  };
  EXPECT_THAT(AuthFilePaths("/x", environment({{"REGISTRY_AUTH_FILE", "/y"}}), 7),
              ElementsAre("/x"));
  EXPECT_THAT(AuthFilePaths("", environment({{"REGISTRY_AUTH_FILE", "/y"}, {"HOME", "/h"}}), 7),
              ElementsAre("/y"));
  EXPECT_THAT(AuthFilePaths("", environment({{"HOME", "/h"}}), 7),
              ElementsAre("/run/containers/7/auth.json", "/h/.config/containers/auth.json",
                          "/h/.docker/config.json", "/h/.dockercfg"));
  EXPECT_THAT(AuthFilePaths("",
                            environment({{"HOME", "/h"},
                                         {"XDG_RUNTIME_DIR", "/r"},
                                         {"XDG_CONFIG_HOME", "/c"},
                                         {"DOCKER_CONFIG", "/d"}}),
                            7),
              ElementsAre("/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json",
                          "/h/.dockercfg"));
}

TEST(CredentialsTest, FirstFileWithACredentialWinsAndChangesCountAtOnce) {
  const testing::TempDir dir;
  const std::string first = dir / "first.json";
  const std::string second =
      dir.Write("second.json", R"({"auths":{"r.example":)" + Auth("second:2") + "}}");
  AuthFiles files({dir / "absent.json", dir.path(), first, second});
  const auto repository = Repo("r.example", "a");
  auto user = [&] { return (*files.Lookup(repository, Freshness::kFresh, {}))->username; };
  EXPECT_EQ(user(), "second");
  dir.Write("first.json", R"({"auths":{"r.example":)" + Auth("first:1") + "}}");
  EXPECT_EQ(user(), "first");
}

TEST(CredentialsTest, MalformedFileIsNamed) {
  const testing::TempDir dir;
  AuthFiles files({dir.Write("broken.json", "{\"auths\":")});
  const auto found = files.Lookup(Repo("r.example", "a"), Freshness::kFresh, {});
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, store::ErrorCode::kInvalid);
  EXPECT_NE(found.error().message.find(dir / "broken.json"), std::string::npos);
}

TEST(CredentialsTest, FifoInPlaceOfAFileDoesNotHang) {
  const testing::TempDir dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  AuthFiles files({dir / "fifo"});
  const auto found = files.Lookup(Repo("r.example", "a"), Freshness::kFresh, {});
  ASSERT_TRUE(found);
  EXPECT_FALSE(*found);
}

}  // namespace
}  // namespace ocifs::fetch
