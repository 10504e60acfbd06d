// Credential helpers: programs docker-credential-NAME that keep logins in a keychain or make them
// on demand (the protocol of docker/docker-credential-helpers: one word says what to do, standard
// input and output carry the rest).
#ifndef OCIFS_FETCH_CREDENTIAL_HELPER_H_
#define OCIFS_FETCH_CREDENTIAL_HELPER_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "fetch/child_process.h"
#include "fetch/credential.h"
#include "fetch/single_flight.h"
#include "store/error.h"
#include "store/mutex.h"

namespace ocifs::fetch {

struct CredentialHelperOptions {
  std::chrono::milliseconds timeout{10'000};    // of one run
  std::optional<std::string> search_path = {};  // instead of $PATH
  // A helper's messages may hold what it should not say; only a person who waits for it at a
  // terminal gets to see them.
  ChildStderr standard_error = ChildStderr::kDiscard;
  std::function<std::chrono::steady_clock::time_point()> clock = std::chrono::steady_clock::now;
};

// What a helper that ended well said to `get`; nullopt when the answer holds no secret. The user
// name "<token>" makes the secret an identity token. kRemote, without quoting anything, when it is
// no answer. Pure.
store::Result<std::optional<Credential>> ParseHelperAnswer(std::string_view output);

// Thread-safe. One run is under way per helper and server; others wait for it. No lock is held
// while a helper runs. Each call below may start a process and block until it ends.
//
// Errors name helper and server and say what to do; they quote nothing that a helper printed.
// kUnauthenticated when it is not installed, fails or makes no sense, kTimedOut when it hangs,
// kInvalid when its name is none, kCancelled when stop is requested.
class CredentialHelpers {
 public:
  static constexpr std::chrono::minutes kRemembered{5};
  // Answers, failures too, that a kFresh lookup does not ask for again: a burst of requests that
  // are all refused at once is one question.
  static constexpr std::chrono::seconds kJustAsked{1};
  static constexpr size_t kMaxRemembered = 256;

  explicit CredentialHelpers(CredentialHelperOptions options = {}) : options_(std::move(options)) {}

  // What `helper` keeps for `server`, or nullopt. kKnown touches no process and does not wait.
  store::Result<std::optional<Credential>> Get(const std::string& helper, const std::string& server,
                                               Freshness freshness, const std::stop_token& stop)
      OCIFS_EXCLUDES(mutex_);
  // Puts a user name and password, both UTF-8 (else kInvalid), into the helper's keeping.
  store::Result<void> Store(const std::string& helper, const std::string& server,
                            const Credential& credential, const std::stop_token& stop)
      OCIFS_EXCLUDES(mutex_);
  // Takes them out. What helpers say to a login that they do not have differs; ask with Get.
  store::Result<void> Erase(const std::string& helper, const std::string& server,
                            const std::stop_token& stop) OCIFS_EXCLUDES(mutex_);

 private:
  using Answer = store::Result<std::optional<Credential>>;
  struct Remembered {
    Answer answer;
    std::chrono::steady_clock::time_point at;
  };

  std::optional<Answer> Recall(const std::string& key, Freshness freshness) OCIFS_REQUIRES(mutex_);
  void Remember(const std::string& key, const Answer& answer) OCIFS_REQUIRES(mutex_);
  void Forget(const std::string& key) OCIFS_EXCLUDES(mutex_);
  Answer Ask(const std::string& helper, const std::string& server,
             const std::stop_token& stop) const;
  // `input` to the helper; its output if it ended well or, for "get", says that there is none.
  store::Result<std::optional<std::string>> Run(const std::string& helper, std::string_view verb,
                                                const std::string& server, std::string input,
                                                const std::stop_token& stop) const;

  const CredentialHelperOptions options_;
  store::Mutex mutex_;
  std::map<std::string, Remembered> remembered_ OCIFS_GUARDED_BY(mutex_);
  SingleFlight<std::optional<Credential>> flights_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CREDENTIAL_HELPER_H_
