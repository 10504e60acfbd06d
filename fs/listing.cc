#include "fs/listing.h"

#include <algorithm>
#include <utility>

#include "fs/steady_now.h"
#include "store/node.h"

namespace ocifs::fs {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::MutexLock;
using store::RequestContext;

// FNV-1a, folded into the positive range of an off_t and above the cookies of "." and "..".
uint64_t CookieOf(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
  hash ^= hash >> 31;
  return (hash & ((uint64_t{1} << 62) - 1)) + Listing::kFirstCookie;
}

int64_t WallNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void Append(std::vector<std::string>& to, std::vector<std::string> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

Listing::Listing(std::vector<std::string> names) {
  items_.reserve(names.size());
  for (std::string& name : names) {
    if (name.empty() || name.size() > store::kMaxNameBytes) continue;
    const uint64_t cookie = CookieOf(name);
    items_.push_back(Item{std::move(name), cookie});
  }
  std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    return a.cookie != b.cookie ? a.cookie < b.cookie : a.name < b.name;
  });
  const auto same = [](const Item& a, const Item& b) { return a.name == b.name; };
  items_.erase(std::unique(items_.begin(), items_.end(), same), items_.end());
  for (size_t i = 1; i < items_.size(); ++i) {
    items_[i].cookie = std::max(items_[i].cookie, items_[i - 1].cookie + 1);
  }
}

size_t Listing::After(uint64_t cookie) const {
  const auto next =
      std::upper_bound(items_.begin(), items_.end(), cookie,
                       [](uint64_t wanted, const Item& item) { return wanted < item.cookie; });
  return static_cast<size_t>(next - items_.begin());
}

bool Listing::Contains(std::string_view name) const {
  const uint64_t cookie = CookieOf(name);
  auto item = std::lower_bound(
      items_.begin(), items_.end(), cookie,
      [](const Item& candidate, uint64_t wanted) { return candidate.cookie < wanted; });
  // A name whose cookie was taken stands a few places further.
  for (int i = 0; i < 4 && item != items_.end(); ++i, ++item) {
    if (item->name == name) return true;
  }
  return false;
}

bool Listing::SameNames(const Listing& other) const {
  return std::equal(items_.begin(), items_.end(), other.items_.begin(), other.items_.end(),
                    [](const Item& a, const Item& b) { return a.name == b.name; });
}

store::Result<std::shared_ptr<const Listing>> Lister::List(Slot& directory, uint64_t cookie,
                                                           const RequestContext& context) {
  if (cookie != 0) {
    if (std::shared_ptr<const Listing> kept = Find(directory)) return kept;
  }
  OCIFS_ASSIGN_OR_RETURN(std::vector<std::string> names, Names(directory, context));
  auto listing = std::make_shared<const Listing>(std::move(names));
  const bool changed = Keep(directory, listing);
  if (changed) directory.listing_changed.store(WallNow());
  directory.listing_expires.store(SteadyNow() + Ttl(directory).count());
  return std::shared_ptr<const Listing>(std::move(listing));
}

int64_t Lister::ChangeTime(Slot& directory) {
  int64_t expires = directory.listing_expires.load();
  if (expires != 0 && SteadyNow() >= expires) {
    // The kernel may hold a listing of this directory and takes it for good until this time moves.
    // What can be compared without a request is compared; for the rest the next reader asks.
    RequestContext context;
    context.wait = RequestContext::Wait::kNever;
    if (!List(directory, 0, context)) {
      if (directory.listing_expires.compare_exchange_strong(expires, 0)) {
        directory.listing_changed.store(WallNow());
      }
    }
  }
  const int64_t changed = directory.listing_changed.load();
  return changed != 0 ? changed : started_;
}

void Lister::Appeared(const Slot& slot) {
  for (const Slot* at = &slot; at->parent() != nullptr; at = at->parent()) {
    NameAppeared(*at->parent(), at->name());
  }
}

void Lister::NameAppeared(Slot& directory, std::string_view name) {
  const std::shared_ptr<const Listing> kept = Find(directory);
  if (kept == nullptr || kept->Contains(name)) return;
  // The name's canonical spelling may be the one that is listed.
  std::string colons(name);
  std::replace(colons.begin(), colons.end(), '+', ':');
  if (kept->Contains(colons)) return;
  if (directory.kind() != SlotKind::kMountPoint &&
      colons.find_first_of(":@") != std::string::npos) {
    return;  // exact forms are not listed
  }
  Changed(directory);
}

void Lister::Changed(Slot& directory) {
  {
    MutexLock lock(mutex_);
    const auto found = kept_.find(directory.number());
    if (found != kept_.end()) {
      ages_.erase(found->second.age);
      kept_.erase(found);
    }
  }
  directory.listing_expires.store(0);
  directory.listing_changed.store(WallNow());
  if (KernelNotifier* notifier = notifier_.load()) notifier->InvalidateInode(directory.inode());
}

std::shared_ptr<const Listing> Lister::Find(const Slot& directory) const {
  MutexLock lock(mutex_);
  const auto found = kept_.find(directory.number());
  return found == kept_.end() ? nullptr : found->second.listing;
}

bool Lister::Keep(Slot& directory, const std::shared_ptr<const Listing>& listing) {
  MutexLock lock(mutex_);
  const auto found = kept_.find(directory.number());
  if (found != kept_.end()) {
    const bool changed = !found->second.listing->SameNames(*listing);
    found->second.listing = listing;
    ages_.splice(ages_.end(), ages_, found->second.age);
    return changed;
  }
  ages_.push_back(directory.number());
  kept_[directory.number()] = Kept{listing, std::prev(ages_.end())};
  if (kept_.size() > options_.max_kept) {
    kept_.erase(ages_.front());
    ages_.pop_front();
  }
  return false;
}

std::chrono::nanoseconds Lister::Ttl(const Slot& directory) const {
  return directory.kind() == SlotKind::kRepository ? pull_.options().tag_list_ttl
                                                   : options_.local_ttl;
}

store::Result<std::vector<std::string>> Lister::Names(Slot& directory,
                                                      const RequestContext& context) {
  if (directory.kind() == SlotKind::kRepository) return RepositoryNames(directory, context);
  std::vector<std::string> names;
  if (directory.kind() == SlotKind::kMountPoint) {
    for (const store::Registry& registry : options_.registries) {
      names.push_back(SpellRegistry(registry));
    }
    OCIFS_ASSIGN_OR_RETURN(const std::vector<store::Registry> known, pull_.KnownRegistries());
    for (const store::Registry& registry : known) names.push_back(SpellRegistry(registry));
    return names;
  }
  OCIFS_ASSIGN_OR_RETURN(store::KnownNames known, pull_.Known(*directory.registry(), ""));
  names = std::move(known.repositories);
  Append(names, slots_.ProvenChildren(directory));
  OCIFS_RETURN_IF_ERROR(AddFromCatalog(*directory.registry(), "", context, names));
  auto repositories = pull_.ListRepositories(*directory.registry(), context);
  if (repositories) {
    for (const std::string& path : *repositories) names.push_back(path.substr(0, path.find('/')));
  } else if (repositories.error().code != ErrorCode::kUnsupported &&
             (names.empty() || repositories.error().code == ErrorCode::kWouldBlock)) {
    return Fail(std::move(repositories).error());
  }
  return names;
}

store::Result<void> Lister::AddFromCatalog(const store::Registry& registry, std::string_view prefix,
                                           const RequestContext& context,
                                           std::vector<std::string>& names) {
  const auto catalog = pull_.Catalog(registry, context);
  if (!catalog) {
    const ErrorCode code = catalog.error().code;
    if (code == ErrorCode::kWouldBlock || code == ErrorCode::kCancelled) {
      return Fail(catalog.error());
    }
    return {};  // the rest of the listing is true without it
  }
  for (const std::string& path : **catalog) {
    if (!path.starts_with(prefix)) continue;
    const std::string_view rest = std::string_view(path).substr(prefix.size());
    names.emplace_back(rest.substr(0, rest.find('/')));
  }
  return {};
}

store::Result<std::vector<std::string>> Lister::RepositoryNames(Slot& directory,
                                                                const RequestContext& context) {
  const std::string& path = directory.repository_path();
  auto repository = store::Repository::Parse(*directory.registry(), path);
  if (!repository) return Fail(ErrorCode::kNotFound, repository.error().message);

  OCIFS_ASSIGN_OR_RETURN(store::KnownNames known, pull_.Known(*directory.registry(), path));
  std::vector<std::string> names = std::move(known.repositories);
  Append(names, std::move(known.tags));
  if (repository->path() != path) {  // docker.io/alpine
    OCIFS_ASSIGN_OR_RETURN(store::KnownNames official,
                           pull_.Known(*directory.registry(), repository->path()));
    Append(names, std::move(official.tags));
  }
  Append(names, slots_.ProvenChildren(directory));

  OCIFS_RETURN_IF_ERROR(AddFromCatalog(*directory.registry(), path + "/", context, names));
  auto repositories = pull_.ListRepositories(*directory.registry(), context);
  if (repositories) {
    const std::string prefix = path + "/";
    for (const std::string& candidate : *repositories) {
      if (!candidate.starts_with(prefix)) continue;
      const std::string rest = candidate.substr(prefix.size());
      names.push_back(rest.substr(0, rest.find('/')));
    }
  } else if (repositories.error().code == ErrorCode::kWouldBlock) {
    return Fail(std::move(repositories).error());
  }

  auto tags = pull_.Tags(*repository, store::PullThrough::TagsNeeded::kAll, context);
  if (tags) {
    slots_.Prove(directory, Standing::kRepository);
    Append(names, std::move(tags->tags));
    return names;
  }
  Error error = std::move(tags).error();
  if (error.code == ErrorCode::kWouldBlock || error.code == ErrorCode::kCancelled ||
      names.empty()) {
    return Fail(std::move(error));
  }
  return names;
}

}  // namespace ocifs::fs
