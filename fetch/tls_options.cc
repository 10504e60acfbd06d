#include "fetch/tls_options.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Result;

// Twenty times the bundle that Debian ships.
constexpr size_t kMaxFileBytes = size_t{4} << 20;

// A file in its part: the words for messages.
struct TlsFile {
  std::string_view what;   // "certificate authority file"
  std::string_view entry;  // of hosts.toml
  const std::string& path;

  std::unexpected<store::Error> Refuse(ErrorCode code, std::string_view why) const {
    return Fail(code, "the " + std::string(what) + " '" + path + "' " + std::string(why) +
                          "; correct `" + std::string(entry) + "` of hosts.toml or the file");
  }
};

Result<std::string> ReadFile(const TlsFile& file) {
  if (!file.path.starts_with('/')) {
    return file.Refuse(ErrorCode::kInvalid, "is not named by an absolute path");
  }
  // O_NONBLOCK: a FIFO must not hold the caller.
  const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const int number = errno;
    return file.Refuse(
        number == EACCES || number == EPERM ? ErrorCode::kDenied : ErrorCode::kInvalid,
        std::string("cannot be read: ") + strerror(number));
  }
  struct stat status{};
  std::string text;
  int number = 0;
  bool regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  while (regular && text.size() <= kMaxFileBytes) {
    char buffer[16 << 10];
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) number = errno;
    if (count <= 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  close(fd);
  if (!regular) return file.Refuse(ErrorCode::kInvalid, "is not a regular file");
  if (number != 0) {
    return file.Refuse(ErrorCode::kInvalid, std::string("cannot be read: ") + strerror(number));
  }
  if (text.size() > kMaxFileBytes) return file.Refuse(ErrorCode::kInvalid, "is over 4 MiB long");
  return text;
}

// Whether `der` is one SEQUENCE and nothing else (X.690 section 8.1), as all that is looked for is.
bool IsOneSequence(std::string_view der) {
  if (der.size() < 2 || der[0] != 0x30) return false;
  const auto first = static_cast<unsigned char>(der[1]);
  if (first < 0x80) return der.size() == size_t{2} + first;
  const size_t count = first & 0x7F;
  if (count == 0 || count > 4 || der.size() < 2 + count) return false;
  size_t length = 0;
  for (size_t i = 0; i < count; ++i) length = length << 8 | static_cast<unsigned char>(der[2 + i]);
  return der.size() == 2 + count + length;
}

struct PemContent {
  size_t certificates = 0;
  size_t keys = 0;
  bool locked = false;  // a key is encrypted
};

// nullopt when a block is damaged. Text between blocks is commentary.
std::optional<PemContent> ParsePem(std::string_view text) {
  constexpr std::string_view kBegin = "-----BEGIN ";
  constexpr std::string_view kDashes = "-----";
  PemContent content;
  while (true) {
    const size_t begin = text.find(kBegin);
    if (begin == std::string_view::npos) return content;
    text.remove_prefix(begin + kBegin.size());
    const size_t label_end = text.find(kDashes);
    if (label_end > 64) return std::nullopt;  // or absent: npos is more
    const std::string label(text.substr(0, label_end));
    text.remove_prefix(label_end + kDashes.size());
    const std::string end_line = "-----END " + label + "-----";
    const size_t end = text.find(end_line);
    if (end == std::string_view::npos) return std::nullopt;
    std::string base64(text.substr(0, end));
    text.remove_prefix(end + end_line.size());
    const bool is_key = label.ends_with("PRIVATE KEY");
    if (is_key) ++content.keys;
    if (label == "ENCRYPTED PRIVATE KEY" || base64.find("ENCRYPTED") != std::string::npos) {
      content.locked = true;
      continue;
    }
    std::erase_if(base64, [](char c) { return c == '\n' || c == '\r' || c == ' ' || c == '\t'; });
    const bool is_certificate =
        label == "CERTIFICATE" || label == "X509 CERTIFICATE" || label == "TRUSTED CERTIFICATE";
    const std::optional<std::string> der = store::FromBase64(base64);
    if (!der) return std::nullopt;
    // A TRUSTED CERTIFICATE has OpenSSL's remarks after it, EC PARAMETERS may be a bare name.
    if ((is_key || (is_certificate && label != "TRUSTED CERTIFICATE")) && !IsOneSequence(*der)) {
      return std::nullopt;
    }
    if (is_certificate) ++content.certificates;
  }
}

Result<PemContent> CheckPem(const TlsFile& file, std::string_view text) {
  const std::optional<PemContent> content = ParsePem(text);
  if (!content) return file.Refuse(ErrorCode::kInvalid, "is damaged: a PEM block is not whole");
  if (content->locked) {
    return file.Refuse(
        ErrorCode::kInvalid,
        "holds a key that is protected by a password, which nobody can be asked for");
  }
  return *content;
}

}  // namespace

bool IsHashedDirectory(const std::string& directory) {
  DIR* const stream = opendir(directory.c_str());
  if (stream == nullptr) return false;
  bool found = false;
  // The stream is this function's alone.
  while (const dirent* const entry = found ? nullptr : readdir(stream)) {
    const std::string_view name = entry->d_name;
    found = name.size() == 10 && name.ends_with(".0") &&
            name.find_first_not_of("0123456789abcdef") == 8;
  }
  closedir(stream);
  return found;
}

Result<TlsMaterial> ReadTlsFiles(const TlsOptions& options) {
  TlsMaterial material;
  if (options.verify) {
    for (const std::string& path : options.ca_files) {
      const TlsFile file{"certificate authority file", "ca", path};
      OCIFS_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
      OCIFS_ASSIGN_OR_RETURN(const PemContent content, CheckPem(file, text));
      if (content.certificates == 0) {
        return file.Refuse(ErrorCode::kInvalid, "holds no certificate in PEM");
      }
      material.authorities.append(text).append("\n");
    }
  }
  if (options.certificate_file.empty()) {
    if (options.key_file.empty()) return material;
    return TlsFile{"client key", "client", options.key_file}.Refuse(
        ErrorCode::kInvalid, "is of no use without a client certificate");
  }
  const TlsFile file{"client certificate", "client", options.certificate_file};
  OCIFS_ASSIGN_OR_RETURN(material.certificate, ReadFile(file));
  OCIFS_ASSIGN_OR_RETURN(const PemContent content, CheckPem(file, material.certificate));
  if (content.certificates == 0) {
    return file.Refuse(ErrorCode::kInvalid, "holds no certificate in PEM");
  }
  if (options.key_file.empty()) {
    if (content.keys == 0) {
      return file.Refuse(ErrorCode::kInvalid, "holds no private key, and no other file is named");
    }
    material.key = material.certificate;
    return material;
  }
  const TlsFile key_file{"client key", "client", options.key_file};
  OCIFS_ASSIGN_OR_RETURN(material.key, ReadFile(key_file));
  OCIFS_ASSIGN_OR_RETURN(const PemContent key_content, CheckPem(key_file, material.key));
  if (key_content.keys == 0) {
    return key_file.Refuse(ErrorCode::kInvalid, "holds no private key in PEM");
  }
  return material;
}

}  // namespace ocifs::fetch
