#include "fetch/http_failure.h"

#include <curl/curl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kWhat = "GET https://r.example/v2/";

HttpRoute Route(const std::string& proxy = "") {
  return {.host = "r.example", .port = 5000, .proxy = proxy};
}

TEST(HttpFailureTest, OpenSslsWordsAreExplained) {
  const struct {
    CURLcode code;
    const char* text;
    const char* words;
  } kCases[] = {
      {CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: certificate has expired",
       "the certificate of r.example has expired"},
      {CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: certificate is not yet valid",
       "is not valid yet"},
      {CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: self-signed certificate",
       "is self-signed"},
      {CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: self signed certificate",
       "is self-signed"},
      {CURLE_PEER_FAILED_VERIFICATION,
       "SSL certificate problem: self-signed certificate in certificate chain",
       "an authority that is not trusted here"},
      {CURLE_PEER_FAILED_VERIFICATION,
       "SSL certificate problem: unable to get local issuer certificate",
       "an authority that is not trusted here"},
      {CURLE_PEER_FAILED_VERIFICATION,
       "SSL: no alternative certificate subject name matches target host name 'r.example'",
       "for another host than r.example"},
      {CURLE_PEER_FAILED_VERIFICATION,
       "SSL: certificate subject name 'x' does not match target host name 'r.example'",
       "for another host than r.example"},
      {CURLE_SSL_CONNECT_ERROR,
       "OpenSSL/3.0.22: error:0A000410:SSL routines::sslv3 alert handshake failure",
       "refuses the TLS handshake"},
      {CURLE_SSL_CONNECT_ERROR,
       "OpenSSL/3.0.22: error:0A00042E:SSL routines::tlsv1 alert protocol version",
       "1.2 or later is needed"},
      {CURLE_SSL_CONNECT_ERROR, "OpenSSL/3.0.22: error:0A000102:SSL routines::unsupported protocol",
       "1.2 or later is needed"},
      {CURLE_SSL_CONNECT_ERROR, "OpenSSL/3.0.22: error:0A00010B:SSL routines::wrong version number",
       "does not speak TLS on port 5000"},
      {CURLE_RECV_ERROR,
       "OpenSSL SSL_read: OpenSSL/3.0.22: error:0A00045C:SSL routines::tlsv13 alert certificate "
       "required, errno 0",
       "wants a certificate of its clients"},
      {CURLE_RECV_ERROR,
       "OpenSSL SSL_read: OpenSSL/3.0.22: error:0A000418:SSL routines::tlsv1 alert unknown ca, "
       "errno 0",
       "if it wants one of its clients"},
  };
  for (const auto& [code, text, words] : kCases) {
    const Error error = ExplainHttpFailure({.code = code, .text = text}, Route(), kWhat);
    EXPECT_EQ(error.code, ErrorCode::kDenied) << text;
    EXPECT_THAT(error.message, StartsWith("GET https://r.example/v2/: "));
    EXPECT_THAT(error.message, HasSubstr(words)) << text;
    EXPECT_THAT(error.message, HasSubstr(text)) << "for those who know TLS";
  }
  HttpRoute with_certificate = Route();
  with_certificate.has_client_certificate = true;
  for (const char* const alert : {"sslv3 alert bad certificate", "sslv3 alert certificate expired",
                                  "tlsv1 alert unknown ca", "tlsv1 alert access denied"}) {
    EXPECT_THAT(ExplainHttpFailure({.code = CURLE_SSL_CONNECT_ERROR, .text = alert},
                                   with_certificate, kWhat)
                    .message,
                HasSubstr("refuses our client certificate"));
  }
}

TEST(HttpFailureTest, WordsOfTheNetworkAreNoWordsOfTls) {
  // Only what TLS reported is searched for its words.
  const Error error = ExplainHttpFailure(
      {.code = CURLE_COULDNT_CONNECT, .os_error = ECONNREFUSED, .text = "certificate has expired"},
      Route(), kWhat);
  EXPECT_EQ(error.code, ErrorCode::kUnavailable);
}

TEST(HttpFailureTest, ConnectionsThatDoNotComeAbout) {
  const struct {
    int os_error;
    ErrorCode code;
    const char* words;
  } kCases[] = {
      {ECONNREFUSED, ErrorCode::kUnavailable, "connection refused"},
      {EHOSTUNREACH, ErrorCode::kUnavailable, "no route to r.example port 5000: No route to host"},
      {ENETUNREACH, ErrorCode::kUnavailable, "Network is unreachable"},
      {ETIMEDOUT, ErrorCode::kUnavailable, "r.example port 5000 does not answer"},
      {EMFILE, ErrorCode::kTooManyFiles, "Too many open files"},
      {0, ErrorCode::kUnavailable, "Failed to connect"},
  };
  for (const auto& [os_error, code, words] : kCases) {
    const Error error = ExplainHttpFailure(
        {.code = CURLE_COULDNT_CONNECT, .os_error = os_error, .text = "Failed to connect"}, Route(),
        kWhat);
    EXPECT_EQ(error.code, code) << words;
    EXPECT_THAT(error.message, HasSubstr(words));
  }
  EXPECT_THAT(ExplainHttpFailure({.code = CURLE_COULDNT_CONNECT, .os_error = ECONNREFUSED},
                                 Route("http://p:3128"), kWhat)
                  .message,
              HasSubstr("nothing listens at the proxy http://p:3128"));
}

TEST(HttpFailureTest, CodesOfTheRest) {
  const struct {
    CURLcode code;
    bool has_head;
    ErrorCode translated;
  } kCases[] = {
      {CURLE_COULDNT_RESOLVE_HOST, false, ErrorCode::kUnavailable},
      {CURLE_COULDNT_RESOLVE_PROXY, false, ErrorCode::kUnavailable},
      {CURLE_OPERATION_TIMEDOUT, false, ErrorCode::kTimedOut},
      {CURLE_OPERATION_TIMEDOUT, true, ErrorCode::kTimedOut},
      {CURLE_RECV_ERROR, false, ErrorCode::kUnavailable},
      {CURLE_RECV_ERROR, true, ErrorCode::kRemote},
      {CURLE_GOT_NOTHING, false, ErrorCode::kUnavailable},
      {CURLE_PARTIAL_FILE, true, ErrorCode::kRemote},
      {CURLE_WEIRD_SERVER_REPLY, false, ErrorCode::kRemote},
      {CURLE_SSL_CONNECT_ERROR, false, ErrorCode::kDenied},
      {CURLE_SSL_CERTPROBLEM, false, ErrorCode::kInvalid},
      {CURLE_SSL_CACERT_BADFILE, false, ErrorCode::kInvalid},
      {CURLE_OUT_OF_MEMORY, false, ErrorCode::kOutOfMemory},
      {CURLE_BAD_FUNCTION_ARGUMENT, false, ErrorCode::kInternal},
  };
  for (const auto& [code, has_head, translated] : kCases) {
    EXPECT_EQ(
        ExplainHttpFailure({.code = code, .text = "why", .has_head = has_head}, Route(), kWhat)
            .code,
        translated)
        << code;
  }
  EXPECT_EQ(
      ExplainHttpFailure({.code = CURLE_SSL_CONNECT_ERROR, .os_error = ECONNRESET}, Route(), kWhat)
          .code,
      ErrorCode::kUnavailable);
}

TEST(HttpFailureTest, StatusOfAProxyCountsOnlyWithAProxy) {
  const HttpFailure failure{.code = CURLE_RECV_ERROR, .proxy_status = 407, .text = "why"};
  EXPECT_EQ(ExplainHttpFailure(failure, Route("http://p:1"), kWhat).code, ErrorCode::kDenied);
  EXPECT_EQ(ExplainHttpFailure(failure, Route(), kWhat).code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace ocifs::fetch
