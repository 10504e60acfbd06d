#include "tools/command_output.h"

#include <cstdio>
#include <utility>

#include "store/text.h"
#include "tools/json_writer.h"
#include "tools/package_path.h"

namespace ocifs::tools {

using store::Error;
using store::ErrorCode;
using store::Reference;
using store::Result;

std::string_view Advice(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "; check the network and the registry's name";
    case ErrorCode::kNoSpace:
      return "; make room on the store's disk, raise its limits, or choose another with --store";
    default:
      return "";
  }
}

int Complain(const Error& error) {
  std::fprintf(stderr, "ocifs-ctl: %s%s\n", store::EscapeForDisplay(error.message).c_str(),
               std::string(Advice(error.code)).c_str());
  return 1;
}

std::string ErrorJson(const Error& error) {
  return JsonObject()
      .Text("code", store::ErrorCodeName(error.code))
      .Text("message", error.message)
      .Finish();
}

void Print(const std::string& text) { std::printf("%s\n", text.c_str()); }

Result<Reference> ParseReferenceArgument(const std::string& text) {
  OCIFS_ASSIGN_OR_RETURN(PackagePath path, ParsePackagePath(text));
  return std::move(path.reference);
}

std::string WithDigest(const Reference& reference, const store::Digest& digest) {
  return reference.repository().ToString() + "@" + digest.ToString();
}

}  // namespace ocifs::tools
