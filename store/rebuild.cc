#include "store/rebuild.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "store/file.h"
#include "store/index.h"
#include "store/index_records.h"
#include "store/journal.h"
#include "store/log.h"
#include "store/pack.h"
#include "store/store_directory.h"
#include "store/text.h"
#include "store/tree.h"

namespace ocifs::store {
namespace {

constexpr const char* kIndex = "index";
constexpr const char* kNewIndex = "index.new";
constexpr const char* kOldIndex = "index.old";
constexpr size_t kPerCommit = 50'000;

bool Exists(int fd, const std::string& name) {
  struct stat status;
  return fstatat(fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

// With all that is in it, whatever somebody put there.
Result<void> RemoveDirectory(int parent_fd, const std::string& name) {
  if (!Exists(parent_fd, name)) return {};
  {
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenAt(parent_fd, name, O_RDONLY | O_DIRECTORY));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(fd.get()));
    for (const std::string& entry : names) {
      if (unlinkat(fd.get(), entry.c_str(), 0) == 0 || errno != EISDIR) continue;
      OCIFS_RETURN_IF_ERROR(RemoveDirectory(fd.get(), entry));
    }
  }
  if (unlinkat(parent_fd, name.c_str(), AT_REMOVEDIR) != 0) {
    return Fail(ErrorFromErrno(errno, "removing " + name));
  }
  return {};
}

Result<void> Rename(int fd, const char* from, const char* to) {
  if (renameat(fd, from, fd, to) != 0) {
    return Fail(ErrorFromErrno(errno, "renaming " + std::string(from)));
  }
  return SyncDirectory(fd, "the store");
}

// Collects changes and commits them in portions.
class Rebuilder {
 public:
  Rebuilder(int root_fd, Index& index) : root_fd_(root_fd), index_(index) {}

  Result<void> AddJournal(int directory_fd);
  Result<void> AddTrees();
  Result<void> AddBlobs();
  Result<void> AddPacks();
  Result<void> Commit() {
    count_ = 0;
    return index_.Commit(std::exchange(batch_, {}));
  }
  const RebuildReport& report() const { return report_; }

 private:
  Result<void> AddJournalRecord(IndexTable table, const std::string& key, const std::string& value);
  // Whether the new index, as far as it is committed, has all chunks of the tree.
  Result<bool> IsComplete(const Tree& tree) const;
  Result<void> Count() {
    if (++count_ < kPerCommit) return {};
    return Commit();
  }
  void Refuse(const std::string& what) {
    ++report_.refused;
    Log(LogLevel::kWarning, what + "; left out of the new index");
  }

  const int root_fd_;
  Index& index_;
  IndexBatch batch_;
  size_t count_ = 0;
  RebuildReport report_;
};

Result<void> Rebuilder::AddJournalRecord(IndexTable table, const std::string& key,
                                         const std::string& value) {
  auto refuse = [&] { Refuse("a record of the journal does not fit its key"); };
  switch (table) {
    case IndexTable::kRefs: {
      const std::optional<RefRecord> ref = DecodeRef(key, value);
      const Result<Reference> reference = Reference::Parse(key);
      if (!ref || !reference) return refuse(), Result<void>();
      batch_.PutRef(*reference, *ref);
      ++report_.references;
      return Count();
    }
    case IndexTable::kPins: {
      const std::optional<PinRecord> pin = DecodePin(key, value);
      if (!pin) return refuse(), Result<void>();
      batch_.PutPin(*pin);
      ++report_.pins;
      return Count();
    }
    case IndexTable::kSlots: {
      const std::optional<SlotRecord> slot = DecodeSlot(key, value);
      if (!slot) return refuse(), Result<void>();
      batch_.PutSlot(*slot);
      return Count();
    }
    case IndexTable::kBlobs: {
      const std::optional<Digest> digest = DigestFromKey(key);
      const std::optional<BlobRecord> blob = DecodeBlob(key, value);
      if (!digest || !blob || !blob->content ||
          Digest::Of(AsBytes(*blob->content), digest->algorithm()) != *digest) {
        return refuse(), Result<void>();
      }
      batch_.PutBlob(*digest, *blob);
      ++report_.blobs;
      return Count();
    }
    case IndexTable::kPackages: {
      const std::optional<Digest> digest = DigestFromKey(key);
      const std::optional<PackageRecord> package = DecodePackage(key, value);
      if (!digest || !package || !package->tree) return refuse(), Result<void>();
      const auto bytes = AsBytes(*package->tree);
      const Result<std::unique_ptr<const Tree>> tree =
          Tree::FromBytes({bytes.begin(), bytes.end()});
      if (!tree || (*tree)->manifest() != *digest) return refuse(), Result<void>();
      PackageRecord record = *package;
      OCIFS_ASSIGN_OR_RETURN(record.complete, IsComplete(**tree));
      batch_.PutPackage(*digest, record);
      ++report_.packages;
      return Count();
    }
    case IndexTable::kChunks:
    case IndexTable::kPacks:
    case IndexTable::kTags:
    case IndexTable::kMeta:
      break;
  }
  refuse();
  return {};
}

Result<bool> Rebuilder::IsComplete(const Tree& tree) const {
  for (uint32_t i = 0; i < tree.chunk_count(); ++i) {
    const ChunkRef chunk = tree.ChunkByNumber(i);
    if (chunk.is_hole) continue;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                           index_.FindChunk(chunk.digest));
    if (!location) return false;
  }
  return true;
}

Result<void> Rebuilder::AddJournal(int directory_fd) {
  OCIFS_ASSIGN_OR_RETURN(const JournalContent content, ReadJournal(directory_fd));
  if (content.damaged_bytes > 0) {
    Refuse(std::to_string(content.damaged_bytes) + " bytes of the journal are damaged");
  }
  for (const auto& [key, value] : content.values) {
    OCIFS_RETURN_IF_ERROR(AddJournalRecord(key.first, key.second, value));
  }
  return {};
}

Result<void> Rebuilder::AddTrees() {
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd trees, OpenDirectory(root_fd_, "trees", 0700));
  OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(trees.get()));
  for (const std::string& name : names) {
    const std::optional<Digest> manifest = ManifestOfTree(name);
    if (!manifest) continue;
    struct stat status;
    if (fstatat(trees.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    const Result<std::unique_ptr<const Tree>> tree = Tree::Open(trees.get(), name);
    if (!tree || (*tree)->manifest() != *manifest) {
      Refuse("tree " + name + ": " + (tree ? "it is another package's" : tree.error().message));
      continue;
    }
    OCIFS_ASSIGN_OR_RETURN(const bool complete, IsComplete(**tree));
    batch_.PutPackage(*manifest, PackageRecord{.tree_bytes = static_cast<uint64_t>(status.st_size),
                                               .content_bytes = (*tree)->content_bytes(),
                                               .nodes = (*tree)->node_count(),
                                               .fetched_at = status.st_mtim.tv_sec,
                                               .used_at = status.st_mtim.tv_sec,
                                               .tree = std::nullopt,
                                               .complete = complete});
    ++report_.packages;
    OCIFS_RETURN_IF_ERROR(Count());
  }
  return {};
}

Result<void> Rebuilder::AddBlobs() {
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd blobs, OpenDirectory(root_fd_, "blobs", 0700));
  for (const DigestAlgorithm algorithm : {DigestAlgorithm::kSha256, DigestAlgorithm::kSha512}) {
    const std::string algorithm_name(DigestAlgorithmName(algorithm));
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd directory,
                           OpenDirectory(blobs.get(), algorithm_name, 0700));
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory.get()));
    for (const std::string& name : names) {
      const Result<Digest> digest =
          Digest::Parse(std::string(algorithm_name).append(":").append(name));
      struct stat status;
      if (!digest || fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
          !S_ISREG(status.st_mode)) {
        continue;
      }
      // Who reads it first in a process checks the digest.
      batch_.PutBlob(*digest, BlobRecord{static_cast<uint64_t>(status.st_size), std::nullopt});
      ++report_.blobs;
      OCIFS_RETURN_IF_ERROR(Count());
    }
  }
  return {};
}

Result<void> Rebuilder::AddPacks() {
  OCIFS_ASSIGN_OR_RETURN(UniqueFd directory, OpenDirectory(root_fd_, "packs", 0700));
  OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory.get()));
  std::vector<uint32_t> packs;
  for (const std::string& name : names) {
    const std::optional<std::string> bytes = FromHex(name.substr(0, name.find('.')));
    const std::optional<uint32_t> pack = bytes ? IntegerFromKey(*bytes) : std::nullopt;
    if (pack && PackSet::FileName(*pack) == name) packs.push_back(*pack);
  }
  // The later record of a digest counts.
  std::sort(packs.begin(), packs.end());
  const PackSet set(std::move(directory), index_);
  for (const uint32_t pack : packs) {
    uint64_t length = 0;
    Result<void> added;
    const Result<void> scanned =
        set.Scan(pack, [&](const ChunkDigest& digest, const ChunkLocation& location) {
          if (!added) return;
          batch_.PutChunk(digest, location);
          ++report_.chunks;
          length = location.offset - RecordBytes(0) + RecordBytes(location.length);
          added = Count();
        });
    OCIFS_RETURN_IF_ERROR(std::move(added));
    if (!scanned) Refuse("pack " + PackSet::FileName(pack) + ": " + scanned.error().message);
    // One without a record stays known, so that its number is not given again.
    batch_.RaisePack(pack, length);
    OCIFS_RETURN_IF_ERROR(Count());
  }
  return {};
}

}  // namespace

Result<RebuildReport> RebuildIndex(int root_fd, const std::string& root, std::string_view why) {
  const auto begin = std::chrono::steady_clock::now();
  Log(LogLevel::kWarning, "making the index of " + root + " anew: " + std::string(why));
  OCIFS_RETURN_IF_ERROR(RemoveDirectory(root_fd, kNewIndex));
  OCIFS_RETURN_IF_ERROR(RemoveDirectory(root_fd, kOldIndex));
  RebuildReport report;
  {
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd old_index, OpenDirectory(root_fd, kIndex, 0700));
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd directory, OpenDirectory(root_fd, kNewIndex, 0700));
    OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Index> index, Index::Open(root + "/" + kNewIndex));
    Rebuilder rebuilder(root_fd, *index);
    // Chunks first: they say which packages are complete. Packages and blobs that are files count
    // more than what the journal says of them.
    OCIFS_RETURN_IF_ERROR(rebuilder.AddPacks());
    OCIFS_RETURN_IF_ERROR(rebuilder.Commit());
    OCIFS_RETURN_IF_ERROR(rebuilder.AddJournal(old_index.get()));
    OCIFS_RETURN_IF_ERROR(rebuilder.AddTrees());
    OCIFS_RETURN_IF_ERROR(rebuilder.AddBlobs());
    OCIFS_RETURN_IF_ERROR(rebuilder.Commit());
    report = rebuilder.report();
    if (Result<UniqueFd> journal = OpenAt(directory.get(), Journal::kName, O_RDONLY); journal) {
      OCIFS_RETURN_IF_ERROR(SyncData(journal->get(), "the journal of the index"));
    }
    OCIFS_RETURN_IF_ERROR(SyncDirectory(directory.get(), kNewIndex));
  }
  OCIFS_RETURN_IF_ERROR(Rename(root_fd, kIndex, kOldIndex));
  OCIFS_RETURN_IF_ERROR(Rename(root_fd, kNewIndex, kIndex));
  OCIFS_RETURN_IF_ERROR(RemoveDirectory(root_fd, kOldIndex));
  report.duration = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - begin);
  Log(LogLevel::kWarning,
      "the index of " + root + " is there again: " + std::to_string(report.packages) +
          " packages, " + std::to_string(report.chunks) + " chunks, " +
          std::to_string(report.blobs) + " blobs, " + std::to_string(report.references) +
          " references and " + std::to_string(report.pins) + " pins, " +
          std::to_string(report.refused) + " things refused, in " +
          std::to_string(report.duration.count()) + " ms");
  return report;
}

Result<void> FinishRebuild(int root_fd) {
  // Between the two renames the old one is under its other name, and has the journal.
  if (!Exists(root_fd, kIndex) && Exists(root_fd, kOldIndex)) {
    OCIFS_RETURN_IF_ERROR(Rename(root_fd, kOldIndex, kIndex));
  }
  OCIFS_RETURN_IF_ERROR(RemoveDirectory(root_fd, kOldIndex));
  return RemoveDirectory(root_fd, kNewIndex);
}

Result<bool> HoldsContent(int root_fd) {
  const std::string journal = std::string(kIndex) + "/" + Journal::kName;
  struct stat status;
  if (fstatat(root_fd, journal.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size > 0) {
    return true;
  }
  for (const char* name : {"packs", "trees", "blobs/sha256", "blobs/sha512"}) {
    const Result<UniqueFd> directory = OpenAt(root_fd, name, O_RDONLY | O_DIRECTORY);
    if (!directory) continue;
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory->get()));
    if (!names.empty()) return true;
  }
  return false;
}

}  // namespace ocifs::store
