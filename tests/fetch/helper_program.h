// Programs for tests: shell scripts in a directory of their own, credential helpers among them.
#ifndef OCIFS_TESTS_FETCH_HELPER_PROGRAM_H_
#define OCIFS_TESTS_FETCH_HELPER_PROGRAM_H_

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "store/file.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fetch {

class HelperDirectory {
 public:
  const std::string& path() const { return dir_.path(); }
  std::string operator/(std::string_view name) const { return dir_ / name; }

  std::string Script(const std::string& name, std::string_view body) const {
    const std::string file = dir_.Write(name, "#!/bin/sh\n" + std::string(body) + "\n");
    if (chmod(file.c_str(), 0700) != 0) throw std::runtime_error("chmod failed");
    return file;
  }
  // docker-credential-`name`, which notes each question as "verb input" in the file `name`.log and
  // then does what `body` says, with $verb and $input.
  std::string Helper(const std::string& name, std::string_view body) const {
    return Script("docker-credential-" + name,
                  "verb=$1\ninput=$(cat)\nprintf '%s %s\\n' \"$verb\" \"$input\" >>'" +
                      (dir_ / (name + ".log")) + "'\n" + std::string(body));
  }
  std::string Asked(const std::string& name) const { return Read(name + ".log"); }
  std::string Read(std::string_view name) const {
    std::ifstream file(dir_ / name);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  const testing::TempDir dir_;
};

// A FIFO that a script holds open for writing as `exec 9>FIFO`: tells when it and all its children
// are there, and when they are gone.
class LifeLine {
 public:
  explicit LifeLine(const std::string& path) {
    if (mkfifo(path.c_str(), 0600) != 0) throw std::runtime_error("mkfifo failed");
    fd_.reset(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  }
  // The script wrote a byte to it.
  bool Began() const { return Sees(POLLIN); }
  bool Ended() const { return Sees(POLLHUP); }

 private:
  bool Sees(int16_t event) const {
    pollfd wanted{.fd = fd_.get(), .events = event, .revents = 0};
    return poll(&wanted, 1, 20'000) == 1 && (wanted.revents & event) != 0;
  }

  store::UniqueFd fd_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_TESTS_FETCH_HELPER_PROGRAM_H_
