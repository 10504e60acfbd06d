#include "tests/mount/mounted.h"

namespace ocifs::fs::testing {
namespace {

class XattrTest : public Mounted {
 protected:
  std::vector<std::string> NamesOf(std::string_view path) {
    char buffer[65536];
    const ssize_t size = llistxattr(At(path).c_str(), buffer, sizeof buffer);
    EXPECT_GE(size, 0) << std::strerror(errno);
    std::vector<std::string> names;
    for (ssize_t at = 0; at < size;) {
      names.emplace_back(buffer + at);
      at += static_cast<ssize_t>(names.back().size()) + 1;
    }
    return names;
  }
};

TEST_F(XattrTest, APackageSaysWhereItComesFrom) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  (void)List("reg.example/app");  // who lists and looks pulls nothing
  EXPECT_EQ(Xattr("reg.example/app/web:1.0", "user.oci.digest"), digest.ToString());
  EXPECT_EQ(Xattr("reg.example/app/web:1.0", "user.oci.reference"), "reg.example/app/web:1.0");
  EXPECT_EQ(Xattr("reg.example/app/web:1.0", "user.oci.source"), "registry");
  EXPECT_EQ(NamesOf("reg.example/app/web:1.0").size(), 8u);
  EXPECT_EQ(source().count(Call::kBlob), 0u);
}

TEST_F(XattrTest, AttributesOfFiles) {
  TarWriter tar;
  const std::string large(60000, 'v');
  tar.Pax({{"SCHILY.xattr.user.note", "keep"}, {"SCHILY.xattr.user.large", large}});
  tar.File("file", "x").File("plain", "y").End();
  source().AddImage("reg.example/app/web:1.0", {tar.bytes()});
  Mount();
  const std::string file = "reg.example/app/web/1.0/file";
  EXPECT_EQ(Xattr(file, "user.note"), "keep");
  EXPECT_EQ(Xattr(file, "user.absent"), "errno " + std::to_string(ENODATA));
  EXPECT_EQ(Xattr(file, "user.large"), "errno " + std::to_string(ERANGE)) << "4096 are too few";
  EXPECT_EQ(lgetxattr(At(file).c_str(), "user.large", nullptr, 0), 60000);
  std::string value(60000, '\0');
  EXPECT_EQ(lgetxattr(At(file).c_str(), "user.large", value.data(), value.size()), 60000);
  EXPECT_EQ(value, large);
  EXPECT_EQ(NamesOf(file), (std::vector<std::string>{"user.large", "user.note"}));
  EXPECT_EQ(NamesOf("reg.example/app/web/1.0/plain"), std::vector<std::string>{});
  char small[3];
  EXPECT_EQ(llistxattr(At(file).c_str(), small, sizeof small), -1);
  EXPECT_EQ(errno, ERANGE);
}

TEST_F(XattrTest, NothingCanBeSet) {
  source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  Mount();
  EXPECT_EQ(lsetxattr(At("reg.example/app/web/1.0/greeting").c_str(), "user.x", "1", 1, 0), -1);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(XattrTest, TheReasonOfAFailureIsThere) {
  const store::Digest digest = source().AddImage("reg.example/app/web:1.0", {SmallTar()});
  source().Damage(source().LayerOf(digest, 0));
  Mount();
  EXPECT_EQ(StatErrno("reg.example/app/web:1.0/greeting"), EBADMSG);
  EXPECT_EQ(Xattr("reg.example/app/web:1.0", "user.oci.error").substr(0, 8), "corrupt:");
}

}  // namespace
}  // namespace ocifs::fs::testing
