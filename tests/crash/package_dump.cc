// package-dump: opens a store as the programs do and prints all that packages hold, for tests that
// compare it with what was put in.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/digest.h"
#include "store/index.h"
#include "store/pack.h"
#include "store/pull_through.h"
#include "store/reference.h"
#include "store/store.h"
#include "tools/config.h"
#include "tools/engine.h"

namespace ocifs {
namespace {

constexpr std::string_view kUsage =
    R"(usage: package-dump --store DIR [--config FILE] [--offline] [--blobs] [--inventory] [REFERENCE...]

Prints "opened" when the store is open. For each reference then "package REFERENCE" and a line for
each name below its root in order: "d PATH", "f PATH SIZE SHA256", "l PATH TARGET" or "o PATH"
(others); or "error REFERENCE: why".
Exit status 1 if one could not be read whole.

  --blobs      also "b DIGEST SIZE" for the config and each layer, read and verified
  --inventory  first "i PATH" for each file of the store that its index names
)";

struct Options {
  std::string store;
  std::string config;
  bool offline = false;
  bool blobs = false;
  bool inventory = false;
  std::vector<std::string> references;
};

template <typename T>
T Expect(store::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return *std::move(result);
}

Options ParseOptions(std::span<char*> arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--offline") {
      options.offline = true;
    } else if (argument == "--blobs") {
      options.blobs = true;
    } else if (argument == "--inventory") {
      options.inventory = true;
    } else if ((argument == "--store" || argument == "--config") && i + 1 < arguments.size()) {
      (argument == "--store" ? options.store : options.config) = arguments[++i];
    } else if (argument.starts_with('-')) {
      throw std::invalid_argument(std::string(kUsage));
    } else {
      options.references.emplace_back(argument);
    }
  }
  if (options.store.empty()) throw std::invalid_argument(std::string(kUsage));
  return options;
}

class Dump {
 public:
  Dump(tools::Engine& engine, const Options& options) : engine_(engine), options_(options) {}

  void Package(const std::string& text) {
    const store::Reference reference = Expect(store::Reference::Parse(text));
    store::PullThrough& pull = engine_.pull();
    const store::Resolution resolution = Expect(pull.Resolve(reference, context_));
    const std::shared_ptr<const store::Package> package =
        Expect(pull.Open(reference.repository(), resolution.digest, context_));
    std::printf("package %s\n", text.c_str());
    Directory(*package, 0, std::string());
    if (!options_.blobs) return;
    Blob(*package, package->manifest().config);
    for (const store::Descriptor& layer : package->manifest().layers) Blob(*package, layer);
  }

  void Inventory() {
    store::Index& index = engine_.store().index();
    for (const store::PackRecord& pack : Expect(index.Packs())) {
      std::printf("i packs/%s\n", store::PackSet::FileName(pack.id).c_str());
    }
    for (const store::Digest& manifest : Expect(index.Packages())) {
      const std::optional<store::PackageRecord> package = Expect(index.FindPackage(manifest));
      if (!package || package->tree) continue;
      std::printf("i trees/%s\n", store::Store::TreeFileName(manifest).c_str());
    }
    // The listing leaves out what lies inside the index.
    for (const auto& [digest, unused] : Expect(index.Blobs())) {
      const std::optional<store::BlobRecord> blob = Expect(index.FindBlob(digest));
      if (!blob || blob->content) continue;
      std::printf("i blobs/%s/%s\n",
                  std::string(store::DigestAlgorithmName(digest.algorithm())).c_str(),
                  digest.hex().c_str());
    }
  }

 private:
  void Directory(const store::Package& package, store::NodeIndex directory,
                 const std::string& path) {
    const store::Tree& tree = package.tree();
    for (uint32_t i = 0; i < tree.ChildCount(directory); ++i) {
      const store::Tree::Child child = tree.ChildAt(directory, i);
      const std::string name =
          path.empty() ? std::string(child.name) : path + "/" + std::string(child.name);
      switch (tree.Attributes(child.node).type) {
        case store::NodeType::kDirectory:
          std::printf("d %s\n", name.c_str());
          Directory(package, child.node, name);
          break;
        case store::NodeType::kRegular:
          File(package, child.node, name);
          break;
        case store::NodeType::kSymlink:
          std::printf("l %s %s\n", name.c_str(), std::string(tree.LinkTarget(child.node)).c_str());
          break;
        default:
          std::printf("o %s\n", name.c_str());
      }
    }
  }

  void File(const store::Package& package, store::NodeIndex file, const std::string& name) {
    const uint64_t size = package.tree().Attributes(file).size;
    const std::string digest = Digest(size, [&](uint64_t offset, std::span<std::byte> piece) {
      return engine_.pull().Read(package, file, offset, piece, context_);
    });
    std::printf("f %s %llu %s\n", name.c_str(), static_cast<unsigned long long>(size),
                digest.c_str());
  }

  void Blob(const store::Package& package, const store::Descriptor& blob) {
    const std::string digest = Digest(blob.size, [&](uint64_t offset, std::span<std::byte> piece) {
      return engine_.pull().ReadBlob(package, blob, offset, piece, context_);
    });
    if (digest != blob.digest.hex()) {
      throw std::runtime_error("blob " + blob.digest.ToString() + " reads as " + digest);
    }
    std::printf("b %s %llu\n", blob.digest.ToString().c_str(),
                static_cast<unsigned long long>(blob.size));
  }

  // SHA-256 of what `read` gives for [0, size), asked for in pieces that do not fit to chunks.
  template <typename Read>
  std::string Digest(uint64_t size, Read read) {
    store::Hasher hasher;
    for (uint64_t offset = 0; offset < size;) {
      const std::span<std::byte> piece =
          std::span(buffer_).first(std::min<uint64_t>(buffer_.size(), size - offset));
      if (Expect(read(offset, piece)) != piece.size()) throw std::runtime_error("a short read");
      hasher.Update(piece);
      offset += piece.size();
    }
    return hasher.Finish().hex();
  }

  tools::Engine& engine_;
  const Options& options_;
  const store::RequestContext context_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(3'000'000);
};

int Run(std::span<char*> arguments) {
  const Options options = ParseOptions(arguments);
  tools::Config config = Expect(tools::LoadConfig(options.config));
  config.store = tools::AbsolutePath(options.store);
  config.offline = config.offline || options.offline;
  const std::unique_ptr<tools::Engine> engine = Expect(tools::Engine::Create(config));
  std::printf("opened\n");
  Dump dump(*engine, options);
  if (options.inventory) dump.Inventory();
  bool failed = false;
  for (const std::string& reference : options.references) {
    try {
      dump.Package(reference);
    } catch (const std::exception& error) {
      std::printf("error %s: %s\n", reference.c_str(), error.what());
      failed = true;
    }
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace ocifs

int main(int argc, char** argv) {
  try {
    return ocifs::Run(std::span(argv, static_cast<size_t>(argc)).subspan(1));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "package-dump: %s\n", error.what());
    return 1;
  }
}
