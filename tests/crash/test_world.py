#!/usr/bin/env python3
"""The crash tests' own tools: the shim counts and stops what it says, and the checks notice."""

import contextlib
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import types
import unittest

import power_loss
import world
from crash_steps import SHIM
from world import Loss, PACKAGES

# Changes a directory in all ways once; an error is the end of one way and not of the others. Two of
# the calls change nothing and are not steps: opening for reading, and making what is there already.
PROGRAM = """
import contextlib, os, sys
root = sys.argv[1]
with contextlib.suppress(OSError): os.mkdir(root + "/d")
with contextlib.suppress(OSError): os.mkdir(root + "/d")
fd = os.open(root + "/d/a", os.O_RDWR | os.O_CREAT, 0o600)
os.close(os.open(root + "/d/a", os.O_RDONLY))
for call in (lambda: os.write(fd, b"x" * 100), lambda: os.pwrite(fd, b"y" * 10, 100),
             lambda: os.writev(fd, [b"z" * 4, b"w" * 4]), lambda: os.fsync(fd), lambda: os.fdatasync(fd),
             lambda: os.ftruncate(fd, 50), lambda: os.posix_fallocate(fd, 0, 60),
             lambda: os.rename(root + "/d/a", root + "/b"), lambda: os.link(root + "/b", root + "/c"),
             lambda: os.unlink("c", dir_fd=os.open(root, os.O_RDONLY)), lambda: os.rmdir(root + "/d")):
    with contextlib.suppress(OSError):
        call()
print("done")
"""
CALLS = ["mkdir", "open(O_CREAT)", "write", "pwrite", "writev", "fsync", "fdatasync", "ftruncate", "fallocate",
         "rename", "link", "unlink", "unlink"]


class InDirectory(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-crash."))
        self.addCleanup(shutil.rmtree, self.directory, True)


class Shim(InDirectory):
    def run_program(self, mode, at=0, error=0):
        self.root, self.log = self.directory / "root", self.directory / "log"
        shutil.rmtree(self.root, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.root.mkdir()
        environment = {**os.environ, "LD_PRELOAD": str(SHIM), "OCIFS_TEST_STEP_ROOT": str(self.root),
                       "OCIFS_TEST_STEP_MODE": mode, "OCIFS_TEST_STEP_AT": str(at),
                       "OCIFS_TEST_STEP_ERRNO": str(error), "OCIFS_TEST_STEP_LOG": str(self.log)}
        return subprocess.run([sys.executable, "-B", "-S", "-c", PROGRAM, self.root], env=environment,
                              stdout=subprocess.PIPE, text=True)

    def lines(self):
        return [line.split(" ") for line in self.log.read_text().splitlines()]

    def failed(self):
        """Names of the calls that were made to fail."""
        names = {line[0]: line[1] for line in self.lines() if line[1] != "fails"}
        return [names[line[0]] for line in self.lines() if line[1] == "fails"]

    def test_counts_calls_on_the_directory_in_order(self):
        self.assertEqual(self.run_program("count").stdout, "done\n")
        self.assertEqual([line[1] for line in self.lines()], CALLS)
        self.assertEqual([line[0] for line in self.lines()], [str(i + 1) for i in range(len(CALLS))])
        self.assertEqual([line[2] for line in self.lines()][:3],
                         [f"{self.root}/d", f"{self.root}/d/a", f"{self.root}/d/a"])
        self.assertEqual((self.root / "b").stat().st_size, 60)

    def test_kills_before_the_call(self):
        for number, there in ((CALLS.index("rename") + 1, ["d/a"]), (CALLS.index("link") + 1, ["b"]),
                              (CALLS.index("unlink") + 1, ["b", "c"])):
            self.assertEqual(self.run_program("kill", number).returncode, -signal.SIGKILL)
            files = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())
            self.assertEqual(files, there)

    def test_kills_within_a_write(self):
        for call, size in (("write", 50), ("pwrite", 105), ("writev", 104)):
            self.assertEqual(self.run_program("half", CALLS.index(call) + 1).returncode, -signal.SIGKILL)
            # writev goes on where write ended, over what pwrite wrote.
            self.assertEqual((self.root / "d" / "a").read_bytes()[:size][-4:], {
                "write": b"xxxx", "pwrite": b"yyyy", "writev": b"zzzz"}[call])
            self.assertEqual((self.root / "d" / "a").stat().st_size, 110 if call == "writev" else size)
        self.run_program("half", CALLS.index("rename") + 1)
        self.assertTrue((self.root / "d" / "a").exists())

    def test_fails_one_call(self):
        for call in ("write", "fsync", "rename", "link"):
            self.assertEqual(self.run_program("once", CALLS.index(call) + 1, errno.EIO).stdout, "done\n")
            self.assertEqual(self.failed(), [call])

    def test_fails_the_next_call_that_can_fail_so(self):
        """A full disk syncs, and a read-only one has nothing to sync."""
        self.run_program("once", CALLS.index("fsync") + 1, errno.ENOSPC)
        self.assertEqual(self.failed(), ["fallocate"])
        self.run_program("once", CALLS.index("fsync") + 1, errno.EROFS)
        self.assertEqual(self.failed(), ["ftruncate"])

    def test_fails_all_from_then_on(self):
        self.run_program("always", CALLS.index("pwrite") + 1, errno.ENOSPC)
        self.assertEqual(self.failed(), ["pwrite", "writev", "fallocate", "rename"] + ["link"])
        self.run_program("always", CALLS.index("pwrite") + 1, errno.EIO)
        self.assertEqual(self.failed(), CALLS[CALLS.index("pwrite"):])

    def test_leaves_other_directories_alone(self):
        environment = {**os.environ, "LD_PRELOAD": str(SHIM), "OCIFS_TEST_STEP_ROOT": "/nonexistent",
                       "OCIFS_TEST_STEP_MODE": "kill", "OCIFS_TEST_STEP_AT": "1"}
        done = subprocess.run([sys.executable, "-B", "-S", "-c", PROGRAM, self.directory], env=environment,
                              stdout=subprocess.PIPE, text=True)
        self.assertEqual(done.stdout, "done\n")


class Checks(InDirectory):
    def setUp(self):
        super().setUp()
        self.source = world.Source(self.directory)

    @contextlib.contextmanager
    def assert_loss(self, words):
        with self.assertRaises(Loss) as caught:
            yield
        self.assertIn(words, str(caught.exception))

    def full(self):
        store = world.Store(self.directory / "full", self.source)
        return store, world.Full(store)

    def test_a_store_that_is_right(self):
        store, full = self.full()
        world.check_store(store, tuple(PACKAGES), full)

    def test_an_empty_store_has_lost_what_it_acknowledged(self):
        store = world.Store(self.directory / "store", self.source)
        world.check_store(store, ())
        store.restore(self.directory / "nothing")
        with self.assert_loss("base:1"):
            world.check_store(store, ("base:1",))

    def test_bytes_that_differ(self):
        package = PACKAGES["base:1"]
        for change in (lambda lines: lines[:-1], lambda lines: [*lines, "d more"],
                       lambda lines: [lines[0], lines[1].replace(lines[1][-1], "x"), *lines[2:]]):
            text = "\n".join(["opened", f"package {package.reference}", *change(package.lines)])
            for whole, partial in ((["base:1"], []), ([], ["base:1"])):
                with self.assert_loss("reads wrong"):
                    world.check_dump(types.SimpleNamespace(out=text, err=""), whole, partial)

    def test_an_error_is_no_package(self):
        done = world.Done(1, f"opened\nerror {PACKAGES['base:1'].reference}: why\n", "")
        self.assertEqual(world.check_dump(done, [], ["base:1"]), set())
        with self.assert_loss("does not read: why"):
            world.check_dump(done, ["base:1"])

    def test_files_too_many_and_too_few(self):
        store, full = self.full()
        inventory = world.split_dump(store.dump([], "--inventory").out)[1]
        self.assertTrue({"packs", "trees", "blobs"} <= {path.split("/")[0] for path in inventory})
        world.check_leftovers(store, inventory)
        for name in ("trees/.staged-1", ".staged-2", f"blobs/sha256/{'0' * 64}", "packs/00000077.pack"):
            (store.directory / name).touch()
            with self.assert_loss(name):
                world.check_leftovers(store, inventory)
            (store.directory / name).unlink()
        with self.assert_loss("not there"):
            world.check_leftovers(store, inventory | {"trees/none"})
        (store.directory / "packs" / "00000078.pack").write_bytes(bytes(full.SLACK + 1))
        with self.assert_loss("bytes on the disk"):
            full.check(store)


class Images(unittest.TestCase):
    def image(self, records, moment, rng):
        return power_loss.Image(types.SimpleNamespace(records=records), moment, rng)

    def test_what_a_flush_has_kept_and_what_it_has_not(self):
        write, flush, mark = ((kind, 0, b"m") for kind in (power_loss.WRITE, power_loss.FLUSH, power_loss.MARK))
        everything = types.SimpleNamespace(choice=lambda shares: 1, random=lambda: 0.5)
        nothing = types.SimpleNamespace(choice=lambda shares: 0, random=lambda: 0.5)
        records = [write, flush, mark, write, write, mark, write, flush]
        for moment, flushed, marks, loose in ((1, 0, 0, 1), (4, 1, 1, 1), (5, 1, 1, 2), (6, 1, 2, 2), (8, 7, 2, 0)):
            image = self.image(records, moment, everything)
            self.assertEqual((image.flush, len(image.marks), len(image.writes)), (flushed, marks, loose))
            self.assertEqual(self.image(records, moment, nothing).writes, [])

    def test_a_torn_write(self):
        data = b"a" * 4096 + b"b" * 4096 + b"c"
        numbers = iter((0.1, 0.1, 0.9, 0.1))  # torn; first block, not the second, the third
        rng = types.SimpleNamespace(choice=lambda shares: 0, random=lambda: next(numbers))
        image = self.image([(power_loss.WRITE, 8192, data)], 1, rng)
        self.assertEqual(image.writes, [(8192, b"a" * 4096), (16384, b"c")])


if __name__ == "__main__":
    world.leave_if_missing(world.missing_requirements((str(SHIM), SHIM.exists())))
    unittest.main(verbosity=2)
