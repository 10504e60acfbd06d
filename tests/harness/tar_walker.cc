#include "tests/harness/tar_walker.h"

#include <map>
#include <utility>

namespace ocifs::harness {
namespace {

// Thrown inside this file only: the archive is refused.
struct Refused {};

using Map = std::map<std::string, std::string, std::less<>>;
using Region = std::pair<uint64_t, uint64_t>;

constexpr uint64_t kBound = uint64_t{1} << 62;

void Demand(bool condition) {
  if (!condition) throw Refused{};
}

uint64_t Decimal(std::string_view text) {
  Demand(!text.empty() && text.size() <= 19);
  uint64_t value = 0;
  for (const char c : text) {
    Demand(c >= '0' && c <= '9');
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  Demand(value < kBound);
  return value;
}

// A number field that may not be negative.
uint64_t Number(std::string_view field) {
  if (field[0] == '\x80') {
    uint64_t value = 0;
    for (const char c : field.substr(1)) {
      Demand(value < kBound >> 8);
      value = value << 8 | static_cast<unsigned char>(c);
    }
    return value;
  }
  while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
  while (!field.empty() && (field.back() == ' ' || field.back() == '\0')) field.remove_suffix(1);
  uint64_t value = 0;
  for (const char c : field) {
    Demand(c >= '0' && c <= '7');
    value = value << 3 | static_cast<uint64_t>(c - '0');
  }
  return value;
}

std::string_view Text(std::string_view field) { return field.substr(0, field.find('\0')); }

std::string Normal(std::string_view raw) {
  std::string path;
  size_t depth = 0;
  for (size_t at = 0; at <= raw.size();) {
    const size_t slash = std::min(raw.find('/', at), raw.size());
    const std::string_view part = raw.substr(at, slash - at);
    at = slash + 1;
    if (part.empty() || part == ".") continue;
    Demand(part != ".." && part.size() <= 255 && ++depth <= 1024);
    if (!path.empty()) path += '/';
    path += part;
  }
  Demand(path.size() <= 4095);
  return path;
}

class Walker {
 public:
  Walker(std::string_view archive, uint64_t max_sparse_bytes)
      : rest_(archive), max_sparse_bytes_(max_sparse_bytes) {}

  std::vector<WalkedEntry> Walk() {
    while (!rest_.empty()) {
      if (rest_.find_first_not_of('\0') >= std::min<size_t>(rest_.size(), 512)) {
        Demand(rest_.find_first_not_of('\0') == rest_.npos);
        Demand(records_.empty() && !name_ && !link_);
        break;
      }
      Step();
    }
    Demand(records_.empty() && !name_ && !link_);
    return std::move(entries_);
  }

 private:
  std::string_view Take(uint64_t size) {
    Demand(size <= rest_.size());
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  // Content and its padding; only padding may be missing at the end.
  std::string_view TakeContent(uint64_t size) {
    const std::string_view content = Take(size);
    rest_.remove_prefix(std::min<size_t>(rest_.size(), (512 - size % 512) % 512));
    return content;
  }

  static void CheckSum(std::string_view block) {
    Demand(block[148] != '\x80');
    const uint64_t stated = Number(block.substr(148, 8));
    int64_t plain = int64_t{8} * 32;
    int64_t with_sign = plain;
    for (size_t i = 0; i < 512; ++i) {
      if (i >= 148 && i < 156) continue;
      plain += static_cast<unsigned char>(block[i]);
      with_sign += static_cast<signed char>(block[i]);
    }
    Demand(static_cast<int64_t>(stated) == plain || static_cast<int64_t>(stated) == with_sign);
  }

  void Step() {
    const std::string_view block = Take(512);
    CheckSum(block);
    switch (block[156]) {
      case 'g':
        Demand(records_.empty() && !name_ && !link_);
        for (const auto& [key, value] : Records(TakeContent(Number(block.substr(124, 12))))) {
          Demand(key == "comment");
        }
        return;
      case 'x':
        Demand(records_.empty() && !name_ && !link_);
        records_ = Records(TakeContent(Number(block.substr(124, 12))));
        Demand(!records_.empty());
        return;
      case 'L':
      case 'K': {
        std::optional<std::string>& text = block[156] == 'L' ? name_ : link_;
        Demand(records_.empty() && !text);
        const std::string_view body = TakeContent(Number(block.substr(124, 12)));
        text = Text(body);
        Demand(!text->empty() &&
               body.substr(text->size()).find_first_not_of('\0') == std::string_view::npos);
        return;
      }
      default:
        Entry(block);
        records_.clear();
        name_.reset();
        link_.reset();
    }
  }

  // Repeated keys of sparse format 0.0 are joined with commas.
  static Map Records(std::string_view body) {
    Map records;
    while (!body.empty()) {
      const size_t space = body.find(' ');
      Demand(space != body.npos && body[0] != '0');
      const uint64_t length = Decimal(body.substr(0, space));
      Demand(length > space + 2 && length <= body.size() && body[length - 1] == '\n');
      const std::string_view record = body.substr(space + 1, length - space - 2);
      body.remove_prefix(length);
      const size_t equals = record.find('=');
      Demand(equals != record.npos && equals > 0);
      const std::string key(record.substr(0, equals));
      const std::string_view value = record.substr(equals + 1);
      Demand(key.find('\0') == key.npos);
      if (key.starts_with("SCHILY.xattr.")) {
        Demand(!records.contains(key));
      } else {
        Demand(value.find('\0') == value.npos);
      }
      if (key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes") {
        std::string& map = records["GNU.sparse.pairs"];
        Demand((key == "GNU.sparse.offset") == (map.empty() || map.back() == ';'));
        map += std::string(value) + (key == "GNU.sparse.offset" ? "," : ";");
        continue;
      }
      if (key.starts_with("GNU.sparse.")) Demand(!records.contains(key));
      records[key] = value;
    }
    return records;
  }

  std::optional<std::string> Record(std::string_view key) const {
    const auto found = records_.find(key);
    if (found == records_.end()) return std::nullopt;
    Demand(!found->second.empty());
    return found->second;
  }

  void Entry(std::string_view block) {
    const std::string_view magic = block.substr(257, 8);
    const bool gnu = magic == std::string_view("ustar  \0", 8);
    const bool posix = magic.starts_with(std::string_view("ustar\0", 6));
    Demand(gnu || posix || !magic.starts_with("ustar"));
    WalkedEntry entry;
    entry.type = block[156] == '\0' || block[156] == '7' || block[156] == 'S' ? '0' : block[156];
    Demand(entry.type >= '0' && entry.type <= '6');

    std::string name(Text(block.substr(0, 100)));
    if (posix && block[345] != '\0') {
      name = std::string(Text(block.substr(345, 155))) + '/' + name;
    }
    name = name_.value_or(Record("path").value_or(name));
    name = Record("GNU.sparse.name").value_or(name);
    Demand(!name.empty());
    if (entry.type == '0' && name.back() == '/') entry.type = '5';
    entry.path = Normal(name);
    Demand(!entry.path.empty() || entry.type == '5');

    const std::string link =
        link_.value_or(Record("linkpath").value_or(std::string(Text(block.substr(157, 100)))));
    if (entry.type == '1' || entry.type == '2') {
      entry.link = entry.type == '1' ? Normal(link) : link;
      Demand(!entry.link.empty() && entry.link.size() <= 4095);
    } else {
      Demand(!link_ && !Record("linkpath"));
    }

    const uint64_t header_size = Number(block.substr(124, 12));
    const std::optional<std::string> pax_size = Record("size");
    const uint64_t stored = pax_size ? Decimal(*pax_size) : header_size;
    if (entry.type != '0') {
      Demand(stored == 0 && header_size == 0);
      entry.size = entry.type == '2' ? entry.link.size() : 0;
    }
    const bool maps = records_.lower_bound("GNU.sparse.") != records_.lower_bound("GNU.sparse/");
    if (block[156] == 'S') {
      Demand(gnu && records_.empty() && entry.type == '0');
      OldSparse(block, stored, entry);
    } else if (maps) {
      Demand(block[156] == '0' && entry.type == '0');
      PaxSparse(stored, entry);
    } else if (entry.type == '0') {
      entry.content = TakeContent(stored);
      entry.size = stored;
    }
    entries_.push_back(std::move(entry));
  }

  void Fill(const std::vector<Region>& regions, uint64_t size, uint64_t stored,
            WalkedEntry& entry) {
    Demand(regions.size() <= 65'536 && size <= max_sparse_bytes_);
    uint64_t end = 0;
    uint64_t sum = 0;
    for (const auto& [offset, length] : regions) {
      Demand(offset >= end && offset + length <= size);
      end = offset + length;
      sum += length;
    }
    Demand(sum == stored);
    const std::string_view content = TakeContent(stored);
    entry.size = size;
    entry.content.assign(size, '\0');
    uint64_t at = 0;
    for (const auto& [offset, length] : regions) {
      entry.content.replace(offset, length, content.substr(at, length));
      at += length;
    }
  }

  void OldSparse(std::string_view block, uint64_t stored, WalkedEntry& entry) {
    Demand(block[483] != '\0');
    const uint64_t size = Number(block.substr(483, 12));
    std::vector<Region> regions;
    std::string_view map = block.substr(386, 96);
    bool more = block[482] != '\0';
    while (true) {
      while (!map.empty() && map[0] != '\0') {
        regions.emplace_back(Number(map.substr(0, 12)), Number(map.substr(12, 12)));
        map.remove_prefix(24);
      }
      Demand(map.find_first_not_of('\0') == map.npos && (map.empty() || !more));
      if (!more) break;
      const std::string_view extension = Take(512);
      map = extension.substr(0, 504);
      more = extension[504] != '\0';
    }
    Fill(regions, size, stored, entry);
  }

  void PaxSparse(uint64_t stored, WalkedEntry& entry) {
    const auto major = Record("GNU.sparse.major");
    const auto map = Record("GNU.sparse.map");
    const auto pairs = Record("GNU.sparse.pairs");
    const auto count = Record("GNU.sparse.numblocks");
    const auto size = Record(major ? "GNU.sparse.realsize" : "GNU.sparse.size");
    Demand(size.has_value());
    std::vector<Region> regions;
    if (major) {
      Demand(Decimal(*major) == 1 && Decimal(Record("GNU.sparse.minor").value_or("")) == 0);
      Demand(!map && !pairs && !count && !Record("GNU.sparse.size"));
      const std::string_view before = rest_;
      const auto line = [this] {
        const size_t end = rest_.find('\n');
        Demand(end != rest_.npos);
        const uint64_t number = Decimal(rest_.substr(0, end));
        rest_.remove_prefix(end + 1);
        return number;
      };
      for (uint64_t left = line(); left > 0; --left) {
        Demand(regions.size() < 65'536);
        const uint64_t offset = line();
        regions.emplace_back(offset, line());
      }
      uint64_t used = before.size() - rest_.size();
      const uint64_t padding = (512 - used % 512) % 512;
      Take(padding);
      used += padding;
      Demand(used <= stored);
      stored -= used;
    } else {
      Demand(count.has_value() && !Record("GNU.sparse.minor") && !Record("GNU.sparse.realsize"));
      Demand(!map || !pairs);
      std::string_view list = map ? *map : pairs ? *pairs : std::string_view();
      const std::string_view after = map ? "," : ";";
      while (!list.empty()) {
        const size_t comma = list.find(',');
        Demand(comma != list.npos);
        const size_t end = std::min(list.find(after, comma + 1), list.size());
        regions.emplace_back(Decimal(list.substr(0, comma)),
                             Decimal(list.substr(comma + 1, end - comma - 1)));
        Demand(!map || end + 1 != list.size());  // a comma at the end of a map
        list.remove_prefix(std::min(end + 1, list.size()));
      }
      Demand(regions.size() == Decimal(*count));
    }
    for (const auto& [key, value] : records_) {
      if (!key.starts_with("GNU.sparse.")) continue;
      const std::string_view what = std::string_view(key).substr(11);
      Demand(what == "major" || what == "minor" || what == "size" || what == "realsize" ||
             what == "numblocks" || what == "map" || what == "pairs" || what == "name");
    }
    Fill(regions, Decimal(*size), stored, entry);
  }

  std::string_view rest_;
  const uint64_t max_sparse_bytes_;
  std::vector<WalkedEntry> entries_;
  // Extensions of the entry to come.
  Map records_;
  std::optional<std::string> name_;
  std::optional<std::string> link_;
};

}  // namespace

std::optional<std::vector<WalkedEntry>> WalkTar(std::string_view archive,
                                                uint64_t max_sparse_bytes) {
  try {
    return Walker(archive, max_sparse_bytes).Walk();
  } catch (const Refused&) {
    return std::nullopt;
  }
}

}  // namespace ocifs::harness
