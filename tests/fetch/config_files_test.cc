#include "fetch/config_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using ocifs::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FileTraceTest, ReadsRegularFilesWithinBounds) {
  const TempDir dir;
  FileTrace trace;
  EXPECT_EQ(**trace.Read(dir.Write("a", "text")), "text");
  EXPECT_EQ(**trace.Read(dir.Write("empty", "")), "");
  EXPECT_EQ(*trace.Read(dir / "missing"), std::nullopt);
  EXPECT_EQ(*trace.Read(dir / "a/below-a-file"), std::nullopt);
  EXPECT_TRUE(trace.Read(dir.Write("full", std::string(FileTrace::kMaxFileBytes, 'x'))));
  const auto large = trace.Read(dir.Write("large", std::string(FileTrace::kMaxFileBytes + 1, 'x')));
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, store::ErrorCode::kInvalid);
  EXPECT_THAT(large.error().message, HasSubstr(dir / "large"));
}

TEST(FileTraceTest, WhatIsNoRegularFileIsRefusedAtOnce) {
  const TempDir dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  for (const std::string& path : {dir / "fifo", dir.path()}) {
    FileTrace trace;
    const auto text = trace.Read(path);
    ASSERT_FALSE(text) << path;
    EXPECT_EQ(text.error().code, store::ErrorCode::kInvalid);
    EXPECT_FALSE(trace.IsRegularFile(path));
  }
}

TEST(FileTraceTest, ListsSorted) {
  const TempDir dir;
  dir.Write("d/b", "");
  dir.Write("d/a", "");
  FileTrace trace;
  EXPECT_THAT(**trace.List(dir / "d"), ElementsAre("a", "b"));
  EXPECT_EQ(*trace.List(dir / "missing"), std::nullopt);
  EXPECT_FALSE(trace.List(dir / "d/a"));
}

TEST(FileTraceTest, NoticesEveryKindOfChange) {
  const TempDir dir;
  const std::string file = dir.Write("d/a", "one");
  auto look = [&] {
    FileTrace trace;
    EXPECT_TRUE(trace.Read(file));
    EXPECT_TRUE(trace.List(dir / "d"));
    EXPECT_TRUE(trace.Read(dir / "later"));
    return trace;
  };
  FileTrace trace = look();
  EXPECT_TRUE(trace.IsCurrent());
  dir.Write("d/a", "three");  // size
  EXPECT_FALSE(trace.IsCurrent());

  trace = look();
  dir.Write("d/b", "");  // a directory's names
  EXPECT_FALSE(trace.IsCurrent());

  trace = look();
  dir.Write("later", "");  // what was not there
  EXPECT_FALSE(trace.IsCurrent());

  trace = look();
  dir.Write("new", "three");  // another file of that name
  std::filesystem::rename(dir / "new", file);
  EXPECT_FALSE(trace.IsCurrent());

  trace = look();
  std::filesystem::remove(file);
  EXPECT_FALSE(trace.IsCurrent());
}

TEST(FileBackedTest, LooksOnceASecondAndLoadsOnChange) {
  const TempDir dir;
  const std::string file = dir.Write("a", "one");
  FileBacked<std::string> values;
  std::chrono::steady_clock::time_point now{};
  int loads = 0;
  auto get = [&](std::chrono::milliseconds after) {
    now += after;
    const auto value = values.Get("key", now, [&](FileTrace& trace) -> store::Result<std::string> {
      ++loads;
      OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string> text, trace.Read(file));
      if (text == "bad") return store::Fail(store::ErrorCode::kInvalid, "bad");
      return text.value_or("none");
    });
    return value->has_value() ? **value : value->error().message;
  };
  using std::chrono::milliseconds;
  EXPECT_EQ(get(milliseconds(0)), "one");
  EXPECT_EQ(get(milliseconds(1000)), "one");
  EXPECT_EQ(loads, 1);
  dir.Write("a", "other");
  EXPECT_EQ(get(milliseconds(999)), "one");
  EXPECT_EQ(get(milliseconds(1)), "other");
  EXPECT_EQ(loads, 2);
  dir.Write("a", "bad");
  EXPECT_EQ(get(milliseconds(1000)), "bad");
  EXPECT_EQ(get(milliseconds(999)), "bad");
  EXPECT_EQ(loads, 3);
  // An error may pass without a change of the file.
  EXPECT_EQ(get(milliseconds(1)), "bad");
  EXPECT_EQ(loads, 4);
  std::filesystem::remove(file);
  EXPECT_EQ(get(milliseconds(1000)), "none");
}

TEST(FileBackedTest, RemembersABoundedNumberOfKeys) {
  FileBacked<int> values;
  int loads = 0;
  auto get = [&](size_t key) {
    values.Get(std::to_string(key), {}, [&](FileTrace&) -> store::Result<int> { return ++loads; });
  };
  for (size_t i = 0; i <= FileBacked<int>::kMaxKeys; ++i) get(i);
  const int before = loads;
  get(0);
  EXPECT_EQ(loads, before + 1);
}

}  // namespace
}  // namespace ocifs::fetch
