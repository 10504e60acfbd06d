#include "store/ingest.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "store/decompress.h"
#include "store/entry_path.h"
#include "store/read_ahead.h"
#include "store/space.h"
#include "store/tar_reader.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

class VerifyingStream final : public ByteStream {
 public:
  VerifyingStream(std::unique_ptr<ByteStream> upstream, const Descriptor& expected,
                  StagedBlob* keep, std::function<void(uint64_t)> moved)
      : upstream_(std::move(upstream)),
        digest_(expected.digest),
        size_(expected.size),
        keep_(keep),
        moved_(std::move(moved)),
        hasher_(expected.digest.algorithm()) {}

  Result<std::span<const std::byte>> Next() override {
    if (failure_) return Fail(*failure_);
    Result<std::span<const std::byte>> piece = Verified();
    if (!piece) failure_ = piece.error();
    return piece;
  }

 private:
  Result<std::span<const std::byte>> Verified() {
    if (ended_) return std::span<const std::byte>();
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, upstream_->Next());
    if (piece.size() > size_ - seen_) {
      return Mismatch("it is longer than the " + std::to_string(size_) +
                      " bytes of its descriptor");
    }
    seen_ += piece.size();
    if (!piece.empty()) {
      hasher_.Update(piece);
      Keep(piece);
      if (moved_) moved_(piece.size());
      return piece;
    }
    // Size first, then digest (image-spec, descriptor.md, "Verification").
    if (seen_ != size_) {
      return Mismatch("it has " + std::to_string(seen_) + " bytes, its descriptor says " +
                      std::to_string(size_));
    }
    if (const Digest actual = hasher_.Finish(); actual != digest_) {
      return Mismatch("its content has digest " + actual.ToString());
    }
    ended_ = true;
    return piece;
  }

  // A raw blob that cannot be kept is not missed by anybody who reads.
  void Keep(std::span<const std::byte> piece) {
    if (keep_ == nullptr || !keep_->is_whole()) return;
    if (const Result<void> kept = keep_->Append(piece); !kept) keep_->GiveUp(kept.error());
  }

  std::unexpected<Error> Mismatch(std::string reason) const {
    return Fail(ErrorCode::kCorrupt, "blob " + digest_.ToString() + ": " + std::move(reason) +
                                         "; nothing of it was kept");
  }

  const std::unique_ptr<ByteStream> upstream_;
  const Digest digest_;
  const uint64_t size_;
  StagedBlob* const keep_;
  const std::function<void(uint64_t)> moved_;
  Hasher hasher_;
  uint64_t seen_ = 0;
  bool ended_ = false;
  std::optional<Error> failure_;  // for ever
};

// Hashes what passes.
class DiffIdStream final : public ByteStream {
 public:
  DiffIdStream(std::unique_ptr<ByteStream> upstream, std::optional<Digest>& diff_id)
      : upstream_(std::move(upstream)), diff_id_(diff_id) {}

  Result<std::span<const std::byte>> Next() override {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, upstream_->Next());
    if (piece.empty()) {
      diff_id_ = hasher_.Finish();
    } else {
      hasher_.Update(piece);
    }
    return piece;
  }

 private:
  const std::unique_ptr<ByteStream> upstream_;
  std::optional<Digest>& diff_id_;
  Hasher hasher_;
};

// A blob that can be begun twice: what was read before Rewind comes again. Fails when more is read
// before Rewind or StopRecording than anybody should need to see what a blob is: empty gzip members
// or skippable zstd frames may go on for gigabytes.
class Rewindable {
 public:
  explicit Rewindable(std::unique_ptr<ByteStream> upstream) : upstream_(std::move(upstream)) {}

  Result<std::span<const std::byte>> Next() {
    if (replay_ < recorded_.size()) {
      const auto rest = std::span<const std::byte>(recorded_).subspan(replay_);
      replay_ = recorded_.size();
      return rest;
    }
    if (!recording_ && !recorded_.empty()) recorded_ = {};
    if (recording_ && recorded_.size() > kMaxRecordedBytes) {
      return Fail(ErrorCode::kCorrupt,
                  "no content in its first " + std::to_string(kMaxRecordedBytes >> 20) + " MiB");
    }
    Result<std::span<const std::byte>> piece = upstream_->Next();
    if (!piece) {
      error_ = piece.error();
    } else if (recording_) {
      recorded_.insert(recorded_.end(), piece->begin(), piece->end());
      replay_ = recorded_.size();
    }
    return piece;
  }
  void Rewind() {
    replay_ = 0;
    recording_ = false;
  }
  void StopRecording() { recording_ = false; }
  const std::optional<Error>& error() const { return error_; }

 private:
  static constexpr size_t kMaxRecordedBytes = size_t{16} << 20;
  const std::unique_ptr<ByteStream> upstream_;
  std::vector<std::byte> recorded_;
  size_t replay_ = 0;
  bool recording_ = true;
  std::optional<Error> error_;
};

class RewindableView final : public ByteStream {
 public:
  explicit RewindableView(std::shared_ptr<Rewindable> source) : source_(std::move(source)) {}
  Result<std::span<const std::byte>> Next() override { return source_->Next(); }

 private:
  const std::shared_ptr<Rewindable> source_;
};

// Gives the bytes taken from a stream back before the rest of it.
class PrefixedStream final : public ByteStream {
 public:
  PrefixedStream(std::vector<std::byte> prefix, std::unique_ptr<ByteStream> rest)
      : prefix_(std::move(prefix)), rest_(std::move(rest)) {}
  Result<std::span<const std::byte>> Next() override {
    if (!std::exchange(given_, true) && !prefix_.empty())
      return std::span<const std::byte>(prefix_);
    return rest_->Next();
  }

 private:
  const std::vector<std::byte> prefix_;
  const std::unique_ptr<ByteStream> rest_;
  bool given_ = false;
};

constexpr size_t kTarBlock = 512;
constexpr size_t kZeroHeadBytes = size_t{64} << 10;  // longer than any writer's end of archive

// What a blob may unpack to. Small ones count as larger than they are: a file of zeros compresses a
// thousandfold and is harmless, and a gigabyte is no bomb.
uint64_t MaxPlainBytes(const Descriptor& descriptor, const Limits& limits) {
  constexpr uint64_t kSmallBlob = uint64_t{4} << 20;
  const uint64_t size = std::max(descriptor.size, kSmallBlob);
  const uint64_t by_ratio =
      size > UINT64_MAX / limits.max_expansion ? UINT64_MAX : size * limits.max_expansion;
  return std::min(limits.max_unpacked_bytes, by_ratio);
}

bool IsAllZero(std::span<const std::byte> bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

std::unique_ptr<ByteStream> VerifyBlob(std::unique_ptr<ByteStream> upstream,
                                       const Descriptor& expected, StagedBlob* keep,
                                       std::function<void(uint64_t)> moved) {
  return std::make_unique<VerifyingStream>(std::move(upstream), expected, keep, std::move(moved));
}

Result<std::string> ReadAll(ByteStream& stream, uint64_t max_bytes) {
  std::string bytes;
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, stream.Next());
    if (piece.empty()) return bytes;
    if (piece.size() > max_bytes - bytes.size()) {
      return Fail(ErrorCode::kTooLarge,
                  "a document of more than " + std::to_string(max_bytes) + " bytes");
    }
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
}

// The content of one file, cut at multiples of kChunkBytes; runs of zeros that fill whole pieces
// become holes.
class ChunkWriter::File {
 public:
  File(ChunkWriter& writer, uint32_t layer) : writer_(writer), layer_(layer) {}

  Result<void> Append(std::span<const std::byte> data, uint64_t stream_offset) {
    while (!data.empty()) {
      if (!open_) Begin(stream_offset);
      const size_t count =
          static_cast<size_t>(std::min<uint64_t>(data.size(), kChunkBytes - (position_ - start_)));
      OCIFS_RETURN_IF_ERROR(AddToChunk(data.first(count)));
      data = data.subspan(count);
      stream_offset += count;
    }
    return {};
  }

  // `last`: the file ends behind these zeros.
  Result<void> AppendZeros(uint64_t count, bool last) {
    static constexpr std::array<std::byte, 65536> kZeros{};
    while (count > 0) {
      if (!open_) {
        const uint64_t hole = last ? count : count / kChunkBytes * kChunkBytes;
        if (hole > 0) {
          AddHole(hole);
          count -= hole;
          continue;
        }
        Begin(0);
      }
      const uint64_t room = std::min(count, kChunkBytes - (position_ - start_));
      const auto zeros = std::span(kZeros).first(std::min<uint64_t>(room, kZeros.size()));
      OCIFS_RETURN_IF_ERROR(AddToChunk(zeros));
      count -= zeros.size();
    }
    return {};
  }

  Result<std::span<const ChunkRef>> Finish() {
    if (open_) OCIFS_RETURN_IF_ERROR(End());
    return std::span<const ChunkRef>(chunks_);
  }

  uint64_t position() const { return position_; }
  void Reset() {
    chunks_.clear();
    position_ = 0;
  }

 private:
  void Begin(uint64_t stream_offset) {
    writer_.BeginChunk();
    open_ = true;
    start_ = position_;
    stream_offset_ = stream_offset;
  }
  Result<void> AddToChunk(std::span<const std::byte> bytes) {
    OCIFS_RETURN_IF_ERROR(writer_.AppendToChunk(bytes));
    writer_.hasher_.Update(bytes);
    position_ += bytes.size();
    if (position_ - start_ == kChunkBytes) return End();
    return {};
  }
  void AddHole(uint64_t length) {
    if (!chunks_.empty() && chunks_.back().is_hole) {
      chunks_.back().length += length;
    } else {
      chunks_.push_back(ChunkRef{.digest = {},
                                 .file_offset = position_,
                                 .length = length,
                                 .is_hole = true,
                                 .layer = layer_});
    }
    position_ += length;
  }
  Result<void> End() {
    open_ = false;
    const uint64_t length = position_ - start_;
    // Looking costs one comparison unless the piece begins with zeros.
    if (length == kChunkBytes && IsAllZero(writer_.Chunk())) {
      writer_.hasher_.FinishChunk();
      writer_.DropChunk();
      position_ = start_;
      AddHole(length);
      return {};
    }
    OCIFS_ASSIGN_OR_RETURN(const ChunkDigest digest, writer_.FinishChunk());
    chunks_.push_back(ChunkRef{.digest = digest,
                               .file_offset = start_,
                               .length = length,
                               .is_hole = false,
                               .layer = layer_,
                               .stream_offset = stream_offset_});
    return {};
  }

  ChunkWriter& writer_;
  const uint32_t layer_;
  std::vector<ChunkRef> chunks_;
  uint64_t position_ = 0;
  uint64_t start_ = 0;
  uint64_t stream_offset_ = 0;
  bool open_ = false;
};

ChunkWriter::ChunkWriter(std::unique_ptr<PackWriter> pack, const Index& index, UnkeptChunks& unkept,
                         const PackSet* stored)
    : pack_(std::move(pack)), index_(index), unkept_(unkept), stored_(stored) {}
ChunkWriter::~ChunkWriter() = default;

void ChunkWriter::BeginChunk() {
  if (keeps()) {
    pack_->Begin();
  } else {
    loose_.clear();
  }
}

Result<void> ChunkWriter::AppendToChunk(std::span<const std::byte> bytes) {
  if (keeps()) return pack_->Append(bytes);
  loose_.insert(loose_.end(), bytes.begin(), bytes.end());
  return {};
}

std::span<const std::byte> ChunkWriter::Chunk() const {
  return keeps() ? pack_->Pending() : loose_;
}

void ChunkWriter::DropChunk() {
  if (keeps()) {
    pack_->Drop();
  } else {
    loose_.clear();
  }
}

Result<ChunkDigest> ChunkWriter::FinishChunk() {
  const ChunkDigest digest = hasher_.FinishChunk();
  bool known = added_.contains(digest);
  if (!known) {
    OCIFS_ASSIGN_OR_RETURN(const std::optional<ChunkLocation> location,
                           OrMissing(index_.FindChunk(digest)));
    known = location && (stored_ == nullptr || IsStoredAt(*location));
  }
  // Who waits for it is served even if what is kept now cannot be read later.
  if (unkept_.IsWanted(digest)) unkept_.Add(digest, Chunk());
  if (!known && keeps()) {
    added_.emplace(digest, pack_->Keep(digest));
    if (pack_->WantsFlush()) OCIFS_RETURN_IF_ERROR(Flush());
    return digest;
  }
  if (!known) unkept_.Add(digest, Chunk());
  DropChunk();
  return digest;
}

Result<void> ChunkWriter::Flush() {
  if (!keeps()) return {};
  Result<void> flushed = pack_->Flush();
  if (flushed || !CannotKeep(flushed.error())) return flushed;
  return GiveUp(std::move(flushed).error());
}

Result<void> ChunkWriter::GiveUp(Error error) {
  failure_ = std::move(error);
  const uint64_t flushed = pack_->flushed();
  std::erase_if(added_, [&](const auto& item) {
    if (item.second.offset < flushed) return false;
    unkept_.Add(item.first, pack_->Buffered(item.second));
    return true;
  });
  return pack_->RollBackTo(flushed);
}

bool ChunkWriter::IsStoredAt(const ChunkLocation& location) {
  const std::span<const std::byte> bytes = Chunk();
  if (location.length != bytes.size()) return false;
  compared_.resize(bytes.size());
  return stored_->Read(location, 0, compared_) &&
         std::equal(bytes.begin(), bytes.end(), compared_.begin());
}

Result<void> ChunkWriter::RollBackTo(uint64_t pack_length) {
  std::erase_if(added_, [&](const auto& item) { return item.second.offset >= pack_length; });
  hasher_.FinishChunk();  // the open chunk, if there is one
  loose_.clear();
  if (pack_ == nullptr) return {};
  return pack_->RollBackTo(std::min(pack_length, pack_->length()));
}

Result<IngestedLayer> ChunkWriter::Ingest(std::unique_ptr<ByteStream> blob,
                                          const Descriptor& descriptor, uint32_t layer_number,
                                          bool archive_only, const Limits& limits) {
  IngestedLayer ingested;
  auto wrap = [&](Error error) {
    return Fail(std::move(error).Wrap("layer " + descriptor.digest.ToString()));
  };
  if (descriptor.size > limits.max_blob_bytes) {
    return wrap(Error{ErrorCode::kTooLarge,
                      "its " + std::to_string(descriptor.size) + " bytes exceed limits.max_blob"});
  }
  // Media types lie; the first bytes decide what the blob is.
  const auto source = std::make_shared<Rewindable>(std::move(blob));
  std::vector<std::byte> head;
  bool ended = false;
  std::unique_ptr<ByteStream> plain;
  Result<PlainStream> decompressed =
      Decompress(std::make_unique<RewindableView>(source), MaxPlainBytes(descriptor, limits));
  std::optional<Error> failure;
  if (decompressed) {
    plain = std::move(decompressed->stream);
    while (head.size() < kTarBlock || (IsAllZero(head) && head.size() < kZeroHeadBytes)) {
      const Result<std::span<const std::byte>> piece = plain->Next();
      if (!piece) {
        failure = piece.error();
        break;
      }
      if (piece->empty()) {
        ended = true;
        break;
      }
      head.insert(head.end(), piece->begin(), piece->end());
    }
  } else {
    failure = std::move(decompressed).error();
  }
  if (source->error()) return wrap(*source->error());
  if (failure && archive_only) return wrap(*std::move(failure));
  // Zeros are an empty archive when nothing else follows; disk images begin with zeros too.
  const bool zeros = !head.empty() && IsAllZero(head);
  const bool archive = !failure && ((LooksLikeTar(head) && (!zeros || ended || archive_only)) ||
                                    (archive_only && head.empty()));
  if (!archive && archive_only) {
    return wrap(
        Error{ErrorCode::kCorrupt, "it is not a tar archive, which an image layer has to be"});
  }
  Result<void> result;
  if (archive) {
    source->StopRecording();
    // The rest of a small blob may be in `head` already; what follows runs beside this thread.
    plain = ReadAhead(std::make_unique<DiffIdStream>(
        std::make_unique<PrefixedStream>(std::move(head), std::move(plain)), ingested.diff_id));
    result = IngestArchive(std::move(plain), layer_number, limits, ingested.layer);
  } else {
    plain.reset();
    source->Rewind();
    result = IngestFile(std::make_unique<RewindableView>(source), descriptor, layer_number, limits,
                        ingested.layer);
  }
  if (!result) return wrap(std::move(result).error());
  return ingested;
}

Result<void> ChunkWriter::IngestArchive(std::unique_ptr<ByteStream> plain, uint32_t layer_number,
                                        const Limits& limits, Layer& layer) {
  OCIFS_ASSIGN_OR_RETURN(const std::unique_ptr<TarReader> tar,
                         TarReader::Open(std::move(plain), limits));
  File file(*this, layer_number);
  uint64_t total = 0;
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const TarEntry* entry, tar->NextEntry());
    if (entry == nullptr) return {};
    if (entry->is_hard_link || entry->attributes.type != NodeType::kRegular) {
      layer.Add(*entry, {});
      continue;
    }
    const uint64_t size = entry->attributes.size;
    if (size > limits.max_unpacked_bytes - total) {
      return Fail(ErrorCode::kTooLarge, "its files add up to more than " +
                                            std::to_string(limits.max_unpacked_bytes) +
                                            " bytes (limits.max_unpacked)");
    }
    total += size;
    file.Reset();
    while (true) {
      OCIFS_ASSIGN_OR_RETURN(const TarBlock block, tar->NextBlock());
      if (block.data.empty()) break;
      if (block.offset > file.position()) {
        OCIFS_RETURN_IF_ERROR(file.AppendZeros(block.offset - file.position(), false));
      }
      OCIFS_RETURN_IF_ERROR(file.Append(block.data, block.stream_offset));
    }
    if (file.position() < size) {
      OCIFS_RETURN_IF_ERROR(file.AppendZeros(size - file.position(), true));
    }
    OCIFS_ASSIGN_OR_RETURN(const std::span<const ChunkRef> chunks, file.Finish());
    if (file.position() != size) {
      return Fail(ErrorCode::kInternal, "an archive entry gave more bytes than its size");
    }
    layer.Add(*entry, chunks);
  }
}

Result<void> ChunkWriter::IngestFile(std::unique_ptr<ByteStream> content,
                                     const Descriptor& descriptor, uint32_t layer_number,
                                     const Limits& limits, Layer& layer) {
  TarEntry entry;
  if (const std::string* title = descriptor.title()) {
    OCIFS_RETURN_IF_ERROR(NormalizeEntryPath(*title, limits, entry.path));
  }
  if (entry.path.empty()) {
    entry.path = std::string(DigestAlgorithmName(descriptor.digest.algorithm())) + "-" +
                 descriptor.digest.hex();
  }
  entry.attributes.type = NodeType::kRegular;
  entry.attributes.mode = 0644;
  entry.attributes.size = descriptor.size;
  File file(*this, layer_number);
  uint64_t offset = 0;
  while (true) {
    OCIFS_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, content->Next());
    if (piece.empty()) break;
    OCIFS_RETURN_IF_ERROR(file.Append(piece, offset));
    offset += piece.size();
  }
  OCIFS_ASSIGN_OR_RETURN(const std::span<const ChunkRef> chunks, file.Finish());
  layer.Add(entry, chunks);
  return {};
}

}  // namespace ocifs::store
