// What names mean and what they cost: one test per claim of SEMANTICS.md, "Names".
#include <gtest/gtest.h>

#include "store/text.h"
#include "tests/fs/world.h"

namespace ocifs::fs::testing {
namespace {

using store::Error;
using store::ErrorCode;

const Error kAway{ErrorCode::kUnavailable, "connecting: refused"};

class Names : public ::testing::Test {
 protected:
  harness::ScriptedSource& source() { return world.source; }
  size_t manifests() { return world.source.count(Call::kManifest); }
  size_t tag_lists() { return world.source.count(Call::kTags); }
  // What a call costs.
  struct Cost {
    size_t manifests;
    size_t tag_lists;
    friend bool operator==(const Cost&, const Cost&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Cost& cost) {
      return out << cost.manifests << " manifests, " << cost.tag_lists << " tag lists";
    }
  };
  Cost CostOf(const std::function<void()>& call) {
    const Cost before{manifests(), tag_lists()};
    call();
    return {manifests() - before.manifests, tag_lists() - before.tag_lists};
  }
  Cost CostOfLookup(std::string_view path) {
    return CostOf([&] { (void)world.Walk(path); });
  }
  World world;
};

// --- Registries ---

TEST_F(Names, ARegistryExistsIfItIsConfigured) {
  world.fs_options.registries = {Must(store::Registry::Parse("myregistry"))};
  world.Start();
  EXPECT_TRUE(world.Exists("myregistry"));
  EXPECT_EQ(source().total(), 0u);
  EXPECT_EQ(world.Names(""), std::vector<std::string>{"myregistry"});
}

TEST_F(Names, ARegistryExistsIfItsNameResolves) {
  source().AddRegistry("reg.example");
  world.Start();
  EXPECT_TRUE(world.Exists("reg.example"));
  EXPECT_EQ(source().count(Call::kFindRegistry), 1u);
  EXPECT_TRUE(world.Exists("reg.example"));
  EXPECT_EQ(source().count(Call::kFindRegistry), 1u) << "once is enough";
  EXPECT_EQ(world.ErrorOf("nowhere.example"), ErrorCode::kNotFound);
  EXPECT_EQ(world.ErrorOf("nowhere.example"), ErrorCode::kNotFound);
  EXPECT_EQ(source().count(Call::kFindRegistry), 2u) << "a no is remembered";
}

TEST_F(Names, WhatCannotBeARegistryCostsNothing) {
  world.Start();
  for (const char* name : {".git", ".Trash-1000", "etc", "kcl.mod", "go.mod", "package.json",
                           "README.md", "a b", "host:0"}) {
    EXPECT_EQ(world.ErrorOf(name), ErrorCode::kNotFound) << name;
  }
  EXPECT_EQ(source().total(), 0u);
}

TEST_F(Names, ARegistryWithSomethingInTheStoreExistsWithoutAnyNetwork) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/greeting"), "hello\n");
  world.Restart();
  source().FailAllWith(kAway);
  const size_t before = source().total();
  EXPECT_TRUE(world.Exists("reg.example"));
  EXPECT_EQ(world.Names(""), std::vector<std::string>{"reg.example"});
  EXPECT_EQ(source().total(), before);
}

TEST_F(Names, AnUnreachableResolverIsNotANo) {
  source().FailAllWith(kAway);
  world.Start();
  EXPECT_EQ(world.ErrorOf("reg.example"), ErrorCode::kUnavailable);
  source().FailAllWith(std::nullopt);
  source().AddRegistry("reg.example");
  EXPECT_TRUE(world.Exists("reg.example")) << "a failure must not be remembered as absence";
}

// --- First components ---

TEST_F(Names, AFirstComponentIsPresumedAtNoRequest) {
  source().AddRegistry("reg.example");
  world.Start();
  EXPECT_TRUE(world.Exists("reg.example/anything"));
  EXPECT_EQ(manifests() + tag_lists(), 0u);
}

TEST_F(Names, AFirstComponentWithADotNeedsProof) {
  source().AddImage("reg.example/my.app:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/my.app"), (Cost{0, 1}));
  EXPECT_TRUE(world.Exists("reg.example/my.app"));
  EXPECT_EQ(CostOfLookup("reg.example/kcl.mod"), (Cost{0, 1}));
  EXPECT_EQ(world.ErrorOf("reg.example/kcl.mod"), ErrorCode::kNotFound);
  EXPECT_EQ(CostOfLookup("reg.example/kcl.mod"), (Cost{0, 0})) << "a no is remembered";
}

TEST_F(Names, WhatCannotBeAComponentOrTagCostsNothing) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  (void)world.InodeOf("reg.example/app/web/1.0");
  const size_t before = source().total();
  for (const char* path :
       {"reg.example/.git", "reg.example/UPPER", "reg.example/a b", "reg.example/app/web/.git",
        "reg.example/app/web/.Trash-1000", "reg.example/app/web/-x", "reg.example/app/web/a:b:c"}) {
    EXPECT_EQ(world.ErrorOf(path), ErrorCode::kNotFound) << path;
  }
  EXPECT_EQ(source().total(), before);
}

TEST_F(Names, PresumedDirectoriesAreEmptyAndStay) {
  source().AddImage("reg.example/org/app:1.0", {SmallTar()});
  world.Start();
  // A shell that completes "reg.example/org/a" lists "org", of which the registry knows nothing.
  const InodeNumber inode = world.InodeOf("reg.example/org");
  const auto names = world.NamesIn(inode);
  ASSERT_TRUE(names) << names.error().message;
  EXPECT_TRUE(names->empty());
  EXPECT_TRUE(world.Exists("reg.example/org"));
  EXPECT_TRUE(world.Exists("reg.example/org/app/1.0"));
  const auto now = world.NamesIn(inode);
  ASSERT_TRUE(now);
  EXPECT_EQ(*now, std::vector<std::string>{"app"}) << "what was found in it is listed";
}

TEST_F(Names, TooManyPresumptionsNeedProof) {
  source().AddImage("reg.example/real:1.0", {SmallTar()});
  world.fs_options.slots.max_presumed = 2;
  world.Start();
  EXPECT_TRUE(world.Exists("reg.example/a"));
  EXPECT_TRUE(world.Exists("reg.example/b"));
  EXPECT_EQ(world.ErrorOf("reg.example/c"), ErrorCode::kNotFound);
  EXPECT_TRUE(world.Exists("reg.example/real"));
}

// --- Repositories and tags ---

TEST_F(Names, AWordIsAskedForAsARepositoryFirst) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/app/web"), (Cost{0, 1}));
  EXPECT_EQ(CostOfLookup("reg.example/app/web"), (Cost{0, 0}));
  EXPECT_EQ(CostOfLookup("reg.example/app/web/1.0"), (Cost{0, 0})) << "the list names it";
}

TEST_F(Names, AVersionIsAskedForAsATagFirst) {
  source().AddImage("reg.example/app:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/app/1.0"), (Cost{1, 0}));
  EXPECT_TRUE(world.Exists("reg.example/app/1.0"));
  EXPECT_EQ(CostOfLookup("reg.example/app/1.0"), (Cost{0, 0}));
}

TEST_F(Names, AWordMayBeATag) {
  source().AddImage("reg.example/app:edge", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/app/edge"), (Cost{1, 1}));
  EXPECT_EQ(world.Read("reg.example/app/edge/greeting"), "hello\n");
}

TEST_F(Names, AVersionMayBeARepository) {
  source().AddImage("reg.example/app/2048:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/app/2048"), (Cost{1, 1}));
  EXPECT_EQ(world.Read("reg.example/app/2048/1.0/greeting"), "hello\n");
}

TEST_F(Names, AFreshTagListAnswersForAllOfItsNames) {
  for (int i = 0; i < 50; ++i) {
    source().AddListedTag("reg.example/app/web:1." + std::to_string(i));
  }
  world.Start();
  EXPECT_EQ(world.Names("reg.example/app/web").size(), 50u);
  const Cost cost = CostOf([&] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(world.Exists("reg.example/app/web/1." + std::to_string(i)));
    }
    EXPECT_EQ(world.ErrorOf("reg.example/app/web/kcl.mod"), ErrorCode::kNotFound);
    EXPECT_EQ(world.ErrorOf("reg.example/app/web/go.mod"), ErrorCode::kNotFound);
    EXPECT_EQ(world.ErrorOf("reg.example/app/web/9.9"), ErrorCode::kNotFound);
    EXPECT_EQ(world.ErrorOf("reg.example/app/web/Makefile"), ErrorCode::kNotFound);
  });
  EXPECT_EQ(cost, (Cost{0, 0}));
}

TEST_F(Names, ARepositoryNestedInARepositoryIsFound) {
  source().AddImage("reg.example/app:1.0", {SmallTar("outer\n")});
  source().AddImage("reg.example/app/charts:1.0", {SmallTar("inner\n")});
  world.Start();
  EXPECT_EQ(world.Read("reg.example/app/1.0/greeting"), "outer\n");
  EXPECT_EQ(world.Read("reg.example/app/charts/1.0/greeting"), "inner\n");
}

TEST_F(Names, AMissInARepositoryMakesTheNextOnesFree) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.pull_options.tag_list_ttl = std::chrono::seconds(60);
  world.Start();
  EXPECT_TRUE(world.Exists("reg.example/app/web/1.0"));
  (void)world.InodeOf("reg.example/app/web/1.0/greeting");
  world.clock += 3600;  // the list is old by now
  EXPECT_EQ(CostOfLookup("reg.example/app/web/kcl.mod"), (Cost{0, 1}));
  EXPECT_EQ(CostOfLookup("reg.example/app/web/go.mod"), (Cost{0, 0}));
  EXPECT_EQ(CostOfLookup("reg.example/app/web/package.json"), (Cost{0, 0}));
}

TEST_F(Names, ListedTagsAreResolvedAtTheFirstLookInside) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber repository = world.InodeOf("reg.example/app/web");
  const LookupReply tag = Must(world.LookupAt(repository, "1.0"));
  EXPECT_EQ(manifests(), 0u);
  EXPECT_EQ(tag.attributes->node.mode, 0555u);
  EXPECT_LE(tag.attribute_timeout, std::chrono::seconds(1));
  const Cost cost = CostOf([&] {
    const LookupReply file = Must(world.LookupAt(tag.attributes->inode, "greeting"));
    EXPECT_TRUE(file.attributes);
    EXPECT_EQ(file.attribute_timeout, kForever);
  });
  EXPECT_EQ(cost.tag_lists, 0u);
  EXPECT_LE(cost.manifests, 1u);
  EXPECT_EQ(Must(world.fs->GetAttributes(tag.attributes->inode, {})).timeout, kForever);
  EXPECT_EQ(Must(world.LookupAt(repository, "1.0")).attributes->inode, tag.attributes->inode);
}

TEST_F(Names, AListedTagThatIsGoneGivesNotFound) {
  source().AddListedTag("reg.example/app/web:gone");
  world.Start();
  const InodeNumber tag = world.InodeOf("reg.example/app/web/gone");
  const auto inside = world.LookupAt(tag, "file");
  ASSERT_FALSE(inside);
  EXPECT_EQ(inside.error().code, ErrorCode::kNotFound);
}

TEST_F(Names, ALongTagListIsNotReadForALookup) {
  source().SetPageSize(10);
  for (int i = 0; i < 100; ++i) source().AddListedTag("reg.example/app/web:a" + std::to_string(i));
  source().AddImage("reg.example/app/web:z9", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/app/web"), (Cost{0, 1}));
  const Cost cost = CostOfLookup("reg.example/app/web/z9");
  EXPECT_LE(cost.tag_lists, 1u);
  EXPECT_TRUE(world.Exists("reg.example/app/web/z9"));
}

// --- Exact forms and digests ---

TEST_F(Names, ExactFormsAskForOneManifestOnly) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(CostOfLookup("reg.example/app/web:1.0"), (Cost{1, 0}));
  EXPECT_EQ(world.Read("reg.example/app/web+1.0/greeting"), "hello\n");
  EXPECT_EQ(world.Read("reg.example/app/web@" + digest.ToString() + "/greeting"), "hello\n");
  EXPECT_EQ(world.Read("reg.example/app/web@sha256+" + digest.hex() + "/greeting"), "hello\n");
  EXPECT_EQ(world.ErrorOf("reg.example/app/web:2.0"), ErrorCode::kNotFound);
  EXPECT_EQ(CostOfLookup("reg.example/app/web:2.0"), (Cost{0, 0})) << "a no is remembered";
}

TEST_F(Names, DigestsAreTakenForGoodForEver) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  const InodeNumber repository = world.InodeOf("reg.example/app/web");
  for (const std::string& name : {"sha256:" + digest.hex(), "sha256+" + digest.hex()}) {
    const LookupReply reply = Must(world.LookupAt(repository, name));
    ASSERT_TRUE(reply.attributes);
    EXPECT_EQ(reply.entry_timeout, kForever);
    EXPECT_EQ(world.Read("reg.example/app/web/" + name + "/greeting"), "hello\n");
  }
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/sha256:" + std::string(64, '0')),
            ErrorCode::kNotFound);
}

TEST_F(Names, DifferentSpellingsAreDifferentDirectories) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  std::set<uint64_t> inodes;
  for (const std::string& path :
       {std::string("reg.example/app/web/1.0"), std::string("reg.example/app/web:1.0"),
        std::string("reg.example/app/web+1.0"), "reg.example/app/web/sha256:" + digest.hex()}) {
    inodes.insert(world.InodeOf(path).value());
  }
  EXPECT_EQ(inodes.size(), 4u);
}

TEST_F(Names, OfficialImagesOfDockerHub) {
  source().AddImage("docker.io/library/alpine:3.19", {SmallTar()});
  world.Start();
  EXPECT_EQ(world.Read("docker.io/alpine/3.19/greeting"), "hello\n");
  EXPECT_EQ(world.Read("docker.io/library/alpine/3.19/greeting"), "hello\n");
  EXPECT_EQ(world.Read("docker.io/alpine:3.19/greeting"), "hello\n");
}

// --- Tags that move ---

TEST_F(Names, AMovedTagLeadsToTheNewTreeWhileTheOldOneStaysReadable) {
  source().AddImage("reg.example/app/web:latest", {SmallTar("old\n")});
  world.Start();
  const InodeNumber old_root = world.InodeOf("reg.example/app/web/latest");
  const InodeNumber old_file = world.InodeOf("reg.example/app/web/latest/greeting");
  EXPECT_EQ(Must(world.ReadAll(old_file)), "old\n");

  source().AddImage("reg.example/app/web:latest", {SmallTar("new, and longer\n")});
  EXPECT_EQ(world.InodeOf("reg.example/app/web/latest"), old_root) << "fresh: not asked again";
  world.clock += 301;  // latest is believed for five minutes
  const InodeNumber new_root = world.InodeOf("reg.example/app/web/latest");
  EXPECT_NE(new_root, old_root);
  EXPECT_EQ(world.Read("reg.example/app/web/latest/greeting"), "new, and longer\n");
  EXPECT_EQ(Must(world.ReadAll(old_file)), "old\n");
  EXPECT_EQ(Must(world.NamesIn(old_root)).size(), 3u);
}

TEST_F(Names, AMovedTagIsTakenFromTheKernelUnderItsOtherNames) {
  source().AddImage("reg.example/app/web:latest", {SmallTar("old\n")});
  world.Start();
  const InodeNumber owner = world.InodeOf("reg.example/app");
  EXPECT_TRUE(world.Exists("reg.example/app/web:latest"));
  source().AddImage("reg.example/app/web:latest", {SmallTar("new\n")});
  world.clock += 301;
  EXPECT_TRUE(world.Exists("reg.example/app/web/latest"));
  const auto told = world.notifier.entries();
  EXPECT_NE(std::find(told.begin(), told.end(),
                      std::pair<uint64_t, std::string>(owner.value(), "web:latest")),
            told.end());
}

TEST_F(Names, ATagThatNeverExpiresIsAskedForOnce) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar("old\n")});
  world.Start();
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/greeting"), "old\n");
  source().AddImage("reg.example/app/web:1.0", {SmallTar("new\n")});
  world.clock += 365 * 86400;
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/greeting"), "old\n");
  const LookupReply reply = Must(world.LookupAt(world.InodeOf("reg.example/app/web"), "1.0"));
  EXPECT_EQ(reply.entry_timeout, std::chrono::seconds(3600)) << "long, but not for ever";
}

TEST_F(Names, TheKernelBelievesInLatestUntilItExpires) {
  source().AddImage("reg.example/app/web:latest", {SmallTar()});
  world.Start();
  (void)world.InodeOf("reg.example/app/web/latest/greeting");
  const InodeNumber repository = world.InodeOf("reg.example/app/web");
  EXPECT_EQ(Must(world.LookupAt(repository, "latest")).entry_timeout, std::chrono::seconds(300));
  world.clock += 100;
  EXPECT_EQ(Must(world.LookupAt(repository, "latest")).entry_timeout, std::chrono::seconds(200));
}

TEST_F(Names, AChangeThatSomebodyElseFoundIsPassedToTheKernel) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  (void)world.InodeOf("reg.example/app/web/1.0/greeting");
  world.fs->ReferenceChanged(Ref("reg.example/app/web:1.0"),
                             store::Digest::Of(store::AsBytes("another")));
  const auto told = world.notifier.entries();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].second, "1.0");
}

// --- Registries that are away, or refuse ---

TEST_F(Names, WithoutANetworkWhatWasReadStaysAndTheRestSaysWhy) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/greeting"), "hello\n");
  world.Restart();
  source().FailAllWith(kAway);
  world.clock += 7200;  // no tag list is fresh
  EXPECT_EQ(world.Read("reg.example/app/web/1.0/greeting"), "hello\n");
  EXPECT_EQ(world.Names("reg.example"), std::vector<std::string>{"app"});
  EXPECT_EQ(world.Names("reg.example/app"), std::vector<std::string>{"web"});
  EXPECT_EQ(world.Names("reg.example/app/web"), std::vector<std::string>{"1.0"});
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/2.0"), ErrorCode::kUnavailable);
  EXPECT_EQ(world.ErrorOf("reg.example/app/other"), ErrorCode::kUnavailable);
  EXPECT_EQ(world.ErrorOf("reg.example/app/web:2.0"), ErrorCode::kUnavailable);
  EXPECT_EQ(world.ErrorOf("other.example"), ErrorCode::kUnavailable);
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/.git"), ErrorCode::kNotFound);
}

TEST_F(Names, AFailureIsNeverRememberedAsAbsence) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  (void)world.InodeOf("reg.example/app");
  for (const ErrorCode code : {ErrorCode::kUnavailable, ErrorCode::kTimedOut, ErrorCode::kRemote,
                               ErrorCode::kRateLimited, ErrorCode::kTooManyFiles}) {
    source().FailAllWith(Error{code, "for now"});
    EXPECT_EQ(world.ErrorOf("reg.example/app/web:1.0"), code);
    EXPECT_EQ(world.ErrorOf("reg.example/app/web"), code);
  }
  source().FailAllWith(std::nullopt);
  EXPECT_TRUE(world.Exists("reg.example/app/web:1.0"));
  EXPECT_TRUE(world.Exists("reg.example/app/web"));
}

TEST_F(Names, ARefusalSaysNothingAboutAWord) {
  source().AddRegistry("reg.example");
  source().Refuse("reg.example/app/web");
  world.Start();
  // Perhaps it is a prefix of something that is open to us.
  const InodeNumber inode = world.InodeOf("reg.example/app/web");
  const auto names = world.NamesIn(inode);
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, ErrorCode::kDenied) << "the error appears inside";
}

TEST_F(Names, ARefusalOfAVersionIsAnError) {
  source().AddRegistry("reg.example");
  source().Refuse("reg.example/app/web");
  world.Start();
  EXPECT_EQ(world.ErrorOf("reg.example/app/web/1.0"), ErrorCode::kDenied);
}

TEST_F(Names, ARepositoryWhoseNestedOnesAreRefusedStillKnowsItsTags) {
  // Docker Hub refuses whatever it does not know.
  source().AddImage("docker.io/library/alpine:3.19", {SmallTar()});
  source().Refuse("docker.io/alpine/3.20");
  source().Refuse("docker.io/alpine/nonsense");
  world.Start();
  (void)world.InodeOf("docker.io/alpine/3.19");
  EXPECT_EQ(world.ErrorOf("docker.io/alpine/3.20"), ErrorCode::kNotFound);
  EXPECT_EQ(world.ErrorOf("docker.io/alpine/nonsense"), ErrorCode::kNotFound);
}

// --- Sources that can list what they hold ---

TEST_F(Names, ACatalogIsListedAndProvesNothing) {
  source().SetCatalog("reg.example", {"alpine", "team/app", "team/db"});
  source().AddArtifact("reg.example/secret/app:1.0", {{.title = "f", .content = "x"}});
  world.Start();
  EXPECT_EQ(world.Names("reg.example"), (std::vector<std::string>{"alpine", "team"}));
  EXPECT_EQ(world.Names("reg.example"), (std::vector<std::string>{"alpine", "team"}));
  EXPECT_EQ(source().count(Call::kCatalog), 1u) << "one list answers for a while";
  EXPECT_TRUE(world.Exists("reg.example/secret/app/1.0"))
      << "a registry need not tell everybody everything";
  source().FailWith(Call::kCatalog, kAway);
  EXPECT_EQ(world.Names("reg.example/team"), (std::vector<std::string>{"app", "db"}));
}

TEST_F(Names, ACatalogThatIsRefusedLeavesWhatIsKnown) {
  source().SetCatalog("reg.example", {"alpine"});
  source().FailWith(Call::kCatalog, Error{ErrorCode::kUnauthenticated, "401"});
  source().AddArtifact("reg.example/team/app:1.0", {{.title = "f", .content = "x"}});
  world.Start();
  EXPECT_TRUE(world.Exists("reg.example/team/app/1.0"));
  EXPECT_EQ(world.Names("reg.example"), std::vector<std::string>{"team"});
}

TEST_F(Names, AListOfRepositoriesDecides) {
  source().AllowListing("layout.example");
  source().AddImage("layout.example/app/web:1.0", {SmallTar()});
  source().AddImage("layout.example/tool:1.0", {SmallTar()});
  world.Start();
  EXPECT_EQ(world.Names("layout.example"), (std::vector<std::string>{"app", "tool"}));
  EXPECT_EQ(world.Names("layout.example/app"), std::vector<std::string>{"web"});
  EXPECT_EQ(world.ErrorOf("layout.example/nothing"), ErrorCode::kNotFound);
  EXPECT_EQ(world.ErrorOf("layout.example/app/nothing"), ErrorCode::kNotFound);
  EXPECT_EQ(world.ErrorOf("layout.example/app/web/2.0"), ErrorCode::kNotFound);
  EXPECT_EQ(world.Read("layout.example/app/web/1.0/greeting"), "hello\n");
}

// --- Waiting ---

TEST_F(Names, WithoutWaitingNothingIsAsked) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  auto at_once = [&](InodeNumber parent, std::string_view name) {
    const auto reply = world.LookupAt(parent, name, World::Never());
    return reply ? ErrorCode::kInternal : reply.error().code;
  };
  EXPECT_EQ(at_once(InodeNumber::MountPoint(), "reg.example"), ErrorCode::kWouldBlock);
  const InodeNumber owner = world.InodeOf("reg.example/app");
  const size_t before = source().total();
  EXPECT_EQ(at_once(owner, "web"), ErrorCode::kWouldBlock);
  EXPECT_EQ(at_once(owner, "1.0"), ErrorCode::kWouldBlock);
  EXPECT_EQ(at_once(owner, "web:1.0"), ErrorCode::kWouldBlock);
  EXPECT_EQ(source().total(), before);
  (void)world.InodeOf("reg.example/app/web/1.0/greeting");
  // All that is known is answered at once.
  EXPECT_EQ(Must(world.LookupAt(owner, "web", World::Never())).attributes->node.mode, 0555u);
  const InodeNumber web = world.InodeOf("reg.example/app/web");
  EXPECT_TRUE(Must(world.LookupAt(web, "1.0", World::Never())).attributes);
}

TEST_F(Names, InodeNumbersSurviveARestart) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  world.Start();
  std::map<std::string, uint64_t> before;
  const std::vector<std::string> paths = {"reg.example",
                                          "reg.example/app",
                                          "reg.example/app/web",
                                          "reg.example/app/web/1.0",
                                          "reg.example/app/web/1.0/dir/inner",
                                          "reg.example/app/web/1.0/.oci/manifest.json"};
  for (const std::string& path : paths) before[path] = world.InodeOf(path).value();
  world.Restart();
  // Asked for in another order.
  (void)world.InodeOf("reg.example/other");
  for (const std::string& path : paths)
    EXPECT_EQ(world.InodeOf(path).value(), before[path]) << path;
}

}  // namespace
}  // namespace ocifs::fs::testing
