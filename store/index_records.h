// What the tables of the index hold: keys and values as bytes (FORMAT.md, section "Index"). The
// journal holds the same.
#ifndef OCIFS_STORE_INDEX_RECORDS_H_
#define OCIFS_STORE_INDEX_RECORDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/chunk_location.h"
#include "store/digest.h"
#include "store/index.h"

namespace ocifs::store {

// The numbers are those of the journal.
enum class IndexTable : uint8_t {
  kRefs = 1,
  kPackages = 2,
  kBlobs = 3,
  kChunks = 4,
  kPacks = 5,
  kSlots = 6,
  kTags = 7,
  kPins = 8,
  kMeta = 9,
};
inline constexpr std::array<IndexTable, 9> kIndexTables = {
    IndexTable::kRefs,   IndexTable::kPackages, IndexTable::kBlobs,
    IndexTable::kChunks, IndexTable::kPacks,    IndexTable::kSlots,
    IndexTable::kTags,   IndexTable::kPins,     IndexTable::kMeta};
// Those that the journal has records of.
inline constexpr std::array<IndexTable, 5> kJournalledTables = {
    IndexTable::kRefs, IndexTable::kPackages, IndexTable::kBlobs, IndexTable::kSlots,
    IndexTable::kPins};
std::string_view TableName(IndexTable table);

// The one value of the meta table.
struct MetaRecord {
  IndexTotals totals;          // `packages` is not kept: the table knows how many it has
  uint64_t journal_bytes = 0;  // of the journal's records of all that lies in the tables
  uint64_t journal_end = 0;    // length of the journal when the last record was appended
  uint32_t next_pack = 1;
};
inline constexpr std::string_view kTotalsKey = "totals";

// Integer keys are big-endian, so that bytewise order is theirs.
std::string IntegerKey(uint32_t value);
std::optional<uint32_t> IntegerFromKey(std::string_view key);
std::string DigestKey(const Digest& digest);
std::optional<Digest> DigestFromKey(std::string_view key);
inline std::string_view ChunkKey(const ChunkDigest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

std::string EncodeRef(std::string_view key, const RefRecord& record);
std::string EncodePackage(std::string_view key, const PackageRecord& record);
std::string EncodeBlob(std::string_view key, const BlobRecord& record);
std::string EncodeChunk(std::string_view key, const ChunkLocation& location);
std::string EncodePack(std::string_view key, const PackRecord& record);
std::string EncodeTagList(std::string_view key, const TagListRecord& record);
std::string EncodeSlot(std::string_view key, const SlotRecord& record);
std::string EncodePin(std::string_view key, const PinRecord& record);
std::string EncodeMeta(std::string_view key, const MetaRecord& record);

// Nullopt for a value that fails its checksum or does not lie under its key.
std::optional<RefRecord> DecodeRef(std::string_view key, std::string_view value);
std::optional<PackageRecord> DecodePackage(std::string_view key, std::string_view value);
std::optional<BlobRecord> DecodeBlob(std::string_view key, std::string_view value);
std::optional<ChunkLocation> DecodeChunk(std::string_view key, std::string_view value);
std::optional<PackRecord> DecodePack(std::string_view key, std::string_view value);
std::optional<TagListRecord> DecodeTagList(std::string_view key, std::string_view value);
std::optional<SlotRecord> DecodeSlot(std::string_view key, std::string_view value);
std::optional<PinRecord> DecodePin(std::string_view key, std::string_view value);
std::optional<MetaRecord> DecodeMeta(std::string_view key, std::string_view value);

// Whether the key and value are those of a record of the table.
bool IsWhole(IndexTable table, std::string_view key, std::string_view value);
// Whether only the index knows it, so that the journal has it, too. The value must be whole.
bool IsJournalled(IndexTable table, std::string_view key, std::string_view value);

}  // namespace ocifs::store

#endif  // OCIFS_STORE_INDEX_RECORDS_H_
