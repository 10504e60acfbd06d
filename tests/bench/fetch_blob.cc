// fetch-blob: gets a package's manifest and then one blob of it, as a pull does, and keeps nothing.
// For benchmarks of transfers.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "fetch/credentials.h"
#include "fetch/host_router.h"
#include "fetch/registry_source.h"
#include "store/digest.h"
#include "store/manifest.h"
#include "store/reference.h"
#include "store/text.h"

namespace ocifs {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::string_view kUsage =
    R"(usage: fetch-blob HOST[:PORT]/REPOSITORY:TAG [OPTION VALUE]...

Gets the manifest and then the first layer, and prints {"seconds": of the layer, "bytes", "digest"}.
Exit status 1 when that fails or the digest is not the manifest's. No logins, no host files of other
tools.

  --far-ms N     servers at least that far away are asked for ranges (BlobTransferOptions::far)
  --ranges N     under way at a time (max_ranges); 1: all in one request
  --range-kib N  size of one (range_bytes)
)";

class NoLogins final : public fetch::CredentialSource {
 public:
  store::Result<std::optional<fetch::Credential>> Lookup(const store::Repository&, fetch::Freshness,
                                                         const std::stop_token&) override {
    return std::nullopt;
  }
};

template <typename T>
T Expect(store::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return *std::move(result);
}

uint64_t ParseNumber(std::string_view text, uint64_t max) {
  const auto number = store::ParseDecimal(text, max);
  if (!number) throw std::invalid_argument(std::string(kUsage));
  return *number;
}

fetch::BlobTransferOptions ParseOptions(int argc, char** argv) {
  fetch::BlobTransferOptions options;
  for (int i = 2; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) throw std::invalid_argument(std::string(kUsage));
    if (name == "--far-ms") {
      options.far = std::chrono::milliseconds(ParseNumber(argv[i + 1], 1'000'000));
    } else if (name == "--ranges") {
      options.max_ranges = static_cast<int>(ParseNumber(argv[i + 1], 1'000));
    } else if (name == "--range-kib") {
      options.range_bytes = ParseNumber(argv[i + 1], 1 << 20) << 10;
    } else {
      throw std::invalid_argument(std::string(kUsage));
    }
  }
  return options;
}

int Run(int argc, char** argv) {
  if (argc < 2) throw std::invalid_argument(std::string(kUsage));
  const store::Reference reference = Expect(store::Reference::Parse(argv[1]));
  const auto source = Expect(fetch::RegistrySource::Create(
      {.blobs = ParseOptions(argc, argv)}, {.router = Expect(fetch::HostRouter::Create({})),
                                            .credentials = std::make_unique<NoLogins>()}));
  const store::FetchContext context;
  const auto document = Expect(source->FetchManifest(reference, std::nullopt, context));
  const auto parsed = Expect(store::ParseManifest(document->bytes, document->media_type));
  const auto* const manifest = std::get_if<store::Manifest>(&parsed);
  if (manifest == nullptr || manifest->layers.empty()) {
    throw std::runtime_error(reference.ToString() + " has no layers");
  }
  const store::Descriptor& layer = manifest->layers.front();

  const SteadyClock::time_point start = SteadyClock::now();
  const auto stream = Expect(source->OpenBlob(reference.repository(), layer, context));
  store::Hasher hasher(layer.digest.algorithm());
  uint64_t bytes = 0;
  while (true) {
    const auto piece = Expect(stream->Next());
    if (piece.empty()) break;
    hasher.Update(piece);
    bytes += piece.size();
  }
  const std::chrono::duration<double> took = SteadyClock::now() - start;
  const store::Digest digest = hasher.Finish();
  printf("{\"seconds\":%.6f,\"bytes\":%llu,\"digest\":\"%s\"}\n", took.count(),
         static_cast<unsigned long long>(bytes), digest.ToString().c_str());
  return digest == layer.digest ? 0 : 1;
}

}  // namespace
}  // namespace ocifs

int main(int argc, char** argv) {
  try {
    return ocifs::Run(argc, argv);
  } catch (const std::invalid_argument& error) {
    fprintf(stderr, "%s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
