#include "store/store_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "store/crash_marker.h"
#include "store/log.h"
#include "store/rebuild.h"
#include "store/staged_file.h"
#include "store/text.h"

namespace ocifs::store {
namespace {

constexpr std::string_view kFormat = "ocifs store\nversion 2\n";

struct RemoteFilesystem {
  uint64_t magic;
  const char* name;
};
// statfs(2), f_type. LMDB needs memory maps and locks that all users of the file share.
constexpr std::array<RemoteFilesystem, 8> kRemoteFilesystems = {{{0x6969, "NFS"},
                                                                 {0xFF534D42, "CIFS"},
                                                                 {0xFE534D42, "SMB2"},
                                                                 {0x517B, "SMB"},
                                                                 {0x01021997, "9p"},
                                                                 {0x00C36400, "Ceph"},
                                                                 {0x5346414F, "AFS"},
                                                                 {0x65735546, "FUSE"}}};

std::unexpected<Error> Unusable(const std::string& root, const std::string& reason) {
  return Fail(ErrorCode::kInvalid, "store " + root + ": " + reason);
}

Result<void> MakeDirectories(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      return Fail(ErrorFromErrno(errno, "creating directory " + part));
    }
    if (slash == std::string::npos) return {};
  }
}

// Writes the format file under its final name only when it is whole.
Result<void> Initialise(int fd) {
  OCIFS_ASSIGN_OR_RETURN(StagedFile file, StagedFile::Create(fd));
  OCIFS_RETURN_IF_ERROR(file.Append(AsBytes(kFormat)));
  OCIFS_RETURN_IF_ERROR(file.Publish("format"));
  return SyncDirectory(fd, "the store");
}

Result<void> CheckFormat(int fd, const std::string& root) {
  Result<UniqueFd> format = OpenAt(fd, "format", O_RDONLY);
  if (!format) {
    OCIFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(fd));
    const bool empty = std::all_of(names.begin(), names.end(), [](const std::string& name) {
      // A format file that another process is about to name, or could not; the top of an ext4.
      return name.starts_with(StagedFile::kLeftoverPrefix) || name == "lost+found";
    });
    // Made by another process since we looked?
    if (!empty) format = OpenAt(fd, "format", O_RDONLY);
    if (!empty && !format) {
      return Unusable(root, "the directory is not empty and holds no store; give an empty one");
    }
  }
  if (!format) {
    if (fchmod(fd, 0700) != 0) return Fail(ErrorFromErrno(errno, "chmod of " + root));
    return Initialise(fd);
  }
  std::array<char, 256> text;
  const ssize_t count = read(format->get(), text.data(), text.size());
  if (count < 0) return Fail(ErrorFromErrno(errno, "reading " + root + "/format"));
  const std::string_view found(text.data(), static_cast<size_t>(count));
  if (found != kFormat) {
    return Unusable(root, "its format is '" + EscapeForDisplay(found.substr(0, 60)) +
                              "', this ocifs knows 'ocifs store, version 2'; use the ocifs that "
                              "made it, or another directory");
  }
  struct stat status;
  if (fstat(fd, &status) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  if ((status.st_mode & 077) != 0) {
    return Unusable(root, "other users can enter it; run: chmod 700 " + root);
  }
  return {};
}

// An index whose file is not larger is read through when the store is opened: that takes
// milliseconds, and a lost entry or an older state shows in no other way. Larger ones are for fsck.
constexpr uint64_t kVerifiedBytes = uint64_t{16} << 20;

Result<void> CheckOwner(int fd, const std::string& root) {
  struct stat status;
  if (fstat(fd, &status) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  if (status.st_uid != geteuid()) {
    return Unusable(root, "it belongs to uid " + std::to_string(status.st_uid) + ", not to uid " +
                              std::to_string(geteuid()) + "; give another directory with --store");
  }
  return {};
}

Result<void> CheckFilesystem(int fd, const std::string& root) {
  struct statfs filesystem;
  if (fstatfs(fd, &filesystem) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  for (const RemoteFilesystem& remote : kRemoteFilesystems) {
    if (static_cast<uint64_t>(filesystem.f_type) == remote.magic) {
      return Unusable(
          root, std::string("it lies on ") + remote.name + "; a store needs a local filesystem");
    }
  }
  return {};
}

Result<void> LockForUse(StoreDirectory& directory, const std::string& root) {
  const int flags = directory.read_only ? O_RDONLY : O_RDWR | O_CREAT;
  OCIFS_ASSIGN_OR_RETURN(directory.lock, OpenAt(directory.root.get(), "lock", flags, 0600));
  // A lock against others needs a descriptor for writing (fcntl(2)); there is nothing to tidy up on
  // a read-only filesystem anyway.
  if (!directory.read_only) {
    OCIFS_ASSIGN_OR_RETURN(directory.alone, SetLock(directory.lock.get(), F_WRLCK, kInUseByte));
    if (directory.alone) return {};
  }
  // Others have it open; one of them may be alone while it tidies up.
  constexpr int kTries = 6000;
  for (int tries = 0; tries < kTries; ++tries) {
    OCIFS_ASSIGN_OR_RETURN(const bool shared, SetLock(directory.lock.get(), F_RDLCK, kInUseByte));
    if (shared) return {};
    usleep(10'000);
  }
  return Unusable(root, "another process has had it for itself for a minute; try again later");
}

// What is known to be wrong with the index before it is opened; empty: nothing.
Result<std::string> DamageFoundBefore(const StoreDirectory& directory) {
  OCIFS_ASSIGN_OR_RETURN(const UniqueFd index, OpenDirectory(directory.root.get(), "index", 0700));
  struct stat status;
  if (fstatat(index.get(), kCrashMarkerName, &status, AT_SYMLINK_NOFOLLOW) == 0) {
    std::string reason = "a process found it damaged, or died while it looked at it";
    const Result<UniqueFd> marker = OpenAt(index.get(), kCrashMarkerName, O_RDONLY);
    std::array<char, 200> text;
    const ssize_t count = marker ? read(marker->get(), text.data(), text.size()) : 0;
    if (count > 0) {
      reason += ": " + EscapeForDisplay({text.data(), static_cast<size_t>(count)});
    }
    return reason;
  }
  const bool exists = fstatat(index.get(), "data.mdb", &status, AT_SYMLINK_NOFOLLOW) == 0;
  if (exists && (!S_ISREG(status.st_mode) || status.st_size > 0)) return std::string();
  // Who is alone and finds nothing at all makes a new store. Who is not should have found what the
  // others have open.
  OCIFS_ASSIGN_OR_RETURN(const bool holds_content, HoldsContent(directory.root.get()));
  if (!directory.alone || exists || holds_content) return std::string("data.mdb is gone");
  return std::string();
}

// Opens the index; an error with the code kIndexDamaged says why it has to be made anew.
Result<void> OpenIndex(StoreDirectory& directory, const std::string& path) {
  OCIFS_ASSIGN_OR_RETURN(const std::string damage, DamageFoundBefore(directory));
  if (!damage.empty()) return Fail(ErrorCode::kIndexDamaged, damage);
  Index::Options options;
  options.read_only = directory.read_only;
  OCIFS_ASSIGN_OR_RETURN(directory.index, Index::Open(path, options));
  if (!directory.alone || directory.index->FileBytes() > kVerifiedBytes) return {};
  return directory.index->Verify();
}

Result<void> OpenOrRebuildIndex(StoreDirectory& directory, const std::string& root,
                                IndexRebuild rebuild) {
  const std::string path = root + "/index";
  std::string why = "as asked for";
  if (rebuild == IndexRebuild::kAlways) {
    if (!directory.alone) {
      return Unusable(root,
                      "other processes have it open, and its index cannot be made anew; end "
                      "them, mounts among them, and try again");
    }
  } else {
    Result<void> opened = OpenIndex(directory, path);
    if (opened || opened.error().code != ErrorCode::kIndexDamaged) return opened;
    directory.index.reset();
    why = std::move(opened).error().message;
  }
  if (!directory.alone) {
    return Fail(ErrorCode::kIndexDamaged,
                "store " + root + ": its index is damaged (" + why + "); " +
                    (directory.read_only
                         ? "it cannot be made anew on a read-only filesystem"
                         : "end all processes that have the store open, mounts among them: the "
                           "next start makes it anew"));
  }
  OCIFS_RETURN_IF_ERROR(RebuildIndex(directory.root.get(), root, why));
  OCIFS_ASSIGN_OR_RETURN(directory.index, Index::Open(path));
  return {};
}

}  // namespace

Result<bool> SetLock(int fd, short type, off_t byte, LockWait wait) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  while (fcntl(fd, wait == LockWait::kAlways ? F_OFD_SETLKW : F_OFD_SETLK, &lock) != 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EACCES) return false;
    return Fail(ErrorFromErrno(errno, "locking the store"));
  }
  return true;
}

std::optional<Digest> ManifestOfTree(std::string_view name) {
  if (!name.ends_with(kTreeSuffix)) return std::nullopt;
  const std::string hex(name.substr(0, name.size() - kTreeSuffix.size()));
  const Result<Digest> digest = Digest::Parse((hex.size() == 64 ? "sha256:" : "sha512:") + hex);
  return digest ? std::optional(*digest) : std::nullopt;
}

Result<void> StoreDirectory::Share() {
  if (!alone) return {};
  // From exclusive to shared in one step.
  OCIFS_ASSIGN_OR_RETURN(const bool shared, SetLock(lock.get(), F_RDLCK, kInUseByte));
  if (!shared) return Fail(ErrorCode::kInternal, "a lock could not be weakened");
  alone = false;
  return {};
}

Result<StoreDirectory> OpenStoreDirectory(const std::string& root, IndexRebuild rebuild) {
  if (root.empty() || root.front() != '/') {
    return Unusable(root, "write the directory as an absolute path");
  }
  StoreDirectory directory;
  OCIFS_RETURN_IF_ERROR(MakeDirectories(root));
  // The last component may be a link: where the store lies is the owner's choice.
  const int fd = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrorFromErrno(errno, "opening store " + root));
  directory.root.reset(fd);
  OCIFS_RETURN_IF_ERROR(CheckOwner(fd, root));
  OCIFS_RETURN_IF_ERROR(CheckFilesystem(fd, root));
  OCIFS_RETURN_IF_ERROR(CheckFormat(fd, root));
  struct statvfs space;
  if (fstatvfs(fd, &space) != 0) return Fail(ErrorFromErrno(errno, "reading " + root));
  directory.read_only = (space.f_flag & ST_RDONLY) != 0;
  if (!directory.read_only) {
    // A filesystem that gave up after an error does not always say so.
    const Result<UniqueFd> writable = OpenAt(fd, "lock", O_RDWR | O_CREAT, 0600);
    directory.read_only = !writable && writable.error().code == ErrorCode::kNoSpace &&
                          faccessat(fd, "lock", F_OK, 0) == 0;
  }
  OCIFS_RETURN_IF_ERROR(LockForUse(directory, root));
  if (directory.alone) OCIFS_RETURN_IF_ERROR(FinishRebuild(fd));
  OCIFS_ASSIGN_OR_RETURN(directory.trees, OpenDirectory(fd, "trees", 0700));
  OCIFS_ASSIGN_OR_RETURN(directory.packs, OpenDirectory(fd, "packs", 0700));
  OCIFS_ASSIGN_OR_RETURN(directory.blobs, OpenDirectory(fd, "blobs", 0700));
  OCIFS_RETURN_IF_ERROR(OpenOrRebuildIndex(directory, root, rebuild));
  if (directory.alone) {
    OCIFS_ASSIGN_OR_RETURN(const UniqueFd index, OpenDirectory(fd, "index", 0700));
    OCIFS_RETURN_IF_ERROR(StagedFile::RemoveLeftovers(index.get()));
    // What stops it (a full disk, damage that has left its marker) does not stop readers.
    if (Result<void> compacted = directory.index->CompactJournal(); !compacted) {
      Log(LogLevel::kWarning, compacted.error().message);
    }
  }
  return directory;
}

}  // namespace ocifs::store
