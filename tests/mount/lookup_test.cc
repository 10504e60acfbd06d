#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class LookupTest : public Mounted {};

TEST_F(LookupTest, FindsPackagesUnderEverySpelling) {
  const store::Digest digest = source().AddImage("localhost:5000/app/web:1.0", {SmallTar()});
  Mount();
  for (const std::string& path :
       {std::string("localhost:5000/app/web/1.0"), std::string("localhost+5000/app/web/1.0"),
        std::string("localhost+5000/app/web:1.0"), std::string("localhost+5000/app/web+1.0"),
        "localhost+5000/app/web/" + digest.ToString(),
        "localhost+5000/app/web/sha256+" + digest.hex(),
        "localhost+5000/app/web@" + digest.ToString(),
        "localhost+5000/app/web@sha256+" + digest.hex()}) {
    EXPECT_EQ(Read(path + "/greeting"), "hello\n") << path;
  }
}

TEST_F(LookupTest, MissingNamesAreEnoent) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  for (const char* path :
       {"nowhere.example", ".git", "kcl.mod", "reg.example/.git", "reg.example/app/web/2.0",
        "reg.example/app/web/.Trash-1000", "reg.example/app/web/1.0/missing",
        "reg.example/app/web/1.0/dir/missing", "reg.example/app/web:2.0"}) {
    EXPECT_EQ(StatErrno(path), ENOENT) << path;
  }
}

TEST_F(LookupTest, NamesThatCannotBeCostNoRequest) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app/web/1.0"), 0);
  const size_t before = source().total();
  for (const char* path : {".git", ".Trash-1000", "Makefile", "go.mod", "reg.example/.git",
                           "reg.example/app/.hidden", "reg.example/app/web/.git"}) {
    EXPECT_EQ(StatErrno(path), ENOENT) << path;
  }
  EXPECT_EQ(source().total(), before);
}

TEST_F(LookupTest, TheKernelRemembersWhatIsMissing) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app/web/1.0/missing"), ENOENT);
  const uint64_t before = session().counts().of(Operation::kLookup);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(StatErrno("reg.example/app/web/1.0/missing"), ENOENT);
  EXPECT_EQ(session().counts().of(Operation::kLookup), before);
}

TEST_F(LookupTest, NamesThatAreTooLongAreSoAndAskNobody) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app/web/1.0/greeting"), 0);
  const size_t before = source().total();
  EXPECT_EQ(StatErrno("reg.example/app/web/1.0/" + std::string(256, 'a')), ENAMETOOLONG);
  EXPECT_EQ(StatErrno(std::string(256, 'a')), ENAMETOOLONG);
  EXPECT_EQ(StatErrno("reg.example/" + std::string(1000, 'a')), ENAMETOOLONG);
  EXPECT_EQ(StatErrno("reg.example/app/web/1.0/" + std::string(255, 'a')), ENOENT);
  EXPECT_EQ(source().total(), before);
}

TEST_F(LookupTest, NamesOfAnyBytesAreExact) {
  TarWriter tar;
  const std::vector<std::string> names = {"new\nline", "\x1b[2J", "\xff\xfe", "-rf",
                                          "trailing ", "a\\b",    "é"};
  for (const std::string& name : names) tar.File(name, name);
  tar.End();
  source().AddImage("reg.example/app/odd:1.0", {tar.bytes()});
  Mount();
  for (const std::string& name : names) {
    EXPECT_EQ(Read("reg.example/app/odd/1.0/" + name), name);
  }
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(List("reg.example/app/odd/1.0"), sorted);
}

TEST_F(LookupTest, FirstAccessCostsWhatItMust) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(Read("reg.example/app/web:1.0/greeting"), "hello\n");
  EXPECT_EQ(source().count(Call::kManifest), 1u);
  EXPECT_EQ(source().count(Call::kBlob), 2u) << "config and layer";
  EXPECT_EQ(source().count(Call::kTags), 0u);
}

TEST_F(LookupTest, TheRequesterIsKnownToTheSource) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app/web:1.0"), 0);
  EXPECT_EQ(source().last_requester().uid, getuid());
  EXPECT_NE(source().last_requester().pid, 0u);
}

}  // namespace
}  // namespace ocifs::fs::testing
