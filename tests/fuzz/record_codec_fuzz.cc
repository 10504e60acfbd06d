// Values of the index. The first byte says whether the checksum is made right; the second is the
// number of steps of a script that says what is read; then the value.
//
// Holds for every value: nothing is read outside it; what was read badly is empty and stays so; a
// value that reads to its end is the one that writing the same would have made.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "store/record_codec.h"

namespace {

using namespace ocifs::store;

constexpr RecordPlace kPlace{"table", "key"};

void Demand(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const bool repair = data[0] % 4 != 0;
  const size_t steps = std::min<size_t>(data[1] % 16, size - 2);
  const std::string_view script(reinterpret_cast<const char*>(data) + 2, steps);
  std::string value(reinterpret_cast<const char*>(data) + 2 + steps, size - 2 - steps);
  if (repair) {
    const uint32_t crc = RecordChecksum(kPlace, value);
    value.append(reinterpret_cast<const char*>(&crc), sizeof crc);
  }
  RecordDecoder decoder(kPlace, value);
  RecordEncoder encoder;
  if (repair) Demand(decoder.ok());
  bool ok = decoder.ok();
  for (const char step : script) {
    switch (static_cast<unsigned char>(step) % 5) {
      case 0:
        encoder.Add(decoder.Take<uint8_t>());
        break;
      case 1:
        encoder.Add(decoder.Take<uint32_t>());
        break;
      case 2:
        encoder.Add(decoder.Take<int64_t>());
        break;
      case 3: {
        const std::string_view bytes = decoder.TakeBytes();
        Demand(decoder.ok() || bytes.empty());
        encoder.AddBytes(bytes);
        break;
      }
      default: {
        const std::optional<Digest> digest = decoder.TakeDigest();
        Demand(digest.has_value() == decoder.ok());
        if (digest) encoder.AddDigest(*digest);
      }
    }
    Demand(ok || !decoder.ok());
    ok = decoder.ok();
  }
  if (decoder.Done()) Demand(encoder.Finish(kPlace) == value);
  return 0;
}
