// A store that a disk or a person has damaged: right bytes or an error, never wrong bytes.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "store/store.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/store/cache_fixture.h"
#include "tests/store/support.h"

namespace ocifs::store {
namespace {

namespace fs = std::filesystem;
using harness::TarWriter;
using Call = harness::ScriptedSource::Call;

class DamagedStore : public PullThroughTest {
 protected:
  static constexpr std::string_view kContent = "the quick brown fox jumps over the lazy dog";
  void Fill() {
    source_.AddImage(kRef,
                     {TarWriter().File("f", kContent).File("big", Noise(200'000, 5)).End().bytes(),
                      OneFile("g", "second layer")});
    ASSERT_EQ(ReadPath("f"), kContent);
    Stop();
    before_ = source_.total();
  }
  size_t requests() const { return source_.total() - before_; }
  void ExpectAllReadable(std::string_view what) {
    EXPECT_EQ(ReadPath("f"), kContent) << what;
    EXPECT_EQ(ReadPath("big"), Noise(200'000, 5)) << what;
    EXPECT_EQ(ReadPath("g"), "second layer") << what;
  }

  size_t before_ = 0;
};

TEST_F(DamagedStore, AChunkIsRestoredFromTheRawBlob) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ExpectAllReadable("pack");
  EXPECT_EQ(requests(), 0U) << "the layer is in the store";
  Stop();
  ExpectAllReadable("after a restart");
}

TEST_F(DamagedStore, AChunkIsFetchedWhenTheRawBlobIsDamagedToo) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  ExpectAllReadable("pack and blob");
  EXPECT_EQ(requests(), 1U);
  Stop();
  ExpectAllReadable("after a restart");
  EXPECT_EQ(requests(), 1U);
}

TEST_F(DamagedStore, WithoutTheRegistryDamageIsAnErrorAndNeverWrongBytes) {
  Fill();
  ASSERT_EQ(Damage("packs", kContent), 1U);
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ReadPath("f"), "corrupt");
  EXPECT_EQ(ReadPath("big"), Noise(200'000, 5)) << "the rest is good";
  EXPECT_EQ(ReadPath("f", kRef, kNever), "would-block");
  source_.FailAllWith(std::nullopt);
  ExpectAllReadable("when it is back");
}

TEST_F(DamagedStore, APackThatIsGoneIsRestoredInOneGo) {
  source_.AddImage(kRef, {[] {
                     TarWriter tar;
                     for (int i = 0; i < 200; ++i)
                       tar.File("f" + std::to_string(i), Noise(100, static_cast<uint32_t>(i)));
                     return tar.End().bytes();
                   }()});
  ASSERT_EQ(ReadPath("f0"), Noise(100, 0));
  Stop();
  for (const auto& entry : fs::directory_iterator(root() + "/packs")) fs::remove(entry);
  fs::remove_all(root() + "/blobs");
  const size_t before = source_.count(Call::kBlob);
  for (int i = 0; i < 200; ++i)
    EXPECT_EQ(ReadPath("f" + std::to_string(i)), Noise(100, static_cast<uint32_t>(i)));
  EXPECT_LE(source_.count(Call::kBlob), before + 1);
}

TEST_F(DamagedStore, PartsThatAreGoneOrDamagedComeAgain) {
  struct Case {
    std::string_view name;
    std::function<void()> harm;
  };
  auto each_file = [&](const std::string& below, const std::function<void(const fs::path&)>& harm) {
    for (const auto& entry : fs::recursive_directory_iterator(root() + "/" + below)) {
      if (entry.is_regular_file()) harm(entry.path());
    }
  };
  auto flip_middle = [](const fs::path& path) {
    std::string bytes = ReadFile(path);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
  };
  const Case cases[] = {
      {"tree flipped", [&] { each_file("trees", flip_middle); }},
      {"tree cut",
       [&] {
         each_file("trees", [](const fs::path& p) { fs::resize_file(p, fs::file_size(p) / 2); });
       }},
      {"tree empty", [&] { each_file("trees", [](const fs::path& p) { fs::resize_file(p, 0); }); }},
      {"tree gone", [&] { each_file("trees", [](const fs::path& p) { fs::remove(p); }); }},
      {"pack cut", [&] { each_file("packs", [](const fs::path& p) { fs::resize_file(p, 100); }); }},
      {"pack gone", [&] { each_file("packs", [](const fs::path& p) { fs::remove(p); }); }},
      {"pack all zeros",
       [&] {
         each_file("packs", [](const fs::path& p) {
           const auto size = fs::file_size(p);
           fs::resize_file(p, 0);
           fs::resize_file(p, size);
         });
       }},
      {"blobs gone", [&] { each_file("blobs", [](const fs::path& p) { fs::remove(p); }); }},
      {"blobs and packs flipped",
       [&] { each_file("blobs", flip_middle), each_file("packs", flip_middle); }},
      {"blobs and packs gone",
       [&] {
         each_file("blobs", [](const fs::path& p) { fs::remove(p); });
         each_file("packs", [](const fs::path& p) { fs::remove(p); });
       }},
      {"refs", [&] { DamageIndex("refs"); }},
      {"packages", [&] { DamageIndex("packages"); }},
      {"blobs table", [&] { DamageIndex("blobs"); }},
      {"chunks", [&] { DamageIndex("chunks"); }},
      {"packs table", [&] { DamageIndex("packs"); }},
      {"chunks and blobs tables", [&] { DamageIndex("chunks"), DamageIndex("blobs"); }},
      {"all tables",
       [&] {
         for (const char* table : {"refs", "packages", "blobs", "chunks", "packs"})
           DamageIndex(table);
       }},
  };
  for (const Case& c : cases) {
    Fill();
    c.harm();
    ExpectAllReadable(c.name);
    Stop();
    source_.FailAllWith(Error{ErrorCode::kUnavailable, "away"});
    ExpectAllReadable(std::string(c.name) + ", healed for good");
    source_.FailAllWith(std::nullopt);
    Stop();
    fs::remove_all(root());
  }
}

TEST_F(DamagedStore, ATreeUnderAnotherPackagesNameIsNotServed) {
  // Trees that are files: small ones lie in the index.
  auto with_many = [](std::string_view content) {
    TarWriter tar;
    tar.File("f", content).File("big", Noise(200'000, 5));
    for (int i = 0; i < 500; ++i) tar.File("many/" + std::to_string(i), "");
    return tar.End().bytes();
  };
  source_.AddImage(kRef, {with_many(kContent), OneFile("g", "second layer")});
  ASSERT_EQ(ReadPath("f"), kContent);
  source_.AddImage("ghcr.io/a/b:other", {with_many("of another package")});
  ASSERT_EQ(ReadPath("f", "ghcr.io/a/b:other"), "of another package");
  const Digest one = Must(cache().Resolve(RefOf(kRef), {})).digest;
  const Digest other = Must(cache().Resolve(RefOf("ghcr.io/a/b:other"), {})).digest;
  Stop();
  fs::copy_file(root() + "/trees/" + Store::TreeFileName(other),
                root() + "/trees/" + Store::TreeFileName(one),
                fs::copy_options::overwrite_existing);
  ExpectAllReadable("another's tree");
}

TEST_F(DamagedStore, ARawBlobComesAgainForWhoReadsIt) {
  Fill();
  const std::shared_ptr<const Package> package = Must(Open());
  const Descriptor layer = package->manifest().layers[0];
  ASSERT_EQ(Damage("blobs", kContent), 1U);
  std::string bytes(layer.size, '?');
  EXPECT_EQ(
      Must(cache().ReadBlob(*package, layer, 0, std::as_writable_bytes(std::span(bytes)), {})),
      layer.size);
  EXPECT_EQ(DigestOf(bytes), layer.digest);
  EXPECT_EQ(requests(), 1U);
  fs::remove(root() + "/blobs/sha256/" + layer.digest.hex());
  EXPECT_THAT(cache().ReadBlob(*package, layer, 0, std::as_writable_bytes(std::span(bytes)), {}),
              IsOk());
  EXPECT_EQ(DigestOf(bytes), layer.digest);
  EXPECT_EQ(requests(), 2U);
}

TEST_F(DamagedStore, ManyReadersOfManyDamagedChunksAllGetTheirs) {
  source_.AddImage(kRef, {TarWriter()
                              .File("a", Noise(100'000, 1))
                              .File("b", Noise(100'000, 2))
                              .File("c", Noise(100'000, 3))
                              .End()
                              .bytes()});
  ASSERT_EQ(ReadPath("a"), Noise(100'000, 1));
  Stop();
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    ASSERT_EQ(Damage("packs", Noise(100'000, seed)), 1U);
    ASSERT_EQ(Damage("blobs", Noise(100'000, seed)), 1U);
  }
  const std::shared_ptr<const Package> package = Must(Open());
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 12; ++i) {
    readers.emplace_back([&, i] {
      EXPECT_EQ(Read(*package, std::string(1, static_cast<char>('a' + i % 3))),
                Noise(100'000, 1 + i % 3));
    });
  }
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace ocifs::store
