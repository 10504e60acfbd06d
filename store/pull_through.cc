#include "store/pull_through.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "store/flight.h"
#include "store/job_pool.h"
#include "store/log.h"
#include "store/mutex.h"
#include "store/pack.h"
#include "store/package.h"
#include "store/puller.h"
#include "store/space.h"
#include "store/text.h"
#include "store/unkept_chunks.h"

namespace ocifs::store {
namespace {

constexpr size_t kRequestThreads = 64;  // resolutions and listings wait for a network only
constexpr size_t kPullThreads = 6;      // pulls cost memory and processor time too
constexpr size_t kMaxTagPages = 10'000;
constexpr size_t kMaxTags = 1'000'000;
constexpr size_t kMaxUnkeptRefs = 4096;

// Definite "there is none" answers, believed for a short time. Thread-safe; bounded.
class NegativeCache {
 public:
  explicit NegativeCache(std::chrono::seconds ttl) : ttl_(ttl) {}

  std::optional<Error> Find(const std::string& key) {
    const MutexLock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::nullopt;
    if (std::chrono::steady_clock::now() >= found->second.until) {
      entries_.erase(found);
      return std::nullopt;
    }
    return found->second.error;
  }
  void Add(const std::string& key, const Error& error) {
    if (ttl_.count() <= 0) return;
    const MutexLock lock(mutex_);
    if (entries_.size() >= kMaxEntries) entries_.clear();
    entries_.insert_or_assign(key, Entry{std::chrono::steady_clock::now() + ttl_, error});
  }
  void Remove(const std::string& key) {
    const MutexLock lock(mutex_);
    entries_.erase(key);
  }

 private:
  static constexpr size_t kMaxEntries = 65536;
  struct Entry {
    std::chrono::steady_clock::time_point until;
    Error error;
  };
  const std::chrono::seconds ttl_;
  Mutex mutex_;
  std::unordered_map<std::string, Entry> entries_ OCIFS_GUARDED_BY(mutex_);
};

// Errors that say nothing about whether the thing exists.
bool IsAboutReaching(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnauthenticated:
    case ErrorCode::kDenied:
    case ErrorCode::kRateLimited:
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimedOut:
    case ErrorCode::kRemote:
      return true;
    default:
      return false;
  }
}

}  // namespace

class PullThrough::Impl {
 public:
  Impl(Store& store, Source& source, Options options)
      : store_(store),
        source_(source),
        options_(std::move(options)),
        puller_(store, source, options_, committer_, unkept_),
        missing_(options_.negative_ttl),
        catalog_flights_(request_pool_, options_.stall_timeout),
        resolutions_(request_pool_, options_.stall_timeout),
        tag_lists_(request_pool_, options_.stall_timeout),
        registries_(request_pool_, options_.stall_timeout),
        pulls_(pull_pool_, options_.stall_timeout),
        restorations_(pull_pool_, options_.stall_timeout),
        streams_(pull_pool_, options_.stall_timeout),
        blobs_(pull_pool_, options_.stall_timeout) {}
  ~Impl() {
    stop_.request_stop();
    if (const Result<void> flushed = store_.FlushUses(); !flushed) {
      Log(LogLevel::kWarning,
          "when packages were used was not written down: " + flushed.error().message);
    }
  }

  FetchContext Fetching(const RequestContext& context) const {
    return FetchContext{context.requester, stop_.get_token()};
  }

  Result<void> FindRegistry(const Registry& registry, const RequestContext& context);
  Result<Resolution> Resolve(const Reference& reference, const RequestContext& context);
  Result<std::shared_ptr<const Package>> Open(const Repository& repository, const Digest& root,
                                              const RequestContext& context);
  Result<size_t> Read(const StoredPackage& package, NodeIndex file, uint64_t offset,
                      std::span<std::byte> out, const RequestContext& context);
  Result<size_t> ReadBlob(const Package& package, const Descriptor& blob, uint64_t offset,
                          std::span<std::byte> out, const RequestContext& context);
  Result<TagList> Tags(const Repository& repository, TagsNeeded needed,
                       const RequestContext& context);
  Result<std::shared_ptr<const std::vector<std::string>>> ListCatalog(
      const Registry& registry, const RequestContext& context);
  Result<std::optional<Resolution>> KnownResolution(const Reference& reference);
  Result<KnownNames> Known(const Registry& registry, std::string_view path);

  Store& store_;
  Source& source_;
  const Options options_;
  UnkeptChunks unkept_;
  Committer committer_{store_};
  Puller puller_;
  NegativeCache missing_;

  Result<Resolution> ResolveRemotely(const Reference& reference,
                                     const std::optional<RefRecord>& known,
                                     const FetchContext& context);
  Result<TagList> ListTagsRemotely(const Repository& repository, TagsNeeded needed,
                                   const FetchContext& context);
  Result<TagList> KnownTags(const Repository& repository);
  Resolution ToResolution(const Reference& reference, const RefRecord& record) const;

  // What a reference stood for when the registry last said so, and the index could not be written.
  Result<std::optional<RefRecord>> FindRef(const Reference& reference);
  // Enters a reference; what the store cannot keep is remembered by this process.
  Result<void> KeepRef(const Reference& reference, const RefRecord& record, IndexBatch batch);

  Result<void> KeepRefs();

  // One chunk's bytes from `skip` on; kCorrupt when what the store has is not the chunk, kNotFound
  // when it has none.
  Result<void> ReadChunk(const StoredPackage& package, uint32_t number, const ChunkRef& chunk,
                         uint64_t skip, std::span<std::byte> out);
  // The same, and what is damaged or gone is fetched again.
  Result<void> ReadOrRestore(const StoredPackage& package, uint32_t number, const ChunkRef& chunk,
                             uint64_t skip, std::span<std::byte> out,
                             const RequestContext& context);
  // Gets the package's content again, or that of one layer, and keeps what the store lacks or has
  // damaged.
  Result<void> Restore(const StoredPackage& package, std::optional<uint32_t> layer,
                       const RequestContext& context);
  void NoteUse(const StoredPackage& package) {
    const int64_t now = options_.now();
    if (package.IsUseOfNote(now)) store_.Use(package.manifest_digest(), now);
  }
  Result<size_t> StreamBlob(const Package& package, const Descriptor& blob, uint64_t offset,
                            std::span<std::byte> out, const RequestContext& context);
  Result<void> Fill(const StoredPackage& package, const RequestContext& context);
  Result<void> Flush(const RequestContext& context);

  Mutex mutex_;
  std::unordered_map<std::string, std::weak_ptr<const StoredPackage>> packages_
      OCIFS_GUARDED_BY(mutex_);
  std::unordered_map<std::string, RefRecord> unkept_refs_ OCIFS_GUARDED_BY(mutex_);
  std::atomic<bool> has_unkept_refs_ = false;

  struct Catalog {
    std::shared_ptr<const std::vector<std::string>> paths;
    int64_t fetched_at = 0;
  };
  std::shared_ptr<const std::vector<std::string>> FreshCatalog(const std::string& registry);
  std::map<std::string, Catalog> catalogs_ OCIFS_GUARDED_BY(mutex_);

  std::stop_source stop_;
  FlightTable<std::shared_ptr<const std::vector<std::string>>> catalog_flights_;
  FlightTable<Resolution> resolutions_;
  FlightTable<TagList> tag_lists_;
  FlightTable<std::monostate> registries_;
  FlightTable<std::shared_ptr<const StoredPackage>> pulls_;
  FlightTable<std::monostate> restorations_;
  FlightTable<std::shared_ptr<const std::vector<std::byte>>> streams_;
  FlightTable<std::monostate> blobs_;
  // Last: their jobs use all of the above.
  JobPool request_pool_{kRequestThreads};
  JobPool pull_pool_{kPullThreads};
};

// --- names ---------------------------------------------------------------------------------------

Result<void> PullThrough::Impl::FindRegistry(const Registry& registry,
                                             const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const auto refs, store_.index().HasRegistry(registry));
  if (refs) return {};
  const std::string key = "registry " + registry.name();
  if (std::optional<Error> error = missing_.Find(key)) return Fail(*std::move(error));
  if (options_.offline) {
    return Fail(ErrorCode::kNotFound,
                key + ": nothing of it is in the store, and ocifs is offline");
  }
  Result<std::monostate> found = registries_.Run(
      key, context,
      [this, registry, key, fetch = Fetching(context)](FlightProgress&) -> Result<std::monostate> {
        Result<void> result = source_.FindRegistry(registry, fetch);
        if (result) return std::monostate();
        if (result.error().code == ErrorCode::kNotFound) missing_.Add(key, result.error());
        return Fail(std::move(result).error());
      });
  if (!found) return Fail(std::move(found).error());
  return {};
}

Resolution PullThrough::Impl::ToResolution(const Reference& reference,
                                           const RefRecord& record) const {
  Resolution resolution{.digest = record.digest,
                        .media_type = record.media_type,
                        .fetched_at = record.fetched_at,
                        .validated_at = record.validated_at,
                        .expires_at = std::nullopt,
                        .from_registry = false,
                        .stale = false};
  if (reference.tag() && reference.tag()->name() == "latest") {
    resolution.expires_at = record.validated_at + options_.latest_ttl.count();
    const int64_t now = options_.now();
    // A time from the future means that the clock was set back: ask rather than trust it for long.
    resolution.stale = now >= *resolution.expires_at || record.validated_at > now;
  }
  return resolution;
}

Result<std::optional<RefRecord>> PullThrough::Impl::FindRef(const Reference& reference) {
  if (has_unkept_refs_.load(std::memory_order_acquire)) {
    const MutexLock lock(mutex_);
    const auto found = unkept_refs_.find(reference.ToString());
    if (found != unkept_refs_.end()) return found->second;
  }
  return OrMissing(store_.index().FindRef(reference));
}

Result<void> PullThrough::Impl::KeepRef(const Reference& reference, const RefRecord& record,
                                        IndexBatch batch) {
  Result<void> committed = store_.index().Commit(std::move(batch));
  if (!committed && !CannotKeep(committed.error())) return committed;
  const MutexLock lock(mutex_);
  if (committed) {
    unkept_refs_.erase(reference.ToString());
  } else {
    store_.space().NotKept(committed.error());
    if (unkept_refs_.size() >= kMaxUnkeptRefs) unkept_refs_.clear();
    unkept_refs_.insert_or_assign(reference.ToString(), record);
  }
  has_unkept_refs_.store(!unkept_refs_.empty(), std::memory_order_release);
  return {};
}

// What could not be entered before is tried again.
Result<void> PullThrough::Impl::KeepRefs() {
  if (!has_unkept_refs_.load(std::memory_order_acquire)) return {};
  IndexBatch batch;
  {
    const MutexLock lock(mutex_);
    for (const auto& [name, record] : unkept_refs_) {
      OCIFS_ASSIGN_OR_RETURN(const Reference reference, Reference::Parse(name));
      batch.PutRef(reference, record);
      if (reference.tag()) batch.PutRef(Reference(reference.repository(), record.digest), record);
    }
  }
  OCIFS_RETURN_IF_ERROR(store_.index().Commit(std::move(batch)));
  const MutexLock lock(mutex_);
  unkept_refs_.clear();
  has_unkept_refs_.store(false, std::memory_order_release);
  return {};
}

Result<std::optional<Resolution>> PullThrough::Impl::KnownResolution(const Reference& reference) {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> record, FindRef(reference));
  if (!record) return std::optional<Resolution>();
  return ToResolution(reference, *record);
}

Result<Resolution> PullThrough::Impl::Resolve(const Reference& reference,
                                              const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> record, FindRef(reference));
  std::optional<Resolution> known;
  if (record) known = ToResolution(reference, *record);
  if (known && (!known->stale || options_.offline)) return *known;

  const std::string key = reference.ToString();
  if (std::optional<Error> error = missing_.Find(key)) return Fail(*std::move(error));
  if (options_.offline) {
    return Fail(ErrorCode::kUnavailable, key + ": not in the store, and ocifs is offline");
  }
  Result<Resolution> resolved = resolutions_.Run(
      key, context,
      [this, reference, key, fetch = Fetching(context)](FlightProgress&) -> Result<Resolution> {
        // Once more: another fetch may have ended between our first look and this one's start.
        OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> last, FindRef(reference));
        if (last) {
          Resolution resolution = ToResolution(reference, *last);
          if (!resolution.stale) return resolution;
        }
        if (std::optional<Error> error = missing_.Find(key)) return Fail(*std::move(error));
        Result<Resolution> result = ResolveRemotely(reference, last, fetch);
        if (result) {
          missing_.Remove(key);
        } else if (result.error().code == ErrorCode::kNotFound) {
          missing_.Add(key, result.error());
        }
        return result;
      });
  if (!resolved && known && IsAboutReaching(resolved.error().code)) return *known;
  return resolved;
}

Result<Resolution> PullThrough::Impl::ResolveRemotely(const Reference& reference,
                                                      const std::optional<RefRecord>& known,
                                                      const FetchContext& context) {
  OCIFS_ASSIGN_OR_RETURN(
      const std::optional<RemoteDocument> document,
      source_.FetchManifest(reference, known ? std::optional(known->digest) : std::nullopt,
                            context));
  const int64_t now = options_.now();
  IndexBatch batch;
  RefRecord record = known.value_or(RefRecord{Digest::Of({}), {}, now, now});
  record.validated_at = now;
  if (document) {
    const Digest digest =
        Digest::Of(AsBytes(document->bytes),
                   reference.digest() ? reference.digest()->algorithm() : DigestAlgorithm::kSha256);
    if (reference.digest() && digest != *reference.digest()) {
      return Fail(ErrorCode::kCorrupt, reference.ToString() + ": the content served has digest " +
                                           digest.ToString() + "; nothing of it was kept");
    }
    OCIFS_ASSIGN_OR_RETURN(const auto parsed,
                           ParseDocument(digest, document->bytes, document->media_type));
    record.media_type = std::holds_alternative<Manifest>(parsed)
                            ? std::get<Manifest>(parsed).media_type
                            : std::get<ImageIndex>(parsed).media_type;
    if (!known || known->digest != digest) record.fetched_at = now;
    record.digest = digest;
    batch.PutBlob(digest, BlobRecord{document->bytes.size(), document->bytes});
    // By digest too: what was seen behind a tag can be asked for by digest without the registry.
    if (reference.tag()) batch.PutRef(Reference(reference.repository(), digest), record);
  } else if (!known) {
    return Fail(ErrorCode::kRemote, reference.ToString() + ": the registry sent an unasked 304");
  }
  batch.PutRef(reference, record);
  OCIFS_RETURN_IF_ERROR(KeepRef(reference, record, std::move(batch)));
  Resolution resolution = ToResolution(reference, record);
  resolution.from_registry = true;
  resolution.stale = false;
  return resolution;
}

// --- tags ----------------------------------------------------------------------------------------

Result<KnownNames> PullThrough::Impl::Known(const Registry& registry, std::string_view path) {
  std::set<std::string> repositories;
  std::vector<std::string> tags;
  std::string prefix = registry.name() + "/";
  if (!path.empty()) {
    prefix.append(path);
    OCIFS_ASSIGN_OR_RETURN(const auto tagged, store_.index().Refs(prefix + ":"));
    for (const auto& [key, record] : tagged) tags.push_back(key.substr(prefix.size() + 1));
    prefix.push_back('/');
  }
  OCIFS_ASSIGN_OR_RETURN(const auto below, store_.index().Refs(prefix));
  for (const auto& [key, record] : below) {
    const std::string_view rest = std::string_view(key).substr(prefix.size());
    repositories.emplace(rest.substr(0, rest.find_first_of("/:@")));
  }
  return KnownNames{{repositories.begin(), repositories.end()}, std::move(tags)};
}

Result<TagList> PullThrough::Impl::KnownTags(const Repository& repository) {
  TagList list;
  std::set<std::string> tags;
  OCIFS_ASSIGN_OR_RETURN(const std::optional<TagListRecord> record,
                         OrMissing(store_.index().FindTagList(repository)));
  if (record) {
    list.complete = record->complete;
    list.fetched_at = record->fetched_at;
    tags.insert(record->tags.begin(), record->tags.end());
  }
  const std::string prefix = repository.ToString() + ":";
  OCIFS_ASSIGN_OR_RETURN(const auto refs, store_.index().Refs(prefix));
  for (const auto& [key, ref] : refs) tags.insert(key.substr(prefix.size()));
  list.tags.assign(tags.begin(), tags.end());
  return list;
}

Result<TagList> PullThrough::Impl::Tags(const Repository& repository, TagsNeeded needed,
                                        const RequestContext& context) {
  OCIFS_ASSIGN_OR_RETURN(TagList known, KnownTags(repository));
  auto answers = [this, needed](const TagList& list) {
    const int64_t age = options_.now() - list.fetched_at;
    const bool fresh = list.fetched_at != 0 && age >= 0 && age < options_.tag_list_ttl.count();
    return fresh && (list.complete || needed == TagsNeeded::kExistence);
  };
  if (answers(known)) return known;

  const std::string key = "tags of " + repository.ToString();
  if (std::optional<Error> error = missing_.Find(key)) {
    known.complete = false;
    if (!known.tags.empty()) return known;
    return Fail(*std::move(error));
  }
  if (options_.offline) {
    known.complete = false;
    if (!known.tags.empty()) return known;
    return Fail(ErrorCode::kUnavailable, key + ": none in the store, and ocifs is offline");
  }
  const std::string flight_key = key + (needed == TagsNeeded::kAll ? "" : " (first page)");
  Result<TagList> listed = tag_lists_.Run(
      flight_key, context,
      [this, repository, needed, key, answers,
       fetch = Fetching(context)](FlightProgress&) -> Result<TagList> {
        OCIFS_ASSIGN_OR_RETURN(TagList last, KnownTags(repository));  // as in Resolve
        if (answers(last)) return last;
        if (std::optional<Error> error = missing_.Find(key)) {
          return Fail(*std::move(error));
        }
        Result<TagList> result = ListTagsRemotely(repository, needed, fetch);
        if (!result && result.error().code == ErrorCode::kNotFound) {
          missing_.Add(key, result.error());
        }
        return result;
      });
  const bool fall_back =
      !listed && !known.tags.empty() &&
      (IsAboutReaching(listed.error().code) || listed.error().code == ErrorCode::kNotFound);
  if (fall_back) {
    known.complete = false;
    return known;
  }
  return listed;
}

Result<TagList> PullThrough::Impl::ListTagsRemotely(const Repository& repository, TagsNeeded needed,
                                                    const FetchContext& context) {
  std::set<std::string> tags;
  std::set<std::string> cursors;  // a registry may page in a circle
  std::string cursor;
  do {
    OCIFS_ASSIGN_OR_RETURN(TagPage page, source_.ListTags(repository, cursor, context));
    for (std::string& tag : page.tags) tags.insert(std::move(tag));
    cursor = std::move(page.next);
    if (!cursor.empty() && !cursors.insert(cursor).second) {
      return Fail(ErrorCode::kRemote,
                  "tags of " + repository.ToString() + ": the registry's pages go in a circle");
    }
    if (tags.size() > kMaxTags || cursors.size() > kMaxTagPages) {
      return Fail(ErrorCode::kTooLarge, "tags of " + repository.ToString() + ": more than " +
                                            std::to_string(kMaxTags) + " tags or " +
                                            std::to_string(kMaxTagPages) + " pages");
    }
  } while (needed == TagsNeeded::kAll && !cursor.empty());
  TagListRecord record{{tags.begin(), tags.end()}, cursor.empty(), options_.now()};
  IndexBatch batch;
  batch.PutTagList(repository, record);
  const Result<void> committed = store_.index().Commit(std::move(batch));
  if (committed) return KnownTags(repository);
  if (!CannotKeep(committed.error())) return Fail(committed.error());
  store_.space().NotKept(committed.error());
  return TagList{std::move(record.tags), record.complete, record.fetched_at};
}

std::shared_ptr<const std::vector<std::string>> PullThrough::Impl::FreshCatalog(
    const std::string& registry) {
  const MutexLock lock(mutex_);
  const auto found = catalogs_.find(registry);
  if (found == catalogs_.end()) return nullptr;
  const int64_t age = options_.now() - found->second.fetched_at;
  return age < 0 || age >= options_.catalog_ttl.count() ? nullptr : found->second.paths;
}

Result<std::shared_ptr<const std::vector<std::string>>> PullThrough::Impl::ListCatalog(
    const Registry& registry, const RequestContext& context) {
  using Paths = std::shared_ptr<const std::vector<std::string>>;
  if (Paths known = FreshCatalog(registry.name())) return known;
  if (options_.offline || !source_.HasCatalog(registry)) {
    return Fail(ErrorCode::kUnsupported,
                "registry " + registry.name() + " is not asked for its catalog");
  }
  return catalog_flights_.Run(
      registry.name(), context,
      [this, registry, fetch = Fetching(context)](FlightProgress&) -> Result<Paths> {
        if (Paths known = FreshCatalog(registry.name())) return known;
        OCIFS_ASSIGN_OR_RETURN(std::vector<std::string> paths,
                               source_.ListCatalog(registry, fetch));
        auto shared = std::make_shared<const std::vector<std::string>>(std::move(paths));
        const MutexLock lock(mutex_);
        catalogs_[registry.name()] = {shared, options_.now()};
        return shared;
      });
}

// --- packages ------------------------------------------------------------------------------------

Result<std::shared_ptr<const Package>> PullThrough::Impl::Open(const Repository& repository,
                                                               const Digest& root,
                                                               const RequestContext& context) {
  // By repository too, for a package knows which one it was opened through.
  const std::string key = repository.ToString() + "@" + root.ToString();
  auto remember = [this, &key](std::shared_ptr<const StoredPackage> package) {
    NoteUse(*package);
    const MutexLock lock(mutex_);
    if (packages_.size() > 4096) {
      std::erase_if(packages_, [](const auto& item) { return item.second.expired(); });
    }
    packages_[key] = package;
    return package;
  };
  {
    const MutexLock lock(mutex_);
    if (const auto found = packages_.find(key); found != packages_.end()) {
      if (std::shared_ptr<const StoredPackage> package = found->second.lock()) {
        NoteUse(*package);
        return package;
      }
    }
  }
  if (std::shared_ptr<const StoredPackage> package = committer_.Find(repository, root)) {
    return remember(std::move(package));
  }
  OCIFS_ASSIGN_OR_RETURN(std::shared_ptr<const StoredPackage> stored,
                         LoadPackage(store_, repository, root, options_.platform));
  if (stored != nullptr) return remember(std::move(stored));

  OCIFS_ASSIGN_OR_RETURN(
      std::shared_ptr<const StoredPackage> pulled,
      pulls_.Run(key, context,
                 [this, repository, root, fetch = Fetching(context)](FlightProgress& progress) {
                   return puller_.Pull(repository, root, fetch, progress);
                 }));
  return remember(std::move(pulled));
}

Result<void> PullThrough::Impl::ReadChunk(const StoredPackage& package, uint32_t number,
                                          const ChunkRef& chunk, uint64_t skip,
                                          std::span<std::byte> out) {
  // The first read takes the whole chunk, straight into `out` when that is what was asked for.
  const bool verify = !package.IsVerified(number);
  std::vector<std::byte> buffer;
  std::span<std::byte> read = out;
  if (verify && out.size() != chunk.length) {
    buffer.resize(chunk.length);
    read = buffer;
  }
  auto read_at = [&](const ChunkLocation& location) -> Result<void> {
    if (location.length != chunk.length) {
      return Fail(ErrorCode::kCorrupt,
                  "chunk " + ToHex(chunk.digest.bytes) + " has another length");
    }
    return store_.packs().Read(location, verify ? 0 : skip, read);
  };
  std::optional<ChunkLocation> location = committer_.pending().Find(chunk.digest);
  if (location) {
    OCIFS_RETURN_IF_ERROR(read_at(*location));
  } else {
    // A chunk leaves the pending ones only once the index has it. Until its bytes are read, the
    // collector leaves what the snapshot names alone.
    OCIFS_ASSIGN_OR_RETURN(const IndexSnapshot now, store_.index().Snapshot());
    OCIFS_ASSIGN_OR_RETURN(location, OrMissing(now.FindChunk(chunk.digest)));
    if (location) OCIFS_RETURN_IF_ERROR(read_at(*location));
  }
  if (!location) {
    return Fail(ErrorCode::kNotFound,
                "chunk " + ToHex(chunk.digest.bytes) + " is not in the store");
  }
  if (!verify) return {};
  thread_local Hasher hasher;
  hasher.Update(read);
  if (hasher.FinishChunk() != chunk.digest) {
    return Fail(ErrorCode::kCorrupt, "chunk " + ToHex(chunk.digest.bytes) +
                                         " is damaged in the store (" +
                                         PackSet::FileName(location->pack) + ", offset " +
                                         std::to_string(location->offset) + ")");
  }
  package.SetVerified(number);
  if (read.data() != out.data()) {
    std::copy_n(read.begin() + static_cast<ptrdiff_t>(skip), out.size(), out.begin());
  }
  return {};
}

Result<void> PullThrough::Impl::Restore(const StoredPackage& package, std::optional<uint32_t> layer,
                                        const RequestContext& context) {
  std::string key = "content of " + package.manifest_digest().ToString();
  if (layer) key += " layer " + std::to_string(*layer);
  Result<std::monostate> restored =
      restorations_.Run(key, context,
                        [this, layer, kept = package.shared_from_this(), fetch = Fetching(context)](
                            FlightProgress& progress) -> Result<std::monostate> {
                          OCIFS_RETURN_IF_ERROR(puller_.Restore(*kept, layer, fetch, progress));
                          return std::monostate();
                        });
  // What was verified before may have been written anew.
  package.ClearAllVerified();
  if (!restored) return Fail(std::move(restored).error());
  return {};
}

Result<void> PullThrough::Impl::ReadOrRestore(const StoredPackage& package, uint32_t number,
                                              const ChunkRef& chunk, uint64_t skip,
                                              std::span<std::byte> out,
                                              const RequestContext& context) {
  auto read_once = [&]() -> Result<void> {
    Result<void> stored = ReadChunk(package, number, chunk, skip, out);
    if (!stored && unkept_.Read(chunk.digest, skip, out)) return {};
    return stored;
  };
  Result<void> read = read_once();
  // More than once, because a restoration that others have started may have begun before this
  // chunk was known to be damaged or was wanted.
  constexpr int kAttempts = 3;
  std::optional<UnkeptChunks::Want> want;
  for (int attempt = 1; !read; ++attempt) {
    const bool damaged = read.error().code == ErrorCode::kCorrupt;
    const bool gone = read.error().code == ErrorCode::kNotFound;
    if (!damaged && !gone) return read;
    if (attempt == kAttempts) {
      if (gone) read.error().code = ErrorCode::kCorrupt;  // not a missing name
      return read;
    }
    if (context.wait == RequestContext::Wait::kNever) {
      return Fail(ErrorCode::kWouldBlock, "content has to be fetched again");
    }
    Log(damaged ? LogLevel::kWarning : LogLevel::kInfo,
        "package " + package.manifest_digest().ToString() + ": " + read.error().message +
            "; it is fetched again");
    if (!want) want.emplace(unkept_, chunk.digest);
    if (Result<void> restored = Restore(package, chunk.layer, context); !restored) {
      Error error = std::move(restored).error().Wrap(read.error().message);
      // What is damaged and cannot be had again is damaged, whatever the reason for the latter.
      if (damaged && IsAboutReaching(error.code) && error.code != ErrorCode::kTimedOut) {
        error.code = ErrorCode::kCorrupt;
      }
      return Fail(std::move(error));
    }
    read = read_once();
  }
  return read;
}

Result<size_t> PullThrough::Impl::Read(const StoredPackage& package, NodeIndex file,
                                       uint64_t offset, std::span<std::byte> out,
                                       const RequestContext& context) {
  const Tree& tree = package.tree();
  const uint64_t size = tree.Attributes(file).size;
  if (offset >= size) return 0;
  NoteUse(package);
  out = out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), size - offset)));
  const size_t total = out.size();
  uint32_t position = total == 0 ? 0 : tree.ChunkPositionOf(file, offset);
  while (!out.empty()) {
    const uint32_t number = tree.ChunkNumber(file, position);
    const ChunkRef chunk = tree.ChunkByNumber(number);
    const uint64_t skip = offset - chunk.file_offset;
    const auto part =
        out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), chunk.length - skip)));
    if (chunk.is_hole) {
      std::fill(part.begin(), part.end(), std::byte{0});
    } else {
      OCIFS_RETURN_IF_ERROR(ReadOrRestore(package, number, chunk, skip, part, context));
    }
    out = out.subspan(part.size());
    offset += part.size();
    ++position;
  }
  return total;
}

Result<size_t> PullThrough::Impl::ReadBlob(const Package& package, const Descriptor& blob,
                                           uint64_t offset, std::span<std::byte> out,
                                           const RequestContext& context) {
  if (offset >= blob.size) return 0;
  out = out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), blob.size - offset)));
  for (int attempt = 0; attempt < 2; ++attempt) {
    OCIFS_ASSIGN_OR_RETURN(const bool read, store_.blobs().Read(blob.digest, offset, out));
    if (read) return out.size();
    Result<std::monostate> pulled =
        blobs_.Run("blob " + blob.digest.ToString(), context,
                   [this, origin = package.origin(), blob,
                    fetch = Fetching(context)](FlightProgress& progress) -> Result<std::monostate> {
                     committer_.Drain();  // it may be on its way in with the package
                     OCIFS_RETURN_IF_ERROR(puller_.PullBlob(origin, blob, fetch, progress));
                     return std::monostate();
                   });
    if (!pulled && CannotKeep(pulled.error()))
      return StreamBlob(package, blob, offset, out, context);
    if (!pulled) return Fail(std::move(pulled).error());
  }
  return Fail(ErrorCode::kCorrupt, "blob " + blob.digest.ToString() + " is damaged in the store");
}

Result<size_t> PullThrough::Impl::StreamBlob(const Package& package, const Descriptor& blob,
                                             uint64_t offset, std::span<std::byte> out,
                                             const RequestContext& context) {
  using Bytes = std::shared_ptr<const std::vector<std::byte>>;
  const std::string key = "blob " + blob.digest.ToString() + " from " + std::to_string(offset) +
                          ", " + std::to_string(out.size()) + " bytes";
  OCIFS_ASSIGN_OR_RETURN(
      const Bytes bytes,
      streams_.Run(key, context,
                   [this, origin = package.origin(), blob, offset, size = out.size(),
                    fetch = Fetching(context)](FlightProgress& progress) -> Result<Bytes> {
                     auto part = std::make_shared<std::vector<std::byte>>(size);
                     OCIFS_RETURN_IF_ERROR(
                         puller_.StreamBlob(origin, blob, offset, *part, fetch, progress));
                     return part;
                   }));
  std::copy(bytes->begin(), bytes->end(), out.begin());
  return out.size();
}

// What a collector took from a package while it was being pulled comes back.
Result<void> PullThrough::Impl::Fill(const StoredPackage& package, const RequestContext& context) {
  committer_.Drain();
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> record,
                         OrMissing(store_.index().FindPackage(package.manifest_digest())));
  if (record && record->complete) return {};
  return Restore(package, std::nullopt, context);
}

Result<void> PullThrough::Impl::Flush(const RequestContext& context) {
  constexpr int kAttempts = 3;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    OCIFS_RETURN_IF_ERROR(committer_.Flush());
    OCIFS_RETURN_IF_ERROR(KeepRefs());
    const auto incomplete = committer_.TakeIncomplete();
    if (incomplete.empty()) return store_.FlushUses();
    for (const auto& package : incomplete) {
      OCIFS_RETURN_IF_ERROR(Restore(*package, std::nullopt, context));
    }
  }
  return Fail(ErrorCode::kNoSpace,
              "content is evicted as fast as it is pulled; the store is too small for it");
}

// --- the facade ----------------------------------------------------------------------------------

PullThrough::PullThrough(Store& store, Source& source, Options options)
    : impl_(std::make_unique<Impl>(store, source, std::move(options))) {}
PullThrough::~PullThrough() = default;

Result<void> PullThrough::FindRegistry(const Registry& registry, const RequestContext& context) {
  return impl_->FindRegistry(registry, context);
}

Result<Resolution> PullThrough::Resolve(const Reference& reference, const RequestContext& context) {
  return impl_->Resolve(reference, context);
}

Result<std::shared_ptr<const Package>> PullThrough::Open(const Repository& repository,
                                                         const Digest& root,
                                                         const RequestContext& context) {
  return impl_->Open(repository, root, context);
}

Result<size_t> PullThrough::Read(const Package& package, NodeIndex file, uint64_t offset,
                                 std::span<std::byte> out, const RequestContext& context) {
  // Packages are only made here.
  return impl_->Read(static_cast<const StoredPackage&>(package), file, offset, out, context);
}

Result<size_t> PullThrough::ReadBlob(const Package& package, const Descriptor& blob,
                                     uint64_t offset, std::span<std::byte> out,
                                     const RequestContext& context) {
  return impl_->ReadBlob(package, blob, offset, out, context);
}

Result<TagList> PullThrough::Tags(const Repository& repository, TagsNeeded needed,
                                  const RequestContext& context) {
  return impl_->Tags(repository, needed, context);
}

Result<std::vector<std::string>> PullThrough::ListRepositories(const Registry& registry,
                                                               const RequestContext& context) {
  return impl_->source_.ListRepositories(registry, impl_->Fetching(context));
}

Result<std::shared_ptr<const std::vector<std::string>>> PullThrough::Catalog(
    const Registry& registry, const RequestContext& context) {
  return impl_->ListCatalog(registry, context);
}

Result<std::vector<Registry>> PullThrough::KnownRegistries() {
  return impl_->store_.index().Registries();
}

Result<KnownNames> PullThrough::Known(const Registry& registry, std::string_view path) {
  return impl_->Known(registry, path);
}

Result<std::optional<Resolution>> PullThrough::KnownResolution(const Reference& reference) {
  return impl_->KnownResolution(reference);
}

Result<std::optional<CacheState>> PullThrough::Cached(const Digest& root) {
  return CachedContent(impl_->store_, root, impl_->options_.platform);
}

Result<void> PullThrough::Fill(const Package& package, const RequestContext& context) {
  return impl_->Fill(static_cast<const StoredPackage&>(package), context);
}

Result<void> PullThrough::Flush(const RequestContext& context) { return impl_->Flush(context); }

std::vector<FetchProgress> PullThrough::Progress() const {
  std::vector<FetchProgress> progress;
  impl_->pulls_.AppendProgress(progress);
  impl_->restorations_.AppendProgress(progress);
  impl_->blobs_.AppendProgress(progress);
  return progress;
}

const PullThrough::Options& PullThrough::options() const { return impl_->options_; }
Store& PullThrough::store() { return impl_->store_; }

}  // namespace ocifs::store
