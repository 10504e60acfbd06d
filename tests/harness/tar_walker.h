// A second, independent reader of tar: it walks a whole archive in memory, block by block.
//
// It shares no code and no library with store/tar_reader.h, and is strict in the way of
// store/tar_header_policy.h, so that where both accept an archive they must have read the same.
#ifndef OCIFS_TESTS_HARNESS_TAR_WALKER_H_
#define OCIFS_TESTS_HARNESS_TAR_WALKER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ocifs::harness {

struct WalkedEntry {
  std::string path;  // normalised as TarEntry::path
  char type = '0';   // '0' regular, '1' hard link, '2' to '6' as in the header
  uint64_t size = 0;
  std::string link;
  std::string content;  // of a regular file, with its holes as zeros

  friend bool operator==(const WalkedEntry&, const WalkedEntry&) = default;
};

// The entries of `archive`; nullopt when it refuses the archive. Sparse files above
// `max_sparse_bytes` are refused, so that a hole cannot ask for memory.
std::optional<std::vector<WalkedEntry>> WalkTar(std::string_view archive,
                                                uint64_t max_sparse_bytes = uint64_t{16} << 20);

}  // namespace ocifs::harness

#endif  // OCIFS_TESTS_HARNESS_TAR_WALKER_H_
