// export, import and du as a script sees them: output and exit status.
#include "tools/transfer_commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "store/json.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::tools {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class TransferCommands : public ::testing::Test {
 protected:
  TransferCommands() {
    harness::TarWriter tar;
    tar.File("main.k", "a = 1\n").End();
    registry_.AddArtifact("kcl/hello", "1.0", {{.bytes = tar.bytes()}});
    name_ = registry_.reference("kcl/hello", "1.0").ToString();
  }

  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome Run(int (*command)(const CommandOptions&), CommandOptions options,
              const std::string& store) {
    options.config.store = directory_ / store;
    options.config.auth_file = directory_ / "no-auth.json";
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int status = command(options);
    std::string out = ::testing::internal::GetCapturedStdout();
    return {status, std::move(out), ::testing::internal::GetCapturedStderr()};
  }
  static store::Json Parsed(const std::string& text) {
    store::Result<store::Json> json = store::Json::Parse(text);
    EXPECT_TRUE(json) << text;
    return json ? *std::move(json) : store::Json();
  }

  const testing::TempDir directory_;
  testing::FakeRegistry registry_;
  std::string name_;
};

TEST_F(TransferCommands, CarryAPackageFromStoreToStore) {
  const std::string tar = directory_ / "out.tar";
  CommandOptions exporting;
  exporting.arguments = {name_, tar};
  Outcome done = Run(Export, exporting, "here");
  ASSERT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.out, MatchesRegex("exported " + name_ + " \\(.*B\\)\n"));

  const size_t before = registry_.requests().size();
  CommandOptions importing;
  importing.file = tar;
  done = Run(Import, importing, "there");
  ASSERT_EQ(done.status, 0) << done.err;
  EXPECT_EQ(done.out, "imported " + name_ + " (6 B)\n");
  importing.json = true;
  importing.arguments = {"example.com/other/name:2"};
  done = Run(Import, importing, "there");
  ASSERT_EQ(done.status, 0) << done.err;
  const store::Json imported = Parsed(done.out);
  ASSERT_EQ(imported.array()->size(), 1u);
  EXPECT_EQ(imported.array()->front().FindText("reference"), "example.com/other/name:2");
  EXPECT_EQ(*imported.array()->front().Find("was_there")->boolean(), false);
  EXPECT_EQ(registry_.requests().size(), before) << "an import asks nobody";

  exporting.json = true;
  exporting.config.offline = true;
  exporting.arguments = {name_, "example.com/other/name:2", directory_ / "again"};
  done = Run(Export, exporting, "there");
  ASSERT_EQ(done.status, 0) << done.err;
  EXPECT_EQ(Parsed(done.out).Find("packages")->array()->size(), 2u);
}

TEST_F(TransferCommands, FailuresAreToldAndLeaveNothing) {
  CommandOptions options;
  options.arguments = {name_};
  Outcome done = Run(Export, options, "here");
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("REFERENCE... DIRECTORY or FILE.tar"));
  options.arguments = {name_, "not a reference", directory_ / "out"};
  done = Run(Export, options, "here");
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("not a reference"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "out"));
  EXPECT_EQ(done.out, "");
  // Names of files are strangers' text, too.
  options.arguments = {};
  options.file = directory_.Write("\x1b[2J.tar", "no tar");
  done = Run(Import, options, "here");
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("\\x1b[2J.tar"));
  options.arguments = {name_};
  done = Run(DiskUsage, options, "here");
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr(name_ + " is not in the store"));
}

TEST_F(TransferCommands, DiskUsageOfAllAndOfSome) {
  CommandOptions options;
  Outcome done = Run(DiskUsage, options, "here");
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.out, ::testing::StartsWith("total of 0 packages: 0 B apparent, 0 B stored"));
  CommandOptions exporting;
  exporting.arguments = {name_, directory_ / "out"};
  ASSERT_EQ(Run(Export, exporting, "here").status, 0);
  for (const bool named : {false, true}) {
    if (named) options.arguments = {name_};
    done = Run(DiskUsage, options, "here");
    EXPECT_EQ(done.status, 0) << done.err;
    EXPECT_THAT(done.out, MatchesRegex("REFERENCE +APPARENT +STORED +SHARED +RECLAIMABLE\n" +
                                       name_ + " +6 B .*\ntotal of 1 packages: .* on disk\n"));
  }
  options.json = true;
  done = Run(DiskUsage, options, "here");
  const store::Json json = Parsed(done.out);
  const store::Json& package = json.Find("packages")->array()->front();
  EXPECT_EQ(*package.Find("apparent_bytes")->integer(), 6);
  EXPECT_EQ(*package.Find("stored_bytes")->integer(),
            *json.Find("total")->Find("stored_bytes")->integer());
  EXPECT_EQ(*package.Find("reclaimable_bytes")->integer(),
            *package.Find("stored_bytes")->integer());
}

}  // namespace
}  // namespace ocifs::tools
