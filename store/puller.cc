#include "store/puller.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <stop_token>
#include <thread>
#include <utility>

#include "store/entry_path.h"
#include "store/log.h"
#include "store/pack.h"
#include "store/space.h"
#include "store/text.h"
#include "store/tree_builder.h"

namespace ocifs::store {
namespace {

// Layers that are downloaded while others are being unpacked, and how many are unpacked at once.
constexpr size_t kOpenAhead = 4;
constexpr size_t kWorkers = 2;
// How often a lock that another process holds is tried.
constexpr auto kLockPoll = std::chrono::milliseconds(10);

}  // namespace

// --- Puller: documents ---------------------------------------------------------------------------

Result<std::unique_ptr<ByteStream>> Puller::OpenRemote(const Repository& repository,
                                                       const Descriptor& blob,
                                                       const FetchContext& context) {
  if (options_.offline) {
    return Fail(ErrorCode::kUnavailable,
                "blob " + blob.digest.ToString() + " is not in the store, and ocifs is offline");
  }
  if (blob.size > options_.limits.max_blob_bytes) {
    return Fail(ErrorCode::kTooLarge, "blob " + blob.digest.ToString() + " of " +
                                          std::to_string(blob.size) +
                                          " bytes exceeds limits.max_blob");
  }
  return source_.OpenBlob(repository, blob, context);
}

Result<std::string> Puller::GetDocument(const Repository& repository, const Descriptor& descriptor,
                                        const FetchContext& context, IndexBatch& batch) {
  OCIFS_ASSIGN_OR_RETURN(std::optional<std::string> known,
                         store_.blobs().ReadDocument(descriptor.digest));
  if (known) return *std::move(known);
  if (options_.offline) {
    return Fail(ErrorCode::kUnavailable, "manifest " + descriptor.digest.ToString() +
                                             " is not in the store, and ocifs is offline");
  }
  const Reference reference(repository, descriptor.digest);
  OCIFS_ASSIGN_OR_RETURN(std::optional<RemoteDocument> document,
                         source_.FetchManifest(reference, std::nullopt, context));
  if (!document) return Fail(ErrorCode::kRemote, reference.ToString() + ": an unasked 304");
  const Digest actual = Digest::Of(AsBytes(document->bytes), descriptor.digest.algorithm());
  if (actual != descriptor.digest) {
    return Fail(ErrorCode::kCorrupt, reference.ToString() + ": the content served has digest " +
                                         actual.ToString() + "; nothing of it was kept");
  }
  batch.PutBlob(descriptor.digest, BlobRecord{document->bytes.size(), document->bytes});
  return std::move(document->bytes);
}

Result<PackageDocuments> Puller::GetDocuments(const Repository& repository, const Digest& root,
                                              const FetchContext& context, IndexBatch& batch) {
  std::string index_bytes;
  Descriptor descriptor{.media_type = {},
                        .digest = root,
                        .size = 0,
                        .artifact_type = {},
                        .annotations = {},
                        .platform = std::nullopt,
                        .os_features = {},
                        .data = std::nullopt};
  for (int depth = 0;; ++depth) {
    OCIFS_ASSIGN_OR_RETURN(std::string bytes, GetDocument(repository, descriptor, context, batch));
    OCIFS_ASSIGN_OR_RETURN(auto parsed, ParseDocument(descriptor.digest, bytes, {}));
    if (Manifest* manifest = std::get_if<Manifest>(&parsed)) {
      return PackageDocuments{.origin = repository,
                              .root_digest = root,
                              .manifest_digest = descriptor.digest,
                              .index_bytes = std::move(index_bytes),
                              .manifest_bytes = std::move(bytes),
                              .manifest = std::move(*manifest),
                              .config_bytes = {}};
    }
    if (depth == kMaxIndexDepth) {
      return Fail(ErrorCode::kCorrupt, root.ToString() + ": indexes nested too deep");
    }
    OCIFS_ASSIGN_OR_RETURN(descriptor,
                           SelectPlatform(std::get<ImageIndex>(parsed), options_.platform));
    if (depth == 0) index_bytes = std::move(bytes);
  }
}

Result<std::unique_ptr<Store::Lock>> Puller::Lock(const Digest& digest, const FetchContext& context,
                                                  FlightProgress& progress) {
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Store::Lock> lock, store_.TryLockPull(digest));
    if (lock != nullptr) return lock;
    if (context.stop.stop_requested()) {
      return Fail(ErrorCode::kCancelled,
                  "waiting for another process that pulls " + digest.ToString());
    }
    progress.Moved();  // the other process has deadlines of its own
    std::this_thread::sleep_for(kLockPoll);
  }
}

// --- Puller: layers ------------------------------------------------------------------------------

namespace {

// Leaves the rest of a stream to whoever holds it, too.
class SharedStream final : public ByteStream {
 public:
  explicit SharedStream(std::shared_ptr<ByteStream> stream) : stream_(std::move(stream)) {}
  Result<std::span<const std::byte>> Next() override { return stream_->Next(); }

 private:
  const std::shared_ptr<ByteStream> stream_;
};

}  // namespace

struct Puller::LayerJob {
  Descriptor descriptor;
  std::vector<uint32_t> positions;  // in the manifest's layers; more than one when a blob is named
                                    // more than once
  std::shared_ptr<ByteStream> stream;  // of the blob's bytes, verified while they pass
  std::optional<StagedBlob> keep;
  std::unique_ptr<Store::Lock> lock;  // of the blob, while it is being pulled
  bool local = false;                 // comes from the store
  IngestedLayer ingested;
};

// The layers of one pull on their way into packs.
class Puller::Layers {
 public:
  // `again`: the store's content is compared, and restored where it is damaged; of one layer only,
  // when `only` is given.
  Layers(Puller& puller, const PackageDocuments& documents, bool again,
         std::optional<uint32_t> only, const FetchContext& context, FlightProgress& progress)
      : puller_(puller),
        documents_(documents),
        again_(again),
        context_{context.requester, stop_.get_token()},
        progress_(progress),
        pass_on_(context.stop, [this] { stop_.request_stop(); }) {
    std::map<Digest, size_t> seen;
    const std::vector<Descriptor>& layers = documents.manifest.layers;
    for (uint32_t i = 0; i < layers.size(); ++i) {
      if (layers[i].media_type == media_type::kOciEmpty) continue;  // "no content", by definition
      if (only && layers[i].digest != layers[*only].digest) continue;
      const auto [at, first] = seen.emplace(layers[i].digest, jobs_.size());
      if (first) {
        jobs_.push_back(LayerJob{.descriptor = layers[i],
                                 .positions = {},
                                 .stream = nullptr,
                                 .keep = std::nullopt,
                                 .lock = nullptr,
                                 .ingested = {}});
      }
      jobs_[at->second].positions.push_back(i);
    }
    // Blobs are locked in the order of their digests, whoever pulls them: two pulls that share
    // several blobs cannot wait for each other.
    std::sort(jobs_.begin(), jobs_.end(), [](const LayerJob& a, const LayerJob& b) {
      return a.descriptor.digest < b.descriptor.digest;
    });
  }

  // Starts the first downloads.
  Result<void> Start() {
    const MutexLock lock(mutex_);
    return OpenAhead(0);
  }

  // Ingests all layers. On failure, the packs are as they were before.
  Result<void> Run() {
    const size_t count = std::min(kWorkers, jobs_.size());
    if (count == 0) return {};
    for (size_t i = 0; i < count; ++i) {
      Result<std::unique_ptr<PackWriter>> pack = puller_.store_.packs().Acquire();
      if (!pack) {
        if (!CannotKeep(pack.error())) return Fail(std::move(pack).error());
        NotKept(pack.error());
      }
      workers_.push_back(std::make_unique<Worker>(pack ? *std::move(pack) : nullptr,
                                                  puller_.store_.index(), puller_.unkept_,
                                                  again_ ? &puller_.store_.packs() : nullptr));
    }
    std::vector<std::thread> threads;
    for (size_t i = 1; i < count; ++i) {
      threads.emplace_back([this, i] { Work(*workers_[i]); });
    }
    Work(*workers_[0]);
    for (std::thread& thread : threads) thread.join();
    const MutexLock lock(mutex_);
    if (!failure_) {
      for (const auto& worker : workers_) {
        if (Result<void> flushed = worker->chunks.Flush(); !flushed) {
          failure_ = std::move(flushed).error();
        }
      }
    }
    if (failure_) {
      GiveBack();
      return Fail(*failure_);
    }
    return {};
  }

  // Layer by layer, in the manifest's order.
  Result<void> Merge(TreeBuilder& builder) {
    std::map<uint32_t, const Layer*> ordered;
    for (const LayerJob& job : jobs_) {
      for (const uint32_t position : job.positions) {
        ordered[position] = &LayerAt(job, position);
      }
    }
    for (const auto& [position, layer] : ordered) {
      OCIFS_RETURN_IF_ERROR(builder.Apply(*layer, documents_.manifest.is_image()));
    }
    return {};
  }

  // Hands packs, chunks and raw blobs over to be committed.
  void MoveTo(Committer::Work& work) {
    for (const auto& worker : workers_) {
      if (worker->chunks.failure()) NotKept(*worker->chunks.failure());
      std::unique_ptr<PackWriter> pack = worker->chunks.TakePack();
      if (pack == nullptr) continue;
      work.packs.push_back({pack->pack(), pack->length(), pack->lock()});
      work.chunks.push_back(std::make_shared<const ChunkMap>(worker->chunks.added()));
      puller_.store_.packs().Release(std::move(pack));
    }
    if (unkept_) work.unkept = unkept_;
    for (LayerJob& job : jobs_) {
      if (job.keep && job.keep->is_whole()) {
        work.blobs.emplace_back(job.descriptor.digest, *std::move(job.keep));
      }
      if (job.lock != nullptr) work.locks.push_back(std::move(job.lock));
    }
  }

 private:
  struct Worker {
    Worker(std::unique_ptr<PackWriter> writer, const Index& index, UnkeptChunks& unkept,
           const PackSet* stored)
        : chunks(std::move(writer), index, unkept, stored), start(chunks.pack_length()) {}
    ChunkWriter chunks;
    const uint64_t start;
  };

  void NotKept(const Error& error) {
    if (!unkept_) unkept_ = error;
  }

  // The packs, as they were before. A pack that cannot be cut is not written any more by this
  // process, and cut by the next writer.
  void GiveBack() {
    for (const auto& worker : workers_) {
      const Result<void> cut = worker->chunks.RollBackTo(worker->start);
      std::unique_ptr<PackWriter> pack = worker->chunks.TakePack();
      if (cut && pack != nullptr) puller_.store_.packs().Release(std::move(pack));
    }
  }

  // One blob may be several files of an artifact: same chunks, another title each.
  const Layer& LayerAt(const LayerJob& job, uint32_t position) {
    const Descriptor& descriptor = documents_.manifest.layers[position];
    const bool is_file = !job.ingested.diff_id && job.ingested.layer.size() == 1;
    const std::string* title = descriptor.title();
    if (!is_file || position == job.positions.front() || title == nullptr) {
      return job.ingested.layer;
    }
    const Layer::Entry entry = job.ingested.layer.At(0);
    TarEntry copy;
    copy.attributes = *entry.attributes;
    if (!NormalizeEntryPath(*title, puller_.options_.limits, copy.path) || copy.path.empty()) {
      copy.path = entry.path;
    }
    renamed_.push_back(std::make_unique<Layer>());
    renamed_.back()->Add(copy, entry.chunks);
    return *renamed_.back();
  }

  // Opens the blobs of the jobs from `first` on, as far ahead as is good; stops at one that another
  // pull is getting, here or in another process.
  Result<void> OpenAhead(size_t first) OCIFS_REQUIRES(mutex_) {
    for (; opened_ < std::min(jobs_.size(), first + kOpenAhead); ++opened_) {
      LayerJob& job = jobs_[opened_];
      OCIFS_ASSIGN_OR_RETURN(bool local, OpenLocal(job));
      if (local) continue;
      OCIFS_ASSIGN_OR_RETURN(job.lock, puller_.store_.TryLockPull(job.descriptor.digest));
      if (job.lock == nullptr) return {};
      // Whoever had the lock until now has put the blob into the store.
      OCIFS_ASSIGN_OR_RETURN(local, OpenLocal(job));
      if (local) {
        job.lock.reset();
      } else {
        OCIFS_RETURN_IF_ERROR(OpenRemote(job));
      }
    }
    return {};
  }

  Result<bool> OpenLocal(LayerJob& job) {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> local,
                           puller_.store_.blobs().OpenStream(job.descriptor.digest));
    if (local == nullptr) return false;
    job.local = true;
    job.stream = VerifyBlob(std::move(local), job.descriptor, nullptr,
                            [this](uint64_t) { progress_.Moved(); });
    return true;
  }

  // Raw blobs are the first to be evicted, so nothing is evicted for them, and content, which takes
  // a few times as much, has precedence.
  Result<bool> HasRoomForRaw(uint64_t size) {
    constexpr uint64_t kTimes = 4;
    if (BlobStore::IsInline(size)) return true;
    OCIFS_ASSIGN_OR_RETURN(const Space::State space, puller_.store_.space().Measure());
    return space.room_bytes / kTimes >= size;
  }

  Result<void> OpenRemote(LayerJob& job) {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> remote,
                           puller_.OpenRemote(documents_.origin, job.descriptor, context_));
    job.keep.reset();
    OCIFS_ASSIGN_OR_RETURN(const bool has_room, HasRoomForRaw(job.descriptor.size));
    if (has_room) {
      Result<StagedBlob> staged =
          puller_.store_.blobs().Stage(job.descriptor.digest, job.descriptor.size);
      if (staged) {
        job.keep = *std::move(staged);
      } else if (!CannotKeep(staged.error())) {
        return Fail(std::move(staged).error());
      }
    }
    job.local = false;
    progress_.Expect(job.descriptor.size);
    job.stream = VerifyBlob(std::move(remote), job.descriptor, job.keep ? &*job.keep : nullptr,
                            [this](uint64_t bytes) { progress_.Fetched(bytes); });
    return {};
  }

  void Work(Worker& worker) {
    while (LayerJob* job = NextJob()) {
      const uint64_t mark = worker.chunks.pack_length();
      Result<void> ingested = CatchExceptions([&] { return Ingest(worker, *job); });
      while (!ingested && ingested.error().code == ErrorCode::kCorrupt && MayIngestAgain(*job)) {
        ingested = CatchExceptions([&] { return IngestAgain(worker, *job, mark); });
      }
      job->stream.reset();  // and with it connection and buffers
      if (ingested) ingested = CountEntries(*job);
      if (!ingested) {
        const MutexLock lock(mutex_);
        GiveUp(std::move(ingested).error());
        return;
      }
    }
  }

  // The next layer whose blob is open; null when there is none left or the pull has failed. Waits
  // while another pull gets the blob.
  LayerJob* NextJob() {
    while (true) {
      {
        const MutexLock lock(mutex_);
        if (failure_ || next_ == jobs_.size()) return nullptr;
        if (context_.stop.stop_requested()) {
          GiveUp(Error{ErrorCode::kCancelled, "pull of " + documents_.root_digest.ToString()});
          return nullptr;
        }
        if (Result<void> opened = OpenAhead(next_); !opened) {
          GiveUp(std::move(opened).error());
          return nullptr;
        }
        if (next_ < opened_) return &jobs_[next_++];
      }
      progress_.Moved();  // the other pull has deadlines of its own
      std::this_thread::sleep_for(kLockPoll);
    }
  }

  void GiveUp(Error error) OCIFS_REQUIRES(mutex_) {
    if (!failure_) failure_ = std::move(error);
    stop_.request_stop();
  }

  Result<void> Ingest(Worker& worker, LayerJob& job) {
    OCIFS_ASSIGN_OR_RETURN(
        job.ingested,
        worker.chunks.Ingest(std::make_unique<SharedStream>(job.stream), job.descriptor,
                             job.positions.front(), documents_.manifest.is_image(),
                             puller_.options_.limits));
    return {};
  }

  // The reader of an archive counts the entries of one; a package has many.
  Result<void> CountEntries(const LayerJob& job) {
    const uint64_t limit = puller_.options_.limits.max_entries;
    const MutexLock lock(mutex_);
    entries_ += job.ingested.layer.size() * job.positions.size();
    if (entries_ <= limit) return {};
    return Fail(ErrorCode::kTooLarge, "the layers have more than " + std::to_string(limit) +
                                          " entries (limits.max_entries)");
  }

  // Whether what does not unpack may be had whole elsewhere: the raw blob in the store may be what
  // is damaged, and a mirror may have served other bytes than the registry has. Reads the rest of
  // the blob to know: an authentic one that does not unpack is the same everywhere.
  bool MayIngestAgain(const LayerJob& job) {
    if (job.local && puller_.options_.offline) return false;
    if (!job.local && !puller_.source_.HasAnotherServer(documents_.origin, job.descriptor)) {
      return false;
    }
    while (true) {
      const Result<std::span<const std::byte>> piece = job.stream->Next();
      if (!piece) break;
      if (piece->empty()) return false;
    }
    if (context_.stop.stop_requested()) return false;
    if (!job.local) return puller_.source_.RejectBlob(documents_.origin, job.descriptor);
    Log(LogLevel::kWarning, "blob " + job.descriptor.digest.ToString() +
                                " in the store is damaged; it is fetched again");
    return true;
  }

  // The blob goes, with all that was taken from it since the pack's length was `mark`, and the
  // layer is pulled.
  Result<void> IngestAgain(Worker& worker, LayerJob& job, uint64_t mark) {
    OCIFS_RETURN_IF_ERROR(worker.chunks.RollBackTo(mark));
    if (job.local) {
      // A store that cannot be written keeps its record for now.
      const Result<void> dropped = puller_.store_.blobs().Drop(job.descriptor.digest);
      if (!dropped && !CannotKeep(dropped.error())) return dropped;
    }
    job.keep.reset();
    OCIFS_RETURN_IF_ERROR(OpenRemote(job));
    return Ingest(worker, job);
  }

 public:
  // Checks each layer's plain content against the config (image-spec, config.md, "rootfs").
  Result<void> CheckDiffIds() const {
    if (!documents_.manifest.is_image()) return {};
    OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> diff_ids,
                           ParseDiffIds(documents_.config_bytes));
    if (diff_ids.empty()) return {};
    if (diff_ids.size() != documents_.manifest.layers.size()) {
      return Fail(ErrorCode::kCorrupt, "image config names " + std::to_string(diff_ids.size()) +
                                           " layers, the manifest " +
                                           std::to_string(documents_.manifest.layers.size()));
    }
    for (const LayerJob& job : jobs_) {
      for (const uint32_t position : job.positions) {
        // Other algorithms than SHA-256 are not computed here; the blob's digest was checked.
        if (diff_ids[position].algorithm() != DigestAlgorithm::kSha256) continue;
        if (!job.ingested.diff_id || *job.ingested.diff_id != diff_ids[position]) {
          return Fail(ErrorCode::kCorrupt,
                      "layer " + job.descriptor.digest.ToString() +
                          ": its plain content is not what the image config names (" +
                          diff_ids[position].ToString() + "); nothing of it was kept");
        }
      }
    }
    return {};
  }

  // Undoes a Run that went well, for a pull that failed later.
  void RollBack() { GiveBack(); }

 private:
  Puller& puller_;
  const PackageDocuments& documents_;
  const bool again_;
  std::stop_source stop_;  // of this pull's transfers
  const FetchContext context_;
  FlightProgress& progress_;
  std::vector<LayerJob> jobs_;  // each is touched by one worker once it is taken
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Layer>> renamed_;
  std::optional<Error> unkept_;  // why some content was not kept
  Mutex mutex_;
  size_t opened_ OCIFS_GUARDED_BY(mutex_) = 0;
  size_t next_ OCIFS_GUARDED_BY(mutex_) = 0;
  uint64_t entries_ OCIFS_GUARDED_BY(mutex_) = 0;  // of all layers so far
  std::optional<Error> failure_ OCIFS_GUARDED_BY(mutex_);
  const std::stop_callback<std::function<void()>> pass_on_;
};

// --- Puller: packages ----------------------------------------------------------------------------

Result<std::shared_ptr<const StoredPackage>> Puller::Pull(const Repository& repository,
                                                          const Digest& root,
                                                          const FetchContext& context,
                                                          FlightProgress& progress) {
  // One process pulls a package; the others wait, and then find it in the store.
  auto work = std::make_unique<Committer::Work>();
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Store::Lock> lock, Lock(root, context, progress));
  work->locks.push_back(std::move(lock));
  OCIFS_ASSIGN_OR_RETURN(std::shared_ptr<const StoredPackage> found,
                         LoadPackage(store_, repository, root, options_.platform));
  if (found != nullptr) return found;
  OCIFS_ASSIGN_OR_RETURN(const IndexTotals totals, store_.index().Totals());
  work->evictions = totals.evictions;
  OCIFS_ASSIGN_OR_RETURN(PackageDocuments documents,
                         GetDocuments(repository, root, context, work->batch));
  if (documents.manifest_digest != root) {
    // Also against a collector: what is being pulled is not evicted.
    OCIFS_ASSIGN_OR_RETURN(lock, Lock(documents.manifest_digest, context, progress));
    work->locks.push_back(std::move(lock));
  }
  progress.Moved();
  const Descriptor& config = documents.manifest.config;
  if (config.size > kMaxDocumentBytes) {
    return Fail(ErrorCode::kTooLarge, "config " + config.digest.ToString() + " of " +
                                          std::to_string(config.size) + " bytes; at most " +
                                          std::to_string(kMaxDocumentBytes) + " are read");
  }
  // All requests are under way before the first answer is read.
  std::optional<std::string> config_bytes = KnownContent(config);
  if (!config_bytes) {
    OCIFS_ASSIGN_OR_RETURN(config_bytes, store_.blobs().ReadDocument(config.digest));
  }
  std::unique_ptr<ByteStream> config_stream;
  auto open_config = [&]() -> Result<void> {
    OCIFS_ASSIGN_OR_RETURN(config_stream, OpenRemote(repository, config, context));
    config_stream =
        VerifyBlob(std::move(config_stream), config, nullptr, [&](uint64_t) { progress.Moved(); });
    return {};
  };
  if (!config_bytes) OCIFS_RETURN_IF_ERROR(open_config());
  Layers layers(*this, documents, false, std::nullopt, context, progress);
  OCIFS_RETURN_IF_ERROR(layers.Start());
  if (config_stream != nullptr) {
    auto read_config = [&]() -> Result<std::string> {
      if (config_stream == nullptr) OCIFS_RETURN_IF_ERROR(open_config());
      const std::unique_ptr<ByteStream> stream = std::move(config_stream);
      return ReadAll(*stream, kMaxDocumentBytes);
    };
    OCIFS_ASSIGN_OR_RETURN(config_bytes, FromAnyServer(repository, config, read_config));
    work->batch.PutBlob(config.digest, BlobRecord{config_bytes->size(), config_bytes});
  }
  documents.config_bytes = *std::move(config_bytes);
  OCIFS_RETURN_IF_ERROR(layers.Run());

  std::unique_ptr<const Tree> tree;
  auto finish = [&]() -> Result<void> {
    OCIFS_RETURN_IF_ERROR(layers.CheckDiffIds());
    TreeBuilder builder(options_.limits);
    OCIFS_RETURN_IF_ERROR(layers.Merge(builder));
    OCIFS_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, builder.Finish(documents.manifest_digest));
    OCIFS_ASSIGN_OR_RETURN(tree, KeepTree(std::move(bytes), *work));
    if (tree->content_bytes() > options_.limits.max_unpacked_bytes) {
      return Fail(ErrorCode::kTooLarge, "package " + root.ToString() + " unpacks to " +
                                            std::to_string(tree->content_bytes()) +
                                            " bytes, more than limits.max_unpacked");
    }
    return {};
  };
  if (Result<void> finished = finish(); !finished) {
    layers.RollBack();
    return Fail(std::move(finished).error());
  }
  work->record.fetched_at = options_.now();
  work->record.used_at = options_.now();
  layers.MoveTo(*work);
  auto package = std::make_shared<const StoredPackage>(std::move(documents), std::move(tree));
  work->package = package;
  committer_.Submit(std::move(work));
  return package;
}

// Small trees lie in the index; others are files, which are read where they lie. A tree that cannot
// be written stays in memory.
Result<std::unique_ptr<const Tree>> Puller::KeepTree(std::vector<std::byte> bytes,
                                                     Committer::Work& work) {
  work.record.tree_bytes = bytes.size();
  std::unique_ptr<const Tree> tree;
  if (BlobStore::IsInline(bytes.size())) {
    work.record.tree.emplace(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  } else {
    auto stage = [&]() -> Result<StagedFile> {
      OCIFS_ASSIGN_OR_RETURN(StagedFile file,
                             StagedFile::Create(store_.trees_fd(), &store_.space()));
      OCIFS_RETURN_IF_ERROR(file.Append(bytes));
      return file;
    };
    Result<StagedFile> staged = stage();
    if (staged) {
      work.tree = *std::move(staged);
      OCIFS_ASSIGN_OR_RETURN(tree, Tree::Map(work.tree->fd()));
    } else if (CannotKeep(staged.error())) {
      work.no_tree = std::move(staged).error();
    } else {
      return Fail(std::move(staged).error());
    }
  }
  if (tree == nullptr) {
    OCIFS_ASSIGN_OR_RETURN(tree, Tree::FromBytes(std::move(bytes)));
  }
  work.record.content_bytes = tree->content_bytes();
  work.record.nodes = tree->node_count();
  return tree;
}

Result<void> Puller::Restore(const StoredPackage& package, std::optional<uint32_t> layer,
                             const FetchContext& context, FlightProgress& progress) {
  auto work = std::make_unique<Committer::Work>();
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Store::Lock> lock,
                         Lock(package.manifest_digest(), context, progress));
  work->locks.push_back(std::move(lock));
  OCIFS_ASSIGN_OR_RETURN(const IndexTotals totals, store_.index().Totals());
  work->evictions = totals.evictions;
  OCIFS_ASSIGN_OR_RETURN(const std::optional<PackageRecord> known,
                         OrMissing(store_.index().FindPackage(package.manifest_digest())));
  const PackageDocuments& documents = package.documents();
  Layers layers(*this, documents, true, layer, context, progress);
  OCIFS_RETURN_IF_ERROR(layers.Start());
  OCIFS_RETURN_IF_ERROR(layers.Run());
  work->package = package.shared_from_this();
  if (known) {
    work->record = *known;
    work->record.complete = known->complete || !layer;
  } else {
    // It was evicted: all of it comes back but, when one layer is wanted, the content of others.
    const std::span<const std::byte> bytes = package.tree().bytes();
    if (Result<std::unique_ptr<const Tree>> kept = KeepTree({bytes.begin(), bytes.end()}, *work);
        !kept) {
      layers.RollBack();
      return Fail(std::move(kept).error());
    }
    work->record.fetched_at = options_.now();
    work->record.complete = !layer;
    auto document = [&](const Digest& digest, const std::string& content) {
      work->batch.PutBlob(digest, BlobRecord{content.size(), content});
    };
    document(documents.manifest_digest, documents.manifest_bytes);
    document(documents.manifest.config.digest, documents.config_bytes);
    if (!documents.index_bytes.empty()) document(documents.root_digest, documents.index_bytes);
  }
  work->record.used_at = std::max(work->record.used_at, options_.now());
  layers.MoveTo(*work);
  committer_.Submit(std::move(work));
  return {};
}

Result<void> Puller::PullBlob(const Repository& repository, const Descriptor& blob,
                              const FetchContext& context, FlightProgress& progress) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> lock,
                         Lock(blob.digest, context, progress));
  OCIFS_ASSIGN_OR_RETURN(const std::optional<BlobRecord> known,
                         OrMissing(store_.index().FindBlob(blob.digest)));
  if (known) return {};
  IndexBatch batch;
  auto stage = [&]() -> Result<StagedBlob> {
    OCIFS_ASSIGN_OR_RETURN(StagedBlob staged, store_.blobs().Stage(blob.digest, blob.size));
    if (const std::optional<std::string> content = KnownContent(blob)) {
      OCIFS_RETURN_IF_ERROR(staged.Append(AsBytes(*content)));
      return staged;
    }
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> remote,
                           OpenRemote(repository, blob, context));
    progress.Expect(blob.size);
    const std::unique_ptr<ByteStream> stream = VerifyBlob(
        std::move(remote), blob, &staged, [&](uint64_t bytes) { progress.Fetched(bytes); });
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream->Next());
      if (piece.empty()) return staged;
      if (!staged.is_whole()) return Fail(*staged.failure());
    }
  };
  OCIFS_ASSIGN_OR_RETURN(StagedBlob staged, FromAnyServer(repository, blob, stage));
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Store::Lock> publish,
                         store_.LockPublish(Store::PublishMode::kShared));
  OCIFS_RETURN_IF_ERROR(store_.blobs().Publish(staged, blob.digest, batch));
  return store_.index().Commit(std::move(batch));
}

Result<void> Puller::StreamBlob(const Repository& repository, const Descriptor& blob,
                                uint64_t offset, std::span<std::byte> out,
                                const FetchContext& context, FlightProgress& progress) {
  auto stream_once = [&]() -> Result<std::monostate> {
    OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> remote,
                           OpenRemote(repository, blob, context));
    progress.Expect(blob.size);
    const std::unique_ptr<ByteStream> stream = VerifyBlob(
        std::move(remote), blob, nullptr, [&](uint64_t bytes) { progress.Fetched(bytes); });
    uint64_t at = 0;
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream->Next());
      if (piece.empty()) return std::monostate();
      const uint64_t from = std::max(at, offset);
      const uint64_t to = std::min(at + piece.size(), offset + out.size());
      if (from < to) {
        std::copy_n(piece.begin() + static_cast<std::ptrdiff_t>(from - at), to - from,
                    out.begin() + static_cast<std::ptrdiff_t>(from - offset));
      }
      at += piece.size();
    }
  };
  OCIFS_RETURN_IF_ERROR(FromAnyServer(repository, blob, stream_once));
  return {};
}

}  // namespace ocifs::store
