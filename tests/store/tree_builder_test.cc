#include "store/tree_builder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/harness/layer_model.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

using harness::LayerModel;
using harness::ModelEntry;
using harness::ModelLayer;

// --- entries in short ----------------------------------------------------------------------------

ModelEntry File(std::string path, std::string_view content = "") {
  ModelEntry entry;
  entry.path = std::move(path);
  entry.attributes.mode = 0644;
  entry.attributes.size = content.size();
  if (!content.empty()) {
    entry.chunks.push_back(ChunkRef{.digest = ChunkDigestOf(content), .length = content.size()});
  }
  return entry;
}
ModelEntry Dir(std::string path, uint32_t mode = 0700) {
  ModelEntry entry;
  entry.path = std::move(path);
  entry.attributes.type = NodeType::kDirectory;
  entry.attributes.mode = mode;
  return entry;
}
ModelEntry Symlink(std::string path, std::string target) {
  ModelEntry entry;
  entry.path = std::move(path);
  entry.attributes.type = NodeType::kSymlink;
  entry.attributes.mode = 0777;
  entry.link_target = std::move(target);
  return entry;
}
ModelEntry HardLink(std::string path, std::string target) {
  ModelEntry entry = File(std::move(path));
  entry.is_hard_link = true;
  entry.link_target = std::move(target);
  return entry;
}
ModelEntry Device(std::string path, NodeType type, uint32_t major, uint32_t minor) {
  ModelEntry entry;
  entry.path = std::move(path);
  entry.attributes.type = type;
  entry.attributes.device_major = major;
  entry.attributes.device_minor = minor;
  return entry;
}

using Layers = std::vector<ModelLayer>;
const Limits kLimits;

Result<std::unique_ptr<const Tree>> Build(const Layers& layers, bool whiteouts = true,
                                          const Limits& limits = kLimits) {
  TreeBuilder builder(limits);
  std::deque<Layer> built;
  for (const ModelLayer& layer : layers) {
    built.push_back(harness::ToLayer(layer));
    OCIFS_RETURN_IF_ERROR(builder.Apply(built.back(), whiteouts));
  }
  OCIFS_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, builder.Finish(DigestOf("manifest")));
  return Tree::FromBytes(std::move(bytes));
}

// "a d/ d/f l->t h=d/f", names in the order of a walk.
std::string Short(const Tree& tree, NodeIndex node = 0, const std::string& path = "") {
  std::string text;
  for (uint32_t i = 0; i < tree.ChildCount(node); ++i) {
    const Tree::Child child = tree.ChildAt(node, i);
    const std::string name = path + std::string(child.name);
    if (!text.empty()) text += " ";
    switch (tree.Attributes(child.node).type) {
      case NodeType::kDirectory: {
        const std::string below = Short(tree, child.node, name + "/");
        text += name + "/" + (below.empty() ? "" : " " + below);
        break;
      }
      case NodeType::kSymlink:
        text += name + "->" + std::string(tree.LinkTarget(child.node));
        break;
      default:
        text += name;
    }
  }
  return text;
}

// What the layers make, or why they are refused. Whatever it is, the model must agree.
std::string Made(const Layers& layers, bool whiteouts = true) {
  LayerModel model;
  bool accepted = true;
  for (const ModelLayer& layer : layers) accepted = accepted && model.Apply(layer, whiteouts);
  const Result<std::unique_ptr<const Tree>> tree = Build(layers, whiteouts);
  if (!tree) {
    EXPECT_FALSE(accepted) << tree.error().message;
    return std::string(ErrorCodeName(tree.error().code));
  }
  EXPECT_TRUE(accepted);
  if (accepted) {
    EXPECT_EQ(LayerModel::Describe(**tree), model.Describe());
  }
  return Short(**tree);
}

// --- rules, one by one ---------------------------------------------------------------------------

TEST(TreeBuilder, NoLayers) {
  const std::unique_ptr<const Tree> tree = Must(Build({}));
  EXPECT_EQ(tree->node_count(), 1U);
  EXPECT_EQ(tree->Attributes(0).mode, 0755U);
  EXPECT_EQ(tree->LinkCount(0), 2U);
}

TEST(TreeBuilder, RootEntrySetsTheRootsAttributes) {
  const std::unique_ptr<const Tree> tree = Must(Build({{Dir("", 0711), File("a")}}));
  EXPECT_EQ(tree->Attributes(0).mode, 0711U);
  EXPECT_EQ(Short(*tree), "a");
}

TEST(TreeBuilder, MissingParentsAreMade) {
  const std::unique_ptr<const Tree> tree = Must(Build({{File("a/b/c")}}));
  const NodeAttributes made = tree->Attributes(*tree->Walk("a/b"));
  EXPECT_EQ(made.mode, 0755U);
  EXPECT_EQ(made.uid, 0U);
  EXPECT_EQ(tree->LinkCount(*tree->Walk("a")), 3U);
}

TEST(TreeBuilder, DirectoryOverDirectoryKeepsTheChildren) {
  const std::unique_ptr<const Tree> tree =
      Must(Build({{Dir("d", 0700), File("d/a")}, {Dir("d", 0555)}}));
  EXPECT_EQ(Short(*tree), "d/ d/a");
  EXPECT_EQ(tree->Attributes(*tree->Walk("d")).mode, 0555U);
}

TEST(TreeBuilder, AnUpperDirectorysXattrsReplaceTheLowers) {
  ModelEntry lower = Dir("d");
  lower.xattrs = {{"user.a", "1"}, {"user.b", "2"}};
  ModelEntry upper = Dir("d");
  upper.xattrs = {{"user.c", "3"}};
  const std::unique_ptr<const Tree> tree = Must(Build({{lower}, {upper}}));
  const NodeIndex d = *tree->Walk("d");
  ASSERT_EQ(tree->XattrCount(d), 1U);
  EXPECT_EQ(tree->XattrAt(d, 0).name, "user.c");
}

TEST(TreeBuilder, ReplacementTakesTheWholeSubtree) {
  EXPECT_EQ(Made({{File("x")}, {Dir("x"), File("x/a")}, {File("x")}, {Symlink("x", "y")}}), "x->y");
  EXPECT_EQ(Made({{Dir("x"), File("x/a")}, {File("x")}, {Dir("x")}}), "x/");
  EXPECT_EQ(Made({{Dir("x"), File("x/a")}, {File("x"), Dir("x")}}), "x/");
  EXPECT_EQ(Made({{Symlink("x", "y"), Dir("y"), File("y/a")}, {Dir("x")}}), "x/ y/ y/a");
}

TEST(TreeBuilder, TheLastOfSeveralEntriesCounts) {
  EXPECT_EQ(Made({{File("a"), Dir("a"), Symlink("a", "b")}}), "a->b");
  ModelLayer many;
  for (int i = 0; i < 100'000; ++i) many.push_back(File("a"));
  many.push_back(File("a", "last"));
  const std::unique_ptr<const Tree> tree = Must(Build({many}));
  EXPECT_EQ(tree->node_count(), 2U);
  EXPECT_EQ(tree->Attributes(*tree->Walk("a")).size, 4U);
}

TEST(TreeBuilder, NamesThatDifferInCaseOrFormAreDifferent) {
  EXPECT_EQ(Made({{File("A"), File("a"), File("\xC3\xA9"), File("e\xCC\x81")}}),
            "A a e\xCC\x81 \xC3\xA9");
}

// --- links ---------------------------------------------------------------------------------------

TEST(TreeBuilder, AParentThatIsALinkIsFollowedInsideTheTree) {
  EXPECT_EQ(Made({{Dir("usr"), Dir("usr/lib"), Symlink("lib", "usr/lib")}, {File("lib/x")}}),
            "lib->usr/lib usr/ usr/lib/ usr/lib/x");
  EXPECT_EQ(Made({{Symlink("l", "/etc"), File("l/passwd")}}), "etc/ etc/passwd l->/etc");
  EXPECT_EQ(Made({{Symlink("l", "../../../../etc"), File("l/passwd")}}),
            "etc/ etc/passwd l->../../../../etc");
  EXPECT_EQ(Made({{Symlink("l", "."), File("l/l/l/x")}}), "l->. x");
  EXPECT_EQ(Made({{Symlink("l", "/."), Dir("d"), File("l/d/x")}}), "d/ d/x l->/.");
  EXPECT_EQ(Made({{Dir("d"), Symlink("d/up", "../.."), File("d/up/x")}}), "d/ d/up->../.. x");
}

TEST(TreeBuilder, LinkLoopsAreRefused) {
  EXPECT_EQ(Made({{Symlink("a", "a"), File("a/x")}}), "corrupt");
  EXPECT_EQ(Made({{Symlink("a", "b"), Symlink("b", "a"), File("a/x")}}), "corrupt");
  EXPECT_EQ(Made({{Symlink("a", "a/a"), File("a/x")}}), "corrupt") << "grows without end";
  ModelLayer chain;
  for (int i = 0; i < 41; ++i)
    chain.push_back(Symlink("l" + std::to_string(i), "l" + std::to_string(i + 1)));
  chain.push_back(Dir("l41"));
  ModelLayer within = chain;
  within.push_back(File("l1/x"));
  EXPECT_NE(Made({within}), "corrupt") << "40 links";
  chain.push_back(File("l0/x"));
  EXPECT_EQ(Made({chain}), "corrupt") << "41 links";
}

TEST(TreeBuilder, LinksThatGrowTheirPathAreRefusedSoon) {
  ModelLayer layer;
  for (int i = 0; i < 40; ++i) {
    std::string target = "l" + std::to_string(i + 1);
    while (target.size() < 4000) target += "/.";
    layer.push_back(Symlink("l" + std::to_string(i), target));
  }
  layer.push_back(File("l0/x"));
  EXPECT_THAT(Build({layer}), FailsWith(ErrorCode::kCorrupt));
}

TEST(TreeBuilder, ALinkToAnOverlongNameIsRefusedWhereItWouldBeMade) {
  EXPECT_EQ(Made({{Symlink("l", std::string(256, 'n')), File("l/x")}}), "corrupt");
}

TEST(TreeBuilder, AFileInTheWayOfAParentIsReplaced) {
  EXPECT_EQ(Made({{File("a")}, {File("a/b")}}), "a/ a/b");
  EXPECT_EQ(Made({{Device("a", NodeType::kFifo, 0, 0)}, {File("a/b")}}), "a/ a/b");
}

TEST(TreeBuilder, RootIsNeverAnythingButADirectory) {
  EXPECT_EQ(Made({{Symlink("", "/etc")}}), "corrupt");
  EXPECT_EQ(Made({{File("")}}), "corrupt");
  EXPECT_EQ(Made({{File("a"), HardLink("", "a")}}), "corrupt");
}

TEST(TreeBuilder, HardLinksShareOneNode) {
  const std::unique_ptr<const Tree> tree =
      Must(Build({{File("a", "content")}, {HardLink("d/b", "a"), HardLink("c", "d/b")}}));
  EXPECT_EQ(tree->Walk("a"), tree->Walk("d/b"));
  EXPECT_EQ(tree->Walk("a"), tree->Walk("c"));
  EXPECT_EQ(tree->LinkCount(*tree->Walk("c")), 3U);
  EXPECT_EQ(tree->content_bytes(), 7U);
}

TEST(TreeBuilder, ANameThatGoesLeavesTheOthers) {
  EXPECT_EQ(Made({{File("a", "x"), HardLink("b", "a")}, {File("a")}}), "a b");
  EXPECT_EQ(Made({{File("a", "x"), HardLink("b", "a")}, {File(".wh.a")}}), "b");
  EXPECT_EQ(Made({{Dir("d"), File("d/a", "x"), HardLink("b", "d/a")}, {File(".wh.d")}}), "b");
  EXPECT_EQ(Made({{Dir("d"), File("d/a", "x"), HardLink("d", "d/a")}}), "d")
      << "over its own directory";
}

TEST(TreeBuilder, HardLinksToLinksAndDevices) {
  EXPECT_EQ(Made({{Symlink("a", "b"), HardLink("c", "a")}}), "a->b c->b")
      << "the link, not its target";
  EXPECT_EQ(Made({{Device("a", NodeType::kCharDevice, 1, 3), HardLink("c", "a")}}), "a c");
  EXPECT_EQ(Made({{Dir("d"), File("d/f"), Symlink("l", "d"), HardLink("c", "l/f")}}),
            "c d/ d/f l->d");
}

TEST(TreeBuilder, HardLinksToNothingAreRefused) {
  EXPECT_EQ(Made({{HardLink("a", "missing")}}), "corrupt");
  EXPECT_EQ(Made({{HardLink("a", "etc/passwd")}}), "corrupt");
  EXPECT_EQ(Made({{File("a"), HardLink("a", "a")}}), "corrupt") << "itself";
  EXPECT_EQ(Made({{HardLink("a", "a")}}), "corrupt");
  EXPECT_EQ(Made({{HardLink("a", "b"), File("b")}}), "corrupt") << "forward";
  EXPECT_EQ(Made({{Dir("d"), HardLink("a", "d")}}), "corrupt") << "directory";
  EXPECT_EQ(Made({{HardLink("a", "")}}), "corrupt") << "root";
  EXPECT_EQ(Made({{File(".wh.x"), HardLink("a", ".wh.x")}}), "corrupt") << "whiteout";
  EXPECT_EQ(Made({{File("b")}, {File(".wh.b"), HardLink("a", "b")}}), "corrupt") << "hidden";
  EXPECT_EQ(Made({{Symlink("l", "l"), HardLink("a", "l/x")}}), "corrupt") << "loop";
  EXPECT_EQ(Made({{File("f"), HardLink("f/x", "f")}}), "corrupt") << "below its own target";
}

// --- whiteouts -----------------------------------------------------------------------------------

TEST(TreeBuilder, WhiteoutsHideWhatIsBelow) {
  const ModelLayer lower = {Dir("d"), File("d/a"), File("d/b"), Dir("e"), File("e/f/g")};
  EXPECT_EQ(Made({lower, {File("d/.wh.a")}}), "d/ d/b e/ e/f/ e/f/g");
  EXPECT_EQ(Made({lower, {File(".wh.e")}}), "d/ d/a d/b");
  EXPECT_EQ(Made({lower, {File(".wh.d"), File(".wh.e")}}), "");
  EXPECT_EQ(Made({lower, {File("d/.wh..wh..opq")}}), "d/ e/ e/f/ e/f/g");
  EXPECT_EQ(Made({lower, {File(".wh..wh..opq")}}), "");
  EXPECT_EQ(Made({lower, {Dir("d/.wh.a"), Symlink("d/.wh.b", "x")}}), "d/ e/ e/f/ e/f/g")
      << "of any type";
}

TEST(TreeBuilder, WhiteoutsOfNothingAreIgnored) {
  EXPECT_EQ(Made({{File("a")},
                  {File(".wh.b"), File("x/y/.wh.z"), File("x/.wh..wh..opq"), File("a/.wh.b")}}),
            "a");
}

TEST(TreeBuilder, WhiteoutsActOnLowerLayersOnlyWhereverTheyStand) {
  const ModelLayer lower = {Dir("d"), File("d/old"), File("x", "old")};
  for (const ModelLayer& upper :
       {ModelLayer{File("d/.wh..wh..opq"), File("d/new"), File(".wh.x"), File("x", "new")},
        ModelLayer{File("x", "new"), File(".wh.x"), File("d/new"), File("d/.wh..wh..opq")}}) {
    EXPECT_EQ(Made({lower, upper}), "d/ d/new x");
    const std::unique_ptr<const Tree> tree = Must(Build({lower, upper}));
    EXPECT_EQ(tree->ChunkAt(*tree->Walk("x"), 0).digest, ChunkDigestOf("new"));
    EXPECT_EQ(tree->Attributes(*tree->Walk("d")).mode, 0700U) << "keeps the lower attributes";
  }
}

TEST(TreeBuilder, AWhiteoutBesideADirectoryOfItsNameLeavesItEmpty) {
  EXPECT_EQ(Made({{Dir("d"), File("d/old")}, {File(".wh.d"), Dir("d")}}), "d/");
  EXPECT_EQ(Made({{Dir("d"), File("d/old")}, {Dir("d"), File("d/new"), File(".wh.d")}}),
            "d/ d/new");
}

TEST(TreeBuilder, WhiteoutsOfNoNameAreRefused) {
  for (const std::string_view name : {".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."}) {
    EXPECT_EQ(Made({{Dir("d")}, {File(std::string(name))}}), "corrupt") << name;
    EXPECT_NE(Made({{Dir("d")}, {File(std::string(name))}}, false), "corrupt") << name;
  }
}

TEST(TreeBuilder, NamesOfAufsAreIgnoredWithAllBelow) {
  EXPECT_EQ(Made({{File("a"), File(".wh..wh.aufs"), Dir(".wh..wh.plnk"), File(".wh..wh.plnk/1.2"),
                   File(".wh..wh.plnk/.wh.a"), File(".wh.x/y/.wh..wh..opq")}}),
            "a");
  EXPECT_EQ(Made({{File(".wh..wh.plnk/1.2"), HardLink("a", ".wh..wh.plnk/1.2")}}), "corrupt");
}

TEST(TreeBuilder, WhiteoutNamesNeverAppear) {
  EXPECT_EQ(Made({{File("d/.wh.x"), File("d/.wh..wh..opq"), File(".wh.y/z")}}), "");
}

TEST(TreeBuilder, WithoutWhiteoutsTheirNamesAreNames) {
  EXPECT_EQ(Made({{File("a")}, {File(".wh.a"), File(".wh..wh..opq")}}, false),
            ".wh..wh..opq .wh.a a");
}

TEST(TreeBuilder, AWhiteoutBelowALinkHidesBehindIt) {
  EXPECT_EQ(
      Made({{Dir("usr"), File("usr/a"), File("usr/b"), Symlink("l", "usr")}, {File("l/.wh.a")}}),
      "l->usr usr/ usr/b");
  EXPECT_EQ(Made({{Dir("usr"), File("usr/a"), Symlink("l", "/usr")}, {File("l/.wh..wh..opq")}}),
            "l->/usr usr/");
  EXPECT_EQ(Made({{Symlink("l", "l")}, {File("l/.wh.a")}}), "corrupt");
}

// overlayfs marks a directory opaque that was made where a link stood; the link's target is not
// meant.
TEST(TreeBuilder, AnOpaqueDirectoryThatReplacesALinkLeavesTheLinksTarget) {
  const ModelLayer lower = {Dir("usr"), File("usr/a"), Symlink("l", "usr")};
  EXPECT_EQ(Made({lower, {Dir("l"), File("l/.wh..wh..opq"), File("l/x")}}), "l/ l/x usr/ usr/a");
  EXPECT_EQ(Made({lower, {File("l/x"), File("l/.wh..wh..opq"), Dir("l")}}), "l/ usr/ usr/a usr/x")
      << "an entry that stands before the directory goes where the link leads";
  EXPECT_EQ(Made({lower, {Dir("l"), File("l/.wh.a")}}), "l/ usr/ usr/a");
  EXPECT_EQ(Made({{Dir("usr"), File("usr/d/a"), Symlink("l", "usr")},
                  {Dir("l"), Dir("l/d"), File("l/d/.wh..wh..opq")}}),
            "l/ l/d/ usr/ usr/d/ usr/d/a");
}

TEST(TreeBuilder, TheOrderOfWhiteoutsDoesNotMatter) {
  const ModelLayer lower = {Dir("usr"), File("usr/a"), Symlink("l", "usr"), Symlink("m", "l")};
  ModelLayer upper = {File(".wh.l"), File("l/.wh.a"), File("m/.wh.b"), File(".wh.m")};
  const std::string expected = Made({lower, upper});
  std::sort(upper.begin(), upper.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  do {
    EXPECT_EQ(Made({lower, upper}), expected);
  } while (std::next_permutation(upper.begin(), upper.end(),
                                 [](const auto& a, const auto& b) { return a.path < b.path; }));
}

TEST(TreeBuilder, CharacterDevice00IsNoWhiteout) {
  EXPECT_EQ(Made({{File("a")}, {Device("a", NodeType::kCharDevice, 0, 0)}}), "a");
}

// --- cost ----------------------------------------------------------------------------------------

TEST(TreeBuilder, TooManyEntriesAreRefused) {
  Limits limits;
  limits.max_entries = 10;
  ModelLayer layer;
  for (int i = 0; i < 9; ++i) layer.push_back(File("f" + std::to_string(i)));
  EXPECT_THAT(Build({layer}, true, limits), IsOk());
  layer.push_back(File("deep/er/x"));
  EXPECT_THAT(Build({layer}, true, limits), FailsWith(ErrorCode::kTooLarge));
}

TEST(TreeBuilder, ADeepTreeCostsNoStack) {
  std::string path;
  for (int i = 0; i < 1024; ++i) path += "d/";
  const std::unique_ptr<const Tree> tree =
      Must(Build({{File(path + "f")}, {File("d/d/.wh.d")}, {File(path + "f")}}));
  EXPECT_TRUE(tree->Walk(path + "f"));
}

// 10^10 steps if each whiteout looked at every name that was ever in the directory.
TEST(TreeBuilder, ManyOpaqueMarksOnABigDirectoryAreCheap) {
  ModelLayer lower;
  ModelLayer upper;
  for (int i = 0; i < 100'000; ++i) {
    lower.push_back(File("d/" + std::to_string(i)));
    upper.push_back(File("d/.wh..wh..opq"));
  }
  const std::unique_ptr<const Tree> tree = Must(Build({lower, upper}));
  EXPECT_EQ(Short(*tree), "d/");
}

TEST(TreeBuilder, FilesOfADirectoryAreNeighbours) {
  const std::unique_ptr<const Tree> tree =
      Must(Build({{File("b/2"), File("a/1"), File("b/1"), File("a/2")}}));
  EXPECT_EQ(*tree->Walk("a/2"), *tree->Walk("a/1") + 1);
  EXPECT_EQ(*tree->Walk("b/2"), *tree->Walk("b/1") + 1);
}

// --- random operations against the model ---------------------------------------------------------

class RandomLayers {
 public:
  explicit RandomLayers(uint64_t seed) : random_(seed) {}

  Layers Make() {
    Layers layers(1 + Below(5));
    for (size_t i = 0; i < layers.size(); ++i) {
      const size_t entries = Below(12);
      for (size_t k = 0; k < entries; ++k) layers[i].push_back(Entry(static_cast<uint32_t>(i)));
    }
    return layers;
  }

 private:
  size_t Below(size_t bound) { return static_cast<size_t>(random_() % bound); }

  std::string Path(bool whiteout) {
    std::string path;
    const size_t depth = Below(4);
    for (size_t i = 0; i < depth; ++i) path += Name() + "/";
    if (whiteout) {
      switch (Below(12)) {
        case 0:
          return path + ".wh..wh.aufs";
        case 1:
          return path + ".wh.x/" + Name();
        case 2:
        case 3:
        case 4:
          return path + ".wh..wh..opq";
        default:
          return path + ".wh." + Name();
      }
    }
    if (depth > 0 && Below(30) == 0) path.pop_back();
    return path.ends_with('/') || path.empty() ? path + Name() : path;
  }
  std::string Name() { return std::string(1, static_cast<char>('a' + Below(4))); }
  std::string Target() {
    std::string target = Below(4) == 0 ? "/" : "";
    const size_t depth = 1 + Below(3);
    for (size_t i = 0; i < depth; ++i) {
      if (i > 0) target += "/";
      switch (Below(5)) {
        case 0:
          target += "..";
          break;
        case 1:
          target += Below(3) == 0 ? "." : Name();
          break;
        default:
          target += Name();
      }
    }
    return target;
  }

  ModelEntry Entry(uint32_t layer) {
    const size_t kind = Below(20);
    ModelEntry entry;
    if (kind < 4) {
      entry = File(Path(true));
    } else if (kind < 8) {
      entry = Dir(Below(20) == 0 ? "" : Path(false), static_cast<uint32_t>(Below(512)));
      if (Below(3) == 0) entry.xattrs = {{"user." + Name(), Name()}};
    } else if (kind < 11) {
      entry = Symlink(Path(false), Target());
    } else if (kind < 13) {
      entry = HardLink(Path(false), Path(false));
    } else if (kind == 13) {
      entry = Device(Path(false), Below(2) == 0 ? NodeType::kFifo : NodeType::kCharDevice,
                     static_cast<uint32_t>(Below(3)), static_cast<uint32_t>(Below(3)));
    } else {
      entry = File(Path(false), std::string(Below(9), static_cast<char>('A' + Below(20))));
    }
    entry.attributes.mtime_sec = static_cast<int64_t>(Below(1000)) - 500;
    entry.attributes.uid = static_cast<uint32_t>(Below(3));
    for (ChunkRef& chunk : entry.chunks) chunk.layer = layer;
    return entry;
  }

  std::mt19937_64 random_;
};

std::string Listing(const Layers& layers) {
  std::string text;
  for (const ModelLayer& layer : layers) {
    text += "layer:\n";
    for (const ModelEntry& entry : layer) {
      text += "  " + entry.path + " type " +
              std::to_string(static_cast<int>(entry.attributes.type)) +
              (entry.is_hard_link ? " = " : " -> ") + entry.link_target + "\n";
    }
  }
  return text;
}

TEST(TreeBuilder, RandomLayersEqualTheModel) {
  const char* given = std::getenv("OCIFS_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20240817;
  std::cout << "OCIFS_TEST_SEED=" << seed << '\n';
  size_t accepted = 0;
  constexpr size_t kCases = 3000;
  for (size_t i = 0; i < kCases; ++i) {
    RandomLayers random(seed + i);
    // Layers that are refused say little: what of them has no meaning is left out.
    Layers layers;
    for (const ModelLayer& layer : random.Make()) {
      layers.emplace_back();
      for (const ModelEntry& entry : layer) {
        layers.back().push_back(entry);
        LayerModel model;
        bool good = true;
        for (const ModelLayer& done : layers) good = good && model.Apply(done, true);
        if (!good && i % 10 != 0) layers.back().pop_back();
      }
    }
    LayerModel model;
    bool good = true;
    for (const ModelLayer& layer : layers) good = good && model.Apply(layer, true);
    const Result<std::unique_ptr<const Tree>> tree = Build(layers);
    ASSERT_EQ(tree.has_value(), good) << "OCIFS_TEST_SEED=" << seed + i << '\n'
                                      << Listing(layers) << (tree ? "" : tree.error().message);
    if (!good) continue;
    ++accepted;
    ASSERT_EQ(LayerModel::Describe(**tree), model.Describe())
        << "OCIFS_TEST_SEED=" << seed + i << '\n'
        << Listing(layers);
  }
  EXPECT_GT(accepted, kCases * 8 / 10);
}

}  // namespace
}  // namespace ocifs::store
