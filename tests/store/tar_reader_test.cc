#include "store/tar_reader.h"

#include <gtest/gtest.h>
#include <locale.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/text.h"
#include "tests/harness/byte_streams.h"
#include "tests/harness/tar_walker.h"
#include "tests/harness/tar_writer.h"

namespace ocifs::store {
namespace {

using harness::PaxPairs;
using harness::Regions;
using harness::StreamOf;
using harness::TarFields;
using harness::TarMagic;
using harness::TarWriter;
using harness::WalkedEntry;
namespace tar_offset = harness::tar_offset;

constexpr size_t kPieceSizes[] = {1, 100, 512, 4096, size_t{1} << 20};

struct ReadEntry {
  TarEntry entry;
  std::string content;
  size_t blocks = 0;
};

// Reads all of `archive`, and checks on the way that blocks rise and stand where they say.
Result<std::vector<ReadEntry>> ReadTar(const std::string& archive, size_t piece_bytes = 4096,
                                       const Limits& limits = {}, bool with_content = true) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<TarReader> reader,
                         TarReader::Open(StreamOf(archive, piece_bytes), limits));
  std::vector<ReadEntry> entries;
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const TarEntry* const entry, reader->NextEntry());
    if (entry == nullptr) return entries;
    entries.push_back({*entry, {}, 0});
    if (!with_content) continue;
    std::string& content = entries.back().content;
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const TarBlock block, reader->NextBlock());
      if (block.data.empty()) break;
      const std::string_view data(reinterpret_cast<const char*>(block.data.data()),
                                  block.data.size());
      EXPECT_GE(block.offset, content.size());
      EXPECT_EQ(std::string_view(archive).substr(block.stream_offset, data.size()), data);
      content.resize(block.offset, '\0');
      content.append(data);
      ++entries.back().blocks;
    }
    if (entry->attributes.type == NodeType::kRegular && !entry->is_hard_link) {
      EXPECT_LE(content.size(), entry->attributes.size);
      content.resize(entry->attributes.size, '\0');
    } else {
      EXPECT_TRUE(content.empty());
    }
  }
}

std::vector<ReadEntry> MustRead(const std::string& archive) {
  std::vector<ReadEntry> first;
  for (const size_t piece_bytes : kPieceSizes) {
    Result<std::vector<ReadEntry>> entries = ReadTar(archive, piece_bytes);
    EXPECT_TRUE(entries) << entries.error().message << ", pieces of " << piece_bytes;
    if (!entries) return {};
    if (piece_bytes == kPieceSizes[0]) {
      first = *std::move(entries);
      continue;
    }
    EXPECT_EQ(entries->size(), first.size());
    for (size_t i = 0; i < std::min(first.size(), entries->size()); ++i) {
      EXPECT_EQ((*entries)[i].entry.path, first[i].entry.path);
      EXPECT_EQ((*entries)[i].entry.link_target, first[i].entry.link_target);
      EXPECT_EQ((*entries)[i].entry.attributes, first[i].entry.attributes);
      EXPECT_EQ((*entries)[i].content, first[i].content);
    }
  }
  return first;
}

ErrorCode Refusal(const std::string& archive, const Limits& limits = {}) {
  ErrorCode code = ErrorCode::kInternal;
  for (const size_t piece_bytes : kPieceSizes) {
    for (const bool with_content : {true, false}) {
      const auto entries = ReadTar(archive, piece_bytes, limits, with_content);
      EXPECT_FALSE(entries) << "accepted in pieces of " << piece_bytes << " with content "
                            << with_content;
      if (entries) return ErrorCode::kInternal;
      code = entries.error().code;
    }
  }
  return code;
}

std::string One(const TarFields& fields) { return TarWriter().Header(fields).End().bytes(); }

TEST(TarReaderTest, EveryTypeOfEntry) {
  TarWriter tar;
  tar.Header({.name = "./", .type = '5', .mode = 0700, .uid = 1, .gid = 2, .mtime = 3});
  tar.Header({.name = "dir/file", .size = 5, .mode = 04755, .uid = 1000, .gid = 100, .mtime = 7});
  const size_t content_at = tar.size();
  tar.Content("hello").Symlink("link", "../anything//./").HardLink("/hard", "./dir/file");
  tar.Header({.name = "tty", .type = '3', .device_major = 4, .device_minor = 64});
  tar.Header({.name = "sda", .type = '4', .device_major = 8, .device_minor = 1});
  tar.Header({.name = "pipe", .type = '6'}).File("empty", "").End();
  const std::vector<ReadEntry> entries = MustRead(tar.bytes());
  ASSERT_EQ(entries.size(), 8U);
  const auto attributes = [&](size_t i) { return entries[i].entry.attributes; };
  EXPECT_EQ(entries[0].entry.path, "");
  EXPECT_EQ(attributes(0),
            (NodeAttributes{
                .type = NodeType::kDirectory, .mode = 0700, .uid = 1, .gid = 2, .mtime_sec = 3}));
  EXPECT_EQ(entries[1].entry.path, "dir/file");
  EXPECT_EQ(attributes(1), (NodeAttributes{.type = NodeType::kRegular,
                                           .mode = 04755,
                                           .uid = 1000,
                                           .gid = 100,
                                           .mtime_sec = 7,
                                           .size = 5}));
  EXPECT_EQ(entries[1].content, "hello");
  EXPECT_EQ(attributes(2).type, NodeType::kSymlink);
  EXPECT_EQ(entries[2].entry.link_target, "../anything//./");
  EXPECT_EQ(attributes(2).size, entries[2].entry.link_target.size());
  EXPECT_TRUE(entries[3].entry.is_hard_link);
  EXPECT_EQ(entries[3].entry.path, "hard");
  EXPECT_EQ(entries[3].entry.link_target, "dir/file");
  EXPECT_EQ(attributes(4).type, NodeType::kCharDevice);
  EXPECT_EQ(attributes(4).device_major, 4U);
  EXPECT_EQ(attributes(4).device_minor, 64U);
  EXPECT_EQ(attributes(5).type, NodeType::kBlockDevice);
  EXPECT_EQ(attributes(6).type, NodeType::kFifo);
  EXPECT_EQ(attributes(7).size, 0U);

  const auto reader = TarReader::Open(StreamOf(tar.bytes()), {});
  ASSERT_TRUE(reader);
  ASSERT_TRUE((*reader)->NextEntry());
  ASSERT_TRUE((*reader)->NextEntry());
  const auto block = (*reader)->NextBlock();
  ASSERT_TRUE(block);
  EXPECT_EQ(block->stream_offset, content_at);
}

TEST(TarReaderTest, AnArchiveMayStopAfterItsLastByte) {
  const std::string whole = TarWriter().File("a", "1").File("b", "content").bytes();
  const std::string bare = whole.substr(0, whole.size() - 512 + 7);
  for (const std::string& archive :
       {bare, bare + std::string(3, '\0'), whole, whole + std::string(512, '\0'),
        whole + std::string(1024, '\0'), whole + std::string(1025, '\0'),
        whole + std::string(70'000, '\0')}) {
    const std::vector<ReadEntry> entries = MustRead(archive);
    ASSERT_EQ(entries.size(), 2U);
    EXPECT_EQ(entries[1].content, "content");
  }
}

TEST(TarReaderTest, AnEmptyStreamIsAnArchiveWithoutEntries) {
  for (const size_t size : {0, 1, 511, 512, 1024, 10'240}) {
    EXPECT_TRUE(MustRead(std::string(size, '\0')).empty());
  }
}

TEST(TarReaderTest, ACutArchiveIsRefused) {
  const std::string archive =
      TarWriter().Pax({{"path", "a name"}}).File("a", "some content").bytes();
  const size_t last_content_byte = archive.size() - 500;
  for (size_t size = 1; size < last_content_byte; ++size) {
    const auto entries = ReadTar(archive.substr(0, size));
    ASSERT_FALSE(entries) << size;
    EXPECT_EQ(entries.error().code, ErrorCode::kCorrupt);
    EXPECT_FALSE(ReadTar(archive.substr(0, size), 512, {}, false)) << size;
  }
  EXPECT_TRUE(ReadTar(archive.substr(0, last_content_byte)));
}

TEST(TarReaderTest, AnErrorOfTheStreamIsPassedOn) {
  const std::string archive = TarWriter().File("a", std::string(3000, 'x')).End().bytes();
  for (const size_t size : {0, 100, 512, 1000, 2000, 4096}) {
    auto stream =
        harness::StreamThatFails(archive.substr(0, size), {ErrorCode::kTimedOut, "too slow"}, 300);
    auto reader = TarReader::Open(std::move(stream), {});
    Error error;
    if (!reader) {
      error = reader.error();
    } else {
      for (int i = 0; i < 2; ++i) {
        const auto entry = (*reader)->NextEntry();
        if (!entry) {
          error = entry.error();
          break;
        }
      }
    }
    EXPECT_EQ(error.code, ErrorCode::kTimedOut) << size << ": " << error.message;
  }
}

TEST(TarReaderTest, ContentThatIsNotReadIsPassedOver) {
  TarWriter tar;
  for (size_t i = 0; i < 50; ++i) {
    tar.File("f" + std::to_string(i), std::string(i * 100, 'x'));
  }
  for (const size_t piece_bytes : kPieceSizes) {
    const auto entries = ReadTar(tar.bytes(), piece_bytes, {}, false);
    ASSERT_TRUE(entries) << entries.error().message;
    EXPECT_EQ(entries->size(), 50U);
  }
}

TEST(TarReaderTest, LargeBlocksAreThePiecesThemselves) {
  class Pieces final : public ByteStream {
   public:
    explicit Pieces(const std::string& bytes) : bytes_(bytes) {}
    Result<std::span<const std::byte>> Next() override {
      return std::exchange(rest_, std::span<const std::byte>());
    }
    const std::string& bytes_;
    std::span<const std::byte> rest_ = AsBytes(bytes_);
  };
  const std::string archive = TarWriter().File("big", std::string(5'000'000, 'x')).End().bytes();
  const auto reader = TarReader::Open(std::make_unique<Pieces>(archive), {});
  ASSERT_TRUE(reader);
  ASSERT_TRUE((*reader)->NextEntry());
  const auto block = (*reader)->NextBlock();
  ASSERT_TRUE(block);
  EXPECT_EQ(block->data.size(), 5'000'000U);
  EXPECT_EQ(static_cast<const void*>(block->data.data()), archive.data() + 512);
}

TEST(TarReaderTest, PathsAreNormalised) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a", "a"},         {"./a", "a"},     {"/a", "a"},
      {"//a//b", "a/b"},  {"a/./b", "a/b"}, {"././a", "a"},
      {"/./a/.", "a"},    {"...", "..."},   {"..a/b..", "..a/b.."},
      {".wh.a", ".wh.a"}, {" /\n", " /\n"}, {"\xFF\x01", "\xFF\x01"},
  };
  for (const auto& [written, path] : cases) {
    const std::vector<ReadEntry> entries = MustRead(One({.name = written}));
    ASSERT_EQ(entries.size(), 1U);
    EXPECT_EQ(entries[0].entry.path, path);
  }
  for (const std::string root : {"/", ".", "./", "././/"}) {
    const std::vector<ReadEntry> entries = MustRead(One({.name = root, .type = '5'}));
    ASSERT_EQ(entries.size(), 1U);
    EXPECT_EQ(entries[0].entry.path, "");
  }
}

TEST(TarReaderTest, DotDotIsRefusedAndTheEntryNamed) {
  for (const std::string path : {"..", "../x", "a/../b", "a/..", "/..", "./../x", "a/../../b"}) {
    const auto entries = ReadTar(One({.name = path}));
    ASSERT_FALSE(entries) << path;
    EXPECT_EQ(entries.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(entries.error().message.find(path), std::string::npos) << entries.error().message;
    EXPECT_EQ(Refusal(One({.name = "a", .type = '1', .link = path})), ErrorCode::kCorrupt);
    EXPECT_EQ(Refusal(TarWriter().Pax({{"path", path}}).File("a", "").bytes()),
              ErrorCode::kCorrupt);
    EXPECT_EQ(Refusal(TarWriter().LongName(path).File("a", "").bytes()), ErrorCode::kCorrupt);
  }
}

TEST(TarReaderTest, TheRootIsADirectory) {
  for (const char type : {'0', '1', '2', '3', '6'}) {
    for (const std::string name : {".", "./.", "/."}) {
      EXPECT_EQ(Refusal(One({.name = name, .type = type, .link = "etc"})), ErrorCode::kCorrupt);
    }
  }
  EXPECT_EQ(Refusal(One({.name = "a", .type = '1', .link = "/"})), ErrorCode::kCorrupt);
}

TEST(TarReaderTest, LengthsUpToTheLimitsOfTheKernelAreRead) {
  const std::string name(255, 'n');
  std::string path;  // 4,095 bytes
  while (path.size() < 3840) path += name + "/";
  path += name;
  const std::string target(4095, 't');
  TarWriter tar;
  tar.LongName(path).LongLink(target).Symlink("s", "t");
  tar.Pax({{"path", path}, {"linkpath", target}}).Symlink("s", "t");
  const std::vector<ReadEntry> entries = MustRead(tar.bytes());
  ASSERT_EQ(entries.size(), 2U);
  for (const ReadEntry& read : entries) {
    EXPECT_EQ(read.entry.path, path);
    EXPECT_EQ(read.entry.link_target, target);
  }
  const auto with_pax = [](const PaxPairs& records, char type = '0') {
    return TarWriter().Pax(records).Header({.name = "x", .type = type, .link = "y"}).bytes();
  };
  EXPECT_EQ(Refusal(with_pax({{"path", name + "n"}})), ErrorCode::kTooLarge);
  EXPECT_EQ(Refusal(with_pax({{"path", path + "/n"}})), ErrorCode::kTooLarge);
  EXPECT_EQ(Refusal(with_pax({{"linkpath", target + "t"}}, '2')), ErrorCode::kTooLarge);
  EXPECT_EQ(Refusal(with_pax({{"linkpath", path + "/n"}}, '1')), ErrorCode::kTooLarge);
}

TEST(TarReaderTest, LimitsAreKept) {
  Limits limits;
  limits.max_entries = 2;
  limits.max_depth = 3;
  limits.max_unpacked_bytes = 100;
  limits.max_xattr_bytes = 50;
  limits.max_xattr_value_bytes = 20;
  const auto accepted = [&](const TarWriter& tar) {
    return ReadTar(tar.bytes(), 512, limits).has_value();
  };
  EXPECT_TRUE(accepted(TarWriter().File("a", "").File("b", "")));
  EXPECT_EQ(Refusal(TarWriter().File("a", "").File("b", "").File("c", "").bytes(), limits),
            ErrorCode::kTooLarge);
  EXPECT_TRUE(accepted(TarWriter().File("a/b/c", "")));
  EXPECT_EQ(Refusal(TarWriter().File("a/b/c/d", "").bytes(), limits), ErrorCode::kTooLarge);
  EXPECT_TRUE(accepted(TarWriter().File("a", std::string(100, 'x'))));
  EXPECT_EQ(Refusal(TarWriter().File("a", std::string(101, 'x')).bytes(), limits),
            ErrorCode::kTooLarge);
  EXPECT_TRUE(
      accepted(TarWriter().Pax({{"SCHILY.xattr.user.a", std::string(20, 'x')}}).File("a", "")));
  EXPECT_EQ(
      Refusal(
          TarWriter().Pax({{"SCHILY.xattr.user.a", std::string(21, 'x')}}).File("a", "").bytes(),
          limits),
      ErrorCode::kTooLarge);
  EXPECT_EQ(Refusal(TarWriter()
                        .Pax({{"SCHILY.xattr.user.a", std::string(20, 'x')},
                              {"SCHILY.xattr.user.b", std::string(20, 'x')}})
                        .File("a", "")
                        .bytes(),
                    limits),
            ErrorCode::kTooLarge);
}

TEST(TarReaderTest, XattrsAreBytesAndOnlySchilys) {
  const std::string value("\0=\n\xFF", 4);
  const std::vector<ReadEntry> entries =
      MustRead(TarWriter()
                   .Pax({{"SCHILY.xattr.user.b", value},
                         {"LIBARCHIVE.xattr.user.c", "aGVsbG8="},
                         {"SCHILY.xattr.security.capability", "cap"},
                         {"SCHILY.acl.access", "user::rw-,group::r--,other::r--"},
                         {"RHT.security.selinux", "label"},
                         {"SCHILY.xattr.user.a", ""}})
                   .File("f", "")
                   .File("g", "")
                   .bytes());
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].entry.xattrs,
            (Xattrs{{"security.capability", "cap"}, {"user.a", ""}, {"user.b", value}}));
  EXPECT_TRUE(entries[1].entry.xattrs.empty());
}

TEST(TarReaderTest, PaxRecordsOverrideTheHeader) {
  const std::vector<ReadEntry> entries =
      MustRead(TarWriter()
                   .GlobalPax({{"comment", "made by a tool"}})
                   .Pax({{"path", "first"},
                         {"path", "long/name"},
                         {"size", "5"},
                         {"uid", "3000000"},
                         {"gid", "4294967294"},
                         {"mtime", "-1.25"},
                         {"atime", "1.5"},
                         {"uname", "caf\xC3\xA9"},
                         {"VENDOR.thing", "ignored"}})
                   .Header({.name = "short", .size = 3, .uid = 7})
                   .Content("12345")
                   .Pax({{"mtime", "1700000000.123456789"}})
                   .File("next", "x")
                   .bytes());
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].entry.path, "long/name");
  EXPECT_EQ(entries[0].content, "12345");
  EXPECT_EQ(entries[0].entry.attributes.uid, 3'000'000U);
  EXPECT_EQ(entries[0].entry.attributes.gid, 4'294'967'294U);
  EXPECT_EQ(entries[0].entry.attributes.mtime_sec, -2);
  EXPECT_EQ(entries[0].entry.attributes.mtime_nsec, 750'000'000U);
  EXPECT_EQ(entries[1].entry.attributes.mtime_nsec, 123'456'789U);
}

TEST(TarReaderTest, TimesAreClampedToFourDigitYears) {
  const auto time_of = [](const std::string& archive) {
    const std::vector<ReadEntry> entries = MustRead(archive);
    return entries.size() == 1 ? entries[0].entry.attributes.mtime_sec : 0;
  };
  const auto with_pax = [](const std::string& time) {
    return TarWriter().Pax({{"mtime", time}}).File("a", "").bytes();
  };
  EXPECT_EQ(time_of(One({.name = "a", .mtime = -5})), -5);
  EXPECT_EQ(time_of(One({.name = "a", .mtime = int64_t{1} << 40})), 253'402'300'799);
  EXPECT_EQ(time_of(One({.name = "a", .mtime = INT64_MIN})), -62'135'596'800);
  EXPECT_EQ(time_of(with_pax("99999999999999999999999999")), 253'402'300'799);
  EXPECT_EQ(time_of(with_pax("-99999999999999999999999999.5")), -62'135'596'800);
}

TEST(TarReaderTest, OldAndGnuHeadersAndPrefixes) {
  const std::vector<ReadEntry> entries =
      MustRead(TarWriter()
                   .Header({.name = "v7", .type = '\0', .magic = TarMagic::kNone})
                   .Header({.name = "v7/", .type = '\0', .magic = TarMagic::kNone})
                   .Header({.name = "slash/", .type = '0'})
                   .Header({.name = "contiguous", .type = '7', .size = 1})
                   .Content("c")
                   .Header({.name = "name", .prefix = "pre/fix"})
                   .Header({.name = std::string(100, 'n'), .prefix = std::string(155, 'p')})
                   .Header({.name = "gnu", .magic = TarMagic::kGnu})
                   .LongLink("target")
                   .LongName("long")
                   .Header({.name = "short", .type = '2', .link = "t", .magic = TarMagic::kGnu})
                   .Header({.name = "big", .mtime = 8'589'934'592, .magic = TarMagic::kGnu})
                   .End()
                   .bytes());
  ASSERT_EQ(entries.size(), 9U);
  EXPECT_EQ(entries[0].entry.path, "v7");
  EXPECT_EQ(entries[1].entry.attributes.type, NodeType::kDirectory);
  EXPECT_EQ(entries[2].entry.attributes.type, NodeType::kDirectory);
  EXPECT_EQ(entries[3].content, "c");
  EXPECT_EQ(entries[4].entry.path, "pre/fix/name");
  EXPECT_EQ(entries[5].entry.path, std::string(155, 'p') + "/" + std::string(100, 'n'));
  EXPECT_EQ(entries[7].entry.path, "long");
  EXPECT_EQ(entries[7].entry.link_target, "target");
  EXPECT_EQ(entries[8].entry.attributes.mtime_sec, 8'589'934'592);
}

// libarchive loses it.
TEST(TarReaderTest, ASymlinkWhoseTargetStandsOnlyInAPaxRecord) {
  const std::vector<ReadEntry> entries =
      MustRead(TarWriter().Pax({{"linkpath", "\xC3\xA9"}}).Symlink("s", "").bytes());
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_FALSE(entries[0].entry.is_hard_link);
  EXPECT_EQ(entries[0].entry.attributes.type, NodeType::kSymlink);
  EXPECT_EQ(entries[0].entry.link_target, "\xC3\xA9");
}

TEST(TarReaderTest, NamesAreBytesInEveryLocale) {
  const std::vector<std::string> names = {
      "caf\xC3\xA9",   // composed
      "cafe\xCC\x81",  // the same, decomposed
      "\xE2\x84\xAA",  // the Kelvin sign, which composes to K
      "\xCD\xBE",      // the Greek question mark, which composes to ;
      "\xE4\xBD\xA0\xE5\xA5\xBD",
      "not utf-8 \xFF\xC3",
      "\xED\xA0\x80",
      "plain",
  };
  TarWriter tar;
  for (const std::string& name : names) {
    tar.Pax({{"path", "pax/" + name}, {"linkpath", name}}).Symlink("x", "y");
    tar.Pax({{"hdrcharset", "BINARY"}, {"path", "bin/" + name}}).File("x", "");
    tar.LongName("gnu/" + name).File("x", "");
    tar.File("ustar/" + name, "");
  }
  for (const char* locale : {"C", "C.UTF-8"}) {
    const std::string before = setlocale(LC_ALL, nullptr);
    ASSERT_NE(setlocale(LC_ALL, locale), nullptr);
    const std::vector<ReadEntry> entries = MustRead(tar.bytes());
    setlocale(LC_ALL, before.c_str());
    ASSERT_EQ(entries.size(), 4 * names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      EXPECT_EQ(entries[4 * i].entry.path, "pax/" + names[i]);
      EXPECT_EQ(entries[4 * i].entry.link_target, names[i]);
      EXPECT_EQ(entries[4 * i + 1].entry.path, "bin/" + names[i]);
      EXPECT_EQ(entries[4 * i + 2].entry.path, "gnu/" + names[i]);
      EXPECT_EQ(entries[4 * i + 3].entry.path, "ustar/" + names[i]);
    }
  }
}

struct Sparse {
  Regions regions;
  uint64_t size = 0;
  std::string stored;
  std::string content;
};

Sparse MakeSparse(std::minstd_rand& random, size_t regions) {
  Sparse sparse;
  for (size_t i = 0; i < regions; ++i) {
    sparse.content.resize(sparse.content.size() + random() % 2000, '\0');
    const std::string bytes(1 + random() % 700, static_cast<char>('a' + i % 26));
    sparse.regions.emplace_back(sparse.content.size(), bytes.size());
    sparse.stored += bytes;
    sparse.content += bytes;
  }
  sparse.content.resize(sparse.content.size() + random() % 3000, '\0');
  sparse.size = sparse.content.size();
  // GNU tar marks the end of the file with a region of no length.
  sparse.regions.emplace_back(sparse.size, 0);
  return sparse;
}

PaxPairs Sparse00(const Sparse& sparse) {
  PaxPairs records = {{"GNU.sparse.size", std::to_string(sparse.size)},
                      {"GNU.sparse.numblocks", std::to_string(sparse.regions.size())}};
  for (const auto& [offset, length] : sparse.regions) {
    records.emplace_back("GNU.sparse.offset", std::to_string(offset));
    records.emplace_back("GNU.sparse.numbytes", std::to_string(length));
  }
  return records;
}

PaxPairs Sparse01(const Sparse& sparse) {
  std::string map;
  for (const auto& [offset, length] : sparse.regions) {
    map += (map.empty() ? "" : ",") + std::to_string(offset) + "," + std::to_string(length);
  }
  return {{"GNU.sparse.size", std::to_string(sparse.size)},
          {"GNU.sparse.numblocks", std::to_string(sparse.regions.size())},
          {"GNU.sparse.name", "sparse"},
          {"GNU.sparse.map", map}};
}

PaxPairs Sparse10(const Sparse& sparse) {
  return {{"GNU.sparse.major", "1"},
          {"GNU.sparse.minor", "0"},
          {"GNU.sparse.name", "sparse"},
          {"GNU.sparse.realsize", std::to_string(sparse.size)}};
}

void WriteSparse(TarWriter& tar, int format, const Sparse& sparse) {
  if (format == 0) {
    tar.OldSparse("sparse", sparse.regions, sparse.size, sparse.stored);
  } else if (format == 3) {
    tar.Pax(Sparse10(sparse));
    tar.File("GNUSparseFile.1/sparse", TarWriter::SparseMapBlocks(sparse.regions) + sparse.stored);
  } else {
    tar.Pax(format == 1 ? Sparse00(sparse) : Sparse01(sparse)).File("sparse", sparse.stored);
  }
}

TEST(TarReaderTest, SparseFilesOfAllFormats) {
  std::minstd_rand random(5);
  for (int format = 0; format < 4; ++format) {
    for (const size_t regions : {0, 1, 3, 4, 5, 25, 60}) {
      const Sparse sparse = MakeSparse(random, regions);
      TarWriter tar;
      WriteSparse(tar, format, sparse);
      tar.File("next", "x").End();
      const std::vector<ReadEntry> entries = MustRead(tar.bytes());
      ASSERT_EQ(entries.size(), 2U) << format << " " << regions;
      EXPECT_EQ(entries[0].entry.path, "sparse");
      EXPECT_EQ(entries[0].entry.attributes.size, sparse.size);
      EXPECT_TRUE(entries[0].content == sparse.content) << format << " " << regions;
      EXPECT_EQ(entries[1].content, "x");
    }
  }
}

TEST(TarReaderTest, AHoleOfAnExbibyteIsTooLarge) {
  Sparse sparse{.regions = {{0, 1}}, .size = uint64_t{1} << 60, .stored = "x", .content = {}};
  for (int format = 0; format < 4; ++format) {
    TarWriter tar;
    WriteSparse(tar, format, sparse);
    EXPECT_EQ(Refusal(tar.bytes()), ErrorCode::kTooLarge) << format;
  }
}

TEST(TarReaderTest, MoreThan65536RegionsAreTooLarge) {
  Sparse sparse;
  for (uint64_t i = 0; i < 65'536; ++i) {
    sparse.regions.emplace_back(2 * i, 1);
    sparse.stored += 'x';
  }
  sparse.size = 131'072;
  for (const int format : {0, 3}) {  // the maps of the others do not fit a pax header
    TarWriter tar;
    WriteSparse(tar, format, sparse);
    EXPECT_TRUE(ReadTar(tar.bytes(), 1 << 20)) << format;
  }
  sparse.regions.emplace_back(131'072, 0);
  for (const int format : {0, 3}) {
    TarWriter tar;
    WriteSparse(tar, format, sparse);
    const auto entries = ReadTar(tar.bytes(), 1 << 20);
    ASSERT_FALSE(entries) << format;
    EXPECT_EQ(entries.error().code, ErrorCode::kTooLarge) << entries.error().message;
  }
}

TEST(TarReaderTest, ASparseMapWithoutEndIsTooLarge) {
  TarWriter tar;
  tar.Header({.name = "s", .type = 'S', .magic = TarMagic::kGnu}, [](std::span<char> block) {
    std::memcpy(&block[tar_offset::kGnuSparse],
                "00000000000\0"
                "00000000000",
                24);
    std::memcpy(&block[tar_offset::kGnuRealSize], "00000000000", 12);
    block[tar_offset::kGnuExtended] = 1;
  });
  std::string extension(512, '\0');
  for (size_t i = 0; i < 504; i += 12) extension.replace(i, 11, "00000000000");
  extension[504] = 1;
  for (int i = 0; i < 40'000; ++i) tar.Raw(extension);
  const auto entries = ReadTar(tar.bytes(), 1 << 20);
  ASSERT_FALSE(entries);
  EXPECT_EQ(entries.error().code, ErrorCode::kTooLarge) << entries.error().message;
}

TEST(TarReaderTest, ManySmallEntriesInOneArchive) {
  TarWriter tar;
  for (int i = 0; i < 20'000; ++i) tar.File("d/" + std::to_string(i), i % 3 == 0 ? "" : "content");
  const auto entries = ReadTar(tar.bytes(), 65'536);
  ASSERT_TRUE(entries) << entries.error().message;
  EXPECT_EQ(entries->size(), 20'000U);
}

// ----- the reader beside the walker

std::vector<WalkedEntry> AsWalked(const std::vector<ReadEntry>& entries) {
  std::vector<WalkedEntry> walked;
  for (const ReadEntry& read : entries) {
    constexpr std::string_view kTypes = "?052346";
    WalkedEntry& to = walked.emplace_back();
    to.path = read.entry.path;
    to.type =
        read.entry.is_hard_link ? '1' : kTypes[static_cast<size_t>(read.entry.attributes.type)];
    to.size = read.entry.attributes.size;
    to.link = read.entry.link_target;
    to.content = read.content;
  }
  return walked;
}

std::string RandomName(std::minstd_rand& random) {
  std::string name;
  const size_t components = 1 + random() % 6;
  for (size_t i = 0; i < components; ++i) {
    if (i > 0) name += '/';
    const size_t length = 1 + random() % (random() % 8 == 0 ? 120 : 12);
    for (size_t j = 0; j < length; ++j) name += static_cast<char>('a' + random() % 26);
    if (random() % 10 == 0) name += "\xC3\xA9";
  }
  return name;
}

// A good archive of every kind of entry.
std::string RandomArchive(std::minstd_rand& random) {
  TarWriter tar;
  const size_t count = random() % 12;
  for (size_t i = 0; i < count; ++i) {
    const std::string name = RandomName(random);
    const std::string link = RandomName(random);
    if (random() % 6 == 0) tar.GlobalPax({{"comment", name}});
    TarFields fields{.name = name.substr(0, 100), .mode = static_cast<uint32_t>(random() % 010000)};
    fields.magic = static_cast<TarMagic>(random() % 3);
    switch (random() % 3) {
      case 0:
        tar.Pax({{"mtime", "1.5"}, {"path", name}, {"SCHILY.xattr.user.x", std::string(3, '\0')}});
        break;
      case 1:
        tar.LongName(name);
        break;
      default:
        break;
    }
    switch (random() % 6) {
      case 0:
        WriteSparse(tar, static_cast<int>(random() % 4), MakeSparse(random, random() % 6));
        break;
      case 1:
        fields.type = random() % 2 == 0 ? '1' : '2';
        fields.link = link.substr(0, 100);
        tar.Header(fields);
        break;
      case 2:
        fields.type = random() % 2 == 0 ? '5' : '6';
        tar.Header(fields);
        break;
      default:
        fields.size = random() % (random() % 5 == 0 ? 5000 : 300);
        tar.Header(fields).Content(std::string(fields.size, static_cast<char>('A' + i)));
    }
  }
  if (random() % 4 != 0) tar.End();
  return tar.bytes();
}

void ExpectSameReading(const std::string& archive, size_t piece_bytes, size_t& both_accept) {
  const auto walked = harness::WalkTar(archive);
  const auto read = ReadTar(archive, piece_bytes);
  if (!walked || !read) return;
  ++both_accept;
  ASSERT_TRUE(AsWalked(*read) == *walked);
}

TEST(TarDifferentialTest, RandomArchivesReadTheSame) {
  const unsigned seed = std::random_device()();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  size_t both_accept = 0;
  size_t good = 0;
  for (int i = 0; i < 300; ++i) {
    const std::string archive = RandomArchive(random);
    const size_t piece_bytes = 1 + random() % 3000;
    const bool mixed = !harness::WalkTar(archive).has_value();  // an extension before a sparse file
    const auto read = ReadTar(archive, piece_bytes);
    ASSERT_EQ(read.has_value(), !mixed) << (read ? "" : read.error().message);
    good += mixed ? 0 : 1;
    ExpectSameReading(archive, piece_bytes, both_accept);
  }
  EXPECT_EQ(both_accept, good);
  EXPECT_GT(good, 100U);
}

TEST(TarDifferentialTest, DamagedArchivesReadTheSameOrNotAtAll) {
  const unsigned seed = std::random_device()();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  size_t both_accept = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string archive = RandomArchive(random);
    if (archive.empty()) continue;
    for (size_t flips = 1 + random() % 3; flips > 0; --flips) {
      const size_t at = random() % archive.size();
      if (random() % 4 == 0) {
        archive.erase(at / 512 * 512, 512);
        if (archive.empty()) break;
        continue;
      }
      archive[at] = static_cast<char>(random() % 2 == 0 ? random() : '0' + random() % 10);
      // Make the checksum right again, or no damage to a header would pass it.
      const size_t block = at / 512 * 512;
      if (archive.size() < block + 512) continue;
      std::fill_n(archive.begin() + static_cast<std::ptrdiff_t>(block + 148), 8, ' ');
      unsigned sum = 0;
      for (size_t j = 0; j < 512; ++j) sum += static_cast<unsigned char>(archive[block + j]);
      for (size_t j = 0; j < 6; ++j, sum >>= 3) {
        archive[block + 153 - j] = static_cast<char>('0' + (sum & 7));
      }
      archive[block + 154] = '\0';
    }
    ExpectSameReading(archive, 1 + random() % 3000, both_accept);
  }
  EXPECT_GT(both_accept, 100U);
}

TEST(LooksLikeTarTest, AHeaderOrTwoZeroBlocks) {
  const std::string tar = TarWriter().File("a", "x").bytes();
  EXPECT_TRUE(LooksLikeTar(AsBytes(tar)));
  EXPECT_TRUE(LooksLikeTar(AsBytes(std::string_view(tar).substr(0, 512))));
  EXPECT_TRUE(LooksLikeTar(AsBytes(std::string(1024, '\0'))));
  EXPECT_FALSE(LooksLikeTar(AsBytes(std::string(512, '\0'))));
  EXPECT_FALSE(LooksLikeTar(AsBytes(std::string_view(tar).substr(0, 511))));
  EXPECT_FALSE(LooksLikeTar({}));
  EXPECT_FALSE(LooksLikeTar(AsBytes(std::string(1024, 'x'))));
  std::string damaged = tar;
  damaged[0] = 'b';
  EXPECT_FALSE(LooksLikeTar(AsBytes(damaged)));
}

}  // namespace
}  // namespace ocifs::store
