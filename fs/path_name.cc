#include "fs/path_name.h"

#include <algorithm>
#include <array>
#include <utility>

#include "store/node.h"

namespace ocifs::fs {
namespace {

using store::Digest;
using store::Registry;
using store::Tag;

std::string WithColons(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '+', ':');
  return text;
}

template <typename T>
std::optional<T> ToOptional(store::Result<T> result) {
  if (!result) return std::nullopt;
  return std::move(*result);
}

std::optional<ExactName> ReadExact(const std::string& name) {
  const size_t separator = name.find_first_of(":@");
  if (separator == std::string::npos) return std::nullopt;
  ExactName exact;
  exact.component = name.substr(0, separator);
  if (!store::IsRepositoryComponent(exact.component)) return std::nullopt;
  const std::string_view rest = std::string_view(name).substr(separator + 1);
  if (name[separator] == ':') {
    exact.tag = ToOptional(Tag::Parse(rest));
  } else {
    exact.digest = ToOptional(Digest::Parse(rest));
  }
  if (!exact.tag && !exact.digest) return std::nullopt;
  return exact;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

NameReadings ReadName(Place place, std::string_view name) {
  NameReadings readings;
  if (name.empty() || name.size() > store::kMaxNameBytes) return readings;
  if (place == Place::kMountPoint) {
    readings.registry = ToOptional(Registry::Parse(WithColons(name)));
    return readings;
  }
  if (name.find_first_of(":+@") != std::string_view::npos) {
    const std::string text = WithColons(name);
    if (place == Place::kRepository) readings.digest = ToOptional(Digest::Parse(text));
    if (!readings.digest) readings.exact = ReadExact(text);
    return readings;
  }
  readings.is_component = store::IsRepositoryComponent(name);
  if (place == Place::kRepository) readings.tag = ToOptional(Tag::Parse(name));
  return readings;
}

std::optional<store::Reference> PackageReference(const Registry& registry, std::string_view path,
                                                 const NameReadings& readings) {
  std::string repository_path(path);
  if (readings.exact) {
    if (!repository_path.empty()) repository_path += '/';
    repository_path += readings.exact->component;
  }
  const std::optional<store::Repository> repository =
      ToOptional(store::Repository::Parse(registry, repository_path));
  if (!repository) return std::nullopt;
  const std::optional<Digest>& digest = readings.exact ? readings.exact->digest : readings.digest;
  if (digest) return store::Reference(*repository, *digest);
  const std::optional<Tag>& tag = readings.exact ? readings.exact->tag : readings.tag;
  if (tag) return store::Reference(*repository, *tag);
  return std::nullopt;
}

bool LooksLikeHost(std::string_view name) {
  if (std::any_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
    return false;
  }
  static constexpr std::array<std::string_view, 10> kFileSuffixes = {
      ".mod", ".json", ".yaml", ".yml", ".toml", ".lock", ".xml", ".txt", ".cfg", ".gradle"};
  if (std::any_of(kFileSuffixes.begin(), kFileSuffixes.end(),
                  [&](std::string_view suffix) { return name.ends_with(suffix); })) {
    return false;
  }
  return name == "localhost" || name.find_first_of(".:+") != std::string_view::npos;
}

bool LooksLikeVersion(std::string_view name) {
  if (name.empty()) return false;
  if (IsDigit(name[0]) || name == "latest") return true;
  if (name.size() > 1 && name[0] == 'v' && IsDigit(name[1])) return true;
  return !store::IsRepositoryComponent(name);
}

std::string SpellRegistry(const Registry& registry) { return registry.name(); }

std::string SpellExact(const ExactName& exact) {
  return exact.tag ? exact.component + ":" + exact.tag->name()
                   : exact.component + "@" + exact.digest->ToString();
}

std::string SpellDigest(const Digest& digest) { return digest.ToString(); }

std::string WithoutColons(std::string_view spelled) {
  std::string text(spelled);
  std::replace(text.begin(), text.end(), ':', '+');
  return text;
}

}  // namespace ocifs::fs
