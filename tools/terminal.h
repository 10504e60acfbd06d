// Questions to the person at the terminal.
#ifndef OCIFS_TOOLS_TERMINAL_H_
#define OCIFS_TOOLS_TERMINAL_H_

#include <string>
#include <string_view>

#include "store/error.h"

namespace ocifs::tools {

enum class Echo { kOn, kOff };

// Prints `prompt` to the standard error and reads a line from the standard input, which must be a
// terminal (else kUnsupported). With the echo off, a signal that ends or stops the process first
// brings it back. kCancelled at the end of the input. For programs with one thread.
store::Result<std::string> AskAtTerminal(std::string_view prompt, Echo echo);

// The whole standard input, at most 64 KiB (else kTooLarge), without the end of its last line.
store::Result<std::string> ReadSecretFromInput();

}  // namespace ocifs::tools

#endif  // OCIFS_TOOLS_TERMINAL_H_
