#include "store/tar_header_policy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/tar_fields.h"
#include "store/tar_reader.h"
#include "store/text.h"
#include "tests/harness/byte_streams.h"
#include "tests/harness/tar_walker.h"
#include "tests/harness/tar_writer.h"

namespace ocifs::store {
namespace {

using harness::StreamOf;
using harness::TarFields;
using harness::TarMagic;
using harness::TarWriter;
using Patch = TarWriter::Patch;
namespace tar_offset = harness::tar_offset;

struct HostileCase {
  std::string fault;
  std::string archive;
  ErrorCode code = ErrorCode::kCorrupt;
};

// The error of reading the whole archive, with the contents or passing over them.
Result<void> ReadWhole(const std::string& archive, size_t piece_bytes, bool with_content) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<TarReader> reader,
                         TarReader::Open(StreamOf(archive, piece_bytes), {}));
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const TarEntry* const entry, reader->NextEntry());
    if (entry == nullptr) return {};
    while (with_content) {
      OCIFS_ASSIGN_OR_RETURN(const TarBlock block, reader->NextBlock());
      if (block.data.empty()) break;
    }
  }
}

// A patch that writes `text` at `offset`.
Patch Put(size_t offset, std::string_view text) {
  return [offset, bytes = std::string(text)](std::span<char> block) {
    std::memcpy(&block[offset], bytes.data(), bytes.size());
  };
}

std::string Patched(const TarFields& fields, size_t offset, std::string_view text) {
  return TarWriter().Header(fields, Put(offset, text)).End().bytes();
}

// An archive that a generous reader would take for the content of the entry before it.
std::string Smuggled() { return TarWriter().File("smuggled", "x").bytes(); }

TarWriter& WithBody(TarWriter& tar, const TarFields& fields) {
  return tar.Header(fields).Raw(Smuggled());
}

std::vector<HostileCase> SizeCases() {
  std::vector<HostileCase> cases;
  for (const char type : {'1', '2', '3', '4', '5', '6'}) {
    const TarFields fields{.name = "e", .type = type, .size = 1024, .link = "t"};
    TarWriter plain;
    TarWriter after_pax;
    TarWriter gnu;
    TarFields gnu_fields = fields;
    gnu_fields.magic = TarMagic::kGnu;
    cases.push_back({std::string("a size on type ") + type, WithBody(plain, fields).bytes()});
    cases.push_back({std::string("a size on type ") + type + " after a pax header",
                     WithBody(after_pax.Pax({{"mtime", "1"}}), fields).bytes()});
    cases.push_back({std::string("a size on GNU type ") + type, WithBody(gnu, gnu_fields).bytes()});
    cases.push_back({std::string("a pax size on type ") + type,
                     TarWriter()
                         .Pax({{"size", "1024"}})
                         .Header({.name = "e", .type = type, .link = "t"})
                         .Raw(Smuggled())
                         .bytes()});
    cases.push_back({std::string("a pax size that hides the size on type ") + type,
                     TarWriter().Pax({{"size", "0"}}).Header(fields).Raw(Smuggled()).bytes()});
  }
  TarWriter directory;
  cases.push_back(
      {"a size on a name with a slash", WithBody(directory, {.name = "d/", .size = 1024}).bytes()});
  TarWriter old;
  cases.push_back({"a size on an old directory",
                   WithBody(old, {.name = "d/", .type = '\0', .size = 1024}).bytes()});
  const TarFields file{.name = "f"};
  cases.push_back({"a negative size", Patched(file, tar_offset::kSize, "\xFF\xFF\xFF\xFF")});
  cases.push_back({"a size of 2^63", Patched(file, tar_offset::kSize,
                                             std::string("\x80\0\0\0\x80\0\0\0\0\0\0\0", 12))});
  cases.push_back({"a size of 2^64", Patched(file, tar_offset::kSize,
                                             std::string("\x80\0\0\1\0\0\0\0\0\0\0\0", 12))});
  cases.push_back({"a size with a minus sign", Patched(file, tar_offset::kSize, "-0000000001")});
  cases.push_back({"a size with garbage after it", Patched(file, tar_offset::kSize, "0000000x")});
  cases.push_back({"a size with digits after its NUL", Patched(file, tar_offset::kSize,
                                                               std::string("0000\0"
                                                                           "0001000",
                                                                           12))});
  cases.push_back(
      {"an unknown base-256 marker",
       Patched(file, tar_offset::kSize, std::string("\xC0\0\0\0\0\0\0\0\0\0\0\0", 12))});
  for (const std::string size :
       {"-1", "9223372036854775807", "18446744073709551616", "0x10", "", " 1", "1 ", "1.5"}) {
    cases.push_back(
        {"a pax size of '" + size + "'", TarWriter().Pax({{"size", size}}).File("f", "x").bytes()});
  }
  cases.push_back({"a file larger than the stream",
                   TarWriter().Header({.name = "f", .size = 1 << 20}).Raw(Smuggled()).bytes()});
  return cases;
}

std::vector<HostileCase> ExtensionCases() {
  const auto pax = [](const std::string& body) {
    return TarWriter().Extension('x', body).File("f", "x").End().bytes();
  };
  std::vector<HostileCase> cases = {
      {"pax path beside a GNU long name",
       TarWriter().Pax({{"path", "p"}}).LongName("l").File("f", "x").bytes()},
      {"a GNU long name beside a pax path",
       TarWriter().LongName("l").Pax({{"path", "p"}}).File("f", "x").bytes()},
      {"pax beside a GNU long link",
       TarWriter().Pax({{"mtime", "1"}}).LongLink("l").Symlink("f", "x").bytes()},
      {"two pax headers",
       TarWriter().Pax({{"path", "a"}}).Pax({{"mtime", "1"}}).File("f", "x").bytes()},
      {"two GNU long names", TarWriter().LongName("a").LongName("b").File("f", "x").bytes()},
      {"two GNU long links", TarWriter().LongLink("a").LongLink("b").Symlink("f", "x").bytes()},
      {"a global header inside an entry",
       TarWriter().Pax({{"path", "a"}}).GlobalPax({{"comment", "c"}}).File("f", "x").bytes()},
      {"a pax header without an entry", TarWriter().Pax({{"path", "a"}}).End().bytes()},
      {"a GNU long name without an entry", TarWriter().LongName("a").End().bytes()},
      {"a pax header at the very end", TarWriter().File("f", "x").Pax({{"path", "a"}}).bytes()},
      {"a pax header without records", pax("")},
      {"a pax record without a length", pax("path=x\n")},
      {"a pax record that is too long", pax("99 path=x\n")},
      {"a pax record that is too short", pax("5 path=x\n")},
      {"a pax record without a newline", pax("9 path=xy")},
      {"a pax record without a key", pax("5 =x\n")},
      {"a pax record without an equals sign", pax("7 path\n")},
      {"a pax record of length 0", pax("0 path=x\n")},
      {"a pax record with a leading zero", pax("010 path=x\n")},
      {"a pax record with a huge length", pax("99999999999999999999 path=x\n")},
      {"a pax record with a sign", pax("+9 path=x\n")},
      {"a second pax record cut off", pax("10 path=xy\n12 mtime")},
      {"zeros after the last pax record",
       pax(TarWriter::PaxRecord("path", "x") + std::string(8, '\0'))},
      {"NUL in a pax path", pax(TarWriter::PaxRecord("path", std::string("a\0b", 3)))},
      {"NUL in a pax linkpath",
       TarWriter().Pax({{"linkpath", std::string("a\0b", 3)}}).Symlink("f", "x").bytes()},
      {"NUL in a pax key", pax(TarWriter::PaxRecord(std::string("pa\0th", 5), "x"))},
      {"NUL in a pax size", pax(TarWriter::PaxRecord("size", std::string("1\0", 2)))},
      {"NUL in a GNU long name",
       TarWriter().Extension('L', std::string("a\0b\0", 4)).File("f", "x").bytes()},
      {"NUL in a GNU long link",
       TarWriter().Extension('K', std::string("a\0b\0", 4)).Symlink("f", "x").bytes()},
      {"an empty pax path", pax(TarWriter::PaxRecord("path", ""))},
      {"an empty pax mtime", pax(TarWriter::PaxRecord("mtime", ""))},
      {"an empty GNU long name", TarWriter().LongName("").File("f", "x").bytes()},
      {"the same xattr twice",
       TarWriter()
           .Pax({{"SCHILY.xattr.user.a", "1"}, {"SCHILY.xattr.user.a", "2"}})
           .File("f", "x")
           .bytes()},
      {"an xattr without a name", pax(TarWriter::PaxRecord("SCHILY.xattr.", "1"))},
      {"a pax time in hexadecimal", pax(TarWriter::PaxRecord("mtime", "0x10"))},
      {"a pax time with two dots", pax(TarWriter::PaxRecord("mtime", "1.2.3"))},
      {"a pax time with a sign only", pax(TarWriter::PaxRecord("mtime", "-"))},
      {"an extension header larger than the stream",
       TarWriter().Header({.name = "x", .type = 'x', .size = 4096}).Raw(Smuggled()).bytes()},
      {"an extension header of more than a mebibyte",
       TarWriter().Extension('L', std::string(2 << 20, 'n')).File("f", "x").bytes()},
      {"33 global headers on one entry",
       [] {
         TarWriter tar;
         for (int i = 0; i < 33; ++i) tar.GlobalPax({{"comment", "c"}});
         return tar.File("f", "x").bytes();
       }()},
  };
  for (const std::string key : {"path", "size", "linkpath", "uid", "mtime", "hdrcharset",
                                "GNU.sparse.major", "SCHILY.xattr.user.a"}) {
    cases.push_back({"a global header with " + key,
                     TarWriter().GlobalPax({{key, "1"}}).File("f", "x").bytes()});
    cases.push_back({"a global header with " + key + " at the end",
                     TarWriter().File("f", "x").GlobalPax({{key, "1"}}).End().bytes()});
  }
  for (const std::string key : {"uid", "gid"}) {
    for (const std::string id : {"4294967295", "4294967296", "1099511627775", "-1", "x", ""}) {
      cases.push_back({std::string("a pax ").append(key).append(" of '").append(id).append("'"),
                       pax(TarWriter::PaxRecord(key, id))});
    }
  }
  return cases;
}

std::vector<HostileCase> HeaderCases() {
  const TarFields file{.name = "f"};
  std::vector<HostileCase> cases = {
      {"an entry without a name", TarWriter().File("", "x").bytes()},
      {"a wrong checksum in the first header",
       [] {
         std::string archive = TarWriter().File("f", "x").bytes();
         archive[0] = 'g';
         return archive;
       }()},
      {"a wrong checksum in the second header",
       [] {
         std::string archive = TarWriter().File("f", "").File("g", "x").End().bytes();
         archive[512] = 'h';
         return archive;
       }()},
      {"a lone zero block before an entry",
       TarWriter().File("f", "x").Raw(std::string(512, '\0')).File("g", "x").End().bytes()},
      {"an entry after the end of the archive",
       TarWriter().File("f", "x").End().File("g", "x").bytes()},
      {"a byte after the end of the archive", TarWriter().File("f", "x").End().Raw("x").bytes()},
      {"a byte far after the end of the archive",
       TarWriter().File("f", "x").End().Raw(std::string(2 << 20, '\0')).Raw("x").bytes()},
      {"an archive that begins with a zero block",
       TarWriter().Raw(std::string(512, '\0')).File("g", "x").End().bytes()},
      {"text instead of an archive",
       "this is no archive, but long enough to be one" + std::string(2000, ' ')},
      {"an unknown magic", Patched(file, tar_offset::kMagic, "ustarx  ")},
      {"a mixed magic", Patched(file, tar_offset::kMagic, std::string("ustar \0\0", 8))},
      {"a star header with two readings of its prefix",
       TarWriter()
           .Header({.name = "f", .prefix = std::string(150, 'p')},
                   Put(508, std::string_view("tar\0", 4)))
           .bytes()},
      {"an owner of 2^32-1", TarWriter().Header({.name = "f", .uid = 0xFFFF'FFFF}).bytes()},
      {"an owner of 2^40-1",
       TarWriter().Header({.name = "f", .gid = (uint64_t{1} << 40) - 1}).bytes()},
      {"an owner of -1", Patched(file, tar_offset::kUid, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF")},
      {"an owner that is no number", Patched(file, tar_offset::kUid, "1234567x")},
      {"a mode that is no number", Patched(file, tar_offset::kMode, "rw-r--r-")},
      {"a time that is no number", Patched(file, tar_offset::kMtime, "yesterday...")},
      {"a symlink without a target", TarWriter().Symlink("s", "").bytes()},
      {"a hard link without a target", TarWriter().HardLink("h", "").bytes()},
      {"a pax linkpath on a file", TarWriter().Pax({{"linkpath", "t"}}).File("f", "x").bytes()},
      {"a GNU long link on a directory", TarWriter().LongLink("t").Directory("d").bytes()},
      {"a device without numbers",
       TarWriter().Header({.name = "d", .type = '3', .magic = TarMagic::kNone}).bytes()},
      {"a device with numbers in pax records",
       TarWriter().Pax({{"SCHILY.devmajor", "1"}}).Header({.name = "d", .type = '3'}).bytes()},
      {"a device number out of range", Patched({.name = "d", .type = '3'}, tar_offset::kDeviceMajor,
                                               std::string("\x80\0\0\1\0\0\0\0", 8))},
  };
  for (const char type : {'8', '9', 'A', 'D', 'M', 'N', 'V', 'X', 'a', '\1', '\xFF'}) {
    cases.push_back({"an entry of type " + EscapeForDisplay(std::string(1, type)),
                     TarWriter().Header({.name = "f", .type = type}).End().bytes()});
    cases.push_back({"a later entry of type " + EscapeForDisplay(std::string(1, type)),
                     TarWriter().File("a", "x").Header({.name = "f", .type = type}).End().bytes()});
  }
  return cases;
}

std::vector<HostileCase> SparseCases() {
  using Pairs = harness::PaxPairs;
  const auto with = [](const Pairs& records, std::string_view stored = "xx", char type = '0') {
    return TarWriter()
        .Pax(records)
        .Header({.name = "f", .type = type, .size = stored.size()})
        .Content(stored)
        .End()
        .bytes();
  };
  const Pairs ten = {{"GNU.sparse.major", "1"},
                     {"GNU.sparse.minor", "0"},
                     {"GNU.sparse.name", "f"},
                     {"GNU.sparse.realsize", "10"}};
  const auto map = [&](const std::string& text, std::string_view stored = "xx") {
    std::string blocks = text;
    blocks.resize((text.size() + 511) / 512 * 512, '\0');
    return with(ten, blocks + std::string(stored));
  };
  const auto old = [](const harness::Regions& regions, uint64_t size, std::string_view stored) {
    return TarWriter().OldSparse("f", regions, size, stored).End().bytes();
  };
  const auto one = [&](const std::string& text, const std::string& count, const std::string& size) {
    return with(
        {{"GNU.sparse.size", size}, {"GNU.sparse.numblocks", count}, {"GNU.sparse.map", text}});
  };
  std::vector<HostileCase> cases = {
      {"old regions overlap", old({{0, 1}, {0, 1}}, 10, "xx")},
      {"old regions out of order", old({{5, 1}, {0, 1}}, 10, "xx")},
      {"an old region beyond the end", old({{9, 2}}, 10, "xx")},
      {"old regions that store less than the size", old({{0, 1}}, 10, "xx")},
      {"old regions that store more than the size", old({{0, 3}}, 10, "xx")},
      {"an old sparse file after a pax header",
       TarWriter().Pax({{"mtime", "1"}}).OldSparse("f", {{0, 2}}, 10, "xx").bytes()},
      {"an old sparse file in a POSIX header",
       TarWriter().Header({.name = "f", .type = 'S'}).End().bytes()},
      {"an old sparse file without its real size",
       TarWriter().Header({.name = "f", .type = 'S', .magic = TarMagic::kGnu}).End().bytes()},
      {"an old sparse map on a plain file",
       TarWriter()
           .Header({.name = "f", .size = 2, .magic = TarMagic::kGnu},
                   Put(tar_offset::kGnuSparse, "00000000005"))
           .Content("xx")
           .bytes()},
      {"a GNU real size on a plain file",
       TarWriter()
           .Header({.name = "f", .size = 2, .magic = TarMagic::kGnu},
                   Put(tar_offset::kGnuRealSize, "00000000012"))
           .Content("xx")
           .bytes()},
      {"regions overlap", map("2\n0\n1\n0\n1\n")},
      {"regions out of order", map("2\n5\n1\n0\n1\n")},
      {"a region beyond the end", map("1\n9\n2\n")},
      {"a region at 2^63-1", map("1\n9223372036854775806\n2\n")},
      {"regions that store less than the size", map("1\n0\n1\n")},
      {"regions that store more than the size", map("1\n0\n3\n")},
      {"a map with fewer regions than it says", map("2\n0\n2\n")},
      {"a map with a comment", map("#1\n1\n0\n2\n")},
      {"a map with a minus sign", map("1\n-1\n2\n")},
      {"a map with a count of 2^32+1", map("4294967297\n0\n2\n"), ErrorCode::kTooLarge},
      {"a map with a negative count", map("-1\n")},
      {"a map longer than the stored size", with(ten, "1\n0\n2\n")},
      {"a map that takes more than the stored size",
       TarWriter().Pax(ten).Header({.name = "f", .size = 20}).Content("1\n0\n2\n").End().bytes()},
      {"a map without a count", with(ten, "")},
      {"an unknown major version",
       with({{"GNU.sparse.major", "2"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", "10"}})},
      {"a minor version without a major one",
       with({{"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", "10"}})},
      {"a major version without a minor one",
       with({{"GNU.sparse.major", "1"}, {"GNU.sparse.realsize", "10"}})},
      {"format 1.0 without the real size",
       with({{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}})},
      {"formats 1.0 and 0.1 mixed", with({{"GNU.sparse.major", "1"},
                                          {"GNU.sparse.minor", "0"},
                                          {"GNU.sparse.realsize", "10"},
                                          {"GNU.sparse.map", "0,2"}})},
      {"formats 0.0 and 0.1 mixed", with({{"GNU.sparse.size", "10"},
                                          {"GNU.sparse.numblocks", "1"},
                                          {"GNU.sparse.offset", "0"},
                                          {"GNU.sparse.numbytes", "2"},
                                          {"GNU.sparse.map", "0,2"}})},
      {"format 0.1 with another count", one("0,2", "2", "10")},
      {"format 0.1 with an odd map", one("0,2,5", "1", "10")},
      {"format 0.1 with a comma at the end", one("0,2,", "1", "10")},
      {"format 0.1 with spaces", one("0, 2", "1", "10")},
      {"format 0.1 beyond the end", one("9,2", "1", "10")},
      {"format 0.1 with a real size that is no number", one("0,2", "1", "ten")},
      {"format 0.0 with two offsets", with({{"GNU.sparse.size", "10"},
                                            {"GNU.sparse.numblocks", "1"},
                                            {"GNU.sparse.offset", "0"},
                                            {"GNU.sparse.offset", "1"},
                                            {"GNU.sparse.numbytes", "2"}})},
      {"format 0.0 with its count in the middle", with({{"GNU.sparse.size", "10"},
                                                        {"GNU.sparse.offset", "0"},
                                                        {"GNU.sparse.numblocks", "1"},
                                                        {"GNU.sparse.numbytes", "2"}})},
      {"format 0.0 without the last length",
       with(
           {{"GNU.sparse.size", "10"}, {"GNU.sparse.numblocks", "1"}, {"GNU.sparse.offset", "0"}})},
      {"a sparse name alone", with({{"GNU.sparse.name", "other"}})},
      {"a sparse real size alone", with({{"GNU.sparse.realsize", "10"}})},
      {"an unknown sparse record", with({{"GNU.sparse.other", "1"}})},
      {"the same sparse record twice", with({{"GNU.sparse.size", "9"},
                                             {"GNU.sparse.size", "10"},
                                             {"GNU.sparse.numblocks", "1"},
                                             {"GNU.sparse.map", "0,2"}})},
      {"a sparse map on a contiguous file",
       with({{"GNU.sparse.size", "10"}, {"GNU.sparse.numblocks", "1"}, {"GNU.sparse.map", "0,2"}},
            "xx", '7')},
      {"star's real size", with({{"SCHILY.realsize", "10"}})},
      {"Solaris holes", with({{"SUN.holesdata", " 0 1 2"}})},
      {"a real size of 2^63-1", one("0,2", "1", "9223372036854775807")},
  };
  for (const char type : {'1', '2', '5'}) {
    cases.push_back({std::string("a sparse map on type ") + type,
                     TarWriter()
                         .Pax({{"GNU.sparse.size", "0"}, {"GNU.sparse.numblocks", "0"}})
                         .Header({.name = "f", .type = type, .link = "t"})
                         .End()
                         .bytes()});
  }
  return cases;
}

class HostileTarTest : public testing::TestWithParam<HostileCase> {};

TEST_P(HostileTarTest, IsRefused) {
  for (const size_t piece_bytes : {size_t{100}, size_t{512}, size_t{1} << 22}) {
    for (const bool with_content : {true, false}) {
      const Result<void> read = ReadWhole(GetParam().archive, piece_bytes, with_content);
      ASSERT_FALSE(read) << "pieces of " << piece_bytes << ", with content " << with_content;
      EXPECT_EQ(read.error().code, GetParam().code) << read.error().message;
    }
  }
}

TEST_P(HostileTarTest, DoesNotBecomeGoodBehindAGoodEntry) {
  EXPECT_FALSE(ReadWhole(TarWriter().File("good", "x").bytes() + GetParam().archive, 4096, true));
}

std::string NameOf(const testing::TestParamInfo<HostileCase>& info) {
  std::string name;
  for (const char c : info.param.fault) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name + "_" + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(Size, HostileTarTest, testing::ValuesIn(SizeCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Extension, HostileTarTest, testing::ValuesIn(ExtensionCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Header, HostileTarTest, testing::ValuesIn(HeaderCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Sparse, HostileTarTest, testing::ValuesIn(SparseCases()), NameOf);

TEST(TarHeaderPolicyTest, SaysWhatTheBlocksSay) {
  TarHeaderPolicy policy{Limits{}};
  const TarWriter tar = TarWriter()
                            .GlobalPax({{"comment", "c"}})
                            .Pax({{"path", "p"}, {"SCHILY.xattr.user.a", "v"}, {"size", "7"}})
                            .Header({.name = "n", .size = 3, .mode = 0100644, .mtime = -1});
  const auto header = policy.CheckHeaderBlocks(AsBytes(tar.bytes()));
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ((*header)->name, "p");
  EXPECT_EQ((*header)->mode, 0644U);
  EXPECT_EQ((*header)->stored_size, 7U);
  EXPECT_EQ((*header)->file_size, 7U);
  EXPECT_EQ((*header)->mtime_sec, -1);
  ASSERT_EQ((*header)->xattrs.size(), 1U);
  EXPECT_EQ((*header)->xattrs[0].first, "user.a");
}

TEST(TarHeaderPolicyTest, KeepsNothingOfTheEntryBefore) {
  TarHeaderPolicy policy{Limits{}};
  const TarWriter sparse = TarWriter()
                               .Pax({{"GNU.sparse.size", "10"},
                                     {"GNU.sparse.numblocks", "1"},
                                     {"GNU.sparse.map", "0,2"},
                                     {"SCHILY.xattr.user.a", "v"}})
                               .Header({.name = "f", .size = 2});
  const TarWriter link = TarWriter().Symlink("l", "t");
  const TarWriter plain = TarWriter().Header({.name = "g", .size = 4});
  ASSERT_TRUE(policy.CheckHeaderBlocks(AsBytes(sparse.bytes())));
  ASSERT_TRUE(policy.CheckHeaderBlocks(AsBytes(link.bytes())));
  const auto header = policy.CheckHeaderBlocks(AsBytes(plain.bytes()));
  ASSERT_TRUE(header);
  EXPECT_FALSE((*header)->is_sparse);
  EXPECT_TRUE((*header)->regions.empty());
  EXPECT_TRUE((*header)->xattrs.empty());
  EXPECT_TRUE((*header)->link.empty());
  EXPECT_EQ((*header)->file_size, 4U);
}

TEST(TarHeaderPolicyTest, RefusesBlocksThatAreMissingOrTooMany) {
  TarHeaderPolicy policy{Limits{}};
  EXPECT_FALSE(policy.CheckHeaderBlocks({}));
  const std::string header = TarWriter().File("f", "").bytes();
  EXPECT_FALSE(policy.CheckHeaderBlocks(AsBytes(header.substr(0, 511))));
  EXPECT_FALSE(policy.CheckHeaderBlocks(AsBytes(header + header)));
  EXPECT_FALSE(policy.CheckHeaderBlocks(AsBytes(header + std::string(512, '\0'))));
  EXPECT_TRUE(policy.CheckHeaderBlocks(AsBytes(header)));
}

TEST(TarHeaderPolicyTest, TheEndIsZerosAfterComments) {
  const std::string comment = TarWriter().GlobalPax({{"comment", "c"}}).bytes();
  EXPECT_TRUE(TarHeaderPolicy::CheckEnd({}));
  EXPECT_TRUE(TarHeaderPolicy::CheckEnd(AsBytes(std::string(2000, '\0'))));
  EXPECT_TRUE(TarHeaderPolicy::CheckEnd(AsBytes(comment + std::string(1024, '\0'))));
  EXPECT_FALSE(TarHeaderPolicy::CheckEnd(AsBytes(std::string(2000, '\0') + "x")));
  EXPECT_FALSE(TarHeaderPolicy::CheckEnd(AsBytes(std::string(1024, '\0') + comment)));
  EXPECT_FALSE(TarHeaderPolicy::CheckEnd(
      AsBytes(TarWriter().GlobalPax({{"path", "p"}}).bytes() + std::string(1024, '\0'))));
}

TEST(TarFieldsTest, Numbers) {
  const auto number = [](std::string_view field) { return ParseTarNumber(field); };
  EXPECT_EQ(number("0000644\0"), 0644);
  EXPECT_EQ(number("   644 "), 0644);
  EXPECT_EQ(number("77777777"), 077777777);
  EXPECT_EQ(number("        "), 0);
  EXPECT_EQ(number(std::string_view("\0\0\0\0\0\0\0\0", 8)), 0);
  EXPECT_EQ(number(std::string_view("\x80\0\0\0\0\0\1\0", 8)), 256);
  EXPECT_EQ(number("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE"), -2);
  EXPECT_EQ(number(std::string_view("\xFF\xFF\xFF\xFF\x80\0\0\0\0\0\0\0", 12)), INT64_MIN);
  EXPECT_EQ(number("8"), std::nullopt);
  EXPECT_EQ(number("-1"), std::nullopt);
  EXPECT_EQ(number("1 2"), std::nullopt);
  EXPECT_EQ(number("\t1"), std::nullopt);
  EXPECT_EQ(number("\x81zz"), std::nullopt);
  EXPECT_EQ(number(std::string_view("\xFF\xFF\xFF\xFF\x7F\0\0\0\0\0\0\0", 12)), std::nullopt);
}

TEST(TarFieldsTest, PaxTimes) {
  const auto time = [](std::string_view text) { return ParsePaxTime(text); };
  EXPECT_EQ(time("0"), (TarTime{0, 0}));
  EXPECT_EQ(time("12."), (TarTime{12, 0}));
  EXPECT_EQ(time("12.5"), (TarTime{12, 500'000'000}));
  EXPECT_EQ(time("12.0000000019"), (TarTime{12, 1}));
  EXPECT_EQ(time("-12"), (TarTime{-12, 0}));
  EXPECT_EQ(time("-12.000000001"), (TarTime{-13, 999'999'999}));
  EXPECT_EQ(time("-0.0000000001"), (TarTime{0, 0}));
  for (const std::string_view bad : {"", "-", ".5", "+1", "1e3", "1.5s", " 1", "--1"}) {
    EXPECT_EQ(time(bad), std::nullopt) << bad;
  }
}

TEST(TarFieldsTest, ChecksumsOfUnsignedAndOfSignedBytes) {
  std::string block = TarWriter().File("\xC3\xA9", "").bytes();
  EXPECT_TRUE(TarChecksumIsRight(AsBytes(block)));
  // Each of the two bytes above 127 counts 256 less with a sign.
  int64_t sum = *ParseTarNumber(std::string_view(block).substr(148, 8)) - 512;
  for (size_t i = 6; i-- > 0; sum >>= 3) block[148 + i] = static_cast<char>('0' + (sum & 7));
  EXPECT_TRUE(TarChecksumIsRight(AsBytes(block)));
  block[153] ^= 1;
  EXPECT_FALSE(TarChecksumIsRight(AsBytes(block)));
}

}  // namespace
}  // namespace ocifs::store
