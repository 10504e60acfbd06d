// gzip for tests that need some.
#ifndef OCIFS_TESTS_STORE_GZIP_H_
#define OCIFS_TESTS_STORE_GZIP_H_

#include <isa-l/igzip_lib.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace ocifs::store {

// One member.
inline std::string Gzip(std::string plain) {
  std::string out(plain.size() * 2 + 1024, '\0');
  isal_zstream stream;
  isal_deflate_stateless_init(&stream);
  stream.gzip_flag = IGZIP_GZIP;
  stream.next_in = reinterpret_cast<uint8_t*>(plain.data());
  stream.avail_in = static_cast<uint32_t>(plain.size());
  stream.next_out = reinterpret_cast<uint8_t*>(out.data());
  stream.avail_out = static_cast<uint32_t>(out.size());
  stream.end_of_stream = 1;
  stream.flush = NO_FLUSH;
  if (isal_deflate_stateless(&stream) != COMP_OK) std::abort();
  out.resize(stream.total_out);
  return out;
}

}  // namespace ocifs::store

#endif  // OCIFS_TESTS_STORE_GZIP_H_
