// block-recorder: a disk that writes down what is done to it (block_recorder.h), as a file of a
// filesystem, to put a loop device and a filesystem on.
#define FUSE_USE_VERSION 312

#include <fuse3/fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "store/error.h"
#include "store/text.h"
#include "tests/harness/block_recorder.h"

namespace ocifs::testing {
namespace {

constexpr std::string_view kUsage =
    R"(usage: block-recorder DIRECTORY SIZE LOG

Mounts a filesystem at DIRECTORY and serves until it is unmounted, or until SIGINT or SIGTERM; then
the log is whole. "ready" on the standard output says that it is mounted. Three files:

  disk   SIZE bytes of zeros. Its writes and fsyncs are what LOG holds.
  mark   what is written to it stands in the log as a mark, when the write has been answered
  fault  what the disk refuses from then on, in words: "writes", "flushes", "OFFSET+LENGTH" for
         reads; nothing for a disk that is well

Nothing is cached by the kernel: every write of a loop device arrives here as it was made.
)";

constexpr uint64_t kMaxDiskBytes = uint64_t{1} << 40;

constexpr fuse_ino_t kDisk = 2;
constexpr fuse_ino_t kMark = 3;
constexpr fuse_ino_t kFault = 4;

BlockRecorder& RecorderOf(fuse_req_t request) {
  return *static_cast<BlockRecorder*>(fuse_req_userdata(request));
}

void ReplyTo(fuse_req_t request, const store::Result<void>& done) {
  fuse_reply_err(request, done ? 0 : EIO);
}

std::optional<BlockFaults> ParseFaults(std::string_view text) {
  BlockFaults faults;
  while (true) {
    const size_t begin = text.find_first_not_of(" \n");
    if (begin == std::string_view::npos) return faults;
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(" \n"));
    text.remove_prefix(word.size());
    if (word == "writes") {
      faults.writes = true;
    } else if (word == "flushes") {
      faults.flushes = true;
    } else {
      const size_t plus = word.find('+');
      if (plus == std::string_view::npos) return std::nullopt;
      const auto offset = store::ParseDecimal(word.substr(0, plus), kMaxDiskBytes);
      const auto length = store::ParseDecimal(word.substr(plus + 1), kMaxDiskBytes);
      if (!offset || !length) return std::nullopt;
      faults.reads.push_back({*offset, *length});
    }
  }
}

std::optional<struct stat> StatusOf(fuse_req_t request, fuse_ino_t inode) {
  struct stat status = {};
  status.st_ino = inode;
  status.st_nlink = 1;
  if (inode == FUSE_ROOT_ID) {
    status.st_mode = S_IFDIR | 0700;
  } else if (inode == kDisk || inode == kMark || inode == kFault) {
    status.st_mode = S_IFREG | 0600;
    if (inode == kDisk) status.st_size = static_cast<off_t>(RecorderOf(request).size());
  } else {
    return std::nullopt;
  }
  return status;
}

constexpr double kForGood = 1e6;  // seconds

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const std::string_view text = name;
  fuse_entry_param entry = {};
  if (parent == FUSE_ROOT_ID && text == "disk") entry.ino = kDisk;
  if (parent == FUSE_ROOT_ID && text == "mark") entry.ino = kMark;
  if (parent == FUSE_ROOT_ID && text == "fault") entry.ino = kFault;
  if (entry.ino == 0) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  entry.attr = *StatusOf(request, entry.ino);
  entry.attr_timeout = entry.entry_timeout = kForGood;
  fuse_reply_entry(request, &entry);
}

void GetAttributes(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  const std::optional<struct stat> status = StatusOf(request, inode);
  if (!status) {
    fuse_reply_err(request, ENOENT);
  } else {
    fuse_reply_attr(request, &*status, kForGood);
  }
}

// Opening `mark` or `fault` to write cuts it first; there is nothing to cut.
void SetAttributes(fuse_req_t request, fuse_ino_t inode, struct stat*, int, fuse_file_info* file) {
  GetAttributes(request, inode, file);
}

void Open(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  file->direct_io = 1;
  fuse_reply_open(request, file);
}

void Read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  store::Result<std::span<const std::byte>> bytes;
  if (inode == kDisk) bytes = RecorderOf(request).Read(static_cast<uint64_t>(offset), size);
  if (bytes) {
    fuse_reply_buf(request, reinterpret_cast<const char*>(bytes->data()), bytes->size());
  } else {
    fuse_reply_err(request, EIO);
  }
}

void Write(fuse_req_t request, fuse_ino_t inode, const char* data, size_t size, off_t offset,
           fuse_file_info*) {
  BlockRecorder& recorder = RecorderOf(request);
  store::Result<void> done;
  if (inode == kDisk) {
    done = recorder.Write(static_cast<uint64_t>(offset), std::as_bytes(std::span(data, size)));
  } else if (inode == kMark) {
    done = recorder.Mark(std::string_view(data, size));
  } else {
    std::optional<BlockFaults> faults = ParseFaults(std::string_view(data, size));
    if (!faults) {
      fuse_reply_err(request, EINVAL);
      return;
    }
    recorder.SetFaults(*std::move(faults));
  }
  if (done) {
    fuse_reply_write(request, size);
  } else {
    ReplyTo(request, done);
  }
}

void Sync(fuse_req_t request, fuse_ino_t inode, int, fuse_file_info*) {
  ReplyTo(request, inode == kDisk ? RecorderOf(request).Flush() : store::Result<void>());
}

fuse_lowlevel_ops Operations() {
  fuse_lowlevel_ops operations = {};
  operations.lookup = Lookup;
  operations.getattr = GetAttributes;
  operations.setattr = SetAttributes;
  operations.open = Open;
  operations.read = Read;
  operations.write = Write;
  operations.fsync = Sync;
  return operations;
}

int Run(std::span<char*> arguments) {
  if (arguments.size() != 4) throw std::invalid_argument(std::string(kUsage));
  const auto size = store::ParseDecimal(arguments[2], kMaxDiskBytes);
  if (!size || *size == 0) throw std::invalid_argument(std::string(kUsage));
  store::Result<std::unique_ptr<BlockRecorder>> recorder =
      BlockRecorder::Create(*size, arguments[3]);
  if (!recorder) throw std::runtime_error(recorder.error().message);

  std::array<char*, 3> options = {arguments[0], const_cast<char*>("-o"),
                                  const_cast<char*>("fsname=block-recorder")};
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(options.size()), options.data());
  const fuse_lowlevel_ops operations = Operations();
  fuse_session* const session =
      fuse_session_new(&args, &operations, sizeof operations, recorder->get());
  fuse_opt_free_args(&args);
  if (session == nullptr) throw std::runtime_error("no FUSE session can be made");
  int status = 1;
  if (fuse_set_signal_handlers(session) == 0) {
    if (fuse_session_mount(session, arguments[1]) == 0) {
      std::printf("ready\n");
      std::fflush(stdout);
      // One thread: the order of the log is that in which requests were answered. Ended by a
      // signal, the loop returns the signal's number.
      status = fuse_session_loop(session) < 0 ? 1 : 0;
      fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
  }
  fuse_session_destroy(session);
  if (const store::Result<void> saved = (*recorder)->Save(); !saved) {
    throw std::runtime_error(saved.error().message);
  }
  return status;
}

}  // namespace
}  // namespace ocifs::testing

int main(int argc, char** argv) {
  try {
    return ocifs::testing::Run(std::span(argv, static_cast<size_t>(argc)));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "block-recorder: %s\n", error.what());
    return 1;
  }
}
