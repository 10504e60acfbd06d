#include "tests/harness/test_certificate.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <stdexcept>

namespace ocifs::testing {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;

void Check(bool ok) {
  if (!ok) throw std::runtime_error("making a test certificate failed");
}

Key MakeKey() {
  Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  Check(key != nullptr);
  return key;
}

void AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  Check(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

Certificate MakeCertificate(const char* name, long serial, EVP_PKEY* key, long from, long until) {
  Certificate certificate(X509_new());
  Check(certificate && X509_set_version(certificate.get(), 2) == 1 &&
        ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), serial) == 1 &&
        X509_gmtime_adj(X509_getm_notBefore(certificate.get()), from) != nullptr &&
        X509_gmtime_adj(X509_getm_notAfter(certificate.get()), until) != nullptr &&
        X509_set_pubkey(certificate.get(), key) == 1);
  X509_NAME* const subject = X509_get_subject_name(certificate.get());
  const auto* const text = reinterpret_cast<const unsigned char*>(name);
  Check(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, text, -1, -1, 0) == 1);
  return certificate;
}

template <typename Writer>
std::string ToPem(Writer write) {
  const Bio bio(BIO_new(BIO_s_mem()));
  Check(bio && write(bio.get()) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

}  // namespace

TestCertificate MakeTestCertificate(CertificateFault fault) {
  constexpr long kDay = 24L * 60 * 60;
  const Key authority_key = MakeKey();
  const Certificate authority =
      MakeCertificate("ocifs test CA", 1, authority_key.get(), -7 * kDay, 7 * kDay);
  Check(X509_set_issuer_name(authority.get(), X509_get_subject_name(authority.get())) == 1);
  AddExtension(authority.get(), authority.get(), NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(authority.get(), authority.get(), NID_key_usage, "critical,keyCertSign");
  AddExtension(authority.get(), authority.get(), NID_subject_key_identifier, "hash");
  Check(X509_sign(authority.get(), authority_key.get(), EVP_sha256()) > 0);

  const Key key = MakeKey();
  const bool self_signed = fault == CertificateFault::kSelfSigned;
  const Certificate server = MakeCertificate(
      "ocifs test server", 2, key.get(), fault == CertificateFault::kNotYetValid ? kDay : -3 * kDay,
      fault == CertificateFault::kExpired ? -kDay : 3 * kDay);
  X509* const issuer = self_signed ? server.get() : authority.get();
  Check(X509_set_issuer_name(server.get(), X509_get_subject_name(issuer)) == 1);
  AddExtension(server.get(), issuer, NID_subject_alt_name,
               fault == CertificateFault::kWrongHost ? "DNS:other.example"
                                                     : "DNS:localhost,IP:127.0.0.1,IP:::1");
  AddExtension(server.get(), issuer, NID_ext_key_usage, "serverAuth");
  if (!self_signed) {
    AddExtension(server.get(), issuer, NID_authority_key_identifier, "keyid:always");
  }
  Check(X509_sign(server.get(), self_signed ? key.get() : authority_key.get(), EVP_sha256()) > 0);

  const Key client_key = MakeKey();
  const Certificate client =
      MakeCertificate("ocifs test client", 3, client_key.get(), -3 * kDay, 3 * kDay);
  Check(X509_set_issuer_name(client.get(), X509_get_subject_name(authority.get())) == 1);
  AddExtension(client.get(), authority.get(), NID_ext_key_usage, "clientAuth");
  Check(X509_sign(client.get(), authority_key.get(), EVP_sha256()) > 0);

  TestCertificate result;
  result.authority_pem = ToPem([&](BIO* bio) { return PEM_write_bio_X509(bio, authority.get()); });
  result.certificate_pem = ToPem([&](BIO* bio) { return PEM_write_bio_X509(bio, server.get()); });
  result.client_certificate_pem =
      ToPem([&](BIO* bio) { return PEM_write_bio_X509(bio, client.get()); });
  auto key_to_pem = [](EVP_PKEY* from) {
    return ToPem([&](BIO* bio) {
      return PEM_write_bio_PrivateKey(bio, from, nullptr, nullptr, 0, nullptr, nullptr);
    });
  };
  result.key_pem = key_to_pem(key.get());
  result.client_key_pem = key_to_pem(client_key.get());
  return result;
}

}  // namespace ocifs::testing
