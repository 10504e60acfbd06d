#include "fetch/layout_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

#include "store/json.h"
#include "store/log.h"

namespace ocifs::fetch {
namespace {

using store::Digest;
using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Result;

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr std::string_view kNameAnnotations[] = {"org.opencontainers.image.ref.name",
                                                 "io.containerd.image.name"};

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// Not found is said in the layout's terms by the callers; the rest as it is.
Error OpenError(int number, const std::string& what) {
  if (number == ENOENT || number == ENOTDIR) {
    return {ErrorCode::kUnavailable, what + ": it is not there; is the disk mounted?"};
  }
  if (number == ELOOP) {
    return {ErrorCode::kDenied, what + ": a symbolic link, and layouts are read without these"};
  }
  return store::ErrorFromErrno(number, what);
}

// A regular file below `directory`. O_NONBLOCK: a FIFO of that name must not hang the reader.
Result<FileDescriptor> OpenFile(int directory, const std::string& name, const std::string& what,
                                struct stat* status) {
  FileDescriptor file(
      openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return Fail(OpenError(errno, what));
  if (fstat(file.get(), status) != 0) return Fail(store::ErrorFromErrno(errno, what));
  if (!S_ISREG(status->st_mode)) return Fail(ErrorCode::kCorrupt, what + ": not a regular file");
  return file;
}

Result<FileDescriptor> OpenDirectory(int parent, const std::string& name, const std::string& what) {
  FileDescriptor directory(
      openat(parent, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (directory.get() < 0) return Fail(OpenError(errno, what));
  return directory;
}

// The layout itself may be reached over symbolic links: its path is the user's own.
Result<FileDescriptor> OpenLayout(const std::string& path) {
  FileDescriptor directory(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return Fail(OpenError(errno, path));
  return directory;
}

Result<FileDescriptor> OpenBlobFile(const std::string& layout, const Digest& digest,
                                    const std::string& what, struct stat* status) {
  OCIFS_ASSIGN_OR_RETURN(const FileDescriptor directory, OpenLayout(layout));
  auto missing = [&](Error error) {
    // The layout is there, so this is an answer: it lacks the blob.
    if (error.code == ErrorCode::kUnavailable) {
      error = {ErrorCode::kNotFound, what + ": not in the layout"};
    }
    return Fail(std::move(error));
  };
  Result<FileDescriptor> blobs = OpenDirectory(directory.get(), "blobs", what);
  if (!blobs) return missing(std::move(blobs).error());
  Result<FileDescriptor> algorithm = OpenDirectory(
      blobs->get(), std::string(store::DigestAlgorithmName(digest.algorithm())), what);
  if (!algorithm) return missing(std::move(algorithm).error());
  Result<FileDescriptor> file = OpenFile(algorithm->get(), digest.hex(), what, status);
  if (!file) return missing(std::move(file).error());
  return file;
}

Result<std::string> ReadWhole(int fd, size_t max_bytes, const std::string& what) {
  std::string text;
  std::string buffer(size_t{64} << 10, '\0');
  while (true) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Fail(store::ErrorFromErrno(errno, what));
    if (count == 0) return text;
    text.append(buffer, 0, static_cast<size_t>(count));
    if (text.size() > max_bytes) {
      return Fail(ErrorCode::kTooLarge,
                  what + ": larger than " + std::to_string(max_bytes) + " bytes");
    }
  }
}

// Opens the file at the first Next, so that OpenBlob returns at once, on a slow disk too.
class LayoutBlobStream final : public store::BlobStream {
 public:
  LayoutBlobStream(std::string layout, const store::Descriptor& blob, std::stop_token stop)
      : layout_(std::move(layout)),
        digest_(blob.digest),
        size_(blob.size),
        what_(layout_ + "/blobs/" + std::string(store::DigestAlgorithmName(digest_.algorithm())) +
              "/" + digest_.hex()),
        stop_(std::move(stop)) {}

  Result<std::span<const std::byte>> Next() override {
    if (stop_.stop_requested()) return Fail(ErrorCode::kCancelled, what_ + ": cancelled");
    if (file_.get() < 0) OCIFS_RETURN_IF_ERROR(Open());
    while (true) {
      const ssize_t count = read(file_.get(), buffer_.get(), kReadBytes);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Fail(store::ErrorFromErrno(errno, what_));
      const auto length = static_cast<size_t>(count);
      if (length > size_ - received_ || (length == 0 && received_ != size_)) {
        return Fail(ErrorCode::kCorrupt, what_ + ": its size changed while it was read");
      }
      received_ += length;
      return std::span<const std::byte>(buffer_.get(), length);
    }
  }

 private:
  Result<void> Open() {
    struct stat status{};
    Result<FileDescriptor> file = OpenBlobFile(layout_, digest_, what_, &status);
    if (!file) {
      Error error = std::move(file).error();
      if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kRemote;
      return Fail(std::move(error));
    }
    if (static_cast<uint64_t>(status.st_size) != size_) {
      return Fail(ErrorCode::kCorrupt,
                  what_ + ": the blob is " +
                      (static_cast<uint64_t>(status.st_size) > size_ ? "longer" : "shorter") +
                      " than its descriptor (" + std::to_string(status.st_size) + " instead of " +
                      std::to_string(size_) + " bytes)");
    }
    posix_fadvise(file->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    file_ = *std::move(file);
    buffer_ = std::make_unique_for_overwrite<std::byte[]>(kReadBytes);
    return {};
  }

  const std::string layout_;
  const Digest digest_;
  const uint64_t size_;
  const std::string what_;
  const std::stop_token stop_;
  FileDescriptor file_;
  std::unique_ptr<std::byte[]> buffer_;
  uint64_t received_ = 0;
};

std::string BaseName(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

}  // namespace

std::optional<store::Reference> LayoutReference(
    std::string_view name, const store::Registry& registry,
    const std::optional<store::Repository>& default_repository) {
  if (name.starts_with(registry.name()) && name.substr(registry.name().size()).starts_with('/')) {
    name.remove_prefix(registry.name().size() + 1);
  }
  const size_t colon = name.rfind(':');
  const bool has_repository =
      colon != std::string_view::npos && name.find('/', colon) == std::string_view::npos;
  Result<store::Tag> tag = store::Tag::Parse(has_repository ? name.substr(colon + 1) : name);
  if (!tag) return std::nullopt;
  if (!has_repository) {
    if (!default_repository) return std::nullopt;
    return store::Reference(*default_repository, *std::move(tag));
  }
  Result<store::Repository> repository = store::Repository::Parse(registry, name.substr(0, colon));
  if (!repository) return std::nullopt;
  return store::Reference(*std::move(repository), *std::move(tag));
}

Result<std::unique_ptr<LayoutSource>> LayoutSource::Create(store::Registry registry,
                                                           LayoutOptions options) {
  const std::string name =
      options.repository.empty() ? BaseName(options.directory) : options.repository;
  Result<store::Repository> repository = store::Repository::Parse(registry, name);
  if (!repository && !options.repository.empty()) {
    return Fail(std::move(repository).error().Wrap("layout " + options.directory));
  }
  std::optional<store::Repository> default_repository;
  if (repository) default_repository = *std::move(repository);
  return std::unique_ptr<LayoutSource>(
      new LayoutSource(std::move(registry), std::move(options), std::move(default_repository)));
}

Result<std::shared_ptr<const LayoutSource::Contents>> LayoutSource::Load() {
  OCIFS_ASSIGN_OR_RETURN(const FileDescriptor directory, OpenLayout(options_.directory));
  struct stat status{};
  OCIFS_ASSIGN_OR_RETURN(const FileDescriptor index,
                         OpenFile(directory.get(), "index.json", Describe("index.json"), &status));
  const Stamp stamp{status.st_dev, status.st_ino, status.st_size, status.st_mtim.tv_sec,
                    status.st_mtim.tv_nsec};
  {
    const store::MutexLock lock(mutex_);
    if (contents_ && contents_->stamp == stamp) return contents_;
  }
  OCIFS_ASSIGN_OR_RETURN(std::shared_ptr<const Contents> contents,
                         Read(directory.get(), index.get(), stamp));
  const store::MutexLock lock(mutex_);
  contents_ = contents;
  return contents;
}

Result<std::shared_ptr<const LayoutSource::Contents>> LayoutSource::Read(int directory,
                                                                         int index_file,
                                                                         const Stamp& stamp) const {
  struct stat status{};
  const std::string marker_name = Describe("oci-layout");
  OCIFS_ASSIGN_OR_RETURN(const FileDescriptor marker,
                         OpenFile(directory, "oci-layout", marker_name, &status));
  OCIFS_ASSIGN_OR_RETURN(const std::string marker_text, ReadWhole(marker.get(), 4096, marker_name));
  const Result<store::Json> version = store::Json::Parse(marker_text);
  const store::Json* const number = version ? version->Find("imageLayoutVersion") : nullptr;
  if (number == nullptr || number->string() == nullptr || !number->string()->starts_with("1.")) {
    return Fail(ErrorCode::kUnsupported, marker_name + ": not an OCI image layout of version 1");
  }
  OCIFS_ASSIGN_OR_RETURN(const std::string text,
                         ReadWhole(index_file, store::kMaxDocumentBytes, Describe("index.json")));
  auto parsed = store::ParseManifest(text, "");
  if (!parsed) return Fail(std::move(parsed).error().Wrap(Describe("index.json")));
  const auto* const index = std::get_if<store::ImageIndex>(&*parsed);
  if (index == nullptr) {
    return Fail(ErrorCode::kCorrupt, Describe("index.json") + ": a manifest, not an index");
  }
  auto contents = std::make_shared<Contents>();
  contents->stamp = stamp;
  for (const store::Descriptor& entry : index->manifests) {
    contents->entries.emplace(entry.digest, entry);
    for (const std::string_view key : kNameAnnotations) {
      const std::string* const name = store::FindAnnotation(entry.annotations, key);
      if (name == nullptr) continue;
      const std::optional<store::Reference> reference =
          LayoutReference(*name, registry_, default_repository_);
      if (!reference) {
        store::Log(store::LogLevel::kWarning, "layout " + options_.directory + ": the name '" +
                                                  name->substr(0, 300) +
                                                  "' is not shown: it is no repository and tag");
        continue;
      }
      // The first of equal names counts, as in the tools that read layouts.
      contents->repositories[reference->repository().path()].emplace(reference->tag()->name(),
                                                                     entry);
    }
  }
  // A layout without names has its manifests by digest, in the one repository it has.
  if (contents->repositories.empty() && default_repository_) {
    contents->repositories[default_repository_->path()];
  }
  return contents;
}

Result<void> LayoutSource::FindRegistry(const store::Registry& registry,
                                        const store::FetchContext&) {
  if (registry == registry_) return {};
  return Fail(ErrorCode::kNotFound, registry.name() + ": not the name of this layout");
}

Result<std::optional<store::RemoteDocument>> LayoutSource::FetchManifest(
    const store::Reference& reference, const std::optional<Digest>& known,
    const store::FetchContext&) {
  OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const Contents> contents, Load());
  const auto repository = contents->repositories.find(reference.repository().path());
  auto not_found = [&] {
    return Fail(ErrorCode::kNotFound,
                reference.ToString() + ": not in the layout " + options_.directory);
  };
  if (repository == contents->repositories.end()) return not_found();
  store::RemoteDocument document;
  std::optional<Digest> digest = reference.digest();
  if (reference.tag()) {
    const auto entry = repository->second.find(reference.tag()->name());
    if (entry == repository->second.end()) return not_found();
    digest = entry->second.digest;
  }
  if (known == digest) return std::nullopt;
  if (const auto entry = contents->entries.find(*digest); entry != contents->entries.end()) {
    document.media_type = entry->second.media_type;
  }
  struct stat status{};
  const std::string what = Describe("blobs/" + digest->ToString());
  Result<FileDescriptor> file = OpenBlobFile(options_.directory, *digest, what, &status);
  if (!file) {
    Error error = std::move(file).error();
    // By tag, index.json names a manifest that is not there: the layout is incomplete.
    if (error.code == ErrorCode::kNotFound && reference.tag()) error.code = ErrorCode::kRemote;
    return Fail(std::move(error));
  }
  OCIFS_ASSIGN_OR_RETURN(document.bytes, ReadWhole(file->get(), store::kMaxDocumentBytes, what));
  return document;
}

Result<std::unique_ptr<store::BlobStream>> LayoutSource::OpenBlob(
    const store::Repository&, const store::Descriptor& blob, const store::FetchContext& context) {
  return std::make_unique<LayoutBlobStream>(options_.directory, blob, context.stop);
}

Result<store::TagPage> LayoutSource::ListTags(const store::Repository& repository,
                                              std::string_view cursor, const store::FetchContext&) {
  if (!cursor.empty()) return Fail(ErrorCode::kInvalid, "not a cursor of a layout's tag list");
  OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const Contents> contents, Load());
  const auto found = contents->repositories.find(repository.path());
  if (found == contents->repositories.end()) {
    return Fail(ErrorCode::kNotFound,
                repository.ToString() + ": not in the layout " + options_.directory);
  }
  store::TagPage page;
  for (const auto& [tag, descriptor] : found->second) page.tags.push_back(tag);
  return page;
}

Result<std::vector<std::string>> LayoutSource::ListRepositories(const store::Registry&,
                                                                const store::FetchContext&) {
  OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const Contents> contents, Load());
  std::vector<std::string> paths;
  for (const auto& [path, tags] : contents->repositories) paths.push_back(path);
  return paths;
}

Result<std::vector<std::string>> LayoutSource::ListCatalog(const store::Registry& registry,
                                                           const store::FetchContext&) {
  return Fail(ErrorCode::kUnsupported, registry.name() + ": a layout has no catalog");
}

Result<std::vector<store::Descriptor>> LayoutSource::ListReferrers(const store::Repository&,
                                                                   const Digest& subject,
                                                                   std::string_view artifact_type,
                                                                   const store::FetchContext&) {
  OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const Contents> contents, Load());
  std::vector<store::Descriptor> referrers;
  for (const auto& [digest, entry] : contents->entries) {
    struct stat status{};
    const std::string what = Describe("blobs/" + digest.ToString());
    OCIFS_ASSIGN_OR_RETURN(const FileDescriptor file,
                           OpenBlobFile(options_.directory, digest, what, &status));
    OCIFS_ASSIGN_OR_RETURN(const std::string bytes,
                           ReadWhole(file.get(), store::kMaxDocumentBytes, what));
    // A damaged manifest refers to nothing that could be trusted.
    if (Digest::Of(std::as_bytes(std::span(bytes)), digest.algorithm()) != digest) continue;
    const auto parsed = store::ParseManifest(bytes, entry.media_type);
    const auto* const manifest = parsed ? std::get_if<store::Manifest>(&*parsed) : nullptr;
    if (manifest == nullptr || !manifest->subject || manifest->subject->digest != subject) continue;
    store::Descriptor referrer = entry;
    referrer.artifact_type = manifest->artifact_type;
    referrer.annotations = manifest->annotations;
    if (artifact_type.empty() || referrer.artifact_type == artifact_type) {
      referrers.push_back(std::move(referrer));
    }
  }
  return referrers;
}

}  // namespace ocifs::fetch
