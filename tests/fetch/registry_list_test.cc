// Referrers and the catalog: what is listed, by which way, and what is not taken for an answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fetch/source_fixture.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::ReferrersApi;
using ::testing::SizeIs;

class ReferrersTest : public SourceFixture {
 protected:
  store::Result<std::vector<store::Descriptor>> Referrers(std::string_view type = "") {
    return source_->ListReferrers(registry_.repository("team/app"), subject_, type, context_);
  }
  const store::Digest subject_ = registry_.AddArtifact("team/app", "1.0", {}).digest;
};

TEST_F(ReferrersTest, ByTheApiAndByTheFallbackTag) {
  for (const ReferrersApi api :
       {ReferrersApi::kOn, ReferrersApi::kFilters, ReferrersApi::kFiltersNot, ReferrersApi::kOff}) {
    SCOPED_TRACE(static_cast<int>(api));
    testing::FakeRegistry registry;
    registry.SetReferrersApi(api);
    const auto subject = registry.AddArtifact("team/app", "1.0", {}).digest;
    const auto sbom = registry.AddReferrer("team/app", subject, "application/sbom", {{"k", "v"}});
    registry.AddReferrer("team/app", subject, "application/signature");
    const auto repository = registry.repository("team/app");
    const auto all = source_->ListReferrers(repository, subject, "", context_);
    ASSERT_TRUE(all) << all.error().message;
    EXPECT_THAT(*all, SizeIs(2));
    const auto some = source_->ListReferrers(repository, subject, "application/sbom", context_);
    ASSERT_TRUE(some) << some.error().message;
    ASSERT_THAT(*some, SizeIs(1));
    EXPECT_EQ(some->front().digest, sbom.digest);
    EXPECT_EQ(some->front().artifact_type, "application/sbom");
    EXPECT_EQ(*store::FindAnnotation(some->front().annotations, "k"), "v");
  }
}

TEST_F(ReferrersTest, NothingRefersToIt) {
  const auto none = Referrers();
  ASSERT_TRUE(none);
  EXPECT_THAT(*none, IsEmpty());
  EXPECT_THAT(registry_.request_lines(), SizeIs(2)) << "the API and the fallback tag";
}

TEST_F(ReferrersTest, InPages) {
  registry_.SetReferrersApi(ReferrersApi::kOn);
  registry_.SetPaging({.page_size = 2});
  for (int i = 0; i < 5; ++i) {
    registry_.AddReferrer("team/app", subject_, "type/" + std::to_string(i));
  }
  const auto all = Referrers();
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_THAT(*all, SizeIs(5));
}

TEST_F(ReferrersTest, AFailureThatPassesIsNoEmptyList) {
  registry_.SetReferrersApi(ReferrersApi::kOn);
  registry_.AddReferrer("team/app", subject_, "application/signature");
  registry_.Inject({.path = "/referrers/", .times = 1, .status = 503});
  const auto all = Referrers();
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_THAT(*all, SizeIs(1));
  registry_.Inject({.path = "/referrers/", .status = 500});
  EXPECT_FALSE(Referrers());
}

TEST_F(ReferrersTest, AMirrorThatKnowsOfNoneIsNotTheEnd) {
  registry_.SetReferrersApi(ReferrersApi::kOn);
  registry_.AddReferrer("team/app", subject_, "application/signature");
  other_.MirrorOf(registry_, {.behaviour = testing::MirrorOptions::Behaviour::kEmpty});
  UseSource(std::nullopt, {{registry_.host(), {.mirrors = {other_.url()}}}});
  const auto all = Referrers();
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_THAT(*all, SizeIs(1));
}

using CatalogTest = SourceFixture;

TEST_F(CatalogTest, OnlyWhereItIsWanted) {
  registry_.ServeCatalog();
  registry_.AddArtifact("team/app", "1.0", {});
  EXPECT_FALSE(source_->HasCatalog(registry_.registry()));
  const auto refused = source_->ListCatalog(registry_.registry(), context_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(registry_.requests(), IsEmpty());
}

TEST_F(CatalogTest, InPagesAndWithAScopeOfItsOwn) {
  registry_.ServeCatalog();
  registry_.SetPaging({.page_size = 1});
  registry_.RequireBearer({});
  registry_.AddArtifact("team/app", "1.0", {});
  registry_.AddArtifact("other", "1.0", {});
  UseSource(std::nullopt, {}, {.catalogs = {registry_.host()}});
  EXPECT_TRUE(source_->HasCatalog(registry_.registry()));
  const auto catalog = source_->ListCatalog(registry_.registry(), context_);
  ASSERT_TRUE(catalog) << catalog.error().message;
  EXPECT_THAT(*catalog, ElementsAre("other", "team/app"));
  EXPECT_EQ(registry_.tokens_issued(), 1U);
}

}  // namespace
}  // namespace ocifs::fetch
