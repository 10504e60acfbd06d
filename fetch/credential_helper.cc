#include "fetch/credential_helper.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

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
  const std::string user = parsed->FindText("Username");
  std::string secret = parsed->FindText("Secret");
  if (secret.empty()) return std::nullopt;
  if (user.empty()) return Fail(ErrorCode::kRemote, "the answer has no \"Username\"");
  if (user == kIdentityTokenUser) {
    return Credential{.identity_token = std::move(secret)};
  }
  return Credential{.username = user, .password = std::move(secret)};
}

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
  const std::string what = "a login that credential helper '" + helper + "' has to be asked for";
  return flights_.Run(
      key,
      [&]() -> std::optional<Answer> {
        std::optional<Answer> known;
        {
          const MutexLock lock(mutex_);
          known = Recall(key, freshness);
        }
        if (!known && freshness == Freshness::kKnown) known = Fail(ErrorCode::kWouldBlock, what);
        return known;
      },
      [&]() -> Answer {
        Answer answer = Ask(helper, server, stop);
        if (answer || answer.error().code != ErrorCode::kCancelled) {
          const MutexLock lock(mutex_);
          Remember(key, answer);
        }
        return answer;
      },
      what, stop);
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
