#include "store/check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>

#include "store/blob_store.h"
#include "store/file.h"
#include "store/index.h"
#include "store/manifest.h"
#include "store/pack.h"
#include "store/package.h"
#include "store/reference.h"
#include "store/store.h"
#include "store/store_directory.h"
#include "store/text.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

// FORMAT.md, section "Packs".
constexpr uint32_t kRecordMagic = 0x4B484346;
constexpr size_t kRecordHeaderBytes = RecordBytes(0);
constexpr size_t kCheckedFrom = 8;  // behind magic and checksum
constexpr size_t kDigestAt = 16;

template <typename Number>
Number NumberAt(std::span<const std::byte> bytes, size_t offset) {
  Number number;
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}

bool IsHeaderOf(std::span<const std::byte> header, const ChunkDigest& digest, uint64_t length) {
  return NumberAt<uint32_t>(header, 0) == kRecordMagic &&
         NumberAt<uint32_t>(header, 4) == Crc32c(header.subspan(kCheckedFrom)) &&
         NumberAt<uint64_t>(header, kCheckedFrom) == length &&
         std::equal(digest.bytes.begin(), digest.bytes.end(), header.begin() + kDigestAt);
}

// What is at the location, whatever the index says now.
Result<ChunkState> ReadRecord(const PackSet& packs, const ChunkDigest& digest,
                              const ChunkLocation& location, std::vector<std::byte>& buffer) {
  if (location.length > kMaxChunkBytes || location.offset < kRecordHeaderBytes) {
    return ChunkState::kDamaged;
  }
  const auto length = static_cast<size_t>(location.length);
  buffer.resize(kRecordHeaderBytes + length);
  const ChunkLocation record{location.pack, location.offset - kRecordHeaderBytes, buffer.size()};
  if (Result<void> read = packs.Read(record, 0, buffer); !read) {
    if (read.error().code == ErrorCode::kCorrupt) return ChunkState::kDamaged;
    return Fail(std::move(read).error());
  }
  const std::span<const std::byte> bytes(buffer);
  Hasher hasher;
  hasher.Update(bytes.subspan(kRecordHeaderBytes));
  if (hasher.FinishChunk() != digest) return ChunkState::kDamaged;
  return IsHeaderOf(bytes.first(kRecordHeaderBytes), digest, location.length)
             ? ChunkState::kWhole
             : ChunkState::kDamagedHeader;
}

Result<CheckedChunk> CheckNow(Store& store, const ChunkDigest& digest,
                              std::vector<std::byte>& buffer) {
  // Until its bytes are read, the collector leaves what the snapshot names alone.
  OCIFS_ASSIGN_OR_RETURN(const IndexSnapshot now, store.index().Snapshot());
  OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                         OrMissing(now.FindChunk(digest)));
  if (!location) return CheckedChunk{};
  OCIFS_ASSIGN_OR_RETURN(const ChunkState state,
                         ReadRecord(store.packs(), digest, *location, buffer));
  return CheckedChunk{state, *location};
}

// Errors that say something about the machine and nothing about the store.
bool IsAboutTheMachine(ErrorCode code) {
  return code == ErrorCode::kTooManyFiles || code == ErrorCode::kOutOfMemory;
}

using BytesMoved = std::function<Result<void>(uint64_t)>;

// Empty: the stream has `size` bytes of that digest.
Result<std::string> HashStream(ByteStream& stream, const Digest& digest, uint64_t size,
                               const BytesMoved& moved) {
  Hasher hasher(digest.algorithm());
  uint64_t count = 0;
  while (true) {
    Result<std::span<const std::byte>> piece = stream.Next();
    if (!piece) {
      if (piece.error().code == ErrorCode::kCorrupt) return piece.error().message;
      return Fail(std::move(piece).error());
    }
    if (piece->empty()) break;
    hasher.Update(*piece);
    count += piece->size();
    OCIFS_RETURN_IF_ERROR(moved(piece->size()));
  }
  if (hasher.Finish() != digest) return "its bytes have another digest";
  if (count != size) return "it has another size than the index says";
  return std::string();
}

Result<std::string> CheckBlobOnce(Store& store, const Digest& digest, const BytesMoved& moved) {
  BlobStore& blobs = store.blobs();
  std::optional<BlobRecord> record;
  std::unique_ptr<ByteStream> stream;
  {
    // No file goes between the look at the index and that at the file; what is open stays.
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock,
                           store.LockPublish(Store::PublishMode::kShared));
    OCIFS_ASSIGN_OR_RETURN(record, OrMissing(store.index().FindBlob(digest)));
    if (!record) return std::string();
    OCIFS_ASSIGN_OR_RETURN(stream, blobs.OpenStream(digest));
  }
  if (stream == nullptr) return std::string("there is no file of its size");
  return HashStream(*stream, digest, record->size, moved);
}

class Checker {
 public:
  Checker(Store& store, const CheckOptions& options)
      : store_(store), index_(store.index()), options_(options) {}

  Result<CheckReport> Run() {
    if (const Result<void> verified = index_.Verify(); !verified) {
      if (verified.error().code != ErrorCode::kIndexDamaged) return Fail(verified.error());
      report_.index_error = verified.error().message;
      return std::move(report_);
    }
    OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, index_.Packs());
    OCIFS_ASSIGN_OR_RETURN(const auto blobs, index_.Blobs());
    for (const PackRecord& pack : packs) total_ += pack.live_bytes;
    for (const auto& [digest, record] : blobs) total_ += record.size;
    for (const PackRecord& pack : packs) OCIFS_RETURN_IF_ERROR(TakePack(pack));
    for (const auto& [digest, record] : blobs) OCIFS_RETURN_IF_ERROR(TakeBlob(digest));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> packages, index_.Packages());
    OCIFS_RETURN_IF_ERROR(TakeReferences(packages));
    for (const Digest& manifest : packages) OCIFS_RETURN_IF_ERROR(TakePackage(manifest));
    OCIFS_RETURN_IF_ERROR(TakeLostRecords());
    OCIFS_RETURN_IF_ERROR(CountLeftovers());
    for (const auto& [digest, damage] : damaged_) report_.chunk_damage.push_back(damage);
    std::sort(report_.chunk_damage.begin(), report_.chunk_damage.end(),
              [](const DamagedChunk& a, const DamagedChunk& b) {
                return std::pair(a.location.pack, a.location.offset) <
                       std::pair(b.location.pack, b.location.offset);
              });
    return std::move(report_);
  }

 private:
  // Of a pack in which a walk did not meet all records that live.
  struct Unmet {
    std::vector<uint64_t> met;  // offsets, in order
    uint64_t bytes = 0;         // of those that were not met
    uint64_t transaction = 0;   // the index's last one before the walk
  };

  Result<void> Moved(uint64_t bytes) {
    report_.bytes += bytes;
    if (options_.progress && !options_.progress(report_.bytes, std::max(total_, report_.bytes))) {
      return Fail(ErrorCode::kCancelled, "the check was stopped");
    }
    return {};
  }

  // --- packs ---

  Result<void> TakePack(const PackRecord& pack) {
    ++report_.packs;
    Unmet unmet;
    OCIFS_ASSIGN_OR_RETURN(unmet.transaction, index_.LastTransaction());
    uint64_t live = 0;
    Result<void> result;  // of what was met
    auto visit = [&](const ChunkDigest& digest, const ChunkLocation& location) {
      if (result) result = TakeRecord(digest, location, unmet.met, live);
    };
    Result<void> scanned = store_.packs().Scan(pack.id, visit);
    OCIFS_RETURN_IF_ERROR(result);
    if (!scanned && IsAboutTheMachine(scanned.error().code)) return scanned;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackRecord> now, index_.FindPack(pack.id));
    if (!now || now->live_bytes <= live) return {};
    // Gone, cut, with damaged headers, or changed meanwhile: packages say what should be there.
    unmet.bytes = now->live_bytes - live;
    unmet_.emplace(pack.id, std::move(unmet));
    return {};
  }

  Result<void> TakeRecord(const ChunkDigest& digest, const ChunkLocation& location,
                          std::vector<uint64_t>& met, uint64_t& live) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> known,
                           OrMissing(index_.FindChunk(digest)));
    if (known != location) return {};  // dead
    ++report_.chunks;
    met.push_back(location.offset);
    live += RecordBytes(location.length);
    OCIFS_ASSIGN_OR_RETURN(const ChunkState state,
                           ReadRecord(store_.packs(), digest, location, buffer_));
    if (state != ChunkState::kWhole) OCIFS_RETURN_IF_ERROR(LookAgain(digest, std::nullopt));
    return Moved(location.length);
  }

  // Enters the chunk as damaged if it is. `length`: that which a tree says.
  Result<void> LookAgain(const ChunkDigest& digest, std::optional<uint64_t> length) {
    OCIFS_ASSIGN_OR_RETURN(const CheckedChunk now, CheckNow(store_, digest, buffer_));
    const bool other_length = length && now.location.length != *length;
    if (now.state == ChunkState::kAbsent) return {};
    if (now.state == ChunkState::kWhole && !other_length) return {};
    const bool header_only = now.state == ChunkState::kDamagedHeader && !other_length;
    damaged_.try_emplace(digest, DamagedChunk{.digest = digest,
                                              .location = now.location,
                                              .flaw = header_only ? DamagedChunk::Flaw::kHeader
                                                                  : DamagedChunk::Flaw::kContent});
    return {};
  }

  // A pack that is being written or collected has other records by now.
  Result<void> TakeLostRecords() {
    if (unmet_.empty()) return {};
    OCIFS_ASSIGN_OR_RETURN(const uint64_t last, index_.LastTransaction());
    for (const auto& [pack, unmet] : unmet_) {
      if (unmet.bytes > 0 && unmet.transaction == last) {
        report_.lost_records.push_back(LostRecords{pack, unmet.bytes});
      }
    }
    return {};
  }

  // --- blobs ---

  Result<void> TakeBlob(const Digest& digest) {
    ++report_.blobs;
    const BytesMoved moved = [this](uint64_t bytes) { return Moved(bytes); };
    OCIFS_ASSIGN_OR_RETURN(std::string reason, CheckBlobOnce(store_, digest, moved));
    if (reason.empty()) return {};
    // Its file may have been written anew.
    OCIFS_ASSIGN_OR_RETURN(reason, CheckBlob(store_, digest));
    if (reason.empty()) return {};
    blob_damage_.emplace(digest, report_.blob_damage.size());
    report_.blob_damage.push_back(DamagedBlob{digest, std::move(reason), {}});
    return {};
  }

  // --- references ---

  Result<void> TakeReferences(const std::vector<Digest>& packages) {
    for (const Digest& manifest : packages) references_[manifest];
    OCIFS_ASSIGN_OR_RETURN(const auto refs, index_.Refs(""));
    std::map<Digest, std::set<Digest>> led;  // by root
    for (const auto& [name, record] : refs) {
      if (const auto damage = blob_damage_.find(record.digest); damage != blob_damage_.end()) {
        report_.blob_damage[damage->second].references.push_back(name);
      }
      auto found = led.find(record.digest);
      if (found == led.end()) {
        found = led.emplace(record.digest, std::set<Digest>()).first;
        std::set<Digest> followed;
        OCIFS_RETURN_IF_ERROR(Follow(record.digest, 0, followed, found->second));
      }
      for (const Digest& manifest : found->second) references_[manifest].push_back(name);
    }
    return {};
  }

  Result<void> Follow(const Digest& digest, int depth, std::set<Digest>& followed,
                      std::set<Digest>& manifests) {
    if (references_.contains(digest)) {
      manifests.insert(digest);
      return {};
    }
    if (depth == kMaxIndexDepth || !followed.insert(digest).second) return {};
    OCIFS_ASSIGN_OR_RETURN(const auto document, Parsed(digest));
    const ImageIndex* const index = document ? std::get_if<ImageIndex>(&*document) : nullptr;
    if (index == nullptr) return {};
    for (const Descriptor& child : index->manifests) {
      OCIFS_RETURN_IF_ERROR(Follow(child.digest, depth + 1, followed, manifests));
    }
    return {};
  }

  // Nullopt for what is not there, damaged or no manifest.
  Result<std::optional<std::variant<Manifest, ImageIndex>>> Parsed(const Digest& digest) {
    using Document = std::optional<std::variant<Manifest, ImageIndex>>;
    if (blob_damage_.contains(digest)) return Document();
    OCIFS_ASSIGN_OR_RETURN(const std::string bytes, PeekDocument(store_, digest));
    if (bytes.empty()) return Document();
    auto parsed = ParseDocument(digest, bytes, {});
    return parsed ? Document(*std::move(parsed)) : Document();
  }

  // --- packages ---

  Result<void> TakePackage(const Digest& manifest) {
    ++report_.packages;
    constexpr int kAttempts = 3;  // it may change while it is looked at
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      PackageFindings findings{.manifest = manifest,
                               .references = references_[manifest],
                               .tree_error = {},
                               .file_names = {},
                               .damaged_blobs = {}};
      OCIFS_ASSIGN_OR_RETURN(const bool settled, LookAt(findings));
      if (!settled) continue;
      if (findings.is_damaged() || findings.absent_bytes > 0) {
        report_.findings.push_back(std::move(findings));
      }
      break;
    }
    return {};
  }

  // False: it changed meanwhile.
  Result<bool> LookAt(PackageFindings& findings) {
    std::optional<PackageRecord> record;
    Result<std::unique_ptr<const Tree>> tree(nullptr);
    {
      // No file goes between the look at the index and that at the file.
      OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock,
                             store_.LockPublish(Store::PublishMode::kShared));
      OCIFS_ASSIGN_OR_RETURN(record, OrMissing(index_.FindPackage(findings.manifest)));
      if (!record) return true;
      tree = OpenTree(store_.trees_fd(), findings.manifest, *record);
    }
    if (!tree && IsAboutTheMachine(tree.error().code)) return Fail(std::move(tree).error());
    OCIFS_RETURN_IF_ERROR(TakeBlobsOf(findings));
    if (!tree) {
      findings.tree_error = tree.error().message;
      return true;
    }
    std::optional<ChunkDigest> absent;
    bool is_damaged = false;
    for (uint32_t number = 0; number < (*tree)->chunk_count(); ++number) {
      const ChunkRef chunk = (*tree)->ChunkByNumber(number);
      if (chunk.is_hole) continue;
      OCIFS_ASSIGN_OR_RETURN(const bool present, TakeChunk(chunk));
      if (!present) {
        findings.absent_bytes += chunk.length;
        absent = chunk.digest;
      }
      is_damaged = is_damaged || IsDamaged(chunk);
    }
    if (is_damaged) TakeFiles(**tree, findings);
    if (!record->complete || !absent) return true;
    // In one state of the index, a package that is complete has all of its chunks.
    OCIFS_ASSIGN_OR_RETURN(const IndexSnapshot now, index_.Snapshot());
    OCIFS_ASSIGN_OR_RETURN(record, OrMissing(now.FindPackage(findings.manifest)));
    OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                           OrMissing(now.FindChunk(*absent)));
    findings.claims_too_much = record && record->complete && !location;
    return findings.claims_too_much;
  }

  // Whether the index has the chunk. Looks at it, if that was not done.
  Result<bool> TakeChunk(const ChunkRef& chunk) {
    if (damaged_.contains(chunk.digest)) return true;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                           OrMissing(index_.FindChunk(chunk.digest)));
    if (!location) return false;
    const auto unmet = unmet_.find(location->pack);
    const bool look =
        unmet != unmet_.end() &&
        !std::binary_search(unmet->second.met.begin(), unmet->second.met.end(), location->offset);
    if (!look && location->length == chunk.length) return true;
    OCIFS_RETURN_IF_ERROR(LookAgain(chunk.digest, chunk.length));
    const auto damage = damaged_.find(chunk.digest);
    if (look && damage != damaged_.end()) {
      ++report_.chunks;
      const uint64_t bytes = RecordBytes(damage->second.location.length);
      unmet->second.bytes -= std::min(unmet->second.bytes, bytes);
      OCIFS_RETURN_IF_ERROR(Moved(chunk.length));
    }
    return true;
  }

  bool IsDamaged(const ChunkRef& chunk) const {
    const auto damage = damaged_.find(chunk.digest);
    return damage != damaged_.end() && damage->second.flaw == DamagedChunk::Flaw::kContent;
  }

  // Names the files that need damaged chunks.
  void TakeFiles(const Tree& tree, PackageFindings& findings) {
    std::set<NodeIndex> counted;  // hard links once
    std::vector<std::pair<NodeIndex, std::string>> directories{{0, ""}};
    while (!directories.empty()) {
      const auto [directory, path] = std::move(directories.back());
      directories.pop_back();
      for (uint32_t i = 0; i < tree.ChildCount(directory); ++i) {
        const auto [name, node] = tree.ChildAt(directory, i);
        const NodeType type = tree.Attributes(node).type;
        const auto below = [&] { return path + std::string(name); };
        if (type == NodeType::kDirectory) directories.emplace_back(node, below() + "/");
        if (type != NodeType::kRegular) continue;
        uint64_t bytes = 0;
        for (uint32_t position = 0; position < tree.ChunkCount(node); ++position) {
          const ChunkRef chunk = tree.ChunkAt(node, position);
          if (!chunk.is_hole && IsDamaged(chunk)) bytes += chunk.length;
        }
        if (bytes == 0 || !counted.insert(node).second) continue;
        ++findings.damaged_files;
        findings.damaged_bytes += bytes;
        if (findings.file_names.size() < PackageFindings::kNamedFiles) {
          findings.file_names.push_back(below());
        }
      }
    }
  }

  Result<void> TakeBlobsOf(PackageFindings& findings) {
    if (blob_damage_.empty()) return {};
    auto take = [&](const Digest& digest) {
      if (blob_damage_.contains(digest)) findings.damaged_blobs.push_back(digest);
    };
    take(findings.manifest);
    OCIFS_ASSIGN_OR_RETURN(const auto document, Parsed(findings.manifest));
    const Manifest* const manifest = document ? std::get_if<Manifest>(&*document) : nullptr;
    if (manifest == nullptr) return {};
    take(manifest->config.digest);
    for (const Descriptor& layer : manifest->layers) take(layer.digest);
    return {};
  }

  // --- leftovers ---

  Result<void> CountLeftovers() {
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd root,
                           OpenAt(AT_FDCWD, store_.root(), O_RDONLY | O_DIRECTORY));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, index_.Packs());
    std::set<std::string> known;
    for (const PackRecord& pack : packs) known.insert(PackSet::FileName(pack.id));
    OCIFS_RETURN_IF_ERROR(CountIn(root.get(), "packs", [&](const std::string& name) {
      return Result<bool>(known.contains(name));
    }));
    OCIFS_RETURN_IF_ERROR(
        CountIn(root.get(), "trees", [&](const std::string& name) -> Result<bool> {
          const std::optional<Digest> manifest = ManifestOfTree(name);
          if (!manifest) return false;
          OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> package,
                                 OrMissing(index_.FindPackage(*manifest)));
          return package && !package->tree;
        }));
    for (const DigestAlgorithm algorithm : {DigestAlgorithm::kSha256, DigestAlgorithm::kSha512}) {
      const std::string prefix(DigestAlgorithmName(algorithm));
      OCIFS_RETURN_IF_ERROR(
          CountIn(root.get(), "blobs/" + prefix, [&](const std::string& name) -> Result<bool> {
            const Result<Digest> digest =
                Digest::Parse(std::string(prefix).append(":").append(name));
            if (!digest) return false;
            OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> blob,
                                   OrMissing(index_.FindBlob(*digest)));
            return blob && !blob->content;
          }));
    }
    return {};
  }

  template <typename IsKnown>
  Result<void> CountIn(int root_fd, const std::string& folder, IsKnown is_known) {
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd directory,
                           OpenAt(root_fd, folder, O_RDONLY | O_DIRECTORY));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory.get()));
    for (const std::string& name : names) {
      OCIFS_ASSIGN_OR_RETURN(const bool known, is_known(name));
      struct stat status;
      if (known || fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
          S_ISDIR(status.st_mode)) {
        continue;
      }
      ++report_.leftover_files;
      report_.leftover_bytes += static_cast<uint64_t>(status.st_blocks) * 512;
    }
    return {};
  }

  Store& store_;
  Index& index_;
  const CheckOptions& options_;
  CheckReport report_;
  uint64_t total_ = 0;
  std::vector<std::byte> buffer_;
  std::map<uint32_t, Unmet> unmet_;  // by pack
  std::unordered_map<ChunkDigest, DamagedChunk, ChunkDigestHash> damaged_;
  std::unordered_map<Digest, size_t, DigestHash> blob_damage_;  // position in the report
  std::map<Digest, std::vector<std::string>> references_;       // by manifest
};

}  // namespace

bool CheckReport::is_clean() const {
  return index_error.empty() && chunk_damage.empty() && blob_damage.empty() &&
         lost_records.empty() &&
         std::none_of(findings.begin(), findings.end(),
                      [](const PackageFindings& package) { return package.is_damaged(); });
}

Result<CheckReport> CheckStore(Store& store, const CheckOptions& options) {
  return Checker(store, options).Run();
}

Result<CheckedChunk> CheckChunk(Store& store, const ChunkDigest& digest) {
  std::vector<std::byte> buffer;
  return CheckNow(store, digest, buffer);
}

Result<std::string> CheckBlob(Store& store, const Digest& digest) {
  return CheckBlobOnce(store, digest, [](uint64_t) { return Result<void>(); });
}

Result<std::string> PeekDocument(Store& store, const Digest& digest) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream,
                         store.blobs().OpenStream(digest));
  std::string document;
  if (stream == nullptr) return document;
  while (true) {
    Result<std::span<const std::byte>> piece = stream->Next();
    if (!piece && piece.error().code == ErrorCode::kCorrupt) return std::string();
    if (!piece) return Fail(std::move(piece).error());
    if (piece->empty()) return document;
    document.append(reinterpret_cast<const char*>(piece->data()), piece->size());
    if (document.size() > kMaxDocumentBytes) return std::string();
  }
}

}  // namespace ocifs::store
