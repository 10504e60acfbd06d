#include "fetch/credential_helper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "store/log.h"
#include "tests/fetch/helper_program.h"

namespace ocifs::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using std::chrono::steady_clock;
using store::ErrorCode;

constexpr const char* kAnswers =
    R"(echo '{"ServerURL":"r.example","Username":"user","Secret":"hunter2"}')";

class CredentialHelperTest : public ::testing::Test {
 protected:
  CredentialHelperTest() {
    store::SetLogSink([this](store::LogLevel, std::string_view line) {
      log_ += line;
      log_ += '\n';
    });
  }
  ~CredentialHelperTest() override { store::SetLogSink({}); }

  CredentialHelperOptions Options() {
    return {.timeout = minutes(10), .search_path = dir_.path(), .clock = [this] { return now_; }};
  }
  // "user:password", "token", "none", or the error's code.
  std::string Got(const std::string& helper, Freshness freshness = Freshness::kFresh) {
    const auto answer = helpers_.Get(helper, "r.example", freshness, {});
    if (!answer) {
      error_ = answer.error().message;
      return std::string(store::ErrorCodeName(answer.error().code));
    }
    if (!*answer) return "none";
    if (!(*answer)->identity_token.empty()) return "token " + (*answer)->identity_token;
    return (*answer)->username + ":" + (*answer)->password;
  }
  int TimesAsked(const std::string& name) {
    const std::string asked = dir_.Asked(name);
    return static_cast<int>(std::count(asked.begin(), asked.end(), '\n'));
  }

  const HelperDirectory dir_;
  steady_clock::time_point now_ = steady_clock::now();
  std::string log_;
  std::string error_;
  CredentialHelpers helpers_{Options()};
};

TEST_F(CredentialHelperTest, AsksByTheProtocol) {
  dir_.Helper("keys", kAnswers);
  EXPECT_EQ(Got("keys"), "user:hunter2");
  EXPECT_EQ(dir_.Asked("keys"), "get r.example\n");
}

TEST_F(CredentialHelperTest, NotFoundIsNone) {
  dir_.Helper("keys", "echo 'credentials not found in native keychain'; exit 1");
  EXPECT_EQ(Got("keys"), "none");
}

TEST_F(CredentialHelperTest, AnswersAreRead) {
  const auto token = ParseHelperAnswer(R"({"ServerURL":"x","Username":"<token>","Secret":"idt"})");
  ASSERT_TRUE(token && *token);
  EXPECT_EQ(**token, (Credential{.identity_token = "idt"}));
  const auto empty = ParseHelperAnswer(R"({"Username":"u","Secret":""})");
  ASSERT_TRUE(empty);
  EXPECT_EQ(*empty, std::nullopt);
  for (const char* bad :
       {"", "hunter2", "[]", R"({"Username":"hunter2")", R"({"Username":1,"Secret":"hunter2"})",
        R"({"Username":"","Secret":"hunter2"})", R"({"Secret":"hunter2"})",
        R"({"hunter2":1,"hunter2":2})", R"({"Username":"u","Secret":{}})"}) {
    const auto answer = ParseHelperAnswer(bad);
    ASSERT_FALSE(answer) << bad;
    EXPECT_EQ(answer.error().code, ErrorCode::kRemote) << bad;
    EXPECT_EQ(answer.error().message.find("hunter2"), std::string::npos) << bad;
  }
}

TEST_F(CredentialHelperTest, FailuresNameHelperServerAndRemedyAndNoSecret) {
  dir_.Helper("fails", "echo hunter2; echo hunter2 >&2; exit 1");
  dir_.Helper("dies", "echo hunter2; kill -KILL $$");
  dir_.Helper("babbles", "echo hunter2");
  dir_.Helper("floods", "while :; do echo hunter2 || exit; done");
  dir_.Helper("pretends", "echo 'credentials not found in native keychain'; kill -KILL $$");
  ::testing::internal::CaptureStderr();
  for (const char* name : {"fails", "dies", "babbles", "floods", "pretends"}) {
    EXPECT_EQ(Got(name), "unauthenticated") << name;
    EXPECT_NE(error_.find(name), std::string::npos) << error_;
    EXPECT_NE(error_.find("r.example"), std::string::npos) << error_;
    EXPECT_EQ(error_.find("hunter2"), std::string::npos) << error_;
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(log_.find("hunter2"), std::string::npos) << log_;
  EXPECT_EQ(Got("fails"), "unauthenticated");
  EXPECT_NE(error_.find("run `printf %s r.example | docker-credential-fails get`"),
            std::string::npos)
      << error_;
}

TEST_F(CredentialHelperTest, AbsentProgramIsNamed) {
  EXPECT_EQ(Got("absent"), "unauthenticated");
  EXPECT_NE(error_.find("no program docker-credential-absent in PATH"), std::string::npos);
}

TEST_F(CredentialHelperTest, NamesThatLeadElsewhereAreRefused) {
  dir_.Script("docker-credential-", "touch '" + (dir_ / "ran") + "'");
  for (const char* name : {"", "../evil", "a/b", "a b", "a\nb", "/bin/sh"}) {
    EXPECT_EQ(Got(name), "invalid") << name;
  }
  EXPECT_NE(access((dir_ / "ran").c_str(), F_OK), 0);
}

TEST_F(CredentialHelperTest, HangIsCutShort) {
  const LifeLine life(dir_ / "life");
  dir_.Helper("hangs", "exec 9>'" + (dir_ / "life") + "'\nprintf x >&9\nsleep 1000");
  CredentialHelperOptions options = Options();
  options.timeout = milliseconds(300);
  CredentialHelpers helpers(options);
  const auto answer = helpers.Get("hangs", "r.example", Freshness::kFresh, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kTimedOut);
  EXPECT_NE(answer.error().message.find("'hangs' for r.example"), std::string::npos);
  EXPECT_TRUE(life.Ended());
}

TEST_F(CredentialHelperTest, AnswersAreRememberedUntilSomebodyWantsToKnow) {
  dir_.Helper("keys", kAnswers);
  EXPECT_EQ(Got("keys", Freshness::kKnown), "would-block");
  EXPECT_EQ(TimesAsked("keys"), 0);
  EXPECT_EQ(Got("keys"), "user:hunter2");
  now_ += CredentialHelpers::kRemembered - seconds(1);
  EXPECT_EQ(Got("keys", Freshness::kKnown), "user:hunter2");
  EXPECT_EQ(TimesAsked("keys"), 1);
  dir_.Helper("keys", R"(echo '{"Username":"user","Secret":"new"}')");
  EXPECT_EQ(Got("keys", Freshness::kKnown), "user:hunter2");
  EXPECT_EQ(Got("keys", Freshness::kFresh), "user:new");
  EXPECT_EQ(TimesAsked("keys"), 2);
  // What was asked this second is fresh.
  now_ += CredentialHelpers::kJustAsked - milliseconds(1);
  EXPECT_EQ(Got("keys", Freshness::kFresh), "user:new");
  EXPECT_EQ(TimesAsked("keys"), 2);
  now_ += milliseconds(1);
  EXPECT_EQ(Got("keys", Freshness::kFresh), "user:new");
  EXPECT_EQ(TimesAsked("keys"), 3);
  now_ += CredentialHelpers::kRemembered;
  EXPECT_EQ(Got("keys", Freshness::kKnown), "would-block");
  EXPECT_EQ(TimesAsked("keys"), 3);
}

TEST_F(CredentialHelperTest, NotFoundIsRememberedAndFailuresAreNot) {
  dir_.Helper("none", "echo credentials not found in native keychain; exit 1");
  EXPECT_EQ(Got("none"), "none");
  dir_.Helper("fails", "exit 1");
  EXPECT_EQ(Got("fails"), "unauthenticated");
  EXPECT_EQ(Got("fails"), "unauthenticated");
  EXPECT_EQ(TimesAsked("fails"), 1);  // in the same second
  now_ += CredentialHelpers::kJustAsked;
  EXPECT_EQ(Got("none", Freshness::kKnown), "none");
  EXPECT_EQ(TimesAsked("none"), 1);
  dir_.Helper("fails", kAnswers);
  EXPECT_EQ(Got("fails", Freshness::kKnown), "would-block");
  EXPECT_EQ(Got("fails"), "user:hunter2");
}

TEST_F(CredentialHelperTest, MemoryIsBounded) {
  dir_.Helper("keys", kAnswers);
  const int servers = static_cast<int>(CredentialHelpers::kMaxRemembered) + 1;
  auto server = [](int i) { return "r" + std::to_string(i); };
  for (int i = 0; i < servers; ++i) {
    ASSERT_TRUE(helpers_.Get("keys", server(i), Freshness::kFresh, {}));
  }
  int known = 0;
  for (int i = 0; i < servers; ++i) {
    if (helpers_.Get("keys", server(i), Freshness::kKnown, {})) ++known;
  }
  EXPECT_EQ(known, servers - 1);
}

TEST_F(CredentialHelperTest, OneRunForAllWhoAskAtOnce) {
  // The helper waits for the FIFO's other side, which comes when everybody has asked.
  const std::string gate = dir_ / "gate";
  ASSERT_EQ(mkfifo(gate.c_str(), 0600), 0);
  dir_.Helper("keys", "read -r line <'" + gate + "'\n" + kAnswers);
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;  // counted after the join
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto answer = helpers_.Get("keys", "r.example", Freshness::kFresh, {});
      if (answer && *answer && (*answer)->password == "hunter2") ++right;
    });
  }
  {
    const store::UniqueFd open_gate(open(gate.c_str(), O_WRONLY | O_CLOEXEC));  // waits for it
    ASSERT_EQ(write(open_gate.get(), "\n", 1), 1);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8);
  EXPECT_EQ(TimesAsked("keys"), 1);  // those who came late find an answer of this second
}

TEST_F(CredentialHelperTest, StopEndsTheWaitAndAnotherTakesTheLead) {
  const LifeLine life(dir_ / "life");
  // Hangs the first time, answers the second.
  dir_.Helper("keys", "if [ ! -e '" + (dir_ / "again") + "' ]; then\n: >'" + (dir_ / "again") +
                          "'\nexec 9>'" + (dir_ / "life") + "'\nprintf x >&9\nsleep 1000\nfi\n" +
                          kAnswers);
  std::stop_source stop;
  std::string led;
  std::thread leader([&] {
    const auto answer = helpers_.Get("keys", "r.example", Freshness::kFresh, stop.get_token());
    led = answer ? "answer" : store::ErrorCodeName(answer.error().code);
  });
  ASSERT_TRUE(life.Began());
  std::stop_source impatient;
  impatient.request_stop();
  const auto left = helpers_.Get("keys", "r.example", Freshness::kFresh, impatient.get_token());
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().code, ErrorCode::kCancelled);
  std::string followed;
  std::thread follower([&] { followed = Got("keys"); });
  stop.request_stop();
  leader.join();
  follower.join();
  EXPECT_EQ(led, "cancelled");
  EXPECT_EQ(followed, "user:hunter2");
}

TEST_F(CredentialHelperTest, StoresAndErases) {
  dir_.Helper("keys", kAnswers);
  EXPECT_EQ(Got("keys"), "user:hunter2");
  dir_.Helper("keys", R"(printf '%s' "$input" >')" + (dir_ / "stored") + "'");
  const Credential credential{.username = "u\"1", .password = "p\\:\xC3\xA9"};
  ASSERT_TRUE(helpers_.Store("keys", "r.example", credential, {}));
  EXPECT_EQ(dir_.Read("stored"),
            "{\"ServerURL\":\"r.example\",\"Username\":\"u\\\"1\",\"Secret\":\"p\\\\:\xC3\xA9\"}");
  // What was remembered of it is forgotten.
  dir_.Helper("keys", R"(echo '{"Username":"u","Secret":"new"}')");
  EXPECT_EQ(Got("keys", Freshness::kKnown), "would-block");
  EXPECT_EQ(Got("keys"), "u:new");
  ASSERT_TRUE(helpers_.Erase("keys", "r.example", {}));
  EXPECT_TRUE(dir_.Asked("keys").ends_with("get r.example\nerase r.example\n"));
  dir_.Helper("keys", "echo \"$input\"; echo \"$input\" >&2; exit 1");
  const auto failed = helpers_.Store("keys", "r.example", credential, {});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kUnauthenticated);
  EXPECT_EQ(failed.error().message.find("\xC3\xA9"), std::string::npos);
  const auto latin = helpers_.Store("keys", "r.example", {.username = "u", .password = "\xE9"}, {});
  ASSERT_FALSE(latin);
  EXPECT_EQ(latin.error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace ocifs::fetch
