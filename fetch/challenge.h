// WWW-Authenticate: what a server wants to see before it answers (RFC 9110 section 11.6.1).
#ifndef OCIFS_FETCH_CHALLENGE_H_
#define OCIFS_FETCH_CHALLENGE_H_

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ocifs::fetch {

struct Challenge {
  std::string scheme;                                           // lower case
  std::vector<std::pair<std::string, std::string>> parameters;  // names in lower case

  // The value, or null.
  const std::string* Find(std::string_view name) const;
};

inline constexpr size_t kMaxChallenges = 64;
inline constexpr size_t kMaxChallengeBytes = size_t{16} << 10;

// The challenges of all WWW-Authenticate headers of one answer, in their order. Never fails: what
// is malformed or ambiguous (an unterminated quote, a parameter given twice) is left out, what
// comes after it in the same header too if its start cannot be told; headers beyond
// kMaxChallengeBytes in sum and challenges beyond kMaxChallenges are ignored. Linear in the input.
std::vector<Challenge> ParseChallenges(std::span<const std::string> headers);

// The one to answer: the first Bearer with a realm, else the first Basic; null when there is
// neither.
const Challenge* PreferredChallenge(std::span<const Challenge> challenges);

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_CHALLENGE_H_
