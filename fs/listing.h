// What a directory outside of packages lists: registries, parts of repository paths, tags.
#ifndef OCIFS_FS_LISTING_H_
#define OCIFS_FS_LISTING_H_

#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/notifier.h"
#include "fs/slots.h"
#include "store/mutex.h"
#include "store/pull_through.h"

namespace ocifs::fs {

// The names of a directory at one moment. Immutable, thread-safe. An entry's cookie depends on its
// name alone, so a reader who goes on with a later listing sees each name that stayed exactly once.
class Listing {
 public:
  struct Item {
    std::string name;
    uint64_t cookie = 0;
  };
  // Cookies up to here are free for "." and "..".
  static constexpr uint64_t kFirstCookie = 3;

  explicit Listing(std::vector<std::string> names);

  const std::vector<Item>& items() const { return items_; }  // by cookie
  // Position of the first item after `cookie`.
  size_t After(uint64_t cookie) const;
  bool Contains(std::string_view name) const;
  bool SameNames(const Listing& other) const;

 private:
  std::vector<Item> items_;
};

// Thread-safe. Makes listings and keeps the last ones, so that a long directory is not listed anew
// for each page that a reader asks for, and so that a change can be told from a repetition.
class Lister {
 public:
  struct Options {
    std::vector<store::Registry> registries;  // always listed at the mount point
    std::chrono::seconds local_ttl{10};       // of listings that cost no request
    size_t max_kept = 128;
  };

  // All outlive the object.
  Lister(store::PullThrough& pull, SlotTable& slots, Options options)
      : pull_(pull), slots_(slots), options_(std::move(options)) {}

  // Null: none. May be called while requests run; the notifier outlives that.
  void SetNotifier(KernelNotifier* notifier) { notifier_.store(notifier); }

  // The listing for a reader that starts (cookie 0) or goes on. A repository costs at most one tag
  // list. kNotFound when the registry says that there is no such repository and nothing below it is
  // known. When the registry cannot be asked and something is known, that is the listing.
  store::Result<std::shared_ptr<const Listing>> List(Slot& directory, uint64_t cookie,
                                                     const store::RequestContext& context);

  // The directory's mtime, ns since the epoch: when its listing changed last, or may have. Makes no
  // request.
  int64_t ChangeTime(Slot& directory);

  // To be called when a lookup found a directory or package: listings that lack its name, or that
  // of a directory above it, are out of date.
  void Appeared(const Slot& slot);

 private:
  template <typename T>
  using Result = store::Result<T>;
  struct Kept {
    std::shared_ptr<const Listing> listing;
    std::list<uint32_t>::iterator age;
  };

  Result<std::vector<std::string>> Names(Slot& directory, const store::RequestContext& context);
  Result<std::vector<std::string>> RepositoryNames(Slot& directory,
                                                   const store::RequestContext& context);
  // The names directly below `prefix` ("" or "team/") that the registry's catalog knows.
  Result<void> AddFromCatalog(const store::Registry& registry, std::string_view prefix,
                              const store::RequestContext& context,
                              std::vector<std::string>& names);
  void NameAppeared(Slot& directory, std::string_view name);
  std::shared_ptr<const Listing> Find(const Slot& directory) const;
  // Keeps it; true if it differs from the one before.
  bool Keep(Slot& directory, const std::shared_ptr<const Listing>& listing);
  void Changed(Slot& directory);
  std::chrono::nanoseconds Ttl(const Slot& directory) const;

  store::PullThrough& pull_;
  SlotTable& slots_;
  const Options options_;
  std::atomic<KernelNotifier*> notifier_{nullptr};
  // Directories are as old as the mount until something changes in them.
  const int64_t started_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();

  mutable store::Mutex mutex_;
  std::unordered_map<uint32_t, Kept> kept_ OCIFS_GUARDED_BY(mutex_);  // by slot
  std::list<uint32_t> ages_ OCIFS_GUARDED_BY(mutex_);                 // least recently made first
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_LISTING_H_
