#include <latch>

#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class ConcurrencyTest : public Mounted {};

TEST_F(ConcurrencyTest, ManyReadersOfOneColdPackageShareOnePull) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  source().Hold(Call::kBlob);
  constexpr int kReaders = 64;
  std::vector<std::thread> readers;
  readers.reserve(kReaders);
  std::atomic<int> right{0};
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      if (Read("reg.example/app/web:1.0/greeting") == "hello\n") ++right;
    });
  }
  EXPECT_TRUE(Eventually([&] { return source().waiting(Call::kBlob) >= 1; }));
  source().Release(Call::kBlob);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(right, kReaders);
  EXPECT_EQ(source().count(Call::kBlob), 2u) << "config and layer, once each";
  EXPECT_EQ(source().count(Call::kManifest), 1u);
}

TEST_F(ConcurrencyTest, ManyKindsOfReadersOverManyPackages) {
  constexpr int kPackages = 12;
  std::vector<std::string> contents;
  for (int i = 0; i < kPackages; ++i) {
    contents.push_back(Noise(300'000, static_cast<uint64_t>(i) + 1));
    TarWriter tar;
    tar.File("data", contents.back());
    for (int j = 0; j < 50; ++j) tar.File("d/f" + std::to_string(j), std::to_string(i * 100 + j));
    tar.End();
    source().AddImage("reg.example/app/p" + std::to_string(i) + ":1.0", {tar.bytes()});
  }
  Mount();
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 30; ++round) {
        const int i = (t * 7 + round) % kPackages;
        const std::string root = "reg.example/app/p" + std::to_string(i) + "/1.0";
        switch ((t + round) % 4) {
          case 0:
            if (Read(root + "/data") != contents[static_cast<size_t>(i)]) ++wrong;
            break;
          case 1:
            if (List(root + "/d").size() != 50) ++wrong;
            break;
          case 2:
            if (Read(root + "/d/f7") != std::to_string(i * 100 + 7)) ++wrong;
            break;
          default:
            if (StatErrno(root + "/missing") != ENOENT) ++wrong;
            if (Xattr(root, "user.oci.reference").empty()) ++wrong;
            break;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(ConcurrencyTest, ReadersWhileTagsMove) {
  world().fs_options.longest_tag_timeout = std::chrono::seconds(0);
  world().fs_options.directory_timeout = std::chrono::seconds(0);
  source().AddImage("reg.example/app/web:latest", {SmallTar("generation 0\n")});
  Mount();
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  readers.reserve(4);
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&] {
      while (!done) {
        if (!Read("reg.example/app/web/latest/greeting").starts_with("generation ")) ++wrong;
        if (List("reg.example/app/web/latest").size() != 3) ++wrong;
      }
    });
  }
  for (int generation = 1; generation <= 20; ++generation) {
    source().AddImage("reg.example/app/web:latest",
                      {SmallTar("generation " + std::to_string(generation) + "\n")});
    world().clock += 400;
    EXPECT_TRUE(Eventually([&] {
      return Read("reg.example/app/web/latest/greeting") ==
             "generation " + std::to_string(generation) + "\n";
    })) << generation;
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace ocifs::fs::testing
