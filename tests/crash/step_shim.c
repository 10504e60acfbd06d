/* Preloaded into a program, counts the calls that change files below a directory, and stops the program
   at one of them or lets it fail. Calls are numbered from 1, across threads, in the order in which they
   are begun. The environment says what to do:

     OCIFS_TEST_STEP_ROOT    the directory, without links in its path
     OCIFS_TEST_STEP_MODE    count; kill: SIGKILL before the call; half: SIGKILL after the first half
                             of its bytes (before it, if it writes none); once, always: it fails, or it
                             and all after it that can fail so
     OCIFS_TEST_STEP_AT      number of the call; with once and always, where it cannot fail with that
                             error, the next that can
     OCIFS_TEST_STEP_ERRNO   number of the error
     OCIFS_TEST_STEP_LOG     gets a line "number call path" for each call, and "number fails" for
                             those that were made to fail

   What is written through shared memory is no call and not counted; ocifs writes nothing so but
   LMDB's table of readers, which is none of the content. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum Mode { kOff, kCount, kKill, kHalf, kOnce, kAlways };

/* What a call needs of the disk decides which errors it can meet. */
enum Need {
  kSpace, /* writes and new names: all errors */
  kChange, /* removal and cutting: not those of a full disk */
  kSync,   /* EIO; a disk that is full or read-only has long refused what would be synced */
};

static enum Mode mode;
static char root[PATH_MAX];
static size_t root_length;
static long chosen;
static int error;
static int log_fd = -1;
static atomic_long steps;
static atomic_bool done;

__attribute__((constructor)) static void Start(void) {
  const char* const directory = getenv("OCIFS_TEST_STEP_ROOT");
  const char* const how = getenv("OCIFS_TEST_STEP_MODE");
  if (directory == NULL || how == NULL) return;
  static const struct {
    const char* name;
    enum Mode mode;
  } kModes[] = {{"count", kCount}, {"kill", kKill},     {"half", kHalf},
                {"once", kOnce},   {"always", kAlways}, {NULL, kOff}};
  int i = 0;
  while (kModes[i].name != NULL && strcmp(kModes[i].name, how) != 0) ++i;
  root_length = strlen(directory);
  if (kModes[i].name == NULL || root_length >= sizeof root) abort();
  memcpy(root, directory, root_length + 1);
  const char* const at = getenv("OCIFS_TEST_STEP_AT");
  chosen = at != NULL ? atol(at) : 0;
  const char* const number = getenv("OCIFS_TEST_STEP_ERRNO");
  error = number != NULL ? atoi(number) : EIO;
  const char* const log = getenv("OCIFS_TEST_STEP_LOG");
  if (log != NULL) {
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    /* Out of the way of programs that close what they do not know. */
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 700);
    close(fd);
  }
  mode = kModes[i].mode;
}

static bool Below(const char* path) {
  return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The path behind a descriptor. A file without a name is "directory/#inode (deleted)". */
static bool PathOfDescriptor(int fd, char* path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length <= 0) return false;
  path[length] = 0;
  return true;
}

static bool PathOfName(int directory, const char* name, char* path) {
  if (name == NULL) return false;
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
    return true;
  }
  char base[PATH_MAX];
  if (directory == AT_FDCWD ? getcwd(base, sizeof base) == NULL : !PathOfDescriptor(directory, base)) {
    return false;
  }
  return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

static void Die(void) {
  for (;;) kill(getpid(), SIGKILL);
}

static void Note(const char* format, ...) __attribute__((format(printf, 1, 2)));
static void Note(const char* format, ...) {
  if (log_fd < 0) return;
  char line[PATH_MAX + 64];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  /* One write: lines of several threads do not mix. */
  (void)!syscall(SYS_write, log_fd, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

static bool CanFail(enum Need need) {
  if (error == ENOSPC || error == EDQUOT) return need == kSpace;
  if (error == EROFS) return need != kSync;
  return true;
}

enum Verdict { kGo, kFail, kGoHalf };

/* Counts one call on `path`. Does not return if the program ends here; with kFail errno is set. */
static enum Verdict Step(const char* call, const char* path, enum Need need) {
  const long number = atomic_fetch_add(&steps, 1) + 1;
  Note("%ld %s %s\n", number, call, path);
  if (mode == kKill && number == chosen) Die();
  if (mode == kHalf && number == chosen) return kGoHalf;
  if ((mode == kOnce || mode == kAlways) && number >= chosen && CanFail(need) &&
      (mode == kAlways || !atomic_exchange(&done, true))) {
    Note("%ld fails\n", number);
    errno = error;
    return kFail;
  }
  return kGo;
}

static enum Verdict StepOnDescriptor(const char* call, int fd, enum Need need) {
  char path[PATH_MAX];
  if (mode == kOff || !PathOfDescriptor(fd, path) || !Below(path)) return kGo;
  return Step(call, path, need);
}

static enum Verdict StepOnName(const char* call, int directory, const char* name, enum Need need) {
  char path[PATH_MAX];
  if (mode == kOff || !PathOfName(directory, name, path) || !Below(path)) return kGo;
  return Step(call, path, need);
}

/* For calls that write no bytes: half of one is none. */
#define RETURN_UNLESS_GO(verdict)          \
  do {                                     \
    const enum Verdict given_ = (verdict); \
    if (given_ == kGoHalf) Die();          \
    if (given_ == kFail) return -1;        \
  } while (0)

/* ---- bytes ---- */

ssize_t write(int fd, const void* bytes, size_t count) {
  const enum Verdict verdict = StepOnDescriptor("write", fd, kSpace);
  if (verdict == kFail) return -1;
  if (verdict == kGoHalf) {
    syscall(SYS_write, fd, bytes, count / 2);
    Die();
  }
  return syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  const enum Verdict verdict = StepOnDescriptor("pwrite", fd, kSpace);
  if (verdict == kFail) return -1;
  if (verdict == kGoHalf) {
    syscall(SYS_pwrite64, fd, bytes, count / 2, offset);
    Die();
  }
  return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void* bytes, size_t count, off_t offset) {
  return pwrite(fd, bytes, count, offset);
}

/* Writes the first half of what the parts hold; `offset` -1: where the file's position is. */
static void WriteHalf(int fd, const struct iovec* parts, int count, off_t offset) {
  size_t total = 0;
  for (int i = 0; i < count; ++i) total += parts[i].iov_len;
  size_t left = total / 2;
  for (int i = 0; i < count && left > 0; ++i) {
    const size_t length = parts[i].iov_len < left ? parts[i].iov_len : left;
    if (offset < 0) {
      syscall(SYS_write, fd, parts[i].iov_base, length);
    } else {
      syscall(SYS_pwrite64, fd, parts[i].iov_base, length, offset);
      offset += (off_t)length;
    }
    left -= length;
  }
  Die();
}

ssize_t writev(int fd, const struct iovec* parts, int count) {
  const enum Verdict verdict = StepOnDescriptor("writev", fd, kSpace);
  if (verdict == kFail) return -1;
  if (verdict == kGoHalf) WriteHalf(fd, parts, count, -1);
  return syscall(SYS_writev, fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  const enum Verdict verdict = StepOnDescriptor("pwritev", fd, kSpace);
  if (verdict == kFail) return -1;
  if (verdict == kGoHalf) WriteHalf(fd, parts, count, offset);
  return syscall(SYS_pwritev, fd, parts, count, offset, 0L);
}

ssize_t pwritev64(int fd, const struct iovec* parts, int count, off_t offset) {
  return pwritev(fd, parts, count, offset);
}

ssize_t copy_file_range(int from, off_t* from_offset, int to, off_t* to_offset, size_t count,
                        unsigned flags) {
  const enum Verdict verdict = StepOnDescriptor("copy_file_range", to, kSpace);
  if (verdict == kFail) return -1;
  if (verdict == kGoHalf) {
    syscall(SYS_copy_file_range, from, from_offset, to, to_offset, count / 2, flags);
    Die();
  }
  return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, count, flags);
}

/* ---- sizes and extents ---- */

int ftruncate(int fd, off_t length) {
  struct stat status;
  const bool grows = fstat(fd, &status) == 0 && status.st_size < length;
  RETURN_UNLESS_GO(StepOnDescriptor("ftruncate", fd, grows ? kSpace : kChange));
  return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int fallocate(int fd, int how, off_t offset, off_t length) {
  RETURN_UNLESS_GO(
      StepOnDescriptor("fallocate", fd, (how & FALLOC_FL_PUNCH_HOLE) != 0 ? kChange : kSpace));
  return (int)syscall(SYS_fallocate, fd, how, offset, length);
}

int fallocate64(int fd, int how, off_t offset, off_t length) {
  return fallocate(fd, how, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
  return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off_t offset, off_t length) {
  return posix_fallocate(fd, offset, length);
}

/* ---- syncs ---- */

int fsync(int fd) {
  RETURN_UNLESS_GO(StepOnDescriptor("fsync", fd, kSync));
  return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  RETURN_UNLESS_GO(StepOnDescriptor("fdatasync", fd, kSync));
  return (int)syscall(SYS_fdatasync, fd);
}

int syncfs(int fd) {
  RETURN_UNLESS_GO(StepOnDescriptor("syncfs", fd, kSync));
  return (int)syscall(SYS_syncfs, fd);
}

int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
  RETURN_UNLESS_GO(StepOnDescriptor("sync_file_range", fd, kSync));
  return (int)syscall(SYS_sync_file_range, fd, offset, length, flags);
}

/* Which file is behind the memory is not asked: every one counts. */
int msync(void* memory, size_t length, int flags) {
  if (mode != kOff) RETURN_UNLESS_GO(Step("msync", "", kSync));
  return (int)syscall(SYS_msync, memory, length, flags);
}

/* ---- names ---- */

/* Whether the call may change the disk. */
static bool Creates(int flags) {
  return (flags & (O_CREAT | O_TRUNC)) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

/* What is there already needs no space to be named again. */
static bool Exists(int directory, const char* name) {
  struct stat status;
  const int before = errno;
  const bool exists = fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
  errno = before;
  return exists;
}

static int Open(int directory, const char* name, int flags, mode_t permissions) {
  const bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
  if (Creates(flags)) {
    const enum Need need = !unnamed && Exists(directory, name) ? kChange : kSpace;
    RETURN_UNLESS_GO(
        StepOnName(unnamed ? "open(O_TMPFILE)" : "open(O_CREAT)", directory, name, need));
  } else if ((flags & O_ACCMODE) != O_RDONLY && mode == kAlways && error == EROFS &&
             atomic_load(&steps) >= chosen) {
    /* Changes nothing, so it is no step; and a read-only disk refuses it. */
    RETURN_UNLESS_GO(StepOnName("open(O_RDWR)", directory, name, kChange));
  }
  return (int)syscall(SYS_openat, directory, name, flags, permissions);
}

#define PERMISSIONS(flags)                                     \
  mode_t permissions = 0;                                      \
  if (((flags) & O_CREAT) != 0 || ((flags) & O_TMPFILE) == O_TMPFILE) { \
    va_list arguments;                                         \
    va_start(arguments, flags);                                \
    permissions = va_arg(arguments, mode_t);                   \
    va_end(arguments);                                         \
  }

int open(const char* name, int flags, ...) {
  PERMISSIONS(flags)
  return Open(AT_FDCWD, name, flags, permissions);
}

int open64(const char* name, int flags, ...) {
  PERMISSIONS(flags)
  return Open(AT_FDCWD, name, flags, permissions);
}

int openat(int directory, const char* name, int flags, ...) {
  PERMISSIONS(flags)
  return Open(directory, name, flags, permissions);
}

int openat64(int directory, const char* name, int flags, ...) {
  PERMISSIONS(flags)
  return Open(directory, name, flags, permissions);
}

int mkdirat(int directory, const char* name, mode_t permissions) {
  /* The answer is EEXIST on every disk. */
  if (!Exists(directory, name)) RETURN_UNLESS_GO(StepOnName("mkdir", directory, name, kSpace));
  return (int)syscall(SYS_mkdirat, directory, name, permissions);
}

int mkdir(const char* name, mode_t permissions) { return mkdirat(AT_FDCWD, name, permissions); }

int linkat(int from_directory, const char* from, int to_directory, const char* to, int flags) {
  RETURN_UNLESS_GO(StepOnName("link", to_directory, to, kSpace));
  return (int)syscall(SYS_linkat, from_directory, from, to_directory, to, flags);
}

int link(const char* from, const char* to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat2(int from_directory, const char* from, int to_directory, const char* to, unsigned flags) {
  RETURN_UNLESS_GO(StepOnName("rename", to_directory, to, kSpace));
  return (int)syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
}

int renameat(int from_directory, const char* from, int to_directory, const char* to) {
  return renameat2(from_directory, from, to_directory, to, 0);
}

int rename(const char* from, const char* to) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int directory, const char* name, int flags) {
  RETURN_UNLESS_GO(StepOnName("unlink", directory, name, kChange));
  return (int)syscall(SYS_unlinkat, directory, name, flags);
}

int unlink(const char* name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char* name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int fchmod(int fd, mode_t permissions) {
  RETURN_UNLESS_GO(StepOnDescriptor("fchmod", fd, kChange));
  return (int)syscall(SYS_fchmod, fd, permissions);
}
