#include "store/layout_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <utility>

#include "store/file.h"
#include "store/json.h"
#include "store/staged_file.h"
#include "store/tar_fields.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr std::string_view kMarkerName = "oci-layout";
constexpr std::string_view kMarkerText = R"({"imageLayoutVersion":"1.0.0"})";
constexpr std::string_view kIndexName = "index.json";
constexpr std::string_view kRefName = "org.opencontainers.image.ref.name";
constexpr std::string_view kImageName = "io.containerd.image.name";
constexpr std::array<DigestAlgorithm, 2> kAlgorithms = {DigestAlgorithm::kSha256,
                                                        DigestAlgorithm::kSha512};

bool IsAlphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

size_t PositionOf(DigestAlgorithm algorithm) {
  return algorithm == DigestAlgorithm::kSha256 ? 0 : 1;
}

// --- index.json ----------------------------------------------------------------------------------

void AppendJson(const Json& value, std::string& out) {
  if (const bool* const boolean = value.boolean()) {
    out.append(*boolean ? "true" : "false");
  } else if (const int64_t* const integer = value.integer()) {
    out.append(std::to_string(*integer));
  } else if (const double* const number = value.number()) {
    std::array<char, 32> digits{};  // the shortest text that is read as the same number
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), *number).ptr;
    out.append(digits.data(), end);
  } else if (const std::string* const text = value.string()) {
    out.append(JsonQuote(*text));
  } else if (const Json::Array* const array = value.array()) {
    out.push_back('[');
    for (const Json& item : *array) {
      if (&item != &array->front()) out.push_back(',');
      AppendJson(item, out);
    }
    out.push_back(']');
  } else if (const Json::Object* const object = value.object()) {
    out.push_back('{');
    for (const Json::Member& member : *object) {
      if (&member != &object->front()) out.push_back(',');
      out.append(JsonQuote(member.first)).push_back(':');
      AppendJson(member.second, out);
    }
    out.push_back('}');
  } else {
    out.append("null");
  }
}

Json Text(std::string_view text) { return Json(std::string(text)); }

Json EntryJson(const LayoutEntry& entry) {
  const Descriptor& descriptor = entry.descriptor;
  Json::Object object;
  object.emplace_back("mediaType", Text(descriptor.media_type));
  object.emplace_back("digest", Text(descriptor.digest.ToString()));
  object.emplace_back("size", Json(static_cast<int64_t>(descriptor.size)));
  if (!descriptor.artifact_type.empty()) {
    object.emplace_back("artifactType", Text(descriptor.artifact_type));
  }
  Json::Object annotations;
  annotations.emplace_back(kImageName, Text(entry.name));
  if (IsLayoutRefName(entry.name)) annotations.emplace_back(kRefName, Text(entry.name));
  object.emplace_back("annotations", Json(std::move(annotations)));
  return Json(std::move(object));
}

bool HasName(const Json& entry, std::string_view name) {
  const Json* const annotations = entry.Find("annotations");
  if (annotations == nullptr) return false;
  const std::string image = annotations->FindText(kImageName);
  return image.empty() ? annotations->FindText(kRefName) == name : image == name;
}

// `index` is that of the layout as it was; null: a new one.
Json::Object MergedIndex(Json::Object index, const std::vector<LayoutEntry>& entries) {
  if (index.empty()) {
    index.emplace_back("schemaVersion", Json(int64_t{2}));
    index.emplace_back("mediaType", Text(media_type::kOciIndex));
  }
  auto place = std::find_if(index.begin(), index.end(),
                            [](const Json::Member& member) { return member.first == "manifests"; });
  Json::Array manifests;
  if (place != index.end() && place->second.array() != nullptr) manifests = *place->second.array();
  for (const LayoutEntry& entry : entries) {
    const auto same = [&](const Json& old) { return HasName(old, entry.name); };
    const auto first = std::find_if(manifests.begin(), manifests.end(), same);
    if (first == manifests.end()) {
      manifests.push_back(EntryJson(entry));
    } else {
      *first = EntryJson(entry);
      manifests.erase(std::remove_if(first + 1, manifests.end(), same), manifests.end());
    }
  }
  if (place == index.end()) {
    index.emplace_back("manifests", Json(std::move(manifests)));
  } else {
    place->second = Json(std::move(manifests));
  }
  return index;
}

std::string IndexText(Json::Object index, const std::vector<LayoutEntry>& entries) {
  std::string text;
  AppendJson(Json(MergedIndex(std::move(index), entries)), text);
  return text;
}

// --- directory -----------------------------------------------------------------------------------

class DirectoryLayoutWriter final : public LayoutWriter {
 public:
  static Result<std::unique_ptr<LayoutWriter>> Create(const std::string& path,
                                                      const LayoutModes& modes) {
    const bool made = mkdir(path.c_str(), modes.directory) == 0;
    if (!made && errno != EEXIST) return Fail(ErrorFromErrno(errno, "creating " + path));
    if (made) SetMode(AT_FDCWD, path, modes.directory);
    // Following a link: this name is the user's own.
    UniqueFd directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return Fail(ErrorFromErrno(errno, "opening " + path));
    auto writer = std::unique_ptr<DirectoryLayoutWriter>(
        new DirectoryLayoutWriter(path, std::move(directory), modes));
    writer->made_directory_ = made;
    OCIFS_RETURN_IF_ERROR(writer->LookAround());
    return writer;
  }

  ~DirectoryLayoutWriter() override {
    staged_.reset();
    if (finished_) return;
    for (const Digest& digest : written_) {
      unlinkat(algorithms_[PositionOf(digest.algorithm())].get(), digest.hex().c_str(), 0);
    }
    // Those that something else is in stay.
    for (const DigestAlgorithm algorithm : kAlgorithms) {
      if (made_algorithm_[PositionOf(algorithm)]) {
        unlinkat(blobs_.get(), std::string(DigestAlgorithmName(algorithm)).c_str(), AT_REMOVEDIR);
      }
    }
    if (made_blobs_) unlinkat(directory_.get(), "blobs", AT_REMOVEDIR);
    if (made_directory_) rmdir(path_.c_str());
  }

  Result<bool> Has(const Descriptor& blob) override {
    OCIFS_ASSIGN_OR_RETURN(const int directory, AlgorithmDirectory(blob.digest.algorithm()));
    const Result<UniqueFd> file = OpenAt(directory, blob.digest.hex(), O_RDONLY);
    struct stat status{};
    if (!file || fstat(file->get(), &status) != 0 || !S_ISREG(status.st_mode) ||
        static_cast<uint64_t>(status.st_size) != blob.size) {
      return false;
    }
    Hasher hasher(blob.digest.algorithm());
    std::vector<std::byte> buffer(
        static_cast<size_t>(std::min<uint64_t>(blob.size, uint64_t{1} << 20)));
    for (uint64_t offset = 0; offset < blob.size; offset += buffer.size()) {
      buffer.resize(static_cast<size_t>(std::min<uint64_t>(buffer.size(), blob.size - offset)));
      if (!ReadExactly(file->get(), offset, buffer, path_)) return false;
      hasher.Update(buffer);
    }
    return hasher.Finish() == blob.digest;
  }

  Result<void> BeginBlob(const Digest& digest, uint64_t) override {
    OCIFS_ASSIGN_OR_RETURN(const int directory, AlgorithmDirectory(digest.algorithm()));
    staged_.reset();
    OCIFS_ASSIGN_OR_RETURN(staged_, StagedFile::Create(directory));
    digest_ = digest;
    return {};
  }
  Result<void> Append(std::span<const std::byte> bytes) override { return staged_->Append(bytes); }
  Result<void> EndBlob() override {
    OCIFS_RETURN_IF_ERROR(Publish(*staged_, digest_->hex()));
    staged_.reset();
    written_.push_back(*digest_);
    return {};
  }

  Result<void> Finish(const std::vector<LayoutEntry>& entries) override {
    staged_.reset();
    for (const UniqueFd& algorithm : algorithms_) {
      if (algorithm) OCIFS_RETURN_IF_ERROR(SyncDirectory(algorithm.get(), path_));
    }
    if (blobs_) OCIFS_RETURN_IF_ERROR(SyncDirectory(blobs_.get(), path_));
    if (!has_marker_) OCIFS_RETURN_IF_ERROR(WriteFile(kMarkerName, kMarkerText));
    OCIFS_RETURN_IF_ERROR(WriteFile(kIndexName, IndexText(std::move(index_), entries)));
    finished_ = true;
    return SyncDirectory(directory_.get(), path_);
  }

 private:
  DirectoryLayoutWriter(std::string path, UniqueFd directory, const LayoutModes& modes)
      : path_(std::move(path)), directory_(std::move(directory)), modes_(modes) {}

  // What is there: nothing, a layout, or something that is not ours.
  Result<void> LookAround() {
    // Where there are no locks on directories, two exports into one are the user's to keep apart.
    if (flock(directory_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      return Fail(ErrorCode::kInvalid, path_ + ": another process is writing to it");
    }
    OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(directory_.get()));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory_.get()));
    auto has = [&](std::string_view name) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    has_marker_ = has(kMarkerName);
    if (has_marker_ && has(kIndexName)) return ReadIndex();
    for (const std::string& name : names) {
      if (name != "blobs" && name != kMarkerName && name != "lost+found") {
        return Fail(ErrorCode::kInvalid, path_ + " holds '" + name.substr(0, 300) +
                                             "': an export goes into an empty directory or an OCI "
                                             "image layout");
      }
    }
    return {};
  }

  Result<std::string> ReadFile(std::string_view name) {
    const std::string what = path_ + "/" + std::string(name);
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd file,
                           OpenAt(directory_.get(), std::string(name), O_RDONLY));
    struct stat status{};
    if (fstat(file.get(), &status) != 0) return Fail(ErrorFromErrno(errno, what));
    if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) > kMaxDocumentBytes) {
      return Fail(ErrorCode::kInvalid,
                  what + ": not a file of at most " + std::to_string(kMaxDocumentBytes) + " bytes");
    }
    std::string text(static_cast<size_t>(status.st_size), '\0');
    OCIFS_RETURN_IF_ERROR(
        ReadExactly(file.get(), 0, std::as_writable_bytes(std::span(text)), what));
    return text;
  }

  Result<void> ReadIndex() {
    OCIFS_ASSIGN_OR_RETURN(const std::string marker_text, ReadFile(kMarkerName));
    const Result<Json> marker = Json::Parse(marker_text);
    if (!marker || !marker->FindText("imageLayoutVersion").starts_with("1.")) {
      return Fail(ErrorCode::kInvalid, path_ + " is no OCI image layout of version 1");
    }
    OCIFS_ASSIGN_OR_RETURN(const std::string text, ReadFile(kIndexName));
    Result<Json> parsed = Json::Parse(text);
    const Json* const manifests = parsed ? parsed->Find("manifests") : nullptr;
    if (!parsed || parsed->object() == nullptr ||
        (manifests != nullptr && !manifests->is_null() && manifests->array() == nullptr)) {
      return Fail(ErrorCode::kInvalid,
                  path_ + "/index.json is damaged" +
                      (parsed ? std::string() : ": " + parsed.error().message) +
                      "; nothing is added to it");
    }
    index_ = *parsed->object();
    return {};
  }

  Result<int> AlgorithmDirectory(DigestAlgorithm algorithm) {
    const size_t position = PositionOf(algorithm);
    UniqueFd& directory = algorithms_[position];
    if (directory) return directory.get();
    auto open_or_make = [&](int parent, std::string_view name, bool& made) -> Result<UniqueFd> {
      const std::string text(name);
      made = mkdirat(parent, text.c_str(), modes_.directory) == 0;
      if (made) SetMode(parent, text, modes_.directory);
      return OpenDirectory(parent, text, modes_.directory);
    };
    if (!blobs_) {
      OCIFS_ASSIGN_OR_RETURN(blobs_, open_or_make(directory_.get(), "blobs", made_blobs_));
    }
    bool made = false;
    OCIFS_ASSIGN_OR_RETURN(directory,
                           open_or_make(blobs_.get(), DigestAlgorithmName(algorithm), made));
    made_algorithm_[position] = made;
    OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(directory.get()));
    return directory.get();
  }

  // Whatever the umask. File systems without permissions (vfat) may refuse; nothing is lost.
  static void SetMode(int parent, const std::string& name, uint32_t mode) {
    (void)fchmodat(parent, name.c_str(), mode, 0);
  }

  Result<void> Publish(StagedFile& file, const std::string& name) const {
    (void)fchmod(file.fd(), modes_.file);
    return file.Publish(name);
  }

  Result<void> WriteFile(std::string_view name, std::string_view text) {
    OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(directory_.get()));
    OCIFS_RETURN_IF_ERROR(file.Append(AsBytes(text)));
    return Publish(file, std::string(name));
  }

  const std::string path_;
  const UniqueFd directory_;
  const LayoutModes modes_;
  UniqueFd blobs_;
  std::array<UniqueFd, 2> algorithms_;
  bool has_marker_ = false;
  Json::Object index_;  // as it was; empty: there was none
  std::optional<StagedFile> staged_;
  std::optional<Digest> digest_;  // of the blob that was begun
  // What is ours to remove if we do not finish.
  std::vector<Digest> written_;
  bool made_directory_ = false;
  bool made_blobs_ = false;
  std::array<bool, 2> made_algorithm_{};
  bool finished_ = false;
};

// --- tar -----------------------------------------------------------------------------------------

// A header block of POSIX.1-2001, ustar.
std::string TarHeader(std::string_view name, char type, uint64_t size, uint32_t mode) {
  std::string block(kTarBlockBytes, '\0');
  auto put = [&](const TarField& field, std::string_view text) {
    std::copy(text.begin(), text.end(), block.begin() + static_cast<ptrdiff_t>(field.offset));
  };
  auto put_octal = [&](const TarField& field, uint64_t value) {
    std::string digits(field.size - 1, '0');
    for (size_t at = digits.size(); at > 0 && value != 0; value >>= 3) {
      digits[--at] = static_cast<char>('0' + (value & 7));
    }
    put(field, digits);
  };
  put(tar::kName, name);
  put_octal(tar::kMode, mode);
  put_octal(tar::kUid, 0);
  put_octal(tar::kGid, 0);
  put_octal(tar::kSize, size);
  put_octal(tar::kMtime, 0);
  block[tar::kType] = type;
  put(tar::kMagic, std::string_view("ustar\00000", 8));
  put_octal(tar::kDeviceMajor, 0);
  put_octal(tar::kDeviceMinor, 0);
  // The sum is taken with blanks in its place, and written as six digits, NUL, blank.
  put(tar::kChecksum, "        ");
  uint32_t sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put_octal({tar::kChecksum.offset, 7}, sum);
  block[tar::kChecksum.offset + 6] = '\0';
  return block;
}

std::string PaxRecord(std::string_view key, std::string_view value) {
  // The length counts its own digits.
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) ++length;
  return std::to_string(length) + " " + std::string(key) + "=" + std::string(value) + "\n";
}

std::string TarPadding(uint64_t size) {
  return std::string((kTarBlockBytes - size % kTarBlockBytes) % kTarBlockBytes, '\0');
}

// All that stands before the content of an entry. What the fields of ustar are too small for is
// said in a pax header.
std::string TarEntryStart(std::string_view name, char type, uint64_t size, uint32_t mode) {
  constexpr uint64_t kMaxUstarSize = (uint64_t{1} << 33) - 1;
  std::string pax;
  if (name.size() > tar::kName.size) pax += PaxRecord("path", name);
  if (size > kMaxUstarSize) pax += PaxRecord("size", std::to_string(size));
  std::string start;
  if (!pax.empty()) {
    start = TarHeader("pax", 'x', pax.size(), 0644) + pax + TarPadding(pax.size());
  }
  return start +
         TarHeader(name.substr(0, tar::kName.size), type, size > kMaxUstarSize ? 0 : size, mode);
}

class TarLayoutWriter final : public LayoutWriter {
 public:
  static Result<std::unique_ptr<LayoutWriter>> Create(const std::string& path,
                                                      const LayoutModes& modes) {
    const size_t slash = path.rfind('/');
    const std::string parent = slash == std::string::npos ? "."
                               : slash == 0               ? "/"
                                                          : path.substr(0, slash);
    UniqueFd directory(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return Fail(ErrorFromErrno(errno, "opening " + parent));
    OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(directory.get()));
    return std::unique_ptr<LayoutWriter>(
        new TarLayoutWriter(path.substr(slash == std::string::npos ? 0 : slash + 1), modes,
                            std::move(directory), std::move(file)));
  }

  Result<bool> Has(const Descriptor&) override { return false; }

  Result<void> BeginBlob(const Digest& digest, uint64_t size) override {
    if (last_ && *last_ >= digest) {
      return Fail(ErrorCode::kInternal, "blobs of a layout out of order");
    }
    length_ = ended_;
    const std::string directory = "blobs/" + std::string(DigestAlgorithmName(digest.algorithm()));
    if (!last_) OCIFS_RETURN_IF_ERROR(WriteDirectory("blobs/"));
    if (!last_ || last_->algorithm() != digest.algorithm()) {
      OCIFS_RETURN_IF_ERROR(WriteDirectory(directory + "/"));
    }
    begun_ = digest;
    size_ = size;
    return Append(AsBytes(TarEntryStart(directory + "/" + digest.hex(), '0', size, 0644)));
  }
  // At an offset of our own: what was begun and not ended is written over.
  Result<void> Append(std::span<const std::byte> bytes) override {
    OCIFS_RETURN_IF_ERROR(WriteExactly(file_.fd(), length_, bytes, name_));
    length_ += bytes.size();
    return {};
  }
  Result<void> EndBlob() override {
    OCIFS_RETURN_IF_ERROR(Append(AsBytes(TarPadding(size_))));
    ended_ = length_;
    last_ = begun_;
    return {};
  }

  Result<void> Finish(const std::vector<LayoutEntry>& entries) override {
    length_ = ended_;
    OCIFS_RETURN_IF_ERROR(WriteFile(kIndexName, IndexText({}, entries)));
    OCIFS_RETURN_IF_ERROR(WriteFile(kMarkerName, kMarkerText));
    OCIFS_RETURN_IF_ERROR(Append(AsBytes(std::string(2 * kTarBlockBytes, '\0'))));
    if (ftruncate(file_.fd(), static_cast<off_t>(length_)) != 0) {
      return Fail(ErrorFromErrno(errno, "writing " + name_));
    }
    (void)fchmod(file_.fd(), modes_.file);
    OCIFS_RETURN_IF_ERROR(file_.Publish(name_));
    return SyncDirectory(directory_.get(), name_);
  }

 private:
  TarLayoutWriter(std::string name, const LayoutModes& modes, UniqueFd directory, StagedFile file)
      : name_(std::move(name)),
        modes_(modes),
        directory_(std::move(directory)),
        file_(std::move(file)) {}

  Result<void> WriteDirectory(std::string_view name) {
    return Append(AsBytes(TarEntryStart(name, '5', 0, 0755)));
  }
  Result<void> WriteFile(std::string_view name, std::string_view text) {
    OCIFS_RETURN_IF_ERROR(Append(AsBytes(TarEntryStart(name, '0', text.size(), 0644))));
    OCIFS_RETURN_IF_ERROR(Append(AsBytes(text)));
    return Append(AsBytes(TarPadding(text.size())));
  }

  const std::string name_;
  const LayoutModes modes_;
  const UniqueFd directory_;
  StagedFile file_;  // below directory_; only its descriptor is written to
  uint64_t length_ = 0;
  uint64_t ended_ = 0;  // length with the last blob that was ended
  uint64_t size_ = 0;   // of the blob that was begun
  std::optional<Digest> begun_;
  std::optional<Digest> last_;  // that was ended
};

}  // namespace

bool IsLayoutRefName(std::string_view name) {
  bool after_alphanumeric = false;
  for (size_t i = 0; i < name.size(); ++i) {
    if (IsAlphanumeric(name[i])) {
      after_alphanumeric = true;
      continue;
    }
    // One separator, or "--", between two alphanumerics.
    if (!after_alphanumeric ||
        std::string_view("-._:@+/").find(name[i]) == std::string_view::npos) {
      return false;
    }
    if (name.substr(i).starts_with("--")) ++i;
    after_alphanumeric = false;
  }
  return after_alphanumeric;
}

Result<std::unique_ptr<LayoutWriter>> LayoutWriter::Create(const std::string& destination,
                                                           const LayoutModes& modes) {
  std::string path = destination;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (path.empty()) return Fail(ErrorCode::kInvalid, "the destination has no name");
  struct stat status{};
  if (stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return DirectoryLayoutWriter::Create(path, modes);
    if (!S_ISREG(status.st_mode) || !path.ends_with(".tar")) {
      return Fail(ErrorCode::kInvalid,
                  path + " is neither a directory nor a file whose name ends in .tar");
    }
  } else if (errno != ENOENT) {
    return Fail(ErrorFromErrno(errno, "looking at " + path));
  }
  if (path.ends_with(".tar")) return TarLayoutWriter::Create(path, modes);
  for (const std::string_view ending : {".gz", ".tgz", ".zst", ".xz", ".bz2"}) {
    if (path.ends_with(ending)) {
      return Fail(ErrorCode::kInvalid,
                  path + ": a tar is written uncompressed; give a name that ends in .tar");
    }
  }
  return DirectoryLayoutWriter::Create(path, modes);
}

}  // namespace ocifs::store
