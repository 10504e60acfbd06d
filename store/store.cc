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
#include <unordered_map>
#include <utility>

#include "store/blob_store.h"
#include "store/collector.h"
#include "store/file.h"
#include "store/log.h"
#include "store/mutex.h"
#include "store/pack.h"
#include "store/space.h"
#include "store/staged_file.h"
#include "store/store_directory.h"
#include "store/text.h"

namespace ocifs::store {
class Store::Rep {
 public:
  std::string root;
  UniqueFd directory;
  UniqueFd lock;
  UniqueFd trees;
  std::unique_ptr<Index> index;
  std::unique_ptr<PackSet> packs;
  std::unique_ptr<BlobStore> blobs;

  std::unique_ptr<Space> space;

  Mutex mutex;
  CondVar changed;
  bool making_room OCIFS_GUARDED_BY(mutex) = false;
  std::unordered_map<Digest, int64_t, DigestHash> uses OCIFS_GUARDED_BY(mutex);

  // Of trees that no package names.
  Result<uint64_t> RemoveUnnamedTrees();
  // Those, and files left by killed processes.
  Result<void> RemoveLeftovers();
  // Bytes of all that has a name.
  Result<uint64_t> Measure() const;
};

Result<void> Store::Rep::RemoveLeftovers() {
  OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(directory.get()));
  OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(trees.get()));
  OCIFS_RETURN_IF_ERROR(RemoveUnnamedTrees());
  OCIFS_RETURN_IF_ERROR(packs->RemoveLeftovers());
  OCIFS_RETURN_IF_ERROR(blobs->RemoveLeftovers());
  return {};
}

Result<uint64_t> Store::Rep::RemoveUnnamedTrees() {
  uint64_t bytes = 0;
  OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(trees.get()));
  for (const std::string& name : names) {
    const std::optional<Digest> manifest = ManifestOfTree(name);
    if (!manifest) continue;
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> package,
                           OrMissing(index->FindPackage(*manifest)));
    if (package && !package->tree) continue;
    struct stat status;
    if (fstatat(trees.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (unlinkat(trees.get(), name.c_str(), 0) == 0) bytes += static_cast<uint64_t>(status.st_size);
  }
  return bytes;
}

Result<uint64_t> Store::Rep::Measure() const {
  OCIFS_ASSIGN_OR_RETURN(const uint64_t packed, packs->DiskBytes());
  OCIFS_ASSIGN_OR_RETURN(const IndexTotals totals, index->Totals());
  struct stat journal;
  const bool has_journal = fstatat(directory.get(), "index/journal", &journal, 0) == 0;
  return packed + totals.blob_file_bytes + totals.tree_file_bytes + index->FileBytes() +
         (has_journal ? static_cast<uint64_t>(journal.st_size) : 0);
}

Store::Store(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::Open(const std::string& root, const OpenOptions& options) {
  OCIFS_ASSIGN_OR_RETURN(
      StoreDirectory opened,
      OpenStoreDirectory(root,
                         options.rebuild_index ? IndexRebuild::kAlways : IndexRebuild::kIfDamaged));
  auto rep = std::make_unique<Rep>();
  rep->root = root;
  rep->directory = std::move(opened.root);
  rep->trees = std::move(opened.trees);
  rep->index = std::move(opened.index);
  rep->space =
      std::make_unique<Space>(rep->directory.get(), [rep = rep.get()] { return rep->Measure(); });
  rep->packs = std::make_unique<PackSet>(std::move(opened.packs), *rep->index, rep->space.get());
  OCIFS_ASSIGN_OR_RETURN(rep->blobs,
                         BlobStore::Open(std::move(opened.blobs), *rep->index, rep->space.get()));
  if (opened.alone) OCIFS_RETURN_IF_ERROR(rep->RemoveLeftovers());
  OCIFS_RETURN_IF_ERROR(opened.Share());
  rep->lock = std::move(opened.lock);
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

class ByteLock final : public Store::Lock {
 public:
  explicit ByteLock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  const UniqueFd fd_;  // closing it ends the lock
};

// A description of its own for each lock: they belong to descriptions.
Result<std::unique_ptr<Store::Lock>> TakeLock(int directory_fd, short type, off_t byte,
                                              LockWait wait) {
  Result<UniqueFd> fd = OpenAt(directory_fd, "lock", O_RDWR);
  if (!fd) {
    // Nobody writes a store that cannot be written.
    if (fd.error().code == ErrorCode::kNoSpace) return std::make_unique<ByteLock>(UniqueFd());
    return Fail(std::move(fd).error());
  }
  OCIFS_ASSIGN_OR_RETURN(const bool locked, SetLock(fd->get(), type, byte, wait));
  if (!locked) return nullptr;
  return std::make_unique<ByteLock>(*std::move(fd));
}

}  // namespace

Result<std::unique_ptr<Store::Lock>> Store::TryLockPull(const Digest& digest) {
  // One byte stands for one digest. Two digests that meet in one byte only wait for each other.
  const size_t hash = DigestHash()(digest);
  const off_t byte = kFirstDigestByte + static_cast<off_t>(hash & ((uint64_t{1} << 62) - 1));
  return TakeLock(rep_->directory.get(), F_WRLCK, byte, LockWait::kNever);
}

Result<std::unique_ptr<Store::Lock>> Store::TryLockDaemon() {
  return TakeLock(rep_->directory.get(), F_WRLCK, kDaemonByte, LockWait::kNever);
}

Result<std::unique_ptr<Store::Lock>> Store::TryLockCollector() {
  return TakeLock(rep_->directory.get(), F_WRLCK, kCollectorByte, LockWait::kNever);
}

Result<std::unique_ptr<Store::Lock>> Store::LockPublish(PublishMode mode) {
  return TakeLock(rep_->directory.get(), mode == PublishMode::kShared ? F_RDLCK : F_WRLCK,
                  kPublishByte, LockWait::kAlways);
}

void Store::SetLimits(const StoreLimits& limits) {
  rep_->space->SetLimits(limits, [this](uint64_t bytes) { MakeRoom(bytes); });
}

Space& Store::space() { return *rep_->space; }

namespace {
// A collection that moves content writes, too, and has to do with the room there is.
thread_local bool is_collecting = false;
}  // namespace

void Store::MakeRoom(uint64_t bytes) {
  if (is_collecting) return;
  bool waited = false;
  {
    const MutexLock lock(rep_->mutex);
    for (; rep_->making_room; waited = true) rep_->changed.Wait(rep_->mutex);
    rep_->making_room = true;
  }
  // What another thread made may do.
  const Result<Space::State> now = waited ? rep_->space->Measure() : Space::State();
  if (!now || now->room_bytes < bytes) CollectFor(bytes);
  const MutexLock lock(rep_->mutex);
  rep_->making_room = false;
  rep_->changed.NotifyAll();
}

void Store::CollectFor(uint64_t bytes) {
  is_collecting = true;
  CollectRequest request;
  request.free_bytes = bytes;
  Result<Collected> collected = Collector(*this).Collect(request);
  for (int tries = 0; !collected && collected.error().code == ErrorCode::kWouldBlock && tries < 100;
       ++tries) {
    usleep(50'000);  // another process is at it
    collected = Collector(*this).Collect(request);
  }
  if (!collected) Log(LogLevel::kWarning, "making room: " + collected.error().message);
  is_collecting = false;
}

void Store::Use(const Digest& manifest, int64_t now) {
  const MutexLock lock(rep_->mutex);
  rep_->uses[manifest] = now;
}

Result<void> Store::FlushUses() {
  IndexBatch batch;
  {
    const MutexLock lock(rep_->mutex);
    for (const auto& [manifest, at] : rep_->uses) batch.Touch(manifest, at);
    rep_->uses.clear();
  }
  Result<void> committed = rep_->index->Commit(std::move(batch));
  if (!committed && CannotKeep(committed.error())) return {};  // age is no content
  return committed;
}

Result<uint64_t> Store::RemoveUnnamedFiles() {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Lock> lock, LockPublish(PublishMode::kExclusive));
  OCIFS_ASSIGN_OR_RETURN(const uint64_t trees, rep_->RemoveUnnamedTrees());
  OCIFS_ASSIGN_OR_RETURN(const uint64_t blobs, rep_->blobs->RemoveLeftovers());
  return trees + blobs;
}

Result<void> Store::TryWrite() {
  OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(rep_->trees.get(), rep_->space.get()));
  static constexpr std::array<std::byte, 4096> kBytes{};
  OCIFS_RETURN_IF_ERROR(file.Append(kBytes));
  return SyncData(file.fd(), "a file of the store");
}

Index& Store::index() { return *rep_->index; }
PackSet& Store::packs() { return *rep_->packs; }
BlobStore& Store::blobs() { return *rep_->blobs; }
std::string Store::TreeFileName(const Digest& manifest) {
  return manifest.hex() + std::string(kTreeSuffix);
}

int Store::trees_fd() const { return rep_->trees.get(); }

}  // namespace ocifs::store
