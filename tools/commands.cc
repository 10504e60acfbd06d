#include "tools/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "store/index.h"
#include "store/text.h"
#include "tools/command_output.h"
#include "tools/engine.h"
#include "tools/json_writer.h"
#include "tools/mount_table.h"
#include "tools/package_path.h"
#include "tools/progress_bar.h"
#include "tools/version_order.h"

namespace ocifs::tools {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Reference;
using store::Resolution;
using store::Result;

constexpr size_t kParallelPulls = 4;

Result<Reference> OneReference(const CommandOptions& options) {
  return ParseReferenceArgument(options.arguments.front());
}

// "registry/repository", or a reference in it.
Result<store::Repository> OneRepository(const CommandOptions& options) {
  const std::string& text = options.arguments.front();
  if (const Result<PackagePath> path = ParsePackagePath(text)) return path->reference.repository();
  // Without a tag it is no reference; any tag makes it one.
  Result<PackagePath> path = ParsePackagePath(text + ":latest");
  if (!path) {
    return Fail(ErrorCode::kInvalid, text +
                                         ": write registry/repository, for example "
                                         "ghcr.io/owner/name");
  }
  return path->reference.repository();
}

// A file of references, one a line; '#' starts a comment.
Result<void> ReadReferences(const std::string& file, std::vector<std::string>& out) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file);
    if (!opened) return Fail(store::ErrorFromErrno(errno, "reading " + file));
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string line;
  while (std::getline(in, line)) {
    line = line.substr(0, line.find('#'));
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) continue;
    out.push_back(line.substr(first, line.find_last_not_of(" \t\r") - first + 1));
  }
  return {};
}

// --- prefetch ------------------------------------------------------------------------------------

struct Prefetched {
  std::string text;  // as it was asked for
  std::optional<Reference> reference;
  std::optional<Resolution> resolution;
  uint64_t content_bytes = 0;
  bool was_there = false;
  std::optional<Error> error;
};

Result<void> PrefetchOne(store::PullThrough& pull, Prefetched& item) {
  OCIFS_ASSIGN_OR_RETURN(const PackagePath path, ParsePackagePath(item.text));
  item.reference = path.reference;
  const store::RequestContext context;
  OCIFS_ASSIGN_OR_RETURN(item.resolution, pull.Resolve(path.reference, context));
  OCIFS_ASSIGN_OR_RETURN(const auto cached, pull.Cached(item.resolution->digest));
  item.was_there = cached && cached->bytes_present == cached->bytes_total;
  OCIFS_ASSIGN_OR_RETURN(const std::shared_ptr<const store::Package> package,
                         pull.Open(path.reference.repository(), item.resolution->digest, context));
  OCIFS_RETURN_IF_ERROR(pull.Fill(*package, context));
  item.content_bytes = package->tree().content_bytes();
  return {};
}

std::string PrefetchJson(const Prefetched& item) {
  JsonObject object;
  object.Text("reference", item.reference ? item.reference->ToString() : item.text);
  if (item.error) return object.Raw("error", ErrorJson(*item.error)).Finish();
  return object.Text("digest", item.resolution->digest.ToString())
      .Number("content_bytes", item.content_bytes)
      .Bool("fetched", !item.was_there)
      .Finish();
}

}  // namespace

int Prefetch(const CommandOptions& options) {
  std::vector<std::string> texts = options.arguments;
  if (!options.file.empty()) {
    if (Result<void> read = ReadReferences(options.file, texts); !read) {
      return Complain(read.error());
    }
  }
  Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  store::PullThrough& pull = (*engine)->pull();

  std::vector<Prefetched> items;
  for (std::string& text : texts) {
    Prefetched item;
    item.text = std::move(text);
    items.push_back(std::move(item));
  }
  {
    ProgressBar bar(pull, items.size());
    std::atomic<size_t> next = 0;  // each thread takes the next item
    auto work = [&] {
      for (size_t i = next++; i < items.size(); i = next++) {
        Prefetched& item = items[i];
        if (Result<void> done = PrefetchOne(pull, item); !done) {
          item.error = std::move(done).error();
          bar.Failed("ocifs-ctl: " + store::EscapeForDisplay(item.text) + ": " +
                     store::EscapeForDisplay(item.error->message) +
                     std::string(Advice(item.error->code)));
        } else if (!options.json) {
          bar.Done(fmt::format("{} {} ({})", item.was_there ? "present" : "fetched",
                               item.reference->ToString(), FormatSize(item.content_bytes)));
        }
      }
    };
    std::vector<std::thread> threads;
    for (size_t i = 1; i < std::min(kParallelPulls, items.size()); ++i) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
  }
  // What was answered "fetched" survives a power loss.
  Result<void> kept = pull.Flush(store::RequestContext());
  bool failed = false;
  JsonArray array;
  for (const Prefetched& item : items) {
    failed = failed || item.error;
    array.Add(PrefetchJson(item));
  }
  if (options.json) Print(array.Finish());
  if (!kept) return Complain(kept.error());
  return failed ? 1 : 0;
}

int ResolveReference(const CommandOptions& options) {
  const Result<Reference> reference = OneReference(options);
  if (!reference) return Complain(reference.error());
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  const Result<Resolution> resolution =
      (*engine)->pull().Resolve(*reference, store::RequestContext());
  if (!resolution) return Complain(resolution.error());
  const std::string exact = WithDigest(*reference, resolution->digest);
  if (options.json) {
    Print(JsonObject()
              .Text("reference", reference->ToString())
              .Text("resolved", exact)
              .Text("digest", resolution->digest.ToString())
              .Text("media_type", resolution->media_type)
              .Text("fetched_at", FormatTime(resolution->fetched_at))
              .Text("source", resolution->from_registry ? "registry" : "cache")
              .Bool("stale", resolution->stale)
              .Finish());
  } else {
    Print(exact);
  }
  return 0;
}

int ShowPath(const CommandOptions& options) {
  const Result<PackagePath> path = ParsePackagePath(options.arguments.front());
  if (!path) return Complain(path.error());
  const std::string below = PathBelowMount(*path);
  std::optional<std::string> mount;
  if (!options.mount_point.empty()) {
    mount = AbsolutePath(options.mount_point);
  } else if (const std::vector<std::string> mounts = ListMounts(options.config.store);
             !mounts.empty()) {
    mount = mounts.front();
  }
  if (options.json) {
    Print(JsonObject()
              .Text("reference", path->reference.ToString())
              .OptionalText("mount", mount)
              .Text("path", mount ? *mount + "/" + below : below)
              .Finish());
    return 0;
  }
  if (!mount) {
    std::fprintf(stderr,
                 "ocifs-ctl: the store %s is not mounted: the path is relative to a mount point "
                 "(give it with --mount)\n",
                 store::EscapeForDisplay(options.config.store).c_str());
  }
  Print(mount ? *mount + "/" + below : below);
  return 0;
}

// --- ls and status -------------------------------------------------------------------------------

namespace {

struct Listed {
  std::string reference;
  store::RefRecord record;
  std::optional<store::CacheState> cached;
};

// Tags, and digests that no tag of their repository stands for.
Result<std::vector<Listed>> ListStore(Engine& engine) {
  OCIFS_ASSIGN_OR_RETURN(const auto refs, engine.store().index().Refs(""));
  std::set<std::string> tagged;
  for (const auto& [name, record] : refs) {
    const Result<Reference> reference = Reference::Parse(name);
    if (reference && reference->tag()) tagged.insert(WithDigest(*reference, record.digest));
  }
  std::vector<Listed> listed;
  for (const auto& [name, record] : refs) {
    if (tagged.contains(name)) continue;
    OCIFS_ASSIGN_OR_RETURN(const auto cached, engine.pull().Cached(record.digest));
    listed.push_back(Listed{name, record, cached});
  }
  return listed;
}

std::string State(const std::optional<store::CacheState>& cached) {
  if (!cached) return "known";  // its manifest was seen, its content was never asked for
  return cached->bytes_present == cached->bytes_total ? "complete" : "partial";
}

}  // namespace

int List(const CommandOptions& options) {
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  const Result<std::vector<Listed>> listed = ListStore(**engine);
  if (!listed) return Complain(listed.error());
  if (options.json) {
    JsonArray array;
    for (const Listed& item : *listed) {
      array.Add(JsonObject()
                    .Text("reference", item.reference)
                    .Text("digest", item.record.digest.ToString())
                    .Text("media_type", item.record.media_type)
                    .Text("state", State(item.cached))
                    .Number("content_bytes", item.cached ? item.cached->bytes_total : 0)
                    .Text("fetched_at", FormatTime(item.record.fetched_at))
                    .Finish());
    }
    Print(array.Finish());
    return 0;
  }
  size_t width = std::string_view("REFERENCE").size();
  for (const Listed& item : *listed) width = std::max(width, item.reference.size());
  if (!listed->empty()) {
    Print(fmt::format("{:<{}}  {:<8}  {:>10}  {:<20}  {}", "REFERENCE", width, "STATE", "SIZE",
                      "FETCHED", "DIGEST"));
  }
  for (const Listed& item : *listed) {
    Print(fmt::format("{:<{}}  {:<8}  {:>10}  {:<20}  {}", item.reference, width,
                      State(item.cached), item.cached ? FormatSize(item.cached->bytes_total) : "-",
                      FormatTime(item.record.fetched_at), item.record.digest.ToString()));
  }
  return 0;
}

int Status(const CommandOptions& options) {
  const Result<Reference> reference = OneReference(options);
  if (!reference) return Complain(reference.error());
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  store::PullThrough& pull = (*engine)->pull();
  const Result<std::optional<Resolution>> known = pull.KnownResolution(*reference);
  if (!known) return Complain(known.error());
  std::optional<store::CacheState> cached;
  if (*known) {
    const Result<std::optional<store::CacheState>> state = pull.Cached((*known)->digest);
    if (!state) return Complain(state.error());
    cached = *state;
  }
  const std::string state = *known ? State(cached) : "absent";
  if (options.json) {
    JsonObject object;
    object.Text("reference", reference->ToString()).Text("state", state);
    if (const std::optional<Resolution>& r = *known) {
      object.Text("digest", r->digest.ToString())
          .Text("media_type", r->media_type)
          .Text("fetched_at", FormatTime(r->fetched_at))
          .Text("validated_at", FormatTime(r->validated_at))
          .OptionalText("expires_at",
                        r->expires_at ? std::optional(FormatTime(*r->expires_at)) : std::nullopt)
          .Bool("stale", r->stale)
          .Number("bytes_present", cached ? cached->bytes_present : 0);
      if (cached) object.Number("bytes_total", cached->bytes_total);
    }
    Print(object.Finish());
  } else if (const std::optional<Resolution>& r = *known) {
    Print("reference:  " + reference->ToString());
    Print("state:      " + state);
    Print("digest:     " + r->digest.ToString());
    Print("media type: " + store::EscapeForDisplay(r->media_type));
    Print("fetched:    " + FormatTime(r->fetched_at));
    Print("checked:    " + FormatTime(r->validated_at));
    Print("expires:    " +
          (r->expires_at ? FormatTime(*r->expires_at) + (r->stale ? " (stale)" : "") : "never"));
    if (cached) Print("content:    " + FormatSize(cached->bytes_total));
  } else {
    std::fprintf(stderr, "ocifs-ctl: %s is not in the store\n", reference->ToString().c_str());
  }
  return state == "complete" ? 0 : 1;
}

// --- tags and referrers --------------------------------------------------------------------------

int Tags(const CommandOptions& options) {
  const Result<store::Repository> repository = OneRepository(options);
  if (!repository) return Complain(repository.error());
  const Result<std::unique_ptr<Engine>> engine = Engine::Create(options.config);
  if (!engine) return Complain(engine.error());
  Result<store::TagList> list =
      (*engine)->pull().Tags(*repository, store::PullThrough::TagsNeeded::kAll, {});
  if (!list) return Complain(list.error());
  SortTags(list->tags);
  if (options.json) {
    JsonArray tags;
    for (const std::string& tag : list->tags) tags.Add(store::JsonQuote(tag));
    Print(JsonObject()
              .Text("repository", repository->ToString())
              .Bool("complete", list->complete)
              .OptionalText("fetched_at", list->fetched_at == 0
                                              ? std::nullopt
                                              : std::optional(FormatTime(list->fetched_at)))
              .Raw("tags", tags.Finish())
              .Finish());
    return 0;
  }
  for (const std::string& tag : list->tags) Print(tag);
  if (!list->complete) {
    std::fprintf(stderr,
                 "ocifs-ctl: the registry could not be asked; these are the tags that the store "
                 "knows\n");
  }
  return 0;
}

namespace {

Result<std::vector<store::Descriptor>> FindReferrers(const Reference& reference,
                                                     const CommandOptions& options) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options.config));
  OCIFS_ASSIGN_OR_RETURN(const Resolution resolution, engine->pull().Resolve(reference, {}));
  if (options.config.offline) {
    return Fail(ErrorCode::kUnavailable,
                "referrers are asked of the registry, and ocifs is offline");
  }
  return engine->remote().source().ListReferrers(reference.repository(), resolution.digest,
                                                 options.artifact_type, {});
}

}  // namespace

int Referrers(const CommandOptions& options) {
  const Result<Reference> reference = OneReference(options);
  if (!reference) return Complain(reference.error());
  const Result<std::vector<store::Descriptor>> found = FindReferrers(*reference, options);
  if (!found) return Complain(found.error());
  if (options.json) {
    JsonArray array;
    for (const store::Descriptor& item : *found) {
      JsonObject annotations;
      for (const auto& [key, value] : item.annotations) annotations.Text(key, value);
      array.Add(JsonObject()
                    .Text("digest", item.digest.ToString())
                    .Text("media_type", item.media_type)
                    .Text("artifact_type", item.artifact_type)
                    .Number("size", item.size)
                    .Raw("annotations", annotations.Finish())
                    .Finish());
    }
    Print(array.Finish());
    return 0;
  }
  size_t width = std::string_view("ARTIFACT TYPE").size();
  for (const store::Descriptor& item : *found) {
    width = std::max(width, store::EscapeForDisplay(item.artifact_type).size());
  }
  if (!found->empty()) Print(fmt::format("{:<{}}  {}", "ARTIFACT TYPE", width, "DIGEST"));
  for (const store::Descriptor& item : *found) {
    Print(fmt::format("{:<{}}  {}", store::EscapeForDisplay(item.artifact_type), width,
                      item.digest.ToString()));
  }
  return 0;
}

}  // namespace ocifs::tools
