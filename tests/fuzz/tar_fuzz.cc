// The tar reader: what it promises of every entry, and that it never reads an archive otherwise
// than the independent walker does. The first byte chooses the size of the pieces.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/tar_reader.h"
#include "tests/harness/byte_streams.h"
#include "tests/harness/tar_walker.h"

namespace {

using ocifs::harness::WalkedEntry;
using ocifs::store::Limits;
using ocifs::store::NodeType;
using ocifs::store::TarBlock;
using ocifs::store::TarEntry;
using ocifs::store::TarReader;

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 20;
constexpr size_t kBlockBytes = 512;

void Demand(bool condition) {
  if (!condition) std::abort();
}

void DemandGoodPath(std::string_view path) {
  Demand(path.size() <= ocifs::store::kMaxPathBytes && path.find('\0') == path.npos);
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view component = path.substr(0, end);
    Demand(!component.empty() && component != "." && component != "..");
    Demand(component.size() <= ocifs::store::kMaxNameBytes);
    Demand(end == path.size() || end + 1 < path.size());
    path.remove_prefix(std::min(end + 1, path.size()));
  }
}

WalkedEntry Describe(const TarEntry& entry) {
  constexpr std::string_view kTypes = "?052346";
  DemandGoodPath(entry.path);
  Demand(entry.attributes.mtime_nsec < 1'000'000'000 && (entry.attributes.mode & ~07777U) == 0);
  Demand(entry.attributes.uid != 0xFFFF'FFFF && entry.attributes.gid != 0xFFFF'FFFF);
  Demand(!entry.path.empty() || entry.attributes.type == NodeType::kDirectory);
  WalkedEntry walked;
  walked.path = entry.path;
  walked.type = entry.is_hard_link ? '1' : kTypes[static_cast<size_t>(entry.attributes.type)];
  walked.size = entry.attributes.size;
  walked.link = entry.link_target;
  Demand((walked.type == '1' || walked.type == '2') == !walked.link.empty());
  if (walked.type == '1') DemandGoodPath(walked.link);
  if (walked.type == '2') Demand(walked.link.size() <= ocifs::store::kMaxLinkTargetBytes);
  if (walked.type != '0' && walked.type != '2') Demand(walked.size == 0);
  return walked;
}

// The entries as the reader sees them; nullopt when it refuses the archive.
std::optional<std::vector<WalkedEntry>> Read(const std::string& archive, size_t piece_bytes,
                                             bool with_content) {
  Limits limits;
  limits.max_unpacked_bytes = kMaxFileBytes;
  auto reader = TarReader::Open(ocifs::harness::StreamOf(archive, piece_bytes), limits);
  if (!reader) return std::nullopt;
  std::vector<WalkedEntry> entries;
  while (true) {
    const auto entry = (*reader)->NextEntry();
    if (!entry) return std::nullopt;
    if (*entry == nullptr) return entries;
    entries.push_back(Describe(**entry));
    if (!with_content) continue;
    std::string& content = entries.back().content;
    while (true) {
      const auto block = (*reader)->NextBlock();
      if (!block) return std::nullopt;
      if (block->data.empty()) break;
      Demand(entries.back().type == '0' && block->offset >= content.size());
      Demand(block->offset + block->data.size() <= entries.back().size);
      Demand(block->stream_offset + block->data.size() <= archive.size());
      Demand(std::memcmp(archive.data() + block->stream_offset, block->data.data(),
                         block->data.size()) == 0);
      content.resize(block->offset, '\0');
      content.append(reinterpret_cast<const char*>(block->data.data()), block->data.size());
    }
    if (entries.back().type == '0') content.resize(entries.back().size, '\0');
  }
}

// Mutations would not get past the checksums otherwise.
void RepairChecksums(std::string& archive) {
  for (size_t at = 0; at + kBlockBytes <= archive.size(); at += kBlockBytes) {
    char* const block = archive.data() + at;
    // Only what was a header: the six digits, NUL, space of most writers are left in it.
    if (std::memcmp(block + 257, "ustar", 5) != 0 || block[154] != '\0') continue;
    std::memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < kBlockBytes; ++i) sum += static_cast<unsigned char>(block[i]);
    for (size_t i = 6; i-- > 0; sum >>= 3) block[148 + i] = static_cast<char>('0' + (sum & 7));
    block[154] = '\0';
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  std::string archive(reinterpret_cast<const char*>(data) + 1, size - 1);
  RepairChecksums(archive);
  const auto read = Read(archive, size_t{1} << 20, true);
  Demand(Read(archive, 1 + data[0] * 3, true) == read);
  // Passing over contents must lead to the same verdict.
  Demand(Read(archive, 700, false).has_value() == read.has_value());
  if (!read) return 0;
  const auto walked = ocifs::harness::WalkTar(archive, kMaxFileBytes);
  if (walked) Demand(*walked == *read);
  return 0;
}
