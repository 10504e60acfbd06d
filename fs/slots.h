// The directories below the mount point that are not inside a package, and their inode numbers.
//
// A slot is one directory under one spelling of its path: two tags, or a tag and a digest, of one
// package are two slots, because a directory has one parent. When a tag moves to another digest it
// gets a new slot; the old one keeps serving the old tree to those who have it open. Slots live as
// long as the table, so a pointer to one never dangles and finding one takes no lock.
#ifndef OCIFS_FS_SLOTS_H_
#define OCIFS_FS_SLOTS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fs/inode.h"
#include "fs/oci_view.h"
#include "fs/path_name.h"
#include "store/index.h"
#include "store/mutex.h"
#include "store/pull_through.h"
#include "store/reference.h"

namespace ocifs::fs {

enum class SlotKind { kMountPoint, kRegistry, kRepository, kPackage };

// What is known about the existence of a directory. Only grows, but for Drop.
enum class Standing : uint8_t {
  kDropped,     // was presumed, and is not there
  kPresumed,    // nobody said that it is not there; registries cannot list
  kProven,      // something below it exists
  kRepository,  // a repository with tags
};

// Thread-safe.
class Slot {
 public:
  uint32_t number() const { return number_; }
  InodeNumber inode() const { return InodeNumber::Of(number_); }
  SlotKind kind() const { return kind_; }
  Place place() const;
  Slot* parent() const { return parent_; }           // null for the mount point
  const std::string& name() const { return name_; }  // last component, as it was spelled
  const std::string& path() const { return path_; }  // below the mount point, as it was spelled

  // Set for all but the mount point.
  const std::optional<store::Registry>& registry() const { return registry_; }
  // Below the registry, as spelled; empty for the registry itself. Not for packages.
  const std::string& repository_path() const { return repository_path_; }

  // Directories.
  Standing standing() const { return standing_.load(std::memory_order_relaxed); }

  // When the listing changed last (the directory's mtime, ns since the epoch; 0: not yet), and
  // until when the listing that was served last may be believed (steady clock, ns; 0: none served).
  std::atomic<int64_t> listing_changed{0};
  std::atomic<int64_t> listing_expires{0};
  // Until when who looks at a name in here is taken for somebody who lists (steady clock, ns).
  std::atomic<int64_t> being_listed_until{0};
  // Until when a presumption is believed (steady clock, ns).
  std::atomic<int64_t> presumed_until{0};

  // Packages.
  const std::optional<store::Reference>& reference() const { return reference_; }
  // What the reference stood for when the slot was made or first looked into; null before that.
  const store::Digest* digest() const { return digest_.load(std::memory_order_acquire); }
  // The open package, or null: one atomic load, nothing shared with other readers is written.
  const store::Package* package() const { return package_.load(std::memory_order_acquire); }
  // Its `.oci` directory; null exactly when package() is.
  const OciView* oci_view() const { return package() == nullptr ? nullptr : oci_view_.get(); }
  // Opens the slot for its readers; the first caller wins and the result is what counts.
  const store::Package& SetPackage(std::shared_ptr<const store::Package> package);
  // Of the last resolution that led to this slot.
  std::atomic<bool> from_registry{false};
  std::atomic<bool> stale{false};
  std::atomic<int64_t> fetched_at{0};
  // Until when a failure to open it is not tried again for its attributes' sake (steady clock, ns).
  std::atomic<int64_t> unopenable_until{0};

 private:
  friend class SlotTable;
  Slot(uint32_t number, SlotKind kind, Slot* parent, std::string_view name);

  const uint32_t number_;
  const SlotKind kind_;
  Slot* const parent_;
  const std::string name_;
  const std::string path_;
  std::optional<store::Registry> registry_;  // these three are set before the slot is published
  std::string repository_path_;
  std::optional<store::Reference> reference_;

  std::atomic<Standing> standing_{Standing::kPresumed};

  store::Mutex mutex_;
  std::unique_ptr<const store::Digest> owned_digest_ OCIFS_GUARDED_BY(mutex_);
  std::shared_ptr<const store::Package> owned_package_ OCIFS_GUARDED_BY(mutex_);
  std::unique_ptr<const OciView> oci_view_;  // set before package_, and never again
  // Set once, to what the owners above hold for good: readers need no lock and no count.
  std::atomic<const store::Digest*> digest_{nullptr};
  std::atomic<const store::Package*> package_{nullptr};
};

// Thread-safe. Kept in the store by one background thread: new slots are written in groups, and
// nobody who looks a name up waits for that. A directory that is only presumed is not kept.
class SlotTable {
 public:
  // store::Store::SaveSlots.
  using SaveFunction = std::function<store::Result<void>(std::span<const store::SlotRecord>)>;
  struct Options {
    std::chrono::milliseconds group_delay{50};    // how long a slot waits for company
    std::chrono::milliseconds retry_delay{2000};  // after a failed save
    size_t max_presumed = size_t{1} << 16;        // directories that nobody vouches for
  };

  // `saved` are the records of earlier lives (store::Store::LoadSlots); those that do not parse are
  // left out, and their numbers are not used again.
  SlotTable(const std::vector<store::SlotRecord>& saved, SaveFunction save, Options options);
  // Saves what is not saved yet.
  ~SlotTable();
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  Slot& mount_point() { return *mount_point_; }
  // Null if there is none. Takes no lock.
  Slot* Find(uint32_t number) const;

  // The slots of a name below `parent`, or null.
  Slot* FindDirectory(const Slot& parent, std::string_view name) const;
  // The package slot that the name led to last.
  Slot* FindPackage(const Slot& parent, std::string_view name) const;

  // The directory of that name, made if need be, with at least that standing (ancestors of a proven
  // directory are proven). The name must be a registry's below the mount point and a repository
  // component below others. Null when it is new, only presumed, and there are too many of those.
  Slot* MakeDirectory(Slot& parent, std::string_view name, Standing standing);
  // The package of that name with that digest: the slot that has it, else the one that waits for a
  // digest, else a new one. Without a digest: the one the name led to last, else a new one that
  // waits. Proves `parent`. The name must be one that ReadName reads as a package. Null when all
  // 2^28 numbers are taken.
  Slot* MakePackage(Slot& parent, std::string_view name, const store::Reference& reference,
                    const store::Digest* digest);
  // Gives a waiting package its digest; the one that it has afterwards.
  const store::Digest& Bind(Slot& package, const store::Digest& digest);

  void Prove(Slot& directory, Standing standing);
  // Takes back what was believed of a directory.
  void Drop(Slot& directory);

  // Names of the directories right below that are proven, and of the packages with a digest.
  std::vector<std::string> ProvenChildren(const Slot& directory) const;
  // The slots that names of `reference` lead to now and that show something else than `digest`.
  std::vector<Slot*> ShowingOther(const store::Reference& reference,
                                  const store::Digest& digest) const;

  // Waits until everything so far is saved, or saving failed. False in the latter case.
  bool Flush();

 private:
  static constexpr uint32_t kChunkSlots = 4096;
  static constexpr uint32_t kChunks = 65536;
  static constexpr uint32_t kMaxSlots = kChunkSlots * kChunks;
  struct Chunk {
    std::atomic<Slot*> slots[kChunkSlots] = {};
  };
  struct Name {
    Slot* directory = nullptr;
    Slot* package = nullptr;      // the one shown last
    std::vector<Slot*> packages;  // all that the name ever led to
  };

  Slot* FindLocked(const Slot& parent, std::string_view name, bool package) const
      OCIFS_REQUIRES(mutex_);
  Slot* NewSlot(SlotKind kind, Slot& parent, std::string_view name, uint32_t number)
      OCIFS_REQUIRES(mutex_);
  void Publish(Slot& slot) OCIFS_REQUIRES(mutex_);
  void ProveLocked(Slot& directory, Standing standing) OCIFS_REQUIRES(mutex_);
  const store::Digest& BindLocked(Slot& package, const store::Digest& digest)
      OCIFS_REQUIRES(mutex_);
  void Load(const std::vector<store::SlotRecord>& saved) OCIFS_REQUIRES(mutex_);
  void LoadOne(const store::SlotRecord& record) OCIFS_REQUIRES(mutex_);
  Slot* LoadParent(std::string_view path) OCIFS_REQUIRES(mutex_);
  void MarkDirty(Slot& slot) OCIFS_REQUIRES(mutex_);
  void FlushLoop();
  // Until the deadline, or until there is a reason to save at once.
  void WaitForCompany(std::chrono::steady_clock::time_point deadline) OCIFS_REQUIRES(mutex_);
  static store::SlotRecord RecordOf(const Slot& slot);

  const SaveFunction save_;
  const Options options_;
  std::unique_ptr<Slot> mount_point_;

  // Written under the mutex, read without: a chunk and a slot are complete before they are stored.
  std::unique_ptr<std::atomic<Chunk*>[]> chunks_;

  mutable store::Mutex mutex_;
  std::unordered_map<std::string, Name> names_ OCIFS_GUARDED_BY(mutex_);  // by path
  std::unordered_map<uint32_t, std::vector<Slot*>> children_ OCIFS_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::vector<Slot*>> by_reference_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Slot>> slots_ OCIFS_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Chunk>> owned_chunks_ OCIFS_GUARDED_BY(mutex_);
  uint32_t next_number_ OCIFS_GUARDED_BY(mutex_) = 1;
  size_t presumed_ OCIFS_GUARDED_BY(mutex_) = 0;

  std::vector<Slot*> dirty_ OCIFS_GUARDED_BY(mutex_);
  uint64_t dirtied_ OCIFS_GUARDED_BY(mutex_) = 0;   // slots ever handed to the flusher
  uint64_t saved_ OCIFS_GUARDED_BY(mutex_) = 0;     // of these, saved
  uint64_t failures_ OCIFS_GUARDED_BY(mutex_) = 0;  // failed saves
  bool hurry_ OCIFS_GUARDED_BY(mutex_) = false;
  bool stopping_ OCIFS_GUARDED_BY(mutex_) = false;
  store::CondVar work_;
  store::CondVar done_;
  std::thread flusher_;
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_SLOTS_H_
