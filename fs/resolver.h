// From a name to a directory: what a component below the mount point stands for, asking as little
// as possible. SEMANTICS.md, "Names", is the contract; it says what costs a request.
#ifndef OCIFS_FS_RESOLVER_H_
#define OCIFS_FS_RESOLVER_H_

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/attributes.h"
#include "fs/listing.h"
#include "fs/negative_cache.h"
#include "fs/notifier.h"
#include "fs/path_name.h"
#include "fs/slots.h"
#include "store/pull_through.h"

namespace ocifs::fs {

// Thread-safe.
class Resolver {
 public:
  struct Options {
    std::vector<store::Registry> registries;         // exist without being asked for
    std::chrono::seconds directory_timeout{10};      // of a name outside of packages
    std::chrono::seconds longest_tag_timeout{3600};  // of a tag that never expires
    std::chrono::seconds presumption{60};            // how long a presumed directory is believed
    size_t max_negative = size_t{1} << 16;
  };

  // All outlive the object.
  Resolver(store::PullThrough& pull, SlotTable& slots, Lister& lister, Options options);

  void SetNotifier(KernelNotifier* notifier) { notifier_.store(notifier); }

  struct Found {
    Slot* slot = nullptr;
    std::chrono::seconds timeout{0};  // how long the name may be taken for this slot
  };
  // The directory `name` below `parent`, which is not a package. kNotFound only from a definite
  // answer or by the grammar; errors of transport are passed on. May use the network.
  store::Result<Found> Find(Slot& parent, std::string_view name,
                            const store::RequestContext& context);

  // The digest of a package's directory, resolved now if it was only listed so far (one request).
  store::Result<const store::Digest*> Bind(Slot& package, const store::RequestContext& context);

  // To be called when a listing showed that a repository is gone.
  void Disprove(Slot& directory);

  // Tells the kernel about names of `reference` that show something else than `digest` now.
  void TagMoved(const store::Reference& reference, const store::Digest& digest);

 private:
  template <typename T>
  using Result = store::Result<T>;

  // One name below a registry, read in every way, and what was learned about it on the way.
  struct Question {
    Slot& parent;
    std::string_view name;
    const store::RequestContext& context;
    std::optional<store::Reference> tag;     // `name` as a tag of the parent
    std::optional<store::Repository> self;   // the parent as a repository
    std::optional<store::Repository> below;  // `name` as the next part of a repository's path
    std::string below_path;
    bool version_like = false;
    bool has_dot = false;
    std::optional<store::Error> refusal;  // 401 or 403: the registry cannot be asked that
  };

  Result<Found> FindRegistry(Slot& parent, std::string_view name,
                             const store::RequestContext& context);
  Result<Found> FindPackage(Slot& parent, std::string_view name, const store::Reference& reference,
                            const store::RequestContext& context);
  Result<std::optional<Found>> FindInStore(Question& question);
  Result<Found> FindInLayout(Question& question, const std::vector<std::string>& repositories);
  Result<Found> FindFirstComponent(Question& question);
  Result<Found> FindBelowRepository(Question& question);
  Result<Found> FindUnlisted(Question& question);
  Result<Found> FindVersion(Question& question, bool parent_is_repository);
  Result<Found> FindWord(Question& question);

  // nullopt: a definite no, or a refusal (noted in the question).
  Result<std::optional<Found>> AskTag(Question& question);
  Result<std::optional<Found>> AskRepository(Question& question);
  Result<bool> IsRepository(Question& question);
  // Tags of the parent; a fresh complete list is kept and not copied out of the index for each of
  // its names.
  using SharedTags = std::shared_ptr<const store::TagList>;
  Result<SharedTags> TagsOfParent(Question& question, store::PullThrough::TagsNeeded needed,
                                  store::RequestContext::Wait wait);
  // Whether tags or repositories below the path are in the store.
  Result<bool> KnownBelow(const store::Registry& registry, const std::string& path);

  Result<Found> Directory(Question& question, Standing standing);
  Result<Found> Presume(Question& question);
  Result<Found> ListedTag(Question& question);
  Result<Found> NotFound(Question& question);
  std::chrono::seconds TimeoutOf(const store::Reference& reference,
                                 const store::Resolution& resolution) const;

  store::PullThrough& pull_;
  SlotTable& slots_;
  Lister& lister_;
  const Options options_;
  NegativeCache negative_;

  store::Mutex tags_mutex_;
  std::unordered_map<uint32_t, SharedTags> tags_ OCIFS_GUARDED_BY(tags_mutex_);  // by slot

  std::atomic<KernelNotifier*> notifier_{nullptr};
};

}  // namespace ocifs::fs

#endif  // OCIFS_FS_RESOLVER_H_
