#!/usr/bin/env python3
"""Takes the power away at random moments and looks at what a disk may then hold.

    power_loss.py [--images N] [--seed N] [--image K] [--self-test] [--directory DIR] [--keep]

ocifs works on an ext4 on a loop device on a disk that writes down what is done to it
(tests/harness/block_recorder.h), and each time ocifs-ctl has said that something is durable, a mark
goes into the same log. Images are made from the log: for a moment, all that was written before the
last flush, and a random part of what was written since, where a write may be torn at 4 KiB. Each is
mounted, which replays ext4's journal, and must pass world.check_store; acknowledged is what was marked
before the moment. Seed and number of an image repeat it alone.

The recorder takes a write that came before a flush as kept by it, also if it was still under way
when the flush was asked for, which a disk need not do. The same write is lost in images of earlier
moments.

First the recorder itself is tested: files that are written and renamed without a sync must be lost
in every image, and with syncs in none.
"""

import argparse
import concurrent.futures
import contextlib
import mmap
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

import world
from harness import until
from world import Loss

RECORDER = world.BIN / "block-recorder"
WRITE, FLUSH, MARK = 1, 2, 3
HEADER = struct.Struct("<IIQ")
BLOCK = 4096
DISK_BYTES = 96 << 20
# Of ext4, while it is recorded. The second writes names of files without waiting for their content.
ORDERS = ("data=ordered", "data=writeback")
TOOLS = ("losetup", "mkfs.ext4", "mount", "umount")


def requirements():
    """What a machine must have for recording, as world.missing_requirements takes it."""
    return [(str(RECORDER), RECORDER.exists()), ("root", os.geteuid() == 0),
            ("/dev/fuse", os.path.exists("/dev/fuse")),
            ("loop devices", os.path.exists("/dev/loop-control")),
            *((tool, shutil.which(tool)) for tool in TOOLS)]


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def filesystem(file, where, options="defaults"):
    """The ext4 in `file`, mounted at `where` by way of a loop device."""
    where.mkdir(exist_ok=True)
    device = command("losetup", "--find", "--show", file)
    try:
        command("mount", "-t", "ext4", "-o", options, device, where)
        try:
            yield where
        finally:
            # A program that another thread is just starting has our files open until it runs.
            until(lambda: subprocess.run(["umount", where], capture_output=True).returncode == 0,
                  f"{where} can be unmounted")
    finally:
        command("losetup", "--detach", device)


class RecordingDisk:
    """A block-recorder that runs, with an ext4 on its disk, `file`; ended, its log is whole."""

    def __init__(self, directory):
        directory.mkdir()
        served, self.log = directory / "served", directory / "log"
        served.mkdir()
        self.served, self.file = served, served / "disk"
        self.process = subprocess.Popen([RECORDER, served, str(DISK_BYTES), self.log],
                                        stdout=subprocess.PIPE, text=True)
        try:
            if self.process.stdout.readline() != "ready\n":
                raise RuntimeError("the recorder does not start")
            command("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E",
                    "nodiscard,lazy_itable_init=0,lazy_journal_init=0", self.file)
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        # The loop device lets go of its file a moment after it was told to.
        until(lambda: subprocess.run(["umount", self.served], capture_output=True).returncode == 0
              or self.process.poll() is not None, "the recorder can be unmounted")
        self.process.wait(20)
        self.process.stdout.close()

    def mark(self, text):
        """Notes in the log that `text` has been promised by now."""
        self.tell("mark", text)

    def fail(self, text=""):
        """What the disk is to refuse: see block_recorder_main.cc."""
        self.tell("fault", text or " ")

    def tell(self, name, text):
        fd = os.open(self.served / name, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


class Recording:
    """What was recorded while `work` ran on a filesystem of a recording disk."""

    def __init__(self, directory, work, options):
        with RecordingDisk(directory) as disk:
            with filesystem(disk.file, directory / "mnt", options) as root:
                command("sync", "-f", root)
                disk.mark("begin")
                work(root, disk.mark)
                disk.mark("end")
        self.records = list(self.read(disk.log))
        # Positions: moments lie between the first and the last.
        self.marks = [i for i, (kind, _, _) in enumerate(self.records) if kind == MARK]
        self.begin, self.end = self.marks[0], self.marks[-1]

    @staticmethod
    def read(log):
        data = log.read_bytes()
        at = 0
        while at < len(data):
            kind, length, offset = HEADER.unpack_from(data, at)
            at += HEADER.size
            yield kind, offset, data[at:at + length]
            at += length

    def counts(self):
        kinds = [kind for kind, _, _ in self.records[self.marks[0]:self.marks[-1]]]
        return f"{kinds.count(WRITE)} writes, {kinds.count(FLUSH)} flushes"


class Image:
    """What the disk of a recording may hold if the power goes at `moment`, a position in its log."""

    def __init__(self, recording, moment, rng):
        self.moment = moment
        self.flush = max((i for i in range(moment) if recording.records[i][0] == FLUSH), default=0)
        self.marks = [data.decode() for kind, _, data in recording.records[:moment] if kind == MARK]
        # How much of what was not flushed is kept, from nothing to all.
        share = rng.choice((0, 0.1, 0.5, 0.9, 1))
        self.writes = []
        for kind, offset, data in recording.records[self.flush:moment]:
            if kind != WRITE:
                continue
            if rng.random() < 0.2:  # torn
                self.writes += [(offset + at, data[at:at + BLOCK]) for at in range(0, len(data), BLOCK)
                                if rng.random() < 0.5]
            elif rng.random() < share:
                self.writes.append((offset, data))


class Disks:
    """Makes image files; cheaply if they are asked for in the order of their moments."""

    def __init__(self, recording, directory):
        self.recording = recording
        directory.mkdir()
        self.file = open(directory / "base", "w+b")
        self.file.truncate(DISK_BYTES)
        self.base = mmap.mmap(self.file.fileno(), DISK_BYTES)
        self.done = 0  # records that `base` has

    def make(self, image, path):
        if image.flush < self.done:
            self.base[:] = bytes(DISK_BYTES)
            self.done = 0
        for kind, offset, data in self.recording.records[self.done:image.flush]:
            if kind == WRITE:
                self.base[offset:offset + len(data)] = data
        self.done = image.flush
        with open(path, "w+b") as file:
            # Only what is not zero, so that images of a nearly empty disk stay small.
            file.truncate(DISK_BYTES)
            step = 1 << 16
            for at in range(0, DISK_BYTES, step):
                piece = self.base[at:at + step]
                if piece.count(0) != len(piece):
                    file.seek(at)
                    file.write(piece)
            for offset, data in image.writes:
                file.seek(offset)
                file.write(data)

    def close(self):
        self.base.close()
        self.file.close()


def try_images(recording, directory, numbers, seed, check, keep=False):
    """Makes an image for each number and gives check(root, marks) its filesystem; returns what failed,
    {number: text}, in order. The same seed and number make the same image."""
    images = []
    for number in numbers:
        rng = random.Random(f"{seed}.{number}")
        images.append((number, Image(recording, rng.randint(recording.begin + 1, recording.end), rng)))
    images.sort(key=lambda item: item[1].moment)
    disks = Disks(recording, directory / "images")
    local, lock, slots = threading.local(), threading.Lock(), iter(range(1 << 20))
    failures = {}
    ready = threading.Semaphore(2 * (os.cpu_count() or 1))  # as many image files as lie about

    def attempt(number, image, path):
        if not hasattr(local, "slot"):
            with lock:
                local.slot = next(slots)
        try:
            with filesystem(path, directory / f"mnt-{local.slot}") as root:
                check(root, image.marks)
        except (Loss, RuntimeError, AssertionError) as loss:
            failures[number] = (f"image {number} of seed {seed} (record {image.moment}, flushed "
                                f"{image.flush}, marks {image.marks[1:]}): {loss}")
            if keep:
                path.rename(directory / f"failed-{number}.img")
        finally:
            path.unlink(missing_ok=True)
            ready.release()

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        running = []
        for number, image in images:
            ready.acquire()
            path = directory / f"image-{number}"
            disks.make(image, path)
            running.append(pool.submit(attempt, number, image, path))
        for future in running:
            future.result()
    disks.close()
    shutil.rmtree(directory / "images")
    return dict(sorted(failures.items()))


# --------------------------------------------------------------------------------------- self test


def write_and_rename(with_sync):
    """The usual way to replace a file, with what makes it durable or without."""
    def work(root, mark):
        for i in range(30):
            with open(root / "new", "wb") as file:
                file.write(world.noise(20_000, f"file{i}"))
                if with_sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(root / "new", root / f"file{i}")
            if with_sync:
                directory = os.open(root, os.O_RDONLY)
                os.fsync(directory)
                os.close(directory)
            elif i == 4:
                os.sync()  # as the kernel does every now and then
            mark(str(i))
    return work


def check_files(root, marks):
    for i in marks[1:]:
        if i == "end":
            continue
        path = root / f"file{i}"
        if not path.exists() or path.read_bytes() != world.noise(20_000, f"file{i}"):
            raise Loss(f"file{i} is lost")


def self_test(directory, seed, images=12):
    """Whether the recorder and its images find what is to be found, and nothing else."""
    for with_sync in (False, True):
        recording = Recording(directory / f"self-test-{with_sync}", write_and_rename(with_sync), ORDERS[0])
        if not with_sync:
            recording.begin = recording.marks[15]  # from when on there is something to lose
        lost = try_images(recording, directory, range(images), seed, check_files)
        print(f"self-test, {'with' if with_sync else 'without'} sync: files lost in {len(lost)} of "
              f"{images} images ({recording.counts()})")
        if with_sync and lost:
            raise Loss("files that were synced are lost: " + next(iter(lost.values())))
        if not with_sync and len(lost) < images:
            raise Loss("files that were never synced survive")


# ------------------------------------------------------------------------------------------- ocifs


def steps():
    """What is done to the store, one after the other: arguments of ocifs-ctl, and the packages that
    are acknowledged once it has succeeded, and those that are not from the moment it begins."""
    yield ("prefetch", "base:1"), ("base:1",), ()
    yield ("prefetch", "many:1", "image:1"), ("many:1", "image:1"), ()
    if "rm" in world.commands():
        yield ("rm", "many:1"), (), ("many:1",)
    if "gc" in world.commands():
        yield ("gc",), (), ()
    if "rm" in world.commands():
        yield ("prefetch", "many:1"), ("many:1",), ()
    if "fsck" in world.commands():
        yield ("fsck", "--repair"), (), ()
        yield ("fsck", "--rebuild-index"), (), ()


def use_store(source):
    def work(root, mark):
        store = world.Store(root / "store", source)
        for arguments, brought, dropped in steps():
            for name in dropped:
                mark(f"-{name}")
            command_name, *rest = (world.PACKAGES[word].reference if word in world.PACKAGES else word
                                   for word in arguments)
            done = store.ctl(command_name, *rest)
            if done.code != 0:
                raise Loss(f"{' '.join(arguments)} fails: {done}")
            for name in brought:
                mark(f"+{name}")
    return work


def check_store(source):
    # Raw blobs may go where content is kept: whoever collects garbage decides.
    blobs = "gc" not in world.commands()

    def check(root, marks):
        acknowledged = set()
        for mark in marks:
            if mark[0] == "+":
                acknowledged.add(mark[1:])
            elif mark[0] == "-":
                acknowledged.discard(mark[1:])
        world.check_store(world.Store(root / "store", source), sorted(acknowledged), blobs=blobs)
    return check


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--image", type=int, help="only this one")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--self-test", action="store_true", help="nothing else")
    parser.add_argument("--directory", help="where images are made (default: in memory)")
    parser.add_argument("--keep", action="store_true", help="keep images that failed")
    options = parser.parse_args()
    world.leave_if_missing(world.missing_requirements(*requirements()))

    start = time.monotonic()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-power.", dir=world.work_directory(options.directory)))
    try:
        self_test(directory, options.seed)
        if options.self_test:
            return
        source = world.Source(directory)
        numbers = range(options.images) if options.image is None else [options.image]
        failures = {}
        for i, order in enumerate(ORDERS):
            mine = [number for number in numbers if number % len(ORDERS) == i]
            if not mine:
                continue
            recording = Recording(directory / f"recording-{i}", use_store(source), order)
            print(f"{order}: {recording.counts()} recorded, {len(mine)} images", flush=True)
            failures |= try_images(recording, directory, mine, options.seed, check_store(source), options.keep)
            shutil.rmtree(directory / f"recording-{i}")
        for failure in failures.values():
            print(f"FAILED {failure}")
        print(f"{len(numbers)} images of seed {options.seed} tried, {len(failures)} failures, "
              f"{time.monotonic() - start:.0f} s")
        sys.exit(1 if failures else 0)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
