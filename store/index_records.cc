#include "store/index_records.h"

#include "store/record_codec.h"
#include "store/text.h"

namespace ocifs::store {

std::string_view TableName(IndexTable table) {
  switch (table) {
    case IndexTable::kRefs:
      return "refs";
    case IndexTable::kPackages:
      return "packages";
    case IndexTable::kBlobs:
      return "blobs";
    case IndexTable::kChunks:
      return "chunks";
    case IndexTable::kPacks:
      return "packs";
    case IndexTable::kSlots:
      return "slots";
    case IndexTable::kTags:
      return "tags";
    case IndexTable::kPins:
      return "pins";
    case IndexTable::kMeta:
      return "meta";
  }
  return "";
}

namespace {

RecordPlace In(IndexTable table, std::string_view key) { return {TableName(table), key}; }

}  // namespace

std::string IntegerKey(uint32_t value) {
  std::string key;
  for (int shift = 24; shift >= 0; shift -= 8) key.push_back(static_cast<char>(value >> shift));
  return key;
}
std::optional<uint32_t> IntegerFromKey(std::string_view key) {
  if (key.size() != 4) return std::nullopt;
  uint32_t value = 0;
  for (const char c : key) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

std::string DigestKey(const Digest& digest) {
  std::string key(1, static_cast<char>(digest.algorithm()));
  key.append(reinterpret_cast<const char*>(digest.bytes().data()), digest.bytes().size());
  return key;
}
std::optional<Digest> DigestFromKey(std::string_view key) {
  if (key.size() == 33 && key[0] == 1) {
    return Digest::FromBytes(DigestAlgorithm::kSha256, AsBytes(key.substr(1)));
  }
  if (key.size() == 65 && key[0] == 2) {
    return Digest::FromBytes(DigestAlgorithm::kSha512, AsBytes(key.substr(1)));
  }
  return std::nullopt;
}

std::string EncodeRef(std::string_view key, const RefRecord& r) {
  return RecordEncoder()
      .AddDigest(r.digest)
      .AddBytes(r.media_type)
      .Add(r.fetched_at)
      .Add(r.validated_at)
      .Finish(In(IndexTable::kRefs, key));
}
std::optional<RefRecord> DecodeRef(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kRefs, key), value);
  const std::optional<Digest> digest = d.TakeDigest();
  const std::string_view media_type = d.TakeBytes();
  const auto fetched_at = d.Take<int64_t>();
  const auto validated_at = d.Take<int64_t>();
  if (!d.Done()) return std::nullopt;
  return RefRecord{*digest, std::string(media_type), fetched_at, validated_at};
}

std::string EncodePackage(std::string_view key, const PackageRecord& r) {
  RecordEncoder e;
  e.Add(r.tree_bytes).Add(r.content_bytes).Add(r.nodes).Add(r.fetched_at).Add(r.used_at);
  e.Add(static_cast<uint8_t>(r.complete ? 1 : 0));
  e.Add(static_cast<uint8_t>(r.tree ? 1 : 0));
  if (r.tree) e.AddBytes(*r.tree);
  return e.Finish(In(IndexTable::kPackages, key));
}
std::optional<PackageRecord> DecodePackage(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kPackages, key), value);
  PackageRecord r;
  r.tree_bytes = d.Take<uint64_t>();
  r.content_bytes = d.Take<uint64_t>();
  r.nodes = d.Take<uint32_t>();
  r.fetched_at = d.Take<int64_t>();
  r.used_at = d.Take<int64_t>();
  r.complete = d.Take<uint8_t>() != 0;
  if (d.Take<uint8_t>() != 0) r.tree = std::string(d.TakeBytes());
  if (!d.Done() || !DigestFromKey(key) || (r.tree && r.tree->size() != r.tree_bytes)) {
    return std::nullopt;
  }
  return r;
}

std::string EncodeBlob(std::string_view key, const BlobRecord& r) {
  RecordEncoder e;
  e.Add(r.size).Add(static_cast<uint8_t>(r.content ? 1 : 0));
  if (r.content) e.AddBytes(*r.content);
  return e.Finish(In(IndexTable::kBlobs, key));
}
std::optional<BlobRecord> DecodeBlob(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kBlobs, key), value);
  BlobRecord r;
  r.size = d.Take<uint64_t>();
  if (d.Take<uint8_t>() != 0) r.content = std::string(d.TakeBytes());
  if (!d.Done() || !DigestFromKey(key) || (r.content && r.content->size() != r.size)) {
    return std::nullopt;
  }
  return r;
}

std::string EncodeChunk(std::string_view key, const ChunkLocation& r) {
  return RecordEncoder().Add(r.pack).Add(r.offset).Add(r.length).Finish(
      In(IndexTable::kChunks, key));
}
std::optional<ChunkLocation> DecodeChunk(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kChunks, key), value);
  ChunkLocation r;
  r.pack = d.Take<uint32_t>();
  r.offset = d.Take<uint64_t>();
  r.length = d.Take<uint64_t>();
  if (!d.Done() || key.size() != 32) return std::nullopt;
  return r;
}

std::string EncodePack(std::string_view key, const PackRecord& r) {
  return RecordEncoder().Add(r.length).Add(r.live_bytes).Finish(In(IndexTable::kPacks, key));
}
std::optional<PackRecord> DecodePack(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kPacks, key), value);
  const std::optional<uint32_t> id = IntegerFromKey(key);
  const auto length = d.Take<uint64_t>();
  const auto live_bytes = d.Take<uint64_t>();
  if (!d.Done() || !id) return std::nullopt;
  return PackRecord{*id, length, live_bytes};
}

std::string EncodeTagList(std::string_view key, const TagListRecord& r) {
  RecordEncoder e;
  e.Add(r.fetched_at).Add(static_cast<uint8_t>(r.complete ? 1 : 0));
  e.Add(static_cast<uint32_t>(r.tags.size()));
  for (const std::string& tag : r.tags) e.AddBytes(tag);
  return e.Finish(In(IndexTable::kTags, key));
}
std::optional<TagListRecord> DecodeTagList(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kTags, key), value);
  TagListRecord r;
  r.fetched_at = d.Take<int64_t>();
  r.complete = d.Take<uint8_t>() != 0;
  const auto count = d.Take<uint32_t>();
  for (uint32_t i = 0; i < count && d.ok(); ++i) r.tags.emplace_back(d.TakeBytes());
  if (!d.Done()) return std::nullopt;
  return r;
}

std::string EncodeSlot(std::string_view key, const SlotRecord& r) {
  RecordEncoder e;
  e.AddBytes(r.path).Add(static_cast<uint8_t>(r.digest ? 1 : 0));
  if (r.digest) e.AddDigest(*r.digest);
  return e.Finish(In(IndexTable::kSlots, key));
}
std::optional<SlotRecord> DecodeSlot(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kSlots, key), value);
  const std::optional<uint32_t> slot = IntegerFromKey(key);
  SlotRecord r;
  r.path = std::string(d.TakeBytes());
  if (d.Take<uint8_t>() != 0) r.digest = d.TakeDigest();
  if (!d.Done() || !slot) return std::nullopt;
  r.slot = *slot;
  return r;
}

std::string EncodePin(std::string_view key, const PinRecord& r) {
  return RecordEncoder().AddDigest(r.digest).Add(r.pinned_at).Finish(In(IndexTable::kPins, key));
}
std::optional<PinRecord> DecodePin(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kPins, key), value);
  const std::optional<Digest> digest = d.TakeDigest();
  const auto pinned_at = d.Take<int64_t>();
  if (!d.Done()) return std::nullopt;
  return PinRecord{std::string(key), *digest, pinned_at};
}

std::string EncodeMeta(std::string_view key, const MetaRecord& r) {
  return RecordEncoder()
      .Add(r.totals.blob_file_bytes)
      .Add(r.totals.tree_file_bytes)
      .Add(r.totals.live_bytes)
      .Add(r.totals.evictions)
      .Add(r.journal_bytes)
      .Add(r.journal_end)
      .Add(r.next_pack)
      .Finish(In(IndexTable::kMeta, key));
}
std::optional<MetaRecord> DecodeMeta(std::string_view key, std::string_view value) {
  RecordDecoder d(In(IndexTable::kMeta, key), value);
  MetaRecord r;
  r.totals.blob_file_bytes = d.Take<uint64_t>();
  r.totals.tree_file_bytes = d.Take<uint64_t>();
  r.totals.live_bytes = d.Take<uint64_t>();
  r.totals.evictions = d.Take<uint64_t>();
  r.journal_bytes = d.Take<uint64_t>();
  r.journal_end = d.Take<uint64_t>();
  r.next_pack = d.Take<uint32_t>();
  if (!d.Done()) return std::nullopt;
  return r;
}

bool IsWhole(IndexTable table, std::string_view key, std::string_view value) {
  switch (table) {
    case IndexTable::kRefs:
      return DecodeRef(key, value).has_value();
    case IndexTable::kPackages:
      return DecodePackage(key, value).has_value();
    case IndexTable::kBlobs:
      return DecodeBlob(key, value).has_value();
    case IndexTable::kChunks:
      return DecodeChunk(key, value).has_value();
    case IndexTable::kPacks:
      return DecodePack(key, value).has_value();
    case IndexTable::kSlots:
      return DecodeSlot(key, value).has_value();
    case IndexTable::kTags:
      return DecodeTagList(key, value).has_value();
    case IndexTable::kPins:
      return DecodePin(key, value).has_value();
    case IndexTable::kMeta:
      return DecodeMeta(key, value).has_value();
  }
  return false;
}

bool IsJournalled(IndexTable table, std::string_view key, std::string_view value) {
  switch (table) {
    case IndexTable::kRefs:
    case IndexTable::kSlots:
    case IndexTable::kPins:
      return true;
    case IndexTable::kPackages: {
      const std::optional<PackageRecord> package = DecodePackage(key, value);
      return package && package->tree;
    }
    case IndexTable::kBlobs: {
      const std::optional<BlobRecord> blob = DecodeBlob(key, value);
      return blob && blob->content;
    }
    case IndexTable::kChunks:
    case IndexTable::kPacks:
    case IndexTable::kTags:
    case IndexTable::kMeta:
      return false;
  }
  return false;
}

}  // namespace ocifs::store
