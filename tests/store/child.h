// A second process for tests of what processes share.
#ifndef OCIFS_TESTS_STORE_CHILD_H_
#define OCIFS_TESTS_STORE_CHILD_H_

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <functional>

namespace ocifs::store {

// Forks; make it before the test has threads or an open store. A child that aborts, or is killed,
// ends with another status than 0.
class Child {
 public:
  // One end of the conversation.
  class Channel {
   public:
    Channel(int in, int out) : in_(in), out_(out) {}
    void Tell() { Tell('.'); }
    void Tell(char what) {
      if (write(out_, &what, 1) != 1) std::abort();
    }
    // Blocks until the other side tells; 0 when it is gone.
    char Await() {
      char what = 0;
      ssize_t count = 0;
      do {
        count = read(in_, &what, 1);
      } while (count < 0 && errno == EINTR);
      return count == 1 ? what : '\0';
    }

   private:
    const int in_;
    const int out_;
  };

  explicit Child(const std::function<void(Channel&)>& work) {
    std::array<int, 2> down{};
    std::array<int, 2> up{};
    if (pipe(down.data()) != 0 || pipe(up.data()) != 0) std::abort();
    pid_ = fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      close(down[1]);
      close(up[0]);
      Channel channel(down[0], up[1]);
      work(channel);
      _exit(0);
    }
    close(down[0]);
    close(up[1]);
    in_ = up[0];
    out_ = down[1];
  }
  ~Child() {
    if (pid_ > 0) Kill();
    close(in_);
    close(out_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void Tell() { Channel(in_, out_).Tell(); }
  char Await() { return Channel(in_, out_).Await(); }
  int Wait() {
    int status = -1;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }
  void Kill() {
    kill(pid_, SIGKILL);
    Wait();
  }

 private:
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
};

}  // namespace ocifs::store

#endif  // OCIFS_TESTS_STORE_CHILD_H_
