// The parts put together as the programs do, against the fake registry: what a pull costs, and that
// what was pulled is there without it.
#include "tools/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "tests/harness/fake_registry.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::tools {
namespace {

Config ConfigFor(const std::string& store) {
  Config config;
  config.store = store;
  config.auth_file = store + "-no-auth.json";
  return config;
}

TEST(EngineTest, AFirstAccessIsManifestConfigAndLayerAndASecondNothing) {
  const testing::TempDir directory;
  testing::FakeRegistry registry;
  harness::TarWriter tar;
  tar.File("main.k", "a = 1\n").End();
  registry.AddArtifact("kcl/hello", "1.0", {{.bytes = tar.bytes()}});
  const store::Reference reference = registry.reference("kcl/hello", "1.0");
  const Config config = ConfigFor(directory / "store");
  const store::RequestContext context;
  for (int life = 0; life < 2; ++life) {
    auto engine = Engine::Create(config);
    ASSERT_TRUE(engine) << engine.error().message;
    store::PullThrough& pull = (*engine)->pull();
    for (int access = 0; access < 2; ++access) {
      const auto resolution = pull.Resolve(reference, context);
      ASSERT_TRUE(resolution) << resolution.error().message;
      const auto package = pull.Open(reference.repository(), resolution->digest, context);
      ASSERT_TRUE(package) << package.error().message;
      const auto node = (*package)->tree().Walk("main.k");
      ASSERT_TRUE(node);
      std::string content(6, '\0');
      const auto read =
          pull.Read(**package, *node, 0, std::as_writable_bytes(std::span(content)), context);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_EQ(content, "a = 1\n");
      EXPECT_LE(registry.requests().size(), 3u);
    }
    ASSERT_TRUE(pull.Flush(context));
  }
  std::vector<std::string> lines = registry.request_lines();
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const std::string& line) { return line.starts_with("HEAD"); }),
            0);
  EXPECT_EQ(registry.CountRequests("/manifests/"), 1u);
}

TEST(EngineTest, AConfiguredLayoutIsARegistry) {
  const testing::TempDir directory;
  Config config = ConfigFor(directory / "store");
  config.registries["example.local"].layout =
      std::string(OCIFS_SOURCE_DIR) + "/packaging/example/layout";
  auto engine = Engine::Create(config);
  ASSERT_TRUE(engine) << engine.error().message;
  ASSERT_EQ((*engine)->registries().size(), 1u);
  const store::RequestContext context;
  const auto reference = store::Reference::Parse("example.local/kcl/hello:0.1.0");
  ASSERT_TRUE(reference);
  const auto resolution = (*engine)->pull().Resolve(*reference, context);
  ASSERT_TRUE(resolution) << resolution.error().message;
  const auto package = (*engine)->pull().Open(reference->repository(), resolution->digest, context);
  ASSERT_TRUE(package) << package.error().message;
  EXPECT_TRUE((*package)->tree().Walk("kcl.mod"));
}

TEST(EngineTest, AForeignDirectoryIsNoStore) {
  const testing::TempDir directory;
  directory.Write("store/somebody's file", "x");
  const auto engine = Engine::Create(ConfigFor(directory / "store"));
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, store::ErrorCode::kInvalid);
  EXPECT_THAT(engine.error().message, ::testing::HasSubstr("empty"));
}

}  // namespace
}  // namespace ocifs::tools
