// link-proxy: a link with faults between a client and a server, for benchmarks and end-to-end
// tests. See link_proxy.h for what is modelled.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "store/text.h"
#include "tests/harness/link_proxy.h"

namespace {

using ocifs::store::ParseDecimal;
using ocifs::testing::LinkAddress;
using ocifs::testing::LinkCounters;
using ocifs::testing::LinkOptions;
using ocifs::testing::LinkProxy;

constexpr std::string_view kUsage =
    R"(usage: link-proxy --connect [HOST:]PORT [--listen [HOST:]PORT] [OPTION VALUE]...

Prints "listening on HOST:PORT", then carries connections until SIGINT or SIGTERM, and prints its
counters. HOST is an IPv4 address, by default 127.0.0.1. Commands on standard input, one a line and
each answered with "ok", the counters or "unknown": stall, blackhole, resume, reset (all
connections), counters, and "OPTION VALUE" without the dashes.

  --delay-ms N      one way (default 0)
  --rate-mbit N     of each direction, shared by all connections (default: none)
  --window-kib N    under way in each direction of a connection (default: 64 MiB)
  --cut-bytes N     end connections after so many bytes to the client (default: never)
  --cut-kind KIND   fin (default) or reset
)";

LinkAddress ParseAddress(std::string_view text) {
  LinkAddress address;
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos) {
    address.host = text.substr(0, colon);
    text.remove_prefix(colon + 1);
  }
  const auto port = ParseDecimal(text, UINT16_MAX);
  if (!port) throw std::invalid_argument("not a port: " + std::string(text));
  address.port = static_cast<uint16_t>(*port);
  return address;
}

// Whether there is such an option.
bool SetOption(LinkOptions& options, std::string_view name, std::string_view value) {
  if (name == "cut-kind") {
    if (value != "fin" && value != "reset") return false;
    options.cut = value == "fin" ? LinkOptions::Cut::kFin : LinkOptions::Cut::kReset;
    return true;
  }
  const auto number = ParseDecimal(value, uint64_t{1} << 40);
  if (!number) return false;
  if (name == "delay-ms") {
    options.delay = std::chrono::milliseconds(*number);
  } else if (name == "rate-mbit") {
    options.bytes_per_second = *number * 1'000'000 / 8;
  } else if (name == "window-kib") {
    options.window = static_cast<size_t>(*number) << 10;
  } else if (name == "cut-bytes") {
    options.cut_every = *number;
  } else {
    return false;
  }
  return true;
}

void PrintCounters(LinkProxy& proxy) {
  const LinkCounters counters = proxy.counters();
  printf("{\"connections\":%llu,\"open\":%llu,\"bytes_to_server\":%llu,\"bytes_to_client\":%llu}\n",
         static_cast<unsigned long long>(counters.connections),
         static_cast<unsigned long long>(counters.open),
         static_cast<unsigned long long>(counters.bytes_to_server),
         static_cast<unsigned long long>(counters.bytes_to_client));
}

void Obey(LinkProxy& proxy, LinkOptions& options, const std::string& line) {
  const size_t space = line.find(' ');
  if (line == "counters") {
    PrintCounters(proxy);
    return;
  }
  if (line == "stall") {
    proxy.Stall();
  } else if (line == "blackhole") {
    proxy.Blackhole();
  } else if (line == "resume") {
    proxy.Resume();
  } else if (line == "reset") {
    proxy.ResetConnections();
  } else if (space != std::string::npos &&
             SetOption(options, line.substr(0, space), line.substr(space + 1))) {
    proxy.SetOptions(options);
  } else {
    puts("unknown");
    return;
  }
  puts("ok");
}

int Run(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    fwrite(kUsage.data(), 1, kUsage.size(), stdout);
    return 0;
  }
  std::optional<LinkAddress> server;
  LinkAddress listen;
  LinkOptions options;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc || !name.starts_with("--")) throw std::invalid_argument(std::string(kUsage));
    const std::string_view value = argv[i + 1];
    if (name == "--connect") {
      server = ParseAddress(value);
    } else if (name == "--listen") {
      listen = ParseAddress(value);
    } else if (!SetOption(options, name.substr(2), value)) {
      throw std::invalid_argument(std::string(kUsage));
    }
  }
  if (!server) throw std::invalid_argument(std::string(kUsage));

  // Before the proxy's thread, which inherits the mask.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  const int signals = signalfd(-1, &ends, SFD_CLOEXEC);

  LinkProxy proxy(*server, options, listen);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  printf("listening on %s:%d\n", listen.host.c_str(), proxy.port());
  std::string input;
  pollfd polled[2] = {{signals, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  while (polled[0].revents == 0) {
    if (poll(polled, 2, -1) < 0 || polled[1].revents == 0) continue;
    char buffer[4096];
    const ssize_t count = read(STDIN_FILENO, buffer, sizeof(buffer));
    if (count <= 0) {
      polled[1].fd = -1;  // no more commands; the link stays
      polled[1].revents = 0;
      continue;
    }
    input.append(buffer, static_cast<size_t>(count));
    for (size_t end = 0; (end = input.find('\n')) != std::string::npos;) {
      Obey(proxy, options, input.substr(0, end));
      input.erase(0, end + 1);
    }
  }
  close(signals);
  PrintCounters(proxy);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {
    fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
