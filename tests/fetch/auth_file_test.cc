#include "fetch/auth_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "store/json.h"
#include "store/text.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Registry;
using ::testing::ElementsAre;

store::Repository Repo(const char* registry, const char* path) {
  return *store::Repository::Parse(*Registry::Parse(registry), path);
}

Registry Host(const char* name) { return *Registry::Parse(name); }

std::string Auth(std::string_view pair) { return R"({"auth":")" + store::ToBase64(pair) + R"("})"; }

Credential Login(std::string user, std::string password) {
  return {.username = std::move(user), .password = std::move(password)};
}

// "user:password" of what a file holds, "none", or the error's code.
std::string Found(const std::string& text, const store::Repository& repository) {
  const auto answer = FindInAuthFile(text, repository);
  if (!answer) return std::string(store::ErrorCodeName(answer.error().code));
  if (!answer->credential) return answer->helper.empty() ? "none" : "helper " + answer->helper;
  return answer->credential->username + ":" + answer->credential->password;
}

TEST(AuthFileTest, MostSpecificKeyWins) {
  const std::string file = R"({"auths":{"r.example":)" + Auth("host:1") + R"(,"r.example/team":)" +
                           Auth("team:2") + R"(,"r.example/team/app":)" + Auth("app:3") + "}}";
  EXPECT_EQ(Found(file, Repo("r.example", "team/app")), "app:3");
  EXPECT_EQ(Found(file, Repo("r.example", "team/other")), "team:2");
  EXPECT_EQ(Found(file, Repo("r.example", "team2/app")), "host:1");
  EXPECT_EQ(Found(file, Repo("r.example", "other")), "host:1");
}

TEST(AuthFileTest, OlderKeysMatchTheHostAlone) {
  for (const char* key : {"https://r.example/v1/", "https://r.example", "http://r.example/v2/"}) {
    EXPECT_EQ(Found(R"({"auths":{")" + std::string(key) + R"(":)" + Auth("u:p") + "}}",
                    Repo("r.example", "a")),
              "u:p")
        << key;
  }
}

TEST(AuthFileTest, OtherHostsGetNothing) {
  const std::string file = R"({"auths":{"r.example":)" + Auth("u:p") +
                           R"(,"other.example/team/app":)" + Auth("x:y") + "}}";
  for (const char* host : {"r.example.evil.com", "r.example.evil", "r.example:5000",
                           "r.example:443", "example", "evil-r.example", "evil.r.example"}) {
    EXPECT_EQ(Found(file, Repo(host, "a")), "none") << host;
  }
  // A key of another repository of the same host.
  EXPECT_EQ(Found(file, Repo("other.example", "b")), "none");
}

// Keys that resemble a host's name, or that some parser of URLs would read as it.
TEST(AuthFileTest, KeysMeanTheHostThatTheyNameAndNoOther) {
  for (const char* key : {"user@r.example",
                          "https://user@r.example",
                          "https://user:pw@r.example/v1/",
                          "r.example.",
                          "https://r.example./v1/",
                          "R.example",
                          "https://R.EXAMPLE",
                          "r.example:443",
                          "https://r.example:443/v1/",
                          "r.example:",
                          "r.example.evil",
                          "https://r.example.evil/v1/",
                          "https://evil/r.example",
                          "evil/r.example",
                          "https://r.example@evil",
                          "https://r.example#x",
                          "https://r.example?x",
                          "https:r.example",
                          "//r.example",
                          "ftp://r.example",
                          "https://https://r.example",
                          "HTTPS://r.example",
                          " r.example",
                          "r.example ",
                          "r.example\\\\a",
                          "r.example\\u0000",
                          "\\u0433.example",
                          "xn--c1a.example",
                          "*.example",
                          "r.example/",
                          "r.example/team",
                          "docker.io",
                          ""}) {
    EXPECT_EQ(Found(R"({"auths":{")" + std::string(key) + R"(":)" + Auth("u:p") + "}}",
                    Repo("r.example", "a")),
              "none")
        << key;
    EXPECT_EQ(
        Found(R"({"credHelpers":{")" + std::string(key) + R"(":"keys"}})", Repo("r.example", "a")),
        "none")
        << key;
  }
  // A host that is not Docker Hub has one name only, and Docker Hub no others than its own.
  for (const char* key :
       {"hub.docker.com", "docker.io.evil", "registry.docker.io", "auth.docker.io", "docker.io:443",
        "https://index.docker.io:443/v1/", "INDEX.docker.io"}) {
    EXPECT_EQ(Found(R"({"auths":{")" + std::string(key) + R"(":)" + Auth("u:p") + "}}",
                    Repo("docker.io", "alpine")),
              "none")
        << key;
  }
}

TEST(AuthFileTest, DockerHubGoesByManyNames) {
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

TEST(AuthFileTest, PasswordsHoldColonsAndOldClientsPadWithNul) {
  const auto repository = Repo("r.example", "a");
  EXPECT_EQ(Found(R"({"auths":{"r.example":)" + Auth("u:p:q:") + "}}", repository), "u:p:q:");
  EXPECT_EQ(
      Found(R"({"auths":{"r.example":)" + Auth(std::string_view("u:p\0\0", 5)) + "}}", repository),
      "u:p");
  EXPECT_EQ(Found(R"({"auths":{"r.example":{"username":"u","password":"p"}}})", repository), "u:p");
}

TEST(AuthFileTest, TokensAreKept) {
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

TEST(AuthFileTest, HelpersAreNamed) {
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
  // A login in the file is a login; a helper for the host has precedence, and none may be named.
  EXPECT_EQ(
      Found(R"({"credsStore":"desktop","auths":{"r.example":)" + Auth("u:p") + "}}", repository),
      "u:p");
  EXPECT_EQ(Found(R"({"credsStore":"desktop","credHelpers":{"r.example":"one"}})", repository),
            "helper one");
  EXPECT_EQ(Found(R"({"credsStore":"desktop","credHelpers":{"r.example":""}})", repository),
            "none");
}

TEST(AuthFileTest, EmptyEntriesHideNoLogin) {
  EXPECT_EQ(Found(R"({"auths":{"r.example/a":{},"r.example":)" + Auth("u:p") + "}}",
                  Repo("r.example", "a")),
            "u:p");
  EXPECT_EQ(Found(R"({"auths":{"r.example":{},"https://r.example/v1/":)" + Auth("u:p") + "}}",
                  Repo("r.example", "a")),
            "u:p");
}

TEST(AuthFileTest, NamesForHelpers) {
  auto servers = [](const std::string& text, const store::Repository& repository) {
    return FindInAuthFile(text, repository)->servers;
  };
  EXPECT_THAT(servers(R"({"credsStore":"d"})", Repo("r.example:5000", "a")),
              ElementsAre("r.example:5000"));
  EXPECT_THAT(
      servers(R"({"credsStore":"d","auths":{"https://r.example/v2/":{}}})", Repo("r.example", "a")),
      ElementsAre("r.example", "https://r.example/v2/"));
  EXPECT_THAT(servers(R"({"credsStore":"d","auths":{"index.docker.io":{},"docker.io":{}}})",
                      Repo("docker.io", "alpine")),
              ElementsAre("https://index.docker.io/v1/", "docker.io", "index.docker.io"));
}

TEST(AuthFileTest, LegacyFileIsTheMapItself) {
  EXPECT_EQ(Found(R"({"https://r.example/v1/":)" + Auth("u:p") + "}", Repo("r.example", "a")),
            "u:p");
}

TEST(AuthFileTest, OddAndMalformedFiles) {
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

// --- editing -------------------------------------------------------------------------------------

// dTpw is u:p.
TEST(AuthFileTest, LoginGoesIntoANewFile) {
  for (const char* text : {"", " \n", "{}", "{}\n"}) {
    const auto edited = WithLogin(text, Host("r.example:5000"), Login("u", "p"));
    ASSERT_TRUE(edited);
    EXPECT_EQ(edited->substr(0, edited->find_last_of('}') + 1), R"({
	"auths": {
		"r.example:5000": {
			"auth": "dTpw"
		}
	}
})") << text;
  }
}

TEST(AuthFileTest, LoginChangesNothingElse) {
  const std::string text = R"({
  "HttpHeaders" : { "X-Meta":["a",  1.50, 1e3, 12345678901234567890, "\u003c\/" ] },
  "auths": {
    "other.example": {"auth": "dTpw", "email": "x@y"},
    "r.example/team": { "auth":"dTpw" }
  },
  "credHelpers": {"gcr.io": "gcloud"}, "unknown": null
}
)";
  const auto edited = WithLogin(text, Host("r.example"), Login("u", "p"));
  ASSERT_TRUE(edited);
  std::string expected = text;
  const std::string before = R"("r.example/team": { "auth":"dTpw" })";
  expected.insert(expected.find(before) + before.size(), R"(,
    "r.example": {
      "auth": "dTpw"
    })");
  EXPECT_EQ(*edited, expected);
  // Again, with another password: one value changes.
  const auto again = WithLogin(*edited, Host("r.example"), Login("u", "q"));
  ASSERT_TRUE(again);
  expected.replace(expected.rfind("dTpw"), 4, store::ToBase64("u:q"));
  EXPECT_EQ(*again, expected);
  // And out of it again.
  const auto without = WithoutLogin(*again, Host("r.example"));
  ASSERT_TRUE(without && *without);
  EXPECT_EQ(**without, text);
}

TEST(AuthFileTest, LoginKeepsOtherLayouts) {
  EXPECT_EQ(*WithLogin(R"({"a":1})", Host("r.example"), Login("u", "p")),
            R"({"a":1,"auths":{"r.example":{"auth":"dTpw"}}})");
  EXPECT_EQ(*WithLogin(R"({"auths":{}})", Host("r.example"), Login("u", "p")),
            R"({"auths":{"r.example":{"auth":"dTpw"}}})");
  EXPECT_EQ(*WithLogin(R"({"auths":null})", Host("r.example"), Login("u", "p")),
            R"({"auths":{"r.example":{"auth":"dTpw"}}})");
  EXPECT_EQ(*WithLogin("{\r\n  \"auths\": {}\r\n}", Host("r.example"), Login("u", "p")),
            "{\r\n  \"auths\": {\r\n    \"r.example\": {\r\n      \"auth\": \"dTpw\"\r\n    }\r\n"
            "  }\r\n}");
}

TEST(AuthFileTest, OneLoginForARegistry) {
  const std::string text = R"({"auths":{"https://r.example/v1/":)" + Auth("old:1") +
                           R"(,"x.example":)" + Auth("x:1") + R"(,"http://r.example":)" +
                           Auth("older:1") + "}}";
  EXPECT_EQ(*WithLogin(text, Host("r.example"), Login("u", "p")),
            R"({"auths":{"x.example":)" + Auth("x:1") + R"(,"r.example":{"auth":"dTpw"}}})");
  // Docker Hub's is where every tool finds it.
  EXPECT_EQ(*WithLogin(R"({"auths":{"docker.io":)" + Auth("old:1") + R"(,"index.docker.io":{}}})",
                       Host("docker.io"), Login("u", "p")),
            R"({"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}})");
  // Keys may be written with escapes.
  EXPECT_EQ(*WithLogin(R"({"auths":{"https:\/\/r.example\/v1\/":{}}})", Host("r.example"),
                       Login("u", "p")),
            R"({"auths":{"r.example":{"auth":"dTpw"}}})");
  // Where a helper keeps the secret, none stays behind.
  EXPECT_EQ(*WithLogin(R"({"credsStore":"d","auths":{"r.example":)" + Auth("u:p") + "}}",
                       Host("r.example"), std::nullopt),
            R"({"credsStore":"d","auths":{"r.example":{}}})");
}

TEST(AuthFileTest, WhatIsWrittenIsFound) {
  for (const char* host : {"r.example", "r.example:5000", "docker.io", "[::1]:5000"}) {
    for (const char* text : {"", R"({"auths":{"x":{"auth":"dTpw"}},"credsStore":"d"})"}) {
      const auto edited = WithLogin(text, Host(host), Login("u\"1", "p:\\ \xE9"));
      ASSERT_TRUE(edited);
      EXPECT_EQ(Found(*edited, Repo(host, "a/b")), "u\"1:p:\\ \xE9") << host;
    }
  }
}

TEST(AuthFileTest, LoginsThatCannotBeWritten) {
  auto code = [](std::string_view text, const Credential& credential) {
    const auto edited = WithLogin(text, Host("r.example"), credential);
    return edited ? std::string("written") : std::string(ErrorCodeName(edited.error().code));
  };
  EXPECT_EQ(code("", Login("u:x", "p")), "invalid");
  EXPECT_EQ(code("", Login("", "p")), "invalid");
  EXPECT_EQ(code("", Login("u", "")), "invalid");
  for (const char* text : {"{", "[]", "null", "{\"auths\":1}", "{\"auths\":[]}", "{} x",
                           "\xEF\xBB\xBF{}", "{\"auths\":{},\"auths\":{}}"}) {
    EXPECT_EQ(code(text, Login("u", "p")), "invalid") << text;
  }
  EXPECT_EQ(code(R"({"https://x.example/v1/":)" + Auth("u:p") + "}", Login("u", "p")),
            "unsupported");
}

TEST(AuthFileTest, LogoutTakesOutAllNamesOfARegistryAndNoOthers) {
  const auto without = WithoutLogin(
      R"({"auths":{"r.example":)" + Auth("u:p") + R"(,"r.example:5000":{"auth":"dTpw"},)" +
          R"("https://r.example/v2/":{},"r.example/team":{"auth":"dTpw"}}})",
      Host("r.example"));
  ASSERT_TRUE(without && *without);
  EXPECT_EQ(**without,
            R"({"auths":{"r.example:5000":{"auth":"dTpw"},"r.example/team":{"auth":"dTpw"}}})");
  EXPECT_EQ(**WithoutLogin(R"({"auths":{"r.example":{}}})", Host("r.example")), R"({"auths":{}})");
  EXPECT_EQ(**WithoutLogin(R"({"https://r.example/v1/":{"auth":"dTpw"},"x":{"auth":"dTpw"}})",
                           Host("r.example")),
            R"({"x":{"auth":"dTpw"}})");
  for (const char* text : {"", "{}", R"({"auths":{}})", R"({"auths":{"x.example":{}}})",
                           R"({"credHelpers":{"r.example":"d"}})"}) {
    const auto unchanged = WithoutLogin(text, Host("r.example"));
    ASSERT_TRUE(unchanged) << text;
    EXPECT_FALSE(*unchanged) << text;
  }
  EXPECT_FALSE(WithoutLogin("{", Host("r.example")));
}

TEST(AuthFileTest, WhatAFileSaysOfARegistry) {
  auto logins = [](std::string_view text) {
    return *FindRegistryInAuthFile(text, Host("r.example"));
  };
  EXPECT_FALSE(logins("").has_key);
  EXPECT_FALSE(logins(R"({"auths":{"r.example/team":{"auth":"dTpw"}}})").has_key);
  EXPECT_TRUE(logins(R"({"auths":{"r.example":{}}})").has_key);
  EXPECT_FALSE(logins(R"({"auths":{"r.example":{}}})").has_login);
  EXPECT_TRUE(logins(R"({"auths":{"https://r.example":{"auth":"dTpw"}}})").has_login);
  EXPECT_TRUE(logins(R"({"auths":{"r.example":{"auth":"damaged"}}})").has_login);
  EXPECT_EQ(logins(R"({"credHelpers":{"r.example":"one"},"credsStore":"all"})").helper, "one");
  EXPECT_EQ(logins(R"({"credHelpers":{"x.example":"one"},"credsStore":"all"})").helper, "all");
  EXPECT_EQ(logins(R"({"credHelpers":{"r.example":""},"credsStore":"all"})").helper, "");
  EXPECT_TRUE(logins(R"({"x.example":{"auth":"dTpw"}})").legacy);
  EXPECT_FALSE(logins(R"({"HttpHeaders":{"a":"b"}})").legacy);
}

TEST(AuthFileTest, RegistriesOfAFile) {
  std::vector<std::string> names;
  const auto registries = RegistriesInAuthFile(
      R"({"auths":{"r.example":{},"https://r.example/v1/":{},"https://index.docker.io/v1/":{},)"
      R"("quay.io/team":{},"R.UPPER":{},"not a host":{}},"credHelpers":{"gcr.io":"g"}})");
  ASSERT_TRUE(registries);
  for (const Registry& registry : *registries) {
    names.push_back(registry.name());
  }
  EXPECT_THAT(names, ElementsAre("r.example", "docker.io", "gcr.io"));
  EXPECT_TRUE(RegistriesInAuthFile("")->empty());
}

// --- files ---------------------------------------------------------------------------------------

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

mode_t ModeOf(const std::string& path) {
  struct stat status{};
  return stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

AuthFileEdit Put(std::string text) {
  return [text](std::string_view) { return store::Result<std::optional<std::string>>(text); };
}

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(AuthFileTest, EditMakesPrivateFilesAndDirectories) {
  const testing::TempDir dir;
  const mode_t old = umask(0);
  const auto done = EditAuthFile(dir / "a/b/auth.json", Put("new"));
  umask(old);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(*done);
  EXPECT_EQ(Content(dir / "a/b/auth.json"), "new");
  EXPECT_EQ(ModeOf(dir / "a/b/auth.json"), 0600U);
  EXPECT_EQ(ModeOf(dir / "a/b"), 0700U);
  EXPECT_EQ(ModeOf(dir / "a"), 0700U);
  EXPECT_THAT(NamesIn(dir / "a/b"), ElementsAre("auth.json"));
}

TEST(AuthFileTest, EditTightensAModeThatIsTooWide) {
  const testing::TempDir dir;
  const std::string file = dir.Write("auth.json", "old");
  ASSERT_EQ(chmod(file.c_str(), 0644), 0);
  std::string seen;
  ASSERT_TRUE(EditAuthFile(file, [&](std::string_view text) {
    seen = text;
    return store::Result<std::optional<std::string>>("new");
  }));
  EXPECT_EQ(seen, "old");
  EXPECT_EQ(Content(file), "new");
  EXPECT_EQ(ModeOf(file), 0600U);
}

TEST(AuthFileTest, EditThatFailsOrChangesNothingLeavesTheFile) {
  const testing::TempDir dir;
  const std::string file = dir.Write("auth.json", "{broken");
  struct stat before{};
  ASSERT_EQ(stat(file.c_str(), &before), 0);
  const auto failed = EditAuthFile(file, [](std::string_view text) {
    return store::Result<std::optional<std::string>>(
        WithLogin(text, Host("r.example"), Login("u", "p")));
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalid);
  EXPECT_NE(failed.error().message.find(file), std::string::npos);
  const auto same = EditAuthFile(file, [](std::string_view) {
    return store::Result<std::optional<std::string>>(std::nullopt);
  });
  ASSERT_TRUE(same);
  EXPECT_FALSE(*same);
  struct stat after{};
  ASSERT_EQ(stat(file.c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_EQ(Content(file), "{broken");
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("auth.json"));
  // What is no file is none to replace.
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  const auto fifo = EditAuthFile(dir / "fifo", Put("new"));
  ASSERT_FALSE(fifo);
  EXPECT_EQ(fifo.error().code, ErrorCode::kInvalid);
  EXPECT_FALSE(EditAuthFile(dir.path(), Put("new")));
}

TEST(AuthFileTest, EditFollowsSymbolicLinks) {
  const testing::TempDir dir;
  dir.Write("dotfiles/auth.json", "old");
  ASSERT_EQ(symlink("dotfiles/auth.json", (dir / "link").c_str()), 0);
  ASSERT_EQ(symlink((dir / "link").c_str(), (dir / "link2").c_str()), 0);
  ASSERT_TRUE(EditAuthFile(dir / "link2", Put("new")));
  EXPECT_EQ(Content(dir / "dotfiles/auth.json"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link2"));
  ASSERT_EQ(symlink("elsewhere/auth.json", (dir / "dangling").c_str()), 0);
  ASSERT_TRUE(EditAuthFile(dir / "dangling", Put("made")));
  EXPECT_EQ(Content(dir / "elsewhere/auth.json"), "made");
  ASSERT_EQ(symlink("loop", (dir / "loop").c_str()), 0);
  EXPECT_FALSE(EditAuthFile(dir / "loop", Put("new")));
}

TEST(AuthFileTest, EditsAtTheSameTimeLoseNothing) {
  const testing::TempDir dir;
  constexpr int kThreads = 8;
  constexpr int kEach = 10;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < kEach; ++j) {
        const std::string name = "r" + std::to_string(i) + "-" + std::to_string(j) + ".example";
        EXPECT_TRUE(EditAuthFile(dir / "auth.json", [&](std::string_view text) {
          return store::Result<std::optional<std::string>>(
              WithLogin(text, Host(name.c_str()), Login("u", "p")));
        }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto registries = RegistriesInAuthFile(Content(dir / "auth.json"));
  ASSERT_TRUE(registries);
  EXPECT_EQ(registries->size(), size_t{kThreads * kEach});
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("auth.json"));
}

TEST(AuthFileTest, ReadPassesOverWhatIsNoFile) {
  const testing::TempDir dir;
  EXPECT_EQ(ReadAuthFile(dir / "absent"), std::nullopt);
  EXPECT_EQ(ReadAuthFile(dir.path()), std::nullopt);
  EXPECT_EQ(ReadAuthFile(dir.Write("file", "text")), "text");
  // Too long to be one: read far enough to be refused, and no farther.
  const std::string big = dir.Write("big", "{" + std::string(size_t{6} << 20, ' ') + "}");
  EXPECT_LT(ReadAuthFile(big)->size(), size_t{5} << 20);
  EXPECT_FALSE(FindInAuthFile(*ReadAuthFile(big), Repo("r.example", "a")));
}

}  // namespace
}  // namespace ocifs::fetch
