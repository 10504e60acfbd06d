#include "store/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/entry_path.h"
#include "store/tar_fields.h"
#include "store/tar_header_policy.h"

namespace ocifs::store {
namespace {

// Zeros for a stream that stops short of its last block or of the end-of-archive blocks, both of
// which libarchive wants to see.
constexpr std::array<std::byte, 3 * kTarBlockBytes> kZeros{};

// libarchive converts names in pax headers from UTF-8 to the charset of the calling thread's
// locale, and in a UTF-8 locale composes them (NFC) on the way, so that other bytes come out. In
// the C locale only ASCII converts, to itself, and for all else libarchive warns and keeps the
// bytes.
class ScopedCLocale {
 public:
  ScopedCLocale() : before_(uselocale(CLocale())) {}
  ~ScopedCLocale() { uselocale(before_); }
  ScopedCLocale(const ScopedCLocale&) = delete;
  ScopedCLocale& operator=(const ScopedCLocale&) = delete;

 private:
  static locale_t CLocale() {
    static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
    return c_locale;
  }

  const locale_t before_;
};

struct ArchiveDeleter {
  void operator()(archive* reader) const { archive_read_free(reader); }
};
struct EntryDeleter {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

std::string_view View(const char* text) { return text == nullptr ? std::string_view() : text; }

// The warnings that change nothing: the names they are about were taken from the raw records.
bool IsHarmlessWarning(std::string_view text) {
  for (const std::string_view what : {"Pathname", "Linkname", "Uname", "Gname"}) {
    if (text.starts_with(what) && text.substr(what.size()).starts_with(" can't be converted ")) {
      return true;
    }
  }
  return false;
}

uint64_t RoundUpToBlock(uint64_t size) {
  return (size + kTarBlockBytes - 1) / kTarBlockBytes * kTarBlockBytes;
}

class LibarchiveTarReader final : public TarReader {
 public:
  LibarchiveTarReader(std::unique_ptr<ByteStream> stream, const Limits& limits)
      : stream_(std::move(stream)), limits_(limits), policy_(limits) {}

  Result<void> Open() {
    reader_.reset(archive_read_new());
    raw_entry_.reset(archive_entry_new());
    if (reader_ == nullptr || raw_entry_ == nullptr) {
      return Fail(ErrorCode::kOutOfMemory, "reading tar: no memory for the reader");
    }
    // Opening already reads the first header.
    BeginCapture(0);
    // One format, and no filter: what was compressed has been unpacked before.
    if (archive_read_support_format_tar(reader_.get()) != ARCHIVE_OK ||
        archive_read_open(reader_.get(), this, nullptr, &ReadCallback, nullptr) != ARCHIVE_OK) {
      return ReaderError();
    }
    return {};
  }

  Result<const TarEntry*> NextEntry() override {
    const ScopedCLocale c_locale;
    if (at_end_) return nullptr;
    if (header_ != nullptr) BeginCapture(content_start_ + RoundUpToBlock(stored_));
    const uint64_t header_start = capture_start_;
    const int code = archive_read_next_header2(reader_.get(), raw_entry_.get());
    capturing_ = false;
    // An archive cut inside its last file was completed with zeros.
    if (header_ != nullptr) OCIFS_RETURN_IF_ERROR(CheckNotCut(content_start_ + stored_));
    if (code != ARCHIVE_OK && code != ARCHIVE_EOF &&
        (code != ARCHIVE_WARN || !IsHarmlessWarning(View(archive_error_string(reader_.get()))))) {
      return ReaderError();
    }
    const auto content_start = static_cast<uint64_t>(archive_filter_bytes(reader_.get(), 0));
    if (static_cast<uint64_t>(archive_read_header_position(reader_.get())) != header_start ||
        content_start < header_start) {
      return EntryError(ErrorCode::kCorrupt, "its size has two readings");
    }
    if (code == ARCHIVE_EOF) return ReadToEnd();
    if (++entries_ > limits_.max_entries) {
      return Fail(ErrorCode::kTooLarge, "reading tar: more than " +
                                            std::to_string(limits_.max_entries) +
                                            " entries (limits.max_entries)");
    }
    OCIFS_RETURN_IF_ERROR(CheckNotCut(content_start));
    Result<const TarHeader*> header = policy_.CheckHeaderBlocks(Captured(content_start));
    if (!header) return EntryError(header.error().code, header.error().message);
    header_ = *header;
    content_start_ = content_start;
    stored_ = header_->stored_size;
    given_ = 0;
    region_ = 0;
    region_given_ = 0;
    OCIFS_RETURN_IF_ERROR(CheckReadersAgree());
    OCIFS_RETURN_IF_ERROR(FillEntry());
    in_file_ = header_->type == NodeType::kRegular && !header_->is_hard_link;
    return &entry_;
  }

  Result<TarBlock> NextBlock() override {
    if (!in_file_) return TarBlock{};
    const void* data = nullptr;
    size_t size = 0;
    la_int64_t offset = 0;
    int code = ARCHIVE_OK;
    do {
      code = archive_read_data_block(reader_.get(), &data, &size, &offset);
    } while (code == ARCHIVE_OK && size == 0);
    if (code != ARCHIVE_OK && code != ARCHIVE_EOF) return ReaderError();
    if (code == ARCHIVE_EOF) {
      in_file_ = false;
      if (given_ != stored_) return EntryError(ErrorCode::kCorrupt, "its content is cut short");
      return TarBlock{};
    }
    TarBlock block{static_cast<uint64_t>(offset),
                   {static_cast<const std::byte*>(data), size},
                   content_start_ + given_};
    if (!TakeFromRegions(block)) {
      return EntryError(ErrorCode::kCorrupt, "its sparse map has two readings");
    }
    given_ += size;
    OCIFS_RETURN_IF_ERROR(CheckNotCut(content_start_ + given_));
    return block;
  }

 private:
  static la_ssize_t ReadCallback(archive* reader, void* self, const void** piece) {
    return static_cast<LibarchiveTarReader*>(self)->Read(reader, piece);
  }

  // Hands the next piece of the stream to libarchive, uncopied. Nothing may be thrown through it.
  la_ssize_t Read(archive* reader, const void** piece) noexcept {
    Result<void> result;
    try {
      result = Refill();
    } catch (const std::bad_alloc&) {
      result = Fail(ErrorCode::kOutOfMemory, "reading tar: out of memory");
    }
    if (!result) {
      archive_set_error(reader, EIO, "the stream failed");
      stream_error_ = std::move(result).error();
      return -1;
    }
    *piece = piece_.data();
    return static_cast<la_ssize_t>(piece_.size());
  }

  Result<void> Refill() {
    if (capturing_) OCIFS_RETURN_IF_ERROR(Keep(piece_.size()));
    piece_start_ += piece_.size();
    piece_ = {};
    if (length_) {
      if (!std::exchange(padded_, true)) {
        piece_ = std::span(kZeros).first(RoundUpToBlock(*length_) - *length_ + 2 * kTarBlockBytes);
      }
      return {};
    }
    OCIFS_ASSIGN_OR_RETURN(piece_, stream_->Next());
    if (!piece_.empty()) return {};
    length_ = piece_start_;
    return Refill();
  }

  // From here on, and until capturing_ ends, what libarchive reads is also kept here from stream
  // offset `start`: libarchive's own copy of the header blocks is out of reach.
  void BeginCapture(uint64_t start) {
    capturing_ = true;
    capture_start_ = start;
    kept_.clear();
  }

  // Copies the first `end` bytes of the current piece, less what is before capture_start_.
  Result<void> Keep(size_t end) {
    const size_t begin =
        capture_start_ > piece_start_
            ? static_cast<size_t>(std::min<uint64_t>(capture_start_ - piece_start_, piece_.size()))
            : 0;
    if (begin >= end) return {};
    if (kept_.size() > kMaxTarHeaderBytes) {
      return EntryError(ErrorCode::kTooLarge, "more than 8 MiB of headers");
    }
    // A byte above the bound is enough to be refused by it.
    end = std::min(end, begin + (kMaxTarHeaderBytes + 1 - kept_.size()));
    kept_.insert(kept_.end(), piece_.begin() + static_cast<std::ptrdiff_t>(begin),
                 piece_.begin() + static_cast<std::ptrdiff_t>(end));
    return {};
  }

  // The stream's bytes from capture_start_ to `end`, which is at most the current piece's end.
  // Copied only where a header crosses from one piece to the next.
  std::span<const std::byte> Captured(uint64_t end) {
    const auto in_piece = static_cast<size_t>(end > piece_start_ ? end - piece_start_ : 0);
    if (kept_.empty() && capture_start_ >= piece_start_) {
      return piece_.first(in_piece).subspan(static_cast<size_t>(capture_start_ - piece_start_));
    }
    kept_.insert(kept_.end(), piece_.begin(),
                 piece_.begin() + static_cast<std::ptrdiff_t>(in_piece));
    return std::span(kept_).first(
        std::min(kept_.size(), static_cast<size_t>(end - capture_start_)));
  }

  // libarchive has seen the end of the archive; the stream must hold nothing more.
  Result<const TarEntry*> ReadToEnd() {
    header_ = nullptr;
    in_file_ = false;
    at_end_ = true;
    Result<void> end = TarHeaderPolicy::CheckEnd(Captured(piece_start_ + piece_.size()));
    if (!end) return Fail(end.error().code, "reading tar: " + end.error().message);
    while (!length_) {
      OCIFS_ASSIGN_OR_RETURN(piece_, stream_->Next());
      if (piece_.empty()) break;
      if (!AllZero(piece_)) {
        return Fail(ErrorCode::kCorrupt, "reading tar: data after the end of the archive");
      }
    }
    return nullptr;
  }

  // Refuses when the stream ended before `offset`, and zeros were read in its place.
  Result<void> CheckNotCut(uint64_t offset) const {
    if (!length_ || offset <= *length_) return {};
    return EntryError(ErrorCode::kCorrupt, "the archive ends inside it");
  }

  // What the strict reading of the blocks says, libarchive must say as well.
  Result<void> CheckReadersAgree() const {
    archive_entry* const entry = raw_entry_.get();
    const char* const link =
        header_->is_hard_link ? archive_entry_hardlink(entry) : archive_entry_symlink(entry);
    // libarchive loses the target of a symlink when the header itself has none and a pax record
    // does, unless a link came before.
    const bool link_lost = header_->type == NodeType::kSymlink && link == nullptr;
    const bool is_device =
        header_->type == NodeType::kCharDevice || header_->type == NodeType::kBlockDevice;
    const bool same =
        View(archive_entry_pathname(entry)) == header_->name &&
        (View(link) == header_->link || link_lost) &&
        static_cast<uint64_t>(archive_entry_size(entry)) == header_->file_size &&
        static_cast<uint64_t>(archive_entry_uid(entry)) == header_->uid &&
        static_cast<uint64_t>(archive_entry_gid(entry)) == header_->gid &&
        (archive_entry_perm(entry) & 07777) == header_->mode &&
        (header_->is_hard_link || archive_entry_filetype(entry) == FileTypeOf(header_->type)) &&
        (!is_device || (archive_entry_rdevmajor(entry) == header_->device_major &&
                        archive_entry_rdevminor(entry) == header_->device_minor));
    if (!same) return EntryError(ErrorCode::kCorrupt, "its header has two readings");
    return {};
  }

  static __LA_MODE_T FileTypeOf(NodeType type) {
    switch (type) {
      case NodeType::kRegular:
        return AE_IFREG;
      case NodeType::kDirectory:
        return AE_IFDIR;
      case NodeType::kSymlink:
        return AE_IFLNK;
      case NodeType::kCharDevice:
        return AE_IFCHR;
      case NodeType::kBlockDevice:
        return AE_IFBLK;
      case NodeType::kFifo:
        return AE_IFIFO;
    }
    return 0;
  }

  Result<void> FillEntry() {
    OCIFS_RETURN_IF_ERROR(NormalizePath(header_->name, entry_.path));
    if (entry_.path.empty() && (header_->type != NodeType::kDirectory || header_->is_hard_link)) {
      return EntryError(ErrorCode::kCorrupt, "the root is not a directory");
    }
    NodeAttributes& attributes = entry_.attributes;
    attributes.type = header_->type;
    attributes.mode = header_->mode;
    attributes.uid = header_->uid;
    attributes.gid = header_->gid;
    attributes.mtime_sec = header_->mtime_sec;
    attributes.mtime_nsec = header_->mtime_nsec;
    attributes.size = header_->file_size;
    attributes.device_major = header_->device_major;
    attributes.device_minor = header_->device_minor;
    if (header_->file_size > limits_.max_unpacked_bytes) {
      return EntryError(ErrorCode::kTooLarge, "a file larger than the limit for a package");
    }
    entry_.is_hard_link = header_->is_hard_link;
    entry_.is_absolute = header_->name.starts_with('/');
    entry_.link_target.clear();
    if (header_->is_hard_link) {
      OCIFS_RETURN_IF_ERROR(NormalizePath(header_->link, entry_.link_target));
      if (entry_.link_target.empty()) {
        return EntryError(ErrorCode::kCorrupt, "a hard link to the root");
      }
    } else if (header_->type == NodeType::kSymlink) {
      if (header_->link.size() > kMaxLinkTargetBytes) {
        return EntryError(ErrorCode::kTooLarge, "a symlink target of more than 4095 bytes");
      }
      entry_.link_target = header_->link;
      attributes.size = header_->link.size();
    }
    entry_.xattrs.resize(header_->xattrs.size());
    for (size_t i = 0; i < header_->xattrs.size(); ++i) {
      entry_.xattrs[i].first = header_->xattrs[i].first;
      entry_.xattrs[i].second = header_->xattrs[i].second;
    }
    return {};
  }

  Result<void> NormalizePath(std::string_view raw, std::string& path) const {
    if (Result<void> normal = NormalizeEntryPath(raw, limits_, path); !normal) {
      return EntryError(normal.error().code, normal.error().message);
    }
    return {};
  }

  // Whether `block` is what comes next in the file by the strict reading of its map.
  bool TakeFromRegions(const TarBlock& block) {
    if (!header_->is_sparse) return block.offset == given_;
    const std::vector<SparseRegion>& regions = header_->regions;
    while (region_ < regions.size() && region_given_ == regions[region_].length) {
      ++region_;
      region_given_ = 0;
    }
    if (region_ == regions.size() || block.offset != regions[region_].offset + region_given_ ||
        block.data.size() > regions[region_].length - region_given_) {
      return false;
    }
    region_given_ += block.data.size();
    return true;
  }

  std::unexpected<Error> EntryError(ErrorCode code, std::string_view why) const {
    std::string message = "reading tar: entry " + std::to_string(entries_);
    const std::string_view name = View(archive_entry_pathname(raw_entry_.get()));
    if (!name.empty()) message.append(" \"").append(name.substr(0, 256)).append("\"");
    return Fail(code, message.append(": ").append(why));
  }

  // After a failed call of libarchive.
  std::unexpected<Error> ReaderError() {
    if (stream_error_) return Fail(*stream_error_);
    const ErrorCode code =
        archive_errno(reader_.get()) == ENOMEM ? ErrorCode::kOutOfMemory : ErrorCode::kCorrupt;
    const std::string_view text = View(archive_error_string(reader_.get()));
    return Fail(code, "reading tar: after entry " + std::to_string(entries_) + ": " +
                          std::string(text.empty() ? "malformed archive" : text));
  }

  const std::unique_ptr<ByteStream> stream_;
  const Limits limits_;
  TarHeaderPolicy policy_;
  std::unique_ptr<archive_entry, EntryDeleter> raw_entry_;
  std::unique_ptr<archive, ArchiveDeleter> reader_;

  // The stream, as given to libarchive.
  std::span<const std::byte> piece_;
  uint64_t piece_start_ = 0;
  std::optional<uint64_t> length_;  // of the stream, once it has ended
  bool padded_ = false;             // the zeros after its end were given
  std::optional<Error> stream_error_;
  bool capturing_ = false;
  uint64_t capture_start_ = 0;
  std::vector<std::byte> kept_;

  // The current entry.
  TarEntry entry_;
  const TarHeader* header_ = nullptr;  // policy_'s; null before the first entry and at the end
  uint64_t content_start_ = 0;         // in the stream
  uint64_t stored_ = 0;                // content bytes in the stream
  uint64_t given_ = 0;                 // of these, by NextBlock
  size_t region_ = 0;
  uint64_t region_given_ = 0;  // of the current region
  bool in_file_ = false;       // NextBlock has something to ask for
  bool at_end_ = false;
  uint64_t entries_ = 0;
};

}  // namespace

Result<std::unique_ptr<TarReader>> TarReader::Open(std::unique_ptr<ByteStream> stream,
                                                   const Limits& limits) {
  auto reader = std::make_unique<LibarchiveTarReader>(std::move(stream), limits);
  OCIFS_RETURN_IF_ERROR(reader->Open());
  return reader;
}

bool LooksLikeTar(std::span<const std::byte> head) {
  if (head.size() < kTarBlockBytes) return false;
  if (AllZero(head)) return head.size() >= 2 * kTarBlockBytes;
  return TarChecksumIsRight(head.first(kTarBlockBytes));
}

}  // namespace ocifs::store
