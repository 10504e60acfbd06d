#include "store/tar_fields.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>
#include <system_error>

namespace ocifs::store {
namespace {

constexpr size_t kMaxPaxRecordBytes = 999'999;
constexpr int64_t kMinTime = -62'135'596'800;  // 0001-01-01T00:00:00Z
constexpr int64_t kMaxTime = 253'402'300'799;  // 9999-12-31T23:59:59Z

std::optional<int64_t> ParseBase256(std::string_view field) {
  const bool negative = static_cast<unsigned char>(field.front()) == 0xFF;
  if (!negative && static_cast<unsigned char>(field.front()) != 0x80) return std::nullopt;
  int64_t value = negative ? -1 : 0;
  for (const char c : field.substr(1)) {
    if (value > std::numeric_limits<int64_t>::max() >> 8 ||
        value < std::numeric_limits<int64_t>::min() >> 8) {
      return std::nullopt;
    }
    value = value * 256 + static_cast<unsigned char>(c);
  }
  return value;
}

}  // namespace

std::optional<int64_t> ParseTarNumber(std::string_view field) {
  if ((static_cast<unsigned char>(field.front()) & 0x80) != 0) return ParseBase256(field);
  size_t i = std::min(field.find_first_not_of(' '), field.size());
  int64_t value = 0;  // twelve octal digits are 36 bits
  for (; i < field.size() && field[i] >= '0' && field[i] <= '7'; ++i) {
    value = value * 8 + (field[i] - '0');
  }
  if (field.find_first_not_of(std::string_view(" \0", 2), i) != field.npos) return std::nullopt;
  return value;
}

std::optional<uint64_t> ParseTarUnsigned(std::string_view field, uint64_t max) {
  const std::optional<int64_t> value = ParseTarNumber(field);
  if (!value || *value < 0 || static_cast<uint64_t>(*value) > max) return std::nullopt;
  return static_cast<uint64_t>(*value);
}

bool TarChecksumIsRight(std::span<const std::byte> block) {
  const std::string_view text(reinterpret_cast<const char*>(block.data()), block.size());
  const std::string_view field = tar::kChecksum.Of(text);
  if ((static_cast<unsigned char>(field.front()) & 0x80) != 0) return false;
  const std::optional<int64_t> stated = ParseTarNumber(field);
  if (!stated) return false;
  // The sum counts its own field as spaces.
  int64_t as_unsigned = int64_t{' '} * static_cast<int64_t>(tar::kChecksum.size);
  int64_t as_signed = as_unsigned;
  const auto add = [&](std::string_view part) {
    for (const char c : part) {
      as_unsigned += static_cast<unsigned char>(c);
      as_signed += static_cast<signed char>(c);
    }
  };
  add(text.substr(0, tar::kChecksum.offset));
  add(text.substr(tar::kChecksum.offset + tar::kChecksum.size,
                  kTarBlockBytes - tar::kChecksum.offset - tar::kChecksum.size));
  return *stated == as_unsigned || *stated == as_signed;
}

TarTime ClampTarTime(TarTime time) {
  if (time.sec < kMinTime) return {kMinTime, 0};
  if (time.sec > kMaxTime) return {kMaxTime, 0};
  return time;
}

std::optional<TarTime> ParsePaxTime(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const size_t dot = std::min(text.find('.'), text.size());
  const std::string_view whole = text.substr(0, dot);
  if (whole.empty() || whole.find_first_not_of("0123456789") != whole.npos) return std::nullopt;
  int64_t seconds = 0;
  for (const char digit : whole) {
    // Far beyond kMaxTime the value no longer matters, and cannot overflow.
    seconds = std::min<int64_t>(seconds * 10 + (digit - '0'), kMaxTime * 2);
  }
  uint32_t nanoseconds = 0;
  if (dot < text.size()) {
    const std::string_view fraction = text.substr(dot + 1);
    if (fraction.find_first_not_of("0123456789") != fraction.npos) return std::nullopt;
    for (size_t i = 0; i < 9; ++i) {
      nanoseconds = nanoseconds * 10;
      if (i < fraction.size()) nanoseconds += static_cast<uint32_t>(fraction[i] - '0');
    }
  }
  if (!negative) return ClampTarTime({seconds, nanoseconds});
  if (nanoseconds == 0) return ClampTarTime({-seconds, 0});
  return ClampTarTime({-seconds - 1, 1'000'000'000 - nanoseconds});
}

Result<std::optional<PaxRecord>> PaxRecords::Next() {
  if (rest_.empty()) return std::nullopt;
  size_t length = 0;
  const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), length);
  const auto digits = static_cast<size_t>(end - rest_.data());
  const auto malformed = Fail(ErrorCode::kCorrupt, "malformed pax record");
  if (error != std::errc() || rest_.front() == '0' || digits == rest_.size() || *end != ' ') {
    return malformed;
  }
  if (length > kMaxPaxRecordBytes) {
    return Fail(ErrorCode::kTooLarge, "a pax record of more than 999,999 bytes");
  }
  if (length > rest_.size() || length < digits + 2 || rest_[length - 1] != '\n') return malformed;
  const std::string_view text = rest_.substr(digits + 1, length - digits - 2);
  const size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) return malformed;
  const PaxRecord record{text.substr(0, equals), text.substr(equals + 1)};
  if (record.key.find('\0') != record.key.npos) return malformed;
  rest_.remove_prefix(length);
  return record;
}

bool AllZero(std::span<const std::byte> bytes) {
  // Every byte equals the one before it, and the first is zero.
  return bytes.empty() || (bytes.front() == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace ocifs::store
