// A certificate authority, a server certificate for loopback names and one of a client, made when
// asked for, so that no key lies in the repository and none expires.
#ifndef OCIFS_TESTS_HARNESS_TEST_CERTIFICATE_H_
#define OCIFS_TESTS_HARNESS_TEST_CERTIFICATE_H_

#include <string>

namespace ocifs::testing {

enum class CertificateFault {
  kNone,
  kExpired,
  kNotYetValid,
  kWrongHost,   // for other.example only
  kSelfSigned,  // by its own key; authority_pem has not signed it
};

struct TestCertificate {
  std::string authority_pem;    // the CA's certificate
  std::string certificate_pem;  // the server's, for localhost, 127.0.0.1 and ::1
  std::string key_pem;          // the server's key
  // A client's, signed by the same authority.
  std::string client_certificate_pem;
  std::string client_key_pem;
};

// Throws std::runtime_error when OpenSSL fails.
TestCertificate MakeTestCertificate(CertificateFault fault = CertificateFault::kNone);

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_TEST_CERTIFICATE_H_
