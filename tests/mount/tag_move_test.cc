#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class TagMoveTest : public Mounted {};

TEST_F(TagMoveTest, OpenFilesAndDirectoriesKeepTheOldTree) {
  world().fs_options.longest_tag_timeout = std::chrono::seconds(0);
  world().fs_options.directory_timeout = std::chrono::seconds(0);
  source().AddImage("reg.example/app/web:latest", {SmallTar("old\n")});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/latest/greeting"), "old\n");
  const int file = open(At("reg.example/app/web/latest/greeting").c_str(), O_RDONLY | O_CLOEXEC);
  const int directory = open(At("reg.example/app/web/latest").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  ASSERT_GE(directory, 0);

  source().AddImage("reg.example/app/web:latest", {SmallTar("new, and longer\n")});
  world().clock += 400;
  EXPECT_TRUE(Eventually(
      [&] { return Read("reg.example/app/web/latest/greeting") == "new, and longer\n"; }));

  char buffer[64];
  EXPECT_EQ(pread(file, buffer, sizeof buffer, 0), 4);
  EXPECT_EQ(std::string(buffer, 4), "old\n");
  const int again = openat(directory, "greeting", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(again, 0);
  EXPECT_EQ(pread(again, buffer, sizeof buffer, 0), 4)
      << "the directory is the old one, never a mix";
  close(again);
  close(directory);
  close(file);
}

TEST_F(TagMoveTest, AChangeIsPushedIntoTheKernel) {
  // The kernel believes in a tag for an hour, unless it is told.
  source().AddImage("reg.example/app/web:1.0", {SmallTar("old\n")});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "old\n");
  const uint64_t before = session().counts().of(Operation::kLookup);
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "old\n");
  EXPECT_EQ(session().counts().of(Operation::kLookup), before);
  world().fs->ReferenceChanged(Ref("reg.example/app/web:1.0"),
                               store::Digest::Of(std::as_bytes(std::span("x", 1))));
  EXPECT_TRUE(Eventually([&] {
    EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "old\n");
    return session().counts().of(Operation::kLookup) > before;
  })) << "the kernel did not ask again";
}

}  // namespace
}  // namespace ocifs::fs::testing
