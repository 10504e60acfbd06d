// An index that is damaged: made anew, and never believed.
#include "store/rebuild.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "store/crash_marker.h"
#include "store/store.h"
#include "store/store_directory.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/store/cache_fixture.h"
#include "tests/store/child.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using harness::TarWriter;
using ::testing::HasSubstr;

constexpr std::string_view kOther = "quay.io/c/d:2";

class Rebuild : public PullThroughTest {
 protected:
  static std::string Content(int file) {
    return Noise(100 + static_cast<size_t>(file) * 37, static_cast<uint32_t>(file) + 1);
  }
  static constexpr int kFiles = 60;
  static constexpr int kMissing = 3;  // exit status of a child
  static constexpr int kWrong = 4;

  void Fill() {
    TarWriter first;
    TarWriter second;
    for (int i = 0; i < kFiles; ++i) {
      (i % 2 == 0 ? first : second).File("f" + std::to_string(i), Content(i));
    }
    source_.AddImage(kRef, {first.End().bytes()});
    source_.AddImage(kOther, {second.End().bytes()});
    ASSERT_EQ(ReadPath("f0"), Content(0));
    ASSERT_EQ(ReadPath("f1", kOther), Content(1));
    IndexBatch batch;
    batch.PutPin(PinRecord{std::string(kRef), Root(kRef), 77});
    batch.PutSlot(SlotRecord{3, "ghcr.io/a/b/1.0", Root(kRef)});
    Must(store_->index().Commit(std::move(batch)));
    Stop();
    source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
  }
  Digest Root(std::string_view reference) {
    return Must(cache().Resolve(RefOf(reference), {})).digest;
  }
  std::string index_file() const { return root() + "/index/data.mdb"; }

  // Whether all can be read without the network. Ends the process at a wrong answer.
  bool AllThere() {
    bool all = true;
    for (int i = 0; i < kFiles; ++i) {
      const std::string_view reference = i % 2 == 0 ? kRef : kOther;
      const std::string found = ReadPath("f" + std::to_string(i), reference);
      if (found == Content(i)) continue;
      all = false;
      // An error's name, but for files that are shorter than one.
      if (found.size() >= 100) _exit(kWrong);
    }
    const auto pin = Must(OrMissing(store_->index().FindPin(RefOf(kRef))));
    if (pin && pin->pinned_at != 77) _exit(kWrong);
    const auto ref = Must(OrMissing(store_->index().FindRef(RefOf(kRef))));
    if (ref && pin && ref->digest != pin->digest) _exit(kWrong);
    return all && pin && ref && Must(store_->LoadSlots()).size() == 1;
  }
  void ExpectAllThere(std::string_view what) {
    EXPECT_TRUE(AllThere()) << what;
    EXPECT_THAT(store_->index().Verify(), IsOk()) << what;
    Stop();
  }
};

TEST_F(Rebuild, EverythingButTagListsComesBack) {
  Fill();
  const IndexTotals before = Must(Must(Store::Open(root()))->index().Totals());
  Store::OpenOptions options;
  options.rebuild_index = true;
  Must(Store::Open(root(), options));
  IndexTotals after = Must(Must(Store::Open(root()))->index().Totals());
  after.evictions = before.evictions;
  EXPECT_EQ(after, before);
  ExpectAllThere("rebuilt");
  EXPECT_FALSE(fs::exists(root() + "/index.new"));
  EXPECT_FALSE(fs::exists(root() + "/index.old"));
}

TEST_F(Rebuild, HappensByItself) {
  struct Case {
    std::string_view name;
    std::function<void()> harm;
  };
  const Case cases[] = {
      {"file gone", [&] { fs::remove(index_file()); }},
      {"directory gone but for the journal",
       [&] { fs::remove(index_file()), fs::remove(root() + "/index/lock.mdb"); }},
      {"empty", [&] { fs::resize_file(index_file(), 0); }},
      {"a foreign file", [&] { std::ofstream(index_file()) << std::string(10'000, 'x'); }},
      {"a directory", [&] { fs::remove(index_file()), fs::create_directory(index_file()); }},
      {"cut to one page", [&] { fs::resize_file(index_file(), 4096); }},
      {"cut by one page",
       [&] { fs::resize_file(index_file(), fs::file_size(index_file()) - 4096); }},
      {"marked", [&] { std::ofstream(root() + "/index/damaged"); }},
      {"crash between the renames",
       [&] {
         fs::rename(root() + "/index", root() + "/index.old");
         fs::create_directory(root() + "/index.new");
         fs::remove(root() + "/index.old/data.mdb");
       }},
  };
  Fill();
  for (const Case& c : cases) {
    c.harm();
    ExpectAllThere(c.name);
    ExpectAllThere(std::string(c.name) + ", again");
  }
}

TEST_F(Rebuild, AJournalThatIsDamagedTooCostsWhatItHeld) {
  Fill();
  fs::remove(index_file());
  fs::resize_file(root() + "/index/journal", 0);
  source_.FailAllWith(std::nullopt);
  EXPECT_EQ(ReadPath("f0"), Content(0)) << "from the network again";
  EXPECT_EQ(ReadPath("f1", kOther), Content(1));
  Stop();
}

TEST_F(Rebuild, WaitsForOtherProcessesToEnd) {
  Fill();
  Child child([&](Child::Channel& channel) {
    const std::unique_ptr<Store> store = Must(Store::Open(root()));
    channel.Tell();
    channel.Await();
  });
  child.Await();
  std::ofstream(root() + "/index/damaged") << "for a reason";
  const Result<std::unique_ptr<Store>> refused = Store::Open(root());
  EXPECT_THAT(refused, FailsWith(ErrorCode::kIndexDamaged));
  EXPECT_THAT(refused.error().message, HasSubstr("for a reason"));
  EXPECT_THAT(refused.error().message, HasSubstr("end all processes"));
  Store::OpenOptions options;
  options.rebuild_index = true;
  EXPECT_THAT(Store::Open(root(), options), FailsWith(ErrorCode::kInvalid));
  child.Tell();
  EXPECT_EQ(child.Wait(), 0);
  ExpectAllThere("when they are gone");
}

TEST_F(Rebuild, ACrashInsideTheIndexLeavesAMarkAndOneOutsideDoesNot) {
  Fill();
  for (const bool inside : {true, false}) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT}) {
      Child child([&](Child::Channel&) {
        InstallCrashMarker();
        const UniqueFd fd = Must(OpenAt(AT_FDCWD, root() + "/index", O_RDONLY | O_DIRECTORY));
        const CrashScope scope(inside ? fd.get() : -1);
        raise(signal);
      });
      const int status = child.Wait();
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
      EXPECT_EQ(fs::exists(root() + "/index/damaged"), inside);
      fs::remove(root() + "/index/damaged");
    }
  }
}

// Row D11. A child reads everything, offline; it may die once for each damage, and the next one
// finds everything. Never a wrong byte.
TEST_F(Rebuild, NoDamageOfTheIndexIsBelievedOrKillsTwice) {
  Fill();
  const char* more = std::getenv("OCIFS_DAMAGE_ROUNDS");
  const int rounds = more != nullptr ? std::atoi(more) : 150;
  const char* given = std::getenv("OCIFS_DAMAGE_SEED");
  const uint32_t seed =
      given != nullptr ? static_cast<uint32_t>(std::atoi(given)) : std::random_device()();
  std::cout << "OCIFS_DAMAGE_SEED=" << seed << '\n';
  std::mt19937 random(seed);
  const std::string good = ReadFile(index_file());
  const fs::path kept = directory_ / "kept";
  fs::copy(root(), kept, fs::copy_options::recursive);
  const size_t pages = good.size() / 4096;
  int deaths = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = good;
    std::string what;
    auto flip = [&](size_t at) {
      const int bit = static_cast<int>(random() % 8);
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      what = "bit " + std::to_string(bit) + " of byte " + std::to_string(at);
    };
    switch (round % 5) {
      case 0:
      case 1:
        flip(random() % bytes.size());
        break;
      case 2:
        flip(random() % pages * 4096 + random() % 16);
        break;
      case 3:
        bytes.resize(random() % bytes.size());
        what = "cut to " + std::to_string(bytes.size());
        break;
      default: {
        const size_t page = random() % pages;
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(page * 4096), 4096, '\0');
        what = "zeroed page " + std::to_string(page);
      }
    }
    fs::remove_all(root());
    fs::copy(kept, root(), fs::copy_options::recursive);
    std::ofstream(index_file(), std::ios::binary | std::ios::trunc) << bytes;
    for (int attempt = 0; attempt < 2; ++attempt) {
      Child child([&](Child::Channel&) {
        InstallCrashMarker();
        SetLogSink([](LogLevel, std::string_view) {});
        if (!AllThere()) _exit(kMissing);
        Stop();
      });
      const int status = child.Wait();
      if (status == 0) {
        if (fs::exists(root() + "/index/damaged")) continue;
        break;
      }
      // It may lack something, or die, once.
      EXPECT_EQ(attempt, 0) << what << ": status " << status;
      EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != kMissing)
          << what << ": a wrong answer, or an unexpected error";
      deaths += WIFSIGNALED(status) ? 1 : 0;
    }
    if (HasFailure()) {
      std::cout << "round " << round << ": " << what << '\n';
      break;
    }
  }
  std::cout << rounds << " damages, " << deaths << " deaths\n";
}

}  // namespace
}  // namespace ocifs::store
