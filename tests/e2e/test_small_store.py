#!/usr/bin/env python3
"""A store that is smaller than what is read through it, full, or not writable: no reader notices.

OCIFS_SMALL_STORE_READS sets the number of random reads (default 300) of the working set, and
OCIFS_SMALL_STORE_MB the size of the filesystem (default 48); the working set is five times as large.
"""

import errno
import json
import os
import pathlib
import random
import subprocess
import threading
import time

import harness
import oci
from tarfiles import Tar

READS = int(os.environ.get("OCIFS_SMALL_STORE_READS", "300"))
DISK_MB = int(os.environ.get("OCIFS_SMALL_STORE_MB", "48"))
MB = 1 << 20


def package(seed, files, size):
    """A one-layer image of `files` files of about `size` random bytes; and their contents."""
    rng = random.Random(seed)
    contents = {f"d{i % 7}/f{i}": rng.randbytes(rng.randrange(size // 2, size * 3 // 2))
                for i in range(files)}
    tar = Tar()
    for name, data in sorted(contents.items()):
        tar.file(name, data)
    return oci.image([tar.bytes()]), contents


class SmallDisk(harness.TestCase):
    """A store on an ext4 of its own."""

    def disk(self, megabytes):
        image = self.directory / f"disk-{megabytes}"
        with open(image, "wb") as file:
            file.truncate(megabytes * MB)
        harness.run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image)
        point = self.directory / f"disk-{megabytes}.mnt"
        point.mkdir()
        harness.run("mount", "-o", "loop", image, point)
        self.addCleanup(subprocess.run, ["umount", "-l", point], capture_output=True, check=False)
        return point

    def read(self, mounted, name, path):
        """Past the kernel's cache: from the daemon."""
        with open(mounted.path(self.source.address, name, path), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            data = file.read()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return data

    def setUp(self):
        super().setUp()
        self.source = self.registry()

    def used(self, point):
        space = os.statvfs(point)
        return (space.f_blocks - space.f_bfree) * space.f_frsize

    def test_a_working_set_five_times_the_disk(self):
        point = self.disk(DISK_MB)
        before = self.used(point)
        limit = DISK_MB * MB * 3 // 4
        seed = int(os.environ.get("OCIFS_TEST_SEED", "1"))
        count = 20
        each = DISK_MB * 5 * MB // count
        packages = {}
        for i in range(count):
            item, contents = package(seed * 1000 + i, 24, each // 24)
            self.source.push(f"p{i}", "1", item)
            packages[f"p{i}:1"] = contents
        mounted = self.mount(store=point / "store",
                             config=f"[store]\nmax_size = {limit}\nmin_free = 1\n")
        highest = 0
        done = threading.Event()

        def watch():
            nonlocal highest
            while not done.wait(0.005):
                highest = max(highest, self.used(point) - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        rng = random.Random(seed)
        try:
            for _ in range(READS):
                name = rng.choice(sorted(packages))
                path = rng.choice(sorted(packages[name]))
                self.assertEqual(self.read(mounted, name, path), packages[name][path],
                                 f"{name}/{path}, seed {seed}")
        finally:
            done.set()
            watcher.join()
        print(f"{READS} reads of {count * each // MB} MB: at most {highest / MB:.1f} MB of "
              f"{limit / MB:.1f} MB were taken")
        self.assertLessEqual(highest, limit)
        self.assertGreater(highest, limit // 2, "the limit was never approached")
        self.assertNotIn("does not keep", mounted.log())

    def test_a_package_larger_than_the_store(self):
        """Its tree and what fits are kept; the rest comes from the stream."""
        point = self.disk(32)
        item, contents = package(7, 40, 2 * MB)
        self.source.push("large", "1", item)
        mounted = self.mount(store=point / "store", config="[store]\nmax_size = \"16MiB\"\n")
        for path in sorted(contents):
            self.assertEqual(self.read(mounted, "large:1", path), contents[path], path)
        self.assertEqual(mounted.log().count("does not keep what is pulled"), 1)
        layer = f".oci/blobs/{item.document['layers'][0]['digest']}"
        self.assertEqual(self.read(mounted, "large:1", layer), next(
            data for digest, data in item.all_blobs().items()
            if digest == item.document["layers"][0]["digest"]))
        failed = self.ctl(mounted).run("prefetch", f"{self.source.address}/large:1", check=False)
        self.assertEqual(failed.returncode, 1, "what is not kept whole is not prefetched")

    def test_a_full_disk_and_room_again(self):
        point = self.disk(32)
        items = {}
        for i in range(4):
            item, contents = package(i, 10, 100_000)
            self.source.push(f"p{i}", "1", item)
            items[f"p{i}:1"] = contents
        mounted = self.mount(store=point / "store", config="[store]\nmin_free = 1\n")
        ctl = self.ctl(mounted)
        for path, data in items["p0:1"].items():
            self.assertEqual(self.read(mounted, "p0:1", path), data)
        self.assertTrue(ctl.json("status")["writable"])
        ballast = point / "ballast"

        def fill():
            """To the last block: what the store evicts to make room is gone, too."""
            with open(ballast, "ab", buffering=0) as file:
                for size in (MB, 4096):
                    try:
                        while True:
                            file.write(bytes(size))
                    except OSError as error:
                        self.assertEqual(error.errno, errno.ENOSPC)

        fill()
        for name in ("p1:1", "p2:1", "p0:1"):
            for path, data in items[name].items():
                self.assertEqual(self.read(mounted, name, path), data, f"{name}/{path}, disk full")
                fill()
        full = ctl.run("status", "--json", check=False)
        self.assertEqual(full.returncode, 1)
        self.assertFalse(json.loads(full.stdout)["writable"])
        self.assertEqual(mounted.log().count("does not keep what is pulled"), 1, mounted.log())
        ballast.unlink()
        start = time.monotonic()
        for path, data in items["p3:1"].items():
            self.assertEqual(self.read(mounted, "p3:1", path), data)
        harness.until(lambda: ctl.states().get(f"{self.source.address}/p3:1") == "complete",
                      "what is pulled is kept again", 5)
        self.assertLess(time.monotonic() - start, 5)
        self.assertIn("keeps what is pulled again", mounted.log())

    def test_no_inodes_left(self):
        point = self.disk(32)
        item, contents = package(3, 10, 50_000)
        self.source.push("p", "1", item)
        mounted = self.mount(store=point / "store")
        crowd = point / "crowd"
        crowd.mkdir()
        with self.assertRaises(OSError):
            for i in range(1_000_000):
                (crowd / str(i)).touch()
        for path, data in contents.items():
            self.assertEqual(self.read(mounted, "p:1", path), data)

    def test_a_store_on_a_read_only_filesystem(self):
        """What it has is read; what it lacks is streamed."""
        point = self.disk(32)
        old, old_contents = package(1, 10, 50_000)
        new, new_contents = package(2, 10, 50_000)
        self.source.push("old", "1", old)
        self.source.push("new", "1", new)
        mounted = self.mount("first", store=point / "store")
        for path, data in old_contents.items():
            self.assertEqual(self.read(mounted, "old:1", path), data)
        mounted.stop()
        harness.run("mount", "-o", "remount,ro", point)
        mounted = self.mount("second", store=point / "store")
        requests = len(self.source.requests())
        for path, data in old_contents.items():
            self.assertEqual(self.read(mounted, "old:1", path), data)
        self.assertEqual(len(self.source.requests()), requests)
        for path, data in new_contents.items():
            self.assertEqual(self.read(mounted, "new:1", path), data)
        self.assertEqual(mounted.log().count("does not keep what is pulled"), 1, mounted.log())
        mounted.stop()


class Commands(harness.TestCase):
    """gc, rm, prune, pin."""

    def setUp(self):
        super().setUp()
        self.source = self.registry()
        self.contents = {}
        for i in range(4):
            item, self.contents[i] = package(i, 5, 200_000)
            self.source.push(f"p{i}", "1", item)
        self.store = self.directory / "store"
        self.control = harness.Ctl(self.store)
        self.names = [f"{self.source.address}/p{i}:1" for i in range(4)]
        self.control.run("prefetch", *self.names)

    def states(self):
        states = self.control.states()
        return [states.get(name) for name in self.names]

    def size(self):
        return sum(path.stat().st_blocks * 512 for path in pathlib.Path(self.store).rglob("*")
                   if path.is_file())

    def test_rm_frees_what_nobody_else_needs(self):
        before = self.size()
        told = self.control.run("rm", "-n", self.names[1]).stdout
        self.assertIn("would free", told)
        self.assertEqual(self.states(), ["complete"] * 4)
        self.control.run("rm", self.names[1])
        self.assertEqual(self.states(), ["complete", None, "complete", "complete"])
        self.assertLess(self.size(), before - 900_000)
        again = self.control.run("rm", self.names[1], check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("is not in the store", again.stderr)
        # None of several goes when one of them is not there.
        self.control.run("rm", self.names[0], self.names[1], check=False)
        self.assertEqual(self.states()[0], "complete")

    def test_gc_takes_raw_blobs_first_and_pins_stay(self):
        self.control.run("pin", self.names[2])
        self.assertIn(self.names[2], self.control.run("pin").stdout)
        refused = self.control.run("rm", self.names[2], check=False)
        self.assertIn("is pinned", refused.stderr)
        freed = self.control.json("gc", "--free", "1MiB")
        self.assertEqual(freed["packages"], 0)
        # The disk has room, so all that a request can do is done when it says --free.
        everything = harness.Ctl(self.store, self.directory / "tight.toml")
        (self.directory / "tight.toml").write_text("[store]\nmax_size = \"100kB\"\n")
        result = json.loads(everything.run("gc", "--json").stdout)
        self.assertEqual(result["packages"], 3)
        self.assertEqual(result["blobs"], 3)
        self.assertEqual(self.states(), ["known", "known", "complete", "known"])
        self.control.run("unpin", self.names[2])
        everything.run("gc")
        self.assertEqual(self.states(), ["known"] * 4)
        self.assertLess(self.size(), 1_000_000)
        self.control.run("prefetch", *self.names)
        self.assertEqual(self.states(), ["complete"] * 4)

    def test_prune_by_age(self):
        self.assertEqual(self.control.json("prune", "--older-than", "1h")["packages"], 0)
        self.assertEqual(self.control.json("prune", "--older-than", "0s")["packages"], 0)
        time.sleep(1.1)  # ages count in seconds
        self.assertEqual(self.control.json("prune", "-n", "--older-than", "0s")["packages"], 4)
        self.assertEqual(self.control.json("prune", "--older-than", "0s")["packages"], 4)
        self.assertEqual(self.states(), ["known"] * 4)

    def test_what_was_evicted_comes_back_to_a_mount(self):
        mounted = self.mount(store=self.store)
        path = mounted.path(self.source.address, "p0:1")
        held = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, held)
        files = {name: os.path.join(path, name) for name in self.contents[0]}
        first = min(files)
        with open(files[first], "rb") as file:
            self.assertEqual(file.read(), self.contents[0][first])
        self.control.run("rm", *self.names)
        for name, file in files.items():
            with open(file, "rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self.assertEqual(opened.read(), self.contents[0][name])


if __name__ == "__main__":
    harness.main("mkfs.ext4")
