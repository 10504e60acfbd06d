// Small functions on text and bytes that several files need.
#ifndef OCIFS_STORE_TEXT_H_
#define OCIFS_STORE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ocifs::store {

// Bytes that could move a cursor, forge a log line or are not UTF-8 become \xNN; all else is kept.
std::string EscapeForDisplay(std::string_view text);

// Lower-case hexadecimal.
std::string ToHex(std::span<const std::byte> bytes);
// Lower-case digits only; nullopt for anything else or an odd length.
std::optional<std::string> FromHex(std::string_view hex);

// Standard alphabet with padding (RFC 4648 section 4); nullopt for anything else.
std::optional<std::string> FromBase64(std::string_view text);
std::string ToBase64(std::string_view bytes);

// Decimal digits only, no sign, no space, at most `max`.
std::optional<uint64_t> ParseDecimal(std::string_view text, uint64_t max);

bool IsValidUtf8(std::string_view text);

// ASCII alone, whatever the locale: host names, header names and media types know no other letters.
constexpr char AsciiLower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
std::string AsciiLower(std::string_view text);
bool EqualsIgnoringCase(std::string_view a, std::string_view b);

// Without spaces and tabs at its ends (OWS of RFC 9110 section 5.6.3).
std::string_view TrimSpace(std::string_view text);

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace ocifs::store

#endif  // OCIFS_STORE_TEXT_H_
