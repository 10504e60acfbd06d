#!/usr/bin/env python3
"""Real disks that are full, out of inodes, read-only, failing or slow, under a store."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import power_loss
import world
from power_loss import command, filesystem
from world import PACKAGES

class Case(unittest.TestCase):
    """A store with base:1 on a disk of its own; what is read has no mount in between."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-disk.", dir=world.work_directory(None)))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.source = world.Source(self.directory)
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def ext4(self, size, *options):
        """An ext4 of `size` bytes, mounted."""
        image = self.directory / "disk"
        with open(image, "wb") as file:
            file.truncate(size)
        command("mkfs.ext4", "-q", "-F", "-m", "0", *options, image)
        return self.stack.enter_context(filesystem(image, self.directory / "mnt"))

    def tmpfs(self, options):
        where = self.directory / "mnt"
        where.mkdir()
        command("mount", "-t", "tmpfs", "-o", options, "tmpfs", where)
        self.stack.callback(command, "umount", where)
        return where

    def store_with_base(self, root):
        """A new store, in place of the one before."""
        self.root, self.store = root, world.Store(root / "store", self.source)
        self.store.restore(self.directory / "nothing")
        world.demand("prefetch", self.store.prefetch(["base:1"]))
        if "pin" in world.commands():  # else it may go to make room
            world.demand("pin", self.store.ctl("pin", PACKAGES["base:1"].reference))

    @contextlib.contextmanager
    def full(self, leave):
        """The space of the disk is taken, but for `leave` bytes."""
        free = os.statvfs(self.root)
        ballast = self.root / "ballast"
        try:
            with open(ballast, "wb") as file, contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
                while leave == 0:
                    os.write(file.fileno(), bytes(4096))
            yield
        finally:
            ballast.unlink()

    def assert_reads(self, names):
        world.check_dump(self.store.dump(names), names)

    def assert_nothing_is_kept(self):
        """Readers notice nothing; what promises to keep says that it cannot."""
        self.assert_reads(["base:1"])
        self.assert_reads(["many:1", "image:1", "base:1"])
        done = self.store.prefetch(["many:1"])
        self.assertEqual(done.code, 1, done)
        self.assert_reads(["base:1"])

    def assert_well(self):
        world.check_store(self.store, ["base:1"], blobs="pin" not in world.commands())


class FullDisk(Case):
    def test_ext4(self):
        """Row D01: no space for content."""
        root = self.ext4(64 << 20)
        for leave in (0, 64 << 10, 1 << 20, 3 << 20):
            with self.subTest(leave=leave):
                self.store_with_base(root)
                with self.full(leave):
                    self.assert_nothing_is_kept()
                self.assert_well()

    def test_tmpfs(self):
        """Row D02: LMDB makes EIO of it, as the write is short."""
        root = self.tmpfs("size=64m,mode=700")
        for leave in (0, 8 << 10, 1 << 20):
            with self.subTest(leave=leave):
                self.store_with_base(root)
                with self.full(leave):
                    self.assert_nothing_is_kept()
                self.assert_well()

    def test_inodes(self):
        """Row D04: no inode left; there is space."""
        self.store_with_base(self.ext4(64 << 20, "-N", "64"))
        ballast = self.root / "ballast"
        ballast.mkdir()
        with contextlib.suppress(OSError):
            for i in range(100):
                (ballast / str(i)).touch()
        try:
            self.assert_nothing_is_kept()
        finally:
            shutil.rmtree(ballast)
        self.assert_well()


class ReadOnlyDisk(Case):
    def test_remount(self):
        """Row D06: content that is there reads, and so does what cannot be kept."""
        self.store_with_base(self.ext4(64 << 20))
        command("mount", "-o", "remount,ro", self.root)
        self.assert_nothing_is_kept()
        command("mount", "-o", "remount,rw", self.root)
        self.assert_well()


class FailingDisk(Case):
    """On a disk that can be told to fail."""

    def setUp(self):
        super().setUp()
        self.disk = self.stack.enter_context(power_loss.RecordingDisk(self.directory / "recorder"))
        self.mounted = self.stack.enter_context(contextlib.ExitStack())
        self.mount()
        self.store_with_base(self.directory / "mnt")

    def mount(self):
        """Nothing of the disk is in the kernel's memory afterwards; ext4 has repaired itself."""
        self.mounted.close()
        done = subprocess.run(["e2fsck", "-p", self.disk.file], capture_output=True, text=True)
        self.assertIn(done.returncode, (0, 1), done.stdout + done.stderr)
        self.mounted.enter_context(filesystem(self.disk.file, self.directory / "mnt"))

    @contextlib.contextmanager
    def failing(self, fault):
        self.mount()
        self.disk.fail(fault)
        try:
            yield
        finally:
            self.disk.fail()
            self.mount()

    def extents(self, path):
        """Where the file lies on the disk: "OFFSET+LENGTH" of each extent."""
        lines = command("filefrag", "-v", f"-b{power_loss.BLOCK}", path).splitlines()
        found = [re.match(r" *\d+: +\d+\.\. +\d+: +(\d+)\.\. +\d+: +(\d+):", line) for line in lines]
        return [f"{int(match[1]) * power_loss.BLOCK}+{int(match[2]) * power_loss.BLOCK}"
                for match in found if match]

    def content(self, folder):
        """Extents of all files with content below a folder of the store."""
        found = [extent for path in sorted((self.store.directory / folder).rglob("*")) if path.is_file()
                 for extent in self.extents(path)]
        self.assertTrue(found)
        return found

    def test_reading(self):
        """Row D07: a sector that cannot be read is as good as none: the content comes from the raw blob,
        or from the source, or is an error; it is never other bytes."""
        packs, blobs = self.content("packs"), self.content("blobs")
        offline = self.source.no_source
        for what, extents, alone in (("packs", packs, True), ("packs and blobs", packs + blobs, False)):
            with self.subTest(what=what):
                with self.failing(" ".join(extents)):
                    done = self.store.dump(["base:1"], config=offline)
                    world.check_dump(done, ["base:1"] if alone else [], ["base:1"])
                    if not alone:
                        self.assertEqual(done.code, 1, done)
                    self.assert_reads(["base:1"])
                self.assert_well()

    def test_writing(self):
        """Row D08: nothing is promised by a disk that takes no writes, or does not keep them."""
        for fault in ("writes", "flushes", "writes flushes"):
            with self.subTest(fault=fault):
                with self.failing(fault):
                    self.assertEqual(self.store.prefetch(["many:1"]).code, 1)
                    self.assert_reads(["base:1"])
                world.check_dump(self.store.dump(["base:1"], config=self.source.no_source), ["base:1"])
        self.assert_well()


if __name__ == "__main__":
    world.leave_if_missing(world.missing_requirements(
        *power_loss.requirements(), *((tool, shutil.which(tool)) for tool in ("e2fsck", "filefrag"))))
    unittest.main(verbosity=2)
