#include "store/tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/file.h"
#include "store/layer.h"
#include "store/tree_builder.h"
#include "store/tree_format.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

TarEntry EntryOf(std::string path, NodeType type) {
  TarEntry entry;
  entry.path = std::move(path);
  entry.attributes.type = type;
  entry.attributes.mode = type == NodeType::kDirectory ? 0755 : 0644;
  return entry;
}

// Node numbers: 0 /, 1 big, 2 d, 3 dev, 4 empty, 5 link, 6 d/e, 7 d/f.
std::vector<std::byte> SmallTree() {
  const Limits limits;
  TreeBuilder builder(limits);
  Layer layer;
  TarEntry big = EntryOf("big", NodeType::kRegular);
  big.attributes.size = kChunkBytes + 100 + (uint64_t{1} << 40);
  big.attributes.mtime_sec = -7;
  big.attributes.mtime_nsec = 999'999'999;
  const std::vector<ChunkRef> chunks = {
      {.digest = ChunkDigestOf("1"), .length = kChunkBytes, .layer = 3, .stream_offset = 512},
      {.digest = ChunkDigestOf("2"),
       .file_offset = kChunkBytes,
       .length = 100,
       .layer = 3,
       .stream_offset = 9},
      {.digest = {},
       .file_offset = kChunkBytes + 100,
       .length = uint64_t{1} << 40,
       .is_hole = true,
       .layer = 3}};
  layer.Add(big, chunks);
  layer.Add(EntryOf("d", NodeType::kDirectory), {});
  layer.Add(EntryOf("d/e", NodeType::kDirectory), {});
  TarEntry device = EntryOf("dev", NodeType::kCharDevice);
  device.attributes.device_major = 1;
  device.attributes.device_minor = 3;
  layer.Add(device, {});
  TarEntry small = EntryOf("d/f", NodeType::kRegular);
  small.attributes.size = 3;
  small.attributes.uid = 4'294'967'294;
  small.xattrs = {{"user.a", std::string("\0\xFF", 2)}, {"user.b", ""}};
  layer.Add(small, std::vector<ChunkRef>{{.digest = ChunkDigestOf("abc"), .length = 3}});
  layer.Add(EntryOf("empty", NodeType::kRegular), {});
  TarEntry link = EntryOf("link", NodeType::kSymlink);
  link.link_target = "d/f";
  layer.Add(link, {});
  Must(builder.Apply(layer, true));
  return Must(builder.Finish(DigestOf("manifest")));
}

TEST(Tree, RoundTrip) {
  const std::unique_ptr<const Tree> tree = Must(Tree::FromBytes(SmallTree()));
  EXPECT_EQ(tree->node_count(), 8U);
  EXPECT_EQ(tree->content_bytes(), kChunkBytes + 103 + (uint64_t{1} << 40));
  EXPECT_EQ(tree->chunk_count(), 4U);
  const NodeIndex big = *tree->Lookup(0, "big");
  EXPECT_EQ(tree->Attributes(big).mtime_sec, -7);
  EXPECT_EQ(tree->Attributes(big).mtime_nsec, 999'999'999U);
  ASSERT_EQ(tree->ChunkCount(big), 3U);
  EXPECT_EQ(tree->ChunkAt(big, 0).digest, ChunkDigestOf("1"));
  EXPECT_EQ(tree->ChunkAt(big, 1).stream_offset, 9U);
  EXPECT_EQ(tree->ChunkAt(big, 1).layer, 3U);
  EXPECT_TRUE(tree->ChunkAt(big, 2).is_hole);
  const NodeIndex file = *tree->Walk("d/f");
  EXPECT_EQ(tree->Attributes(file).uid, 4'294'967'294U);
  ASSERT_EQ(tree->XattrCount(file), 2U);
  EXPECT_EQ(tree->XattrAt(file, 0).value, std::string_view("\0\xFF", 2));
  EXPECT_EQ(tree->XattrAt(file, 1).name, "user.b");
  EXPECT_EQ(tree->LinkTarget(*tree->Lookup(0, "link")), "d/f");
  EXPECT_EQ(tree->Attributes(*tree->Lookup(0, "dev")).device_minor, 3U);
  const NodeIndex d = *tree->Lookup(0, "d");
  EXPECT_EQ(tree->Parent(*tree->Lookup(d, "e")), d);
  EXPECT_EQ(tree->Parent(d), 0U);
  EXPECT_EQ(tree->Parent(0), 0U);
  EXPECT_EQ(tree->LinkCount(0), 3U);
  EXPECT_EQ(tree->manifest(), DigestOf("manifest"));
}

TEST(Tree, ChunkPositionOfFindsTheChunk) {
  const std::unique_ptr<const Tree> tree = Must(Tree::FromBytes(SmallTree()));
  const NodeIndex big = *tree->Lookup(0, "big");
  EXPECT_EQ(tree->ChunkPositionOf(big, 0), 0U);
  EXPECT_EQ(tree->ChunkPositionOf(big, kChunkBytes - 1), 0U);
  EXPECT_EQ(tree->ChunkPositionOf(big, kChunkBytes), 1U);
  EXPECT_EQ(tree->ChunkPositionOf(big, kChunkBytes + 99), 1U);
  EXPECT_EQ(tree->ChunkPositionOf(big, kChunkBytes + 100), 2U);
  EXPECT_EQ(tree->ChunkPositionOf(big, tree->Attributes(big).size - 1), 2U);
}

TEST(Tree, LookupAndWalkFindNothingElse) {
  const std::unique_ptr<const Tree> tree = Must(Tree::FromBytes(SmallTree()));
  for (const std::string_view name : {"", "a", "bi", "bigg", "zzz", "D", ".", "..", "d/f"}) {
    EXPECT_EQ(tree->Lookup(0, name), std::nullopt) << name;
  }
  for (const std::string_view path : {"big/x", "link/x", "d/f/x", "d/..", "x/y"}) {
    EXPECT_EQ(tree->Walk(path), std::nullopt) << path;
  }
  EXPECT_EQ(tree->Walk(""), 0U);
  EXPECT_EQ(tree->Walk("/d//e/"), tree->Walk("d/e"));
}

TEST(Tree, OpensFromAFile) {
  const testing::TempDir directory;
  directory.Write("tree", TextOf(SmallTree()));
  directory.Write("short", "OCIFSTRE");
  directory.Write("empty", "");
  ASSERT_EQ(symlink("tree", (directory / "link").c_str()), 0);
  ASSERT_EQ(mkfifo((directory / "fifo").c_str(), 0600), 0);
  const UniqueFd fd(open(directory.path().c_str(), O_RDONLY | O_DIRECTORY));
  const Result<std::unique_ptr<const Tree>> tree = Tree::Open(fd.get(), "tree");
  ASSERT_THAT(tree, IsOk());
  EXPECT_TRUE((*tree)->Walk("d/f"));
  EXPECT_THAT(Tree::Open(fd.get(), "short"), FailsWith(ErrorCode::kIndexDamaged));
  EXPECT_THAT(Tree::Open(fd.get(), "empty"), FailsWith(ErrorCode::kIndexDamaged));
  EXPECT_THAT(Tree::Open(fd.get(), "link"), FailsWith(ErrorCode::kStoreIo)) << "a symbolic link";
  EXPECT_FALSE(Tree::Open(fd.get(), "fifo")) << "must not wait for a writer";
  EXPECT_FALSE(Tree::Open(fd.get(), "missing"));
}

// --- damage --------------------------------------------------------------------------------------

TEST(Tree, EveryFlippedByteIsRefused) {
  const std::vector<std::byte> good = SmallTree();
  for (size_t at = 0; at < good.size(); ++at) {
    for (const unsigned mask : {0x01U, 0x80U, 0xFFU}) {
      std::vector<std::byte> bad = good;
      bad[at] ^= static_cast<std::byte>(mask);
      ASSERT_THAT(Tree::FromBytes(std::move(bad)), FailsWith(ErrorCode::kIndexDamaged)) << at;
    }
  }
}

TEST(Tree, EveryTruncationIsRefused) {
  const std::vector<std::byte> good = SmallTree();
  for (size_t size = 0; size < good.size(); ++size) {
    ASSERT_THAT(Tree::FromBytes({good.begin(), good.begin() + static_cast<ptrdiff_t>(size)}),
                FailsWith(ErrorCode::kIndexDamaged))
        << size;
  }
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  EXPECT_THAT(Tree::FromBytes(std::move(longer)), FailsWith(ErrorCode::kIndexDamaged));
}

// A tree as its sections, to be changed and put together again with right checksums.
struct Parts {
  TreeHeader header;
  std::vector<TreeNode> nodes;
  std::vector<TreeChunk> chunks;
  std::vector<TreeDirent> dirents;
  std::vector<TreeXattr> xattrs;
  std::string heap;

  TreeDirent& Name(std::string_view name) {
    for (TreeDirent& entry : dirents) {
      if (std::string_view(heap).substr(entry.name_offset, entry.name_length) == name) return entry;
    }
    std::abort();
  }
  TreeNode& Node(std::string_view name) { return nodes[Name(name).node]; }
};

template <typename T>
size_t TakeSection(const std::vector<std::byte>& bytes, size_t at, size_t count,
                   std::vector<T>& out) {
  out.resize(count);
  if (count > 0) std::memcpy(out.data(), bytes.data() + at, count * sizeof(T));
  return at + count * sizeof(T);
}
template <typename T>
void PutSection(std::vector<std::byte>& bytes, const std::vector<T>& items) {
  const auto section = std::as_bytes(std::span(items));
  bytes.insert(bytes.end(), section.begin(), section.end());
}

Parts Dissect(const std::vector<std::byte>& bytes) {
  Parts parts;
  std::memcpy(&parts.header, bytes.data(), sizeof parts.header);
  size_t at = sizeof parts.header;
  at = TakeSection(bytes, at, parts.header.node_count, parts.nodes);
  at = TakeSection(bytes, at, parts.header.chunk_count, parts.chunks);
  at = TakeSection(bytes, at, parts.header.dirent_count, parts.dirents);
  at = TakeSection(bytes, at, parts.header.xattr_count, parts.xattrs);
  parts.heap = TextOf(std::span(bytes).subspan(at));
  return parts;
}

enum class Counts { kRight, kAsGiven };

std::vector<std::byte> Assemble(Parts parts, Counts counts = Counts::kRight) {
  std::vector<std::byte> bytes(sizeof parts.header);
  PutSection(bytes, parts.nodes);
  PutSection(bytes, parts.chunks);
  PutSection(bytes, parts.dirents);
  PutSection(bytes, parts.xattrs);
  const auto heap = AsBytes(parts.heap);
  bytes.insert(bytes.end(), heap.begin(), heap.end());
  TreeHeader& h = parts.header;
  if (counts == Counts::kRight) {
    h.file_bytes = bytes.size();
    h.node_count = static_cast<uint32_t>(parts.nodes.size());
    h.chunk_count = static_cast<uint32_t>(parts.chunks.size());
    h.dirent_count = static_cast<uint32_t>(parts.dirents.size());
    h.xattr_count = static_cast<uint32_t>(parts.xattrs.size());
    h.heap_bytes = parts.heap.size();
  }
  h.body_crc = Crc32c(std::span(bytes).subspan(sizeof h));
  h.header_crc = Crc32c(std::as_bytes(std::span(&h, 1)).first(offsetof(TreeHeader, header_crc)));
  std::memcpy(bytes.data(), &h, sizeof h);
  return bytes;
}

TEST(Tree, TakenApartAndPutTogetherItIsTheSame) {
  const std::vector<std::byte> good = SmallTree();
  EXPECT_EQ(Assemble(Dissect(good)), good);
}

// All checksums are right; somebody made the file so.
TEST(Tree, HostileStructuresAreRefused) {
  struct Case {
    std::string_view name;
    std::function<void(Parts&)> harm;
    Counts counts = Counts::kRight;
  };
  const Case cases[] = {
      {"other magic", [](Parts& p) { p.header.magic[0] = 'X'; }},
      {"version 0", [](Parts& p) { p.header.version = 0; }},
      {"version 2", [](Parts& p) { p.header.version = 2; }},
      {"header length", [](Parts& p) { p.header.header_bytes = 128; }},
      {"manifest algorithm", [](Parts& p) { p.header.manifest_algorithm = 3; }},
      {"no nodes", [](Parts& p) { p.nodes.clear(); }},
      {"node count over the file", [](Parts& p) { p.header.node_count = 0xFFFFFFFF; },
       Counts::kAsGiven},
      {"counts whose sum wraps",
       [](Parts& p) {
         p.header.node_count = p.header.chunk_count = p.header.dirent_count = 0xFFFFFFFF;
         p.header.heap_bytes = uint64_t{0} - 1000;
       },
       Counts::kAsGiven},
      {"heap over the file", [](Parts& p) { p.header.heap_bytes = uint64_t{1} << 63; },
       Counts::kAsGiven},
      {"content size", [](Parts& p) { ++p.header.content_bytes; }},
      {"root is a file", [](Parts& p) { p.nodes[0].type = 1; }},
      {"root is a link", [](Parts& p) { p.nodes[0].type = 3; }},
      {"root has a parent", [](Parts& p) { p.nodes[0].parent = 2; }},
      {"type 0", [](Parts& p) { p.Node("dev").type = 0; }},
      {"type 7", [](Parts& p) { p.Node("dev").type = 7; }},
      {"mode over 07777", [](Parts& p) { p.Node("dev").mode = 010000; }},
      {"10^9 nanoseconds", [](Parts& p) { p.Node("dev").mtime_nsec = 1'000'000'000; }},
      {"no links", [](Parts& p) { p.Node("dev").link_count = 0; }},
      {"size 2^63", [](Parts& p) { p.Node("dev").size = uint64_t{1} << 63; }},
      {"entries out of range", [](Parts& p) { p.nodes[0].first = 0xFFFFFFFF; }},
      {"entry count out of range", [](Parts& p) { p.nodes[0].count = 0xFFFFFFFF; }},
      {"one entry too many",
       [](Parts& p) { p.nodes[0].count = static_cast<uint32_t>(p.dirents.size() + 1); }},
      {"entry of a node that is not there", [](Parts& p) { p.Name("dev").node = 8; }},
      {"entry of the root", [](Parts& p) { p.Name("d").node = 0; }},
      {"directory in two places", [](Parts& p) { p.Name("e").node = p.Name("d").node; }},
      {"directory that is its own child",
       [](Parts& p) {
         const uint32_t e = p.Name("e").node;
         p.nodes[e].parent = e;
         p.nodes[e].first = static_cast<uint32_t>(&p.Name("e") - p.dirents.data());
         p.nodes[e].count = 1;
       }},
      {"directories that hold each other",
       [](Parts& p) {
         const uint32_t d = p.Name("d").node;
         const uint32_t e = p.Name("e").node;
         p.Name("d").node = p.Name("dev").node;
         p.nodes[d].parent = e;
         p.nodes[e].first = static_cast<uint32_t>(p.dirents.size());
         p.nodes[e].count = 1;
         TreeDirent back = p.Name("big");
         back.node = d;
         p.dirents.push_back(back);
       }},
      {"directory without a name", [](Parts& p) { p.Name("d").node = p.Name("dev").node; }},
      {"parent that is not there", [](Parts& p) { p.Node("e").parent = 100; }},
      {"other parent", [](Parts& p) { p.Node("e").parent = 0; }},
      {"empty name", [](Parts& p) { p.Name("dev").name_length = 0; }},
      {"name of 256 bytes",
       [](Parts& p) {
         p.Name("link").name_offset = static_cast<uint32_t>(p.heap.size());
         p.heap += std::string(256, 'x');
         p.dirents[4].name_length = 256;
       }},
      {"name outside the heap", [](Parts& p) { p.Name("dev").name_offset = 0xFFFFFFFF; }},
      {"name that ends outside the heap",
       [](Parts& p) { p.Name("dev").name_offset = static_cast<uint32_t>(p.heap.size() - 2); }},
      {"name with a slash", [](Parts& p) { p.heap[p.Name("dev").name_offset + 1] = '/'; }},
      {"name with a NUL", [](Parts& p) { p.heap[p.Name("dev").name_offset + 1] = '\0'; }},
      {"name .", [](Parts& p) { p.heap[p.Name("e").name_offset] = '.'; }},
      {"name ..",
       [](Parts& p) {
         p.Name("big").name_length = 2;
         p.heap[p.dirents[0].name_offset] = p.heap[p.dirents[0].name_offset + 1] = '.';
       }},
      {"names not sorted", [](Parts& p) { p.heap[p.Name("big").name_offset] = 'z'; }},
      {"name twice", [](Parts& p) { p.Name("f").name_offset = p.Name("e").name_offset; }},
      {"empty link target", [](Parts& p) { p.Node("link").count = 0, p.Node("link").size = 0; }},
      {"link target of 4096 bytes",
       [](Parts& p) {
         p.Node("link").first = static_cast<uint32_t>(p.heap.size());
         p.Node("link").count = 4096;
         p.Node("link").size = 4096;
         p.heap += std::string(4096, 'x');
       }},
      {"link target outside the heap", [](Parts& p) { p.Node("link").first = 0xFFFFFFF0; }},
      {"link size", [](Parts& p) { p.Node("link").size = 4; }},
      {"xattrs out of range", [](Parts& p) { p.Node("f").first_xattr = 3; }},
      {"xattr count out of range", [](Parts& p) { p.Node("f").xattr_count = 0xFFFFFFFF; }},
      {"xattr name outside the heap", [](Parts& p) { p.xattrs[0].name_offset = 0xFFFFFFFF; }},
      {"xattr value outside the heap", [](Parts& p) { p.xattrs[0].value_length = 0xFFFFFFFF; }},
      {"chunks out of range", [](Parts& p) { p.Node("f").first = 5; }},
      {"chunk count out of range", [](Parts& p) { p.Node("f").count = 0xFFFFFFFF; }},
      {"too few chunks", [](Parts& p) { p.Node("big").count = 2; }},
      {"content without chunks", [](Parts& p) { p.Node("f").count = 0; }},
      {"chunk of no bytes", [](Parts& p) { p.chunks[1].length = 0; }},
      {"gap between chunks", [](Parts& p) { ++p.chunks[1].file_offset; }},
      {"chunks that overlap", [](Parts& p) { --p.chunks[1].file_offset; }},
      {"chunk beyond the size", [](Parts& p) { p.chunks[2].length += 1; }},
      {"chunk whose end wraps", [](Parts& p) { p.chunks[2].length = UINT64_MAX - 10; }},
      {"chunk of 1 TiB that is no hole", [](Parts& p) { p.chunks[2].flags = 0; }},
  };
  for (const Case& c : cases) {
    Parts parts = Dissect(SmallTree());
    c.harm(parts);
    EXPECT_THAT(Tree::FromBytes(Assemble(std::move(parts), c.counts)),
                FailsWith(ErrorCode::kIndexDamaged))
        << c.name;
  }
}

TEST(TreeDeathTest, AnIndexMadeUpAborts) {
  const std::unique_ptr<const Tree> tree = Must(Tree::FromBytes(SmallTree()));
  EXPECT_DEATH(tree->Attributes(8), "");
  EXPECT_DEATH(tree->ChildAt(0, 5), "");
  EXPECT_DEATH(tree->ChildCount(1), "");
  EXPECT_DEATH(tree->LinkTarget(0), "");
  EXPECT_DEATH(tree->ChunkByNumber(4), "");
}

}  // namespace
}  // namespace ocifs::store
