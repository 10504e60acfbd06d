#include "fetch/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <thread>

#include "store/text.h"
#include "tests/fetch/helper_program.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using ::testing::ElementsAre;

store::Repository Repo(const char* registry, const char* path) {
  return *store::Repository::Parse(*store::Registry::Parse(registry), path);
}

std::string Auth(std::string_view pair) { return R"({"auth":")" + store::ToBase64(pair) + R"("})"; }

EnvironmentLookup Environment(const std::map<std::string, std::string>& values) {
  return [values](const std::string& name) -> std::optional<std::string> {
    const auto found = values.find(name);
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
}

TEST(CredentialsTest, SearchOrder) {
  AuthPlaces places = FindAuthPlaces(
      "/x", Environment({{"REGISTRY_AUTH_FILE", "/y"}, {"DOCKER_AUTH_CONFIG", "{}"}}), 7);
  EXPECT_THAT(places.files, ElementsAre("/x"));
  EXPECT_EQ(places.login_file, "/x");
  EXPECT_EQ(places.inline_file, "");
  EXPECT_EQ(places.transient_file, "");
  places = FindAuthPlaces("",
                          Environment({{"REGISTRY_AUTH_FILE", "/y"},
                                       {"HOME", "/h"},
                                       {"DOCKER_CONFIG", "/d"},
                                       {"DOCKER_AUTH_CONFIG", "{}"}}),
                          7);
  EXPECT_THAT(places.files, ElementsAre("/y"));
  EXPECT_EQ(places.login_file, "/y");
  EXPECT_EQ(places.inline_file, "");
  places = FindAuthPlaces("", Environment({{"HOME", "/h"}, {"REGISTRY_AUTH_FILE", ""}}), 7);
  EXPECT_THAT(places.files,
              ElementsAre("/run/containers/7/auth.json", "/h/.config/containers/auth.json",
                          "/h/.docker/config.json", "/h/.dockercfg"));
  // A login outlives the session.
  EXPECT_EQ(places.login_file, "/h/.config/containers/auth.json");
  EXPECT_EQ(places.transient_file, "/run/containers/7/auth.json");
  places = FindAuthPlaces("",
                          Environment({{"HOME", "/h"},
                                       {"XDG_RUNTIME_DIR", "/r"},
                                       {"XDG_CONFIG_HOME", "/c"},
                                       {"DOCKER_AUTH_CONFIG", "{\"auths\":{}}"}}),
                          7);
  EXPECT_THAT(places.files, ElementsAre("/r/containers/auth.json", "/c/containers/auth.json",
                                        "/h/.docker/config.json", "/h/.dockercfg"));
  EXPECT_EQ(places.login_file, "/c/containers/auth.json");
  EXPECT_EQ(places.transient_file, "/r/containers/auth.json");
  EXPECT_EQ(places.inline_file, "{\"auths\":{}}");
}

TEST(CredentialsTest, DockersOwnDirectoryComesFirstWhenItIsNamed) {
  const AuthPlaces places = FindAuthPlaces("",
                                           Environment({{"HOME", "/h"},
                                                        {"XDG_RUNTIME_DIR", "/r"},
                                                        {"XDG_CONFIG_HOME", "/c"},
                                                        {"DOCKER_CONFIG", "/d"}}),
                                           7);
  EXPECT_THAT(places.files, ElementsAre("/d/config.json", "/r/containers/auth.json",
                                        "/c/containers/auth.json", "/h/.dockercfg"));
  EXPECT_EQ(places.login_file, "/d/config.json");
}

TEST(CredentialsTest, WithoutAHome) {
  const AuthPlaces places = FindAuthPlaces("", Environment({}), 0);
  EXPECT_THAT(places.files, ElementsAre("/run/containers/0/auth.json"));
  EXPECT_EQ(places.login_file, "/run/containers/0/auth.json");
  // A service of the system has no HOME; its user does.
  const char* const home = getenv("HOME");
  const std::string old = home == nullptr ? "" : home;
  unsetenv("HOME");
  const std::optional<std::string> found = ProcessEnvironment("HOME");
  EXPECT_TRUE(found && found->starts_with('/'));
  EXPECT_EQ(ProcessEnvironment("OCIFS_TEST_NO_SUCH_VARIABLE"), std::nullopt);
  if (home != nullptr) setenv("HOME", old.c_str(), 1);
}

TEST(CredentialsTest, FirstFileWithACredentialWinsAndChangesCountAtOnce) {
  const testing::TempDir dir;
  const std::string first = dir / "first.json";
  const std::string second =
      dir.Write("second.json", R"({"auths":{"r.example":)" + Auth("second:2") + "}}");
  AuthFiles files(AuthPlaces{.files = {dir / "absent.json", dir.path(), first, second}});
  const auto repository = Repo("r.example", "a");
  auto user = [&] { return (*files.Lookup(repository, Freshness::kFresh, {}))->username; };
  EXPECT_EQ(user(), "second");
  dir.Write("first.json", R"({"auths":{"r.example":)" + Auth("first:1") + "}}");
  EXPECT_EQ(user(), "first");
}

TEST(CredentialsTest, MalformedFileIsNamed) {
  const testing::TempDir dir;
  AuthFiles files(AuthPlaces{.files = {dir.Write("broken.json", "{\"auths\":")}});
  const auto found = files.Lookup(Repo("r.example", "a"), Freshness::kFresh, {});
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, store::ErrorCode::kInvalid);
  EXPECT_NE(found.error().message.find(dir / "broken.json"), std::string::npos);
}

TEST(CredentialsTest, FifoInPlaceOfAFileDoesNotHang) {
  const testing::TempDir dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  AuthFiles files(AuthPlaces{.files = {dir / "fifo"}});
  const auto found = files.Lookup(Repo("r.example", "a"), Freshness::kFresh, {});
  ASSERT_TRUE(found);
  EXPECT_FALSE(*found);
}

class HelperLookupTest : public ::testing::Test {
 protected:
  // "user:password", "none", or the error's code, of the file's answer for r.example/a.
  std::string Found(const std::string& first, const std::string& second = "{}",
                    Freshness freshness = Freshness::kFresh) {
    dir_.Write("first.json", first);
    dir_.Write("second.json", second);
    const auto found = files_.Lookup(Repo("r.example", "a"), freshness, {});
    if (!found) {
      error_ = found.error().message;
      return std::string(store::ErrorCodeName(found.error().code));
    }
    return *found ? (*found)->username + ":" + (*found)->password : "none";
  }
  std::string LoginOf(std::string_view pair) {
    return R"({"auths":{"r.example":)" + Auth(pair) + "}}";
  }

  const testing::TempDir dir_;
  const HelperDirectory programs_;
  std::chrono::steady_clock::time_point now_ = std::chrono::steady_clock::now();
  std::string error_;
  AuthFiles files_{AuthPlaces{.files = {dir_ / "first.json", dir_ / "second.json"}},
                   {.timeout = std::chrono::minutes(10),
                    .search_path = programs_.path(),
                    .clock = [this] { return now_; }}};
};

TEST_F(HelperLookupTest, HelperThatTheFileNamesIsAsked) {
  programs_.Helper("keys", R"(echo '{"Username":"u","Secret":"p"}')");
  EXPECT_EQ(Found(R"({"credHelpers":{"r.example":"keys"}})", LoginOf("second:2")), "u:p");
  EXPECT_EQ(Found(R"({"credsStore":"keys","auths":{"r.example":{}}})", LoginOf("second:2")), "u:p");
  EXPECT_EQ(Found(R"({"credsStore":"keys"})", LoginOf("second:2")), "u:p");
  EXPECT_EQ(programs_.Asked("keys"), "get r.example\n");  // all in one second
}

TEST_F(HelperLookupTest, NotFoundGoesOnAndFailureDoesNot) {
  programs_.Helper("none", "echo credentials not found in native keychain; exit 1");
  programs_.Helper("fails", "echo hunter2; exit 1");
  EXPECT_EQ(Found(R"({"credHelpers":{"r.example":"none"}})", LoginOf("second:2")), "second:2");
  EXPECT_EQ(Found(R"({"credHelpers":{"r.example":"none"}})"), "none");
  EXPECT_EQ(Found(R"({"credHelpers":{"r.example":"fails"}})", LoginOf("second:2")),
            "unauthenticated");
  EXPECT_NE(error_.find("auth file " + (dir_ / "first.json")), std::string::npos) << error_;
  EXPECT_NE(error_.find("'fails' for r.example"), std::string::npos) << error_;
  EXPECT_EQ(error_.find("hunter2"), std::string::npos) << error_;
  // A login before it, or for another registry, has no need of it.
  EXPECT_EQ(Found(LoginOf("first:1"), R"({"credsStore":"fails"})"), "first:1");
  EXPECT_EQ(Found(R"({"credHelpers":{"other.example":"fails"}})", LoginOf("second:2")), "second:2");
}

TEST_F(HelperLookupTest, DockerHubIsAskedForUnderBothNames) {
  programs_.Helper(
      "keys",
      "if [ \"$input\" = docker.io ]; then echo '{\"Username\":\"u\",\"Secret\":\"p\"}'\n"
      "else echo credentials not found in native keychain; exit 1; fi");
  dir_.Write("first.json", R"({"credsStore":"keys"})");
  const auto found = files_.Lookup(Repo("docker.io", "alpine"), Freshness::kFresh, {});
  ASSERT_TRUE(found && *found);
  EXPECT_EQ(programs_.Asked("keys"), "get https://index.docker.io/v1/\nget docker.io\n");
}

TEST_F(HelperLookupTest, FilesThatChangeBetweenLookupsCountAtOnce) {
  programs_.Helper("keys", R"(echo '{"Username":"u","Secret":"p"}')");
  EXPECT_EQ(Found(R"({"credsStore":"keys"})", "{}", Freshness::kFresh), "u:p");
  EXPECT_EQ(Found(LoginOf("rotated:1"), "{}", Freshness::kKnown), "rotated:1");
  EXPECT_EQ(Found("{}", LoginOf("second:2"), Freshness::kKnown), "second:2");
  EXPECT_EQ(Found(R"({"credsStore":"keys"})", "{}", Freshness::kKnown), "u:p");
  EXPECT_EQ(programs_.Asked("keys"), "get r.example\n");
  now_ += CredentialHelpers::kJustAsked;
  EXPECT_EQ(Found(R"({"credsStore":"keys"})", "{}", Freshness::kFresh), "u:p");
  EXPECT_EQ(programs_.Asked("keys"), "get r.example\nget r.example\n");
}

TEST_F(HelperLookupTest, StopIsPassedOn) {
  const LifeLine life(programs_ / "life");
  programs_.Helper("hangs", "exec 9>'" + (programs_ / "life") + "'\nprintf x >&9\nsleep 1000");
  dir_.Write("first.json", R"({"credsStore":"hangs"})");
  std::stop_source stop;
  std::string code;
  std::thread lookup([&] {
    const auto found = files_.Lookup(Repo("r.example", "a"), Freshness::kFresh, stop.get_token());
    code = found ? "found" : store::ErrorCodeName(found.error().code);
  });
  EXPECT_TRUE(life.Began());
  stop.request_stop();
  lookup.join();
  EXPECT_EQ(code, "cancelled");
}

TEST(CredentialsTest, InlineFileComesFirst) {
  const testing::TempDir dir;
  const std::string file =
      dir.Write("auth.json", R"({"auths":{"r.example":)" + Auth("file:1") + R"(,"other.example":)" +
                                 Auth("other:2") + "}}");
  AuthFiles files(AuthPlaces{.inline_file = R"({"auths":{"r.example":)" + Auth("inline:1") + "}}",
                             .files = {file}});
  EXPECT_EQ((*files.Lookup(Repo("r.example", "a"), Freshness::kFresh, {}))->username, "inline");
  EXPECT_EQ((*files.Lookup(Repo("other.example", "a"), Freshness::kFresh, {}))->username, "other");
  AuthFiles broken(AuthPlaces{.inline_file = "{hunter2", .files = {file}});
  const auto found = broken.Lookup(Repo("r.example", "a"), Freshness::kFresh, {});
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().message.find("$DOCKER_AUTH_CONFIG"), std::string::npos);
  EXPECT_EQ(found.error().message.find("hunter2"), std::string::npos);
}

}  // namespace
}  // namespace ocifs::fetch
