"""What the end-to-end tests stand on: registries, mounts, reference unpackings, comparisons.

Run a test file directly, or through ctest. Needs root, docker-registry, skopeo, umoci and GNU tar.
OCIFS_BIN names the directory of the binaries (build/release/bin unless set). Nothing here sleeps for
a fixed time: what has to be waited for is asked again until it is so, or a deadline passes.
"""

import contextlib
import errno
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import oci

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("OCIFS_BIN", ROOT / "build" / "release" / "bin"))
OCIFS = BIN / "ocifs"
CTL = BIN / "ocifs-ctl"
TOOLS = ["docker-registry", "skopeo", "umoci", "tar", "zstd", "getfattr", "fusermount3", "setpriv"]
SKIP = 77  # ctest: not run
READY_SECONDS = 20
TEST_SECONDS = int(os.environ.get("OCIFS_TEST_SECONDS", "300"))


def until(condition, what, seconds=READY_SECONDS, every=0.005):
    """Asks `condition` until it is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(every)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def errno_name(error):
    name = errno.errorcode.get(error.errno, str(error.errno))
    return "EOPNOTSUPP" if name == "ENOTSUP" else name  # two names of one number


# -------------------------------------------------------------------------------------- registries


class Registry:
    """Debian's docker-registry on a free loopback port; every request is in its access log.

    `data` is the directory of its storage, its own unless given: several registries may serve one
    storage, of which one is written to. `settings` are sections of its configuration besides, or
    over, the usual ones. `context` is what a client needs to speak TLS with it."""

    # Who logged in stands between the dashes.
    LINE = re.compile(r'^\S+ - \S+ \[[^\]]*\] "(\S+) (\S+) [^"]*" (\d+) ')

    def __init__(self, directory, *, data=None, settings=None, context=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data = pathlib.Path(data or self.directory / "data")
        self.settings = settings or {}
        self.context = context
        self.log = self.directory / "log"
        self.port = None
        self.process = None
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def client(self):
        return oci.Client(self.address, self.context)

    def configuration(self, port):
        sections = {
            "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"}}
        for name, section in self.settings.items():
            sections.setdefault(name, {}).update(section)
        return sections

    def push(self, repository, tag, item):
        return self.client().push(repository, tag, item)

    def start(self):
        """Starts it; the second time at the port of the first."""
        for _ in range(10):
            port = self.port or free_port()
            config = self.directory / "config.yml"
            config.write_text(json.dumps(self.configuration(port)))
            with open(self.log, "ab") as log:
                process = subprocess.Popen(["docker-registry", "serve", config], stdout=log,
                                           stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

            def answers():
                if process.poll() is not None:
                    return True
                try:
                    # One that wants a login answers 401. Markers are not counted as requests.
                    client = oci.Client(f"127.0.0.1:{port}", self.context)
                    client.request("GET", "/v2/?marker=start", expect=(200, 401))
                    return True
                except OSError:
                    return False

            until(answers, "docker-registry answers")
            if process.poll() is None:
                self.process, self.port = process, port
                return
        raise AssertionError(f"docker-registry does not start:\n{self.log.read_text()}")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def requests(self):
        """(method, path, status) of all requests so far. A line is written when its request is over:
        a marker request, answered and logged, stands behind all that came before it."""
        marker = f"/v2/?marker={time.monotonic_ns()}"
        self.client().request("GET", marker, expect=(200, 401))

        def lines():
            text = self.log.read_text(errors="replace")
            return text if marker in text else None

        found = []
        for line in until(lines, "the registry's log has the marker").splitlines():
            match = self.LINE.match(line)
            if match and "?marker=" not in match[2]:
                found.append((match[1], match[2], int(match[3])))
        return found


class FaultRegistry:
    """A registry in this process that serves artifacts from memory and lies on demand.

    `fault` is asked before every answer: fault(path, artifact bytes) -> None to answer honestly, or
    a Fault. `gate`, if set, is waited for before a blob is sent.
    """

    class Fault:
        def __init__(self, status=200, body=b"", length=None, headers=None, cut=None):
            self.status, self.body, self.headers, self.cut = status, body, headers or {}, cut
            self.length = len(body) if length is None else length

    def __init__(self):
        self.documents, self.blobs, self.tags = {}, {}, {}
        self.fault = lambda path, data: None
        self.gate = None
        self.requests = []
        self.lock = threading.Lock()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                with contextlib.suppress(ConnectionError):
                    registry.answer(self)

            do_HEAD = do_GET

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02},
                                       daemon=True)
        self.thread.start()

    def stop(self):
        if self.gate:
            self.gate.set()
        self.server.shutdown()
        self.server.server_close()

    def push(self, repository, tag, item):
        for document in item.documents():
            self.documents[document.digest] = (document.media_type, document.manifest)
        self.blobs.update(item.all_blobs())
        self.tags.setdefault(repository, {})[tag] = item.digest
        return item.digest

    def answer(self, handler):
        path = handler.path.partition("?")[0]
        with self.lock:
            self.requests.append((handler.command, path))
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", path)
        kind, data, media_type = None, b"", "application/json"
        if path == "/v2/":
            kind, data = "ping", b"{}"
        elif match:
            repository, kind, name = match.groups()
            if kind == "manifests":
                digest = self.tags.get(repository, {}).get(name, name)
                media_type, data = self.documents.get(digest, (None, None))
            elif kind == "blobs":
                media_type, data = "application/octet-stream", self.blobs.get(name)
            else:
                tags = self.tags.get(repository)
                data = None if tags is None else json.dumps(
                    {"name": repository, "tags": sorted(tags)}).encode()
        fault = self.fault(path, data)
        if fault is None and (kind is None or data is None):
            code = {"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN"}.get(kind, "NAME_UNKNOWN")
            fault = self.Fault(404, json.dumps({"errors": [{"code": code, "message": "unknown"}]})
                               .encode(), headers={"Content-Type": "application/json"})
        if fault is None:
            fault = self.Fault(200, data, headers={"Content-Type": media_type})
        if kind == "blobs" and self.gate:
            self.gate.wait(60)
        handler.send_response(fault.status)
        for key, value in fault.headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(fault.length))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        body = fault.body if fault.cut is None else fault.body[:fault.cut]
        handler.wfile.write(body)
        if len(body) != fault.length:
            handler.wfile.flush()
            handler.close_connection = True


# ------------------------------------------------------------------------------------------ mounts


def toml_string(text):
    return json.dumps(str(text))


def mount_type(path):
    """The type of the filesystem mounted at `path`, without touching it; None if there is none."""
    kind = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split()
            where = words[4].encode().decode("unicode_escape")
            if where == str(path):
                kind = words[words.index("-") + 1]
    return kind


class Mount:
    """A running ocifs. Ends cleanly with stop(), or the test fails."""

    def __init__(self, directory, *, config="", store=None, options=None, arguments=(), command=None,
                 environment=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.mountpoint = self.directory / "mnt"
        self.mountpoint.mkdir(exist_ok=True)
        self.store = pathlib.Path(store or self.directory / "store")
        self.config = self.directory / "ocifs.toml"
        self.config.write_text(config)
        self.log_path = self.directory / "ocifs.log"
        self.environment = dict(os.environ, HOME=str(self.directory), XDG_RUNTIME_DIR=str(self.directory),
                                **(environment or {}))
        self.command = [*(command or []), OCIFS, "-f", "--store", self.store, "--config", self.config,
                        *(["-o", options] if options else []), *arguments, self.mountpoint]
        self.process = None
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.environment, start_new_session=True)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"ocifs ended with {self.process.returncode}:\n{self.log()}")
            return mount_type(self.mountpoint)

        try:
            until(ready, "ocifs is mounted")
        except AssertionError:
            self.kill()
            raise

    def path(self, *parts):
        return os.path.join(self.mountpoint, *parts)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def pid(self):
        """The process that serves: the child of the one that was started, if it has one."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = children.read_text().split()
        return int(pids[0]) if pids else self.process.pid

    def peak_memory(self):
        """VmHWM of the serving process, in bytes."""
        status = pathlib.Path(f"/proc/{self.pid()}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    def stop(self, with_signal=None):
        """Unmounts (or sends a signal) and demands a clean end."""
        if self.process is None:
            return
        problem = None
        if with_signal:
            self.process.send_signal(with_signal)
        else:
            done = subprocess.run(["umount", self.mountpoint], capture_output=True, text=True)
            if done.returncode != 0:
                problem = f"umount: {done.stderr}"
        try:
            code = self.process.wait(20 if problem is None else 0.1)
        except subprocess.TimeoutExpired:
            problem = problem or "ocifs does not end within 20 s"
        else:
            if code != 0:
                problem = problem or f"ocifs ended with {code}"
        if problem is None and mount_type(self.mountpoint):
            problem = "ocifs ended and left its mount behind"
        self.kill()
        if problem:
            raise AssertionError(f"{problem}\n{self.log()}")

    def kill(self):
        """Gets rid of it, whatever state it is in."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        if mount_type(self.mountpoint):
            subprocess.run(["umount", "-l", self.mountpoint], capture_output=True, check=False)

    def restart(self):
        self.stop()
        self.start()


class Ctl:
    """ocifs-ctl with the store of a test."""

    def __init__(self, store, config=None, environment=None):
        self.store, self.config = store, config
        self.environment = dict(os.environ, **(environment or {}))

    def run(self, command, *arguments, check=True, text_input=None):
        words = [CTL, command, "--store", self.store]
        if self.config:
            words += ["--config", self.config]
        done = subprocess.run([*words, *arguments], capture_output=True, text=True, timeout=120,
                              input=text_input, env=self.environment)
        if check and done.returncode != 0:
            raise AssertionError(f"{done.args}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def states(self):
        """What the store holds: reference -> known, partial or complete."""
        return {item["reference"]: item["state"] for item in self.json("ls")}

    def json(self, command, *arguments):
        return json.loads(self.run(command, "--json", *arguments).stdout)


# ---------------------------------------------------------------------------------- reference trees


def umoci_unpack(item, directory):
    """The root filesystem of an image, as umoci unpacks it."""
    directory = pathlib.Path(directory)
    oci.write_layout(directory / "layout", {"image": item})
    run("umoci", "unpack", "--image", f"{directory / 'layout'}:image", directory / "bundle")
    shutil.rmtree(directory / "layout")
    return directory / "bundle" / "rootfs"


def tar_unpack(archives, files, directory):
    """The union of plain tars, as GNU tar unpacks them, and of files by name."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True)
    for archive in archives:
        run("tar", "--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*",
            "--delay-directory-restore", "-xpf", "-", "-C", directory, input=archive)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done.stdout


# --------------------------------------------------------------------------------------- comparing


class Node:
    """What one name stands for. `group` is the first name of the same inode."""

    FIELDS = ("type", "mode", "uid", "gid", "size", "mtime_ns", "rdev", "nlink", "target", "xattrs", "group")

    def __init__(self, path, status):
        self.type = stat.S_IFMT(status.st_mode)
        self.mode = stat.S_IMODE(status.st_mode)
        self.uid, self.gid, self.mtime_ns = status.st_uid, status.st_gid, status.st_mtime_ns
        self.size = status.st_size if not stat.S_ISDIR(status.st_mode) else None
        special = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        self.rdev = (os.major(status.st_rdev), os.minor(status.st_rdev)) if special else None
        self.nlink = status.st_nlink
        self.target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
        self.xattrs = visible_xattrs(path)
        self.inode = (status.st_dev, status.st_ino)
        self.group = None


def visible_xattrs(path):
    """Attributes of users; those of overlayfs and our own are no part of a package."""
    return {name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if name.startswith("user.") and not name.startswith(("user.overlay.", "user.oci."))}


def scan(root):
    """All nodes below a directory by path (bytes); b"" is the directory itself."""
    root = os.fsencode(root)
    nodes, inodes = {b"": Node(root, os.lstat(root))}, {}
    todo = [b""]
    while todo:
        folder = todo.pop()
        subdirectories = 0
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if path in nodes:
                    raise AssertionError(f"{path!r} is listed twice")
                status = os.lstat(entry.path)
                if entry.inode() != status.st_ino:
                    raise AssertionError(f"{path!r}: readdir says inode {entry.inode()}, stat {status.st_ino}")
                node = nodes[path] = Node(entry.path, status)
                if entry.is_dir(follow_symlinks=False) != stat.S_ISDIR(status.st_mode):
                    raise AssertionError(f"{path!r}: readdir and stat disagree on its type")
                if stat.S_ISDIR(status.st_mode):
                    subdirectories += 1
                    todo.append(path)
                else:
                    inodes.setdefault(node.inode, []).append(path)
        if nodes[folder].nlink != 2 + subdirectories:
            raise AssertionError(f"{folder!r}: nlink {nodes[folder].nlink}, subdirectories {subdirectories}")
    for paths in inodes.values():
        for path in paths:
            nodes[path].group = min(paths)
    return nodes


def same_content(a, b):
    with open(a, "rb", buffering=0) as first, open(b, "rb", buffering=0) as second:
        while True:
            left, right = first.read(1 << 20), second.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True


def enter(mounted):
    """Opens a package by looking into it. Until somebody does, its root has attributes of no meaning,
    so that listing a thousand tags does not pull a thousand packages. (test_images.py demands that
    they are true from then on.)"""
    os.listdir(mounted)
    until(lambda: os.lstat(mounted).st_nlink >= 2, "the root of the package has its attributes", 5)
    return mounted


def differences(mounted, reference, *, implicit=(), limit=25, content=True):
    """How a mounted tree differs from the reference, as lines; empty if it does not.

    `implicit` names directories (bytes; b"" the root) that no layer describes: their times are the
    unpacker's own."""
    enter(mounted)
    have, want = scan(mounted), scan(reference)
    found = [f"missing: {path!r}" for path in sorted(want.keys() - have.keys())]
    found += [f"too much: {path!r}" for path in sorted(have.keys() - want.keys())]
    for path in sorted(want.keys() & have.keys()):
        a, b = have[path], want[path]
        for field in Node.FIELDS:
            if path in implicit and field == "mtime_ns":
                continue
            if getattr(a, field) != getattr(b, field):
                found.append(f"{path!r}: {field} is {getattr(a, field)!r}, not {getattr(b, field)!r}")
        if content and a.type == b.type == stat.S_IFREG and a.size == b.size and b.group == path:
            if not same_content(os.path.join(os.fsencode(mounted), path),
                                os.path.join(os.fsencode(reference), path)):
                found.append(f"{path!r}: content differs")
    if len(found) > limit:
        found[limit:] = [f"... and {len(found) - limit} more"]
    return found


def tar_digest(directory):
    """SHA-256 of what `tar -cf -` makes of a directory."""
    tar = subprocess.Popen(
        ["tar", "-C", directory, "--sort=name", "--numeric-owner", "--format=posix",
         "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "-cf", "-", "."],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    digest = hashlib.sha256()
    while piece := tar.stdout.read(1 << 20):
        digest.update(piece)
    complaint = tar.stderr.read().decode(errors="replace")
    tar.stdout.close()
    tar.stderr.close()
    if tar.wait() != 0 or complaint:
        raise AssertionError(f"tar of {directory}: {tar.returncode}\n{complaint}")
    return digest.hexdigest()


def give_times(reference, mounted, paths):
    """Gives directories of the reference the times that the mounted ones have."""
    for path in paths:
        status = os.lstat(os.path.join(os.fsencode(mounted), path))
        os.utime(os.path.join(os.fsencode(reference), path), ns=(status.st_mtime_ns,) * 2)


# ------------------------------------------------------------------------------------------- tests


def keep_logs(directory):
    """Removes all of a test's files but logs and configurations, and says where they are."""
    for folder, folders, names in os.walk(directory, topdown=False):
        for name in names:
            if name != "log" and not name.endswith((".log", ".toml", ".yml", ".conf")):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))
        for name in folders:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(folder, name))
    print(f"logs of the failed test: {directory}", file=sys.stderr, flush=True)


class TestCase(unittest.TestCase):
    """Has a directory of its own, and takes down what it started, even a mount that hangs."""

    maxDiff = None

    def run(self, result=None):
        """As unittest does; of a test that failed, what was logged and configured stays."""
        result = result if result is not None else self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        self.directory = None
        super().run(result)
        if self.directory and len(result.failures) + len(result.errors) > before:
            keep_logs(self.directory)
        elif self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
        return result

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-e2e."))
        self.mounts = []
        # A hung mount makes processes that no signal reaches; killing the daemon frees them.
        watchdog = threading.Timer(TEST_SECONDS, self.rescue)
        watchdog.daemon = True
        watchdog.start()
        self.addCleanup(watchdog.cancel)

    def rescue(self):
        print(f"{self.id()}: still running after {TEST_SECONDS} s, its mounts are killed",
              file=sys.stderr, flush=True)
        for mount in self.mounts:
            process = mount.process
            if process:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def registry(self, **more):
        registry = Registry(self.directory / f"registry-{len(os.listdir(self.directory))}", **more)
        self.addCleanup(registry.stop)
        return registry

    def fault_registry(self):
        registry = FaultRegistry()
        self.addCleanup(registry.stop)
        return registry

    def mount(self, name="mount", **more):
        mount = Mount(self.directory / name, **more)
        self.mounts.append(mount)
        self.addCleanup(self.end, mount)
        return mount

    def end(self, mount):
        """Clean end if the test passed; just an end if something else already failed."""
        try:
            mount.stop()
        finally:
            mount.kill()

    def layout(self, name, artifacts):
        return oci.write_layout(self.directory / name, artifacts)

    def ctl(self, mount):
        return Ctl(mount.store, mount.config, mount.environment)

    def assert_same_tree(self, mounted, reference, implicit=()):
        found = differences(mounted, reference, implicit=implicit)
        if found:
            self.fail("the mounted tree is not the reference:\n  " + "\n  ".join(found))

    def assert_same_tar(self, mounted, reference, implicit=()):
        give_times(reference, mounted, implicit)
        self.assertEqual(tar_digest(mounted), tar_digest(reference), "tar -cf - differs")

    def assert_errno(self, names, call, *arguments):
        """`call` fails with one of these errno names; returns the name and how long it took."""
        names = (names,) if isinstance(names, str) else tuple(names)
        start = time.monotonic()
        try:
            call(*arguments)
        except OSError as error:
            self.assertIn(errno_name(error), names, error)
            return errno_name(error), time.monotonic() - start
        self.fail(f"succeeded instead of failing with {' or '.join(names)}")
        return None


def missing_requirements(*tools):
    missing = []
    if os.geteuid() != 0:
        missing.append("root")
    missing += [tool for tool in [*TOOLS, *tools] if not shutil.which(tool)]
    missing += [str(path) for path in (OCIFS, CTL) if not os.access(path, os.X_OK)]
    if not os.path.exists("/dev/fuse"):
        missing.append("/dev/fuse")
    return missing


def main(*tools):
    """Runs the tests of the calling file, which needs `tools` besides the usual ones. What the machine
    lacks is said: exit code 77, or failure if OCIFS_TEST_NO_SKIP is set."""
    missing = missing_requirements(*tools)
    if missing:
        print(f"cannot run here, missing: {', '.join(missing)}", file=sys.stderr)
        sys.exit(1 if os.environ.get("OCIFS_TEST_NO_SKIP") else SKIP)
    unittest.main(module="__main__", verbosity=2)
