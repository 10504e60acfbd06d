// fsck as a script sees it, where tests/e2e/test_fsck.py cannot bring a store into that state.
#include "tools/fsck_command.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "store/file.h"
#include "store/index.h"
#include "store/store.h"
#include "store/store_directory.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::tools {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FsckCommand : public ::testing::Test {
 protected:
  FsckCommand() {
    harness::TarWriter tar;
    tar.File("main.k", kContent).End();
    registry_.AddArtifact("kcl/hello", "1.0", {{.bytes = tar.bytes()}});
    CommandOptions prefetch;
    prefetch.arguments = {registry_.reference("kcl/hello", "1.0").ToString()};
    EXPECT_EQ(Run(Prefetch, prefetch).status, 0);
  }

  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome Run(int (*command)(const CommandOptions&), CommandOptions options) {
    options.config.store = root();
    options.config.auth_file = directory_ / "no-auth.json";
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int status = command(options);
    std::string out = ::testing::internal::GetCapturedStdout();
    return {status, std::move(out), ::testing::internal::GetCapturedStderr()};
  }
  Outcome Check(bool repair = false) {
    CommandOptions options;
    options.repair = repair;
    return Run(Fsck, options);
  }
  std::string root() const { return directory_ / "store"; }

  std::unique_ptr<store::Store> OpenStore() {
    store::Result<std::unique_ptr<store::Store>> opened = store::Store::Open(root());
    EXPECT_TRUE(opened);
    return *std::move(opened);
  }
  // The package is forgotten, and the header of its only record flipped: nothing leads to the
  // record.
  void LoseARecord() {
    {
      const std::unique_ptr<store::Store> store = OpenStore();
      store::IndexBatch batch;
      const auto packages = store->index().Packages();
      ASSERT_TRUE(packages);
      for (const store::Digest& manifest : *packages) {
        batch.DeletePackage(manifest);
      }
      ASSERT_TRUE(store->index().Commit(std::move(batch)));
    }
    for (const auto& entry : fs::directory_iterator(root() + "/packs")) {
      std::string bytes;
      {
        std::ifstream file(entry.path(), std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(file), {});
      }
      const size_t at = bytes.find(kContent);
      ASSERT_NE(at, std::string::npos);
      bytes[at - 20] = static_cast<char>(bytes[at - 20] ^ 1);
      std::ofstream(entry.path(), std::ios::binary) << bytes;
    }
  }

  static constexpr std::string_view kContent = "a_constant = 1\n";
  const testing::TempDir directory_;
  testing::FakeRegistry registry_;
};

TEST_F(FsckCommand, MakesTheIndexAnewWhereNothingElseHelps) {
  EXPECT_EQ(Check().status, kFsckClean);
  LoseARecord();
  const Outcome found = Check();
  EXPECT_EQ(found.status, kFsckUncorrected);
  EXPECT_THAT(found.out, HasSubstr("lost records"));
  const Outcome repaired = Check(true);
  EXPECT_EQ(repaired.status, kFsckCorrected);
  EXPECT_THAT(repaired.out, HasSubstr("the index was made anew"));
  EXPECT_EQ(Check().status, kFsckClean);
}

TEST_F(FsckCommand, LeavesTheIndexToThoseWhoUseIt) {
  LoseARecord();
  // As another process would: an index is not opened twice in one.
  store::Result<store::UniqueFd> other = store::OpenAt(AT_FDCWD, root() + "/lock", O_RDWR);
  ASSERT_TRUE(other);
  ASSERT_TRUE(store::SetLock(other->get(), F_RDLCK, store::kInUseByte));
  const Outcome left = Check(true);
  EXPECT_EQ(left.status, kFsckUncorrected);
  EXPECT_THAT(left.err, HasSubstr("other processes have it open"));
  EXPECT_THAT(left.out, HasSubstr("lost records"));
  other->reset();
  EXPECT_EQ(Check(true).status, kFsckCorrected);
}

TEST_F(FsckCommand, AnswersAndComplaintsGoTheirWays) {
  EXPECT_THAT(Check().err, IsEmpty());
  std::ofstream(root() + "/format") << "of another program\n";
  const Outcome failed = Check();
  EXPECT_EQ(failed.status, kFsckFailed);
  EXPECT_THAT(failed.out, IsEmpty());
  EXPECT_THAT(failed.err, HasSubstr("ocifs-ctl: "));
}

}  // namespace
}  // namespace ocifs::tools
