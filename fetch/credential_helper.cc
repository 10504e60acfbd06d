#include "fetch/credential_helper.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "store/catch_exceptions.h"
#include "store/json.h"
#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Json;
using store::MutexLock;
using store::Result;

constexpr size_t kMaxAnswerBytes = size_t{64} << 10;
constexpr std::string_view kIdentityTokenUser = "<token>";
// What docker-credential-helpers prints, on its standard output, with a status other than 0.
constexpr std::string_view kNotFound = "credentials not found in native keychain";

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// The name becomes a part of a file name and stands in messages.
bool IsHelperName(std::string_view name) {
  return !name.empty() && name.size() <= 200 && std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) > ' ' && c != '\x7F' && c != '/';
  });
}

std::string KeyOf(const std::string& helper, const std::string& server) {
  return helper + "\n" + server;
}

std::string SearchPath(const CredentialHelperOptions& options) {
  if (options.search_path) return *options.search_path;
  const char* const path = std::getenv("PATH");
  return path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
}

std::string Text(const Json& object, std::string_view key) {
  const Json* const member = object.Find(key);
  const std::string* const text = member == nullptr ? nullptr : member->string();
  return text == nullptr ? "" : *text;
}

}  // namespace

Result<std::optional<Credential>> ParseHelperAnswer(std::string_view output) {
  // The parser's messages quote keys: none of them is passed on.
  const Result<Json> parsed = Json::Parse(output, {.max_bytes = kMaxAnswerBytes, .max_depth = 8});
  if (!parsed || parsed->object() == nullptr) {
    return Fail(ErrorCode::kRemote, "the answer is not a JSON object");
  }
  for (const char* const key : {"Username", "Secret"}) {
    const Json* const member = parsed->Find(key);
    if (member != nullptr && member->string() == nullptr) {
      return Fail(ErrorCode::kRemote, std::string("the answer's \"") + key + "\" is not a string");
    }
  }
  const std::string user = Text(*parsed, "Username");
  std::string secret = Text(*parsed, "Secret");
  if (secret.empty()) return std::nullopt;
  if (user.empty()) return Fail(ErrorCode::kRemote, "the answer has no \"Username\"");
  if (user == kIdentityTokenUser) {
    return Credential{.identity_token = std::move(secret)};
  }
  return Credential{.username = user, .password = std::move(secret)};
}

struct CredentialHelpers::Flight {
  store::Mutex mutex;
  store::CondVar changed;
  std::optional<Answer> answer OCIFS_GUARDED_BY(mutex);
};

std::optional<CredentialHelpers::Answer> CredentialHelpers::Recall(const std::string& key,
                                                                   Freshness freshness) {
  const auto found = remembered_.find(key);
  if (found == remembered_.end()) return std::nullopt;
  const Remembered& known = found->second;
  const auto age = options_.clock() - known.at;
  if (age < kJustAsked || (freshness == Freshness::kKnown && known.answer && age < kRemembered)) {
    return known.answer;
  }
  return std::nullopt;
}

void CredentialHelpers::Remember(const std::string& key, const Answer& answer) {
  const auto now = options_.clock();
  std::erase_if(remembered_, [&](const auto& item) { return now - item.second.at >= kRemembered; });
  if (remembered_.size() >= kMaxRemembered) remembered_.erase(remembered_.begin());
  remembered_.insert_or_assign(key, Remembered{answer, now});
}

void CredentialHelpers::Forget(const std::string& key) {
  const MutexLock lock(mutex_);
  remembered_.erase(key);
}

Result<std::optional<Credential>> CredentialHelpers::Get(const std::string& helper,
                                                         const std::string& server,
                                                         Freshness freshness,
                                                         const std::stop_token& stop) {
  const std::string key = KeyOf(helper, server);
  while (true) {
    std::shared_ptr<Flight> flight;
    bool leads = false;
    {
      const MutexLock lock(mutex_);
      if (std::optional<Answer> known = Recall(key, freshness)) return *std::move(known);
      if (freshness == Freshness::kKnown) {
        return Fail(ErrorCode::kWouldBlock,
                    "a login that credential helper '" + helper + "' has to be asked for");
      }
      std::shared_ptr<Flight>& slot = flights_[key];
      leads = !slot;
      if (leads) slot = std::make_shared<Flight>();
      flight = slot;
    }
    if (leads) {
      Answer answer = store::CatchExceptions([&] { return Ask(helper, server, stop); });
      {
        const MutexLock lock(mutex_);
        if (answer || answer.error().code != ErrorCode::kCancelled) Remember(key, answer);
        flights_.erase(key);
      }
      {
        const MutexLock lock(flight->mutex);
        flight->answer = answer;
      }
      flight->changed.NotifyAll();
      return answer;
    }
    const std::stop_callback wake(stop, [&flight] {
      // The lock orders this after the waiter's check of the token.
      {
        const MutexLock lock(flight->mutex);
      }
      flight->changed.NotifyAll();
    });
    const MutexLock lock(flight->mutex);
    while (!flight->answer && !stop.stop_requested()) flight->changed.Wait(flight->mutex);
    if (stop.stop_requested()) {
      return Fail(ErrorCode::kCancelled,
                  "waiting for credential helper '" + helper + "': cancelled");
    }
    // A leader that went away says nothing about the helper: take its place.
    if (*flight->answer || flight->answer->error().code != ErrorCode::kCancelled) {
      return *flight->answer;
    }
  }
}

Result<std::optional<std::string>> CredentialHelpers::Run(const std::string& helper,
                                                          std::string_view verb,
                                                          const std::string& server,
                                                          std::string input,
                                                          const std::stop_token& stop) const {
  const std::string what = "credential helper '" + helper + "' for " + server;
  if (!IsHelperName(helper)) {
    return Fail(ErrorCode::kInvalid, what + ": that is not the name of a credential helper");
  }
  const std::string name = "docker-credential-" + helper;
  const std::optional<std::string> file = FindExecutable(name, SearchPath(options_));
  if (!file) {
    return Fail(ErrorCode::kUnauthenticated,
                what + ": there is no program " + name +
                    " in PATH; install it (services have a PATH of their own), or take the helper "
                    "out of the auth file and log in anew");
  }
  Result<ChildEnd> end = RunChild({.file = *file,
                                   .arguments = {name, std::string(verb)},
                                   .input = std::move(input),
                                   .timeout = options_.timeout,
                                   .max_output = kMaxAnswerBytes,
                                   .standard_error = options_.standard_error},
                                  stop);
  const std::string advice = verb != "get"
                                 ? ""
                                 : "; to see what it says, run `printf %s " + server + " | " +
                                       name + " get` as the user that ocifs runs as";
  if (!end) {
    Error error = std::move(end).error().Wrap(what);
    if (error.code == ErrorCode::kCancelled) return Fail(std::move(error));
    if (error.code == ErrorCode::kTooLarge || error.code == ErrorCode::kUnsupported) {
      error.code = ErrorCode::kUnauthenticated;
    }
    error.message += advice;
    return Fail(std::move(error));
  }
  if (end->exit_status == 0) return std::optional(std::move(end->output));
  if (verb == "get" && end->exit_status && Trim(end->output) == kNotFound) return std::nullopt;
  // Its output may be the secret itself, and is not quoted.
  const std::string how = end->exit_status
                              ? "ended with status " + std::to_string(*end->exit_status)
                              : std::string("was ended by a signal");
  return Fail(ErrorCode::kUnauthenticated,
              what + ": " + name + " " + std::string(verb) + " " + how + advice);
}

CredentialHelpers::Answer CredentialHelpers::Ask(const std::string& helper,
                                                 const std::string& server,
                                                 const std::stop_token& stop) const {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> output,
                         Run(helper, "get", server, server, stop));
  if (!output) return std::nullopt;
  Answer answer = ParseHelperAnswer(*output);
  if (!answer) {
    Error error = std::move(answer).error();
    return Fail(ErrorCode::kUnauthenticated,
                "credential helper '" + helper + "' for " + server + ": " + error.message);
  }
  return answer;
}

Result<void> CredentialHelpers::Store(const std::string& helper, const std::string& server,
                                      const Credential& credential, const std::stop_token& stop) {
  if (!store::IsValidUtf8(credential.username) || !store::IsValidUtf8(credential.password)) {
    return Fail(ErrorCode::kInvalid, "credential helper '" + helper + "' for " + server +
                                         ": helpers take user names and passwords in UTF-8 only");
  }
  std::string input = "{\"ServerURL\":" + store::JsonQuote(server) +
                      ",\"Username\":" + store::JsonQuote(credential.username) +
                      ",\"Secret\":" + store::JsonQuote(credential.password) + "}\n";
  const Result<std::optional<std::string>> stored =
      Run(helper, "store", server, std::move(input), stop);
  Forget(KeyOf(helper, server));
  if (!stored) return Fail(stored.error());
  return {};
}

Result<void> CredentialHelpers::Erase(const std::string& helper, const std::string& server,
                                      const std::stop_token& stop) {
  const Result<std::optional<std::string>> erased = Run(helper, "erase", server, server, stop);
  Forget(KeyOf(helper, server));
  if (!erased) return Fail(erased.error());
  return {};
}

}  // namespace ocifs::fetch
