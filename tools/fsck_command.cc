#include "tools/fsck_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/check.h"
#include "store/pack.h"
#include "store/repair.h"
#include "store/store.h"
#include "store/text.h"
#include "tools/command_output.h"
#include "tools/engine.h"
#include "tools/json_writer.h"

namespace ocifs::tools {
namespace {

using store::CheckReport;
using store::DamagedBlob;
using store::DamagedChunk;
using store::Digest;
using store::ErrorCode;
using store::LackingPackage;
using store::PackageFindings;
using store::RepairReport;
using store::Result;

volatile std::sig_atomic_t interrupted = 0;

// The first SIGINT is noted while it lives.
class InterruptNote {
 public:
  InterruptNote() {
    interrupted = 0;
    struct sigaction action{};
    action.sa_handler = [](int) { interrupted = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptNote() { sigaction(SIGINT, &before_, nullptr); }
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;

 private:
  struct sigaction before_{};
};

// A line on the standard error that is drawn again and again, if that is a terminal.
class CheckProgress {
 public:
  CheckProgress() : terminal_(isatty(STDERR_FILENO) != 0) {}
  ~CheckProgress() {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
  }
  CheckProgress(const CheckProgress&) = delete;
  CheckProgress& operator=(const CheckProgress&) = delete;

  void Draw(uint64_t done, uint64_t total) {
    constexpr auto kPause = std::chrono::milliseconds(100);
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now < next_) return;
    next_ = now + kPause;
    drawn_ = true;
    std::fputs(
        fmt::format("\r\x1b[Kchecking: {} of {}", FormatSize(done), FormatSize(total)).c_str(),
        stderr);
  }

 private:
  const bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point next_{};
};

Result<CheckReport> Check(store::Store& store) {
  const InterruptNote note;
  CheckProgress progress;
  return store::CheckStore(store, {.progress = [&](uint64_t done, uint64_t total) {
                             progress.Draw(done, total);
                             return interrupted == 0;
                           }});
}

// --- what was found ------------------------------------------------------------------------------

std::string NameOf(const Digest& manifest, const std::vector<std::string>& references) {
  if (references.empty()) return manifest.ToString();
  return references.size() == 1
             ? references.front()
             : fmt::format("{} (+{})", references.front(), references.size() - 1);
}

std::string ChunkPlace(const DamagedChunk& chunk) {
  return fmt::format("{}, offset {}", store::PackSet::FileName(chunk.location.pack),
                     chunk.location.offset);
}

void PrintDamage(const std::string& text) { Print(store::EscapeForDisplay(text)); }

void PrintPackage(const PackageFindings& package) {
  const std::string name = NameOf(package.manifest, package.references);
  if (!package.tree_error.empty()) PrintDamage("damaged tree: " + name + ": " + package.tree_error);
  if (package.claims_too_much) {
    PrintDamage("not complete, though the index says so: " + name + ": " +
                FormatSize(package.absent_bytes) + " are not there");
  } else if (package.absent_bytes > 0) {
    PrintDamage("not all here: " + name + ": " + FormatSize(package.absent_bytes) +
                " would be fetched again");
  }
  if (package.damaged_files > 0) {
    PrintDamage(fmt::format("damaged content: {}: {} files, {}", name, package.damaged_files,
                            FormatSize(package.damaged_bytes)));
  }
  for (const std::string& file : package.file_names) PrintDamage("  " + file);
  if (package.damaged_files > package.file_names.size() && !package.file_names.empty()) {
    Print(fmt::format("  and {} more", package.damaged_files - package.file_names.size()));
  }
  for (const Digest& blob : package.damaged_blobs) {
    PrintDamage("damaged raw blob: " + name + ": " + blob.ToString());
  }
}

void PrintFound(const CheckReport& report) {
  if (!report.index_error.empty()) {
    PrintDamage("damaged index: " + report.index_error);
    return;
  }
  constexpr size_t kPrinted = 20;  // chunks; packages say the rest
  for (size_t i = 0; i < std::min(kPrinted, report.chunk_damage.size()); ++i) {
    const DamagedChunk& chunk = report.chunk_damage[i];
    Print(fmt::format(
        "{}: {}",
        chunk.flaw == DamagedChunk::Flaw::kContent ? "damaged chunk" : "damaged header of a chunk",
        ChunkPlace(chunk)));
  }
  if (report.chunk_damage.size() > kPrinted) {
    Print(fmt::format("and {} more chunks", report.chunk_damage.size() - kPrinted));
  }
  for (const store::LostRecords& lost : report.lost_records) {
    Print(fmt::format("lost records: {} in {}; the index has to be made anew",
                      FormatSize(lost.bytes), store::PackSet::FileName(lost.pack)));
  }
  for (const DamagedBlob& blob : report.blob_damage) {
    PrintDamage("damaged blob: " + blob.digest.ToString() + ": " + blob.reason);
    for (const std::string& name : blob.references) PrintDamage("  " + name);
  }
  for (const PackageFindings& package : report.findings) PrintPackage(package);
  if (report.leftover_files > 0) {
    Print(fmt::format("{} leftover files ({}), which go with the next collection",
                      report.leftover_files, FormatSize(report.leftover_bytes)));
  }
}

std::string Summary(const CheckReport& report) {
  return fmt::format("{} packages, {} chunks in {} packs, {} blobs, {} read", report.packages,
                     report.chunks, report.packs, report.blobs, FormatSize(report.bytes));
}

std::string TextArray(const std::vector<std::string>& texts) {
  JsonArray array;
  for (const std::string& text : texts) array.Add(store::JsonQuote(text));
  return array.Finish();
}

std::string DigestArray(const std::vector<Digest>& digests) {
  JsonArray array;
  for (const Digest& digest : digests) array.Add(store::JsonQuote(digest.ToString()));
  return array.Finish();
}

std::string FoundJson(const CheckReport& report) {
  JsonArray chunks;
  for (const DamagedChunk& chunk : report.chunk_damage) {
    chunks.Add(JsonObject()
                   .Text("sha256", store::ToHex(chunk.digest.bytes))
                   .Text("pack", store::PackSet::FileName(chunk.location.pack))
                   .Number("offset", chunk.location.offset)
                   .Number("bytes", chunk.location.length)
                   .Bool("content_is_whole", chunk.flaw == DamagedChunk::Flaw::kHeader)
                   .Finish());
  }
  JsonArray blobs;
  for (const DamagedBlob& blob : report.blob_damage) {
    blobs.Add(JsonObject()
                  .Text("digest", blob.digest.ToString())
                  .Text("reason", blob.reason)
                  .Raw("references", TextArray(blob.references))
                  .Finish());
  }
  JsonArray lost;
  for (const store::LostRecords& records : report.lost_records) {
    lost.Add(JsonObject()
                 .Text("pack", store::PackSet::FileName(records.pack))
                 .Number("bytes", records.bytes)
                 .Finish());
  }
  JsonArray packages;
  for (const PackageFindings& package : report.findings) {
    packages.Add(
        JsonObject()
            .Text("digest", package.manifest.ToString())
            .Raw("references", TextArray(package.references))
            .Bool("damaged", package.is_damaged())
            .OptionalText("tree_error", package.tree_error.empty()
                                            ? std::nullopt
                                            : std::optional<std::string>(package.tree_error))
            .Bool("claims_too_much", package.claims_too_much)
            .Number("damaged_files", package.damaged_files)
            .Number("damaged_bytes", package.damaged_bytes)
            .Raw("files", TextArray(package.file_names))
            .Raw("damaged_blobs", DigestArray(package.damaged_blobs))
            .Number("absent_bytes", package.absent_bytes)
            .Finish());
  }
  return JsonObject()
      .Number("packages", report.packages)
      .Number("packs", report.packs)
      .Number("chunks", report.chunks)
      .Number("blobs", report.blobs)
      .Number("bytes", report.bytes)
      .OptionalText("index_error", report.index_error.empty()
                                       ? std::nullopt
                                       : std::optional<std::string>(report.index_error))
      .Raw("damaged_chunks", chunks.Finish())
      .Raw("damaged_blobs", blobs.Finish())
      .Raw("lost_records", lost.Finish())
      .Raw("findings", packages.Finish())
      .Number("leftover_files", report.leftover_files)
      .Number("leftover_bytes", report.leftover_bytes)
      .Finish();
}

// --- what was mended -----------------------------------------------------------------------------

void PrintRepaired(const RepairReport& repaired) {
  Print(fmt::format("dropped: {} chunks, {} raw blobs, {} packages; moved: {} chunks",
                    repaired.dropped_chunks, repaired.dropped_blobs, repaired.dropped_packages,
                    repaired.moved_chunks));
  if (repaired.restored_packages > 0) {
    Print(fmt::format("whole again: {} packages", repaired.restored_packages));
  }
  for (const LackingPackage& package : repaired.lacking) {
    const std::string what = package.is_forgotten ? "all of it"
                             : package.bytes > 0  ? FormatSize(package.bytes)
                                                  : "a raw blob or document";
    const std::string why =
        package.error ? fmt::format(": {}", package.error->message) : "; no reference leads to it";
    PrintDamage(fmt::format("to be fetched when it can be: {}: {}{}",
                            NameOf(package.manifest, package.references), what, why));
  }
  for (const Digest& blob : repaired.lacking_blobs) {
    PrintDamage("dropped, needed for exports and repairs only: " + blob.ToString());
  }
  for (const std::string& what : repaired.uncorrected) PrintDamage("damaged still: " + what);
}

std::string RepairedJson(const RepairReport& repaired) {
  JsonArray lacking;
  for (const LackingPackage& package : repaired.lacking) {
    lacking.Add(JsonObject()
                    .Text("digest", package.manifest.ToString())
                    .Raw("references", TextArray(package.references))
                    .Number("bytes", package.bytes)
                    .Bool("forgotten", package.is_forgotten)
                    .Raw("error", package.error ? ErrorJson(*package.error) : "null")
                    .Finish());
  }
  return JsonObject()
      .Number("dropped_chunks", repaired.dropped_chunks)
      .Number("moved_chunks", repaired.moved_chunks)
      .Number("dropped_blobs", repaired.dropped_blobs)
      .Number("dropped_packages", repaired.dropped_packages)
      .Number("restored_packages", repaired.restored_packages)
      .Raw("lacking", lacking.Finish())
      .Raw("lacking_blobs", DigestArray(repaired.lacking_blobs))
      .Raw("uncorrected", TextArray(repaired.uncorrected))
      .Finish();
}

// Online, what could not be had is an error that is left.
int StatusOf(const RepairReport& repaired, bool offline) {
  if (!repaired.uncorrected.empty()) return kFsckUncorrected;
  for (const LackingPackage& package : repaired.lacking) {
    if (package.error && !offline) return kFsckUncorrected;
  }
  return kFsckCorrected;
}

// --- the command ---------------------------------------------------------------------------------

int ComplainAndFail(const store::Error& error) {
  Complain(error);
  return error.code == ErrorCode::kCancelled ? kFsckCancelled : kFsckFailed;
}

Result<std::unique_ptr<Engine>> Open(const CommandOptions& options, bool rebuild_index) {
  store::Store::OpenOptions open;
  open.rebuild_index = rebuild_index;
  return Engine::Create(options.config, open);
}

struct Outcome {
  CheckReport found;
  std::optional<RepairReport> repaired;
  bool new_index = false;  // it was made anew, because the check found that it must be
  int status = kFsckClean;
};

Result<Outcome> Run(const CommandOptions& options) {
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Open(options, options.rebuild_index));
  Outcome outcome;
  OCIFS_ASSIGN_OR_RETURN(outcome.found, Check(engine->store()));
  if (outcome.found.is_clean()) return outcome;
  outcome.status = kFsckUncorrected;
  if (!options.repair) return outcome;
  if (outcome.found.needs_new_index()) {
    engine.reset();
    Result<std::unique_ptr<Engine>> anew = Open(options, true);
    if (!anew) {
      // Another process has the store open.
      Complain(anew.error());
      return outcome;
    }
    engine = *std::move(anew);
    outcome.new_index = true;
    OCIFS_ASSIGN_OR_RETURN(outcome.found, Check(engine->store()));
    if (outcome.found.is_clean()) {
      outcome.status = kFsckCorrected;
      return outcome;
    }
    if (outcome.found.needs_new_index()) return outcome;
  }
  Result<RepairReport> repaired = store::RepairStore(engine->pull(), outcome.found, {});
  if (!repaired) {
    // A store that cannot be written, for one; what was found is told all the same.
    Complain(repaired.error());
    return outcome;
  }
  outcome.repaired = *std::move(repaired);
  outcome.status = StatusOf(*outcome.repaired, options.config.offline);
  return outcome;
}

}  // namespace

int Fsck(const CommandOptions& options) {
  const Result<Outcome> outcome = Run(options);
  if (!outcome) return ComplainAndFail(outcome.error());
  if (options.json) {
    Print(JsonObject()
              .Number("status", static_cast<uint64_t>(outcome->status))
              .Bool("new_index", outcome->new_index || options.rebuild_index)
              .Raw("found", FoundJson(outcome->found))
              .Raw("repaired", outcome->repaired ? RepairedJson(*outcome->repaired) : "null")
              .Finish());
    return outcome->status;
  }
  if (outcome->new_index) Print("the index was made anew");
  PrintFound(outcome->found);
  if (outcome->repaired) PrintRepaired(*outcome->repaired);
  std::string_view verdict = "clean";
  if (outcome->status == kFsckCorrected) verdict = "damage was found and corrected";
  if (outcome->status == kFsckUncorrected) {
    verdict = options.repair ? "damage is left" : "damaged; run: ocifs-ctl fsck --repair";
  }
  Print(fmt::format("{}: {}", Summary(outcome->found), verdict));
  return outcome->status;
}

}  // namespace ocifs::tools
