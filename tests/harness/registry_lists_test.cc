#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/manifest.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/plain_client.h"

namespace ocifs::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class RegistryListsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto artifact = registry_.AddArtifact("team/app", "a", {});
    registry_.AddTags("team/app", {"b", "c", "d", "e"}, artifact.digest);
    subject_ = artifact.digest;
  }
  // The body and Link of a path.
  std::string List(const std::string& path) {
    const PlainAnswer answer = Get(registry_.url() + path);
    return std::to_string(answer.status) + " " + answer.body + " " + answer.Header("link");
  }
  std::string Referrers(const std::string& query = "") {
    return List("/v2/team/app/referrers/" + subject_->ToString() + query);
  }

  const std::string tags_ = "/v2/team/app/tags/list";
  FakeRegistry registry_;
  std::optional<store::Digest> subject_;
};

TEST_F(RegistryListsTest, AllTagsAtOnceUnlessTheClientWantsFewer) {
  EXPECT_EQ(List(tags_), R"(200 {"name":"team/app","tags":["a","b","c","d","e"]} )");
  EXPECT_EQ(List(tags_ + "?n=2"), R"(200 {"name":"team/app","tags":["a","b"]} )"
                                  R"(</v2/team/app/tags/list?n=2&last=b>; rel="next")");
  EXPECT_EQ(List(tags_ + "?n=2&last=d"), R"(200 {"name":"team/app","tags":["e"]} )");
  EXPECT_EQ(List(tags_ + "?last=zz"), R"(200 {"name":"team/app","tags":[]} )");
  EXPECT_EQ(List(tags_ + "?n=0"), R"(200 {"name":"team/app","tags":[]} )");
}

TEST_F(RegistryListsTest, TagsOfARepositoryWithoutAnyAreNull) {
  registry_.AddBlob("empty", "x");
  EXPECT_EQ(List("/v2/empty/tags/list"), R"(200 {"name":"empty","tags":null} )");
  EXPECT_THAT(List("/v2/unknown/tags/list"), HasSubstr("NAME_UNKNOWN"));
}

TEST_F(RegistryListsTest, ServerPagesEvenIfTheClientWantsMore) {
  registry_.SetTagPageSize(3);
  EXPECT_EQ(List(tags_ + "?n=1000"), R"(200 {"name":"team/app","tags":["a","b","c"]} )"
                                     R"(</v2/team/app/tags/list?n=3&last=c>; rel="next")");
}

TEST_F(RegistryListsTest, LinksOfEveryKind) {
  using Next = Paging::Next;
  registry_.SetPaging({.page_size = 2, .next = Next::kRelative});
  EXPECT_THAT(List(tags_), HasSubstr("<list?n=2&last=b>;"));
  registry_.SetPaging({.page_size = 2, .next = Next::kAbsolute});
  EXPECT_THAT(List(tags_), HasSubstr("<" + registry_.url() + tags_ + "?n=2&last=b>;"));
  registry_.SetPaging({.next = Next::kForeign, .foreign_url = "http://other.example"});
  EXPECT_THAT(List(tags_), HasSubstr("<http://other.example" + tags_ + "?n=5&last=x>;"));
  registry_.SetPaging({.page_size = 2, .next = Next::kSame});
  EXPECT_THAT(List(tags_ + "?last=b"), HasSubstr("<" + tags_ + "?last=b>;"));
}

TEST_F(RegistryListsTest, EndlessListsNeverRepeatThemselves) {
  registry_.SetPaging({.page_size = 2, .next = Paging::Next::kEndless});
  std::set<std::string> links;
  std::string path = tags_;
  for (int i = 0; i < 20; ++i) {
    const PlainAnswer answer = Get(registry_.url() + path);
    EXPECT_THAT(answer.body, HasSubstr("endless-"));
    const std::string link = answer.Header("link");
    EXPECT_TRUE(links.insert(link).second) << link;
    path = link.substr(1, link.find('>') - 1);
  }
}

TEST_F(RegistryListsTest, CatalogIsPagedOnceItIsThere) {
  EXPECT_THAT(List("/v2/_catalog"), HasSubstr("404 page not found"));
  registry_.ServeCatalog();
  registry_.AddBlob("team/two", "x");
  EXPECT_EQ(List("/v2/_catalog"), R"(200 {"repositories":["team/app","team/two"]} )");
  EXPECT_EQ(List("/v2/_catalog?n=1"),
            R"(200 {"repositories":["team/app"]} </v2/_catalog?n=1&last=team%2Fapp>; rel="next")");
  EXPECT_EQ(List("/v2/_catalog?n=1&last=team%2Fapp"), R"(200 {"repositories":["team/two"]} )");
  registry_.RequireBearer({});
  EXPECT_THAT(Get(registry_.url() + "/v2/_catalog").Header("www-authenticate"),
              HasSubstr("scope=\"registry:catalog:*\""));
}

TEST_F(RegistryListsTest, ReferrersWithoutTheApiAreAFallbackTag) {
  const auto first = registry_.AddReferrer("team/app", *subject_, "application/sig", {{"k", "v"}});
  const auto second = registry_.AddReferrer("team/app", *subject_, "application/sbom");
  EXPECT_THAT(Referrers(), HasSubstr("404 page not found"));
  const std::string tag = "sha256-" + subject_->ToString().substr(7);
  const PlainAnswer index = Get(registry_.url() + "/v2/team/app/manifests/" + tag,
                                {{"Accept", std::string(store::media_type::kOciIndex)}});
  EXPECT_EQ(index.status, 200);
  EXPECT_THAT(index.body, HasSubstr(first.digest.ToString()));
  EXPECT_THAT(index.body, HasSubstr(second.digest.ToString()));
  EXPECT_THAT(index.body, HasSubstr(R"("artifactType":"application/sig","annotations":{"k":"v"})"));
  EXPECT_THAT(first.manifest, HasSubstr(R"("subject":{"mediaType":)"));
  EXPECT_THAT(List(tags_), HasSubstr(tag)) << "a tag like others";
}

TEST_F(RegistryListsTest, ReferrersApiFiltersAndSaysSo) {
  registry_.SetReferrersApi(ReferrersApi::kFilters);
  const auto sig = registry_.AddReferrer("team/app", *subject_, "application/sig");
  const auto sbom = registry_.AddReferrer("team/app", *subject_, "application/sbom");
  EXPECT_THAT(List(tags_), Not(HasSubstr("sha256-"))) << "no fallback tag beside the API";
  EXPECT_THAT(Referrers(), HasSubstr(sig.digest.ToString()));
  EXPECT_THAT(Referrers("?artifactType=application/sbom"), Not(HasSubstr(sig.digest.ToString())));
  EXPECT_THAT(Referrers("?artifactType=application/sbom"), HasSubstr(sbom.digest.ToString()));
  const std::string url = registry_.url() + "/v2/team/app/referrers/" + subject_->ToString();
  EXPECT_EQ(Get(url).Header("oci-filters-applied"), "");
  EXPECT_EQ(Get(url).Header("content-type"), store::media_type::kOciIndex);
  EXPECT_EQ(Get(url + "?artifactType=x").Header("oci-filters-applied"), "artifactType");
  registry_.SetReferrersApi(ReferrersApi::kOn);
  EXPECT_EQ(Get(url + "?artifactType=x").Header("oci-filters-applied"), "");
  EXPECT_THAT(Referrers("?artifactType=x"), HasSubstr(sig.digest.ToString()));
  registry_.SetReferrersApi(ReferrersApi::kFiltersNot);
  EXPECT_EQ(Get(url + "?artifactType=x").Header("oci-filters-applied"), "artifactType");
  EXPECT_THAT(Referrers("?artifactType=x"), HasSubstr(sig.digest.ToString()));
}

TEST_F(RegistryListsTest, ReferrersArePagedAndMayHaveNone) {
  registry_.SetReferrersApi(ReferrersApi::kFilters);
  EXPECT_THAT(Referrers(), HasSubstr(R"("manifests":[]})"));
  std::vector<store::Digest> digests;
  for (int i = 0; i < 3; ++i) {
    digests.push_back(
        registry_.AddReferrer("team/app", *subject_, "application/t", {{"i", std::to_string(i)}})
            .digest);
  }
  registry_.SetPaging({.page_size = 2});
  EXPECT_THAT(Referrers(), HasSubstr("?n=2&last=2>; rel=\"next\""));
  EXPECT_THAT(Referrers(), Not(HasSubstr(digests[2].ToString())));
  EXPECT_THAT(Referrers("?n=2&last=2"), HasSubstr(digests[2].ToString()));
  EXPECT_THAT(Referrers("?n=2&last=2"), Not(HasSubstr("rel=")));
  EXPECT_THAT(List("/v2/team/app/referrers/nonsense"), HasSubstr("400 "));
  registry_.SetPaging({.page_size = 2, .next = Paging::Next::kEndless});
  EXPECT_THAT(Referrers("?last=100"), HasSubstr("&last=102>;"));
}

}  // namespace
}  // namespace ocifs::testing
