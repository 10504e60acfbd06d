#include <sys/statvfs.h>

#include <fstream>
#include <sstream>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class StatFsTest : public Mounted {};

TEST_F(StatFsTest, TellsTheStoresRoom) {
  Mount();
  struct statvfs mounted = {};
  struct statvfs below = {};
  ASSERT_EQ(statvfs(point_.c_str(), &mounted), 0);
  ASSERT_EQ(statvfs(world().directory.path().c_str(), &below), 0);
  EXPECT_EQ(mounted.f_namemax, 255u);
  EXPECT_EQ(mounted.f_bsize, 4096u);
  EXPECT_NEAR(static_cast<double>(mounted.f_bfree) * 4096,
              static_cast<double>(below.f_bavail) * static_cast<double>(below.f_frsize),
              static_cast<double>(below.f_blocks) * static_cast<double>(below.f_frsize) * 0.2);
  EXPECT_GE(mounted.f_blocks, mounted.f_bfree);
}

TEST_F(StatFsTest, TheMountIsWhatItMustBe) {
  Mount();
  std::ifstream table("/proc/self/mounts");
  std::string line;
  std::string ours;
  while (std::getline(table, line)) {
    if (line.find(" " + point_ + " ") != std::string::npos) ours = line;
  }
  std::istringstream fields(ours);
  std::string source_name;
  std::string point;
  std::string type;
  std::string options;
  fields >> source_name >> point >> type >> options;
  EXPECT_EQ(source_name, "ocifs");
  EXPECT_EQ(type, "fuse.ocifs");
  for (const char* option : {"ro", "nosuid", "nodev", "noatime", "default_permissions"}) {
    EXPECT_NE(("," + options + ",").find(std::string(",") + option + ","), std::string::npos)
        << option << " is not in " << options;
  }
  EXPECT_EQ(options.find("allow_other"), std::string::npos);
}

}  // namespace
}  // namespace ocifs::fs::testing
