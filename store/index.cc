#include "store/index.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>
#include <tuple>

#include "store/crash_marker.h"
#include "store/file.h"
#include "store/index_records.h"
#include "store/journal.h"
#include "store/log.h"
#include "store/map_gate.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr uint64_t kSmallestMapBytes = uint64_t{1} << 30;  // tried before giving up
constexpr unsigned kMaxReaders = 1022;
constexpr size_t kMaxKeyBytes = 511;  // LMDB's own limit
constexpr size_t kPerTransaction = 1000;
constexpr std::chrono::milliseconds kLongestPause(20);

std::string_view View(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}
// LMDB's structure has no const; it does not write through it.
MDB_val Value(std::string_view text) {
  return MDB_val{text.size(), const_cast<char*>(text.data())};
}

std::string DamagedValueMessage(IndexTable table) {
  return "a value of the index table '" + std::string(TableName(table)) + "' fails its checksum";
}

// Codes that say that the file is not what LMDB left there.
bool IsDamage(int code) {
  switch (code) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_BAD_VALSIZE:
    case MDB_BAD_DBI:
    case MDB_BAD_TXN:  // what follows one of the others in its transaction
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_INCOMPATIBLE:
    case MDB_KEYEXIST:
      return true;
    default:
      return false;
  }
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
  void Abort() { mdb_txn_abort(std::exchange(txn_, nullptr)); }

 private:
  MDB_txn* txn_;
};

class Cursor {
 public:
  ~Cursor() {
    if (cursor_ != nullptr) mdb_cursor_close(cursor_);
  }
  Cursor() = default;
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;
  int Open(MDB_txn* txn, MDB_dbi dbi) { return mdb_cursor_open(txn, dbi, &cursor_); }
  int Get(MDB_val& key, MDB_val& value, MDB_cursor_op op) {
    return mdb_cursor_get(cursor_, &key, &value, op);
  }

 private:
  MDB_cursor* cursor_ = nullptr;
};

}  // namespace

// --- IndexBatch ----------------------------------------------------------------------------------

void IndexBatch::Put(IndexTable table, std::string key, std::string value) {
  changes_.push_back(Change{Change::Kind::kPut, table, std::move(key), std::move(value)});
}
void IndexBatch::Delete(IndexTable table, std::string key) {
  changes_.push_back(Change{Change::Kind::kDelete, table, std::move(key), {}});
}

void IndexBatch::PutRef(const Reference& reference, const RefRecord& record) {
  std::string key = reference.ToString();
  std::string value = EncodeRef(key, record);
  Put(IndexTable::kRefs, std::move(key), std::move(value));
}
void IndexBatch::DeleteRef(const Reference& reference) {
  Delete(IndexTable::kRefs, reference.ToString());
}
void IndexBatch::PutPackage(const Digest& manifest, const PackageRecord& record) {
  std::string key = DigestKey(manifest);
  std::string value = EncodePackage(key, record);
  Put(IndexTable::kPackages, std::move(key), std::move(value));
}
void IndexBatch::DeletePackage(const Digest& manifest) {
  Delete(IndexTable::kPackages, DigestKey(manifest));
}
void IndexBatch::Touch(const Digest& manifest, int64_t used_at) {
  changes_.push_back(
      Change{Change::Kind::kTouch, IndexTable::kPackages, DigestKey(manifest), {}, 0, used_at});
}
void IndexBatch::PutPin(const PinRecord& pin) {
  Put(IndexTable::kPins, pin.reference, EncodePin(pin.reference, pin));
}
void IndexBatch::DeletePin(const Reference& reference) {
  Delete(IndexTable::kPins, reference.ToString());
}
void IndexBatch::PutBlob(const Digest& digest, const BlobRecord& record) {
  std::string key = DigestKey(digest);
  std::string value = EncodeBlob(key, record);
  Put(IndexTable::kBlobs, std::move(key), std::move(value));
}
void IndexBatch::DeleteBlob(const Digest& digest) { Delete(IndexTable::kBlobs, DigestKey(digest)); }
void IndexBatch::PutChunk(const ChunkDigest& digest, const ChunkLocation& location) {
  chunks_.emplace_back(digest, location);
}
void IndexBatch::DeleteChunk(const ChunkDigest& digest) {
  moves_.push_back(Move{digest, std::nullopt, std::nullopt});
}
void IndexBatch::MoveChunk(const ChunkDigest& digest, const ChunkLocation& from,
                           const ChunkLocation& to) {
  moves_.push_back(Move{digest, from, to});
}
void IndexBatch::DeleteChunkAt(const ChunkDigest& digest, const ChunkLocation& location) {
  moves_.push_back(Move{digest, location, std::nullopt});
}
void IndexBatch::RaisePack(uint32_t pack, uint64_t length) {
  changes_.push_back(
      Change{Change::Kind::kRaisePack, IndexTable::kPacks, IntegerKey(pack), {}, length, 0});
}
void IndexBatch::DeletePack(uint32_t pack) { Delete(IndexTable::kPacks, IntegerKey(pack)); }
void IndexBatch::PutTagList(const Repository& repository, const TagListRecord& record) {
  std::string key = repository.ToString();
  std::string value = EncodeTagList(key, record);
  Put(IndexTable::kTags, std::move(key), std::move(value));
}
void IndexBatch::PutSlot(const SlotRecord& record) {
  std::string key = IntegerKey(record.slot);
  std::string value = EncodeSlot(key, record);
  Put(IndexTable::kSlots, std::move(key), std::move(value));
}

// --- the environment -----------------------------------------------------------------------------

class Index::Rep {
 public:
  ~Rep() { Close(); }

  Result<void> Open(const Options& options);

  // LMDB's and errno codes, translated. On tmpfs a full disk is reported as EIO, so the filesystem
  // is asked before a disk is called broken.
  Error Translate(int code, std::string_view what) const;
  std::unexpected<Error> Damaged(IndexTable table) const;
  // Leaves the marker, once.
  void MarkDamaged(std::string_view why) const;

  MDB_dbi table(IndexTable t) const { return tables_[static_cast<size_t>(t) - 1]; }
  MDB_env* environment() const { return environment_; }
  int directory_fd() const { return directory_.get(); }

  // A transaction that can be read from, with what keeps the map in its place. On an error there is
  // nothing to end.
  struct OpenTransaction {
    MDB_txn* txn = nullptr;
    size_t pass = 0;
  };
  Result<OpenTransaction> Begin(unsigned flags) const;
  void End(const OpenTransaction& open) const;

  // The number of bytes that the map has room for.
  uint64_t MapBytes() const;
  // Makes the map larger than `full_bytes`, if nobody has meanwhile.
  Result<void> Grow(uint64_t full_bytes) const;

  // Calls `read` with a transaction.
  template <typename Read>
  auto Reading(Read read, unsigned flags = MDB_RDONLY) const -> decltype(read(nullptr)) {
    OCIFS_ASSIGN_OR_RETURN(const OpenTransaction open, Begin(flags));
    struct Ender {
      ~Ender() { rep.End(open); }
      const Rep& rep;
      const OpenTransaction& open;
    } const ender{*this, open};
    const CrashScope scope(directory_fd());
    return read(open.txn);
  }

  // Finds `key` and hands it and its value to `decode` inside the transaction.
  template <typename Decode>
  auto FindIn(MDB_txn* txn, IndexTable t, std::string_view key, Decode decode) const
      -> Result<std::optional<typename decltype(decode(key, key))::value_type>> {
    using Record = typename decltype(decode(key, key))::value_type;
    if (key.empty() || key.size() > kMaxKeyBytes) return std::optional<Record>();
    MDB_val key_value = Value(key);
    MDB_val value;
    const int code = mdb_get(txn, table(t), &key_value, &value);
    if (code == MDB_NOTFOUND) return std::optional<Record>();
    if (code != 0) return Fail(Translate(code, "reading"));
    std::optional<Record> record = decode(key, View(value));
    if (!record) return Damaged(t);
    return record;
  }
  template <typename Decode>
  auto Find(IndexTable t, std::string_view key, Decode decode) const
      -> Result<std::optional<typename decltype(decode(key, key))::value_type>> {
    return Reading([&](MDB_txn* txn) { return FindIn(txn, t, key, decode); });
  }

  // Visits the records of a table from the first key that is not below `from` on, until `visit`
  // returns false.
  template <typename Visit>
  Result<void> WalkIn(MDB_txn* txn, MDB_dbi dbi, std::string_view from, Visit visit) const {
    Cursor cursor;
    int code = cursor.Open(txn, dbi);
    if (code != 0) return Fail(Translate(code, "listing"));
    if (from.size() > kMaxKeyBytes) return {};
    MDB_val key = Value(from);
    MDB_val value;
    code = cursor.Get(key, value, from.empty() ? MDB_FIRST : MDB_SET_RANGE);
    while (code == 0) {
      OCIFS_ASSIGN_OR_RETURN(const bool more, visit(View(key), View(value)));
      if (!more) return {};
      code = cursor.Get(key, value, MDB_NEXT);
    }
    if (code != MDB_NOTFOUND) return Fail(Translate(code, "listing"));
    return {};
  }
  template <typename Visit>
  Result<void> WalkIn(MDB_txn* txn, IndexTable t, std::string_view from, Visit visit) const {
    return WalkIn(txn, table(t), from, visit);
  }
  template <typename Visit>
  Result<void> Walk(IndexTable t, std::string_view from, Visit visit) const {
    return Reading([&](MDB_txn* txn) { return WalkIn(txn, t, from, visit); });
  }
  // The same for keys that start with `prefix`, decoded, in transactions of a thousand each.
  // Damaged values are passed over.
  template <typename Decode, typename Visit>
  Result<void> List(IndexTable t, std::string_view prefix, Decode decode, Visit visit) const {
    return ListThrough([&](std::string_view from, auto each) { return Walk(t, from, each); }, t,
                       prefix, decode, visit);
  }
  // The same in one transaction.
  template <typename Decode, typename Visit>
  Result<void> ListIn(MDB_txn* txn, IndexTable t, std::string_view prefix, Decode decode,
                      Visit visit) const {
    return ListThrough([&](std::string_view from, auto each) { return WalkIn(txn, t, from, each); },
                       t, prefix, decode, visit);
  }

  Result<IndexTotals> TotalsIn(MDB_txn* txn) const;
  Result<MetaRecord> MetaIn(MDB_txn* txn) const;
  // The sums, counted anew. Values that are damaged are not counted.
  Result<MetaRecord> Recount(MDB_txn* txn) const;
  // Calls `apply` inside a write transaction and commits what it did; again, in a larger map, when
  // it does not fit. Gives the transaction's number.
  using Apply = std::function<Result<void>(IndexWriter&, const OpenTransaction&)>;
  Result<uint64_t> Write(const Apply& apply);
  // Nullopt: nobody reads.
  Result<std::optional<uint64_t>> OldestReader() const;
  Result<void> CompactJournal();
  Result<void> VerifyIn(MDB_txn* txn) const;
  uint64_t FileBytes() const;

  std::string path;
  bool read_only = false;
  std::unique_ptr<Journal> journal;                      // used inside write transactions only
  mutable std::atomic<bool> journal_is_behind_ = false;  // as Verify found it

 private:
  template <typename Through, typename Decode, typename Visit>
  Result<void> ListThrough(Through through, IndexTable t, std::string_view prefix, Decode decode,
                           Visit visit) const {
    std::string from(prefix);
    bool more = true;
    while (more) {
      size_t count = 0;
      more = false;
      auto each = [&](std::string_view key, std::string_view value) -> Result<bool> {
        if (!key.starts_with(prefix)) return false;
        if (count++ == kPerTransaction) {
          from.assign(key);
          more = true;
          return false;
        }
        auto record = decode(key, value);
        if (record) {
          visit(key, *std::move(record));
        } else {
          const std::unexpected<Error> damage = Damaged(t);
          Log(LogLevel::kWarning, damage.error().message + "; passed over");
        }
        return true;
      };
      OCIFS_RETURN_IF_ERROR(through(from, each));
    }
    return {};
  }

  void Close() const {
    const CrashScope scope(directory_.get());
    if (environment_ != nullptr) mdb_env_close(environment_);
    environment_ = nullptr;
  }
  // After a commit that failed: the journal says again what the tables say.
  void UndoJournal(std::span<const JournalRecord> records);
  void ExtendFile() const;
  Result<uint64_t> WriteOnce(const Apply& apply, uint64_t& full_bytes);
  Result<void> OpenEnvironment(bool for_reading) const;
  Result<void> OpenTables() const;
  Result<void> CheckFile() const;
  // After a write that left LMDB unable to go on: what is on the disk can still be read.
  Result<void> ReopenForReading() const;

  UniqueFd directory_;
  uint64_t map_bytes_ = 0;
  // All of LMDB is used inside the gate; what follows changes while it is closed, and at Open.
  mutable MapGate gate_;
  mutable MDB_env* environment_ = nullptr;
  mutable std::array<MDB_dbi, kIndexTables.size()> tables_{};
  mutable bool writes_are_dead_ = false;
  mutable std::atomic<bool> marked_ = false;
};

Error Index::Rep::Translate(int code, std::string_view what) const {
  std::string message = "index: " + std::string(what) + ": " + mdb_strerror(code);
  if (IsDamage(code)) {
    MarkDamaged(message);
    return Error{ErrorCode::kIndexDamaged, std::move(message)};
  }
  switch (code) {
    case MDB_MAP_FULL:
      return Error{ErrorCode::kNoSpace, std::move(message)};
    case MDB_PANIC:
      return Error{ErrorCode::kStoreIo, std::move(message)};
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

void Index::Rep::MarkDamaged(std::string_view why) const {
  if (!directory_ || marked_.exchange(true)) return;
  LeaveCrashMarker(directory_.get(), why);
}

std::unexpected<Error> Index::Rep::Damaged(IndexTable table) const {
  std::string message = DamagedValueMessage(table);
  MarkDamaged(message);
  return Fail(ErrorCode::kIndexDamaged, std::move(message));
}

Result<void> Index::Rep::Open(const Options& options) {
  read_only = options.read_only;
  map_bytes_ = options.map_bytes;
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrorFromErrno(errno, "opening " + path));
  directory_.reset(fd);
  journal = std::make_unique<Journal>(fd);
  // LMDB would wait on a FIFO, and make a new environment in an empty file.
  struct stat status;
  if (fstatat(fd, "data.mdb", &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      (!S_ISREG(status.st_mode) || status.st_size == 0)) {
    return Fail(ErrorCode::kIndexDamaged,
                "index: " + path + "/data.mdb is not a file with content");
  }
  OCIFS_RETURN_IF_ERROR(OpenEnvironment(read_only));
  OCIFS_RETURN_IF_ERROR(CheckFile());
  if (!read_only) {
    int dead = 0;
    mdb_reader_check(environment_, &dead);  // slots of processes that were killed
  }
  return OpenTables();
}

Result<void> Index::Rep::OpenEnvironment(bool for_reading) const {
  const CrashScope scope(directory_.get());
  for (uint64_t map_bytes = map_bytes_;; map_bytes /= 4) {
    int code = mdb_env_create(&environment_);
    if (code != 0) return Fail(Translate(code, "creating " + path));
    mdb_env_set_mapsize(environment_, map_bytes);
    mdb_env_set_maxdbs(environment_, kIndexTables.size());
    mdb_env_set_maxreaders(environment_, kMaxReaders);
    // Aborts afterwards, inside the scope: the marker is left by the handler too, if there is one.
    mdb_env_set_userctx(environment_, const_cast<Rep*>(this));
    mdb_env_set_assert(environment_, [](MDB_env* environment, const char* message) {
      static_cast<const Rep*>(mdb_env_get_userctx(environment))->MarkDamaged(message);
    });
    // No read-ahead: the keys of the chunks table are random.
    code = mdb_env_open(environment_, path.c_str(), MDB_NORDAHEAD | (for_reading ? MDB_RDONLY : 0),
                        0600);
    if (code == 0) return {};
    Error error = Translate(code, "opening " + path);
    Close();
    // A limit on address space (setrlimit(2), RLIMIT_AS) is no reason to do without an index.
    if (code != ENOMEM || map_bytes / 4 < kSmallestMapBytes) return Fail(std::move(error));
  }
}

// Reading beyond the end of the file would be SIGBUS.
Result<void> Index::Rep::CheckFile() const {
  const CrashScope scope(directory_.get());
  MDB_envinfo info;
  MDB_stat stat;
  int data_fd = -1;
  int code = mdb_env_info(environment_, &info);
  if (code == 0) code = mdb_env_stat(environment_, &stat);
  if (code == 0) code = mdb_env_get_fd(environment_, &data_fd);
  if (code != 0) return Fail(Translate(code, "opening " + path));
  struct stat status;
  if (fstat(data_fd, &status) != 0) return Fail(ErrorFromErrno(errno, "reading " + path));
  const auto size = static_cast<uint64_t>(status.st_size);
  if (stat.ms_psize == 0 || size / stat.ms_psize < info.me_last_pgno + 1) {
    const std::string message = "index: " + path + "/data.mdb is cut short";
    MarkDamaged(message);
    return Fail(ErrorCode::kIndexDamaged, message);
  }
  return {};
}

Result<void> Index::Rep::OpenTables() const {
  const CrashScope scope(directory_.get());
  auto open = [&](unsigned txn_flags, unsigned table_flags) -> int {
    MDB_txn* raw = nullptr;
    int code = mdb_txn_begin(environment_, nullptr, txn_flags, &raw);
    if (code != 0) return code;
    Transaction txn(raw);
    for (const IndexTable t : kIndexTables) {
      MDB_dbi& dbi = tables_[static_cast<size_t>(t) - 1];
      code = mdb_dbi_open(txn.get(), std::string(TableName(t)).c_str(), table_flags, &dbi);
      if (code != 0) return code;
      unsigned flags = 0;
      code = mdb_dbi_flags(txn.get(), dbi, &flags);
      if (code == 0 && flags != 0) code = MDB_INCOMPATIBLE;
      if (code != 0) return code;
    }
    return txn.Commit();
  };
  int code = open(MDB_RDONLY, 0);
  if (code == MDB_NOTFOUND && !read_only) code = open(0, MDB_CREATE);
  // Of an environment without tables there is nothing to read.
  if (code == MDB_NOTFOUND) code = MDB_CORRUPTED;
  if (code != 0) return Fail(Translate(code, "opening " + path));
  return {};
}

Result<void> Index::Rep::ReopenForReading() const {
  return gate_.Closed([&]() -> Result<void> {
    if (writes_are_dead_ || environment_ == nullptr) return {};
    writes_are_dead_ = true;
    Log(LogLevel::kError,
        "the index could not be written, and will be read only until the next start");
    Close();
    OCIFS_RETURN_IF_ERROR(OpenEnvironment(true));
    return OpenTables();
  });
}

Result<Index::Rep::OpenTransaction> Index::Rep::Begin(unsigned flags) const {
  const bool writing = (flags & MDB_RDONLY) == 0;
  for (int tries = 0;; ++tries) {
    OpenTransaction open{nullptr, gate_.Enter()};
    int code = MDB_PANIC;
    if (writing && (read_only || writes_are_dead_)) {
      gate_.Leave(open.pass);
      if (read_only) return Fail(ErrorCode::kNoSpace, "index: the store is read-only");
      return Fail(ErrorCode::kStoreIo, "index: an earlier write failed; start anew");
    }
    if (environment_ != nullptr) {
      const CrashScope scope(directory_.get());
      code = mdb_txn_begin(environment_, nullptr, flags, &open.txn);
    }
    if (code == 0) return open;
    gate_.Leave(open.pass);
    constexpr int kTries = 100;
    if (tries < kTries && code == MDB_MAP_RESIZED) {
      // Another process made it larger.
      const int adopted = gate_.Closed([&] { return mdb_env_set_mapsize(environment_, 0); });
      if (adopted != 0) return Fail(Translate(adopted, "adopting the size of the map"));
      continue;
    }
    if (tries == 0 && code == MDB_PANIC) {
      OCIFS_RETURN_IF_ERROR(ReopenForReading());
      continue;
    }
    return Fail(Translate(code, "beginning a transaction"));
  }
}

void Index::Rep::End(const OpenTransaction& open) const {
  {
    const CrashScope scope(directory_.get());
    mdb_txn_abort(open.txn);
  }
  gate_.Leave(open.pass);
}

uint64_t Index::Rep::MapBytes() const {
  MDB_envinfo info;
  return mdb_env_info(environment_, &info) == 0 ? info.me_mapsize : 0;
}

Result<void> Index::Rep::Grow(uint64_t full_bytes) const {
  return gate_.Closed([&]() -> Result<void> {
    if (MapBytes() > full_bytes) return {};
    const uint64_t bytes = full_bytes * 2;
    // LMDB gives its map up before it asks for the larger one: ask whether there is room.
    void* const probe =
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (probe == MAP_FAILED) {
      return Fail(ErrorCode::kNoSpace, "index: no address space for a larger map");
    }
    munmap(probe, bytes);
    const int code = mdb_env_set_mapsize(environment_, bytes);
    if (code == 0) {
      Log(LogLevel::kInfo, "the map of the index has now " + std::to_string(bytes >> 20) + " MiB");
      return {};
    }
    const Error error = Translate(code, "growing");
    Close();
    OCIFS_RETURN_IF_ERROR(OpenEnvironment(read_only));
    OCIFS_RETURN_IF_ERROR(OpenTables());
    return Fail(error);
  });
}

// --- writing -------------------------------------------------------------------------------------

// Applies a batch inside one write transaction, keeps the sums and collects what the journal needs.
class IndexWriter {
 public:
  IndexWriter(Index::Rep& rep, MDB_txn* txn) : rep_(rep), txn_(txn) {}

  // `batch` must live as long as the writer.
  Result<void> Apply(const IndexBatch& batch);
  // After Apply: where the journal ends now.
  Result<void> NoteJournal(uint64_t end);
  // LMDB's code behind the last error.
  int code() const { return code_; }
  const std::vector<JournalRecord>& journal() const { return journal_; }
  bool has_pins() const { return has_pins_; }
  Result<uint32_t> ReservePack(uint64_t length);

 private:
  struct PackChange {
    bool deleted = false;
    std::optional<uint64_t> raised;
    int64_t live = 0;
  };

  Result<void> Check(int code) {
    code_ = code;
    if (code == 0) return {};
    return Fail(rep_.Translate(code, "writing"));
  }
  Result<std::optional<std::string_view>> Get(IndexTable table, std::string_view key) {
    MDB_val key_value = Value(key);
    MDB_val value;
    const int code = mdb_get(txn_, rep_.table(table), &key_value, &value);
    if (code == MDB_NOTFOUND) return std::optional<std::string_view>();
    OCIFS_RETURN_IF_ERROR(Check(code));
    return std::optional(View(value));
  }
  Result<void> Set(IndexTable table, std::string_view key, std::string_view bytes) {
    MDB_val key_value = Value(key);
    MDB_val value = Value(bytes);
    return Check(mdb_put(txn_, rep_.table(table), &key_value, &value, 0));
  }
  Result<void> Erase(IndexTable table, std::string_view key) {
    MDB_val key_value = Value(key);
    return Check(mdb_del(txn_, rep_.table(table), &key_value, nullptr));
  }

  Result<void> Load();
  Result<void> ApplyChange(const IndexBatch::Change& change);
  Result<void> ApplyTouch(const IndexBatch::Change& change);
  Result<void> ApplyMove(const IndexBatch::Move& move);
  Result<void> ApplyChunk(const ChunkDigest& digest, const ChunkLocation& location);
  Result<void> ApplyPack(uint32_t pack, const PackChange& change);
  // What a value adds to the sums, or takes from them; whether the journal has it.
  bool Account(IndexTable table, std::string_view key, std::string_view value, int sign);
  void Live(const ChunkLocation& location, int sign) {
    packs_[location.pack].live += sign * static_cast<int64_t>(RecordBytes(location.length));
  }
  Result<uint64_t> CountLive(uint32_t pack);
  Result<void> Finish();

  Index::Rep& rep_;
  MDB_txn* const txn_;
  int code_ = 0;
  MetaRecord meta_;
  // A value that says what the sums must lose is damaged: they are counted anew.
  bool recount_ = false;
  bool evicts_ = false;
  bool changed_ = false;
  bool has_pins_ = false;
  std::map<uint32_t, PackChange> packs_;
  std::vector<JournalRecord> journal_;
};

Result<void> IndexWriter::Load() {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string_view> value,
                         Get(IndexTable::kMeta, kTotalsKey));
  std::optional<MetaRecord> meta;
  if (value) meta = DecodeMeta(kTotalsKey, *value);
  if (meta) {
    meta_ = *meta;
    return {};
  }
  if (value) {
    const std::unexpected<Error> damage = rep_.Damaged(IndexTable::kMeta);
    Log(LogLevel::kWarning, damage.error().message + "; counted anew");
  }
  recount_ = true;
  // Packs that were there and are not may still be known to some process: more than can have been.
  constexpr uint32_t kUnknownPacks = 1024;
  OCIFS_ASSIGN_OR_RETURN(meta_, rep_.Recount(txn_));
  if (value) meta_.next_pack += kUnknownPacks;
  return {};
}

bool IndexWriter::Account(IndexTable table, std::string_view key, std::string_view value,
                          int sign) {
  auto add = [sign](uint64_t& sum, uint64_t bytes) {
    sum += sign > 0 ? bytes : uint64_t{0} - bytes;
  };
  bool journalled = false;
  if (table == IndexTable::kPackages) {
    const std::optional<PackageRecord> package = DecodePackage(key, value);
    if (!package) recount_ = true;
    if (package && !package->tree) add(meta_.totals.tree_file_bytes, package->tree_bytes);
    journalled = package && package->tree;
  } else if (table == IndexTable::kBlobs) {
    const std::optional<BlobRecord> blob = DecodeBlob(key, value);
    if (!blob) recount_ = true;
    if (blob && !blob->content) add(meta_.totals.blob_file_bytes, blob->size);
    journalled = blob && blob->content;
  } else {
    journalled = IsJournalled(table, key, value);
  }
  if (journalled) add(meta_.journal_bytes, JournalRecordBytes(key.size(), value.size()));
  return journalled;
}

Result<void> IndexWriter::ApplyTouch(const IndexBatch::Change& change) {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string_view> value,
                         Get(change.table, change.key));
  std::optional<PackageRecord> package;
  if (value) package = DecodePackage(change.key, *value);
  if (!package || package->used_at >= change.used_at) return {};
  package->used_at = change.used_at;
  // Neither the sums nor the journal care.
  changed_ = true;
  return Set(change.table, change.key, EncodePackage(change.key, *package));
}

Result<void> IndexWriter::ApplyChange(const IndexBatch::Change& change) {
  using Kind = IndexBatch::Change::Kind;
  if (change.key.empty() || change.key.size() > kMaxKeyBytes) {
    return Fail(ErrorCode::kTooLarge, "index: a key has " + std::to_string(change.key.size()) +
                                          " bytes, not 1 to " + std::to_string(kMaxKeyBytes));
  }
  if (change.kind == Kind::kTouch) return ApplyTouch(change);
  if (change.table == IndexTable::kPacks) {
    PackChange& pack = packs_[IntegerFromKey(change.key).value_or(0)];
    if (change.kind == Kind::kDelete) {
      pack.deleted = true;
      pack.raised.reset();
    } else {
      pack.raised = std::max(pack.raised.value_or(0), change.length);
    }
    return {};
  }
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string_view> old, Get(change.table, change.key));
  if (change.kind == Kind::kDelete && !old) return {};
  bool journalled = old && Account(change.table, change.key, *old, -1);
  changed_ = true;
  if (change.kind == Kind::kDelete) {
    evicts_ |= change.table == IndexTable::kPackages || change.table == IndexTable::kBlobs;
    // A damaged value may be in the journal.
    journalled |= !IsWhole(change.table, change.key, *old);
    OCIFS_RETURN_IF_ERROR(Erase(change.table, change.key));
    if (journalled) journal_.push_back({change.table, change.key, std::nullopt});
  } else {
    const bool was_damaged = old && !IsWhole(change.table, change.key, *old);
    const bool put = Account(change.table, change.key, change.value, 1);
    OCIFS_RETURN_IF_ERROR(Set(change.table, change.key, change.value));
    if (put) {
      journal_.push_back({change.table, change.key, change.value});
    } else if (journalled || was_damaged) {
      journal_.push_back({change.table, change.key, std::nullopt});
    }
  }
  has_pins_ |= change.table == IndexTable::kPins;
  return {};
}

Result<void> IndexWriter::ApplyMove(const IndexBatch::Move& move) {
  const std::string_view key = ChunkKey(move.digest);
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string_view> value,
                         Get(IndexTable::kChunks, key));
  if (!value) return {};
  const std::optional<ChunkLocation> old = DecodeChunk(key, *value);
  if (move.from && old != move.from) return {};
  changed_ = true;
  if (old) {
    Live(*old, -1);
  } else {
    recount_ = true;  // somebody's live bytes
  }
  if (!move.to) {
    evicts_ = true;
    return Erase(IndexTable::kChunks, key);
  }
  Live(*move.to, 1);
  return Set(IndexTable::kChunks, key, EncodeChunk(key, *move.to));
}

Result<void> IndexWriter::ApplyChunk(const ChunkDigest& digest, const ChunkLocation& location) {
  const std::string_view key = ChunkKey(digest);
  const std::string encoded = EncodeChunk(key, location);
  MDB_val key_value = Value(key);
  MDB_val value = Value(encoded);
  // One descent for a chunk that is new, which nearly all are.
  const int code =
      mdb_put(txn_, rep_.table(IndexTable::kChunks), &key_value, &value, MDB_NOOVERWRITE);
  if (code == MDB_KEYEXIST) {
    const std::optional<ChunkLocation> old = DecodeChunk(key, View(value));
    if (old == location) return {};
    if (old) {
      Live(*old, -1);
    } else {
      recount_ = true;
    }
    OCIFS_RETURN_IF_ERROR(Set(IndexTable::kChunks, key, encoded));
  } else {
    OCIFS_RETURN_IF_ERROR(Check(code));
  }
  changed_ = true;
  Live(location, 1);
  return {};
}

Result<uint64_t> IndexWriter::CountLive(uint32_t pack) {
  uint64_t live = 0;
  OCIFS_RETURN_IF_ERROR(
      rep_.WalkIn(txn_, IndexTable::kChunks, {},
                  [&](std::string_view key, std::string_view value) -> Result<bool> {
                    const std::optional<ChunkLocation> location = DecodeChunk(key, value);
                    if (location && location->pack == pack) live += RecordBytes(location->length);
                    return true;
                  }));
  return live;
}

Result<void> IndexWriter::ApplyPack(uint32_t pack, const PackChange& change) {
  const std::string key = IntegerKey(pack);
  OCIFS_ASSIGN_OR_RETURN(const std::optional<std::string_view> value, Get(IndexTable::kPacks, key));
  std::optional<PackRecord> record;
  if (value) record = DecodePack(key, *value);
  if (value && !record) {
    // Damaged. Without a length there is nothing to write: the pack stays one of unknown length.
    recount_ = true;
    if (!change.raised && !change.deleted) return {};
    OCIFS_ASSIGN_OR_RETURN(const uint64_t live, CountLive(pack));
    record = PackRecord{pack, 0, live};
  } else if (record) {
    const uint64_t before = record->live_bytes;
    record->live_bytes += static_cast<uint64_t>(change.live);
    if (change.live < 0 && record->live_bytes > before) {
      recount_ = true;  // it said less than there was
      OCIFS_ASSIGN_OR_RETURN(record->live_bytes, CountLive(pack));
    }
    meta_.totals.live_bytes += record->live_bytes - before;
  }
  if (record && change.deleted) {
    meta_.totals.live_bytes -= record->live_bytes;
    record.reset();
    changed_ = true;
    OCIFS_RETURN_IF_ERROR(Erase(IndexTable::kPacks, key));
    if (!change.raised) return {};
  }
  if (!record) {
    if (!change.raised && change.live <= 0) return {};
    record = PackRecord{pack, 0, 0};
    if (!change.deleted && change.live > 0) {
      record->live_bytes = static_cast<uint64_t>(change.live);
      meta_.totals.live_bytes += record->live_bytes;
    }
  }
  record->length = std::max(record->length, change.raised.value_or(0));
  if (pack >= meta_.next_pack && pack < UINT32_MAX) meta_.next_pack = pack + 1;
  const std::string encoded = EncodePack(key, *record);
  if (value && *value == encoded) return {};
  changed_ = true;
  return Set(IndexTable::kPacks, key, encoded);
}

Result<void> IndexWriter::Finish() {
  for (const auto& [pack, change] : packs_) OCIFS_RETURN_IF_ERROR(ApplyPack(pack, change));
  if (evicts_) ++meta_.totals.evictions;
  if (recount_) {
    OCIFS_ASSIGN_OR_RETURN(const MetaRecord counted, rep_.Recount(txn_));
    const uint64_t evictions = meta_.totals.evictions;
    meta_.totals = counted.totals;
    meta_.totals.evictions = evictions;
    meta_.journal_bytes = counted.journal_bytes;
  }
  if (!changed_) return {};
  return Set(IndexTable::kMeta, kTotalsKey, EncodeMeta(kTotalsKey, meta_));
}

Result<void> IndexWriter::NoteJournal(uint64_t end) {
  meta_.journal_end = end;
  return Set(IndexTable::kMeta, kTotalsKey, EncodeMeta(kTotalsKey, meta_));
}

Result<void> IndexWriter::Apply(const IndexBatch& batch) {
  OCIFS_RETURN_IF_ERROR(Load());
  // In key order: neighbours share pages, and each page is found and copied once. Changes to one
  // key stay in the order they were made, so that the last counts.
  std::vector<const IndexBatch::Change*> changes;
  changes.reserve(batch.changes_.size());
  for (const IndexBatch::Change& change : batch.changes_) changes.push_back(&change);
  std::sort(changes.begin(), changes.end(),
            [](const IndexBatch::Change* x, const IndexBatch::Change* y) {
              return std::tie(x->table, x->key, x) < std::tie(y->table, y->key, y);
            });
  for (const IndexBatch::Change* change : changes) OCIFS_RETURN_IF_ERROR(ApplyChange(*change));
  std::vector<const IndexBatch::Move*> moves;
  moves.reserve(batch.moves_.size());
  for (const IndexBatch::Move& move : batch.moves_) moves.push_back(&move);
  std::sort(moves.begin(), moves.end(), [](const IndexBatch::Move* x, const IndexBatch::Move* y) {
    return std::tie(x->digest, x) < std::tie(y->digest, y);
  });
  for (const IndexBatch::Move* move : moves) OCIFS_RETURN_IF_ERROR(ApplyMove(*move));
  using Chunk = std::pair<ChunkDigest, ChunkLocation>;
  std::vector<const Chunk*> chunks;
  chunks.reserve(batch.chunks_.size());
  for (const Chunk& chunk : batch.chunks_) chunks.push_back(&chunk);
  std::sort(chunks.begin(), chunks.end(), [](const Chunk* x, const Chunk* y) {
    return std::tie(x->first, x) < std::tie(y->first, y);
  });
  for (const Chunk* chunk : chunks) OCIFS_RETURN_IF_ERROR(ApplyChunk(chunk->first, chunk->second));
  return Finish();
}

Result<uint32_t> IndexWriter::ReservePack(uint64_t length) {
  OCIFS_RETURN_IF_ERROR(Load());
  const uint32_t pack = meta_.next_pack;
  packs_[pack].raised = length;
  OCIFS_RETURN_IF_ERROR(Finish());
  return pack;
}

// --- IndexSnapshot -------------------------------------------------------------------------------

class IndexSnapshot::Rep {
 public:
  Rep(const Index::Rep& of, const Index::Rep::OpenTransaction& transaction, bool is_own)
      : index(of), open(transaction), owns(is_own) {}
  ~Rep() {
    if (owns) index.End(open);
  }
  Rep(const Rep&) = delete;
  Rep& operator=(const Rep&) = delete;

  const Index::Rep& index;
  const Index::Rep::OpenTransaction open;
  const bool owns;  // else it is a view into a write transaction
};

IndexSnapshot::IndexSnapshot(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
IndexSnapshot::IndexSnapshot(IndexSnapshot&& other) noexcept = default;
IndexSnapshot::~IndexSnapshot() = default;

Result<std::optional<RefRecord>> IndexSnapshot::FindRef(const Reference& reference) const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.FindIn(rep_->open.txn, IndexTable::kRefs, reference.ToString(), DecodeRef);
}
Result<std::optional<PinRecord>> IndexSnapshot::FindPin(const Reference& reference) const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.FindIn(rep_->open.txn, IndexTable::kPins, reference.ToString(), DecodePin);
}
Result<std::optional<PackageRecord>> IndexSnapshot::FindPackage(const Digest& manifest) const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.FindIn(rep_->open.txn, IndexTable::kPackages, DigestKey(manifest),
                            DecodePackage);
}
Result<std::optional<BlobRecord>> IndexSnapshot::FindBlob(const Digest& digest) const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.FindIn(rep_->open.txn, IndexTable::kBlobs, DigestKey(digest), DecodeBlob);
}
Result<std::optional<ChunkLocation>> IndexSnapshot::FindChunk(const ChunkDigest& digest) const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.FindIn(rep_->open.txn, IndexTable::kChunks, ChunkKey(digest), DecodeChunk);
}
Result<std::optional<PackRecord>> IndexSnapshot::FindPack(uint32_t pack) const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.FindIn(rep_->open.txn, IndexTable::kPacks, IntegerKey(pack), DecodePack);
}

Result<std::vector<Digest>> IndexSnapshot::Packages() const {
  const CrashScope scope(rep_->index.directory_fd());
  std::vector<Digest> packages;
  OCIFS_RETURN_IF_ERROR(rep_->index.ListIn(
      rep_->open.txn, IndexTable::kPackages, {},
      [](std::string_view key, std::string_view) { return DigestFromKey(key); },
      [&](std::string_view, Digest digest) { packages.push_back(digest); }));
  return packages;
}
Result<std::vector<PinRecord>> IndexSnapshot::Pins() const {
  const CrashScope scope(rep_->index.directory_fd());
  std::vector<PinRecord> pins;
  OCIFS_RETURN_IF_ERROR(
      rep_->index.ListIn(rep_->open.txn, IndexTable::kPins, {}, DecodePin,
                         [&](std::string_view, PinRecord pin) { pins.push_back(std::move(pin)); }));
  return pins;
}
Result<std::vector<std::pair<std::string, RefRecord>>> IndexSnapshot::Refs(
    std::string_view prefix) const {
  const CrashScope scope(rep_->index.directory_fd());
  std::vector<std::pair<std::string, RefRecord>> refs;
  OCIFS_RETURN_IF_ERROR(rep_->index.ListIn(
      rep_->open.txn, IndexTable::kRefs, prefix, DecodeRef,
      [&](std::string_view key, RefRecord ref) { refs.emplace_back(key, std::move(ref)); }));
  return refs;
}
Result<IndexTotals> IndexSnapshot::Totals() const {
  const CrashScope scope(rep_->index.directory_fd());
  return rep_->index.TotalsIn(rep_->open.txn);
}

Result<IndexSnapshot> Index::Snapshot() const {
  OCIFS_ASSIGN_OR_RETURN(const Rep::OpenTransaction open, rep_->Begin(MDB_RDONLY));
  return IndexSnapshot(std::make_unique<IndexSnapshot::Rep>(*rep_, open, true));
}

// --- sums ----------------------------------------------------------------------------------------

Result<MetaRecord> Index::Rep::MetaIn(MDB_txn* txn) const {
  OCIFS_ASSIGN_OR_RETURN(const std::optional<MetaRecord> meta,
                         FindIn(txn, IndexTable::kMeta, kTotalsKey, DecodeMeta));
  return meta.value_or(MetaRecord());
}

Result<IndexTotals> Index::Rep::TotalsIn(MDB_txn* txn) const {
  OCIFS_ASSIGN_OR_RETURN(MetaRecord meta, MetaIn(txn));
  MDB_stat stat;
  const int code = mdb_stat(txn, table(IndexTable::kPackages), &stat);
  if (code != 0) return Fail(Translate(code, "counting packages"));
  meta.totals.packages = stat.ms_entries;
  return meta.totals;
}

Result<MetaRecord> Index::Rep::Recount(MDB_txn* txn) const {
  MetaRecord meta;
  for (const IndexTable t : {IndexTable::kRefs, IndexTable::kPackages, IndexTable::kBlobs,
                             IndexTable::kSlots, IndexTable::kPins, IndexTable::kPacks}) {
    OCIFS_RETURN_IF_ERROR(
        WalkIn(txn, t, {}, [&](std::string_view key, std::string_view value) -> Result<bool> {
          if (t == IndexTable::kPackages) {
            const std::optional<PackageRecord> package = DecodePackage(key, value);
            if (package && !package->tree) meta.totals.tree_file_bytes += package->tree_bytes;
          } else if (t == IndexTable::kBlobs) {
            const std::optional<BlobRecord> blob = DecodeBlob(key, value);
            if (blob && !blob->content) meta.totals.blob_file_bytes += blob->size;
          } else if (t == IndexTable::kPacks) {
            const std::optional<PackRecord> pack = DecodePack(key, value);
            if (pack) meta.totals.live_bytes += pack->live_bytes;
            const std::optional<uint32_t> id = IntegerFromKey(key);
            if (id && *id < UINT32_MAX) meta.next_pack = std::max(meta.next_pack, *id + 1);
          }
          if (IsWhole(t, key, value) && IsJournalled(t, key, value)) {
            meta.journal_bytes += JournalRecordBytes(key.size(), value.size());
          }
          return true;
        }));
  }
  return meta;
}

// --- Index: commits ------------------------------------------------------------------------------

Index::Index(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Index::~Index() = default;

Result<std::unique_ptr<Index>> Index::Open(const std::string& path, const Options& options) {
  auto rep = std::make_unique<Rep>();
  rep->path = path;
  OCIFS_RETURN_IF_ERROR(rep->Open(options));
  return std::unique_ptr<Index>(new Index(std::move(rep)));
}

// `full_bytes` is the size of the map, if that is what it failed for.
Result<uint64_t> Index::Rep::WriteOnce(const Apply& apply, uint64_t& full_bytes) {
  OCIFS_ASSIGN_OR_RETURN(const OpenTransaction open, Begin(0));
  struct Leaver {
    ~Leaver() { gate.Leave(pass); }
    MapGate& gate;
    size_t pass;
  } const leaver{gate_, open.pass};
  const CrashScope scope(directory_fd());
  Transaction txn(open.txn);
  const uint64_t number = mdb_txn_id(txn.get());
  IndexWriter writer(*this, txn.get());
  auto note = [&](int code) {
    if (code == MDB_MAP_FULL) full_bytes = MapBytes();
  };
  if (Result<void> applied = apply(writer, open); !applied) {
    note(writer.code());
    return Fail(std::move(applied).error());
  }
  if (!writer.journal().empty()) {
    const auto durability =
        writer.has_pins() ? Journal::Durability::kNow : Journal::Durability::kLater;
    OCIFS_RETURN_IF_ERROR(journal->Append(writer.journal(), durability));
    if (Result<void> noted = writer.NoteJournal(journal->end()); !noted) {
      note(writer.code());
      txn.Abort();
      UndoJournal(writer.journal());
      return Fail(std::move(noted).error());
    }
  }
  const int code = txn.Commit();
  if (code != 0) {
    note(code);
    Error error = Translate(code, "committing");
    if (!writer.journal().empty()) UndoJournal(writer.journal());
    return Fail(std::move(error));
  }
  ExtendFile();
  // A transaction that changed nothing has used no number.
  MDB_envinfo info;
  if (mdb_env_info(environment_, &info) == 0) return std::min<uint64_t>(number, info.me_last_txnid);
  return number;
}

Result<uint64_t> Index::Rep::Write(const Apply& apply) {
  while (true) {
    uint64_t full_bytes = 0;
    Result<uint64_t> written = WriteOnce(apply, full_bytes);
    if (written || full_bytes == 0) return written;
    OCIFS_RETURN_IF_ERROR(Grow(full_bytes));
  }
}

// LMDB does not write pages that a transaction took at the end of the file and gave back. The file
// is made as long as its meta page says, so that one that is shorter was cut (CheckFile). Never
// shortens it, whatever another process does meanwhile.
void Index::Rep::ExtendFile() const {
  MDB_envinfo info;
  MDB_stat stat;
  int fd = -1;
  struct stat status;
  if (mdb_env_info(environment_, &info) != 0 || mdb_env_stat(environment_, &stat) != 0 ||
      mdb_env_get_fd(environment_, &fd) != 0 || fstat(fd, &status) != 0) {
    return;
  }
  const off_t end = static_cast<off_t>((info.me_last_pgno + 1) * stat.ms_psize);
  if (status.st_size >= end) return;
  // Where it does not work, a start that finds the file too short makes the index anew.
  fallocate(fd, 0, end - 1, 1);
}

void Index::Rep::UndoJournal(std::span<const JournalRecord> records) {
  auto undo = [&]() -> Result<void> {
    MDB_txn* raw = nullptr;
    const int code = mdb_txn_begin(environment_, nullptr, 0, &raw);
    if (code != 0) return Fail(Translate(code, "beginning a transaction"));
    const Transaction txn(raw);
    OCIFS_ASSIGN_OR_RETURN(const bool taken_back, journal->TakeBack());
    if (taken_back) return {};
    std::vector<JournalRecord> truth(records.begin(), records.end());
    for (JournalRecord& record : truth) {
      MDB_val key = Value(record.key);
      MDB_val value;
      const bool found = mdb_get(txn.get(), table(record.table), &key, &value) == 0;
      record.value.reset();
      if (found && IsJournalled(record.table, record.key, View(value))) record.value = View(value);
    }
    return journal->Append(truth, Journal::Durability::kLater);
  };
  if (Result<void> undone = undo(); !undone) {
    Log(LogLevel::kWarning, "the journal of the index is ahead of it: " + undone.error().message);
  }
}

Result<uint64_t> Index::Commit(IndexBatch batch, const Check& check) {
  if (batch.empty() && !check) return LastTransaction();
  // What `check` adds goes to a batch of its own, for the transaction may have to be repeated.
  IndexBatch own;
  return rep_->Write([&](IndexWriter& writer, const Rep::OpenTransaction& open) -> Result<void> {
    if (!check) return writer.Apply(batch);
    own = batch;
    const IndexSnapshot now(std::make_unique<IndexSnapshot::Rep>(*rep_, open, false));
    {
      const CrashScope outside(-1);
      OCIFS_RETURN_IF_ERROR(check(now, own));
    }
    return writer.Apply(own);
  });
}

Result<void> Index::Commit(IndexBatch batch) {
  if (batch.empty()) return {};
  OCIFS_RETURN_IF_ERROR(Commit(std::move(batch), nullptr));
  return {};
}

Result<uint32_t> Index::ReservePack(uint64_t length) {
  uint32_t pack = 0;
  OCIFS_RETURN_IF_ERROR(
      rep_->Write([&](IndexWriter& writer, const Rep::OpenTransaction&) -> Result<void> {
        OCIFS_ASSIGN_OR_RETURN(pack, writer.ReservePack(length));
        return {};
      }));
  return pack;
}

Result<uint64_t> Index::LastTransaction() const {
  return rep_->Reading([](MDB_txn* txn) -> Result<uint64_t> { return uint64_t{mdb_txn_id(txn)}; });
}

Result<bool> Index::WaitForReaders(uint64_t number, std::chrono::milliseconds patience) const {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (std::chrono::milliseconds pause(1);; pause = std::min(pause * 2, kLongestPause)) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<uint64_t> oldest, rep_->OldestReader());
    if (!oldest || *oldest >= number) return true;
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(pause, deadline - now));
  }
}

// LMDB has no other way to ask than its listing: a line of titles, then process, thread and
// transaction of each reader; a dash for one that reads nothing.
Result<std::optional<uint64_t>> Index::Rep::OldestReader() const {
  const size_t pass = gate_.Enter();
  struct Leaver {
    ~Leaver() { gate.Leave(pass); }
    MapGate& gate;
    size_t pass;
  } const leaver{gate_, pass};
  std::optional<uint64_t> oldest;
  if (environment_ == nullptr) return oldest;
  const CrashScope scope(directory_fd());
  int dead = 0;
  int code = mdb_reader_check(environment_, &dead);  // a killed process reads no more
  auto take = [](const char* line, void* context) -> int {
    std::string_view text(line);
    while (text.ends_with('\n') || text.ends_with(' ')) text.remove_suffix(1);
    const std::optional<uint64_t> number =
        ParseDecimal(text.substr(text.find_last_of(' ') + 1), UINT64_MAX);
    auto& found = *static_cast<std::optional<uint64_t>*>(context);
    if (number && (!found || *number < *found)) found = number;
    return 0;
  };
  if (code == 0) code = mdb_reader_list(environment_, take, &oldest);
  if (code < 0) return Fail(Translate(code, "listing readers"));
  return oldest;
}

// --- Index: reading ------------------------------------------------------------------------------

Result<std::optional<RefRecord>> Index::FindRef(const Reference& reference) const {
  return rep_->Find(IndexTable::kRefs, reference.ToString(), DecodeRef);
}
Result<std::optional<PinRecord>> Index::FindPin(const Reference& reference) const {
  return rep_->Find(IndexTable::kPins, reference.ToString(), DecodePin);
}
Result<std::optional<PackageRecord>> Index::FindPackage(const Digest& manifest) const {
  return rep_->Find(IndexTable::kPackages, DigestKey(manifest), DecodePackage);
}
Result<std::optional<BlobRecord>> Index::FindBlob(const Digest& digest) const {
  return rep_->Find(IndexTable::kBlobs, DigestKey(digest), DecodeBlob);
}
Result<std::optional<ChunkLocation>> Index::FindChunk(const ChunkDigest& digest) const {
  return rep_->Find(IndexTable::kChunks, ChunkKey(digest), DecodeChunk);
}
Result<std::optional<PackRecord>> Index::FindPack(uint32_t pack) const {
  return rep_->Find(IndexTable::kPacks, IntegerKey(pack), DecodePack);
}
Result<std::optional<TagListRecord>> Index::FindTagList(const Repository& repository) const {
  return rep_->Find(IndexTable::kTags, repository.ToString(), DecodeTagList);
}
Result<IndexTotals> Index::Totals() const {
  return rep_->Reading([&](MDB_txn* txn) { return rep_->TotalsIn(txn); });
}

Result<std::vector<PackRecord>> Index::Packs() const {
  std::vector<PackRecord> packs;
  OCIFS_RETURN_IF_ERROR(rep_->Walk(
      IndexTable::kPacks, {}, [&](std::string_view key, std::string_view value) -> Result<bool> {
        std::optional<PackRecord> pack = DecodePack(key, value);
        if (!pack) {
          const std::unexpected<Error> damage = rep_->Damaged(IndexTable::kPacks);
          Log(LogLevel::kWarning, damage.error().message + "; passed over");
          const std::optional<uint32_t> id = IntegerFromKey(key);
          if (!id) return true;
          pack = PackRecord{*id, PackRecord::kUnknownLength, 0};
        }
        packs.push_back(*pack);
        return true;
      }));
  return packs;
}

Result<std::vector<SlotRecord>> Index::Slots() const {
  std::vector<SlotRecord> slots;
  OCIFS_RETURN_IF_ERROR(
      rep_->List(IndexTable::kSlots, {}, DecodeSlot,
                 [&](std::string_view, SlotRecord slot) { slots.push_back(std::move(slot)); }));
  return slots;
}

Result<std::vector<PinRecord>> Index::Pins() const {
  std::vector<PinRecord> pins;
  OCIFS_RETURN_IF_ERROR(
      rep_->List(IndexTable::kPins, {}, DecodePin,
                 [&](std::string_view, PinRecord pin) { pins.push_back(std::move(pin)); }));
  return pins;
}

Result<std::vector<std::pair<std::string, RefRecord>>> Index::Refs(std::string_view prefix) const {
  std::vector<std::pair<std::string, RefRecord>> refs;
  OCIFS_RETURN_IF_ERROR(rep_->List(
      IndexTable::kRefs, prefix, DecodeRef,
      [&](std::string_view key, RefRecord ref) { refs.emplace_back(key, std::move(ref)); }));
  return refs;
}

Result<std::vector<Registry>> Index::Registries() const {
  std::vector<Registry> registries;
  std::string from;
  bool found = true;
  while (found) {
    found = false;
    OCIFS_RETURN_IF_ERROR(rep_->Walk(IndexTable::kRefs, from,
                                     [&](std::string_view key, std::string_view) -> Result<bool> {
                                       const std::string_view name = key.substr(0, key.find('/'));
                                       Result<Registry> registry = Registry::Parse(name);
                                       if (!registry) return rep_->Damaged(IndexTable::kRefs);
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
  OCIFS_RETURN_IF_ERROR(rep_->Walk(IndexTable::kRefs, prefix,
                                   [&](std::string_view key, std::string_view) -> Result<bool> {
                                     found = key.starts_with(prefix);
                                     return false;
                                   }));
  return found;
}

Result<std::vector<Digest>> Index::Packages() const {
  std::vector<Digest> packages;
  OCIFS_RETURN_IF_ERROR(rep_->List(
      IndexTable::kPackages, {},
      [](std::string_view key, std::string_view) { return DigestFromKey(key); },
      [&](std::string_view, Digest digest) { packages.push_back(digest); }));
  return packages;
}

Result<std::vector<PackageEntry>> Index::PackageEntries() const {
  std::vector<PackageEntry> packages;
  OCIFS_RETURN_IF_ERROR(rep_->List(
      IndexTable::kPackages, {}, DecodePackage, [&](std::string_view key, PackageRecord record) {
        const bool has_inline_tree = record.tree.has_value();
        record.tree.reset();
        // The key is a digest, or the value would not have been decoded.
        packages.push_back({*DigestFromKey(key), std::move(record), has_inline_tree});
      }));
  return packages;
}

Result<uint64_t> Index::PackageCount() const {
  OCIFS_ASSIGN_OR_RETURN(const IndexTotals totals, Totals());
  return totals.packages;
}

Result<std::vector<std::pair<Digest, BlobRecord>>> Index::Blobs() const {
  std::vector<std::pair<Digest, BlobRecord>> blobs;
  OCIFS_RETURN_IF_ERROR(
      rep_->List(IndexTable::kBlobs, {}, DecodeBlob, [&](std::string_view key, BlobRecord blob) {
        if (blob.content) blob.content.emplace();
        blobs.emplace_back(*DigestFromKey(key), std::move(blob));
      }));
  return blobs;
}

uint64_t Index::FileBytes() const { return rep_->FileBytes(); }

// --- the journal ---------------------------------------------------------------------------------

Result<void> Index::CompactJournal() { return rep_->CompactJournal(); }

Result<void> Index::Rep::CompactJournal() {
  constexpr uint64_t kSmallBytes = uint64_t{4} << 20;
  if (read_only) return {};
  auto rewrite = [this](IndexWriter& writer, const OpenTransaction& open) -> Result<void> {
    OCIFS_RETURN_IF_ERROR(writer.Apply(IndexBatch()));
    OCIFS_ASSIGN_OR_RETURN(const MetaRecord meta, MetaIn(open.txn));
    OCIFS_ASSIGN_OR_RETURN(const uint64_t size, journal->Size());
    const bool gone = journal_is_behind_ || size < meta.journal_end;
    const bool stale = size > kSmallBytes && size > 2 * meta.journal_bytes;
    if (!gone && !stale) return {};
    OCIFS_ASSIGN_OR_RETURN(JournalRewriter rewriter, JournalRewriter::Begin(directory_fd()));
    for (const IndexTable t : kJournalledTables) {
      OCIFS_RETURN_IF_ERROR(WalkIn(
          open.txn, t, {}, [&](std::string_view key, std::string_view value) -> Result<bool> {
            // The journal may be the only one that has it right.
            if (!IsWhole(t, key, value)) return Damaged(t);
            if (!IsJournalled(t, key, value)) return true;
            if (Result<void> added = rewriter.Add({t, key, value}); !added) {
              return Fail(std::move(added).error());
            }
            return true;
          }));
    }
    OCIFS_RETURN_IF_ERROR(rewriter.Publish());
    journal_is_behind_ = false;
    // Were this not committed, the journal would be written anew once more.
    OCIFS_ASSIGN_OR_RETURN(const uint64_t new_size, journal->Size());
    return writer.NoteJournal(new_size);
  };
  OCIFS_RETURN_IF_ERROR(Write(rewrite));
  return {};
}

// --- verification --------------------------------------------------------------------------------

uint64_t Index::Rep::FileBytes() const {
  const size_t pass = gate_.Enter();
  MDB_envinfo info = {};
  MDB_stat stat = {};
  if (environment_ != nullptr) {
    const CrashScope scope(directory_fd());
    mdb_env_info(environment_, &info);
    mdb_env_stat(environment_, &stat);
  }
  gate_.Leave(pass);
  return (info.me_last_pgno + 1) * stat.ms_psize;
}

Result<void> Index::Verify() const {
  // Nobody commits, or is between the journal and its commit, while they are compared. The table of
  // free pages is for readers alone; a thread that writes has its place among them left.
  auto verify = [&](MDB_txn* outer) -> Result<void> {
    if (rep_->read_only) return rep_->VerifyIn(outer);
    MDB_txn* txn = nullptr;
    const int code = mdb_txn_begin(rep_->environment(), nullptr, MDB_RDONLY, &txn);
    if (code != 0) return Fail(rep_->Translate(code, "verifying"));
    const Transaction reader(txn);
    return rep_->VerifyIn(reader.get());
  };
  Result<void> verified = rep_->Reading(verify, rep_->read_only ? MDB_RDONLY : 0);
  if (!verified && verified.error().code == ErrorCode::kIndexDamaged) {
    rep_->MarkDamaged(verified.error().message);
  }
  return verified;
}

Result<void> Index::Rep::VerifyIn(MDB_txn* txn) const {
  constexpr MDB_dbi kFreePages = 0;  // LMDB's own table of them
  auto damaged = [](const std::string& what) {
    return Fail(ErrorCode::kIndexDamaged, "index: " + what);
  };
  MDB_envinfo info;
  MDB_stat main_stat;
  MDB_stat free_stat;
  int code = mdb_env_info(environment_, &info);
  if (code == 0) code = mdb_env_stat(environment_, &main_stat);
  if (code == 0) code = mdb_stat(txn, kFreePages, &free_stat);
  if (code != 0) return Fail(Translate(code, "verifying"));
  auto pages_of = [](const MDB_stat& stat) {
    return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
  };
  uint64_t pages = 2 + pages_of(main_stat) + pages_of(free_stat);
  std::map<std::pair<IndexTable, std::string>, std::string> journalled;
  uint64_t live = 0;
  std::map<uint32_t, uint64_t> live_of;
  for (const IndexTable t : kIndexTables) {
    MDB_stat stat;
    code = mdb_stat(txn, table(t), &stat);
    if (code != 0) return Fail(Translate(code, "verifying"));
    pages += pages_of(stat);
    uint64_t entries = 0;
    std::string before;
    OCIFS_RETURN_IF_ERROR(
        WalkIn(txn, t, {}, [&](std::string_view key, std::string_view value) -> Result<bool> {
          if (!IsWhole(t, key, value)) return Damaged(t);
          if (entries++ > 0 && key <= before) {
            return damaged("the table '" + std::string(TableName(t)) + "' is out of order");
          }
          before.assign(key);
          if (t == IndexTable::kChunks) {
            const ChunkLocation location = *DecodeChunk(key, value);
            live_of[location.pack] += RecordBytes(location.length);
          } else if (t == IndexTable::kPacks) {
            const PackRecord pack = *DecodePack(key, value);
            if (live_of[pack.id] != pack.live_bytes) {
              return damaged("pack " + std::to_string(pack.id) + " has other live bytes");
            }
            live += pack.live_bytes;
          }
          if (IsJournalled(t, key, value)) {
            journalled.emplace(std::pair(t, std::string(key)), std::string(value));
          }
          return true;
        }));
    if (entries != stat.ms_entries) {
      return damaged("the table '" + std::string(TableName(t)) + "' lacks entries");
    }
  }
  // Every page is in use or free.
  std::vector<bool> is_free(info.me_last_pgno + 1);
  OCIFS_RETURN_IF_ERROR(
      WalkIn(txn, kFreePages, {}, [&](std::string_view, std::string_view value) -> Result<bool> {
        // A count, and so many numbers of pages.
        std::vector<uint64_t> numbers(value.size() / sizeof(uint64_t));
        std::memcpy(numbers.data(), value.data(), numbers.size() * sizeof(uint64_t));
        if (numbers.empty() || numbers[0] >= numbers.size()) return damaged("a list of free pages");
        for (size_t i = 1; i <= numbers[0]; ++i) {
          if (numbers[i] < 2 || numbers[i] >= is_free.size() || is_free[numbers[i]]) {
            return damaged("a list of free pages");
          }
          is_free[numbers[i]] = true;
          ++pages;
        }
        return true;
      }));
  if (pages != is_free.size()) return damaged("pages are lost");
  OCIFS_ASSIGN_OR_RETURN(const MetaRecord meta, MetaIn(txn));
  OCIFS_ASSIGN_OR_RETURN(const MetaRecord counted, Recount(txn));
  if (meta.totals.live_bytes != live || meta.totals.live_bytes != counted.totals.live_bytes ||
      meta.totals.blob_file_bytes != counted.totals.blob_file_bytes ||
      meta.totals.tree_file_bytes != counted.totals.tree_file_bytes ||
      meta.journal_bytes != counted.journal_bytes || meta.next_pack < counted.next_pack) {
    return damaged("its sums are wrong");
  }
  // An older state of the index is whole in itself.
  OCIFS_ASSIGN_OR_RETURN(JournalContent content, ReadJournal(directory_fd()));
  for (auto* values : {&content.values, &journalled}) {
    for (auto& [key, value] : *values) {
      if (key.first != IndexTable::kPackages) continue;
      // When a package was used last is not journalled.
      std::optional<PackageRecord> package = DecodePackage(key.second, value);
      if (!package) continue;
      package->used_at = 0;
      value = EncodePackage(key.second, *package);
    }
  }
  if (content.values == journalled) return {};
  // A journal that was not synced may have lost its end, or have holes, after a power loss.
  if (content.damaged_bytes == 0 && content.bytes > meta.journal_end) {
    return damaged("the journal says more");
  }
  journal_is_behind_ = true;
  return {};
}

}  // namespace ocifs::store
