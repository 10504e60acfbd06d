#include "tools/transfer_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/disk_usage.h"
#include "store/index.h"
#include "store/layout_export.h"
#include "store/layout_import.h"
#include "store/layout_reader.h"
#include "store/text.h"
#include "tools/command_output.h"
#include "tools/engine.h"
#include "tools/json_writer.h"

namespace ocifs::tools {
namespace {

using store::ErrorCode;
using store::Fail;
using store::Reference;
using store::Result;

std::string TextArray(const std::vector<std::string>& texts) {
  JsonArray array;
  for (const std::string& text : texts) array.Add(store::JsonQuote(text));
  return array.Finish();
}

std::string Joined(const std::vector<std::string>& names) {
  return store::EscapeForDisplay(fmt::format("{}", fmt::join(names, ", ")));
}

// What a package of several platforms holds, below its line; nothing for others.
void PrintPlatforms(const std::vector<std::string>& present, const std::vector<std::string>& absent,
                    std::string_view where) {
  if (!present.empty()) Print("  with " + Joined(present));
  if (!absent.empty()) Print(fmt::format("  without {}, which {}", Joined(absent), where));
}

// --- export --------------------------------------------------------------------------------------

Result<std::vector<store::ExportedPackage>> ExportTo(const std::string& destination,
                                                     const CommandOptions& options) {
  std::vector<Reference> references;
  for (size_t i = 0; i + 1 < options.arguments.size(); ++i) {
    OCIFS_ASSIGN_OR_RETURN(Reference reference, ParseReferenceArgument(options.arguments[i]));
    references.push_back(std::move(reference));
  }
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options.config));
  const store::ExportOptions settings{
      .dropped = options.refetch ? store::ExportOptions::Dropped::kFetch
                                 : store::ExportOptions::Dropped::kRefuse,
      .modes = {.file = 0666 & ~options.umask, .directory = 0777 & ~options.umask}};
  return store::ExportLayout(engine->pull(), std::move(references), destination, settings, {});
}

// --- import --------------------------------------------------------------------------------------

Result<std::vector<store::ImportedPackage>> ImportFrom(const CommandOptions& options) {
  store::ImportOptions settings{.reference = std::nullopt,
                                .known = options.replace ? store::ImportOptions::Known::kReplace
                                                         : store::ImportOptions::Known::kRefuse};
  if (!options.arguments.empty()) {
    OCIFS_ASSIGN_OR_RETURN(settings.reference, ParseReferenceArgument(options.arguments.front()));
  }
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<store::LayoutReader> layout,
                         store::LayoutReader::Open(options.file));
  Config config = options.config;
  config.offline = true;
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(config));
  return store::ImportLayout(engine->pull(), *layout, settings, {});
}

// --- du ------------------------------------------------------------------------------------------

struct Measured {
  store::DiskUsage usage;
  std::vector<store::PackageUsage> shown;  // of usage.packages
};

Result<Measured> Measure(const CommandOptions& options) {
  std::vector<Reference> wanted;
  for (const std::string& text : options.arguments) {
    OCIFS_ASSIGN_OR_RETURN(Reference reference, ParseReferenceArgument(text));
    wanted.push_back(std::move(reference));
  }
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options.config));
  OCIFS_ASSIGN_OR_RETURN(store::DiskUsage usage, store::MeasureDiskUsage(engine->store()));
  Measured measured{std::move(usage), {}};
  if (wanted.empty()) {
    measured.shown = measured.usage.packages;
    return measured;
  }
  std::vector<store::Digest> roots;
  for (const Reference& reference : wanted) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<store::Resolution> known,
                           engine->pull().KnownResolution(reference));
    const auto leads_to = [&](const store::PackageUsage& package) {
      return known && std::find(package.roots.begin(), package.roots.end(), known->digest) !=
                          package.roots.end();
    };
    if (std::none_of(measured.usage.packages.begin(), measured.usage.packages.end(), leads_to)) {
      return Fail(ErrorCode::kNotFound, reference.ToString() + " is not in the store");
    }
    roots.push_back(known->digest);
  }
  for (const store::PackageUsage& package : measured.usage.packages) {
    if (std::find_first_of(package.roots.begin(), package.roots.end(), roots.begin(),
                           roots.end()) != package.roots.end()) {
      measured.shown.push_back(package);
    }
  }
  return measured;
}

// By reference as `ls` shows it; by digest where there is none.
std::string NameOf(const store::PackageUsage& package) {
  if (package.references.empty()) return package.manifest.ToString();
  std::string name = package.references.front();
  if (package.references.size() > 1) name += fmt::format(" (+{})", package.references.size() - 1);
  return name;
}

std::string UsageJson(const Measured& measured) {
  JsonArray packages;
  for (const store::PackageUsage& package : measured.shown) {
    packages.Add(JsonObject()
                     .Raw("references", TextArray(package.references))
                     .Text("digest", package.manifest.ToString())
                     .Number("apparent_bytes", package.apparent)
                     .Number("stored_bytes", package.stored)
                     .Number("shared_bytes", package.shared)
                     .Number("reclaimable_bytes", package.reclaimable)
                     .Bool("pinned", package.pinned)
                     .Finish());
  }
  const store::DiskUsage& usage = measured.usage;
  return JsonObject()
      .Raw("packages", packages.Finish())
      .Raw("total", JsonObject()
                        .Number("packages", usage.packages.size())
                        .Number("apparent_bytes", usage.apparent)
                        .Number("stored_bytes", usage.stored)
                        .Number("shared_bytes", usage.shared)
                        .Number("on_disk_bytes", usage.on_disk)
                        .Finish())
      .Finish();
}

}  // namespace

int Export(const CommandOptions& options) {
  const std::string& destination = options.arguments.back();
  if (options.arguments.size() < 2) {
    return Complain({ErrorCode::kInvalid,
                     "say what to export and where to: REFERENCE... DIRECTORY or FILE.tar"});
  }
  const Result<std::vector<store::ExportedPackage>> exported = ExportTo(destination, options);
  if (!exported) return Complain(exported.error());
  if (options.json) {
    JsonArray packages;
    for (const store::ExportedPackage& item : *exported) {
      packages.Add(JsonObject()
                       .Text("reference", item.reference.ToString())
                       .Text("digest", item.digest.ToString())
                       .Text("media_type", item.media_type)
                       .Number("bytes", item.bytes)
                       .Raw("platforms", TextArray(item.platforms))
                       .Raw("absent_platforms", TextArray(item.absent_platforms))
                       .Finish());
    }
    Print(
        JsonObject().Text("destination", destination).Raw("packages", packages.Finish()).Finish());
    return 0;
  }
  for (const store::ExportedPackage& item : *exported) {
    Print(fmt::format("exported {} ({})", item.reference.ToString(), FormatSize(item.bytes)));
    PrintPlatforms(item.platforms, item.absent_platforms, "the store does not have");
  }
  return 0;
}

int Import(const CommandOptions& options) {
  const Result<std::vector<store::ImportedPackage>> imported = ImportFrom(options);
  if (!imported) return Complain(imported.error());
  if (options.json) {
    JsonArray array;
    for (const store::ImportedPackage& item : *imported) {
      array.Add(JsonObject()
                    .Text("reference", item.reference.ToString())
                    .Text("digest", item.digest.ToString())
                    .Text("media_type", item.media_type)
                    .Number("content_bytes", item.content_bytes)
                    .Bool("was_there", item.was_there)
                    .Raw("platforms", TextArray(item.platforms))
                    .Raw("absent_platforms", TextArray(item.absent_platforms))
                    .Finish());
    }
    Print(array.Finish());
    return 0;
  }
  for (const store::ImportedPackage& item : *imported) {
    Print(fmt::format("{} {} ({})", item.was_there ? "present" : "imported",
                      item.reference.ToString(), FormatSize(item.content_bytes)));
    PrintPlatforms(item.platforms, item.absent_platforms, "the layout does not hold");
  }
  return 0;
}

int DiskUsage(const CommandOptions& options) {
  const Result<Measured> measured = Measure(options);
  if (!measured) return Complain(measured.error());
  if (options.json) {
    Print(UsageJson(*measured));
    return 0;
  }
  constexpr std::string_view kHeading = "REFERENCE";
  size_t width = kHeading.size();
  for (const store::PackageUsage& package : measured->shown) {
    width = std::max(width, NameOf(package).size());
  }
  if (!measured->shown.empty()) {
    Print(fmt::format("{:<{}}  {:>10}  {:>10}  {:>10}  {:>11}", kHeading, width, "APPARENT",
                      "STORED", "SHARED", "RECLAIMABLE"));
  }
  for (const store::PackageUsage& package : measured->shown) {
    Print(fmt::format("{:<{}}  {:>10}  {:>10}  {:>10}  {:>11}", NameOf(package), width,
                      FormatSize(package.apparent), FormatSize(package.stored),
                      FormatSize(package.shared),
                      package.pinned ? "pinned" : FormatSize(package.reclaimable)));
  }
  const store::DiskUsage& usage = measured->usage;
  Print(
      fmt::format("total of {} packages: {} apparent, {} stored ({} of it shared); the store "
                  "takes {} on disk",
                  usage.packages.size(), FormatSize(usage.apparent), FormatSize(usage.stored),
                  FormatSize(usage.shared), FormatSize(usage.on_disk)));
  return 0;
}

}  // namespace ocifs::tools
