#include "tests/harness/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace ocifs::harness {
namespace {

constexpr size_t kBlock = 512;

void PutText(std::span<char> field, std::string_view text) {
  std::copy_n(text.begin(), std::min(text.size(), field.size()), field.begin());
}

// Octal with a NUL at the end, or base 256 for what does not fit.
void PutNumber(std::span<char> field, int64_t value) {
  const size_t digits = field.size() - 1;
  if (value >= 0 && (digits >= 21 || value >> (3 * digits) == 0)) {
    for (size_t i = digits; i-- > 0; value >>= 3) field[i] = static_cast<char>('0' + (value & 7));
    field[digits] = '\0';
    return;
  }
  const char fill = value < 0 ? '\xFF' : '\0';
  for (size_t i = field.size(); i-- > 0; value >>= 8) {
    field[i] = field.size() - i <= 8 ? static_cast<char>(value & 0xFF) : fill;
  }
  field[0] = fill == '\0' ? '\x80' : '\xFF';
}

void PutChecksum(std::span<char> block) {
  const std::span<char> field = block.subspan(tar_offset::kChecksum, 8);
  std::ranges::fill(field, ' ');
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  PutNumber(field.first(7), sum);
}

}  // namespace

TarWriter& TarWriter::Header(const TarFields& fields, const Patch& patch) {
  std::array<char, kBlock> bytes{};
  const std::span<char> block(bytes);
  PutText(block.subspan(tar_offset::kName, 100), fields.name);
  PutNumber(block.subspan(tar_offset::kMode, 8), fields.mode);
  PutNumber(block.subspan(tar_offset::kUid, 8), static_cast<int64_t>(fields.uid));
  PutNumber(block.subspan(tar_offset::kGid, 8), static_cast<int64_t>(fields.gid));
  PutNumber(block.subspan(tar_offset::kSize, 12), static_cast<int64_t>(fields.size));
  PutNumber(block.subspan(tar_offset::kMtime, 12), fields.mtime);
  block[tar_offset::kType] = fields.type;
  PutText(block.subspan(tar_offset::kLink, 100), fields.link);
  if (fields.magic != TarMagic::kNone) {
    PutText(block.subspan(tar_offset::kMagic, 8), fields.magic == TarMagic::kPosix
                                                      ? std::string_view("ustar\0"
                                                                         "00",
                                                                         8)
                                                      : std::string_view("ustar  \0", 8));
    PutNumber(block.subspan(tar_offset::kDeviceMajor, 8), fields.device_major);
    PutNumber(block.subspan(tar_offset::kDeviceMajor + 8, 8), fields.device_minor);
  }
  PutText(block.subspan(tar_offset::kPrefix, 155), fields.prefix);
  if (patch) patch(block);
  PutChecksum(block);
  return Raw(std::string_view(block.data(), block.size()));
}

TarWriter& TarWriter::Raw(std::string_view bytes) {
  bytes_.append(bytes);
  return *this;
}

TarWriter& TarWriter::Content(std::string_view content) {
  Raw(content);
  bytes_.append((kBlock - content.size() % kBlock) % kBlock, '\0');
  return *this;
}

TarWriter& TarWriter::File(std::string_view name, std::string_view content) {
  return Header({.name = std::string(name), .size = content.size()}).Content(content);
}

TarWriter& TarWriter::Directory(std::string_view name) {
  return Header({.name = std::string(name), .type = '5', .mode = 0755});
}

TarWriter& TarWriter::Symlink(std::string_view name, std::string_view target) {
  return Header(
      {.name = std::string(name), .type = '2', .link = std::string(target), .mode = 0777});
}

TarWriter& TarWriter::HardLink(std::string_view name, std::string_view target) {
  return Header({.name = std::string(name), .type = '1', .link = std::string(target)});
}

TarWriter& TarWriter::Extension(char type, std::string_view body) {
  return Header({.name = "././@Extension", .type = type, .size = body.size()}).Content(body);
}

TarWriter& TarWriter::OldSparse(std::string_view name, const Regions& regions, uint64_t real_size,
                                std::string_view stored) {
  constexpr size_t kInHeader = 4;
  constexpr size_t kInExtension = 21;
  const auto put = [](std::span<char> entry, const std::pair<uint64_t, uint64_t>& region) {
    PutNumber(entry.first(12), static_cast<int64_t>(region.first));
    PutNumber(entry.subspan(12, 12), static_cast<int64_t>(region.second));
  };
  Header({.name = std::string(name), .type = 'S', .size = stored.size(), .magic = TarMagic::kGnu},
         [&](std::span<char> block) {
           for (size_t i = 0; i < std::min(regions.size(), kInHeader); ++i) {
             put(block.subspan(tar_offset::kGnuSparse + 24 * i, 24), regions[i]);
           }
           block[tar_offset::kGnuExtended] = regions.size() > kInHeader ? 1 : 0;
           PutNumber(block.subspan(tar_offset::kGnuRealSize, 12), static_cast<int64_t>(real_size));
         });
  for (size_t done = kInHeader; done < regions.size(); done += kInExtension) {
    std::array<char, kBlock> block{};
    for (size_t i = 0; i < std::min(regions.size() - done, kInExtension); ++i) {
      put(std::span(block).subspan(24 * i, 24), regions[done + i]);
    }
    block[kInExtension * 24] = regions.size() > done + kInExtension ? 1 : 0;
    Raw(std::string_view(block.data(), block.size()));
  }
  return Content(stored);
}

std::string TarWriter::PaxRecord(std::string_view key, std::string_view value) {
  const size_t without_length = key.size() + value.size() + 3;  // ' ', '=', '\n'
  size_t length = without_length;
  while (std::to_string(length).size() + without_length != length) {
    length = std::to_string(length).size() + without_length;
  }
  return std::to_string(length) + ' ' + std::string(key) + '=' + std::string(value) + '\n';
}

std::string TarWriter::PaxBody(const PaxPairs& records) {
  std::string body;
  for (const auto& [key, value] : records) body += PaxRecord(key, value);
  return body;
}

std::string TarWriter::SparseMapBlocks(const Regions& regions) {
  std::string map = std::to_string(regions.size()) + '\n';
  for (const auto& [offset, length] : regions) {
    map += std::to_string(offset) + '\n' + std::to_string(length) + '\n';
  }
  map.append((kBlock - map.size() % kBlock) % kBlock, '\0');
  return map;
}

}  // namespace ocifs::harness
