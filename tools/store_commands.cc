#include "tools/store_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "store/collector.h"
#include "store/index.h"
#include "store/package.h"
#include "store/space.h"
#include "store/store.h"
#include "store/text.h"
#include "tools/command_output.h"
#include "tools/engine.h"
#include "tools/json_writer.h"

namespace ocifs::tools {
namespace {

using store::Collected;
using store::CollectRequest;
using store::Digest;
using store::ErrorCode;
using store::Fail;
using store::IndexBatch;
using store::PinRecord;
using store::Reference;
using store::RefRecord;
using store::Result;

std::string CollectedJson(const Collected& collected, bool dry_run) {
  JsonArray evicted;
  for (const Digest& manifest : collected.evicted) {
    evicted.Add(store::JsonQuote(manifest.ToString()));
  }
  return JsonObject()
      .Bool("dry_run", dry_run)
      .Number("packages", collected.packages)
      .Number("blobs", collected.blobs)
      .Number("chunks", collected.chunks)
      .Number("bytes", collected.bytes)
      .Number("busy_packs", collected.busy_packs)
      .Raw("evicted", evicted.Finish())
      .Finish();
}

int Report(const Result<Collected>& collected, const CommandOptions& options) {
  if (!collected) return Complain(collected.error());
  if (options.json) {
    Print(CollectedJson(*collected, options.dry_run));
    return 0;
  }
  Print(fmt::format("{} {}: {} packages, {} raw blobs, {} chunks",
                    options.dry_run ? "would free" : "freed", FormatSize(collected->bytes),
                    collected->packages, collected->blobs, collected->chunks));
  if (collected->busy_packs > 0) {
    Print(fmt::format("{} packs are being written and were left alone", collected->busy_packs));
  }
  return 0;
}

// References of the store that stand for the same root as `digest`, in any repository.
Result<std::vector<std::pair<std::string, RefRecord>>> RefsOf(store::Store& store,
                                                              const Digest& digest) {
  OCIFS_ASSIGN_OR_RETURN(auto refs, store.index().Refs(""));
  std::erase_if(refs, [&](const auto& ref) { return ref.second.digest != digest; });
  return refs;
}

// Removes references, and the packages that no other reference or pin stands for.
class Remover {
 public:
  explicit Remover(Engine& engine) : engine_(engine) {}

  // The name, and the name by digest when no other tag of the repository stands for it.
  Result<void> Add(const Reference& reference) {
    store::Index& index = engine_.store().index();
    OCIFS_ASSIGN_OR_RETURN(const std::optional<RefRecord> record,
                           store::OrMissing(index.FindRef(reference)));
    if (!record) {
      return Fail(ErrorCode::kNotFound, reference.ToString() + " is not in the store");
    }
    OCIFS_ASSIGN_OR_RETURN(const std::optional<PinRecord> pin,
                           store::OrMissing(index.FindPin(reference)));
    if (pin) {
      return Fail(ErrorCode::kInvalid, reference.ToString() + " is pinned; run: ocifs-ctl unpin " +
                                           reference.ToString());
    }
    names_.insert(reference.ToString());
    batch_.DeleteRef(reference);
    roots_.insert(record->digest);
    OCIFS_ASSIGN_OR_RETURN(const auto refs, RefsOf(engine_.store(), record->digest));
    const Reference by_digest(reference.repository(), record->digest);
    const std::string prefix = reference.repository().ToString() + ":";
    bool other_tag = false;
    for (const auto& [name, unused] : refs) {
      other_tag = other_tag || (name.starts_with(prefix) && !names_.contains(name));
    }
    if (!other_tag) {
      names_.insert(by_digest.ToString());
      batch_.DeleteRef(by_digest);
    }
    return {};
  }

  Result<Collected> Run(bool dry_run) {
    CollectRequest request{.dry_run = dry_run,
                           .free_bytes = 0,
                           .unused_since = std::nullopt,
                           .packages = std::vector<Digest>()};
    OCIFS_ASSIGN_OR_RETURN(const std::vector<PinRecord> pins, engine_.store().index().Pins());
    for (const Digest& root : roots_) {
      OCIFS_ASSIGN_OR_RETURN(const auto refs, RefsOf(engine_.store(), root));
      bool kept = false;
      for (const auto& [name, unused] : refs) kept = kept || !names_.contains(name);
      for (const PinRecord& pin : pins) kept = kept || pin.digest == root;
      if (kept) continue;
      OCIFS_ASSIGN_OR_RETURN(const std::vector<Digest> manifests,
                             store::ManifestsBehind(engine_.store(), root));
      for (const Digest& manifest : manifests) {
        // Another name may stand for one image of an index.
        OCIFS_ASSIGN_OR_RETURN(const auto named, RefsOf(engine_.store(), manifest));
        const bool named_alone = std::any_of(named.begin(), named.end(), [&](const auto& ref) {
          return !names_.contains(ref.first);
        });
        if (!named_alone) request.packages->push_back(manifest);
      }
    }
    if (!dry_run) OCIFS_RETURN_IF_ERROR(engine_.store().index().Commit(std::move(batch_)));
    return store::Collector(engine_.store()).Collect(request);
  }

 private:
  Engine& engine_;
  IndexBatch batch_;
  std::set<std::string> names_;
  std::set<Digest> roots_;
};

}  // namespace

int CollectGarbage(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  return Report(store::Collector((*engine)->store())
                    .Collect(CollectRequest{.dry_run = options.dry_run,
                                            .free_bytes = options.free_bytes,
                                            .unused_since = std::nullopt,
                                            .packages = std::nullopt}),
                options);
}

int Remove(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  Remover remover(**engine);
  // All or none: a mistyped name removes nothing.
  for (const std::string& text : options.arguments) {
    const Result<Reference> reference = ParseReferenceArgument(text);
    if (!reference) return Complain(reference.error());
    if (Result<void> added = remover.Add(*reference); !added) return Complain(added.error());
  }
  return Report(remover.Run(options.dry_run), options);
}

int Prune(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  const std::optional<std::chrono::milliseconds> age = ParseDuration(options.older_than);
  if (!age) {
    return Complain({ErrorCode::kInvalid, "--older-than '" + options.older_than +
                                              "': write a duration such as 12h or 30d"});
  }
  const int64_t since =
      std::time(nullptr) - std::chrono::duration_cast<std::chrono::seconds>(*age).count();
  return Report(store::Collector((*engine)->store())
                    .Collect(CollectRequest{.dry_run = options.dry_run,
                                            .free_bytes = 0,
                                            .unused_since = since,
                                            .packages = std::nullopt}),
                options);
}

// Fetched first if the store lacks it: what is pinned is there.
int Pin(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  if (options.arguments.empty()) {
    const Result<std::vector<PinRecord>> pins = (*engine)->store().index().Pins();
    if (!pins) return Complain(pins.error());
    JsonArray array;
    for (const PinRecord& pin : *pins) {
      if (!options.json) Print(pin.reference + "  " + pin.digest.ToString());
      array.Add(JsonObject()
                    .Text("reference", pin.reference)
                    .Text("digest", pin.digest.ToString())
                    .Text("pinned_at", FormatTime(pin.pinned_at))
                    .Finish());
    }
    if (options.json) Print(array.Finish());
    return 0;
  }
  bool failed = false;
  for (const std::string& text : options.arguments) {
    auto pin = [&]() -> Result<std::string> {
      OCIFS_ASSIGN_OR_RETURN(const Reference reference, ParseReferenceArgument(text));
      store::PullThrough& pull = (*engine)->pull();
      OCIFS_ASSIGN_OR_RETURN(const store::Resolution resolution, pull.Resolve(reference, {}));
      // Before the fetch, so that no collector comes in between.
      IndexBatch batch;
      batch.PutPin(PinRecord{reference.ToString(), resolution.digest, std::time(nullptr)});
      OCIFS_RETURN_IF_ERROR((*engine)->store().index().Commit(std::move(batch)));
      auto fetch = [&]() -> Result<void> {
        OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const store::Package> package,
                               pull.Open(reference.repository(), resolution.digest, {}));
        OCIFS_RETURN_IF_ERROR(pull.Fill(*package, {}));
        return pull.Flush({});
      };
      if (Result<void> fetched = fetch(); !fetched) {
        IndexBatch undo;
        undo.DeletePin(reference);
        OCIFS_RETURN_IF_ERROR((*engine)->store().index().Commit(std::move(undo)));
        return Fail(std::move(fetched).error());
      }
      return WithDigest(reference, resolution.digest);
    };
    const Result<std::string> pinned = pin();
    if (pinned) {
      Print("pinned " + *pinned);
    } else {
      Complain(pinned.error());
      failed = true;
    }
  }
  return failed ? 1 : 0;
}

int Unpin(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  bool failed = false;
  for (const std::string& text : options.arguments) {
    auto unpin = [&]() -> Result<void> {
      OCIFS_ASSIGN_OR_RETURN(const Reference reference, ParseReferenceArgument(text));
      store::Index& index = (*engine)->store().index();
      OCIFS_ASSIGN_OR_RETURN(const std::optional<PinRecord> pin,
                             store::OrMissing(index.FindPin(reference)));
      if (!pin) return Fail(ErrorCode::kNotFound, reference.ToString() + " is not pinned");
      IndexBatch batch;
      batch.DeletePin(reference);
      return index.Commit(std::move(batch));
    };
    if (Result<void> unpinned = unpin(); !unpinned) {
      Complain(unpinned.error());
      failed = true;
    }
  }
  return failed ? 1 : 0;
}

int StoreStatus(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  store::Store& store = (*engine)->store();
  const Result<store::IndexTotals> totals = store.index().Totals();
  if (!totals) return Complain(totals.error());
  const Result<store::Space::State> space = store.space().Measure();
  if (!space) return Complain(space.error());
  const store::StoreLimits limits = store.space().limits();
  // A trial tells more than flags: a quota, a read-only remount, a disk that fails.
  const Result<void> writable = store.TryWrite();
  const std::string state = writable ? "ok" : "not keeping: " + writable.error().message;
  if (options.json) {
    JsonObject object;
    object.Text("store", store.root())
        .Number("packages", totals->packages)
        .Number("used_bytes", space->used_bytes)
        .Number("max_bytes", limits.max_bytes)
        .Number("filesystem_free_bytes", space->free_bytes)
        .Number("min_free_bytes", limits.min_free_bytes)
        .Number("max_age_seconds", static_cast<uint64_t>(limits.max_age))
        .Bool("writable", writable.has_value());
    if (!writable) object.Raw("error", ErrorJson(writable.error()));
    Print(object.Finish());
  } else {
    Print("store:      " + store.root());
    Print(fmt::format("packages:   {}", totals->packages));
    Print(fmt::format("used:       {} of {}", FormatSize(space->used_bytes),
                      FormatSize(limits.max_bytes)));
    Print(fmt::format("disk:       {} free, {} stay free", FormatSize(space->free_bytes),
                      FormatSize(limits.min_free_bytes)));
    Print("state:      " + store::EscapeForDisplay(state));
  }
  return writable ? 0 : 1;
}

}  // namespace ocifs::tools
