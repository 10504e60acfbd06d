#include "fetch/registry_blob_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "fetch/content_range.h"
#include "fetch/registry_answer.h"
#include "store/text.h"

namespace ocifs::fetch {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::Result;

namespace {

using Bytes = std::span<const std::byte>;

// A range may come in several answers, but not in crumbs.
constexpr uint64_t kMinAnswerBytes = uint64_t{64} << 10;

// What a 416 says of the whole: "bytes */1234" (RFC 9110 section 14.4).
std::optional<uint64_t> LengthBy416(const HttpHead& head) {
  constexpr std::string_view kUnsatisfied = "bytes */";
  const std::string* const range = head.headers.Find("content-range");
  if (head.status != 416 || range == nullptr || !range->starts_with(kUnsatisfied)) {
    return std::nullopt;
  }
  return store::ParseDecimal(std::string_view(*range).substr(kUnsatisfied.size()), INT64_MAX);
}

}  // namespace

// One request for the bytes [begin, end) of the blob, and its answer.
class RegistryBlobStream::Part {
 public:
  struct Plan {
    uint64_t begin = 0;
    uint64_t end = 0;
    uint64_t total = 0;   // of the blob
    bool ranged = false;  // by a Range header
    bool extra = false;   // holds one of the host's extra ranges
  };

  Part(const Candidate& candidate, HttpRequest request, const Plan& plan, std::stop_token stop)
      : plan_(plan), host_(*candidate.host), position_(plan.begin), answer_end_(plan.end) {
    exchange_.emplace(host_, Access::Pull(candidate.endpoint.repository), std::move(request),
                      std::move(stop));
  }
  // At a server that the registry has redirected to before.
  struct Direct {};
  Part(Direct, const Candidate& candidate, HttpRequest request, const Plan& plan,
       std::stop_token stop)
      : plan_(plan), host_(*candidate.host), position_(plan.begin), answer_end_(plan.end) {
    direct_.emplace(host_.client(), std::move(request), std::move(stop));
  }
  ~Part() {
    if (plan_.extra) host_.ReturnExtraRange();
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  uint64_t begin() const { return plan_.begin; }
  uint64_t end() const { return plan_.end; }
  bool is_open() const { return head_ != nullptr; }
  bool is_direct() const { return direct_.has_value(); }
  // Of the answer, once it is there: also of one that is a failure.
  int status() const { return status_; }
  const HttpHead& head() const { return *head_; }
  HttpExchange& http() { return direct_ ? *direct_ : exchange_->http(); }
  // The failure is about ranges: without one, the server may do better.
  bool ranges_failed() const { return ranges_failed_; }

  // Bytes from `position` on; empty at the end of what the answer holds.
  Attempted<Bytes> Next() {
    if (head_ == nullptr) {
      if (Attempted<void> opened = Open(); !opened) return std::unexpected(opened.error());
    }
    while (true) {
      Result<Bytes> bytes = http().Next();
      if (!bytes) {
        return std::unexpected(FailureOfTransport(std::move(bytes).error(), Contact::kAnswered));
      }
      if (bytes->empty()) {
        if (position_ == answer_end_) return Bytes();
        // Without a length, an end looks like any other.
        return FailedAnswer(ErrorCode::kCorrupt,
                            Describe() + ": the blob is shorter than its descriptor (" +
                                std::to_string(position_) + " instead of " +
                                std::to_string(plan_.total) + " bytes)",
                            2);
      }
      const uint64_t skipped = std::min<uint64_t>(skip_, bytes->size());
      skip_ -= skipped;
      const Bytes rest = bytes->subspan(skipped);
      if (rest.size() > answer_end_ - position_) return TooLong("more");
      if (rest.empty()) continue;
      position_ += rest.size();
      return rest;
    }
  }

 private:
  Attempted<void> Open() {
    Result<const HttpHead*> answer = direct_ ? direct_->Head() : exchange_->Head();
    if (!answer) {
      // A server that the registry has sent us to says nothing about the registry.
      const Contact contact = exchange_ ? exchange_->contact() : Contact::kAnswered;
      return std::unexpected(FailureOfTransport(std::move(answer).error(), contact));
    }
    const HttpHead& head = **answer;
    status_ = head.status;
    if (head.status == 206 && plan_.ranged) {
      if (Attempted<void> fits = CheckRange(head); !fits) return fits;
    } else if (head.status == 200) {
      if (Attempted<void> fits = CheckWhole(head); !fits) return fits;
    } else if (const auto length = LengthBy416(head); length && *length != plan_.total) {
      return FailedAnswer(ErrorCode::kCorrupt,
                          Describe() + ": the blob is not of its descriptor's size (" +
                              std::to_string(*length) + " instead of " +
                              std::to_string(plan_.total) + " bytes)",
                          1);
    } else if (head.status == 416 || head.status == 206) {
      return RangeFailed("the server cannot give a part of the blob (status " +
                         std::to_string(head.status) + ")");
    } else {
      return std::unexpected(FailureOfStatus(head));
    }
    head_ = &head;
    return {};
  }

  Attempted<void> CheckRange(const HttpHead& head) {
    if (head.MediaType() == "multipart/byteranges") {
      return RangeFailed("several ranges in answer to one");
    }
    const std::string* const field = head.headers.Find("content-range");
    const std::optional<ContentRange> range =
        field == nullptr ? std::nullopt : ParseContentRange(*field);
    if (!range || range->first != plan_.begin || range->last >= plan_.end ||
        range->total.value_or(plan_.total) != plan_.total) {
      return RangeFailed("another range than was asked for");
    }
    answer_end_ = range->last + 1;
    const uint64_t length = answer_end_ - plan_.begin;
    if (head.content_length.value_or(length) != length) {
      return RangeFailed("a length that is not that of its range");
    }
    if (answer_end_ != plan_.end && length < kMinAnswerBytes) {
      return RangeFailed("much less than was asked for");
    }
    return {};
  }

  // The range was ignored, or none was asked for: what is known already is read past.
  Attempted<void> CheckWhole(const HttpHead& head) {
    skip_ = plan_.begin;
    answer_end_ = plan_.end = plan_.total;
    if (!head.content_length || *head.content_length == plan_.total) return {};
    if (IsHtml(head)) {
      return FailedAnswer(ErrorCode::kRemote, WebPageMessage(Describe()));
    }
    if (*head.content_length > plan_.total) return TooLong(std::to_string(*head.content_length));
    return FailedAnswer(ErrorCode::kCorrupt,
                        Describe() + ": the blob is shorter than its descriptor (" +
                            std::to_string(*head.content_length) + " instead of " +
                            std::to_string(plan_.total) + " bytes)",
                        2);
  }

  Failure FailureOfStatus(const HttpHead& head) {
    const bool redirected = direct_ || !exchange_->http().at_origin();
    Error error = direct_ ? ErrorFromAnswer(Describe(), head, ReadErrorBody(*direct_))
                          : exchange_->ErrorOfAnswer(head);
    Failure failure = FailureOfAnswer(head, std::move(error), std::chrono::system_clock::now());
    // Another server's wish to be left alone says nothing about the registry.
    if (redirected) failure.retry_after.reset();
    // The URL that the registry signed may have run out on the way: it makes another.
    const bool refused = head.status == 400 || head.status == 401 || head.status == 403;
    if (redirected && refused) failure.tries = std::max(failure.tries, 2);
    return failure;
  }

  std::unexpected<Failure> RangeFailed(const std::string& why) {
    ranges_failed_ = true;
    return FailedAnswer(ErrorCode::kRemote, Describe() + ": " + why, 2);
  }

  std::unexpected<Failure> TooLong(const std::string& actual) {
    return FailedAnswer(ErrorCode::kCorrupt,
                        Describe() + ": the blob is longer than its descriptor (" + actual +
                            " instead of " + std::to_string(plan_.total) + " bytes)",
                        2);
  }

  std::string Describe() { return http().Describe(); }

  Plan plan_;
  RegistryHost& host_;
  std::optional<RegistryExchange> exchange_;  // one of the two
  std::optional<HttpExchange> direct_;
  const HttpHead* head_ = nullptr;  // of an answer that will do
  int status_ = 0;
  bool ranges_failed_ = false;
  uint64_t skip_ = 0;
  uint64_t position_;
  uint64_t answer_end_;
};

RegistryBlobStream::RegistryBlobStream(std::unique_ptr<Attempts> attempts, store::Descriptor blob,
                                       const BlobTransferOptions& options,
                                       std::function<void(RegistryHost&)> served,
                                       std::stop_token stop)
    : attempts_(std::move(attempts)),
      blob_(std::move(blob)),
      options_(options),
      served_(std::move(served)),
      stop_(std::move(stop)) {
  if (blob_.size == 0 || !attempts_->CanStartNow()) return;
  if (Result<void> opened = OpenFront(); !opened) failure_ = std::move(opened).error();
}

RegistryBlobStream::~RegistryBlobStream() = default;

Result<Bytes> RegistryBlobStream::Next() {
  if (failure_) return Fail(*failure_);
  attempts_->Resume();
  Result<Bytes> bytes = Read();
  if (!bytes) {
    // A manifest names the blob, so its absence is the registry's fault, not the name's.
    if (bytes.error().code == ErrorCode::kNotFound) bytes.error().code = ErrorCode::kRemote;
    failure_ = bytes.error();
    parts_.clear();
  }
  return bytes;
}

Result<Bytes> RegistryBlobStream::Read() {
  while (true) {
    if (parts_.empty() && received_ == blob_.size) return Bytes();
    if (parts_.empty() || parts_.front()->begin() > received_) OCIFS_RETURN_IF_ERROR(OpenFront());
    Part& part = *parts_.front();
    const bool was_open = part.is_open();
    Attempted<Bytes> bytes = part.Next();
    if (!bytes) {
      OCIFS_RETURN_IF_ERROR(Recover(std::move(bytes).error()));
      continue;
    }
    if (!was_open) Opened(part);
    if (!bytes->empty()) {
      received_ += bytes->size();
      attempts_->Progressed(bytes->size());
      return *bytes;
    }
    parts_.pop_front();
    OpenMore();
  }
}

// What the answer of the first part tells, before its first bytes are handed out.
void RegistryBlobStream::Opened(Part& part) {
  attempts_->Answered();
  if (!std::exchange(served_is_told_, true)) served_(*candidate_->host);
  const HttpHead& head = part.head();
  if (head.connect_time) candidate_->host->NoteConnectTime(*head.connect_time);
  const std::string* const etag = head.headers.Find("etag");
  etag_ = etag != nullptr && etag->starts_with('"') ? *etag : "";
  if (head.status == 200) {
    // All of it comes with this answer.
    while (parts_.size() > 1) parts_.pop_back();
    no_ranges_ = no_ranges_ || received_ > 0;
    return;
  }
  if (!part.is_direct() && !part.http().at_origin()) direct_ = part.http().request();
  OpenMore();
}

Result<void> RegistryBlobStream::Recover(Failure failure) {
  Part& part = *parts_.front();
  if (received_ == blob_.size) {
    // All is there, and its digest decides. More than all is another blob.
    if (failure.error.code == ErrorCode::kCorrupt) return Fail(std::move(failure.error));
    parts_.clear();
    return {};
  }
  if (part.is_direct() && failure.error.code != ErrorCode::kCancelled) {
    // The URL has run out, or that server is gone: the registry names another.
    direct_.reset();
    parts_.clear();
    return {};
  }
  if (part.ranges_failed()) no_ranges_ = true;
  parts_.pop_front();
  // What was asked of a server that is gone will not come.
  if (no_ranges_ || failure.unreachable()) parts_.clear();
  attempts_->Failed(std::move(failure));
  has_turn_ = false;
  return {};
}

Result<void> RegistryBlobStream::TakeTurn() {
  OCIFS_ASSIGN_OR_RETURN(const Attempts::Turn turn, attempts_->Next());
  if (candidate_ != &turn.candidate) {
    parts_.clear();
    direct_.reset();
    etag_.clear();
    no_ranges_ = false;
  }
  candidate_ = &turn.candidate;
  connect_timeout_ = turn.connect_timeout;
  fresh_connection_ = turn.fresh_connection;
  has_turn_ = true;
  served_is_told_ = false;
  return {};
}

bool RegistryBlobStream::IsFar() const {
  const std::optional<std::chrono::microseconds> round_trip = candidate_->host->round_trip();
  return options_.max_ranges > 1 && round_trip && *round_trip >= options_.far &&
         blob_.size - received_ >= 2 * options_.range_bytes;
}

// Ranges of one size, as many as fill every round of max_ranges: a last range that is alone on its
// way would take as long as the whole round before it.
uint64_t RegistryBlobStream::EvenRange() const {
  const uint64_t left = blob_.size - received_;
  const uint64_t round = options_.range_bytes * static_cast<uint64_t>(options_.max_ranges);
  const uint64_t count = (left + round - 1) / round * static_cast<uint64_t>(options_.max_ranges);
  return std::max((left + count - 1) / count, options_.range_bytes / 2);
}

Result<void> RegistryBlobStream::OpenFront() {
  if (!has_turn_) OCIFS_RETURN_IF_ERROR(TakeTurn());
  uint64_t end = blob_.size;
  if (!parts_.empty()) {
    end = parts_.front()->begin();
  } else if (!no_ranges_ && IsFar()) {
    range_bytes_ = EvenRange();
    end = received_ + range_bytes_;
  }
  OCIFS_ASSIGN_OR_RETURN(std::unique_ptr<Part> part, OpenPart(received_, end, false));
  parts_.push_front(std::move(part));
  fresh_connection_ = false;
  return {};
}

void RegistryBlobStream::OpenMore() {
  if (parts_.empty() || no_ranges_) return;
  uint64_t begin = parts_.back()->end();
  while (begin < blob_.size && parts_.size() < static_cast<size_t>(options_.max_ranges) &&
         candidate_->host->TakeExtraRange()) {
    const uint64_t end = std::min(begin + range_bytes_, blob_.size);
    Result<std::unique_ptr<Part>> part = OpenPart(begin, end, true);
    if (!part) return;  // whoever needs these bytes will learn why
    parts_.push_back(*std::move(part));
    begin = end;
  }
}

Result<std::unique_ptr<RegistryBlobStream::Part>> RegistryBlobStream::OpenPart(uint64_t begin,
                                                                               uint64_t end,
                                                                               bool extra) {
  const Part::Plan plan{.begin = begin,
                        .end = end,
                        .total = blob_.size,
                        .ranged = !no_ranges_ && (begin > 0 || end < blob_.size),
                        .extra = extra};
  RegistryHost& host = *candidate_->host;
  Result<HttpRequest> request = direct_ ? Result<HttpRequest>(*direct_)
                                        : host.Get("/" + candidate_->endpoint.repository.path() +
                                                   "/blobs/" + blob_.digest.ToString());
  if (!request) {
    if (extra) host.ReturnExtraRange();
    return Fail(std::move(request).error());
  }
  std::erase_if(request->headers, [](const HttpHeader& header) {
    return header.name == "Range" || header.name == "If-Range";
  });
  if (plan.ranged) {
    request->headers.push_back(
        {"Range", "bytes=" + std::to_string(begin) + "-" + std::to_string(end - 1)});
    if (!etag_.empty()) request->headers.push_back({"If-Range", etag_});
  }
  // What fits into the buffer is never paused and may share a connection (HttpConnection).
  const bool own = blob_.size > host.client().options().max_buffered_bytes;
  request->connection = own ? HttpConnection::kOwn : HttpConnection::kShared;
  request->connect_timeout = connect_timeout_;
  request->fresh_connection = fresh_connection_;
  if (direct_) {
    return std::make_unique<Part>(Part::Direct{}, *candidate_, *std::move(request), plan, stop_);
  }
  return std::make_unique<Part>(*candidate_, *std::move(request), plan, stop_);
}

}  // namespace ocifs::fetch
