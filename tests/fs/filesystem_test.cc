#include "fs/filesystem.h"

#include <gtest/gtest.h>

#include "store/text.h"
#include "tests/fs/world.h"

namespace ocifs::fs::testing {
namespace {

using store::ErrorCode;
using store::NodeType;

class FilesystemTest : public ::testing::Test {
 protected:
  harness::ScriptedSource& source() { return world.source; }
  Attributes AttributesOf(std::string_view path) {
    return Must(world.fs->GetAttributes(world.InodeOf(path), {})).attributes;
  }
  std::vector<std::string> XattrNames(std::string_view path) {
    return Must(world.fs->ListXattrs(world.InodeOf(path), {}));
  }
  World world;
};

std::string ImageTar() {
  TarWriter tar;
  TarFields root;
  root.name = "./";
  root.type = '5';
  root.mode = 0751;
  root.uid = 3;
  root.gid = 4;
  root.mtime = 1'600'000'000;
  tar.Header(root);
  TarFields file;
  file.name = "setuid";
  file.mode = 04755;
  file.uid = 1000;
  file.gid = 1001;
  file.size = 5;
  file.mtime = 1'650'000'000;
  tar.Pax({{"mtime", "1650000000.123456789"},
           {"SCHILY.xattr.user.note", "keep"},
           {"SCHILY.xattr.user.overlay.opaque", "y"},
           {"SCHILY.xattr.user.oci.digest", "forged"}});
  tar.Header(file).Content("12345");
  tar.HardLink("second", "setuid");
  tar.Symlink("link", "dir/inner").Directory("dir/").File("dir/inner", "inside\n");
  TarFields device;
  device.name = "null";
  device.type = '3';
  device.device_major = 1;
  device.device_minor = 3;
  tar.Header(device);
  device.name = "whiteout-like";
  device.device_major = 0;
  device.device_minor = 0;
  tar.Header(device);
  TarFields pipe;
  pipe.name = "pipe";
  pipe.type = '6';
  tar.Header(pipe).End();
  return tar.bytes();
}

// --- Attributes ---

TEST_F(FilesystemTest, AttributesAreThoseOfTheArchive) {
  source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  world.Start();
  const Attributes file = AttributesOf("reg.example/app/web/1.0/setuid");
  EXPECT_EQ(file.node.type, NodeType::kRegular);
  EXPECT_EQ(file.node.mode, 04755u);
  EXPECT_EQ(file.node.uid, 1000u);
  EXPECT_EQ(file.node.gid, 1001u);
  EXPECT_EQ(file.node.size, 5u);
  EXPECT_EQ(file.node.mtime_sec, 1'650'000'000);
  EXPECT_EQ(file.node.mtime_nsec, 123'456'789u);
  EXPECT_EQ(file.link_count, 2u);
  EXPECT_EQ(AttributesOf("reg.example/app/web/1.0/second").inode, file.inode) << "a hard link";
  const Attributes link = AttributesOf("reg.example/app/web/1.0/link");
  EXPECT_EQ(link.node.type, NodeType::kSymlink);
  EXPECT_EQ(link.node.size, 9u);
  EXPECT_EQ(Must(world.fs->ReadLink(link.inode, {})), "dir/inner");
  const Attributes root = AttributesOf("reg.example/app/web/1.0");
  EXPECT_EQ(root.node.mode, 0751u);
  EXPECT_EQ(root.node.uid, 3u);
  EXPECT_EQ(root.node.mtime_sec, 1'600'000'000);
  EXPECT_EQ(root.link_count, 3u) << "2 + one subdirectory";
}

TEST_F(FilesystemTest, AnOwnerIsShownForEverything) {
  source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  world.fs_options.owner = Filesystem::Owner{1234, 5678};
  world.Start();
  for (const char* path :
       {"", "reg.example", "reg.example/app/web", "reg.example/app/web/1.0",
        "reg.example/app/web/1.0/setuid", "reg.example/app/web/1.0/.oci/manifest.json"}) {
    EXPECT_EQ(AttributesOf(path).node.uid, 1234u) << path;
    EXPECT_EQ(AttributesOf(path).node.gid, 5678u) << path;
  }
}

TEST_F(FilesystemTest, DirectoriesOutsideOfPackagesAreReadOnlyAndDoNotCountLinks) {
  source().AddRegistry("reg.example");
  world.Start();
  for (const char* path : {"", "reg.example", "reg.example/app"}) {
    const Attributes attributes = AttributesOf(path);
    EXPECT_EQ(attributes.node.type, NodeType::kDirectory);
    EXPECT_EQ(attributes.node.mode, 0555u);
    EXPECT_EQ(attributes.link_count, 1u);
    EXPECT_GT(attributes.node.mtime_sec, 1'500'000'000);
  }
}

TEST_F(FilesystemTest, NodesOfImagesThatAreNoFilesAreShownButNeverAWhiteout) {
  source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  world.Start();
  const Attributes device = AttributesOf("reg.example/app/web/1.0/null");
  EXPECT_EQ(device.node.type, NodeType::kCharDevice);
  EXPECT_EQ(device.node.device_major, 1u);
  EXPECT_EQ(device.node.device_minor, 3u);
  EXPECT_EQ(AttributesOf("reg.example/app/web/1.0/pipe").node.type, NodeType::kFifo);
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/1.0/whiteout-like"), ErrorCode::kNotFound);
  EXPECT_EQ(world.Names("reg.example/app/web/1.0"),
            (std::vector<std::string>{"dir", "link", "null", "pipe", "second", "setuid"}));
}

TEST_F(FilesystemTest, ArtifactsHaveNoDevices) {
  source().AddArtifact(
      "reg.example/app/art:1.0",
      {{.title = "tree.tar", .media_type = "application/x-tar", .content = ImageTar()}});
  world.Start();
  EXPECT_EQ(world.Names("reg.example/app/art/1.0"),
            (std::vector<std::string>{"dir", "link", "second", "setuid"}));
  EXPECT_EQ(world.ErrorOf("reg.example/app/art/1.0/pipe"), ErrorCode::kNotFound);
}

TEST_F(FilesystemTest, NumbersThatNobodyGaveOutAreNotFound) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber root = world.InodeOf("reg.example/app/web/1.0");
  (void)world.InodeOf("reg.example/app/web/1.0/greeting");
  for (const uint64_t value :
       {uint64_t{0}, uint64_t{2}, uint64_t{77} << 32, InodeNumber::Of(1, 5).value(),
        InodeNumber::Of(root.slot(), 1000).value(),
        InodeNumber::Of(root.slot(), 0x80000099).value(), ~uint64_t{0}}) {
    const InodeNumber inode = InodeNumber::FromValue(value);
    CollectingSink sink;
    std::byte byte{};
    EXPECT_EQ(world.fs->GetAttributes(inode, {}).error().code, ErrorCode::kNotFound) << value;
    EXPECT_EQ(world.fs->Lookup(inode, "x", {}).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(world.fs->ReadDirectory(inode, 0, sink, {}).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(world.fs->Read(inode, 0, {&byte, 1}, {}).error().code,
              inode.slot() == 1 ? ErrorCode::kNotFound : ErrorCode::kNotFound);
    EXPECT_FALSE(world.fs->ReadLink(inode, {}));
    EXPECT_FALSE(world.fs->GetXattr(inode, "user.x", {}));
    EXPECT_FALSE(world.fs->ListXattrs(inode, {}));
  }
}

TEST_F(FilesystemTest, OperationsOnTheWrongTypeFail) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber file = world.InodeOf("reg.example/app/web/1.0/greeting");
  const InodeNumber directory = world.InodeOf("reg.example/app/web/1.0/dir");
  CollectingSink sink;
  std::byte byte{};
  EXPECT_FALSE(world.fs->ReadDirectory(file, 0, sink, {}));
  EXPECT_FALSE(world.fs->Lookup(file, "x", {}));
  EXPECT_FALSE(world.fs->ReadLink(file, {}));
  EXPECT_FALSE(world.fs->Read(directory, 0, {&byte, 1}, {}));
  EXPECT_FALSE(world.fs->Read(world.InodeOf("reg.example"), 0, {&byte, 1}, {}));
}

// --- Timeouts ---

TEST_F(FilesystemTest, WhatIsInsideAPackageNeverExpires) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber root = world.InodeOf("reg.example/app/web/1.0");
  const LookupReply file = Must(world.LookupAt(root, "greeting"));
  EXPECT_EQ(file.entry_timeout, kForever);
  EXPECT_EQ(file.attribute_timeout, kForever);
  const LookupReply missing = Must(world.LookupAt(root, "missing"));
  EXPECT_FALSE(missing.attributes);
  EXPECT_EQ(missing.entry_timeout, kForever);
  EXPECT_EQ(Must(world.fs->GetAttributes(root, {})).timeout, kForever);
}

TEST_F(FilesystemTest, WhatIsOutsideExpiresSoon) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const LookupReply registry = Must(world.LookupAt(InodeNumber::MountPoint(), "reg.example"));
  EXPECT_EQ(registry.entry_timeout, world.fs_options.directory_timeout);
  EXPECT_EQ(registry.attribute_timeout, world.fs_options.directory_timeout);
  const LookupReply missing =
      Must(world.LookupAt(world.InodeOf("reg.example/app/web"), "missing.txt"));
  EXPECT_FALSE(missing.attributes);
  EXPECT_EQ(missing.entry_timeout, world.fs_options.negative_timeout);
}

TEST_F(FilesystemTest, WhoAsksWhatARootIsIsToldTheTruth) {
  source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  world.Start();
  const LookupReply found = Must(world.LookupAt(world.InodeOf("reg.example/app/web"), "1.0"));
  EXPECT_EQ(found.attribute_timeout, std::chrono::seconds(0)) << "a lookup does not say what for";
  EXPECT_EQ(source().count(Call::kBlob), 0u);
  const AttributeReply root = Must(world.fs->GetAttributes(found.attributes->inode, {}));
  EXPECT_EQ(root.attributes.node.mode, 0751u);
  EXPECT_EQ(root.timeout, kForever);
}

TEST_F(FilesystemTest, WhoListsTagsAndLooksAtEachPullsNone) {
  for (int i = 0; i < 5; ++i) {
    source().AddImage("reg.example/app/web:" + std::to_string(i), {ImageTar()});
  }
  world.Start();
  const InodeNumber repository = world.InodeOf("reg.example/app/web");
  (void)Must(world.NamesIn(repository));
  for (int i = 0; i < 5; ++i) {
    const LookupReply tag = Must(world.LookupAt(repository, std::to_string(i)));
    EXPECT_EQ(tag.attribute_timeout, world.fs_options.unopened_timeout);
    const AttributeReply root = Must(world.fs->GetAttributes(tag.attributes->inode, {}));
    EXPECT_EQ(root.attributes.node.mode, 0555u);
    EXPECT_EQ(root.timeout, world.fs_options.unopened_timeout);
  }
  EXPECT_EQ(source().count(Call::kBlob), 0u);
  // The first look inside shows the truth, and the kernel is told.
  const InodeNumber root = Must(world.LookupAt(repository, "0")).attributes->inode;
  (void)Must(world.NamesIn(root));
  const std::vector<uint64_t> told = world.notifier.inodes();
  EXPECT_NE(std::find(told.begin(), told.end(), root.value()), told.end());
  EXPECT_EQ(Must(world.fs->GetAttributes(root, {})).attributes.node.mode, 0751u);
}

TEST_F(FilesystemTest, ARootThatCannotBeOpenedIsADirectoryWithAReason) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  source().Damage(source().LayerOf(digest, 0));
  world.Start();
  const InodeNumber root = world.InodeOf("reg.example/app/web:1.0");
  const AttributeReply shown = Must(world.fs->GetAttributes(root, {}));
  EXPECT_EQ(shown.attributes.node.mode, 0555u);
  EXPECT_NE(world.Xattr("reg.example/app/web:1.0", "user.oci.error").value_or(""), "");
  const size_t tries = source().count(Call::kBlob);
  (void)Must(world.fs->GetAttributes(root, {}));
  EXPECT_EQ(source().count(Call::kBlob), tries) << "not tried again at each look";
}

TEST_F(FilesystemTest, RootsOfPackagesInTheStoreShowTheirOwnAttributesAtOnce) {
  source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  world.Start();
  (void)world.InodeOf("reg.example/app/web/1.0/setuid");
  world.Restart();
  const LookupReply root = Must(world.LookupAt(world.InodeOf("reg.example/app/web"), "1.0"));
  EXPECT_EQ(root.attributes->node.mode, 0751u);
  EXPECT_EQ(root.attribute_timeout, kForever);
}

// --- Listings ---

TEST_F(FilesystemTest, ListingsStartWithTheDotsAndCanBeReadInPieces) {
  TarWriter tar;
  for (int i = 0; i < 100; ++i) tar.File("f" + std::to_string(i), "x");
  tar.End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  for (int i = 0; i < 300; ++i) source().AddListedTag("reg.example/app/web:t" + std::to_string(i));
  world.Start();
  for (const auto& [path, expected] :
       {std::pair<std::string, size_t>{"reg.example/app/web/1.0", 100},
        {"reg.example/app/web", 301},
        {"reg.example/app/web/1.0/.oci", 4}}) {
    const InodeNumber inode = world.InodeOf(path);
    for (const size_t capacity : {size_t{1}, size_t{7}, size_t{1000}}) {
      std::vector<std::string> names;
      uint64_t cookie = 0;
      while (true) {
        CollectingSink sink(capacity);
        ASSERT_TRUE(world.fs->ReadDirectory(inode, cookie, sink, {}));
        if (sink.entries.empty()) break;
        for (const auto& entry : sink.entries) {
          EXPECT_NE(entry.cookie, 0u);
          EXPECT_GT(entry.cookie, cookie) << "cookies grow";
          EXPECT_LT(entry.cookie, uint64_t{1} << 63) << "an off_t";
          EXPECT_NE(entry.inode, 0u);
          cookie = entry.cookie;
          names.push_back(entry.name);
        }
      }
      ASSERT_EQ(names.size(), expected + 2) << path << " by " << capacity;
      EXPECT_EQ(names[0], ".");
      EXPECT_EQ(names[1], "..");
      std::sort(names.begin(), names.end());
      EXPECT_EQ(std::unique(names.begin(), names.end()), names.end()) << "a name came twice";
    }
  }
}

TEST_F(FilesystemTest, DotsLeadWhereTheyShould) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  auto dots = [&](std::string_view path) {
    CollectingSink sink(2);
    EXPECT_TRUE(world.fs->ReadDirectory(world.InodeOf(path), 0, sink, {}));
    return std::pair(sink.entries[0].inode, sink.entries[1].inode);
  };
  auto inode = [&](std::string_view path) { return world.InodeOf(path).value(); };
  for (const auto& [path, parent] :
       {std::pair<std::string, std::string>{"reg.example/app/web/1.0/dir",
                                            "reg.example/app/web/1.0"},
        {"reg.example/app/web/1.0", "reg.example/app/web"},
        {"reg.example/app/web/1.0/.oci", "reg.example/app/web/1.0"},
        {"reg.example/app/web/1.0/.oci/blobs", "reg.example/app/web/1.0/.oci"},
        {"reg.example/app/web", "reg.example/app"},
        {"reg.example", ""}}) {
    EXPECT_EQ(dots(path), std::pair(inode(path), inode(parent))) << path;
  }
}

TEST_F(FilesystemTest, AListingThatChangesBetweenTwoPiecesLosesAndRepeatsNothing) {
  for (int i = 0; i < 200; ++i) source().AddListedTag("reg.example/app/web:t" + std::to_string(i));
  world.Start();
  const InodeNumber inode = world.InodeOf("reg.example/app/web");
  CollectingSink first(50);
  ASSERT_TRUE(world.fs->ReadDirectory(inode, 0, first, {}));
  // The list grows, and the daemon forgets what it had listed: it starts anew.
  for (int i = 200; i < 300; ++i)
    source().AddListedTag("reg.example/app/web:t" + std::to_string(i));
  world.Restart();
  world.clock += 100'000;
  CollectingSink rest;
  ASSERT_TRUE(world.fs->ReadDirectory(inode, first.entries.back().cookie, rest, {}));
  std::map<std::string, int> seen;
  for (const auto& entry : first.entries) ++seen[entry.name];
  for (const auto& entry : rest.entries) ++seen[entry.name];
  for (int i = 0; i < 200; ++i) EXPECT_EQ(seen["t" + std::to_string(i)], 1) << i;
  for (const auto& [name, count] : seen) EXPECT_EQ(count, 1) << name;
}

TEST_F(FilesystemTest, ListingARepositoryResolvesNoTag) {
  for (int i = 0; i < 1000; ++i) source().AddListedTag("reg.example/app/web:t" + std::to_string(i));
  world.Start();
  CollectingSink sink(SIZE_MAX, true);
  ASSERT_TRUE(world.fs->ReadDirectory(world.InodeOf("reg.example/app/web"), 0, sink, {}));
  EXPECT_EQ(sink.entries.size(), 1002u);
  for (const auto& entry : sink.entries) {
    EXPECT_EQ(entry.type, NodeType::kDirectory);
    EXPECT_FALSE(entry.has_attributes) << entry.name;
  }
  EXPECT_EQ(source().count(Call::kManifest), 0u);
  EXPECT_EQ(source().count(Call::kTags), 1u);
}

TEST_F(FilesystemTest, EntriesOfAPackageComeWithTheirAttributes) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  CollectingSink sink(SIZE_MAX, true);
  ASSERT_TRUE(world.fs->ReadDirectory(world.InodeOf("reg.example/app/web/1.0"), 0, sink, {}));
  for (const auto& entry : sink.entries) {
    EXPECT_EQ(entry.has_attributes, entry.name != "." && entry.name != "..") << entry.name;
  }
}

TEST_F(FilesystemTest, ADirectorysTimeMovesWhenItsListingMayHaveChanged) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber registry = world.InodeOf("reg.example");
  auto time = [&] {
    const store::NodeAttributes node = Must(world.fs->GetAttributes(registry, {})).attributes.node;
    return std::pair(node.mtime_sec, node.mtime_nsec);
  };
  EXPECT_EQ(Must(world.NamesIn(registry)), std::vector<std::string>{});
  const auto before = time();
  EXPECT_EQ(time(), before) << "nothing changed";
  (void)world.InodeOf("reg.example/app/web");  // proves app
  EXPECT_NE(time(), before);
  const std::vector<uint64_t> told = world.notifier.inodes();
  EXPECT_NE(std::find(told.begin(), told.end(), registry.value()), told.end());
  EXPECT_EQ(Must(world.NamesIn(registry)), std::vector<std::string>{"app"});
}

TEST_F(FilesystemTest, ATagListThatGotOldIsLookedAtAgain) {
  world.pull_options.tag_list_ttl = std::chrono::seconds(0);
  source().AddListedTag("reg.example/app/web:1.0");
  world.Start();
  const InodeNumber inode = world.InodeOf("reg.example/app/web");
  EXPECT_EQ(Must(world.NamesIn(inode)), std::vector<std::string>{"1.0"});
  const auto before = Must(world.fs->GetAttributes(inode, {})).attributes.node;
  source().AddListedTag("reg.example/app/web:2.0");
  EXPECT_EQ(Must(world.NamesIn(inode)), (std::vector<std::string>{"1.0", "2.0"}));
  const auto after = Must(world.fs->GetAttributes(inode, {})).attributes.node;
  EXPECT_TRUE(after.mtime_sec != before.mtime_sec || after.mtime_nsec != before.mtime_nsec);
}

// --- Content ---

TEST_F(FilesystemTest, ReadsExactlyWhatThereIs) {
  const std::string content = Noise(5 << 20);
  TarWriter tar;
  tar.File("big", content).End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  world.Start();
  const InodeNumber file = world.InodeOf("reg.example/app/web/1.0/big");
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{1}, uint64_t{4 << 20} - 1, uint64_t{5 << 20} - 1, uint64_t{5 << 20},
        uint64_t{6 << 20}, ~uint64_t{0} >> 1}) {
    std::string buffer(3 << 20, '?');
    const size_t count =
        Must(world.fs->Read(file, offset, std::as_writable_bytes(std::span(buffer)), {}));
    const std::string expected =
        offset < content.size() ? content.substr(offset, buffer.size()) : std::string();
    ASSERT_EQ(count, expected.size()) << offset;
    EXPECT_EQ(buffer.substr(0, count), expected) << offset;
  }
}

TEST_F(FilesystemTest, ReadersWhoMayNotWaitAreToldSo) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber root = world.InodeOf("reg.example/app/web/1.0");
  CollectingSink sink;
  EXPECT_EQ(world.fs->Lookup(root, "greeting", World::Never()).error().code,
            ErrorCode::kWouldBlock);
  EXPECT_EQ(world.fs->ReadDirectory(root, 0, sink, World::Never()).error().code,
            ErrorCode::kWouldBlock);
  EXPECT_EQ(world.fs->GetAttributes(root, World::Never()).error().code, ErrorCode::kWouldBlock);
  EXPECT_EQ(source().count(Call::kBlob), 0u);
  const InodeNumber file = world.InodeOf("reg.example/app/web/1.0/greeting");
  std::byte byte{};
  EXPECT_TRUE(world.fs->Read(file, 0, {&byte, 1}, World::Never()));
}

// --- The view of what the registry holds ---

TEST_F(FilesystemTest, TheOciDirectoryIsThereButNotListed) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const std::vector<std::string> names = world.Names("reg.example/app/web/1.0");
  EXPECT_EQ(std::count(names.begin(), names.end(), ".oci"), 0);
  EXPECT_TRUE(world.Exists("reg.example/app/web/1.0/.oci"));
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/1.0/dir/.oci"), ErrorCode::kNotFound);
  EXPECT_EQ(world.Names("reg.example/app/web/1.0/.oci"),
            (std::vector<std::string>{"annotations", "blobs", "config.json", "manifest.json"}));
}

TEST_F(FilesystemTest, TheOciDirectoryHoldsTheExactBytes) {
  const store::Digest manifest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  const store::Digest index = source().AddIndex("reg.example/app/web:multi", manifest);
  world.Start();
  const std::string text = world.Read("reg.example/app/web/1.0/.oci/manifest.json");
  EXPECT_EQ(store::Digest::Of(store::AsBytes(text)), manifest);
  EXPECT_NE(world.Read("reg.example/app/web/1.0/.oci/config.json").find("diff_ids"),
            std::string::npos);
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/1.0/.oci/index.json"), ErrorCode::kNotFound);
  const std::string index_text = world.Read("reg.example/app/web/multi/.oci/index.json");
  EXPECT_EQ(store::Digest::Of(store::AsBytes(index_text)), index);
  EXPECT_EQ(world.Read("reg.example/app/web/multi/.oci/manifest.json"), text);
}

TEST_F(FilesystemTest, AnnotationsAreFiles) {
  source().AddArtifact("reg.example/app/art:1.0", {{.title = "a", .content = "1"}},
                       {{"org.example.name", "hello"},
                        {"with/slash", "x"},
                        {"..", "up"},
                        {"100%", "y"},
                        {std::string(300, 'k'), "too long"}});
  world.Start();
  EXPECT_EQ(world.Names("reg.example/app/art/1.0/.oci/annotations"),
            (std::vector<std::string>{"%2E.", "100%25", "org.example.name", "with%2Fslash"}));
  EXPECT_EQ(world.Read("reg.example/app/art/1.0/.oci/annotations/org.example.name"), "hello");
  EXPECT_EQ(world.Read("reg.example/app/art/1.0/.oci/annotations/with%2Fslash"), "x");
}

TEST_F(FilesystemTest, BlobsAreNamedByTitleOrDigest) {
  const store::Digest manifest = source().AddArtifact(
      "reg.example/app/art:1.0", {{.title = "values.yaml", .content = "a: 1\n"},
                                  {.title = "values.yaml", .content = "b: 2\n"},
                                  {.title = "sub/dir", .content = "c"},
                                  {.title = "", .content = "d"}});
  world.Start();
  auto digest = [&](size_t position) { return source().LayerOf(manifest, position).ToString(); };
  std::vector<std::string> expected = {"values.yaml", digest(1), digest(2), digest(3)};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(world.Names("reg.example/app/art/1.0/.oci/blobs"), expected);
  EXPECT_EQ(world.Read("reg.example/app/art/1.0/.oci/blobs/values.yaml"), "a: 1\n");
  EXPECT_EQ(world.Read("reg.example/app/art/1.0/.oci/blobs/" + digest(1)), "b: 2\n");
  EXPECT_EQ(world.Read("reg.example/app/art/1.0/.oci/blobs/sha256+" + digest(1).substr(7)),
            "b: 2\n");
}

TEST_F(FilesystemTest, ARealOciDirectoryWins) {
  TarWriter tar;
  tar.Directory(".oci/").File(".oci/mine", "real\n").End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  world.Start();
  EXPECT_EQ(world.Names("reg.example/app/web/1.0"), std::vector<std::string>{".oci"});
  EXPECT_EQ(world.Names("reg.example/app/web/1.0/.oci"), std::vector<std::string>{"mine"});
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/.oci/mine"), "real\n");
}

// --- Extended attributes ---

TEST_F(FilesystemTest, ThePackageRootSaysWhereItComesFrom) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const std::string path = "reg.example/app/web:1.0";
  EXPECT_EQ(world.Xattr(path, "user.oci.reference"), "reg.example/app/web:1.0");
  EXPECT_EQ(world.Xattr(path, "user.oci.digest"), digest.ToString());
  EXPECT_EQ(world.Xattr(path, "user.oci.media_type"), store::media_type::kOciManifest);
  EXPECT_EQ(world.Xattr(path, "user.oci.fetched_at"), "2025-06-15T15:06:40Z");
  EXPECT_EQ(world.Xattr(path, "user.oci.expires_at"), "never");
  EXPECT_EQ(world.Xattr(path, "user.oci.cached"), "0/0");
  EXPECT_EQ(world.Xattr(path, "user.oci.source"), "cache") << "walked twice";
  EXPECT_EQ(world.Xattr(path, "user.oci.stale"), "0");
  EXPECT_EQ(source().count(Call::kBlob), 0u) << "attributes pull nothing";
  EXPECT_EQ(XattrNames(path).size(), 8u);
  for (const std::string& name : XattrNames(path)) EXPECT_TRUE(world.Xattr(path, name)) << name;

  (void)world.InodeOf(path + "/greeting");
  const std::string cached = world.Xattr(path, "user.oci.cached").value_or("");
  EXPECT_EQ(cached.substr(0, cached.find('/')), cached.substr(cached.find('/') + 1));
  EXPECT_NE(cached, "0/0");
}

TEST_F(FilesystemTest, AStaleTagSaysSo) {
  source().AddImage("reg.example/app/web:latest", {SmallTar()});
  world.Start();
  (void)world.InodeOf("reg.example/app/web/latest/greeting");
  EXPECT_EQ(world.Xattr("reg.example/app/web/latest", "user.oci.expires_at"),
            "2025-06-15T15:11:40Z");
  world.clock += 1000;
  source().FailAllWith(store::Error{ErrorCode::kUnavailable, "away"});
  EXPECT_EQ(world.Xattr("reg.example/app/web/latest", "user.oci.stale"), "1");
}

TEST_F(FilesystemTest, OnlyHarmlessAttributesOfFilesAreShown) {
  source().AddImage("reg.example/app/web:1.0", {ImageTar()});
  world.Start();
  const std::string file = "reg.example/app/web/1.0/setuid";
  EXPECT_EQ(world.Xattr(file, "user.note"), "keep");
  EXPECT_EQ(world.Xattr(file, "user.overlay.opaque"), std::nullopt);
  EXPECT_EQ(world.Xattr(file, "user.oci.digest"), std::nullopt) << "forged";
  EXPECT_EQ(world.Xattr(file, "user.absent"), std::nullopt);
  EXPECT_EQ(world.Xattr(file, "security.capability"), std::nullopt);
  EXPECT_EQ(XattrNames(file), std::vector<std::string>{"user.note"});
  EXPECT_EQ(XattrNames("reg.example/app/web"), std::vector<std::string>{});
}

TEST_F(FilesystemTest, TheLastFailureOfAPathIsAnAttribute) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().Damage(source().LayerOf(digest, 0));
  world.Start();
  const InodeNumber root = world.InodeOf("reg.example/app/web/1.0");
  EXPECT_EQ(Must(world.fs->GetXattr(root, "user.oci.error", {})), std::nullopt);
  const auto names = world.NamesIn(root);
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, ErrorCode::kCorrupt);
  const std::optional<std::string> error = Must(world.fs->GetXattr(root, "user.oci.error", {}));
  ASSERT_TRUE(error);
  EXPECT_TRUE(error->starts_with("corrupt: ")) << *error;
  const std::vector<std::string> listed = Must(world.fs->ListXattrs(root, {}));
  EXPECT_EQ(std::count(listed.begin(), listed.end(), "user.oci.error"), 1);
}

TEST_F(FilesystemTest, AFailedLookupIsTheParentsLastFailure) {
  source().AddRegistry("reg.example");
  world.Start();
  const InodeNumber parent = world.InodeOf("reg.example/app");
  source().FailAllWith(store::Error{ErrorCode::kTimedOut, "reg.example said nothing for 30 s"});
  EXPECT_FALSE(world.LookupAt(parent, "web"));
  EXPECT_EQ(Must(world.fs->GetXattr(parent, "user.oci.error", {})),
            "timed-out: reg.example said nothing for 30 s");
  EXPECT_FALSE(Must(world.fs->GetXattr(world.InodeOf("reg.example"), "user.oci.error", {})));
}

// --- Statistics ---

TEST_F(FilesystemTest, StatisticsAreThoseOfTheStore) {
  TarWriter tar;
  tar.File("big", Noise(3 << 20)).End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  world.Start();
  const FilesystemStats stats = Must(world.fs->Stats());
  EXPECT_EQ(stats.max_name_bytes, 255u);
  EXPECT_GT(stats.free_blocks, 0u);
  EXPECT_GE(stats.blocks, stats.free_blocks);
}

// --- Damage ---

TEST_F(FilesystemTest, ADamagedBlobIsRefusedAndAHealthyOneWorksAfterwards) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().Damage(source().LayerOf(digest, 0));
  world.Start();
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/1.0/greeting"), ErrorCode::kCorrupt);
  source().Damage(source().LayerOf(digest, 0));  // twice is whole again
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/greeting"), "hello\n");
}

}  // namespace
}  // namespace ocifs::fs::testing
