// Answers as registries word them.
#ifndef OCIFS_TESTS_HARNESS_REGISTRY_ANSWER_H_
#define OCIFS_TESTS_HARNESS_REGISTRY_ANSWER_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "store/json.h"
#include "tests/harness/http_server.h"

namespace ocifs::testing {

inline ServerResponse JsonAnswer(int status, std::string body) {
  return {.status = status,
          .headers = {{"Content-Type", "application/json"},
                      {"Docker-Distribution-Api-Version", "registry/2.0"}},
          .body = std::make_shared<const std::string>(std::move(body))};
}

inline ServerResponse ErrorAnswer(int status, std::string_view code, std::string_view message) {
  return JsonAnswer(status, R"({"errors":[{"code":)" + store::JsonQuote(code) + R"(,"message":)" +
                                store::JsonQuote(message) + R"(,"detail":null}]})");
}

}  // namespace ocifs::testing

#endif  // OCIFS_TESTS_HARNESS_REGISTRY_ANSWER_H_
