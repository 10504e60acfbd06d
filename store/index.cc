#include "store/index.h"

#include <lmdb.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "store/log.h"
#include "store/record_codec.h"

namespace ocifs::store {
namespace {

// Address space, not disk: the file grows as it is used. Every process that opens the index must
// use the same figure or a larger one.
constexpr size_t kMapBytes = size_t{64} << 30;
constexpr unsigned kMaxReaders = 1022;
constexpr size_t kMaxKeyBytes = 511;  // LMDB's own limit

constexpr std::array<const char*, 7> kTableNames = {"refs",  "packages", "blobs", "chunks",
                                                    "packs", "slots",    "tags"};

// Integer keys are big-endian, so that LMDB's bytewise order is theirs.
std::string IntegerKey(uint32_t value) {
  std::string key;
  for (int shift = 24; shift >= 0; shift -= 8) key.push_back(static_cast<char>(value >> shift));
  return key;
}
uint32_t IntegerFromKey(std::string_view key) {
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

std::string_view ChunkKey(const ChunkDigest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

std::string_view View(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}
// LMDB's structure has no const; it does not write through it.
MDB_val Value(std::string_view text) {
  return MDB_val{text.size(), const_cast<char*>(text.data())};
}

void LogDamagedValue(std::string_view table) {
  Log(LogLevel::kWarning,
      "a value of the index table '" + std::string(table) + "' fails its checksum; passed over");
}

std::unexpected<Error> DamagedValue(std::string_view table) {
  return Fail(ErrorCode::kIndexDamaged,
              "a value of the index table '" + std::string(table) + "' fails its checksum");
}

// --- records ---
std::string Encode(const RefRecord& r) {
  return RecordEncoder()
      .AddDigest(r.digest)
      .AddBytes(r.media_type)
      .Add(r.fetched_at)
      .Add(r.validated_at)
      .Finish();
}
std::optional<RefRecord> DecodeRef(std::string_view bytes) {
  RecordDecoder d(bytes);
  const std::optional<Digest> digest = d.TakeDigest();
  const std::string_view media_type = d.TakeBytes();
  const auto fetched_at = d.Take<int64_t>();
  const auto validated_at = d.Take<int64_t>();
  if (!d.Done()) return std::nullopt;
  return RefRecord{*digest, std::string(media_type), fetched_at, validated_at};
}

std::string Encode(const PackageRecord& r) {
  return RecordEncoder()
      .Add(r.tree_bytes)
      .Add(r.content_bytes)
      .Add(r.nodes)
      .Add(r.fetched_at)
      .Finish();
}
std::optional<PackageRecord> DecodePackage(std::string_view bytes) {
  RecordDecoder d(bytes);
  PackageRecord r;
  r.tree_bytes = d.Take<uint64_t>();
  r.content_bytes = d.Take<uint64_t>();
  r.nodes = d.Take<uint32_t>();
  r.fetched_at = d.Take<int64_t>();
  if (!d.Done()) return std::nullopt;
  return r;
}

std::string Encode(const BlobRecord& r) {
  RecordEncoder e;
  e.Add(r.size).Add(static_cast<uint8_t>(r.content ? 1 : 0));
  if (r.content) e.AddBytes(*r.content);
  return e.Finish();
}
std::optional<BlobRecord> DecodeBlob(std::string_view bytes) {
  RecordDecoder d(bytes);
  BlobRecord r;
  r.size = d.Take<uint64_t>();
  if (d.Take<uint8_t>() != 0) r.content = std::string(d.TakeBytes());
  if (!d.Done() || (r.content && r.content->size() != r.size)) return std::nullopt;
  return r;
}

std::string Encode(const ChunkLocation& r) {
  return RecordEncoder().Add(r.pack).Add(r.offset).Add(r.length).Finish();
}
std::optional<ChunkLocation> DecodeChunk(std::string_view bytes) {
  RecordDecoder d(bytes);
  ChunkLocation r;
  r.pack = d.Take<uint32_t>();
  r.offset = d.Take<uint64_t>();
  r.length = d.Take<uint64_t>();
  if (!d.Done()) return std::nullopt;
  return r;
}

std::string EncodePackLength(uint64_t length) { return RecordEncoder().Add(length).Finish(); }
std::optional<PackRecord> DecodePack(std::string_view key, std::string_view bytes) {
  RecordDecoder d(bytes);
  PackRecord r;
  r.id = IntegerFromKey(key);
  r.length = d.Take<uint64_t>();
  if (!d.Done() || key.size() != 4) return std::nullopt;
  return r;
}

std::string Encode(const TagListRecord& r) {
  RecordEncoder e;
  e.Add(r.fetched_at).Add(static_cast<uint8_t>(r.complete ? 1 : 0));
  e.Add(static_cast<uint32_t>(r.tags.size()));
  for (const std::string& tag : r.tags) e.AddBytes(tag);
  return e.Finish();
}
std::optional<TagListRecord> DecodeTagList(std::string_view bytes) {
  RecordDecoder d(bytes);
  TagListRecord r;
  r.fetched_at = d.Take<int64_t>();
  r.complete = d.Take<uint8_t>() != 0;
  const auto count = d.Take<uint32_t>();
  for (uint32_t i = 0; i < count && d.ok(); ++i) r.tags.emplace_back(d.TakeBytes());
  if (!d.Done()) return std::nullopt;
  return r;
}

std::string Encode(const SlotRecord& r) {
  RecordEncoder e;
  e.AddBytes(r.path).Add(static_cast<uint8_t>(r.digest ? 1 : 0));
  if (r.digest) e.AddDigest(*r.digest);
  return e.Finish();
}
std::optional<SlotRecord> DecodeSlot(std::string_view key, std::string_view bytes) {
  RecordDecoder d(bytes);
  SlotRecord r;
  r.slot = IntegerFromKey(key);
  r.path = std::string(d.TakeBytes());
  if (d.Take<uint8_t>() != 0) r.digest = d.TakeDigest();
  if (!d.Done() || key.size() != 4) return std::nullopt;
  return r;
}

// A transaction that ends with its scope.
class Transaction {
 public:
  explicit Transaction(MDB_txn* txn) : txn_(txn) {}
  ~Transaction() {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  MDB_txn* get() const { return txn_; }
  int Commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }

 private:
  MDB_txn* txn_;
};

}  // namespace

// --- IndexBatch ----------------------------------------------------------------------------------

void IndexBatch::Put(Table table, std::string key, std::string value, bool raise_only) {
  changes_.push_back(Change{table, raise_only, std::move(key), std::move(value)});
}
void IndexBatch::Delete(Table table, std::string key) {
  changes_.push_back(Change{table, false, std::move(key), std::nullopt});
}

void IndexBatch::PutRef(const Reference& reference, const RefRecord& record) {
  Put(Table::kRefs, reference.ToString(), Encode(record));
}
void IndexBatch::DeleteRef(const Reference& reference) {
  Delete(Table::kRefs, reference.ToString());
}
void IndexBatch::PutPackage(const Digest& manifest, const PackageRecord& record) {
  Put(Table::kPackages, DigestKey(manifest), Encode(record));
}
void IndexBatch::DeletePackage(const Digest& manifest) {
  Delete(Table::kPackages, DigestKey(manifest));
}
void IndexBatch::PutBlob(const Digest& digest, const BlobRecord& record) {
  Put(Table::kBlobs, DigestKey(digest), Encode(record));
}
void IndexBatch::DeleteBlob(const Digest& digest) { Delete(Table::kBlobs, DigestKey(digest)); }
void IndexBatch::PutChunk(const ChunkDigest& digest, const ChunkLocation& location) {
  chunks_.emplace_back(digest, location);
}
void IndexBatch::DeleteChunk(const ChunkDigest& digest) {
  Delete(Table::kChunks, std::string(ChunkKey(digest)));
}
void IndexBatch::RaisePack(const PackRecord& record) {
  Put(Table::kPacks, IntegerKey(record.id), EncodePackLength(record.length), true);
}
void IndexBatch::PutTagList(const Repository& repository, const TagListRecord& record) {
  Put(Table::kTags, repository.ToString(), Encode(record));
}
void IndexBatch::PutSlot(const SlotRecord& record) {
  Put(Table::kSlots, IntegerKey(record.slot), Encode(record));
}

// --- Index ---------------------------------------------------------------------------------------

class Index::Rep {
 public:
  ~Rep() {
    if (environment != nullptr) mdb_env_close(environment);
  }

  // LMDB's and errno codes, translated. On tmpfs a full disk is reported as EIO, so the filesystem
  // is asked before a disk is called broken.
  Error Translate(int code, std::string_view what) const {
    std::string message = "index: " + std::string(what) + ": " + mdb_strerror(code);
    switch (code) {
      case MDB_MAP_FULL:
        return Error{ErrorCode::kNoSpace, std::move(message)};
      case MDB_CORRUPTED:
      case MDB_PAGE_NOTFOUND:
      case MDB_PANIC:
      case MDB_INVALID:
      case MDB_BAD_VALSIZE:
      case MDB_BAD_DBI:
        return Error{ErrorCode::kIndexDamaged, std::move(message)};
      case MDB_VERSION_MISMATCH:
        return Error{ErrorCode::kInvalid, std::move(message)};
      case MDB_READERS_FULL:
        return Error{ErrorCode::kTooManyFiles, std::move(message)};
      default:
        break;
    }
    if (code < 0) return Error{ErrorCode::kInternal, std::move(message)};
    struct statvfs space;
    if (code == EIO && statvfs(path.c_str(), &space) == 0 && space.f_bavail == 0) code = ENOSPC;
    return ErrorFromErrno(code, "index: " + std::string(what));
  }

  MDB_dbi table(IndexBatch::Table t) const { return tables[static_cast<size_t>(t)]; }

  Result<MDB_txn*> Begin(unsigned flags) const {
    MDB_txn* txn = nullptr;
    const int code = mdb_txn_begin(environment, nullptr, flags, &txn);
    if (code != 0) return Fail(Translate(code, "beginning a transaction"));
    return txn;
  }

  // Finds `key` and hands its value to `decode` inside the transaction.
  template <typename Decode>
  auto Find(IndexBatch::Table t, std::string_view key, Decode decode) const
      -> Result<std::optional<typename decltype(decode(std::string_view()))::value_type>> {
    using Record = typename decltype(decode(std::string_view()))::value_type;
    OCIFS_ASSIGN_OR_RETURN(MDB_txn * raw, Begin(MDB_RDONLY));
    const Transaction txn(raw);
    MDB_val key_value = Value(key);
    MDB_val value;
    const int code = mdb_get(txn.get(), table(t), &key_value, &value);
    if (code == MDB_NOTFOUND) return std::optional<Record>();
    if (code != 0) return Fail(Translate(code, "reading"));
    std::optional<Record> record = decode(View(value));
    if (!record) return DamagedValue(kTableNames[static_cast<size_t>(t)]);
    return record;
  }

  // Visits the records of a table from the first key that is not below `from` on, until `visit`
  // returns false.
  template <typename Visit>
  Result<void> Walk(IndexBatch::Table t, std::string_view from, Visit visit) const {
    OCIFS_ASSIGN_OR_RETURN(MDB_txn * raw, Begin(MDB_RDONLY));
    const Transaction txn(raw);
    MDB_cursor* cursor = nullptr;
    int code = mdb_cursor_open(txn.get(), table(t), &cursor);
    if (code != 0) return Fail(Translate(code, "listing"));
    MDB_val key = Value(from);
    MDB_val value;
    code = mdb_cursor_get(cursor, &key, &value, from.empty() ? MDB_FIRST : MDB_SET_RANGE);
    Result<void> result;
    while (code == 0) {
      Result<bool> more = visit(View(key), View(value));
      if (!more) {
        result = Fail(std::move(more).error());
        break;
      }
      if (!*more) break;
      code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (code != 0 && code != MDB_NOTFOUND) return Fail(Translate(code, "listing"));
    return result;
  }

  std::string path;
  MDB_env* environment = nullptr;
  std::array<MDB_dbi, kTableNames.size()> tables{};
};

Index::Index(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Index::~Index() = default;

Result<std::unique_ptr<Index>> Index::Open(const std::string& path) {
  auto rep = std::make_unique<Rep>();
  rep->path = path;
  auto fail = [&](int code, std::string_view what) {
    return Fail(rep->Translate(code, std::string(what) + " " + path));
  };
  if (const int code = mdb_env_create(&rep->environment); code != 0) return fail(code, "creating");
  mdb_env_set_mapsize(rep->environment, kMapBytes);
  mdb_env_set_maxdbs(rep->environment, kTableNames.size());
  mdb_env_set_maxreaders(rep->environment, kMaxReaders);
  // No read-ahead: the keys of the chunks table are random.
  if (const int code = mdb_env_open(rep->environment, path.c_str(), MDB_NORDAHEAD, 0600);
      code != 0) {
    return fail(code, "opening");
  }
  int dead = 0;
  mdb_reader_check(rep->environment, &dead);  // slots of processes that were killed
  MDB_txn* raw = nullptr;
  if (const int code = mdb_txn_begin(rep->environment, nullptr, 0, &raw); code != 0) {
    return fail(code, "opening");
  }
  Transaction txn(raw);
  for (size_t i = 0; i < kTableNames.size(); ++i) {
    if (const int code = mdb_dbi_open(txn.get(), kTableNames[i], MDB_CREATE, &rep->tables[i]);
        code != 0) {
      return fail(code, "opening");
    }
  }
  if (const int code = txn.Commit(); code != 0) return fail(code, "opening");
  return std::unique_ptr<Index>(new Index(std::move(rep)));
}

Result<void> Index::Commit(IndexBatch batch) {
  if (batch.empty()) return {};
  // In key order: neighbours share pages, and each page is found and copied once. Changes to one
  // key stay in the order they were made, so that the last counts.
  std::vector<const IndexBatch::Change*> ordered;
  ordered.reserve(batch.changes_.size());
  for (const IndexBatch::Change& change : batch.changes_) ordered.push_back(&change);
  std::sort(ordered.begin(), ordered.end(),
            [](const IndexBatch::Change* x, const IndexBatch::Change* y) {
              return std::tie(x->table, x->key, x) < std::tie(y->table, y->key, y);
            });
  OCIFS_ASSIGN_OR_RETURN(MDB_txn * raw, rep_->Begin(0));
  Transaction txn(raw);
  for (const IndexBatch::Change* change : ordered) {
    const MDB_dbi table = rep_->table(change->table);
    MDB_val key = Value(change->key);
    int code = 0;
    if (!change->value) {
      code = mdb_del(txn.get(), table, &key, nullptr);
      if (code == MDB_NOTFOUND) code = 0;
    } else {
      if (change->raise_only) {
        MDB_val old;
        if (mdb_get(txn.get(), table, &key, &old) == 0) {
          const std::optional<PackRecord> before = DecodePack(change->key, View(old));
          const std::optional<PackRecord> after = DecodePack(change->key, *change->value);
          if (before && after && before->length >= after->length) continue;
        }
      }
      MDB_val value = Value(*change->value);
      code = mdb_put(txn.get(), table, &key, &value, 0);
    }
    if (code != 0) return Fail(rep_->Translate(code, "writing"));
  }
  std::sort(batch.chunks_.begin(), batch.chunks_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [digest, location] : batch.chunks_) {
    const std::string encoded = Encode(location);
    MDB_val key = Value(ChunkKey(digest));
    MDB_val value = Value(encoded);
    const int code = mdb_put(txn.get(), rep_->table(IndexBatch::Table::kChunks), &key, &value, 0);
    if (code != 0) return Fail(rep_->Translate(code, "writing"));
  }
  if (const int code = txn.Commit(); code != 0) return Fail(rep_->Translate(code, "committing"));
  return {};
}

Result<std::optional<RefRecord>> Index::FindRef(const Reference& reference) const {
  return rep_->Find(IndexBatch::Table::kRefs, reference.ToString(), DecodeRef);
}
Result<std::optional<PackageRecord>> Index::FindPackage(const Digest& manifest) const {
  return rep_->Find(IndexBatch::Table::kPackages, DigestKey(manifest), DecodePackage);
}
Result<std::optional<BlobRecord>> Index::FindBlob(const Digest& digest) const {
  return rep_->Find(IndexBatch::Table::kBlobs, DigestKey(digest), DecodeBlob);
}
Result<std::optional<ChunkLocation>> Index::FindChunk(const ChunkDigest& digest) const {
  return rep_->Find(IndexBatch::Table::kChunks, ChunkKey(digest), DecodeChunk);
}
Result<std::optional<PackRecord>> Index::FindPack(uint32_t pack) const {
  const std::string key = IntegerKey(pack);
  return rep_->Find(IndexBatch::Table::kPacks, key,
                    [&](std::string_view bytes) { return DecodePack(key, bytes); });
}
Result<std::optional<TagListRecord>> Index::FindTagList(const Repository& repository) const {
  return rep_->Find(IndexBatch::Table::kTags, repository.ToString(), DecodeTagList);
}

Result<std::vector<PackRecord>> Index::Packs() const {
  std::vector<PackRecord> packs;
  OCIFS_RETURN_IF_ERROR(rep_->Walk(
      IndexBatch::Table::kPacks, {},
      [&](std::string_view key, std::string_view value) -> Result<bool> {
        const std::optional<PackRecord> pack = DecodePack(key, value);
        if (!pack) LogDamagedValue("packs");
        packs.push_back(pack.value_or(PackRecord{IntegerFromKey(key), PackRecord::kUnknownLength}));
        return true;
      }));
  return packs;
}

Result<std::vector<SlotRecord>> Index::Slots() const {
  std::vector<SlotRecord> slots;
  OCIFS_RETURN_IF_ERROR(
      rep_->Walk(IndexBatch::Table::kSlots, {},
                 [&](std::string_view key, std::string_view value) -> Result<bool> {
                   std::optional<SlotRecord> slot = DecodeSlot(key, value);
                   if (slot) {
                     slots.push_back(*std::move(slot));
                   } else {
                     LogDamagedValue("slots");
                   }
                   return true;
                 }));
  return slots;
}

Result<std::vector<std::pair<std::string, RefRecord>>> Index::Refs(std::string_view prefix) const {
  constexpr size_t kPerTransaction = 1000;
  std::vector<std::pair<std::string, RefRecord>> refs;
  if (prefix.size() > kMaxKeyBytes) return refs;
  std::string from(prefix);
  bool more = true;
  while (more) {
    size_t count = 0;
    more = false;
    OCIFS_RETURN_IF_ERROR(
        rep_->Walk(IndexBatch::Table::kRefs, from,
                   [&](std::string_view key, std::string_view value) -> Result<bool> {
                     if (!key.starts_with(prefix)) return false;
                     if (count++ == kPerTransaction) {
                       from.assign(key);
                       more = true;
                       return false;
                     }
                     std::optional<RefRecord> ref = DecodeRef(value);
                     if (ref) {
                       refs.emplace_back(key, *std::move(ref));
                     } else {
                       LogDamagedValue("refs");
                     }
                     return true;
                   }));
  }
  return refs;
}

Result<std::vector<Registry>> Index::Registries() const {
  std::vector<Registry> registries;
  std::string from;
  bool found = true;
  while (found) {
    found = false;
    OCIFS_RETURN_IF_ERROR(rep_->Walk(IndexBatch::Table::kRefs, from,
                                     [&](std::string_view key, std::string_view) -> Result<bool> {
                                       const std::string_view name = key.substr(0, key.find('/'));
                                       Result<Registry> registry = Registry::Parse(name);
                                       if (!registry) return DamagedValue("refs");
                                       registries.push_back(*std::move(registry));
                                       // '0' follows '/', so this key lies behind all of the
                                       // registry's.
                                       from = std::string(name) + "0";
                                       found = true;
                                       return false;
                                     }));
  }
  return registries;
}

Result<bool> Index::HasRegistry(const Registry& registry) const {
  const std::string prefix = registry.name() + "/";
  bool found = false;
  OCIFS_RETURN_IF_ERROR(rep_->Walk(IndexBatch::Table::kRefs, prefix,
                                   [&](std::string_view key, std::string_view) -> Result<bool> {
                                     found = key.starts_with(prefix);
                                     return false;
                                   }));
  return found;
}

Result<std::vector<Digest>> Index::Packages() const {
  std::vector<Digest> packages;
  OCIFS_RETURN_IF_ERROR(rep_->Walk(IndexBatch::Table::kPackages, {},
                                   [&](std::string_view key, std::string_view) -> Result<bool> {
                                     const std::optional<Digest> digest = DigestFromKey(key);
                                     if (!digest) return DamagedValue("packages");
                                     packages.push_back(*digest);
                                     return true;
                                   }));
  return packages;
}

Result<uint64_t> Index::PackageCount() const {
  OCIFS_ASSIGN_OR_RETURN(MDB_txn * raw, rep_->Begin(MDB_RDONLY));
  const Transaction txn(raw);
  MDB_stat stat;
  const int code = mdb_stat(txn.get(), rep_->table(IndexBatch::Table::kPackages), &stat);
  if (code != 0) return Fail(rep_->Translate(code, "counting packages"));
  return stat.ms_entries;
}

Result<std::vector<std::pair<Digest, BlobRecord>>> Index::Blobs() const {
  std::vector<std::pair<Digest, BlobRecord>> blobs;
  OCIFS_RETURN_IF_ERROR(
      rep_->Walk(IndexBatch::Table::kBlobs, {},
                 [&](std::string_view key, std::string_view value) -> Result<bool> {
                   const std::optional<Digest> digest = DigestFromKey(key);
                   std::optional<BlobRecord> blob = DecodeBlob(value);
                   if (!digest || !blob) {
                     LogDamagedValue("blobs");
                     return true;
                   }
                   blob->content.reset();
                   blobs.emplace_back(*digest, *std::move(blob));
                   return true;
                 }));
  return blobs;
}

Result<uint32_t> Index::ReservePack(uint64_t length) {
  OCIFS_ASSIGN_OR_RETURN(MDB_txn * raw, rep_->Begin(0));
  Transaction txn(raw);
  const MDB_dbi table = rep_->table(IndexBatch::Table::kPacks);
  MDB_cursor* cursor = nullptr;
  int code = mdb_cursor_open(txn.get(), table, &cursor);
  if (code != 0) return Fail(rep_->Translate(code, "reserving a pack"));
  MDB_val key;
  MDB_val value;
  code = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
  const uint32_t pack = code == 0 ? IntegerFromKey(View(key)) + 1 : 1;
  mdb_cursor_close(cursor);
  if (code != 0 && code != MDB_NOTFOUND) return Fail(rep_->Translate(code, "reserving a pack"));
  const std::string new_key = IntegerKey(pack);
  const std::string new_value = EncodePackLength(length);
  key = Value(new_key);
  value = Value(new_value);
  code = mdb_put(txn.get(), table, &key, &value, 0);
  if (code == 0) code = txn.Commit();
  if (code != 0) return Fail(rep_->Translate(code, "reserving a pack"));
  return pack;
}

}  // namespace ocifs::store
