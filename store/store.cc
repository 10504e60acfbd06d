#include "store/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "store/blob_store.h"
#include "store/file.h"
#include "store/log.h"
#include "store/pack.h"
#include "store/staged_file.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr std::string_view kFormat = "ocifs store\nversion 1\n";

struct RemoteFilesystem {
  uint64_t magic;
  const char* name;
};
// statfs(2), f_type. LMDB needs memory maps and locks that all users of the file share.
constexpr std::array<RemoteFilesystem, 8> kRemoteFilesystems = {{{0x6969, "NFS"},
                                                                 {0xFF534D42, "CIFS"},
                                                                 {0xFE534D42, "SMB2"},
                                                                 {0x517B, "SMB"},
                                                                 {0x01021997, "9p"},
                                                                 {0x00C36400, "Ceph"},
                                                                 {0x5346414F, "AFS"},
                                                                 {0x65735546, "FUSE"}}};

std::unexpected<Error> Unusable(const std::string& root, const std::string& reason) {
  return Fail(ErrorCode::kInvalid, "store " + root + ": " + reason);
}

Result<void> MakeDirectories(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      return Fail(ErrorFromErrno(errno, "creating directory " + part));
    }
    if (slash == std::string::npos) return {};
  }
}

// Writes the format file under its final name only when it is whole.
Result<void> Initialise(int fd) {
  OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(fd));
  OCIFS_RETURN_IF_ERROR(file.Append(AsBytes(kFormat)));
  OCIFS_RETURN_IF_ERROR(file.Publish("format"));
  return SyncDirectory(fd, "the store");
}

Result<void> CheckFormat(int fd, const std::string& root) {
  Result<UniqueFd> format = OpenAt(fd, "format", O_RDONLY);
  if (!format) {
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(fd));
    const bool empty = std::all_of(names.begin(), names.end(), [](const std::string& name) {
      // A format file that another process is about to name, or could not; the top of an ext4.
      return name.starts_with(StagedFile::kLeftoverPrefix) || name == "lost+found";
    });
    // Made by another process since we looked?
    if (!empty) format = OpenAt(fd, "format", O_RDONLY);
    if (!empty && !format) {
      return Unusable(root, "the directory is not empty and holds no store; give an empty one");
    }
  }
  if (!format) {
    if (fchmod(fd, 0700) != 0) return Fail(ErrorFromErrno(errno, "chmod of " + root));
    return Initialise(fd);
  }
  std::array<char, 256> text;
  const ssize_t count = read(format->get(), text.data(), text.size());
  if (count < 0) return Fail(ErrorFromErrno(errno, "reading " + root + "/format"));
  const std::string_view found(text.data(), static_cast<size_t>(count));
  if (found != kFormat) {
    return Unusable(root, "its format is '" + EscapeForDisplay(found.substr(0, 60)) +
                              "', this ocifs knows 'ocifs store, version 1'; use the ocifs that "
                              "made it, or another directory");
  }
  struct stat status;
  if (fstat(fd, &status) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  if ((status.st_mode & 077) != 0) {
    return Unusable(root, "other users can enter it; run: chmod 700 " + root);
  }
  return {};
}

constexpr off_t kInUseByte = 0;  // shared by all who have the store open

// Sets an open-file-description lock on one byte; false when another process is in the way.
Result<bool> SetLock(int fd, short type, off_t byte) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return Fail(ErrorFromErrno(errno, "locking the store"));
}

constexpr std::string_view kTreeSuffix = ".tree";

// The inverse of Store::TreeFileName.
std::optional<Digest> ManifestOfTree(std::string_view name) {
  if (!name.ends_with(kTreeSuffix)) return std::nullopt;
  const std::string hex(name.substr(0, name.size() - kTreeSuffix.size()));
  const Result<Digest> digest = Digest::Parse((hex.size() == 64 ? "sha256:" : "sha512:") + hex);
  return digest ? std::optional(*digest) : std::nullopt;
}

}  // namespace

class Store::Rep {
 public:
  std::string root;
  UniqueFd directory;
  UniqueFd lock;
  UniqueFd trees;
  std::unique_ptr<Index> index;
  std::unique_ptr<PackSet> packs;
  std::unique_ptr<BlobStore> blobs;

  // Trees that no package names, and files left by killed processes.
  Result<void> RemoveLeftovers();
};

Result<void> Store::Rep::RemoveLeftovers() {
  OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(directory.get()));
  OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(trees.get()));
  OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(trees.get()));
  for (const std::string& name : names) {
    const std::optional<Digest> manifest = ManifestOfTree(name);
    if (!manifest) continue;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> package,
                           OrMissing(index->FindPackage(*manifest)));
    if (package) continue;
    unlinkat(trees.get(), name.c_str(), 0);
    Log(LogLevel::kInfo, "removed tree " + name + ", which no package uses");
  }
  OCIFS_RETURN_IF_ERROR(packs->RemoveLeftovers());
  return blobs->RemoveLeftovers();
}

Store::Store(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::Open(const std::string& root) {
  if (root.empty() || root.front() != '/') {
    return Unusable(root, "write the directory as an absolute path");
  }
  auto rep = std::make_unique<Rep>();
  rep->root = root;
  OCIFS_RETURN_IF_ERROR(MakeDirectories(root));
  // The last component may be a link: where the store lies is the owner's choice.
  const int fd = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrorFromErrno(errno, "opening store " + root));
  rep->directory.reset(fd);

  struct stat status;
  if (fstat(fd, &status) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  if (status.st_uid != geteuid()) {
    return Unusable(root, "it belongs to uid " + std::to_string(status.st_uid) + ", not to uid " +
                              std::to_string(geteuid()) + "; give another directory with --store");
  }
  struct statfs filesystem;
  if (fstatfs(fd, &filesystem) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  for (const RemoteFilesystem& remote : kRemoteFilesystems) {
    if (static_cast<uint64_t>(filesystem.f_type) == remote.magic) {
      return Unusable(
          root, std::string("it lies on ") + remote.name + "; a store needs a local filesystem");
    }
  }
  OCIFS_RETURN_IF_ERROR(CheckFormat(fd, root));

  OCIFS_ASSIGN_OR_RETURN(rep->lock, OpenAt(fd, "lock", O_RDWR | O_CREAT, 0600));
  OCIFS_ASSIGN_OR_RETURN(const bool alone, SetLock(rep->lock.get(), F_WRLCK, kInUseByte));
  if (!alone) {
    // Others have it open; one of them may be alone for the moment of its clean-up.
    OCIFS_ASSIGN_OR_RETURN(bool shared, SetLock(rep->lock.get(), F_RDLCK, kInUseByte));
    for (int tries = 0; !shared && tries < 500; ++tries) {
      usleep(10'000);
      OCIFS_ASSIGN_OR_RETURN(shared, SetLock(rep->lock.get(), F_RDLCK, kInUseByte));
    }
    if (!shared) return Unusable(root, "another process has it for itself; try again later");
  }
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd index_directory, OpenDirectory(fd, "index", 0700));
  OCIFS_ASSIGN_OR_RETURN(rep->trees, OpenDirectory(fd, "trees", 0700));
  OCIFS_ASSIGN_OR_RETURN(UniqueFd packs, OpenDirectory(fd, "packs", 0700));
  OCIFS_ASSIGN_OR_RETURN(UniqueFd blobs, OpenDirectory(fd, "blobs", 0700));
  OCIFS_ASSIGN_OR_RETURN(rep->index, Index::Open(root + "/index"));
  rep->packs = std::make_unique<PackSet>(std::move(packs), *rep->index);
  OCIFS_ASSIGN_OR_RETURN(rep->blobs, BlobStore::Open(std::move(blobs), *rep->index));
  if (alone) {
    OCIFS_RETURN_IF_ERROR(rep->RemoveLeftovers());
    // From exclusive to shared in one step.
    OCIFS_ASSIGN_OR_RETURN(const bool shared, SetLock(rep->lock.get(), F_RDLCK, kInUseByte));
    if (!shared) return Fail(ErrorCode::kInternal, "a lock could not be weakened");
  }
  return std::unique_ptr<Store>(new Store(std::move(rep)));
}

const std::string& Store::root() const { return rep_->root; }

Result<StoreUsage> Store::Usage() {
  StoreUsage usage;
  struct statvfs space;
  if (fstatvfs(rep_->directory.get(), &space) != 0) {
    return Fail(ErrorFromErrno(errno, "reading the space of " + rep_->root));
  }
  usage.filesystem_size = uint64_t{space.f_blocks} * space.f_frsize;
  usage.filesystem_free = uint64_t{space.f_bavail} * space.f_frsize;
  OCIFS_ASSIGN_OR_RETURN(const std::vector<PackRecord> packs, rep_->index->Packs());
  for (const PackRecord& pack : packs) {
    if (pack.length != PackRecord::kUnknownLength) usage.pack_bytes += pack.length;
  }
  OCIFS_ASSIGN_OR_RETURN(usage.packages, rep_->index->PackageCount());
  return usage;
}

Result<std::vector<SlotRecord>> Store::LoadSlots() { return rep_->index->Slots(); }

Result<void> Store::SaveSlots(std::span<const SlotRecord> records) {
  IndexBatch batch;
  for (const SlotRecord& record : records) batch.PutSlot(record);
  return rep_->index->Commit(std::move(batch));
}

namespace {

class BytePullLock final : public Store::PullLock {
 public:
  explicit BytePullLock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  const UniqueFd fd_;  // closing it ends the lock
};

}  // namespace

Result<std::unique_ptr<Store::PullLock>> Store::TryLockPull(const Digest& digest) {
  OCIFS_ASSIGN_OR_RETURN(UniqueFd fd, OpenAt(rep_->directory.get(), "lock", O_RDWR));
  // One byte stands for one digest. Two digests that meet in one byte only wait for each other.
  const size_t hash = DigestHash()(digest);
  const off_t byte = 1 + static_cast<off_t>(hash & ((uint64_t{1} << 62) - 1));
  OCIFS_ASSIGN_OR_RETURN(const bool locked, SetLock(fd.get(), F_WRLCK, byte));
  if (!locked) return nullptr;
  return std::make_unique<BytePullLock>(std::move(fd));
}

Index& Store::index() { return *rep_->index; }
PackSet& Store::packs() { return *rep_->packs; }
BlobStore& Store::blobs() { return *rep_->blobs; }
std::string Store::TreeFileName(const Digest& manifest) {
  return manifest.hex() + std::string(kTreeSuffix);
}

int Store::trees_fd() const { return rep_->trees.get(); }

}  // namespace ocifs::store
