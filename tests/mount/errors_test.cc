#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

using store::Error;
using store::ErrorCode;

class ErrorsTest : public Mounted {};

TEST_F(ErrorsTest, EachFailureReachesTheCallerAsItsOwnErrno) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  const std::pair<ErrorCode, int> cases[] = {
      {ErrorCode::kUnavailable, EHOSTUNREACH},
      {ErrorCode::kTimedOut, ETIMEDOUT},
      {ErrorCode::kDenied, EACCES},
      {ErrorCode::kUnauthenticated, EACCES},
      {ErrorCode::kRateLimited, EREMOTEIO},
      {ErrorCode::kRemote, EREMOTEIO},
      {ErrorCode::kCorrupt, EBADMSG},
      {ErrorCode::kTooLarge, EFBIG},
      {ErrorCode::kUnsupported, EOPNOTSUPP},
      {ErrorCode::kTooManyFiles, ENFILE},
      {ErrorCode::kOutOfMemory, ENOMEM},
  };
  for (const auto& [code, number] : cases) {
    source().FailWith(Call::kManifest, Error{code, "for this test"});
    EXPECT_EQ(StatErrno("reg.example/app/web:1.0"), number) << store::ErrorCodeName(code);
  }
  source().FailWith(Call::kManifest, std::nullopt);
  EXPECT_EQ(Read("reg.example/app/web:1.0/greeting"), "hello\n") << "no failure was remembered";
}

TEST_F(ErrorsTest, DamagedLayersAreRefusedWhole) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().Damage(source().LayerOf(digest, 0));
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app/web:1.0/greeting"), EBADMSG);
  source().Damage(source().LayerOf(digest, 0));
  EXPECT_EQ(Read("reg.example/app/web:1.0/greeting"), "hello\n");
}

TEST_F(ErrorsTest, WithoutANetworkWhatWasReadStays) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  source().FailAllWith(Error{ErrorCode::kUnavailable, "connecting: refused"});
  world().clock += 100'000;
  Remount();
  EXPECT_EQ(Read("reg.example/app/web/1.0/greeting"), "hello\n");
  EXPECT_EQ(Read("reg.example/app/web/1.0/dir/inner"), "inside\n");
  EXPECT_EQ(List("reg.example/app/web/1.0").size(), 3u);
  EXPECT_EQ(List("reg.example/app/web"), std::vector<std::string>{"1.0"});
  EXPECT_EQ(StatErrno("reg.example/app/web/2.0"), EHOSTUNREACH);
  EXPECT_EQ(StatErrno("reg.example/other/thing"), EHOSTUNREACH);
  EXPECT_EQ(StatErrno("other.example"), EHOSTUNREACH);
  EXPECT_EQ(StatErrno("reg.example/.git"), ENOENT);
}

TEST_F(ErrorsTest, ARegistryThatSaysNothingGivesATimeout) {
  world().pull_options.stall_timeout = std::chrono::milliseconds(50);
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app"), 0);
  source().Hold(Call::kManifest);
  EXPECT_EQ(StatErrno("reg.example/app/web:1.0"), ETIMEDOUT);
  source().Release(Call::kManifest);
  EXPECT_TRUE(Eventually([&] { return StatErrno("reg.example/app/web:1.0") == 0; }));
}

}  // namespace
}  // namespace ocifs::fs::testing
