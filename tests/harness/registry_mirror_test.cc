#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "store/manifest.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/plain_client.h"

namespace ocifs::testing {
namespace {

using Behaviour = MirrorOptions::Behaviour;
using ::testing::ElementsAre;

class RegistryMirrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    artifact_ = upstream_.AddArtifact("team/app", "1", {{.bytes = "layer"}});
  }
  PlainAnswer Manifest(const std::string& path, const std::string& query = "") {
    return Get(mirror_.url() + "/v2/" + path + "/manifests/1" + query,
               {{"Accept", std::string(store::media_type::kOciManifest)}});
  }
  PlainAnswer Layer() {
    return Get(mirror_.url() + "/v2/team/app/blobs/" + artifact_->layers[0].digest.ToString());
  }

  FakeRegistry upstream_;
  FakeRegistry mirror_;
  std::optional<FakeArtifact> artifact_;
};

TEST_F(RegistryMirrorTest, FaithfulMirrorFollowsItsUpstreamAndRecordsNamespaces) {
  EXPECT_EQ(Manifest("team/app").status, 404);
  mirror_.MirrorOf(upstream_);
  EXPECT_EQ(Manifest("team/app", "?ns=" + upstream_.host()).body, artifact_->manifest);
  EXPECT_EQ(Layer().body, "layer");
  const auto moved = upstream_.AddArtifact("team/app", "1", {{.bytes = "other"}});
  EXPECT_EQ(Manifest("team/app").body, moved.manifest);
  EXPECT_THAT(mirror_.namespaces(), ElementsAre("", upstream_.host(), "", ""));
  EXPECT_TRUE(upstream_.requests().empty());
}

TEST_F(RegistryMirrorTest, StaleMirrorKeepsWhatItHad) {
  mirror_.MirrorOf(upstream_, {.behaviour = Behaviour::kStale});
  upstream_.AddArtifact("team/app", "1", {{.bytes = "other"}});
  EXPECT_EQ(Manifest("team/app").body, artifact_->manifest);
  EXPECT_EQ(Manifest("team/app").Header("docker-content-digest"), artifact_->digest.ToString());
}

TEST_F(RegistryMirrorTest, EmptyAndBrokenMirrors) {
  mirror_.MirrorOf(upstream_, {.behaviour = Behaviour::kEmpty});
  EXPECT_EQ(Manifest("team/app").status, 404);
  EXPECT_EQ(Layer().status, 404);
  EXPECT_EQ(Get(mirror_.url() + "/v2/").status, 200);
  mirror_.MirrorOf(upstream_, {.behaviour = Behaviour::kBroken});
  EXPECT_EQ(Manifest("team/app").status, 500);
  EXPECT_EQ(Get(mirror_.url() + "/v2/").status, 500);
}

TEST_F(RegistryMirrorTest, LyingMirrorHasOneWrongBit) {
  mirror_.MirrorOf(upstream_, {.behaviour = Behaviour::kWrongBytes});
  EXPECT_EQ(Layer().body, "laxer");
  EXPECT_NE(Manifest("team/app").body, artifact_->manifest);
  EXPECT_EQ(Manifest("team/app").body.size(), artifact_->manifest.size());
}

TEST_F(RegistryMirrorTest, NamespaceMayBeRequired) {
  mirror_.MirrorOf(upstream_, {.namespace_required = true});
  EXPECT_EQ(Manifest("team/app").status, 404);
  EXPECT_EQ(Manifest("team/app", "?ns=other.example").status, 404);
  EXPECT_EQ(Manifest("team/app", "?ns=" + upstream_.host()).status, 200);
}

TEST_F(RegistryMirrorTest, RepositoriesMayBeBelowAName) {
  mirror_.MirrorOf(upstream_, {.prefix = "proxy"});
  EXPECT_EQ(Manifest("team/app").status, 404);
  EXPECT_EQ(Manifest("proxy/team/app").body, artifact_->manifest);
}

TEST_F(RegistryMirrorTest, LoginIsItsOwn) {
  mirror_.MirrorOf(upstream_);
  mirror_.RequireBasic("mirror", "pw");
  EXPECT_EQ(Layer().status, 401);
  EXPECT_EQ(Get(upstream_.url() + "/v2/").status, 200);
}

}  // namespace
}  // namespace ocifs::testing
