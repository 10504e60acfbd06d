#include "fetch/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "store/text.h"
#include "tests/harness/fake_registry.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {
namespace {

using store::ErrorCode;
using testing::FakeRegistry;
using namespace std::string_literals;
using ::testing::HasSubstr;
using ::testing::Not;

class HttpClientTest : public ::testing::Test {
 protected:
  HttpRequest Get(const std::string& url) { return {.url = *Url::Parse(url)}; }
  // The URL of a blob of the registry.
  std::string BlobUrl(const std::string& bytes) {
    return registry_.url() + "/v2/a/blobs/" + registry_.AddBlob("a", bytes).digest.ToString();
  }
  ErrorCode HeadError(const std::string& url) {
    const auto transfer = client_->Start(Get(url), {});
    const auto head = transfer->Head();
    return head ? ErrorCode::kInternal : head.error().code;
  }

  FakeRegistry registry_;
  std::unique_ptr<HttpClient> client_ = *HttpClient::Create();
};

TEST_F(HttpClientTest, GivesHeadAndBody) {
  const std::string bytes(3'000'000, 'b');
  const auto transfer = client_->Start(Get(BlobUrl(bytes)), {});
  const auto head = transfer->Head();
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ((*head)->status, 200);
  EXPECT_EQ((*head)->content_length, bytes.size());
  EXPECT_EQ((*head)->MediaType(), "application/octet-stream");
  EXPECT_EQ((*head)->peer, AddressScope::kLoopback);
  EXPECT_EQ(*transfer->ReadAll(bytes.size()), bytes);
  EXPECT_TRUE(transfer->Next()->empty()) << "the end stays the end";
  const testing::ServerRequest request = registry_.requests().at(0);
  EXPECT_EQ(request.Header("accept-encoding"), "identity");
  EXPECT_THAT(request.Header("user-agent"), ::testing::StartsWith("ocifs/"));
}

TEST_F(HttpClientTest, ConnectionsAreUsedAgain) {
  const std::string url = BlobUrl("x");
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(*client_->Start(Get(url), {})->ReadAll(10), "x");
  }
  EXPECT_EQ(registry_.connections_accepted(), 1U);
}

TEST_F(HttpClientTest, FreshConnectionIsNotAnOldOne) {
  HttpRequest request = Get(BlobUrl("x"));
  const auto first = client_->Start(request, {});
  ASSERT_EQ(*first->ReadAll(10), "x");
  EXPECT_TRUE((*first->Head())->connect_time);
  EXPECT_LT(*(*first->Head())->connect_time, std::chrono::seconds(10));
  EXPECT_FALSE(first->reused_connection());
  const auto second = client_->Start(request, {});
  ASSERT_EQ(*second->ReadAll(10), "x");
  EXPECT_FALSE((*second->Head())->connect_time);
  EXPECT_TRUE(second->reused_connection());
  request.fresh_connection = true;
  const auto third = client_->Start(request, {});
  ASSERT_EQ(*third->ReadAll(10), "x");
  EXPECT_TRUE((*third->Head())->connect_time);
  EXPECT_FALSE(third->reused_connection());
  EXPECT_EQ(registry_.connections_accepted(), 2U);
}

TEST_F(HttpClientTest, DeadPooledConnectionIsReplacedSilently) {
  const std::string url = BlobUrl("x");
  ASSERT_EQ(*client_->Start(Get(url), {})->ReadAll(10), "x");
  registry_.CloseConnections();
  EXPECT_EQ(*client_->Start(Get(url), {})->ReadAll(10), "x");
}

TEST_F(HttpClientTest, ReaderThatDoesNotReadHoldsTheServerBack) {
  const std::string big(size_t{64} << 20, 'b');
  const std::string url = BlobUrl(big);
  const uint64_t before = registry_.body_bytes_sent();
  const auto idle = client_->Start(Get(url), {});
  ASSERT_TRUE(idle->Head());
  // Another transfer of the same size passes on the same thread, so the idle one has had its turn.
  const auto busy = client_->Start(Get(url), {});
  EXPECT_EQ(busy->ReadAll(big.size())->size(), big.size());
  EXPECT_GT(idle->buffered_bytes(), size_t{1} << 20);
  EXPECT_LE(idle->buffered_bytes(), client_->options().max_buffered_bytes);
  EXPECT_LT(registry_.body_bytes_sent() - before, 2 * big.size());
  // And it goes on where it stopped.
  EXPECT_TRUE(*idle->ReadAll(big.size()) == big);
}

TEST_F(HttpClientTest, StopWakesABlockedReader) {
  registry_.Inject({.wire = {.stall_at = 2}});
  std::stop_source stop;
  const auto transfer = client_->Start(Get(BlobUrl("stalls")), stop.get_token());
  ASSERT_TRUE(transfer->Head());
  std::thread stopper([&] {
    registry_.WaitForStalled();
    stop.request_stop();
  });
  const auto text = transfer->ReadAll(100);
  stopper.join();
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kCancelled);
}

TEST_F(HttpClientTest, StopBeforeTheHead) {
  registry_.Inject({.wire = {.stall_head = true}});
  std::stop_source stop;
  const auto transfer = client_->Start(Get(BlobUrl("x")), stop.get_token());
  std::thread stopper([&] {
    registry_.WaitForStalled();
    stop.request_stop();
  });
  EXPECT_EQ(transfer->Head().error().code, ErrorCode::kCancelled);
  stopper.join();
}

TEST_F(HttpClientTest, StopBeforeTheStart) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(client_->Start(Get(BlobUrl("x")), stop.get_token())->Head().error().code,
            ErrorCode::kCancelled);
}

TEST_F(HttpClientTest, AbandonedTransferDoesNotDisturbOthers) {
  const std::string url = BlobUrl(std::string(size_t{16} << 20, 'b'));
  for (int i = 0; i < 20; ++i) {
    const auto abandoned = client_->Start(Get(url), {});
    if (i % 2 == 0) {
      EXPECT_TRUE(abandoned->Next());
    }
  }
  EXPECT_TRUE(client_->Start(Get(url), {})->ReadAll(size_t{16} << 20));
}

TEST_F(HttpClientTest, TransferOutlivesTheClient) {
  registry_.Inject({.wire = {.stall_at = 2}});
  const auto transfer = client_->Start(Get(BlobUrl("stalls")), {});
  ASSERT_TRUE(transfer->Head());
  client_.reset();
  EXPECT_EQ(transfer->ReadAll(100).error().code, ErrorCode::kShuttingDown);
}

TEST_F(HttpClientTest, ManyThreadsAtOnce) {
  const std::string bytes(200'000, 'm');
  const std::string url = BlobUrl(bytes);
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        const auto text = client_->Start(Get(url), {})->ReadAll(bytes.size());
        if (text && *text == bytes) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 160);
  EXPECT_LE(registry_.connections_accepted(), client_->options().max_connections_per_host);
}

TEST_F(HttpClientTest, ServerThatSaysNothingIsGivenUp) {
  HttpClientOptions options;
  options.low_speed_time = std::chrono::seconds(1);
  client_ = *HttpClient::Create(options);
  registry_.Inject({.wire = {.stall_head = true}});
  EXPECT_EQ(HeadError(BlobUrl("x")), ErrorCode::kTimedOut);
}

TEST_F(HttpClientTest, RefusedConnectionIsUnavailable) {
  std::string url;
  {
    const FakeRegistry gone;
    url = gone.url();
  }
  const auto transfer = client_->Start(Get(url + "/secret?signature=1"), {});
  const auto head = transfer->Head();
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(transfer->reused_connection());
  EXPECT_THAT(head.error().message, HasSubstr("GET " + url + "/secret: "));
  EXPECT_THAT(head.error().message, Not(HasSubstr("signature")));
}

TEST_F(HttpClientTest, BodyCutShortIsRemote) {
  registry_.Inject({.wire = {.truncate_at = 4}});
  const auto transfer = client_->Start(Get(BlobUrl("cut short")), {});
  ASSERT_TRUE(transfer->Head());
  const auto first = transfer->Next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->size(), 4U) << "what came first is given first";
  EXPECT_EQ(transfer->Next().error().code, ErrorCode::kRemote);
  EXPECT_EQ(transfer->Next().error().code, ErrorCode::kRemote);
}

TEST_F(HttpClientTest, HeaderFloodIsRefused) {
  registry_.Inject({.wire = {.header_flood = size_t{1} << 20}});
  EXPECT_EQ(HeadError(BlobUrl("x")), ErrorCode::kRemote);
}

TEST_F(HttpClientTest, EndlessInterimAnswersAreRefused) {
  std::string raw;
  for (int i = 0; i < 10'000; ++i) raw += "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
  registry_.Inject({.wire = {.raw = raw}});
  EXPECT_EQ(HeadError(BlobUrl("x")), ErrorCode::kRemote);
}

TEST_F(HttpClientTest, InterimAnswersArePassedOver) {
  registry_.Inject({.wire = {.raw = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}});
  const auto transfer = client_->Start(Get(BlobUrl("x")), {});
  EXPECT_EQ(*transfer->ReadAll(10), "ok");
  EXPECT_EQ((*transfer->Head())->headers.Find("link"), nullptr);
}

TEST_F(HttpClientTest, AmbiguousFramingIsRefused) {
  const std::string two_framings =
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5\r\nhello\r\n0\r\n\r\n";
  const std::string answers[] = {
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello",
      two_framings,
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
      "not http at all\r\n\r\n",
      "HTTP/1.1 2000 OK\r\n\r\n",
  };
  for (const std::string& raw : answers) {
    registry_.ClearFaults();
    registry_.Inject({.wire = {.raw = raw}});
    EXPECT_EQ(HeadError(BlobUrl("x")), ErrorCode::kRemote) << raw;
  }
}

TEST_F(HttpClientTest, NulInAHeaderIsRefused) {
  registry_.Inject({.wire = {.raw = "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"s}});
  EXPECT_EQ(HeadError(BlobUrl("x")), ErrorCode::kRemote);
}

TEST_F(HttpClientTest, ContentEncodingNobodyAskedForIsRefused) {
  registry_.Inject({.headers = {{"Content-Encoding", "gzip"}}});
  EXPECT_EQ(HeadError(BlobUrl("x")), ErrorCode::kRemote);
  registry_.ClearFaults();
  registry_.Inject({.headers = {{"Content-Encoding", "identity"}}});
  EXPECT_EQ(*client_->Start(Get(BlobUrl("x")), {})->ReadAll(10), "x");
}

TEST_F(HttpClientTest, LongBodyStopsAtTheLimit) {
  registry_.Inject({.wire = {.endless = true}});
  EXPECT_EQ(client_->Start(Get(BlobUrl("0123456789")), {})->ReadAll(1000).error().code,
            ErrorCode::kTooLarge);
  registry_.ClearFaults();
  registry_.Inject({.wire = {.stall_at = 0}});
  EXPECT_EQ(client_->Start(Get(BlobUrl("0123456789")), {})->ReadAll(5).error().code,
            ErrorCode::kTooLarge)
      << "a Content-Length over the limit is refused before the body";
}

TEST_F(HttpClientTest, HeaderInjectionIsRefused) {
  HttpRequest request = Get(BlobUrl("x"));
  request.headers.push_back({"Authorization", "Bearer x\r\nHost: evil"});
  EXPECT_EQ(client_->Start(request, {})->Head().error().code, ErrorCode::kInternal);
  EXPECT_TRUE(registry_.requests().empty());
}

TEST_F(HttpClientTest, AddressOutOfReachIsNotContacted) {
  HttpRequest request = Get(BlobUrl("x"));
  request.reach = AddressScope::kPublic;
  EXPECT_EQ(client_->Start(request, {})->Head().error().code, ErrorCode::kDenied);
  EXPECT_EQ(registry_.connections_accepted(), 0U);
  // Nor over a connection that a request with a longer reach has opened.
  ASSERT_TRUE(client_->Start(Get(request.url.ToString()), {})->ReadAll(10));
  registry_.ForgetRequests();
  EXPECT_EQ(client_->Start(request, {})->Head().error().code, ErrorCode::kDenied);
  EXPECT_TRUE(registry_.requests().empty());
}

TEST_F(HttpClientTest, PostSendsItsBody) {
  registry_.SetTokenServer({.refresh_token = "r"});
  HttpRequest request = Get(registry_.url() + "/token");
  request.method = HttpMethod::kPost;
  request.body = "grant_type=refresh_token&refresh_token=r&client_id=c&scope=s";
  EXPECT_EQ((*client_->Start(request, {})->Head())->status, 200);
  EXPECT_EQ(registry_.requests().at(0).body, request.body);
}

}  // namespace
}  // namespace ocifs::fetch
