#include "fs/fuse_session.h"

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "fs/errno.h"
#include "fs/mount_table.h"
#include "fs/notification_queue.h"
#include "fs/signal_scope.h"
#include "fs/stat.h"
#include "store/log.h"

namespace ocifs::fs {
namespace {

using store::Error;
using store::ErrorCode;
using store::Fail;
using store::LogLevel;
using store::RequestContext;
using store::Result;

// --- What libfuse says, kept so that a failed mount can name its reason ---

thread_local std::string last_fuse_message;

__attribute__((format(printf, 2, 0))) void OnFuseLog(fuse_log_level level, const char* format,
                                                     va_list arguments) {
  char text[1024];
  const int length = std::vsnprintf(text, sizeof text, format, arguments);
  if (length <= 0) return;
  std::string line(text, std::min<size_t>(static_cast<size_t>(length), sizeof text - 1));
  while (!line.empty() && line.back() == '\n') line.pop_back();
  last_fuse_message = line;
  store::Log(level <= FUSE_LOG_ERR ? LogLevel::kWarning : LogLevel::kDebug, line);
}

// --- Conversions ---

fuse_entry_param ToEntry(const LookupReply& reply) {
  fuse_entry_param entry = {};
  entry.entry_timeout = static_cast<double>(reply.entry_timeout.count());
  if (reply.attributes) {
    entry.ino = reply.attributes->inode.value();
    entry.attr = ToStat(*reply.attributes);
    entry.attr_timeout = static_cast<double>(reply.attribute_timeout.count());
  }
  return entry;
}

// --- Replies ---

// The answer to one request: exactly one, whatever happens. Owned by one thread.
class Reply {
 public:
  explicit Reply(fuse_req_t request) : request_(request) {}
  Reply(Reply&& other) noexcept
      : request_(std::exchange(other.request_, nullptr)), interruptible_(other.interruptible_) {}
  Reply& operator=(Reply&&) = delete;
  ~Reply() {
    if (request_ == nullptr) return;
    store::Log(LogLevel::kError,
               "fs: a request was left without an answer; this is a bug in ocifs");
    Errno(EIO);
  }

  // From now on, the kernel's word that the caller was interrupted cancels `task`.
  void SetInterrupt(fuse_interrupt_func_t function, void* data) {
    interruptible_ = true;
    fuse_req_interrupt_func(request_, function, data);
  }

  // The one way out for errors: outside these bounds the kernel would refuse the reply and the
  // caller would wait for ever.
  void Errno(int number) {
    assert(number >= kMinErrno && number <= kMaxErrno);
    if (number < kMinErrno || number > kMaxErrno) {
      store::Log(LogLevel::kError, "fs: errno " + std::to_string(number) +
                                       " is out of range; this is a bug in ocifs");
      number = EIO;
    }
    if (fuse_req_t request = Take()) fuse_reply_err(request, number);
  }
  void Entry(const fuse_entry_param& entry) {
    if (fuse_req_t request = Take()) fuse_reply_entry(request, &entry);
  }
  void Attributes(const struct stat& attributes, double timeout) {
    if (fuse_req_t request = Take()) fuse_reply_attr(request, &attributes, timeout);
  }
  void Link(const std::string& target) {
    if (fuse_req_t request = Take()) fuse_reply_readlink(request, target.c_str());
  }
  void Open(const fuse_file_info& info) {
    if (fuse_req_t request = Take()) fuse_reply_open(request, &info);
  }
  void Bytes(const void* data, size_t size) {
    if (fuse_req_t request = Take()) {
      fuse_reply_buf(request, static_cast<const char*>(data), size);
    }
  }
  void XattrSize(size_t size) {
    if (fuse_req_t request = Take()) fuse_reply_xattr(request, size);
  }
  void Stats(const struct statvfs& stats) {
    if (fuse_req_t request = Take()) fuse_reply_statfs(request, &stats);
  }

  fuse_req_t request() const { return request_; }

 private:
  fuse_req_t Take() {
    assert(request_ != nullptr);
    fuse_req_t request = std::exchange(request_, nullptr);
    if (request == nullptr) {
      store::Log(LogLevel::kError, "fs: a request was answered twice; this is a bug in ocifs");
    } else if (interruptible_) {
      // Waits for an interrupt that is being delivered: its data dies with the request.
      fuse_req_interrupt_func(request, nullptr, nullptr);
    }
    return request;
  }

  fuse_req_t request_;
  bool interruptible_ = false;
};

// A buffer of the calling thread, at least `size` bytes.
std::span<std::byte> ThreadBuffer(size_t size) {
  thread_local std::unique_ptr<std::byte[]> buffer;
  thread_local size_t capacity = 0;
  if (capacity < size) {
    buffer.reset();
    capacity = 0;
    buffer = std::make_unique_for_overwrite<std::byte[]>(size);
    capacity = size;
  }
  return {buffer.get(), size};
}

class DirectoryBuffer : public DirectorySink {
 public:
  DirectoryBuffer(fuse_req_t request, bool plus, std::span<std::byte> space)
      : request_(request), plus_(plus), space_(space) {}

  bool wants_attributes() const override { return plus_; }
  bool Add(const DirectoryEntry& entry) override {
    const std::string name(entry.name);
    char* const start = reinterpret_cast<char*>(space_.data()) + used_;
    const size_t left = space_.size() - used_;
    size_t needed = 0;
    if (plus_) {
      fuse_entry_param param = {};
      if (entry.lookup) param = ToEntry(*entry.lookup);
      // A zero entry.ino tells the kernel that only name, number and type are given.
      param.attr.st_ino = entry.inode;
      param.attr.st_mode = TypeBits(entry.type) | (param.attr.st_mode & 07777);
      needed = fuse_add_direntry_plus(request_, start, left, name.c_str(), &param,
                                      static_cast<off_t>(entry.cookie));
    } else {
      struct stat stat = {};
      stat.st_ino = entry.inode;
      stat.st_mode = TypeBits(entry.type);
      needed = fuse_add_direntry(request_, start, left, name.c_str(), &stat,
                                 static_cast<off_t>(entry.cookie));
    }
    if (needed > left) return false;
    used_ += needed;
    return true;
  }
  size_t used() const { return used_; }

 private:
  fuse_req_t request_;
  const bool plus_;
  const std::span<std::byte> space_;
  size_t used_ = 0;
};

}  // namespace

// --- The session ---

class FuseSession::Impl {
 public:
  Impl(Options options, Filesystem& filesystem)
      : options_(std::move(options)), filesystem_(filesystem), pool_(options_.cold) {}
  ~Impl();

  Result<void> Mount();
  Result<void> Run();
  void Stop();
  RequestCounts counts() const;

 private:
  struct Worker {
    Impl* session = nullptr;
    pthread_t thread = {};
    fuse_buf buffer = {};  // libfuse's, freed by us: a cancelled thread runs no destructors of ours
  };

  static Impl& Of(fuse_req_t request) { return *static_cast<Impl*>(fuse_req_userdata(request)); }
  static fuse_lowlevel_ops Operations();
  static void OnInit(void* self, fuse_conn_info* connection);
  void Init(fuse_conn_info* connection);
  static ssize_t ReadRequest(int fd, void* buffer, size_t size, void* self);
  static ssize_t WriteReply(int fd, iovec* parts, int count, void* self);

  // Runs `call` (RequestContext, Reply& → Result<void>, having replied if it succeeded) at once or,
  // if it has to wait, in the pool.
  template <typename Call>
  static void Serve(fuse_req_t request, Operation operation, Call call) noexcept;
  template <typename Call>
  void ServeCold(Reply reply, RequestContext context, Call call);

  static void* WorkerMain(void* worker);
  void WorkerLoop(Worker& worker);
  Result<void> StartWorker();
  void EndSession();
  void Send(const Notification& notification);

  const Options options_;
  Filesystem& filesystem_;
  ColdPool pool_;
  std::unique_ptr<NotificationQueue> notifications_;
  fuse_session* session_ = nullptr;
  bool mounted_ = false;
  int wake_fd_ = -1;  // eventfd: Run shall return
  bool no_open_ = false;
  bool no_open_directory_ = false;
  bool patch_init_reply_ = false;  // by the one thread that answers INIT

  std::array<std::atomic<uint64_t>, kOperations> counts_{};
  std::atomic<uint64_t> cold_{0};
  std::atomic<uint64_t> interrupted_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<size_t> idle_workers_{0};  // in read(2), waiting for a request

  store::Mutex workers_mutex_;
  std::vector<std::unique_ptr<Worker>> workers_ OCIFS_GUARDED_BY(workers_mutex_);
};

namespace {

struct ColdRequest {
  ColdPool* pool;
  std::weak_ptr<ColdPool::Task> task;
};

void OnInterrupt(fuse_req_t /*request*/, void* data) {
  const auto& cold = *static_cast<const ColdRequest*>(data);
  if (const std::shared_ptr<ColdPool::Task> task = cold.task.lock()) cold.pool->Cancel(task);
}

}  // namespace

FuseSession::Impl::~Impl() {
  EndSession();
  if (wake_fd_ >= 0) close(wake_fd_);
}

Result<void> FuseSession::Impl::Mount() {
  fuse_set_log_func(OnFuseLog);
  last_fuse_message.clear();
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return Fail(store::ErrorFromErrno(errno, "creating an eventfd"));

  std::string mount_options =
      "ro,noatime,nosuid,nodev,default_permissions,fsname=ocifs,subtype=ocifs";
  if (options_.allow_other) mount_options += ",allow_other";
  const char* const arguments[] = {"ocifs", "-o", mount_options.c_str()};
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  for (const char* argument : arguments) {
    if (fuse_opt_add_arg(&args, argument) != 0) {
      fuse_opt_free_args(&args);
      return Fail(ErrorCode::kOutOfMemory, "mounting: out of memory");
    }
  }
  const fuse_lowlevel_ops operations = Operations();
  session_ = fuse_session_new(&args, &operations, sizeof operations, this);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) {
    return Fail(ErrorCode::kInternal, "creating a FUSE session: " + last_fuse_message);
  }
  if (fuse_session_mount(session_, options_.mount_point.c_str()) != 0) {
    std::string reason =
        last_fuse_message.empty() ? "see the message of fusermount3 above" : last_fuse_message;
    return Fail(ErrorCode::kInvalid, "mounting on " + options_.mount_point + ": " + reason);
  }
  mounted_ = true;
  const fuse_custom_io io = {WriteReply, ReadRequest, nullptr, nullptr};
  if (fuse_session_custom_io(session_, &io, fuse_session_fd(session_)) != 0) {
    return Fail(ErrorCode::kOutOfMemory, "mounting on " + options_.mount_point + ": out of memory");
  }
  notifications_ = std::make_unique<NotificationQueue>(
      [this](const Notification& notification) { Send(notification); });
  filesystem_.SetNotifier(notifications_.get());
  return {};
}

Result<void> FuseSession::Impl::Run() {
  std::unique_ptr<SignalScope> signals;
  if (options_.handle_signals) signals = std::make_unique<SignalScope>(wake_fd_);
  OCIFS_RETURN_IF_ERROR(StartWorker());
  pollfd wake = {wake_fd_, POLLIN, 0};
  while (poll(&wake, 1, -1) < 0 && errno == EINTR) {
  }
  EndSession();
  return {};
}

void FuseSession::Impl::Stop() {
  const uint64_t one = 1;
  if (write(wake_fd_, &one, sizeof one) < 0) {
    // Only when it is already as high as it goes.
  }
}

// Everything that may still need an answer from the kernel's side ends before those who answer.
void FuseSession::Impl::EndSession() {
  if (session_ == nullptr) return;
  stopping_.store(true);  // what would have to wait is refused from here on
  pool_.Stop();           // what waits is answered
  filesystem_.SetNotifier(nullptr);
  if (notifications_ != nullptr) notifications_->Stop();
  fuse_session_exit(session_);
  while (true) {
    std::unique_ptr<Worker> worker;
    {
      store::MutexLock lock(workers_mutex_);
      if (workers_.empty()) break;
      worker = std::move(workers_.back());
      workers_.pop_back();
    }
    pthread_cancel(worker->thread);
    pthread_join(worker->thread, nullptr);
    std::free(worker->buffer.mem);
  }
  if (mounted_) fuse_session_unmount(session_);
  fuse_session_destroy(session_);
  session_ = nullptr;
}

RequestCounts FuseSession::Impl::counts() const {
  RequestCounts counts;
  for (size_t i = 0; i < kOperations; ++i) counts.by_operation[i] = counts_[i].load();
  counts.cold = cold_.load();
  counts.interrupted = interrupted_.load();
  return counts;
}

// --- Session threads ---

Result<void> FuseSession::Impl::StartWorker() {
  store::MutexLock lock(workers_mutex_);
  if (workers_.size() >= options_.session_threads || stopping_.load()) return {};
  auto worker = std::make_unique<Worker>();
  worker->session = this;
  // Signals are for the threads of the program.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  idle_workers_.fetch_add(1);
  const int failed = pthread_create(&worker->thread, nullptr, WorkerMain, worker.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failed != 0) {
    idle_workers_.fetch_sub(1);
    return Fail(store::ErrorFromErrno(failed, "starting a session thread"));
  }
  workers_.push_back(std::move(worker));
  return {};
}

void* FuseSession::Impl::WorkerMain(void* argument) {
  auto& worker = *static_cast<Worker*>(argument);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  worker.session->WorkerLoop(worker);
  return nullptr;
}

void FuseSession::Impl::WorkerLoop(Worker& worker) {
  while (fuse_session_exited(session_) == 0) {
    // As in libfuse's own loop, read(2) is the one place where a thread may be cancelled.
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
    const int received = fuse_session_receive_buf(session_, &worker.buffer);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    if (received == -EINTR) continue;
    if (received <= 0) break;  // unmounted
    if (idle_workers_.fetch_sub(1) == 1) {
      if (auto started = StartWorker(); !started) {
        store::Log(LogLevel::kWarning, "fs: " + started.error().message);
      }
    }
    fuse_session_process_buf(session_, &worker.buffer);
    idle_workers_.fetch_add(1);
  }
  Stop();
}

void FuseSession::Impl::Send(const Notification& notification) {
  // ENOENT: the kernel does not know it, so there is nothing to forget.
  if (notification.name.empty()) {
    fuse_lowlevel_notify_inval_inode(session_, notification.inode.value(), 0, 0);
  } else {
    fuse_lowlevel_notify_inval_entry(session_, notification.inode.value(), notification.name.data(),
                                     notification.name.size());
  }
}

// --- Requests ---

template <typename Call>
void FuseSession::Impl::Serve(fuse_req_t request, Operation operation, Call call) noexcept {
  Impl& session = Of(request);
  session.counts_[static_cast<size_t>(operation)].fetch_add(1, std::memory_order_relaxed);
  Reply reply(request);
  try {
    const fuse_ctx& caller = *fuse_req_ctx(request);
    RequestContext context;
    context.requester = {static_cast<uint32_t>(caller.uid), static_cast<uint32_t>(caller.pid)};
    context.wait = RequestContext::Wait::kNever;
    const Result<void> result = call(std::as_const(context), reply);
    if (result) return;
    if (result.error().code != ErrorCode::kWouldBlock) {
      reply.Errno(ToErrno(result.error().code));
      return;
    }
    context.wait = RequestContext::Wait::kUntilStalled;
    session.ServeCold(std::move(reply), std::move(context), std::move(call));
  } catch (const std::bad_alloc&) {
    if (reply.request() != nullptr) reply.Errno(ENOMEM);
  }
}

template <typename Call>
void FuseSession::Impl::ServeCold(Reply reply, RequestContext context, Call call) {
  cold_.fetch_add(1, std::memory_order_relaxed);
  if (stopping_.load()) {
    reply.Errno(ESHUTDOWN);
    return;
  }
  // Everything that can fail for want of memory comes before the request changes hands.
  struct Work {
    Reply reply;
    RequestContext context;
    Call call;
    ColdRequest interrupt;
  };
  auto work = std::make_shared<Work>(
      Work{std::move(reply), std::move(context), std::move(call), ColdRequest{&pool_, {}}});
  auto run = [this, work](std::stop_token stop) noexcept {
    work->context.stop = std::move(stop);
    try {
      const Result<void> result = work->call(std::as_const(work->context), work->reply);
      if (result) return;
      ErrorCode code = result.error().code;
      if (code == ErrorCode::kCancelled) {
        // EINTR without a signal makes callers spin: a stop of the daemon has its own word.
        if (stopping_.load()) {
          code = ErrorCode::kShuttingDown;
        } else {
          interrupted_.fetch_add(1, std::memory_order_relaxed);
        }
      }
      work->reply.Errno(ToErrno(code));
    } catch (const std::bad_alloc&) {
      if (work->reply.request() != nullptr) work->reply.Errno(ENOMEM);
    }
  };
  std::shared_ptr<ColdPool::Task> task;
  try {
    task = std::make_shared<ColdPool::Task>(run);
    work->interrupt.task = task;
    work->reply.SetInterrupt(OnInterrupt, &work->interrupt);
    if (!pool_.Submit(task)) work->reply.Errno(stopping_.load() ? ESHUTDOWN : ENOMEM);
  } catch (const std::bad_alloc&) {
    if (work->reply.request() != nullptr) work->reply.Errno(ENOMEM);
  }
}

void FuseSession::Impl::OnInit(void* self, fuse_conn_info* connection) {
  static_cast<Impl*>(self)->Init(connection);
}

void FuseSession::Impl::Init(fuse_conn_info* connection) {
  no_open_ = (connection->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  no_open_directory_ = (connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  // READDIRPLUS always: a walk then needs no lookups. AUTO_INVAL_DATA: a listing that the kernel
  // keeps is dropped when the directory's mtime moves.
  connection->want = connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_READDIRPLUS |
                                            FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS |
                                            FUSE_CAP_NO_OPEN_SUPPORT | FUSE_CAP_NO_OPENDIR_SUPPORT |
                                            FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC);
  patch_init_reply_ = (connection->capable & FUSE_CAP_PARALLEL_DIROPS) != 0;
  connection->max_readahead = options_.readahead_bytes;
  // Reading ahead counts as background work. Reads that wait for a registry must not use it up, or
  // cached reads would stand behind them.
  connection->max_background = 4096;
  connection->congestion_threshold = 3072;
  SetReadahead(options_.mount_point, options_.readahead_bytes);
  if (options_.on_ready) options_.on_ready();
}

ssize_t FuseSession::Impl::ReadRequest(int fd, void* buffer, size_t size, void* /*self*/) {
  return read(fd, buffer, size);
}

// libfuse before 3.17 knows FUSE_CAP_PARALLEL_DIROPS and does not tell the kernel, which then asks
// about one name of a directory at a time: a name that waits for its registry would hold up all
// others at the mount point. So the flag is put into the reply to INIT here.
ssize_t FuseSession::Impl::WriteReply(int fd, iovec* parts, int count, void* self) {
  auto& session = *static_cast<Impl*>(self);
  if (session.patch_init_reply_) {
    session.patch_init_reply_ = false;
    constexpr size_t kThroughFlags = offsetof(fuse_init_out, flags) + sizeof(uint32_t);
    if (count == 2 && parts[0].iov_len == sizeof(fuse_out_header) &&
        parts[1].iov_len >= kThroughFlags) {
      char* const flags = static_cast<char*>(parts[1].iov_base) + offsetof(fuse_init_out, flags);
      uint32_t value = 0;
      std::memcpy(&value, flags, sizeof value);
      value |= FUSE_PARALLEL_DIROPS;
      std::memcpy(flags, &value, sizeof value);
    }
  }
  return writev(fd, parts, count);
}

fuse_lowlevel_ops FuseSession::Impl::Operations() {
  fuse_lowlevel_ops ops = {};
  ops.init = OnInit;

  ops.lookup = [](fuse_req_t request, fuse_ino_t parent, const char* name) {
    Serve(request, Operation::kLookup,
          [self = &Of(request), parent, copy = std::string(name)](const RequestContext& context,
                                                                  Reply& reply) -> Result<void> {
            if (copy.size() > store::kMaxNameBytes) {
              reply.Errno(ENAMETOOLONG);
              return {};
            }
            OCIFS_ASSIGN_OR_RETURN(
                const LookupReply found,
                self->filesystem_.Lookup(InodeNumber::FromValue(parent), copy, context));
            reply.Entry(ToEntry(found));
            return {};
          });
  };

  ops.forget = [](fuse_req_t request, fuse_ino_t inode, uint64_t count) {
    Impl& self = Of(request);
    self.counts_[static_cast<size_t>(Operation::kForget)].fetch_add(1, std::memory_order_relaxed);
    self.filesystem_.Forget(InodeNumber::FromValue(inode), count);
    fuse_reply_none(request);
  };
  ops.forget_multi = [](fuse_req_t request, size_t count, fuse_forget_data* forgets) {
    Impl& self = Of(request);
    self.counts_[static_cast<size_t>(Operation::kForget)].fetch_add(1, std::memory_order_relaxed);
    for (size_t i = 0; i < count; ++i) {
      self.filesystem_.Forget(InodeNumber::FromValue(forgets[i].ino), forgets[i].nlookup);
    }
    fuse_reply_none(request);
  };

  ops.getattr = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* /*info*/) {
    Serve(
        request, Operation::kGetAttributes,
        [self = &Of(request), inode](const RequestContext& context, Reply& reply) -> Result<void> {
          OCIFS_ASSIGN_OR_RETURN(
              const AttributeReply found,
              self->filesystem_.GetAttributes(InodeNumber::FromValue(inode), context));
          reply.Attributes(ToStat(found.attributes), static_cast<double>(found.timeout.count()));
          return {};
        });
  };

  ops.readlink = [](fuse_req_t request, fuse_ino_t inode) {
    Serve(
        request, Operation::kReadLink,
        [self = &Of(request), inode](const RequestContext& context, Reply& reply) -> Result<void> {
          OCIFS_ASSIGN_OR_RETURN(
              const std::string_view target,
              self->filesystem_.ReadLink(InodeNumber::FromValue(inode), context));
          reply.Link(std::string(target));
          return {};
        });
  };

  ops.open = [](fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* info) {
    Serve(request, Operation::kOpen,
          [self = &Of(request), copy = *info](const RequestContext&, Reply& reply) -> Result<void> {
            if (self->no_open_) {
              reply.Errno(ENOSYS);
            } else {
              fuse_file_info answer = copy;
              answer.keep_cache = 1;
              reply.Open(answer);
            }
            return {};
          });
  };
  ops.opendir = [](fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* info) {
    Serve(request, Operation::kOpenDirectory,
          [self = &Of(request), copy = *info](const RequestContext&, Reply& reply) -> Result<void> {
            if (self->no_open_directory_) {
              reply.Errno(ENOSYS);
            } else {
              fuse_file_info answer = copy;
              answer.keep_cache = 1;
              answer.cache_readdir = 1;
              reply.Open(answer);
            }
            return {};
          });
  };

  ops.read = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                fuse_file_info* /*info*/) {
    Serve(request, Operation::kRead,
          [self = &Of(request), inode, size, offset](const RequestContext& context,
                                                     Reply& reply) -> Result<void> {
            const std::span<std::byte> buffer = ThreadBuffer(size);
            OCIFS_ASSIGN_OR_RETURN(
                const size_t count,
                self->filesystem_.Read(InodeNumber::FromValue(inode), static_cast<uint64_t>(offset),
                                       buffer, context));
            reply.Bytes(buffer.data(), count);
            return {};
          });
  };

  static constexpr auto kReadDirectory = [](fuse_req_t request, fuse_ino_t inode, size_t size,
                                            off_t offset, bool plus) {
    Serve(request, Operation::kReadDirectory,
          [self = &Of(request), inode, size, offset, plus](const RequestContext& context,
                                                           Reply& reply) -> Result<void> {
            DirectoryBuffer buffer(reply.request(), plus, ThreadBuffer(size));
            OCIFS_RETURN_IF_ERROR(self->filesystem_.ReadDirectory(
                InodeNumber::FromValue(inode), static_cast<uint64_t>(offset), buffer, context));
            reply.Bytes(ThreadBuffer(size).data(), buffer.used());
            return {};
          });
  };
  ops.readdir = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                   fuse_file_info* /*info*/) {
    kReadDirectory(request, inode, size, offset, false);
  };
  ops.readdirplus = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                       fuse_file_info* /*info*/) {
    kReadDirectory(request, inode, size, offset, true);
  };

  // Both attribute calls: the size alone when nothing is asked for, ERANGE when it does not fit.
  static constexpr auto kReplyXattr = [](Reply& reply, const std::string& bytes, size_t size) {
    if (size == 0) {
      reply.XattrSize(bytes.size());
    } else if (bytes.size() > size) {
      reply.Errno(ERANGE);
    } else {
      reply.Bytes(bytes.data(), bytes.size());
    }
  };
  ops.getxattr = [](fuse_req_t request, fuse_ino_t inode, const char* name, size_t size) {
    Serve(request, Operation::kGetXattr,
          [self = &Of(request), inode, copy = std::string(name), size](
              const RequestContext& context, Reply& reply) -> Result<void> {
            OCIFS_ASSIGN_OR_RETURN(
                const std::optional<std::string> value,
                self->filesystem_.GetXattr(InodeNumber::FromValue(inode), copy, context));
            if (value) {
              kReplyXattr(reply, *value, size);
            } else {
              reply.Errno(ENODATA);
            }
            return {};
          });
  };
  ops.listxattr = [](fuse_req_t request, fuse_ino_t inode, size_t size) {
    Serve(request, Operation::kListXattrs,
          [self = &Of(request), inode, size](const RequestContext& context,
                                             Reply& reply) -> Result<void> {
            OCIFS_ASSIGN_OR_RETURN(
                const std::vector<std::string> names,
                self->filesystem_.ListXattrs(InodeNumber::FromValue(inode), context));
            std::string bytes;
            for (const std::string& name : names) {
              bytes += name;
              bytes += '\0';
            }
            kReplyXattr(reply, bytes, size);
            return {};
          });
  };

  ops.statfs = [](fuse_req_t request, fuse_ino_t /*inode*/) {
    Serve(request, Operation::kStats,
          [self = &Of(request)](const RequestContext&, Reply& reply) -> Result<void> {
            OCIFS_ASSIGN_OR_RETURN(const FilesystemStats found, self->filesystem_.Stats());
            struct statvfs stats = {};
            stats.f_bsize = found.block_size;
            stats.f_frsize = found.block_size;
            stats.f_blocks = found.blocks;
            stats.f_bfree = found.free_blocks;
            stats.f_bavail = found.free_blocks;
            stats.f_namemax = found.max_name_bytes;
            reply.Stats(stats);
            return {};
          });
  };
  return ops;
}

// --- FuseSession ---

FuseSession::FuseSession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FuseSession::~FuseSession() = default;

Result<std::unique_ptr<FuseSession>> FuseSession::Mount(Options options, Filesystem& filesystem) {
  auto impl = std::make_unique<Impl>(std::move(options), filesystem);
  OCIFS_RETURN_IF_ERROR(impl->Mount());
  return std::unique_ptr<FuseSession>(new FuseSession(std::move(impl)));
}

Result<void> FuseSession::Run() { return impl_->Run(); }
void FuseSession::Stop() { impl_->Stop(); }
RequestCounts FuseSession::counts() const { return impl_->counts(); }

}  // namespace ocifs::fs
