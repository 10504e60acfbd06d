#include "fs/mount_table.h"

#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace ocifs::fs {
namespace {

// Space, tab, newline and backslash stand as \ooo in mountinfo.
std::string Unescape(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool octal = text[i] == '\\' && i + 3 < text.size() && text[i + 1] >= '0' &&
                       text[i + 1] <= '3' && text[i + 2] >= '0' && text[i + 2] <= '7' &&
                       text[i + 3] >= '0' && text[i + 3] <= '7';
    if (octal) {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                  (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

std::optional<std::string> FindMountDevice(std::string_view mountinfo,
                                           std::string_view mount_point) {
  std::optional<std::string> device;
  std::istringstream lines{std::string(mountinfo)};
  std::string line;
  while (std::getline(lines, line)) {
    // 36 35 98:0 /root /mount/point options …
    std::istringstream fields(line);
    std::string id;
    std::string parent;
    std::string numbers;
    std::string root;
    std::string place;
    if (!(fields >> id >> parent >> numbers >> root >> place)) continue;
    if (Unescape(place) == mount_point) device = numbers;
  }
  return device;
}

void SetReadahead(const std::string& mount_point, uint32_t bytes) {
  // Links are resolved in the parent alone: resolving the mount point itself would ask the
  // filesystem that is just being mounted.
  std::string path = mount_point;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  const std::string parent =
      slash == std::string::npos ? "." : (slash == 0 ? "/" : path.substr(0, slash));
  char resolved[PATH_MAX];
  if (realpath(parent.c_str(), resolved) == nullptr) return;
  std::string absolute = resolved;
  if (absolute != "/") absolute += '/';
  absolute += slash == std::string::npos ? path : path.substr(slash + 1);

  std::ifstream file("/proc/self/mountinfo");
  std::stringstream text;
  text << file.rdbuf();
  const std::optional<std::string> device = FindMountDevice(text.str(), absolute);
  if (!device) return;
  std::ofstream limit("/sys/class/bdi/" + *device + "/read_ahead_kb");
  limit << bytes / 1024 << std::flush;
}

}  // namespace ocifs::fs
