#include "fs/inode.h"

#include <gtest/gtest.h>

namespace ocifs::fs {
namespace {

TEST(InodeNumber, MountPointIsWhatFuseCallsRoot) {
  EXPECT_EQ(InodeNumber::MountPoint().value(), 1u);
  EXPECT_EQ(InodeNumber::Of(0), InodeNumber::MountPoint());
  EXPECT_EQ(InodeNumber::MountPoint().slot(), 0u);
  EXPECT_EQ(InodeNumber::MountPoint().node(), 0u);
  EXPECT_TRUE(InodeNumber::MountPoint().valid());
}

TEST(InodeNumber, HoldsSlotAndNode) {
  const InodeNumber inode = InodeNumber::Of(7, 12345);
  EXPECT_EQ(inode.value(), (uint64_t{7} << 32) + 12345);
  EXPECT_EQ(inode.slot(), 7u);
  EXPECT_EQ(inode.node(), 12345u);
  EXPECT_FALSE(inode.in_oci_view());
  EXPECT_EQ(InodeNumber::FromValue(inode.value()), inode);
}

TEST(InodeNumber, TheTopBitOfTheNodeIsTheOciView) {
  EXPECT_TRUE(InodeNumber::Of(1, InodeNumber::kOciViewBit).in_oci_view());
  EXPECT_TRUE(InodeNumber::Of(1, 0xffffffff).in_oci_view());
  EXPECT_FALSE(InodeNumber::Of(1, 0x7fffffff).in_oci_view());
}

TEST(InodeNumber, NumbersThatAreNobodysAreNotValid) {
  EXPECT_FALSE(InodeNumber::FromValue(0).valid());
  EXPECT_FALSE(InodeNumber::FromValue(2).valid());
  EXPECT_FALSE(InodeNumber::FromValue(0xffffffff).valid());
  EXPECT_TRUE(InodeNumber::FromValue(uint64_t{1} << 32).valid());
}

}  // namespace
}  // namespace ocifs::fs
