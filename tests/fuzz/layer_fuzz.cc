// Stacks of layers. The bytes are a list of archive entries over one to four layers; the oracle is
// the plain model of tests/harness/layer_model.h: both refuse, or both make the same tree.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/entry_path.h"
#include "store/tree_builder.h"
#include "tests/harness/layer_model.h"

namespace {

using namespace ocifs::store;
using ocifs::harness::LayerModel;
using ocifs::harness::ModelEntry;
using ocifs::harness::ModelLayer;

void Demand(bool condition) {
  if (!condition) std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}
  bool empty() const { return rest_.empty(); }
  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return byte;
  }
  // A path, one byte a component, ended by a byte below 16.
  std::string Path() {
    static constexpr std::string_view kNames[] = {
        "a",    "b",     "c", "d", "..", ".",   ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.aufs",
        ".wh.", ".wh..", "",  "e", "f",  "long"};
    std::string path = Byte() % 4 == 0 ? "/" : "";
    for (int i = 0; i < 8; ++i) {
      const uint8_t byte = Byte();
      if (byte < 16 && i > 0) break;
      if (i > 0) path += '/';
      path += byte % 16 == 15 ? std::string(byte % 2 == 0 ? 256 : 200, 'n')
                              : std::string(kNames[byte % 16]);
    }
    return path;
  }

 private:
  std::string_view rest_;
};

ModelEntry TakeEntry(Input& input, const Limits& limits, bool& good) {
  ModelEntry entry;
  const uint8_t kind = input.Byte();
  good = NormalizeEntryPath(input.Path(), limits, entry.path).has_value();
  entry.attributes.mode = kind;
  entry.attributes.mtime_sec = kind;
  switch (kind % 6) {
    case 0:
      entry.attributes.type = NodeType::kDirectory;
      if (kind >= 128) entry.xattrs = {{"user.x", std::string(1, static_cast<char>(kind))}};
      break;
    case 1:
      entry.attributes.type = NodeType::kSymlink;
      entry.link_target = input.Path();
      good = good && !entry.link_target.empty();
      break;
    case 2:
      entry.is_hard_link = true;
      good = good && NormalizeEntryPath(input.Path(), limits, entry.link_target);
      break;
    case 3:
      entry.attributes.type = NodeType::kCharDevice;
      entry.attributes.device_major = kind;
      break;
    default:
      entry.attributes.size = kind;
      entry.chunks.push_back(ChunkRef{.digest = {}, .length = kind});
      entry.chunks.back().digest.bytes[0] = static_cast<std::byte>(kind);
  }
  return entry;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const Limits limits;
  const bool whiteouts = input.Byte() % 8 != 0;
  std::vector<ModelLayer> layers(1);
  while (!input.empty()) {
    if (input.Byte() % 8 == 0 && layers.size() < 4) layers.emplace_back();
    bool good = false;
    ModelEntry entry = TakeEntry(input, limits, good);
    if (good) layers.back().push_back(std::move(entry));
  }
  LayerModel model;
  TreeBuilder builder(limits);
  std::deque<Layer> built;
  for (const ModelLayer& layer : layers) {
    const bool meant = model.Apply(layer, whiteouts);
    built.push_back(ocifs::harness::ToLayer(layer));
    const Result<void> applied = builder.Apply(built.back(), whiteouts);
    Demand(applied.has_value() == meant);
    if (!meant) {
      Demand(applied.error().code == ErrorCode::kCorrupt);
      return 0;
    }
  }
  auto bytes = builder.Finish(Digest::Of({}));
  Demand(bytes.has_value());
  const auto tree = Tree::FromBytes(*std::move(bytes));
  Demand(tree.has_value());
  Demand(LayerModel::Describe(**tree) == model.Describe());
  return 0;
}
