#include "tools/mount_table.h"

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <optional>
#include <utility>

#include "tests/harness/temp_dir.h"

namespace ocifs::tools {
namespace {

TEST(MountTableTest, ListsWhatIsMountedAndForgetsWhatIsNot) {
  const testing::TempDir directory;
  EXPECT_TRUE(ListMounts(directory.path()).empty());
  {
    auto entry = MountEntry::Add(directory.path(), "/mnt/oci");
    ASSERT_TRUE(entry) << entry.error().message;
    EXPECT_EQ(ListMounts(directory.path()), std::vector<std::string>{"/mnt/oci"});
  }
  EXPECT_TRUE(ListMounts(directory.path()).empty());
}

TEST(MountTableTest, AKilledDaemonDoesNotCount) {
  const testing::TempDir directory;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto entry = MountEntry::Add(directory.path(), "/mnt/dead");
    _exit(entry ? 0 : 1);  // no destructor, as with SIGKILL
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_TRUE(ListMounts(directory.path()).empty());
}

}  // namespace
}  // namespace ocifs::tools
