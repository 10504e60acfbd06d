#include "store/layout_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "store/file.h"
#include "store/json.h"
#include "store/limits.h"
#include "store/tar_fields.h"
#include "store/tar_reader.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr std::string_view kMarker = "oci-layout";
constexpr std::string_view kIndex = "index.json";
constexpr std::string_view kBlobs = "blobs";
// What `docker save` has always written; alone, it is the format of before Docker 25.
constexpr std::string_view kDockerManifest = "manifest.json";
constexpr size_t kMaxMarkerBytes = 4096;
constexpr size_t kReadBytes = size_t{1} << 20;

std::string Named(const std::string& path) { return "layout " + path; }

Error NotALayout(const std::string& path, bool has_docker_manifest) {
  return Error{ErrorCode::kUnsupported,
               Named(path) + (has_docker_manifest
                                  ? ": an archive of docker save before Docker 25, which is no OCI "
                                    "image layout; save it again with a current Docker, or convert "
                                    "it: skopeo copy docker-archive:FILE oci-archive:OUT"
                                  : ": no OCI image layout: it has no file oci-layout")};
}

Result<void> CheckMarker(const std::string& path, std::string_view text) {
  const Result<Json> marker = Json::Parse(text);
  if (marker && marker->FindText("imageLayoutVersion").starts_with("1.")) return {};
  return Fail(ErrorCode::kUnsupported,
              Named(path) + ": no OCI image layout of version 1, by its file oci-layout");
}

Result<ImageIndex> ParseIndexFile(const std::string& path, std::string_view text) {
  Result<std::variant<Manifest, ImageIndex>> parsed = ParseManifest(text, "");
  if (!parsed) return Fail(std::move(parsed).error().Wrap(Named(path) + ": index.json"));
  if (ImageIndex* const index = std::get_if<ImageIndex>(&*parsed)) return std::move(*index);
  return Fail(ErrorCode::kCorrupt, Named(path) + ": index.json is a manifest, not an index");
}

// Bytes [offset, offset + size) of a file that others may write to: their digest will tell.
class RangeStream final : public ByteStream {
 public:
  // Owns `own` if that is one; reads `fd`.
  RangeStream(UniqueFd own, int fd, uint64_t offset, uint64_t size, std::string what)
      : own_(std::move(own)), fd_(fd), offset_(offset), left_(size), what_(std::move(what)) {}

  Result<std::span<const std::byte>> Next() override {
    buffer_.resize(kReadBytes);
    const auto piece =
        std::span(buffer_).first(static_cast<size_t>(std::min<uint64_t>(left_, kReadBytes)));
    OCIFS_RETURN_IF_ERROR(ReadExactly(fd_, offset_, piece, what_));
    offset_ += piece.size();
    left_ -= piece.size();
    return piece;
  }

 private:
  const UniqueFd own_;
  const int fd_;
  uint64_t offset_;
  uint64_t left_;
  const std::string what_;
  std::vector<std::byte> buffer_;
};

std::unexpected<Error> Lacks(const std::string& path, const Digest& digest) {
  return Fail(ErrorCode::kCorrupt, Named(path) + ": blob " + digest.ToString() + " is not in it");
}

// --- directory -----------------------------------------------------------------------------------

struct OpenedFile {
  UniqueFd fd;
  uint64_t size = 0;
};

// nullopt when there is no such name.
Result<std::optional<OpenedFile>> OpenRegular(int directory_fd, const std::string& name,
                                              const std::string& what) {
  struct stat status{};
  if (fstatat(directory_fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<OpenedFile>();
    return Fail(ErrorFromErrno(errno, what));
  }
  // Looked at before it is opened, because opening a device can do things.
  if (!S_ISREG(status.st_mode)) {
    return Fail(ErrorCode::kCorrupt, what + ": not a regular file");
  }
  OCIFS_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(directory_fd, name, O_RDONLY));
  if (fstat(fd.get(), &status) != 0) return Fail(ErrorFromErrno(errno, what));
  if (!S_ISREG(status.st_mode)) return Fail(ErrorCode::kCorrupt, what + ": not a regular file");
  return OpenedFile{std::move(fd), static_cast<uint64_t>(status.st_size)};
}

// nullopt when there is no such file.
Result<std::optional<std::string>> ReadSmallFile(int directory_fd, std::string_view name,
                                                 size_t max_bytes, const std::string& path) {
  const std::string what = Named(path) + ": " + std::string(name);
  OCIFS_ASSIGN_OR_RETURN(const std::optional<OpenedFile> file,
                         OpenRegular(directory_fd, std::string(name), what));
  if (!file) return std::optional<std::string>();
  if (file->size > max_bytes) {
    return Fail(ErrorCode::kTooLarge,
                what + " is larger than " + std::to_string(max_bytes) + " bytes");
  }
  std::string text(file->size, '\0');
  OCIFS_RETURN_IF_ERROR(
      ReadExactly(file->fd.get(), 0, std::as_writable_bytes(std::span(text)), what));
  return text;
}

class DirectoryLayout final : public LayoutReader {
 public:
  static Result<std::unique_ptr<LayoutReader>> Open(const std::string& path, UniqueFd directory) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> marker,
                           ReadSmallFile(directory.get(), kMarker, kMaxMarkerBytes, path));
    if (!marker) {
      const bool docker =
          faccessat(directory.get(), std::string(kDockerManifest).c_str(), F_OK, 0) == 0;
      return Fail(NotALayout(path, docker));
    }
    OCIFS_RETURN_IF_ERROR(CheckMarker(path, *marker));
    OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> text,
                           ReadSmallFile(directory.get(), kIndex, kMaxDocumentBytes, path));
    if (!text) return Fail(ErrorCode::kCorrupt, Named(path) + ": it has no index.json");
    OCIFS_ASSIGN_OR_RETURN(ImageIndex index, ParseIndexFile(path, *text));
    std::array<UniqueFd, 2> algorithms;
    if (const Result<UniqueFd> blobs =
            OpenAt(directory.get(), std::string(kBlobs), O_RDONLY | O_DIRECTORY)) {
      for (const DigestAlgorithm algorithm : {DigestAlgorithm::kSha256, DigestAlgorithm::kSha512}) {
        Result<UniqueFd> opened = OpenAt(blobs->get(), std::string(DigestAlgorithmName(algorithm)),
                                         O_RDONLY | O_DIRECTORY);
        if (opened) algorithms[algorithm == DigestAlgorithm::kSha512] = *std::move(opened);
      }
    }
    return std::unique_ptr<LayoutReader>(
        new DirectoryLayout(path, std::move(index), std::move(algorithms)));
  }

  Result<std::optional<uint64_t>> SizeOf(const Digest& digest) const override {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<OpenedFile> file, Find(digest));
    return file ? std::optional(file->size) : std::nullopt;
  }

  Result<std::unique_ptr<ByteStream>> OpenBlob(const Digest& digest) const override {
    OCIFS_ASSIGN_OR_RETURN(std::optional<OpenedFile> file, Find(digest));
    if (!file) return Lacks(path(), digest);
    posix_fadvise(file->fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    const int fd = file->fd.get();
    return std::make_unique<RangeStream>(std::move(file->fd), fd, 0, file->size,
                                         Named(path()) + ": blob " + digest.ToString());
  }

 private:
  DirectoryLayout(std::string path, ImageIndex index, std::array<UniqueFd, 2> algorithms)
      : LayoutReader(std::move(path), std::move(index)), algorithms_(std::move(algorithms)) {}

  Result<std::optional<OpenedFile>> Find(const Digest& digest) const {
    const UniqueFd& directory = algorithms_[digest.algorithm() == DigestAlgorithm::kSha512];
    if (!directory) return std::optional<OpenedFile>();
    return OpenRegular(directory.get(), digest.hex(),
                       Named(path()) + ": blob " + digest.ToString());
  }

  const std::array<UniqueFd, 2> algorithms_;  // blobs/sha256, blobs/sha512; those that there are
};

// --- tar -----------------------------------------------------------------------------------------

struct TarPlace {
  uint64_t offset = 0;  // in the file
  uint64_t size = 0;
};
using TarPlaces = std::unordered_map<Digest, TarPlace, DigestHash>;

// One pass over the archive.
class TarScan {
 public:
  explicit TarScan(const std::string& path) : path_(path) {}

  Result<void> Run(int fd, uint64_t size) {
    Limits limits;
    limits.max_unpacked_bytes = limits.max_blob_bytes;  // of one entry
    OCIFS_ASSIGN_OR_RETURN(
        const std::unique_ptr<TarReader> tar,
        Wrapped(TarReader::Open(
            std::make_unique<RangeStream>(UniqueFd(), fd, 0, size, Named(path_)), limits)));
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const TarEntry* const entry, Wrapped(tar->NextEntry()));
      if (entry == nullptr) break;
      OCIFS_RETURN_IF_ERROR(Take(*tar, *entry));
    }
    if (!marker_) return Fail(NotALayout(path_, has_docker_manifest_));
    if (refused_) return Fail(*std::move(refused_));
    if (!index_) return Fail(ErrorCode::kCorrupt, Named(path_) + ": it has no index.json");
    return CheckMarker(path_, *marker_);
  }

  const std::string& index() const { return *index_; }
  TarPlaces TakePlaces() { return std::move(places_); }

 private:
  template <typename T>
  Result<T> Wrapped(Result<T> result) const {
    if (!result) return Fail(std::move(result).error().Wrap(Named(path_)));
    return result;
  }

  // What only a stranger to layouts would write. Told at the end, as the archive may turn out to be
  // of another format altogether; nothing is taken from it until then.
  void Refuse(const TarEntry& entry, std::string_view why) {
    if (refused_) return;
    refused_ = Error{ErrorCode::kCorrupt, Named(path_) + ": entry '" + entry.path.substr(0, 300) +
                                              "': " + std::string(why)};
  }

  Result<void> Take(TarReader& tar, const TarEntry& entry) {
    const std::string_view path = entry.path;
    if (entry.is_absolute) Refuse(entry, "an absolute name");
    const bool below_blobs = path.starts_with("blobs/");
    if (entry.attributes.type == NodeType::kDirectory) {
      if (below_blobs && path.find('/', kBlobs.size() + 1) != std::string_view::npos) {
        Refuse(entry, "a directory among the blobs");
      }
      return {};
    }
    if (entry.is_hard_link || entry.attributes.type != NodeType::kRegular) {
      Refuse(entry, "not a regular file");
      return {};
    }
    if (path == kMarker) return ReadSmall(tar, entry, kMaxMarkerBytes, marker_);
    if (path == kIndex) return ReadSmall(tar, entry, kMaxDocumentBytes, index_);
    if (path == kDockerManifest) has_docker_manifest_ = true;
    // Other files beside them are nobody's business.
    if (below_blobs) return TakeBlob(tar, entry);
    if (path == kBlobs) Refuse(entry, "not a directory");
    return {};
  }

  Result<void> ReadSmall(TarReader& tar, const TarEntry& entry, size_t max_bytes,
                         std::optional<std::string>& out) {
    if (out) {
      Refuse(entry, "it is there twice");
      return {};
    }
    const std::string what = Named(path_) + ": " + entry.path;
    if (entry.attributes.size > max_bytes) {
      return Fail(ErrorCode::kTooLarge,
                  what + " is larger than " + std::to_string(max_bytes) + " bytes");
    }
    std::string text(entry.attributes.size, '\0');
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const TarBlock block, Wrapped(tar.NextBlock()));
      if (block.data.empty()) break;
      std::copy(
          block.data.begin(), block.data.end(),
          std::as_writable_bytes(std::span(text)).begin() + static_cast<ptrdiff_t>(block.offset));
    }
    out = std::move(text);
    return {};
  }

  Result<void> TakeBlob(TarReader& tar, const TarEntry& entry) {
    const std::string_view rest = std::string_view(entry.path).substr(kBlobs.size() + 1);
    const size_t slash = rest.find('/');
    std::string name(rest);
    if (slash != std::string::npos) name[slash] = ':';
    const Result<Digest> digest = Digest::Parse(name);
    if (!digest) {
      // Blobs of an algorithm that ocifs does not compute cannot be asked for.
      if (digest.error().code != ErrorCode::kUnsupported) Refuse(entry, "its name is no digest");
      return {};
    }
    if (places_.contains(*digest)) {
      Refuse(entry, "it is there twice");
      return {};
    }
    if (places_.size() == LayoutReader::kMaxBlobs) {
      return Fail(ErrorCode::kTooLarge, Named(path_) + ": more than " +
                                            std::to_string(LayoutReader::kMaxBlobs) + " blobs");
    }
    TarPlace place{0, entry.attributes.size};
    uint64_t expected = 0;
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const TarBlock block, Wrapped(tar.NextBlock()));
      if (block.data.empty()) break;
      if (expected == 0) place.offset = block.stream_offset;
      if (block.offset != expected) break;
      expected += block.data.size();
    }
    // What lies in one piece can be read where it lies.
    if (expected != place.size) {
      Refuse(entry, "a sparse file");
      return {};
    }
    places_.emplace(*digest, place);
    return {};
  }

  const std::string& path_;
  std::optional<std::string> marker_;
  std::optional<std::string> index_;
  bool has_docker_manifest_ = false;
  std::optional<Error> refused_;
  TarPlaces places_;
};

class TarLayout final : public LayoutReader {
 public:
  static Result<std::unique_ptr<LayoutReader>> Open(const std::string& path, UniqueFd file,
                                                    uint64_t size) {
    std::array<std::byte, kTarBlockBytes> head{};
    if (size < head.size() || !ReadExactly(file.get(), 0, head, path) || !LooksLikeTar(head)) {
      return Fail(ErrorCode::kInvalid,
                  Named(path) +
                      ": neither a directory nor a tar archive (a compressed one is to be "
                      "uncompressed first)");
    }
    TarScan scan(path);
    OCIFS_RETURN_IF_ERROR(scan.Run(file.get(), size));
    OCIFS_ASSIGN_OR_RETURN(ImageIndex index, ParseIndexFile(path, scan.index()));
    return std::unique_ptr<LayoutReader>(
        new TarLayout(path, std::move(index), std::move(file), scan.TakePlaces()));
  }

  Result<std::optional<uint64_t>> SizeOf(const Digest& digest) const override {
    const auto found = places_.find(digest);
    return found == places_.end() ? std::nullopt : std::optional(found->second.size);
  }

  Result<std::unique_ptr<ByteStream>> OpenBlob(const Digest& digest) const override {
    const auto found = places_.find(digest);
    if (found == places_.end()) return Lacks(path(), digest);
    return std::make_unique<RangeStream>(UniqueFd(), file_.get(), found->second.offset,
                                         found->second.size,
                                         Named(path()) + ": blob " + digest.ToString());
  }

 private:
  TarLayout(std::string path, ImageIndex index, UniqueFd file, TarPlaces places)
      : LayoutReader(std::move(path), std::move(index)),
        file_(std::move(file)),
        places_(std::move(places)) {}

  const UniqueFd file_;
  const TarPlaces places_;
};

}  // namespace

Result<std::unique_ptr<LayoutReader>> LayoutReader::Open(const std::string& path) {
  // Without O_NOFOLLOW: this name is the user's own.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    const int error = errno;
    Error failure = ErrorFromErrno(error, Named(path));
    if (error == ENOENT || error == ENOTDIR) failure.code = ErrorCode::kNotFound;
    return Fail(std::move(failure));
  }
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) return Fail(ErrorFromErrno(errno, Named(path)));
  if (S_ISDIR(status.st_mode)) return DirectoryLayout::Open(path, std::move(fd));
  if (!S_ISREG(status.st_mode)) {
    return Fail(ErrorCode::kInvalid, Named(path) + ": neither a directory nor a file");
  }
  return TarLayout::Open(path, std::move(fd), static_cast<uint64_t>(status.st_size));
}

}  // namespace ocifs::store
