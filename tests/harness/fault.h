// What goes wrong with the answers of a server of the tests, and for which requests.
#ifndef OCIFS_TESTS_HARNESS_FAULT_H_
#define OCIFS_TESTS_HARNESS_FAULT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/harness/byte_range.h"
#include "tests/harness/http_server.h"

namespace ocifs::testing {

// The first fault that matches, is past its `skip` and is drawn by its `chance_percent` is applied
// to the answer that the server would have given.
struct Fault {
  std::string path = {};    // a part of "path?query"; empty: every request
  std::string method = {};  // empty: any
  int times = -1;           // how often it strikes; -1: always

  int status = 0;              // 0: as it would have been
  ServerHeaders headers = {};  // replace those of the same name
  std::optional<std::string> body = {};
  std::optional<std::string> redirect = {};  // Location; with 307 if no status is given
  size_t flip_at = kNever;                   // one bit of that body byte is wrong
  // Only the members that say how the answer goes over the wire; status, headers and body are
  // those above.
  ServerResponse wire = {};

  int skip = 0;              // so many matching requests pass first
  int chance_percent = 100;  // of each matching request, by a generator with that seed
  uint64_t seed = 1;
  std::optional<RangeBehaviour> ranges = {};  // instead of what the server does with Range
};

// Thread-compatible.
class FaultList {
 public:
  void Add(Fault fault);
  void Clear() { faults_.clear(); }
  // The fault that strikes this request, or null; borrowed until the next call. Counts it.
  const Fault* Strike(const ServerRequest& request);
  size_t struck() const { return struck_; }

 private:
  struct Armed {
    Fault fault;
    std::mt19937_64 generator;
  };
  std::vector<Armed> faults_;
  size_t struck_ = 0;
};

// `response` with all that `fault` says, except `ranges`.
ServerResponse WithFault(const Fault& fault, ServerResponse response);

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_FAULT_H_
