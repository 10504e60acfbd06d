#include "fs/slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "store/text.h"

namespace ocifs::fs {
namespace {

using store::Digest;
using store::Reference;
using store::SlotRecord;

Digest DigestOf(std::string_view text) { return Digest::Of(store::AsBytes(text)); }
Reference Ref(std::string_view text) { return *Reference::Parse(text); }

// What a store would keep.
class Saved {
 public:
  SlotTable::SaveFunction function() {
    return [this](std::span<const SlotRecord> records) -> store::Result<void> {
      store::MutexLock lock(mutex_);
      ++saves_;
      if (fail_) return store::Fail(store::ErrorCode::kNoSpace, "full");
      for (const SlotRecord& record : records) by_slot_[record.slot] = record;
      return {};
    };
  }
  std::vector<SlotRecord> records() const {
    store::MutexLock lock(mutex_);
    std::vector<SlotRecord> result;
    result.reserve(by_slot_.size());
    for (const auto& [slot, record] : by_slot_) result.push_back(record);
    return result;
  }
  void set_fail(bool fail) {
    store::MutexLock lock(mutex_);
    fail_ = fail;
  }
  int saves() const {
    store::MutexLock lock(mutex_);
    return saves_;
  }

 private:
  mutable store::Mutex mutex_;
  std::map<uint32_t, SlotRecord> by_slot_ OCIFS_GUARDED_BY(mutex_);
  bool fail_ OCIFS_GUARDED_BY(mutex_) = false;
  int saves_ OCIFS_GUARDED_BY(mutex_) = 0;
};

constexpr SlotTable::Options kQuick{.group_delay = std::chrono::milliseconds(1),
                                    .retry_delay = std::chrono::milliseconds(1)};

struct Path {
  Slot* registry;
  Slot* owner;
  Slot* repository;
};

Path MakePath(SlotTable& table, Standing standing = Standing::kProven) {
  Path path{};
  path.registry = table.MakeDirectory(table.mount_point(), "ghcr.io", Standing::kProven);
  path.owner = table.MakeDirectory(*path.registry, "kcl-lang", Standing::kPresumed);
  path.repository = table.MakeDirectory(*path.owner, "helloworld", standing);
  return path;
}

TEST(SlotTable, GivesOneSlotPerDirectory) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  const Path path = MakePath(table);
  EXPECT_EQ(path.registry->number(), 1u);
  EXPECT_EQ(path.repository->path(), "ghcr.io/kcl-lang/helloworld");
  EXPECT_EQ(path.repository->repository_path(), "kcl-lang/helloworld");
  EXPECT_EQ(path.repository->registry()->name(), "ghcr.io");
  EXPECT_EQ(path.repository->parent(), path.owner);
  EXPECT_EQ(table.MakeDirectory(*path.owner, "helloworld", Standing::kPresumed), path.repository);
  EXPECT_EQ(table.Find(path.repository->number()), path.repository);
  EXPECT_EQ(table.Find(0), &table.mount_point());
  EXPECT_EQ(table.Find(99), nullptr);
  EXPECT_EQ(table.Find(0xffffffff), nullptr);
}

TEST(SlotTable, TwoSpellingsAreTwoSlots) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  const Digest digest = DigestOf("x");
  const Path path = MakePath(table);
  Slot* tag =
      table.MakePackage(*path.repository, "1.0", Ref("ghcr.io/kcl-lang/helloworld:1.0"), &digest);
  Slot* exact = table.MakePackage(*path.owner, "helloworld:1.0",
                                  Ref("ghcr.io/kcl-lang/helloworld:1.0"), &digest);
  Slot* other =
      table.MakePackage(*path.repository, "2.0", Ref("ghcr.io/kcl-lang/helloworld:2.0"), &digest);
  EXPECT_NE(tag, exact);
  EXPECT_NE(tag, other);
  Slot* host = table.MakeDirectory(table.mount_point(), "localhost:5000", Standing::kProven);
  EXPECT_NE(host, table.MakeDirectory(table.mount_point(), "localhost+5000", Standing::kProven));
}

TEST(SlotTable, AMovedTagGetsANewSlotAndComesBackToItsOld) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  const Path path = MakePath(table);
  const Reference reference = Ref("ghcr.io/kcl-lang/helloworld:latest");
  const Digest one = DigestOf("1");
  const Digest two = DigestOf("2");
  Slot* first = table.MakePackage(*path.repository, "latest", reference, &one);
  EXPECT_EQ(table.MakePackage(*path.repository, "latest", reference, &one), first);
  Slot* second = table.MakePackage(*path.repository, "latest", reference, &two);
  EXPECT_NE(first, second);
  EXPECT_EQ(*first->digest(), one);
  EXPECT_EQ(table.FindPackage(*path.repository, "latest"), second);
  EXPECT_EQ(table.MakePackage(*path.repository, "latest", reference, &one), first);
  EXPECT_EQ(table.FindPackage(*path.repository, "latest"), first);
}

TEST(SlotTable, AListedTagIsBoundLater) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  const Path path = MakePath(table);
  const Reference reference = Ref("ghcr.io/kcl-lang/helloworld:1.0");
  const Digest digest = DigestOf("1");
  Slot* slot = table.MakePackage(*path.repository, "1.0", reference, nullptr);
  EXPECT_EQ(slot->digest(), nullptr);
  EXPECT_EQ(table.MakePackage(*path.repository, "1.0", reference, nullptr), slot);
  EXPECT_EQ(table.MakePackage(*path.repository, "1.0", reference, &digest), slot);
  EXPECT_EQ(*slot->digest(), digest);
  EXPECT_EQ(table.Bind(*slot, DigestOf("2")), digest) << "the first digest stays";
}

TEST(SlotTable, ProvingADirectoryProvesItsAncestors) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  const Path path = MakePath(table, Standing::kPresumed);
  EXPECT_EQ(path.owner->standing(), Standing::kPresumed);
  table.Prove(*path.repository, Standing::kRepository);
  EXPECT_EQ(path.repository->standing(), Standing::kRepository);
  EXPECT_EQ(path.owner->standing(), Standing::kProven);
  EXPECT_EQ(table.ProvenChildren(*path.registry), std::vector<std::string>{"kcl-lang"});
}

TEST(SlotTable, PresumedDirectoriesAreBounded) {
  Saved saved;
  SlotTable::Options options = kQuick;
  options.max_presumed = 3;
  SlotTable table({}, saved.function(), options);
  Slot* registry = table.MakeDirectory(table.mount_point(), "a.io", Standing::kProven);
  Slot* first = table.MakeDirectory(*registry, "p1", Standing::kPresumed);
  ASSERT_NE(first, nullptr);
  EXPECT_NE(table.MakeDirectory(*registry, "p2", Standing::kPresumed), nullptr);
  EXPECT_NE(table.MakeDirectory(*registry, "p3", Standing::kPresumed), nullptr);
  EXPECT_EQ(table.MakeDirectory(*registry, "p4", Standing::kPresumed), nullptr);
  EXPECT_EQ(table.MakeDirectory(*registry, "p1", Standing::kPresumed), first) << "known ones stay";
  EXPECT_NE(table.MakeDirectory(*registry, "p4", Standing::kProven), nullptr);
  table.Prove(*first, Standing::kProven);
  EXPECT_NE(table.MakeDirectory(*registry, "p5", Standing::kPresumed), nullptr);
}

TEST(SlotTable, SurvivesARestartWithTheSameNumbers) {
  Saved saved;
  const Digest one = DigestOf("1");
  const Digest two = DigestOf("2");
  const Reference reference = Ref("ghcr.io/kcl-lang/helloworld:latest");
  std::map<std::string, uint32_t> numbers;
  uint32_t old_latest = 0;
  {
    SlotTable table({}, saved.function(), kQuick);
    const Path path = MakePath(table);
    table.MakeDirectory(*path.registry, "rumour", Standing::kPresumed);
    old_latest = table.MakePackage(*path.repository, "latest", reference, &one)->number();
    numbers["latest"] = table.MakePackage(*path.repository, "latest", reference, &two)->number();
    numbers["exact"] = table
                           .MakePackage(*path.owner, "helloworld+1.0",
                                        Ref("ghcr.io/kcl-lang/helloworld:1.0"), &one)
                           ->number();
    numbers["listed"] =
        table.MakePackage(*path.repository, "0.9", Ref("ghcr.io/kcl-lang/helloworld:0.9"), nullptr)
            ->number();
    numbers["repository"] = path.repository->number();
  }
  for (const SlotRecord& record : saved.records())
    EXPECT_EQ(record.path.find("rumour"), std::string::npos);

  SlotTable table(saved.records(), saved.function(), kQuick);
  Slot* repository = table.Find(numbers["repository"]);
  ASSERT_NE(repository, nullptr);
  EXPECT_EQ(repository->path(), "ghcr.io/kcl-lang/helloworld");
  EXPECT_EQ(repository->standing(), Standing::kProven);
  EXPECT_EQ(table.FindPackage(*repository, "latest")->number(), numbers["latest"]);
  ASSERT_NE(table.Find(old_latest), nullptr);
  EXPECT_EQ(*table.Find(old_latest)->digest(), one);
  EXPECT_EQ(table.Find(numbers["listed"])->digest(), nullptr);
  EXPECT_EQ(table.Find(numbers["exact"])->reference()->ToString(),
            "ghcr.io/kcl-lang/helloworld:1.0");
  EXPECT_EQ(table.Find(numbers["exact"])->name(), "helloworld+1.0");
  // New numbers come after all old ones.
  Slot* added = table.MakeDirectory(table.mount_point(), "new.io", Standing::kProven);
  for (const auto& [name, number] : numbers) EXPECT_GT(added->number(), number);
}

TEST(SlotTable, RecordsThatAreRubbishAreLeftOut) {
  Saved saved;
  const std::vector<SlotRecord> records = {
      {0, "ghcr.io/", {}},
      {5, "", {}},
      {6, "/", {}},
      {7, "..", {}},
      {8, "ghcr.io/a/../b/", {}},
      {9, "ghcr.io//x", {}},
      {0x20000000, "ghcr.io/", {}},
      {10, "ghcr.io/a/1.0", DigestOf("1")},
      {10, "ghcr.io/a/2.0", {}},
      {11, "ghcr.io", {}},
  };
  SlotTable table(records, saved.function(), kQuick);
  ASSERT_NE(table.Find(10), nullptr);
  EXPECT_EQ(table.Find(10)->path(), "ghcr.io/a/1.0");
  EXPECT_EQ(table.Find(10)->parent()->path(), "ghcr.io/a") << "a lost parent is made anew";
  EXPECT_EQ(table.Find(7), nullptr);
  EXPECT_EQ(table.Find(8), nullptr);
  EXPECT_GT(table.MakeDirectory(table.mount_point(), "new.io", Standing::kProven)->number(), 11u);
}

TEST(SlotTable, SavesInGroups) {
  Saved saved;
  SlotTable::Options options;
  options.group_delay = std::chrono::hours(1);
  SlotTable table({}, saved.function(), options);
  Slot* registry = table.MakeDirectory(table.mount_point(), "a.io", Standing::kProven);
  for (int i = 0; i < 1000; ++i) {
    table.MakeDirectory(*registry, "d" + std::to_string(i), Standing::kProven);
  }
  EXPECT_TRUE(table.Flush());
  EXPECT_LE(saved.saves(), 2);
  EXPECT_EQ(saved.records().size(), 1001u);
}

TEST(SlotTable, TriesAgainWhenSavingFails) {
  Saved saved;
  saved.set_fail(true);
  SlotTable table({}, saved.function(), kQuick);
  table.MakeDirectory(table.mount_point(), "a.io", Standing::kProven);
  EXPECT_FALSE(table.Flush());
  saved.set_fail(false);
  EXPECT_TRUE(table.Flush() || table.Flush());
  EXPECT_EQ(saved.records().size(), 1u);
}

TEST(SlotTable, FindsSlotsOfAReferenceThatShowSomethingElse) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  const Path path = MakePath(table);
  const Reference reference = Ref("ghcr.io/kcl-lang/helloworld:latest");
  const Digest one = DigestOf("1");
  const Digest two = DigestOf("2");
  Slot* exact = table.MakePackage(*path.owner, "helloworld:latest", reference, &one);
  table.MakePackage(*path.repository, "latest", reference, &one);
  table.MakePackage(*path.repository, "latest", reference, &two);
  EXPECT_EQ(table.ShowingOther(reference, two), std::vector<Slot*>{exact});
}

TEST(SlotTable, ReadersAndWritersMeetOnlyInOrder) {
  Saved saved;
  SlotTable table({}, saved.function(), kQuick);
  Slot* registry = table.MakeDirectory(table.mount_point(), "a.io", Standing::kProven);
  std::atomic<uint32_t> highest{1};
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      const uint32_t number = highest.load();
      const Slot* slot = table.Find(number);
      ASSERT_NE(slot, nullptr);
      ASSERT_EQ(slot->number(), number);
      ASSERT_FALSE(slot->path().empty());
    }
  });
  std::vector<std::thread> writers;
  writers.reserve(2);
  for (int writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      for (int i = 0; i < 5000; ++i) {
        const Slot* slot = table.MakeDirectory(
            *registry, "d" + std::to_string(writer) + "-" + std::to_string(i), Standing::kProven);
        highest.store(slot->number());
      }
    });
  }
  for (std::thread& thread : writers) thread.join();
  done = true;
  reader.join();
  EXPECT_EQ(highest > 10000, true);
}

}  // namespace
}  // namespace ocifs::fs
