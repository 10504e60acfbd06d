// The border between code that may run out of memory and threads that must not end by it.
#ifndef OCIFS_STORE_CATCH_EXCEPTIONS_H_
#define OCIFS_STORE_CATCH_EXCEPTIONS_H_

#include <exception>
#include <new>
#include <string>

#include "store/error.h"

namespace ocifs::store {

// Calls `function`, which returns a Result, and turns what it throws into an error: our own code
// throws nothing, the standard library does when memory is short.
template <typename Function>
auto CatchExceptions(const Function& function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kOutOfMemory, "out of memory");
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, std::string("unexpected: ") + error.what());
  }
}

}  // namespace ocifs::store

#endif  // OCIFS_STORE_CATCH_EXCEPTIONS_H_
