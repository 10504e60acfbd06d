#include <dirent.h>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class ReadDirTest : public Mounted {};

TEST_F(ReadDirTest, ListsEachLevel) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().AddImage("reg.example/app/web:2.0", {SmallTar()});
  Mount();
  EXPECT_EQ(List(""), std::vector<std::string>{});
  EXPECT_EQ(List("reg.example/app/web"), (std::vector<std::string>{"1.0", "2.0"}));
  EXPECT_EQ(List("reg.example/app/web/1.0"), (std::vector<std::string>{"dir", "greeting", "link"}));
  EXPECT_EQ(List("reg.example/app/web/1.0/dir"), std::vector<std::string>{"inner"});
  EXPECT_TRUE(Eventually([&] { return List("") == std::vector<std::string>{"reg.example"}; }));
  EXPECT_EQ(List("reg.example"), std::vector<std::string>{"app"});
}

TEST_F(ReadDirTest, ManyEntriesEachOnce) {
  TarWriter tar;
  std::vector<std::string> expected;
  for (int i = 0; i < 20000; ++i) {
    expected.push_back("file-with-a-rather-long-name-" + std::to_string(i));
    tar.File(expected.back(), "");
  }
  tar.End();
  std::sort(expected.begin(), expected.end());
  source().AddImage("reg.example/app/many:1.0", {tar.bytes()});
  Mount();
  EXPECT_EQ(List("reg.example/app/many/1.0"), expected);
  EXPECT_EQ(List("reg.example/app/many/1.0"), expected) << "from the kernel's cache";
}

TEST_F(ReadDirTest, TenThousandTagsCostOneList) {
  std::vector<std::string> expected;
  for (int i = 0; i < 10000; ++i) {
    expected.push_back("1.0." + std::to_string(i));
    source().AddListedTag("reg.example/app/web:" + expected.back());
  }
  std::sort(expected.begin(), expected.end());
  Mount();
  EXPECT_EQ(List("reg.example/app/web"), expected);
  // As ls -l does: no manifest is asked for.
  for (const std::string& name : expected) ASSERT_EQ(StatErrno("reg.example/app/web/" + name), 0);
  EXPECT_EQ(source().count(Call::kTags), 1u);
  EXPECT_EQ(source().count(Call::kManifest), 0u);
}

TEST_F(ReadDirTest, AWalkNeedsNoLookups) {
  TarWriter tar;
  for (int i = 0; i < 500; ++i) tar.File("d/f" + std::to_string(i), "x");
  tar.End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  Mount();
  EXPECT_EQ(List("reg.example/app/web/1.0/d").size(), 500u);
  const RequestCounts before = session().counts();
  for (int i = 0; i < 500; ++i) {
    ASSERT_EQ(StatErrno("reg.example/app/web/1.0/d/f" + std::to_string(i)), 0);
  }
  EXPECT_EQ(session().counts().of(Operation::kLookup), before.of(Operation::kLookup));
  // One for the root, whose attributes became known when it was opened.
  EXPECT_LE(session().counts().of(Operation::kGetAttributes),
            before.of(Operation::kGetAttributes) + 1);
}

TEST_F(ReadDirTest, AWarmListingMakesNoRequest) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  // The kernel is told once, whenever it gets to it, that the root's own attributes are known.
  EXPECT_TRUE(Eventually([&] {
    const uint64_t before = session().counts().of(Operation::kReadDirectory);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(List("reg.example/app/web/1.0").size(), 3u);
    return session().counts().of(Operation::kReadDirectory) == before;
  }));
}

TEST_F(ReadDirTest, ANewTagAppearsWhenTheListIsOld) {
  world().pull_options.tag_list_ttl = std::chrono::seconds(0);
  world().fs_options.directory_timeout = std::chrono::seconds(0);
  source().AddListedTag("reg.example/app/web:1.0");
  Mount();
  EXPECT_EQ(List("reg.example/app/web"), std::vector<std::string>{"1.0"});
  source().AddListedTag("reg.example/app/web:2.0");
  EXPECT_TRUE(Eventually([&] {
    return List("reg.example/app/web") == std::vector<std::string>{"1.0", "2.0"};
  })) << "the kernel keeps an old listing";
}

TEST_F(ReadDirTest, WhatIsFoundAppearsInListingsThatTheKernelKeeps) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().AddImage("reg.example/tool:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  EXPECT_EQ(List("reg.example"), std::vector<std::string>{"app"});
  EXPECT_EQ(Read("reg.example/tool/1.0/greeting"), "hello\n");
  EXPECT_TRUE(
      Eventually([&] { return List("reg.example") == std::vector<std::string>{"app", "tool"}; }));
}

TEST_F(ReadDirTest, PositionsCanBeReturnedTo) {
  for (int i = 0; i < 200; ++i) source().AddListedTag("reg.example/app/web:t" + std::to_string(i));
  Mount();
  DIR* directory = opendir(At("reg.example/app/web").c_str());
  ASSERT_NE(directory, nullptr);
  for (int i = 0; i < 100; ++i) ASSERT_NE(readdir(directory), nullptr);
  const long position = telldir(directory);
  const dirent* next = readdir(directory);
  ASSERT_NE(next, nullptr);
  const std::string name = next->d_name;
  while (readdir(directory) != nullptr) {
  }
  seekdir(directory, position);
  next = readdir(directory);
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(std::string(next->d_name), name);
  closedir(directory);
}

TEST_F(ReadDirTest, EntriesHaveTypesAndNumbers) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  DIR* directory = opendir(At("reg.example/app/web/1.0").c_str());
  ASSERT_NE(directory, nullptr);
  std::map<std::string, std::pair<int, ino_t>> seen;
  while (const dirent* entry = readdir(directory)) {
    seen[entry->d_name] = {entry->d_type, entry->d_ino};
  }
  closedir(directory);
  EXPECT_EQ(seen["greeting"].first, DT_REG);
  EXPECT_EQ(seen["dir"].first, DT_DIR);
  EXPECT_EQ(seen["link"].first, DT_LNK);
  EXPECT_EQ(seen["greeting"].second, Stat("reg.example/app/web/1.0/greeting").st_ino);
  EXPECT_EQ(seen["."].second, Stat("reg.example/app/web/1.0").st_ino);
  EXPECT_EQ(seen[".."].second, Stat("reg.example/app/web").st_ino);
}

}  // namespace
}  // namespace ocifs::fs::testing
