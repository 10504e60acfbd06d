#include "fs/resolver.h"

#include <algorithm>
#include <utility>

#include "fs/steady_now.h"

namespace ocifs::fs {
namespace {

using store::Digest;
using store::ErrorCode;
using store::Fail;
using store::Reference;
using store::Registry;
using store::Repository;
using store::RequestContext;
using store::Resolution;
using store::TagList;
using TagsNeeded = store::PullThrough::TagsNeeded;

bool IsRefusal(ErrorCode code) {
  return code == ErrorCode::kUnauthenticated || code == ErrorCode::kDenied;
}

std::unexpected<store::Error> NoSuchName(const Slot& parent, std::string_view name) {
  return Fail(ErrorCode::kNotFound, "there is no '" + std::string(name) + "' in /" + parent.path());
}

bool Contains(const TagList& list, std::string_view tag) {
  return std::binary_search(list.tags.begin(), list.tags.end(), tag);
}

}  // namespace

Resolver::Resolver(store::PullThrough& pull, SlotTable& slots, Lister& lister, Options options)
    : pull_(pull),
      slots_(slots),
      lister_(lister),
      options_(std::move(options)),
      negative_(pull.options().negative_ttl, options_.max_negative) {}

store::Result<Resolver::Found> Resolver::Find(Slot& parent, std::string_view name,
                                              const RequestContext& context) {
  if (parent.kind() == SlotKind::kMountPoint) return FindRegistry(parent, name, context);

  const NameReadings readings = ReadName(parent.place(), name);
  if (readings.empty()) return NoSuchName(parent, name);
  const Registry& registry = *parent.registry();
  const std::string& path = parent.repository_path();
  std::optional<Reference> reference = PackageReference(registry, path, readings);

  if (readings.exact || readings.digest) {
    if (!reference || negative_.Contains(parent.number(), name)) return NoSuchName(parent, name);
    auto found = FindPackage(parent, name, *reference, context);
    if (!found && found.error().code == ErrorCode::kNotFound) {
      negative_.Insert(parent.number(), name);
    }
    return found;
  }

  Question question{.parent = parent,
                    .name = name,
                    .context = context,
                    .tag = std::move(reference),
                    .self = {},
                    .below = {},
                    .below_path = {},
                    .refusal = {}};
  question.version_like = LooksLikeVersion(name);
  question.has_dot = name.find('.') != std::string_view::npos;
  if (readings.is_component) {
    question.below_path = path.empty() ? std::string(name) : path + "/" + std::string(name);
    auto below = Repository::Parse(registry, question.below_path);
    if (below) question.below = std::move(*below);
  }
  if (!question.tag && !question.below) return NoSuchName(parent, name);

  OCIFS_ASSIGN_OR_RETURN(std::optional<Found> found, FindInStore(question));
  if (found) return *found;
  if (negative_.Contains(parent.number(), name)) return NoSuchName(parent, name);

  auto repositories = pull_.ListRepositories(registry, context);
  if (repositories) return FindInLayout(question, *repositories);
  if (repositories.error().code != ErrorCode::kUnsupported) {
    return Fail(std::move(repositories).error());
  }
  if (path.empty()) return FindFirstComponent(question);
  return FindBelowRepository(question);
}

store::Result<Resolver::Found> Resolver::FindRegistry(Slot& parent, std::string_view name,
                                                      const RequestContext& context) {
  const std::optional<Registry> registry = ReadName(Place::kMountPoint, name).registry;
  if (!registry) return NoSuchName(parent, name);
  auto found = [&]() -> Result<Found> {
    Slot* slot = slots_.MakeDirectory(parent, name, Standing::kProven);
    if (slot == nullptr) return Fail(ErrorCode::kTooManyFiles, "there are too many directories");
    lister_.Appeared(*slot);
    return Found{slot, options_.directory_timeout};
  };
  const Slot* slot = slots_.FindDirectory(parent, name);
  if (slot != nullptr && slot->standing() >= Standing::kProven) return found();
  if (std::find(options_.registries.begin(), options_.registries.end(), *registry) !=
      options_.registries.end()) {
    return found();
  }
  OCIFS_ASSIGN_OR_RETURN(const std::vector<Registry> known, pull_.KnownRegistries());
  if (std::find(known.begin(), known.end(), *registry) != known.end()) return found();
  if (!LooksLikeHost(name) || negative_.Contains(parent.number(), name)) {
    return NoSuchName(parent, name);
  }
  if (auto exists = pull_.FindRegistry(*registry, context); !exists) {
    if (exists.error().code == ErrorCode::kNotFound) negative_.Insert(parent.number(), name);
    return Fail(std::move(exists).error());
  }
  return found();
}

store::Result<Resolver::Found> Resolver::FindPackage(Slot& parent, std::string_view name,
                                                     const Reference& reference,
                                                     const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const Resolution resolution, pull_.Resolve(reference, context));
  Slot* slot = slots_.MakePackage(parent, name, reference, &resolution.digest);
  if (slot == nullptr) return Fail(ErrorCode::kTooManyFiles, "there are too many directories");
  slot->from_registry.store(resolution.from_registry, std::memory_order_relaxed);
  slot->stale.store(resolution.stale, std::memory_order_relaxed);
  slot->fetched_at.store(resolution.fetched_at, std::memory_order_relaxed);
  negative_.Erase(parent.number(), name);
  lister_.Appeared(*slot);
  TagMoved(reference, resolution.digest);
  return Found{slot, TimeoutOf(reference, resolution)};
}

std::chrono::seconds Resolver::TimeoutOf(const Reference& reference,
                                         const Resolution& resolution) const {
  if (reference.digest()) return kForever;
  if (resolution.stale) return options_.directory_timeout;
  if (!resolution.expires_at) return options_.longest_tag_timeout;
  const std::chrono::seconds left{*resolution.expires_at - pull_.options().now()};
  return std::min(std::max(left, std::chrono::seconds{1}), options_.longest_tag_timeout);
}

void Resolver::TagMoved(const Reference& reference, const Digest& digest) {
  KernelNotifier* notifier = notifier_.load();
  if (notifier == nullptr || reference.digest()) return;
  for (const Slot* slot : slots_.ShowingOther(reference, digest)) {
    notifier->InvalidateEntry(slot->parent()->inode(), slot->name());
  }
}

store::Result<bool> Resolver::KnownBelow(const Registry& registry, const std::string& path) {
  OCIFS_ASSIGN_OR_RETURN(const store::KnownNames known, pull_.Known(registry, path));
  if (!known.tags.empty() || !known.repositories.empty()) return true;
  auto repository = Repository::Parse(registry, path);
  if (!repository || repository->path() == path) return false;
  OCIFS_ASSIGN_OR_RETURN(const store::KnownNames official,
                         pull_.Known(registry, repository->path()));
  return !official.tags.empty() || !official.repositories.empty();
}

store::Result<std::optional<Resolver::Found>> Resolver::FindInStore(Question& question) {
  if (question.tag) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<Resolution> known,
                           pull_.KnownResolution(*question.tag));
    if (known) {
      auto found = FindPackage(question.parent, question.name, *question.tag, question.context);
      if (found) return std::optional<Found>(*found);
      // The tag is gone from the registry; a directory of that name may still be there.
      if (found.error().code != ErrorCode::kNotFound) return Fail(std::move(found).error());
    }
  }
  if (!question.below) return std::optional<Found>();
  const Slot* slot = slots_.FindDirectory(question.parent, question.name);
  const bool proven = slot != nullptr && slot->standing() >= Standing::kProven;
  const bool presumed = slot != nullptr && slot->standing() == Standing::kPresumed &&
                        SteadyNow() < slot->presumed_until.load(std::memory_order_relaxed);
  if (proven || presumed) {
    OCIFS_ASSIGN_OR_RETURN(const Found found, Directory(question, slot->standing()));
    return std::optional<Found>(found);
  }
  OCIFS_ASSIGN_OR_RETURN(const bool known,
                         KnownBelow(*question.parent.registry(), question.below_path));
  if (!known) return std::optional<Found>();
  OCIFS_ASSIGN_OR_RETURN(const Found found, Directory(question, Standing::kProven));
  return std::optional<Found>(found);
}

// A source that can list its repositories is asked nothing else, and its list decides.
store::Result<Resolver::Found> Resolver::FindInLayout(
    Question& question, const std::vector<std::string>& repositories) {
  if (question.tag) {
    const std::string& path = question.tag->repository().path();
    if (std::find(repositories.begin(), repositories.end(), path) != repositories.end()) {
      OCIFS_ASSIGN_OR_RETURN(const TagList list, pull_.Tags(question.tag->repository(),
                                                            TagsNeeded::kAll, question.context));
      if (Contains(list, question.name)) return ListedTag(question);
    }
  }
  if (question.below) {
    const std::string prefix = question.below->path() + "/";
    for (const std::string& path : repositories) {
      if (path == question.below->path()) return Directory(question, Standing::kRepository);
      if (path.starts_with(prefix) || path.starts_with(question.below_path + "/")) {
        return Directory(question, Standing::kProven);
      }
    }
  }
  return NotFound(question);
}

// Registries cannot list their repositories, so a first component cannot be asked about for what it
// mostly is, a prefix. A name with a dot needs proof: tools that climb a tree look for go.mod.
store::Result<Resolver::Found> Resolver::FindFirstComponent(Question& question) {
  if (!question.below) return NotFound(question);
  if (!question.has_dot) return Presume(question);
  OCIFS_ASSIGN_OR_RETURN(const std::optional<Found> found, AskRepository(question));
  if (found) return *found;
  if (question.refusal) return Fail(std::move(*question.refusal));
  return NotFound(question);
}

store::Result<Resolver::Found> Resolver::FindBelowRepository(Question& question) {
  auto self = Repository::Parse(*question.parent.registry(), question.parent.repository_path());
  if (!self) return NotFound(question);
  question.self = std::move(*self);

  // A fresh list answers for every name at once.
  auto list = TagsOfParent(question, TagsNeeded::kAll, RequestContext::Wait::kNever);
  if (list && (*list)->complete) {
    slots_.Prove(question.parent, Standing::kRepository);
    return Contains(**list, question.name) ? ListedTag(question) : FindUnlisted(question);
  }

  OCIFS_ASSIGN_OR_RETURN(bool is_repository, IsRepository(question));
  if (is_repository && !question.version_like) {
    // One list now, and names that are not there cost nothing later.
    list = TagsOfParent(question, TagsNeeded::kExistence, question.context.wait);
    if (list) {
      if (Contains(**list, question.name)) return ListedTag(question);
      if ((*list)->complete) return FindUnlisted(question);
    } else if (list.error().code == ErrorCode::kNotFound || IsRefusal(list.error().code)) {
      is_repository = false;
    } else {
      return Fail(std::move(list).error());
    }
  }
  if (question.version_like) return FindVersion(question, is_repository);
  return FindWord(question);
}

store::Result<Resolver::SharedTags> Resolver::TagsOfParent(Question& question, TagsNeeded needed,
                                                           RequestContext::Wait wait) {
  const uint32_t slot = question.parent.number();
  const int64_t now = pull_.options().now();
  const int64_t ttl = pull_.options().tag_list_ttl.count();
  {
    store::MutexLock lock(tags_mutex_);
    const auto kept = tags_.find(slot);
    if (kept != tags_.end()) {
      const int64_t age = now - kept->second->fetched_at;
      if (age >= 0 && age < ttl) return kept->second;
      tags_.erase(kept);
    }
  }
  RequestContext context = question.context;
  context.wait = wait;
  OCIFS_ASSIGN_OR_RETURN(TagList tags, pull_.Tags(*question.self, needed, context));
  const auto list = std::make_shared<const TagList>(std::move(tags));
  if (list->complete && list->fetched_at != 0) {
    constexpr size_t kMaxKept = 64;
    store::MutexLock lock(tags_mutex_);
    if (tags_.size() >= kMaxKept) tags_.clear();
    tags_[slot] = list;
  }
  return SharedTags(list);
}

store::Result<bool> Resolver::IsRepository(Question& question) {
  if (question.parent.standing() == Standing::kRepository) return true;
  OCIFS_ASSIGN_OR_RETURN(const store::KnownNames known,
                         pull_.Known(question.self->registry(), question.self->path()));
  if (known.tags.empty()) return false;
  slots_.Prove(question.parent, Standing::kRepository);
  return true;
}

// The parent is a repository and its whole list lacks the name. A repository nested in a repository
// is rare, one with a dot in its name rarer than the files that tools look for; its exact form
// (name:tag) leads there all the same.
store::Result<Resolver::Found> Resolver::FindUnlisted(Question& question) {
  if (question.below && !question.has_dot) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<Found> found, AskRepository(question));
    if (found) return *found;
  }
  return NotFound(question);
}

store::Result<Resolver::Found> Resolver::FindVersion(Question& question,
                                                     bool parent_is_repository) {
  OCIFS_ASSIGN_OR_RETURN(std::optional<Found> found, AskTag(question));
  if (found) return *found;
  const bool tag_refused = question.refusal.has_value();
  if (parent_is_repository && !tag_refused) {
    // This miss was one request; the list makes the next ones free.
    const auto list = TagsOfParent(question, TagsNeeded::kExistence, question.context.wait);
    if (list && (*list)->complete) return FindUnlisted(question);
    if (!list && list.error().code == ErrorCode::kWouldBlock) return Fail(list.error());
  }
  if (question.below) {
    OCIFS_ASSIGN_OR_RETURN(found, AskRepository(question));
    if (found) return *found;
  }
  // The likelier question was answered with no: that a less likely one may not be asked is no news.
  if (tag_refused) return Fail(std::move(*question.refusal));
  return NotFound(question);
}

store::Result<Resolver::Found> Resolver::FindWord(Question& question) {
  OCIFS_ASSIGN_OR_RETURN(std::optional<Found> found, AskRepository(question));
  if (found) return *found;
  OCIFS_ASSIGN_OR_RETURN(found, AskTag(question));
  if (found) return *found;
  if (!question.has_dot && question.parent.standing() != Standing::kRepository) {
    return Presume(question);
  }
  if (question.refusal && question.parent.standing() != Standing::kRepository) {
    return Fail(std::move(*question.refusal));
  }
  return NotFound(question);
}

store::Result<std::optional<Resolver::Found>> Resolver::AskTag(Question& question) {
  if (!question.tag) return std::optional<Found>();
  auto found = FindPackage(question.parent, question.name, *question.tag, question.context);
  if (found) return std::optional<Found>(*found);
  store::Error error = std::move(found).error();
  if (error.code == ErrorCode::kNotFound) return std::optional<Found>();
  if (!IsRefusal(error.code)) return Fail(std::move(error));
  question.refusal = std::move(error);
  return std::optional<Found>();
}

store::Result<std::optional<Resolver::Found>> Resolver::AskRepository(Question& question) {
  if (!question.below) return std::optional<Found>();
  auto tags = pull_.Tags(*question.below, TagsNeeded::kExistence, question.context);
  if (tags) {
    OCIFS_ASSIGN_OR_RETURN(const Found found, Directory(question, Standing::kRepository));
    return std::optional<Found>(found);
  }
  store::Error error = std::move(tags).error();
  if (error.code == ErrorCode::kNotFound) return std::optional<Found>();
  if (!IsRefusal(error.code)) return Fail(std::move(error));
  question.refusal = std::move(error);
  return std::optional<Found>();
}

store::Result<Resolver::Found> Resolver::Directory(Question& question, Standing standing) {
  Slot* slot = slots_.MakeDirectory(question.parent, question.name, standing);
  if (slot == nullptr) return Fail(ErrorCode::kTooManyFiles, "there are too many directories");
  if (standing >= Standing::kProven) {
    negative_.Erase(question.parent.number(), question.name);
    lister_.Appeared(*slot);
  }
  return Found{slot, options_.directory_timeout};
}

store::Result<Resolver::Found> Resolver::Presume(Question& question) {
  Slot* slot = slots_.MakeDirectory(question.parent, question.name, Standing::kPresumed);
  if (slot == nullptr) {
    // Too many names that nobody vouches for: from here on, only what the registry confirms.
    OCIFS_ASSIGN_OR_RETURN(const std::optional<Found> found, AskRepository(question));
    return found ? Result<Found>(*found) : NotFound(question);
  }
  const int64_t until = SteadyNow() + std::chrono::nanoseconds(options_.presumption).count();
  slot->presumed_until.store(until, std::memory_order_relaxed);
  return Found{slot, options_.directory_timeout};
}

store::Result<Resolver::Found> Resolver::ListedTag(Question& question) {
  Slot* slot = slots_.MakePackage(question.parent, question.name, *question.tag, nullptr);
  if (slot == nullptr) return Fail(ErrorCode::kTooManyFiles, "there are too many directories");
  return Found{slot, options_.directory_timeout};
}

store::Result<Resolver::Found> Resolver::NotFound(Question& question) {
  negative_.Insert(question.parent.number(), question.name);
  return NoSuchName(question.parent, question.name);
}

store::Result<const Digest*> Resolver::Bind(Slot& package, const RequestContext& context) {
  if (const Digest* digest = package.digest(); digest != nullptr) return digest;
  auto resolution = pull_.Resolve(*package.reference(), context);
  if (!resolution) {
    if (resolution.error().code == ErrorCode::kNotFound) {
      // It was listed and is gone: the kernel believes in the name until it is told.
      if (KernelNotifier* notifier = notifier_.load()) {
        notifier->InvalidateEntry(package.parent()->inode(), package.name());
      }
    }
    return Fail(std::move(resolution).error());
  }
  package.from_registry.store(resolution->from_registry, std::memory_order_relaxed);
  package.stale.store(resolution->stale, std::memory_order_relaxed);
  package.fetched_at.store(resolution->fetched_at, std::memory_order_relaxed);
  return &slots_.Bind(package, resolution->digest);
}

void Resolver::Disprove(Slot& directory) {
  slots_.Drop(directory);
  negative_.Insert(directory.parent()->number(), directory.name());
  if (KernelNotifier* notifier = notifier_.load()) {
    notifier->InvalidateEntry(directory.parent()->inode(), directory.name());
  }
}

}  // namespace ocifs::fs
