#include "store/store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/blob_store.h"
#include "store/file.h"
#include "store/pack.h"
#include "tests/harness/temp_dir.h"
#include "tests/store/child.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string Message(const Result<std::unique_ptr<Store>>& store) {
  return store ? "opened" : store.error().message;
}

TEST(Store, IsMadeInADirectoryThatIsAbsentOrEmpty) {
  const testing::TempDir directory;
  fs::create_directory(directory / "empty");
  fs::permissions(directory / "empty", fs::perms(0755));
  for (const char* name : {"absent/with/parents", "empty"}) {
    const std::string root = directory / name;
    EXPECT_THAT(Store::Open(root), IsOk());
    EXPECT_THAT(Store::Open(root), IsOk()) << "again";
    EXPECT_EQ(fs::status(root).permissions(), fs::perms(0700));
    EXPECT_EQ(ReadFile(root + "/format"), "ocifs store\nversion 2\n");
  }
}

TEST(Store, MayLieAtTheTopOfAFilesystem) {
  const testing::TempDir directory;
  const std::string root = directory / "s";
  fs::create_directories(root + "/lost+found");
  EXPECT_THAT(Store::Open(root), IsOk());
}

// A process that was killed while it made the store.
TEST(Store, ABeginningThatWasCutShortIsNoObstacle) {
  const testing::TempDir directory;
  directory.Write("s/.staged-0123", "ocifs st");
  EXPECT_THAT(Store::Open(directory / "s"), IsOk());
  EXPECT_FALSE(fs::exists(directory / "s/.staged-0123"));
}

TEST(Store, RefusesWhatIsNoneOfItsOwn) {
  const testing::TempDir directory;
  fs::permissions(directory.path(), fs::perms(0700));
  struct Case {
    std::string_view name;
    std::function<void(const std::string&)> make;
    std::string_view says;
  };
  auto store_with_format = [](const std::string& text) {
    return [text](const std::string& root) {
      fs::create_directory(root);
      fs::permissions(root, fs::perms(0700));
      std::ofstream(root + "/format", std::ios::binary) << text;
    };
  };
  const Case cases[] = {
      {"somebody's files",
       [](const std::string& root) {
         fs::create_directory(root);
         std::ofstream(root + "/thesis.txt") << "x";
       },
       "not empty"},
      {"a later version", store_with_format("ocifs store\nversion 3\n"), "version 3"},
      {"an earlier version", store_with_format("ocifs store\nversion 1\n"), "version 1"},
      {"empty format", store_with_format(""), "format"},
      {"cut format", store_with_format("ocifs store\nversion 2"), "format"},
      {"more in the format", store_with_format("ocifs store\nversion 2\nversion 3\n"), "format"},
      {"escape sequences in the format", store_with_format("\x1B[2J"), "\\x1b[2J"},
      {"format is a FIFO",
       [](const std::string& root) {
         fs::create_directory(root);
         fs::permissions(root, fs::perms(0700));
         ASSERT_EQ(mkfifo((root + "/format").c_str(), 0600), 0);
       },
       "format"},
      {"others may enter",
       [&](const std::string& root) {
         Must(Store::Open(root));
         fs::permissions(root, fs::perms(0755));
       },
       "chmod 700"},
      {"others may write",
       [&](const std::string& root) {
         Must(Store::Open(root));
         fs::permissions(root, fs::perms(0770));
       },
       "chmod 700"},
  };
  int number = 0;
  for (const Case& c : cases) {
    const std::string root = directory / ("store" + std::to_string(number++));
    c.make(root);
    const Result<std::unique_ptr<Store>> store = Store::Open(root);
    EXPECT_THAT(store, FailsWith(ErrorCode::kInvalid)) << c.name;
    EXPECT_THAT(Message(store), HasSubstr(c.says)) << c.name;
    EXPECT_FALSE(fs::exists(root + "/index") && c.says != "chmod 700")
        << c.name << ": nothing is made in it";
  }
  EXPECT_THAT(Store::Open("relative/path"), FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(Store::Open(""), FailsWith(ErrorCode::kInvalid));
  directory.Write("file", "");
  EXPECT_FALSE(Store::Open(directory / "file"));
}

TEST(Store, RefusesAnotherUsersStore) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give a directory away";
  const testing::TempDir directory;
  Must(Store::Open(directory / "s"));
  ASSERT_EQ(chown((directory / "s").c_str(), 12345, 12345), 0);
  EXPECT_THAT(Store::Open(directory / "s"), FailsWith(ErrorCode::kInvalid));
}

TEST(Store, SlotsAreKept) {
  const testing::TempDir directory;
  const std::vector<SlotRecord> slots = {{3, "ghcr.io", std::nullopt},
                                         {9, "ghcr.io/a/b", DigestOf("x")}};
  Must(Must(Store::Open(directory / "s"))->SaveSlots(slots));
  const std::vector<SlotRecord> loaded = Must(Must(Store::Open(directory / "s"))->LoadSlots());
  ASSERT_EQ(loaded.size(), 2U);
  EXPECT_EQ(loaded[1].path, "ghcr.io/a/b");
}

TEST(Store, UsageCountsWhatIsThere) {
  const testing::TempDir directory;
  const std::unique_ptr<Store> store = Must(Store::Open(directory / "s"));
  IndexBatch batch;
  batch.PutPackage(DigestOf("m"), {});
  batch.RaisePack(1, 1000);
  batch.RaisePack(2, 500);
  Must(store->index().Commit(std::move(batch)));
  const StoreUsage usage = Must(store->Usage());
  EXPECT_EQ(usage.packages, 1U);
  EXPECT_EQ(usage.pack_bytes, 1500U);
  EXPECT_GE(usage.filesystem_size, usage.filesystem_free);
}

// --- locks between processes ---------------------------------------------------------------------

TEST(Store, APullLockHoldsUntilItIsDropped) {
  const testing::TempDir directory;
  const std::unique_ptr<Store> store = Must(Store::Open(directory / "s"));
  std::unique_ptr<Store::Lock> lock = Must(store->TryLockPull(DigestOf("a")));
  ASSERT_NE(lock, nullptr);
  EXPECT_EQ(Must(store->TryLockPull(DigestOf("a"))), nullptr);
  EXPECT_NE(Must(store->TryLockPull(DigestOf("b"))), nullptr) << "another digest is free";
  lock.reset();
  EXPECT_NE(Must(store->TryLockPull(DigestOf("a"))), nullptr);
}

TEST(Store, APullLockHoldsAgainstOtherProcessesAndEndsWithItsOwn) {
  const testing::TempDir directory;
  const std::string root = directory / "s";
  Must(Store::Open(root));
  Child child([&](Child::Channel& channel) {
    const std::unique_ptr<Store> store = Must(Store::Open(root));
    const std::unique_ptr<Store::Lock> lock = Must(store->TryLockPull(DigestOf("a")));
    channel.Tell();
    channel.Await();  // for ever: the parent kills it
  });
  child.Await();
  const std::unique_ptr<Store> store = Must(Store::Open(root));
  EXPECT_EQ(Must(store->TryLockPull(DigestOf("a"))), nullptr);
  child.Kill();
  EXPECT_NE(Must(store->TryLockPull(DigestOf("a"))), nullptr);
}

// --- leftovers -----------------------------------------------------------------------------------

// What killed processes may leave behind, one of each kind.
std::vector<std::string> Litter(const std::string& root) {
  const std::string hex = DigestOf("nobody's").hex();
  const std::string long_hex = DigestOf("nobody's", DigestAlgorithm::kSha512).hex();
  const std::vector<std::string> names = {"/.staged-00",
                                          "/trees/.staged-01",
                                          "/trees/" + hex + ".tree",
                                          "/trees/" + long_hex + ".tree",
                                          "/blobs/sha256/.staged-02",
                                          "/blobs/sha256/" + hex,
                                          "/blobs/sha512/" + long_hex,
                                          "/packs/00000077.pack"};
  for (const std::string& name : names) std::ofstream(root + name) << "left over";
  return names;
}

TEST(Store, LeftoversAreRemovedAtStart) {
  const testing::TempDir directory;
  const std::string root = directory / "s";
  const Digest blob = DigestOf("known");
  const Digest manifest = DigestOf("manifest");
  {
    const std::unique_ptr<Store> store = Must(Store::Open(root));
    IndexBatch batch;
    batch.PutBlob(blob, BlobRecord{5, std::nullopt});
    batch.PutPackage(manifest, {});
    batch.RaisePack(5, 100);
    Must(store->index().Commit(std::move(batch)));
  }
  const std::vector<std::string> litter = Litter(root);
  const std::vector<std::string> kept = {
      "/blobs/sha256/" + blob.hex(), "/trees/" + Store::TreeFileName(manifest),
      "/packs/00000005.pack", "/trees/notes.txt", "/packs/notes.txt"};
  for (const std::string& name : kept) std::ofstream(root + name) << "known";
  Must(Store::Open(root));
  for (const std::string& name : litter) EXPECT_FALSE(fs::exists(root + name)) << name;
  for (const std::string& name : kept) EXPECT_TRUE(fs::exists(root + name)) << name;
}

TEST(Store, ASecondProcessMayOpenItAndLeavesTheFirstOnesFilesAlone) {
  const testing::TempDir directory;
  const std::string root = directory / "s";
  Must(Store::Open(root));
  Child child([&](Child::Channel& channel) {
    const std::unique_ptr<Store> store = Must(Store::Open(root));
    channel.Tell();
    channel.Await();
  });
  child.Await();
  const std::vector<std::string> litter =
      Litter(root);  // on its way into the child's store, as far as we know
  {
    const std::unique_ptr<Store> second = Must(Store::Open(root));
  }
  for (const std::string& name : litter) EXPECT_TRUE(fs::exists(root + name)) << name;
  child.Tell();
  EXPECT_EQ(child.Wait(), 0);
  Must(Store::Open(root));
  for (const std::string& name : litter) EXPECT_FALSE(fs::exists(root + name)) << name;
}

TEST(Store, ManyMayMakeItAtOnce) {
  for (int round = 0; round < 10; ++round) {
    const testing::TempDir directory;
    const std::string root = directory / "s";
    fs::create_directory(root);
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 4; ++i) {
      children.push_back(std::make_unique<Child>([&](Child::Channel& channel) {
        channel.Await();
        Must(Store::Open(root));
      }));
    }
    for (const auto& child : children) child->Tell();
    for (const auto& child : children) EXPECT_EQ(child->Wait(), 0);
  }
}

}  // namespace
}  // namespace ocifs::store
