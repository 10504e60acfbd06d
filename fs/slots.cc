#include "fs/slots.h"

#include <algorithm>
#include <utility>

#include "store/log.h"

namespace ocifs::fs {
namespace {

using store::Digest;
using store::MutexLock;
using store::Reference;
using store::SlotRecord;

std::string PathBelow(const Slot& parent, std::string_view name) {
  if (parent.kind() == SlotKind::kMountPoint) return std::string(name);
  return parent.path() + "/" + std::string(name);
}

}  // namespace

Slot::Slot(uint32_t number, SlotKind kind, Slot* parent, std::string_view name)
    : number_(number),
      kind_(kind),
      parent_(parent),
      name_(name),
      path_(parent == nullptr ? std::string() : PathBelow(*parent, name)) {}

Place Slot::place() const {
  switch (kind_) {
    case SlotKind::kMountPoint:
      return Place::kMountPoint;
    case SlotKind::kRegistry:
      return Place::kRegistry;
    case SlotKind::kRepository:
    case SlotKind::kPackage:
      break;
  }
  return Place::kRepository;
}

const store::Package& Slot::SetPackage(std::shared_ptr<const store::Package> package) {
  MutexLock lock(mutex_);
  if (owned_package_ == nullptr) {
    owned_package_ = std::move(package);
    oci_view_ = std::make_unique<const OciView>(*owned_package_);
    package_.store(owned_package_.get(), std::memory_order_release);
  }
  return *owned_package_;
}

SlotTable::SlotTable(const std::vector<SlotRecord>& saved, SaveFunction save, Options options)
    : save_(std::move(save)),
      options_(options),
      mount_point_(new Slot(0, SlotKind::kMountPoint, nullptr, "")),
      chunks_(std::make_unique<std::atomic<Chunk*>[]>(kChunks)) {
  mount_point_->standing_ = Standing::kProven;
  {
    MutexLock lock(mutex_);
    Load(saved);
  }
  flusher_ = std::thread([this] { FlushLoop(); });
}

SlotTable::~SlotTable() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    work_.NotifyAll();
  }
  flusher_.join();
}

Slot* SlotTable::Find(uint32_t number) const {
  if (number == 0) return mount_point_.get();
  if (number >= kMaxSlots) return nullptr;
  const Chunk* chunk = chunks_[number / kChunkSlots].load(std::memory_order_acquire);
  if (chunk == nullptr) return nullptr;
  return chunk->slots[number % kChunkSlots].load(std::memory_order_acquire);
}

Slot* SlotTable::FindLocked(const Slot& parent, std::string_view name, bool package) const {
  const auto found = names_.find(PathBelow(parent, name));
  if (found == names_.end()) return nullptr;
  return package ? found->second.package : found->second.directory;
}

Slot* SlotTable::FindDirectory(const Slot& parent, std::string_view name) const {
  MutexLock lock(mutex_);
  return FindLocked(parent, name, false);
}

Slot* SlotTable::FindPackage(const Slot& parent, std::string_view name) const {
  MutexLock lock(mutex_);
  return FindLocked(parent, name, true);
}

// Null when all numbers are taken. The caller completes the slot and publishes it.
Slot* SlotTable::NewSlot(SlotKind kind, Slot& parent, std::string_view name, uint32_t number) {
  if (number == 0) {
    if (next_number_ >= kMaxSlots) return nullptr;
    number = next_number_++;
  }
  slots_.push_back(std::unique_ptr<Slot>(new Slot(number, kind, &parent, name)));
  Slot& slot = *slots_.back();
  slot.registry_ = parent.registry_;
  return &slot;
}

void SlotTable::Publish(Slot& slot) {
  std::atomic<Chunk*>& place = chunks_[slot.number() / kChunkSlots];
  Chunk* chunk = place.load(std::memory_order_relaxed);
  if (chunk == nullptr) {
    owned_chunks_.push_back(std::make_unique<Chunk>());
    chunk = owned_chunks_.back().get();
    place.store(chunk, std::memory_order_release);
  }
  chunk->slots[slot.number() % kChunkSlots].store(&slot, std::memory_order_release);

  Name& name = names_[slot.path()];
  if (slot.kind() == SlotKind::kPackage) {
    name.packages.push_back(&slot);
    name.package = &slot;
    by_reference_[slot.reference_->ToString()].push_back(&slot);
  } else {
    name.directory = &slot;
  }
  children_[slot.parent()->number()].push_back(&slot);
}

Slot* SlotTable::MakeDirectory(Slot& parent, std::string_view name, Standing standing) {
  MutexLock lock(mutex_);
  Slot* slot = FindLocked(parent, name, false);
  if (slot == nullptr) {
    if (standing == Standing::kPresumed && presumed_ >= options_.max_presumed) return nullptr;
    const bool is_registry = parent.kind() == SlotKind::kMountPoint;
    std::optional<store::Registry> registry = parent.registry_;
    if (is_registry) registry = ReadName(Place::kMountPoint, name).registry;
    if (!registry) return nullptr;
    slot = NewSlot(is_registry ? SlotKind::kRegistry : SlotKind::kRepository, parent, name, 0);
    if (slot == nullptr) return nullptr;
    slot->registry_ = std::move(registry);
    if (!is_registry) {
      slot->repository_path_ = parent.repository_path_.empty()
                                   ? std::string(name)
                                   : parent.repository_path_ + "/" + std::string(name);
    }
    Publish(*slot);
    ++presumed_;
  }
  ProveLocked(*slot, standing);
  return slot;
}

Slot* SlotTable::MakePackage(Slot& parent, std::string_view name, const Reference& reference,
                             const Digest* digest) {
  MutexLock lock(mutex_);
  // "a/b:tag" below "a" proves only "a"; "tag" below "a/b" proves that "a/b" is a repository.
  const bool exact =
      name.find_first_of(":+@") != std::string_view::npos && !ReadName(parent.place(), name).digest;
  ProveLocked(parent, exact ? Standing::kProven : Standing::kRepository);

  const auto found = names_.find(PathBelow(parent, name));
  if (found != names_.end() && found->second.package != nullptr) {
    Name& entry = found->second;
    if (digest == nullptr) return entry.package;
    for (Slot* candidate : entry.packages) {
      if (candidate->digest() != nullptr && *candidate->digest() == *digest) {
        entry.package = candidate;
        return candidate;
      }
    }
    if (entry.package->digest() == nullptr) {
      BindLocked(*entry.package, *digest);
      return entry.package;
    }
  }
  Slot* slot = NewSlot(SlotKind::kPackage, parent, name, 0);
  if (slot == nullptr) return nullptr;
  slot->reference_ = reference;
  slot->standing_ = Standing::kProven;
  Publish(*slot);
  if (digest != nullptr) {
    BindLocked(*slot, *digest);
  } else {
    MarkDirty(*slot);
  }
  return slot;
}

const Digest& SlotTable::Bind(Slot& package, const Digest& digest) {
  MutexLock lock(mutex_);
  return BindLocked(package, digest);
}

const Digest& SlotTable::BindLocked(Slot& package, const Digest& digest) {
  {
    MutexLock lock(package.mutex_);
    if (package.owned_digest_ != nullptr) return *package.owned_digest_;
    package.owned_digest_ = std::make_unique<const Digest>(digest);
    package.digest_.store(package.owned_digest_.get(), std::memory_order_release);
  }
  MarkDirty(package);
  return *package.digest();
}

void SlotTable::Prove(Slot& directory, Standing standing) {
  MutexLock lock(mutex_);
  ProveLocked(directory, standing);
}

void SlotTable::ProveLocked(Slot& directory, Standing standing) {
  for (Slot* slot = &directory; slot != nullptr && slot->kind() != SlotKind::kMountPoint;
       slot = slot->parent()) {
    const Standing before = slot->standing();
    if (before >= standing) return;
    slot->standing_.store(standing, std::memory_order_relaxed);
    if (standing <= Standing::kPresumed) return;
    if (before <= Standing::kPresumed) {
      if (presumed_ > 0) --presumed_;
      MarkDirty(*slot);
    }
    standing = Standing::kProven;  // that is all it says about the ancestors
  }
}

void SlotTable::Drop(Slot& directory) {
  MutexLock lock(mutex_);
  if (directory.standing() > Standing::kPresumed) ++presumed_;
  directory.standing_.store(Standing::kDropped, std::memory_order_relaxed);
}

std::vector<std::string> SlotTable::ProvenChildren(const Slot& directory) const {
  MutexLock lock(mutex_);
  std::vector<std::string> names;
  const auto found = children_.find(directory.number());
  if (found == children_.end()) return names;
  for (const Slot* slot : found->second) {
    // Exact forms are for those who know what they want, not for listings.
    if (slot->name().find_first_of(":+@") != std::string::npos &&
        directory.kind() != SlotKind::kMountPoint) {
      continue;
    }
    const bool proven = slot->kind() == SlotKind::kPackage ? slot->digest() != nullptr
                                                           : slot->standing() >= Standing::kProven;
    if (proven) names.push_back(slot->name());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::vector<Slot*> SlotTable::ShowingOther(const Reference& reference, const Digest& digest) const {
  MutexLock lock(mutex_);
  std::vector<Slot*> result;
  const auto found = by_reference_.find(reference.ToString());
  if (found == by_reference_.end()) return result;
  for (Slot* slot : found->second) {
    if (slot->digest() == nullptr || *slot->digest() == digest) continue;
    const auto name = names_.find(slot->path());
    if (name != names_.end() && name->second.package == slot) result.push_back(slot);
  }
  return result;
}

// --- Records of earlier lives ---

// A directory's path ends in '/', a package's does not.
SlotRecord SlotTable::RecordOf(const Slot& slot) {
  SlotRecord record;
  record.slot = slot.number();
  record.path = slot.path();
  if (slot.kind() != SlotKind::kPackage) record.path += '/';
  if (const Digest* digest = slot.digest(); digest != nullptr) record.digest = *digest;
  return record;
}

void SlotTable::Load(const std::vector<SlotRecord>& saved) {
  std::vector<const SlotRecord*> order;
  for (const SlotRecord& record : saved) {
    if (record.slot == 0 || record.slot >= kMaxSlots) continue;
    next_number_ = std::max(next_number_, record.slot + 1);
    order.push_back(&record);
  }
  // Directories before packages, parents before children, old slots of a name before newer ones.
  std::sort(order.begin(), order.end(), [](const SlotRecord* a, const SlotRecord* b) {
    const bool a_package = !a->path.ends_with('/');
    const bool b_package = !b->path.ends_with('/');
    if (a_package != b_package) return b_package;
    if (a->path != b->path) return a->path < b->path;
    return a->slot < b->slot;
  });
  for (const SlotRecord* record : order) LoadOne(*record);
}

// The directory with that path ("" is the mount point), made anew if its record was lost.
Slot* SlotTable::LoadParent(std::string_view path) {
  Slot* parent = mount_point_.get();
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    Slot* slot = FindLocked(*parent, name, false);
    if (slot == nullptr) {
      SlotRecord record;
      if (next_number_ >= kMaxSlots) return nullptr;
      record.slot = next_number_++;
      record.path = PathBelow(*parent, name) + "/";
      LoadOne(record);
      slot = FindLocked(*parent, name, false);
      if (slot == nullptr) return nullptr;
    }
    parent = slot;
  }
  return parent;
}

void SlotTable::LoadOne(const SlotRecord& record) {
  std::string_view path = record.path;
  const bool is_directory = path.ends_with('/');
  if (is_directory) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  Slot* parent =
      LoadParent(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash));
  const NameReadings readings =
      parent == nullptr ? NameReadings() : ReadName(parent->place(), name);
  if (readings.empty() || Find(record.slot) != nullptr) return;

  if (is_directory) {
    if (!readings.registry && !readings.is_component) return;
    if (FindLocked(*parent, name, false) != nullptr) return;
    Slot* slot = NewSlot(readings.registry ? SlotKind::kRegistry : SlotKind::kRepository, *parent,
                         name, record.slot);
    if (readings.registry) {
      slot->registry_ = readings.registry;
    } else {
      slot->repository_path_ = parent->repository_path_.empty()
                                   ? std::string(name)
                                   : parent->repository_path_ + "/" + std::string(name);
    }
    slot->standing_ = Standing::kProven;
    Publish(*slot);
    return;
  }
  if (!parent->registry_) return;
  std::optional<Reference> reference =
      PackageReference(*parent->registry_, parent->repository_path_, readings);
  if (!reference) return;
  Slot* slot = NewSlot(SlotKind::kPackage, *parent, name, record.slot);
  slot->reference_ = std::move(reference);
  slot->standing_ = Standing::kProven;
  if (record.digest) {
    MutexLock lock(slot->mutex_);
    slot->owned_digest_ = std::make_unique<const Digest>(*record.digest);
    slot->digest_.store(slot->owned_digest_.get(), std::memory_order_release);
  }
  Publish(*slot);
}

// --- Saving ---

void SlotTable::MarkDirty(Slot& slot) {
  dirty_.push_back(&slot);
  ++dirtied_;
  if (dirty_.size() == 1) work_.NotifyOne();
}

bool SlotTable::Flush() {
  MutexLock lock(mutex_);
  const uint64_t target = dirtied_;
  const uint64_t failures = failures_;
  hurry_ = true;
  work_.NotifyAll();
  while (saved_ < target && failures_ == failures) done_.Wait(mutex_);
  return saved_ >= target;
}

void SlotTable::WaitForCompany(std::chrono::steady_clock::time_point deadline) {
  while (!stopping_ && !hurry_ && work_.WaitUntil(mutex_, deadline)) {
  }
}

void SlotTable::FlushLoop() {
  bool complained = false;
  mutex_.lock();
  while (true) {
    while (dirty_.empty() && !stopping_) {
      hurry_ = false;
      work_.Wait(mutex_);
    }
    if (dirty_.empty()) break;
    WaitForCompany(std::chrono::steady_clock::now() + options_.group_delay);
    hurry_ = false;
    std::vector<Slot*> batch;
    batch.swap(dirty_);
    const bool last = stopping_;
    mutex_.unlock();

    std::vector<SlotRecord> records;
    records.reserve(batch.size());
    for (const Slot* slot : batch) records.push_back(RecordOf(*slot));
    const store::Result<void> result = save_(records);
    if (!result && !complained) {
      store::Log(store::LogLevel::kWarning,
                 "fs: inode numbers of new directories are not kept, and may change at the next "
                 "start: " +
                     result.error().message);
    }
    complained = !result;

    mutex_.lock();
    if (result) {
      saved_ += batch.size();
    } else {
      ++failures_;
      dirty_.insert(dirty_.begin(), batch.begin(), batch.end());
    }
    done_.NotifyAll();
    if (!result) {
      if (last) break;
      WaitForCompany(std::chrono::steady_clock::now() + options_.retry_delay);
    }
  }
  mutex_.unlock();
}

}  // namespace ocifs::fs
