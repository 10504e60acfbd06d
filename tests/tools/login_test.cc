#include "tools/login.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fetch/auth_file.h"
#include "store/text.h"
#include "tests/fetch/helper_program.h"
#include "tests/harness/temp_dir.h"
#include "tools/terminal.h"

namespace ocifs::tools {
namespace {

using fetch::AuthPlaces;
using fetch::Credential;
using store::ErrorCode;
using store::Registry;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Auth(std::string_view pair) { return R"({"auth":")" + store::ToBase64(pair) + R"("})"; }

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class LoginTest : public ::testing::Test {
 protected:
  LoginTest() {
    // Keeps one login a server in a file of its name.
    programs_.Helper("keys", "cd '" + programs_.path() + "' || exit\n" + R"sh(
file_of() { printf kept-%s "$1" | tr -c 'a-z0-9.-' _; }
case $verb in
  get) cat "$(file_of "$input")" 2>/dev/null || {
         echo credentials not found in native keychain
         exit 1
       } ;;
  store) server=${input#*:\"}
         printf %s "$input" >"$(file_of "${server%%\"*}")" ;;
  erase) rm "$(file_of "$input")" ;;
esac)sh");
    programs_.Helper("fails", "echo hunter2; exit 1");
  }

  std::string Store(const char* registry = "r.example") {
    const auto lines = StoreLogin(places_, helpers_, *Registry::Parse(registry),
                                  {.username = "u", .password = "p"});
    if (!lines) return lines.error().message;
    std::string text;
    for (const std::string& line : *lines) text += line + "\n";
    return text;
  }
  // "user:password" as a mount would find it, or "none".
  std::string Found(const char* registry = "r.example") {
    fetch::AuthFiles files(places_, {.search_path = programs_.path()});
    const auto found = files.Lookup(*store::Repository::Parse(*Registry::Parse(registry), "a"),
                                    fetch::Freshness::kFresh, {});
    if (!found) return found.error().message;
    return *found ? (*found)->username + ":" + (*found)->password : "none";
  }
  RemovedLogins Remove(const char* registry = "r.example") {
    return RemoveLogin(places_, helpers_, *Registry::Parse(registry));
  }

  const testing::TempDir dir_;
  const fetch::HelperDirectory programs_;
  const std::string runtime_ = dir_ / "run/auth.json";
  const std::string config_ = dir_ / "config/auth.json";
  const std::string docker_ = dir_ / "docker/config.json";
  AuthPlaces places_{
      .files = {runtime_, config_, docker_}, .login_file = config_, .transient_file = runtime_};
  fetch::CredentialHelpers helpers_{{.search_path = programs_.path()}};
};

TEST_F(LoginTest, NewLoginGoesWhereItStays) {
  EXPECT_EQ(Store(), "Stored the login for r.example in " + config_ + "\n");
  EXPECT_EQ(Found(), "u:p");
  EXPECT_FALSE(std::filesystem::exists(runtime_));
  EXPECT_FALSE(std::filesystem::exists(docker_));
}

TEST_F(LoginTest, LoginReplacesTheOneThatIsThere) {
  dir_.Write("docker/config.json", R"({"auths":{"r.example":)" + Auth("old:1") + "}}");
  EXPECT_THAT(Store(), HasSubstr(docker_));
  EXPECT_EQ(Found(), "u:p");
  EXPECT_FALSE(std::filesystem::exists(config_));
  // A login for another registry attracts nothing.
  Store("other.example");
  EXPECT_EQ(Found("other.example"), "u:p");
  EXPECT_TRUE(std::filesystem::exists(config_));
}

TEST_F(LoginTest, LoginOfASessionDoesNotHideTheNewOne) {
  dir_.Write("run/auth.json", R"({"auths":{"r.example":)" + Auth("old:1") + "}}");
  const std::string said = Store();
  EXPECT_THAT(said, HasSubstr(config_));
  EXPECT_THAT(said, HasSubstr(runtime_));
  EXPECT_EQ(Found(), "u:p");
  std::filesystem::remove(runtime_);
  EXPECT_EQ(Found(), "u:p");
}

TEST_F(LoginTest, OnlyPlaceMayBeASessions) {
  places_ = AuthPlaces{.files = {runtime_}, .login_file = runtime_, .transient_file = runtime_};
  EXPECT_THAT(Store(), HasSubstr("gone after the last session"));
  EXPECT_EQ(Found(), "u:p");
}

TEST_F(LoginTest, HelperGetsWhatIsLeftToIt) {
  dir_.Write("docker/config.json",
             R"({"credsStore":"keys","auths":{"r.example":)" + Auth("old:1") + "}}");
  EXPECT_THAT(Store(), HasSubstr("credential helper 'keys'"));
  EXPECT_EQ(Content(docker_), R"({"credsStore":"keys","auths":{"r.example":{}}})");
  EXPECT_EQ(programs_.Read("kept-r.example"),
            R"({"ServerURL":"r.example","Username":"u","Secret":"p"})");
  EXPECT_EQ(Found(), "u:p");
  EXPECT_THAT(Remove().removed, ElementsAre(HasSubstr("credential helper 'keys'")));
  EXPECT_EQ(Content(docker_), R"({"credsStore":"keys","auths":{}})");
  EXPECT_EQ(Found(), "none");
}

TEST_F(LoginTest, DockerHubIsStoredUnderItsOldName) {
  dir_.Write("docker/config.json", R"({"credHelpers":{"docker.io":"keys"}})");
  Store("docker.io");
  EXPECT_THAT(programs_.Asked("keys"), HasSubstr("https://index.docker.io/v1/"));
  EXPECT_THAT(Content(docker_), HasSubstr("\"https://index.docker.io/v1/\":{}"));
  EXPECT_EQ(Found("docker.io"), "u:p");
  EXPECT_FALSE(Remove("docker.io").removed.empty());
  EXPECT_EQ(Found("docker.io"), "none");
}

TEST_F(LoginTest, HelperThatFailsChangesNothing) {
  const std::string before = R"({"credHelpers":{"r.example":"fails"}})";
  dir_.Write("docker/config.json", before);
  const std::string said = Store();
  EXPECT_THAT(said, HasSubstr("'fails' for r.example"));
  EXPECT_EQ(said.find("hunter2"), std::string::npos);
  EXPECT_EQ(Content(docker_), before);
  const RemovedLogins removed = Remove();
  EXPECT_THAT(removed.removed, IsEmpty());
  EXPECT_EQ(removed.failures.size(), 1U);
}

TEST_F(LoginTest, MalformedFileIsNeitherReadOverNorWritten) {
  dir_.Write("config/auth.json", "{broken");
  EXPECT_THAT(Store(), HasSubstr(config_));
  EXPECT_EQ(Content(config_), "{broken");
  EXPECT_FALSE(std::filesystem::exists(docker_));
  // The other places are cleared all the same.
  dir_.Write("docker/config.json", R"({"auths":{"r.example":)" + Auth("old:1") + "}}");
  const RemovedLogins removed = Remove();
  EXPECT_THAT(removed.removed, ElementsAre(HasSubstr(docker_)));
  EXPECT_EQ(removed.failures.size(), 1U);
}

TEST_F(LoginTest, OldestFormIsNoPlaceForALogin) {
  const std::string before = R"({"https://r.example/v1/":)" + Auth("old:1") + "}";
  dir_.Write("docker/config.json", before);
  EXPECT_THAT(Store(), HasSubstr(config_));
  EXPECT_EQ(Found(), "u:p");
  EXPECT_EQ(Content(docker_), before);
  EXPECT_EQ(Remove().removed.size(), 2U);
  EXPECT_EQ(Content(docker_), "{}");
}

TEST_F(LoginTest, EnvironmentIsPointedOut) {
  places_.inline_file = R"({"auths":{"r.example":)" + Auth("env:1") + "}}";
  EXPECT_THAT(Store(), HasSubstr("$DOCKER_AUTH_CONFIG"));
  EXPECT_EQ(Remove().failures.size(), 1U);
  EXPECT_EQ(Store("other.example").find("$DOCKER_AUTH_CONFIG"), std::string::npos);
}

TEST_F(LoginTest, LogoutClearsEveryPlaceOfThisRegistryAlone) {
  for (const char* file : {"run/auth.json", "config/auth.json", "docker/config.json"}) {
    dir_.Write(file, R"({"auths":{"r.example":)" + Auth("u:p") + R"(,"r.example/team":)" +
                         Auth("t:p") + R"(,"r.example:5000":)" + Auth("o:p") + "}}");
  }
  const RemovedLogins removed = Remove();
  EXPECT_EQ(removed.removed.size(), 3U);
  EXPECT_THAT(removed.failures, IsEmpty());
  EXPECT_EQ(Found(), "none");
  EXPECT_EQ(Found("r.example:5000"), "o:p");
  EXPECT_THAT(Content(docker_), HasSubstr("r.example/team"));
  const RemovedLogins again = Remove();
  EXPECT_THAT(again.removed, IsEmpty());
  EXPECT_THAT(again.failures, IsEmpty());
}

TEST_F(LoginTest, LogoutOfAll) {
  dir_.Write("docker/config.json", R"({"credsStore":"keys"})");
  Store("one.example");
  Store("docker.io");
  dir_.Write("config/auth.json", R"({"auths":{"two.example":)" + Auth("u:p") + "},\"x\":1}");
  const RemovedLogins removed = RemoveAllLogins(places_, helpers_);
  EXPECT_EQ(removed.removed.size(), 3U);
  EXPECT_THAT(removed.failures, IsEmpty());
  for (const char* name : {"one.example", "two.example", "docker.io"})
    EXPECT_EQ(Found(name), "none");
  EXPECT_EQ(Content(config_), R"({"auths":{},"x":1})");
}

TEST(LoginNameTest, RegistriesAsPeopleWriteThem) {
  auto name = [](std::string_view text) {
    const auto registry = ParseLoginRegistry(text);
    return registry ? registry->name() : std::string(store::ErrorCodeName(registry.error().code));
  };
  EXPECT_EQ(name("r.example:5000"), "r.example:5000");
  EXPECT_EQ(name("https://r.example/v2/"), "r.example");
  EXPECT_EQ(name("r.example/"), "r.example");
  EXPECT_EQ(name("https://index.docker.io/v1/"), "docker.io");
  for (const char* bad : {"", "r.example/team", "user@r.example", "https://u:p@r.example", "a b"}) {
    EXPECT_EQ(name(bad), "invalid") << bad;
  }
}

// A child whose standard input is a pseudo-terminal asks for a secret, and gives it back.
TEST(TerminalTest, SecretIsNotShownAndTheEchoComesBack) {
  int result[2];
  ASSERT_EQ(pipe(result), 0);
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto secret = AskAtTerminal("Password: ", Echo::kOff);
    termios now{};
    tcgetattr(STDIN_FILENO, &now);
    const std::string answer =
        secret.value_or("none") + ((now.c_lflag & ECHO) != 0 ? " echo" : " silent");
    _exit(write(result[1], answer.data(), answer.size()) < 0 ? 1 : 0);
  }
  close(result[1]);
  std::string shown;
  char buffer[256];
  auto read_until = [&](std::string_view text) {
    while (shown.find(text) == std::string::npos) {
      const ssize_t count = read(terminal, buffer, sizeof(buffer));
      if (count <= 0) return;
      shown.append(buffer, static_cast<size_t>(count));
    }
  };
  // The echo goes before the prompt comes, so what is typed from then on is not shown.
  read_until("Password: ");
  ASSERT_EQ(write(terminal, "hunter2\n", 8), 8);
  const ssize_t count = read(result[0], buffer, sizeof(buffer));
  ASSERT_GT(count, 0);
  EXPECT_EQ(std::string(buffer, static_cast<size_t>(count)), "hunter2 echo");
  read_until("\n");
  EXPECT_EQ(shown.find("hunter2"), std::string::npos) << shown;
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  close(terminal);
  close(result[0]);
}

TEST(TerminalTest, SignalEndsTheQuestion) {
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGINT, SIG_DFL);
    const auto secret = AskAtTerminal("Password: ", Echo::kOff);
    _exit(1);
  }
  std::string shown;
  char buffer[256];
  while (shown.find("Password: ") == std::string::npos) {
    const ssize_t count = read(terminal, buffer, sizeof(buffer));
    ASSERT_GT(count, 0);
    shown.append(buffer, static_cast<size_t>(count));
  }
  ASSERT_EQ(write(terminal, "\x03", 1), 1);  // what the terminal makes SIGINT of
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
  close(terminal);
}

TEST(TerminalTest, NoTerminalNoQuestion) {
  const int old = dup(STDIN_FILENO);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(dup2(null, STDIN_FILENO), STDIN_FILENO);
  const auto answer = AskAtTerminal("?", Echo::kOn);
  dup2(old, STDIN_FILENO);
  close(old);
  close(null);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kUnsupported);
}

TEST(TerminalTest, SecretFromTheInputLosesTheEndOfItsLine) {
  const testing::TempDir dir;
  auto secret_of = [&](std::string_view text) {
    const int old = dup(STDIN_FILENO);
    const int file = open(dir.Write("secret", text).c_str(), O_RDONLY | O_CLOEXEC);
    dup2(file, STDIN_FILENO);
    close(file);
    const auto secret = ReadSecretFromInput();
    dup2(old, STDIN_FILENO);
    close(old);
    return secret.value_or("refused");
  };
  EXPECT_EQ(secret_of("hunter2"), "hunter2");
  EXPECT_EQ(secret_of("hunter2\n"), "hunter2");
  EXPECT_EQ(secret_of("hunter2\r\n"), "hunter2");
  EXPECT_EQ(secret_of("two\nlines\n"), "two\nlines");
  EXPECT_EQ(secret_of(""), "");
  EXPECT_EQ(secret_of(std::string(100'000, 'x')), "refused");
}

}  // namespace
}  // namespace ocifs::tools
