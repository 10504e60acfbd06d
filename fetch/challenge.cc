#include "fetch/challenge.h"

#include <algorithm>
#include <optional>

#include "store/text.h"

namespace ocifs::fetch {
namespace {

// Real challenges have four; the bound keeps the search for duplicates linear in the input.
constexpr size_t kMaxParameters = 32;

bool IsAlnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool IsTokenCharacter(char c) {
  return IsAlnum(c) ||
         (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}
bool IsToken68Character(char c) {
  return IsAlnum(c) || (c != '\0' && std::string_view("-._~+/").find(c) != std::string_view::npos);
}

class Parser {
 public:
  Parser(std::string_view text, std::vector<Challenge>& challenges)
      : text_(text), challenges_(challenges) {}

  // The grammar is ambiguous until the character after a token is seen: "=" makes the token a
  // parameter of the challenge before it, anything else the scheme of a new one.
  void Run() {
    while (SkipSeparators(), !text_.empty()) {
      const std::string_view token = TakeWhile(IsTokenCharacter);
      if (token.empty()) return Drop();
      SkipSpace();
      if (text_.starts_with('=')) {
        text_.remove_prefix(1);
        SkipSpace();
        std::optional<std::string> value = TakeValue();
        if (!value || !AtElementEnd()) return Drop();
        AddParameter(store::AsciiLower(token), *std::move(value));
      } else {
        Flush();
        current_ = Challenge{store::AsciiLower(token), {}};
        SkipToken68();
      }
    }
    Flush();
  }

 private:
  void SkipSpace() {
    TakeWhile([](char c) { return c == ' ' || c == '\t'; });
  }
  void SkipSeparators() {
    TakeWhile([](char c) { return c == ' ' || c == '\t' || c == ','; });
  }
  bool AtElementEnd() {
    SkipSpace();
    return text_.empty() || text_.front() == ',';
  }

  template <typename Predicate>
  std::string_view TakeWhile(Predicate predicate) {
    size_t length = 0;
    while (length < text_.size() && predicate(text_[length])) ++length;
    const std::string_view taken = text_.substr(0, length);
    text_.remove_prefix(length);
    return taken;
  }

  std::optional<std::string> TakeValue() {
    if (!text_.starts_with('"')) {
      const std::string_view token = TakeWhile(IsTokenCharacter);
      if (token.empty()) return std::nullopt;
      return std::string(token);
    }
    std::string value;
    for (size_t i = 1; i < text_.size(); ++i) {
      if (text_[i] == '"') {
        text_.remove_prefix(i + 1);
        return value;
      }
      if (text_[i] == '\\') {
        ++i;
        if (i == text_.size()) break;
      }
      value.push_back(text_[i]);
    }
    return std::nullopt;
  }

  // "Negotiate YII==": a credential-like blob instead of parameters; of no use to us.
  void SkipToken68() {
    const std::string_view before = text_;
    const std::string_view blob = TakeWhile(IsToken68Character);
    TakeWhile([](char c) { return c == '='; });
    if (blob.empty() || !AtElementEnd()) text_ = before;
  }

  void AddParameter(std::string name, std::string value) {
    if (!current_) return;
    if (current_->parameters.size() == kMaxParameters || current_->Find(name) != nullptr) {
      ambiguous_ = true;
      return;
    }
    current_->parameters.emplace_back(std::move(name), std::move(value));
  }
  void Flush() {
    if (current_ && !ambiguous_ && challenges_.size() < kMaxChallenges) {
      challenges_.push_back(*std::move(current_));
    }
    Drop();
  }
  void Drop() {
    current_.reset();
    ambiguous_ = false;
  }

  std::string_view text_;
  std::vector<Challenge>& challenges_;
  std::optional<Challenge> current_;
  bool ambiguous_ = false;
};

}  // namespace

const std::string* Challenge::Find(std::string_view name) const {
  for (const auto& [key, value] : parameters) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::vector<Challenge> ParseChallenges(std::span<const std::string> headers) {
  std::vector<Challenge> challenges;
  size_t total = 0;
  for (const std::string& header : headers) {
    total += header.size();
    if (total > kMaxChallengeBytes || challenges.size() >= kMaxChallenges) break;
    Parser(header, challenges).Run();
  }
  return challenges;
}

const Challenge* PreferredChallenge(std::span<const Challenge> challenges) {
  const Challenge* basic = nullptr;
  for (const Challenge& challenge : challenges) {
    if (challenge.scheme == "bearer" && challenge.Find("realm") != nullptr) return &challenge;
    if (challenge.scheme == "basic" && basic == nullptr) basic = &challenge;
  }
  return basic;
}

}  // namespace ocifs::fetch
