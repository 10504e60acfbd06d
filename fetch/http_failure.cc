#include "fetch/http_failure.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "store/text.h"

namespace ocifs::fetch {
namespace {

using store::Error;
using store::ErrorCode;

ErrorCode CodeOf(int code, int os_error, bool has_head) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
    case CURLE_PROXY:
    case CURLE_NO_CONNECTION_AVAILABLE:
      return os_error == EMFILE || os_error == ENFILE ? ErrorCode::kTooManyFiles
                                                      : ErrorCode::kUnavailable;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
      return has_head ? ErrorCode::kRemote : ErrorCode::kUnavailable;
    case CURLE_OPERATION_TIMEDOUT:
      return ErrorCode::kTimedOut;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_USE_SSL_FAILED:
      return ErrorCode::kDenied;
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
      return ErrorCode::kInvalid;
    case CURLE_OUT_OF_MEMORY:
      return ErrorCode::kOutOfMemory;
    case CURLE_PARTIAL_FILE:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:  // also an answer in HTTP/0.9
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_BAD_CONTENT_ENCODING:
      return ErrorCode::kRemote;
    default:
      return ErrorCode::kInternal;
  }
}

std::string_view AdviceFor(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "; check the network and the host's name";
    case ErrorCode::kTimedOut:
      return "; the server is too slow or unreachable, try again later";
    case ErrorCode::kDenied:
      return "; if the registry has an authority of its own, name its file as `ca` in hosts.toml";
    case ErrorCode::kInvalid:
      return "; correct `ca` or `client` of hosts.toml";
    case ErrorCode::kTooManyFiles:
      return "; raise the limit on open files";
    default:
      return "";
  }
}

// What this machine believes, for whoever reads about dates of certificates.
std::string Today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 16> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d", &parts)};
}

enum class TlsFault {
  kExpired,
  kNotYetValid,
  kSelfSigned,
  kUnknownAuthority,
  kWrongHost,
  kCertificateWanted,
  kCertificateRefused,
  kHandshakeRefused,
  kOldProtocol,
  kNotTls,
};

// libcurl passes OpenSSL's words on and has no codes for these. In order: alerts are what the
// server says about us, and share words with what we say about it.
struct TlsWords {
  std::string_view words;
  TlsFault fault;
};
constexpr TlsWords kTlsWords[] = {
    {"alert certificate required", TlsFault::kCertificateWanted},
    {"alert unknown ca", TlsFault::kCertificateRefused},
    {"alert bad certificate", TlsFault::kCertificateRefused},
    {"alert unsupported certificate", TlsFault::kCertificateRefused},
    {"alert certificate", TlsFault::kCertificateRefused},
    {"alert access denied", TlsFault::kCertificateRefused},
    {"alert decrypt error", TlsFault::kCertificateRefused},  // its signature does not verify
    {"alert handshake failure", TlsFault::kHandshakeRefused},
    {"alert protocol version", TlsFault::kOldProtocol},
    {"unsupported protocol", TlsFault::kOldProtocol},
    {"wrong version number", TlsFault::kNotTls},
    {"packet length too long", TlsFault::kNotTls},
    {"http request", TlsFault::kNotTls},
    {"certificate has expired", TlsFault::kExpired},
    {"certificate is not yet valid", TlsFault::kNotYetValid},
    {"certificate in certificate chain", TlsFault::kUnknownAuthority},
    {"self-signed certificate", TlsFault::kSelfSigned},
    {"self signed certificate", TlsFault::kSelfSigned},
    {"unable to get", TlsFault::kUnknownAuthority},
    {"unable to verify the first certificate", TlsFault::kUnknownAuthority},
    {"subject name matches", TlsFault::kWrongHost},
    {"does not match target host", TlsFault::kWrongHost},
};

std::string ExplainTls(TlsFault fault, const HttpRoute& route) {
  const std::string& host = route.host;
  switch (fault) {
    case TlsFault::kExpired:
      return "the certificate of " + host +
             " has expired; its owner must renew it, unless the clock of this machine is wrong (it "
             "says " +
             Today() + ")";
    case TlsFault::kNotYetValid:
      return "the certificate of " + host +
             " is not valid yet; set the clock of this machine (it says " + Today() +
             "), or wait for the date in the certificate";
    case TlsFault::kSelfSigned:
      return "the certificate of " + host +
             " is self-signed, so anybody could have made it; if it is the right one, name its "
             "file as `ca` in the hosts.toml of " +
             host;
    case TlsFault::kUnknownAuthority:
      return "the certificate of " + host +
             " is signed by an authority that is not trusted here; if the registry has an "
             "authority of its own, name its file as `ca` in the hosts.toml of " +
             host + "; if it has not, something else answers in its place";
    case TlsFault::kWrongHost:
      return "the certificate is for another host than " + host +
             "; use a host name that stands in it, or have the registry's certificate include "
             "this one";
    case TlsFault::kCertificateWanted:
      return host +
             " wants a certificate of its clients; name it as `client` in the hosts.toml of " +
             host;
    case TlsFault::kCertificateRefused:
      if (!route.has_client_certificate) {
        return host +
               " ended the handshake over certificates; if it wants one of its clients, "
               "name it as `client` in the hosts.toml of " +
               host;
      }
      return host + " refuses our client certificate; check `client` in the hosts.toml of " + host +
             ": its dates, and whether it is signed by an authority that the registry trusts";
    case TlsFault::kHandshakeRefused:
      return host +
             " refuses the TLS handshake; perhaps it wants a certificate of its clients "
             "(`client` in the hosts.toml of " +
             host + "), or knows none of our ciphers";
    case TlsFault::kOldProtocol:
      return host + " speaks no TLS that is new enough, 1.2 or later is needed; it must be updated";
    case TlsFault::kNotTls:
      return host + " does not speak TLS on port " + std::to_string(route.port) +
             "; a registry without TLS must be configured as one, nothing falls back to http";
  }
  return "";
}

bool MayBeTls(int code) {
  switch (code) {
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    // With TLS 1.3 the server looks at a client's certificate after the client's handshake is over.
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return true;
    default:
      return false;
  }
}

// A connection that ended during the handshake says nothing about trust. OpenSSL reports an end
// without an alert so, and leaves errno as it was.
bool IsBreak(const HttpFailure& failure) {
  const std::string lower = store::AsciiLower(failure.text);
  return failure.os_error == ECONNRESET || failure.os_error == EPIPE ||
         lower.find("ssl_error_syscall") != std::string::npos ||
         lower.find("unexpected eof") != std::string::npos;
}

// The network's words for a connection that did not come about.
std::string ExplainConnect(const HttpFailure& failure, const HttpRoute& route) {
  const bool by_proxy = !route.proxy.empty();
  const std::string where =
      by_proxy ? "the proxy " + route.proxy : route.host + " port " + std::to_string(route.port);
  switch (failure.os_error) {
    case ECONNREFUSED:
      return "connection refused: nothing listens at " + where;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
      return "no route to " + where + ": " + strerror(failure.os_error);
    case ETIMEDOUT:
      return where + " does not answer: " + strerror(failure.os_error);
    default:
      break;
  }
  std::string why = failure.text;
  if (failure.os_error != 0) why += std::string(" (") + strerror(failure.os_error) + ")";
  return why;
}

}  // namespace

std::string ExplainProxyLogin(const HttpRoute& route) {
  if (route.proxy_has_login) {
    return "the proxy " + route.proxy +
           " does not accept the login (407); correct the user and the password in its URL";
  }
  return "the proxy " + route.proxy +
         " wants a login (407); put it into its URL: http://user:password@host:port";
}

Error ExplainHttpFailure(const HttpFailure& failure, const HttpRoute& route,
                         std::string_view what) {
  auto error = [&](ErrorCode code, const std::string& why) {
    return Error{code, std::string(what) + ": " + why};
  };
  if (!route.proxy.empty() && failure.proxy_status >= 300 && !failure.has_head) {
    const std::string status = " (" + std::to_string(failure.proxy_status) + ")";
    if (failure.proxy_status == 407) return error(ErrorCode::kDenied, ExplainProxyLogin(route));
    if (failure.proxy_status < 500) {
      return error(ErrorCode::kDenied, "the proxy " + route.proxy + " refuses to connect to " +
                                           route.host + status +
                                           "; ask its operator, or name the host in NO_PROXY");
    }
    return error(ErrorCode::kUnavailable,
                 "the proxy " + route.proxy + " cannot reach " + route.host + status);
  }
  if (MayBeTls(failure.code)) {
    const std::string lower = store::AsciiLower(failure.text);
    for (const auto& [words, fault] : kTlsWords) {
      if (lower.find(words) != std::string::npos) {
        return error(ErrorCode::kDenied, ExplainTls(fault, route) + " (" + failure.text + ")");
      }
    }
  }
  if (failure.code == CURLE_SSL_CONNECT_ERROR && IsBreak(failure)) {
    return error(ErrorCode::kUnavailable,
                 route.host + " ended the connection in the middle of the TLS handshake (" +
                     failure.text + "); is it overloaded, or a proxy on the way?");
  }
  const ErrorCode code = CodeOf(failure.code, failure.os_error, failure.has_head);
  std::string why = failure.text;
  if (failure.code == CURLE_PARTIAL_FILE) {
    why = "the connection ended before the body did (" + why + ")";
  } else if (failure.code == CURLE_COULDNT_CONNECT) {
    why = ExplainConnect(failure, route);
  } else if (failure.text.starts_with("getpeername()")) {
    // With TLS 1.3 a server that wants a certificate says so after our handshake is over, and those
    // that close at once may be gone before libcurl has looked.
    why =
        "the server ended the connection as soon as it was made; perhaps it wants a certificate "
        "of its clients (`client` of hosts.toml)";
  } else if (failure.code == CURLE_COULDNT_RESOLVE_HOST) {
    // libcurl does not pass on whether the name or the name server is absent.
    why = "the name " + route.host +
          " does not resolve: it does not exist, or no name server answers";
  } else if (failure.code == CURLE_COULDNT_RESOLVE_PROXY) {
    why = "the name of the proxy " + route.proxy + " does not resolve";
  } else if (!route.proxy.empty()) {
    why += " (through the proxy " + route.proxy + ")";
  }
  return error(code, why + std::string(AdviceFor(code)));
}

}  // namespace ocifs::fetch
