// A filesystem over a real store and a scripted source, for tests with and without a mount.
#ifndef OCIFS_TESTS_FS_WORLD_H_
#define OCIFS_TESTS_FS_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "fs/filesystem.h"
#include "store/pull_through.h"
#include "store/store.h"
#include "tests/harness/scripted_source.h"
#include "tests/harness/tar_writer.h"
#include "tests/harness/temp_dir.h"

namespace ocifs::fs::testing {

using harness::ScriptedSource;
using harness::TarFields;
using harness::TarWriter;
using Call = ScriptedSource::Call;

// Waits for something asynchronous; false when it has not happened within `limit`.
inline bool Eventually(const std::function<bool()>& condition,
                       std::chrono::milliseconds limit = std::chrono::seconds(20)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

template <typename T>
T Must(store::Result<T> result, const char* what = "a call that must work") {
  if (!result) {
    ADD_FAILURE() << what << ": " << store::ErrorCodeName(result.error().code) << ": "
                  << result.error().message;
    std::abort();
  }
  return std::move(*result);
}

inline store::Reference Ref(std::string_view text) { return Must(store::Reference::Parse(text)); }

// "greeting" with a text, "dir/inner", "link" to it; enough for most tests.
inline std::string SmallTar(std::string_view greeting = "hello\n") {
  TarWriter tar;
  tar.File("greeting", greeting).Directory("dir/").File("dir/inner", "inside\n");
  tar.Symlink("link", "dir/inner").End();
  return tar.bytes();
}

// Deterministic bytes that do not repeat.
inline std::string Noise(size_t size, uint64_t seed = 1) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (char& c : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    c = static_cast<char>(state);
  }
  return bytes;
}

class RecordingNotifier : public KernelNotifier {
 public:
  void InvalidateEntry(InodeNumber parent, std::string name) override {
    store::MutexLock lock(mutex_);
    entries_.emplace_back(parent.value(), std::move(name));
  }
  void InvalidateInode(InodeNumber inode) override {
    store::MutexLock lock(mutex_);
    inodes_.push_back(inode.value());
  }
  std::vector<std::pair<uint64_t, std::string>> entries() const {
    store::MutexLock lock(mutex_);
    return entries_;
  }
  std::vector<uint64_t> inodes() const {
    store::MutexLock lock(mutex_);
    return inodes_;
  }

 private:
  mutable store::Mutex mutex_;
  std::vector<std::pair<uint64_t, std::string>> entries_ OCIFS_GUARDED_BY(mutex_);
  std::vector<uint64_t> inodes_ OCIFS_GUARDED_BY(mutex_);
};

class CollectingSink : public DirectorySink {
 public:
  explicit CollectingSink(size_t capacity = SIZE_MAX, bool attributes = false)
      : capacity_(capacity), attributes_(attributes) {}
  struct Entry {
    std::string name;
    uint64_t cookie = 0;
    uint64_t inode = 0;
    store::NodeType type = store::NodeType::kRegular;
    bool has_attributes = false;
  };
  bool wants_attributes() const override { return attributes_; }
  bool Add(const DirectoryEntry& entry) override {
    if (entries.size() >= capacity_) return false;
    entries.push_back({std::string(entry.name), entry.cookie, entry.inode, entry.type,
                       entry.lookup.has_value() && entry.lookup->attributes.has_value()});
    return true;
  }
  std::vector<Entry> entries;

 private:
  const size_t capacity_;
  const bool attributes_;
};

// Everything below a mount, without the mount. Options may be changed before Start.
class World {
 public:
  World() {
    // What a test sees shall depend on what it does, not on the clock.
    pull_options.platform = store::Platform::Host();
    pull_options.negative_ttl = std::chrono::hours(1);
    pull_options.tag_list_ttl = std::chrono::hours(1);
    pull_options.now = [this] { return clock.load(); };
    fs_options.slots.group_delay = std::chrono::milliseconds(1);
  }
  ~World() { StopAll(); }

  void Start() {
    store = Must(store::Store::Open(directory / "store"), "opening the store");
    pull = std::make_unique<store::PullThrough>(*store, source, pull_options);
    fs = Must(Filesystem::Create(*pull, fs_options), "creating the filesystem");
    fs->SetNotifier(&notifier);
  }
  void StopAll() {
    if (pull != nullptr) (void)pull->Flush({});
    fs.reset();
    pull.reset();
    store.reset();
  }
  // The daemon's next life, on the same store.
  void Restart() {
    StopAll();
    Start();
  }

  static store::RequestContext Never() {
    store::RequestContext context;
    context.wait = store::RequestContext::Wait::kNever;
    return context;
  }

  store::Result<LookupReply> LookupAt(InodeNumber parent, std::string_view name,
                                      const store::RequestContext& context = {}) {
    return fs->Lookup(parent, name, context);
  }
  // Walks a path from the mount point; the error code, or kNotFound for a negative answer.
  store::Result<Attributes> Walk(std::string_view path) {
    Attributes at = Must(fs->GetAttributes(InodeNumber::MountPoint(), {})).attributes;
    while (!path.empty()) {
      const std::string_view name = path.substr(0, path.find('/'));
      path.remove_prefix(std::min(path.size(), name.size() + 1));
      auto reply = fs->Lookup(at.inode, name, {});
      if (!reply) return store::Fail(reply.error());
      if (!reply->attributes) {
        return store::Fail(store::ErrorCode::kNotFound, "no " + std::string(name));
      }
      at = *reply->attributes;
    }
    return at;
  }
  InodeNumber InodeOf(std::string_view path) { return Must(Walk(path), "walking").inode; }
  store::ErrorCode ErrorOf(std::string_view path) {
    auto found = Walk(path);
    if (found) {
      ADD_FAILURE() << path << " exists";
      return store::ErrorCode::kInternal;
    }
    return found.error().code;
  }
  bool Exists(std::string_view path) { return Walk(path).has_value(); }

  store::Result<std::vector<std::string>> NamesIn(InodeNumber inode) {
    CollectingSink sink;
    OCIFS_RETURN_IF_ERROR(fs->ReadDirectory(inode, 0, sink, {}));
    std::vector<std::string> names;
    for (const auto& entry : sink.entries) {
      if (entry.name != "." && entry.name != "..") names.push_back(entry.name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::vector<std::string> Names(std::string_view path) {
    return Must(NamesIn(InodeOf(path)), "listing");
  }
  store::Result<std::string> ReadAll(InodeNumber inode) {
    OCIFS_ASSIGN_OR_RETURN(const AttributeReply reply, fs->GetAttributes(inode, {}));
    std::string content(reply.attributes.node.size + 10, '?');
    OCIFS_ASSIGN_OR_RETURN(const size_t count,
                           fs->Read(inode, 0, std::as_writable_bytes(std::span(content)), {}));
    content.resize(count);
    return content;
  }
  std::string Read(std::string_view path) { return Must(ReadAll(InodeOf(path)), "reading"); }
  std::optional<std::string> Xattr(std::string_view path, std::string_view name) {
    return Must(fs->GetXattr(InodeOf(path), name, {}), "getxattr");
  }

  harness::ScriptedSource source;
  ocifs::testing::TempDir directory;
  std::atomic<int64_t> clock{1'750'000'000};
  store::PullThrough::Options pull_options;
  Filesystem::Options fs_options;
  RecordingNotifier notifier;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<store::PullThrough> pull;
  std::unique_ptr<Filesystem> fs;
};

}  // namespace ocifs::fs::testing

#endif  // OCIFS_TESTS_FS_WORLD_H_
