#!/usr/bin/env python3
"""Checks who includes whom: tests/lint/includes.py ROOT | --self-test

    tools --> fs --> store <-- fetch <-- tools        (tests may include everything)

Reads every #include line of the sources. Three rules:
  1. a quoted include names an existing file from the root and follows an arrow;
  2. a header of a module includes nothing but our own headers, the standard library and POSIX;
  3. a third-party library is included by the one module that wraps it.
"""

import pathlib
import re
import sys
import tempfile
import unittest

ARROWS = {
    "store": {"store"},
    "fetch": {"store", "fetch"},
    "fs": {"store", "fs"},
    "tools": {"store", "fetch", "fs", "tools"},
    "tests": {"store", "fetch", "fs", "tools", "tests"},
}

# First part of a third-party include, and the module whose business the library is; where two need
# one, both.
HOMES = {
    "fuse3": "fs", "fuse.h": "fs", "fuse_lowlevel.h": "fs",
    "curl": "fetch",
    "lmdb.h": "store", "archive.h": "store", "archive_entry.h": "store", "isa-l": "store",
    "isa-l.h": "store", "zstd.h": "store", "zlib.h": "store", "rapidjson": "store",
    "CLI": "tools", "spdlog": "tools", "toml++": "fetch or tools",
}

STANDARD = set("""
algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono
cinttypes climits clocale cmath codecvt compare complex concepts condition_variable coroutine csetjmp
csignal cstdarg cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype deque exception
execution expected filesystem format forward_list fstream functional future generator initializer_list
iomanip ios iosfwd iostream istream iterator latch limits list locale map mdspan memory
memory_resource mutex new numbers numeric optional ostream print queue random ranges ratio regex
scoped_allocator semaphore set shared_mutex source_location span spanstream sstream stack stacktrace
stdexcept stdfloat stop_token streambuf string string_view strstream syncstream system_error thread
tuple type_traits typeindex typeinfo unordered_map unordered_set utility valarray variant vector
version
""".split())

POSIX = set("""
aio.h arpa/inet.h assert.h complex.h cpio.h ctype.h dirent.h dlfcn.h errno.h fcntl.h fenv.h float.h
fmtmsg.h fnmatch.h ftw.h glob.h grp.h iconv.h inttypes.h iso646.h langinfo.h libgen.h limits.h
locale.h math.h monetary.h mqueue.h ndbm.h net/if.h netdb.h netinet/in.h netinet/tcp.h nl_types.h
poll.h pthread.h pwd.h regex.h sched.h search.h semaphore.h setjmp.h signal.h spawn.h stdarg.h
stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h strings.h stropts.h sys/ipc.h sys/mman.h
sys/msg.h sys/resource.h sys/select.h sys/sem.h sys/shm.h sys/socket.h sys/stat.h sys/statvfs.h
sys/time.h sys/times.h sys/types.h sys/uio.h sys/un.h sys/utsname.h sys/wait.h syslog.h tar.h
termios.h tgmath.h time.h trace.h ulimit.h unistd.h utime.h utmpx.h wchar.h wctype.h wordexp.h
""".split())

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
ANY_INCLUDE = re.compile(r"^\s*#\s*include\b.*$", re.MULTILINE)


def check_file(root, path):
    """Complaints about one file, given relative to root."""
    module = path.parts[0]
    text = (root / path).read_text(encoding="utf-8")
    for line in ANY_INCLUDE.findall(text):
        if not INCLUDE.match(line):
            yield f"{path}: not understood: {line.strip()}"
    for quoted, angled in INCLUDE.findall(text):
        if quoted:
            target = quoted.split("/")[0]
            if target not in ARROWS:
                yield f'{path}: "{quoted}" does not begin with a module; includes are written from the root'
            elif target not in ARROWS[module]:
                yield f'{path}: "{quoted}": {module} must not include {target}'
            elif not (root / quoted).is_file():
                yield f'{path}: "{quoted}": no such file'
            continue
        first = angled.split("/")[0]
        if first in ARROWS:
            yield f"{path}: <{angled}>: our own headers are included with quotes"
        if module == "tests" or angled in STANDARD or angled in POSIX:
            continue
        if path.suffix == ".h":
            yield f"{path}: <{angled}>: a header may include the standard library and POSIX only"
        home = HOMES.get(first)
        if home is not None and module not in home.split(" or "):
            yield f"{path}: <{angled}>: that library is the business of {home}"


def sources(root):
    for module in ARROWS:
        for path in sorted((root / module).rglob("*")):
            if path.suffix in (".h", ".cc"):
                yield path.relative_to(root)


def check(root):
    complaints, files = [], 0
    for path in sources(root):
        files += 1
        complaints += check_file(root, path)
    if files == 0:
        complaints.append(f"{root}: no sources found")
    return complaints, files


class SelfTest(unittest.TestCase):
    """The check itself: each rule is broken once, and must be reported."""

    def complaints(self, path, text):
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            for name in ("store/a.h", "fetch/a.h", "fs/a.h", "tools/a.h", "tests/a.h"):
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text("#include <vector>\n")
            (root / path).write_text(text)
            return check(root)[0]

    def test_every_arrow(self):
        for source, allowed in ARROWS.items():
            for target in ARROWS:
                found = self.complaints(f"{source}/b.cc", f'#include "{target}/a.h"\n')
                with self.subTest(source=source, target=target):
                    self.assertEqual(len(found), 0 if target in allowed else 1, found)

    def test_wrong_arrow_is_named(self):
        found = self.complaints("fs/b.cc", '#include <string>\n  # include "fetch/a.h"\n')
        self.assertEqual(found, ['fs/b.cc: "fetch/a.h": fs must not include fetch'])

    def test_third_party_in_header(self):
        self.assertEqual(self.complaints("store/b.cc", "#include <lmdb.h>\n"), [])
        self.assertEqual(len(self.complaints("store/b.h", "#include <lmdb.h>\n")), 1)
        self.assertEqual(self.complaints("tests/b.h", "#include <gtest/gtest.h>\n"), [])

    def test_library_outside_its_module(self):
        self.assertEqual(len(self.complaints("tools/b.cc", "#include <curl/curl.h>\n")), 1)
        self.assertEqual(self.complaints("fetch/b.cc", "#include <curl/curl.h>\n"), [])
        for module, found in {"fetch": 0, "tools": 0, "fs": 1, "store": 1}.items():
            complaints = self.complaints(f"{module}/b.cc", "#include <toml++/toml.h>\n")
            self.assertEqual(len(complaints), found, complaints)

    def test_relative_missing_and_odd(self):
        self.assertEqual(len(self.complaints("store/b.cc", '#include "a.h"\n')), 1)
        self.assertEqual(len(self.complaints("store/b.cc", '#include "store/none.h"\n')), 1)
        self.assertEqual(len(self.complaints("store/b.cc", "#include <store/a.h>\n")), 1)
        self.assertEqual(len(self.complaints("store/b.cc", "#include HEADER\n")), 1)

    def test_standard_and_posix(self):
        self.assertEqual(self.complaints("fs/b.h", "#include <expected>\n#include <sys/stat.h>\n"), [])


def main():
    if sys.argv[1:] == ["--self-test"]:
        unittest.main(argv=sys.argv[:1])
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    complaints, files = check(pathlib.Path(sys.argv[1]))
    if complaints:
        sys.exit("\n".join(complaints))
    print(f"{files} files follow the arrows")


if __name__ == "__main__":
    main()
