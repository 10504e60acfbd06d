// What the commands of ocifs-ctl share: how they take references and how they answer.
#ifndef OCIFS_TOOLS_COMMAND_OUTPUT_H_
#define OCIFS_TOOLS_COMMAND_OUTPUT_H_

#include <string>
#include <string_view>

#include "store/error.h"
#include "store/reference.h"

namespace ocifs::tools {

// What to do about an error that its message alone does not say; begins with "; ", or is empty.
std::string_view Advice(store::ErrorCode code);

// Prints the error to the standard error; gives the exit status 1.
int Complain(const store::Error& error);

// {"code": …, "message": …}
std::string ErrorJson(const store::Error& error);

// Prints a line to the standard output.
void Print(const std::string& text);

// A reference as it is given on a command line, or as a path below a mount point.
store::Result<store::Reference> ParseReferenceArgument(const std::string& text);

// "host/path@sha256:…"
std::string WithDigest(const store::Reference& reference, const store::Digest& digest);

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_COMMAND_OUTPUT_H_
