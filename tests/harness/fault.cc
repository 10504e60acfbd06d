#include "tests/harness/fault.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

namespace ocifs::testing {
namespace {

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    return lower(x) == lower(y);
  });
}

}  // namespace

void FaultList::Add(Fault fault) {
  const uint64_t seed = fault.seed;
  faults_.push_back({std::move(fault), std::mt19937_64(seed)});
}

const Fault* FaultList::Strike(const ServerRequest& request) {
  const std::string target = request.path + "?" + request.query;
  for (auto& [fault, generator] : faults_) {
    if (fault.times == 0 || (!fault.method.empty() && fault.method != request.method) ||
        target.find(fault.path) == std::string::npos) {
      continue;
    }
    if (fault.skip > 0) {
      --fault.skip;
      continue;
    }
    // The generator is the same everywhere; std::uniform_int_distribution is not.
    if (fault.chance_percent < 100 &&
        generator() % 100 >= static_cast<uint64_t>(std::max(fault.chance_percent, 0))) {
      continue;
    }
    if (fault.times > 0) --fault.times;
    ++struck_;
    return &fault;
  }
  return nullptr;
}

ServerResponse WithFault(const Fault& fault, ServerResponse response) {
  ServerResponse changed = fault.wire;
  changed.status = fault.status != 0 ? fault.status : fault.redirect ? 307 : response.status;
  changed.headers = std::move(response.headers);
  changed.body = std::move(response.body);
  for (const auto& [name, value] : fault.headers) {
    std::erase_if(changed.headers,
                  [&](const auto& header) { return EqualsIgnoreCase(header.first, name); });
  }
  changed.headers.insert(changed.headers.end(), fault.headers.begin(), fault.headers.end());
  if (fault.body) changed.body = std::make_shared<const std::string>(*fault.body);
  if (fault.redirect) {
    changed.headers.emplace_back("Location", *fault.redirect);
    if (!fault.body) changed.body.reset();
  }
  if (fault.flip_at != kNever && changed.body && fault.flip_at < changed.body->size()) {
    std::string wrong = *changed.body;
    wrong[fault.flip_at] = static_cast<char>(wrong[fault.flip_at] ^ 1);
    changed.body = std::make_shared<const std::string>(std::move(wrong));
  }
  return changed;
}

}  // namespace ocifs::testing
