#!/usr/bin/env python3
"""Many readers of one package cost one fetch."""

import collections
import os
import threading

import fixtures
import harness
import oci
from tarfiles import Tar

READERS = 64


def at_once(jobs):
    """Runs all jobs in threads that start together; returns their results or exceptions."""
    results = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def work(i):
        barrier.wait()
        try:
            results[i] = jobs[i]()
        except OSError as error:
            results[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def content(path):
    with open(path, "rb") as file:
        return file.read()


class SingleFlight(harness.TestCase):
    def assert_each_once(self, requests):
        counted = collections.Counter((method, path) for method, path in requests)
        self.assertTrue(counted)
        self.assertEqual({key: count for key, count in counted.items() if count > 1}, {})

    def test_64_readers_of_one_package(self):
        registry = self.registry()
        tars = [Tar().dir("./").file("f", fixtures.noise(5_000_000)).bytes(),
                Tar().file("g", fixtures.noise(3_000_000, 2)).bytes()]
        registry.push("busy", "1", oci.image(tars))
        before = len(registry.requests())
        mounted = self.mount()
        root = mounted.path(registry.address, "busy", "1")
        jobs = [lambda name="fg"[i % 2]: content(os.path.join(root, name)) for i in range(READERS)]
        for i, result in enumerate(at_once(jobs)):
            self.assertEqual(result, fixtures.noise(5_000_000) if i % 2 == 0 else fixtures.noise(3_000_000, 2))
        made = [(method, path) for method, path, _ in registry.requests()[before:]]
        self.assert_each_once(made)
        self.assertEqual(len([path for _, path in made if "/blobs/" in path]), 3)

    def test_all_wait_for_one_answer(self):
        """The registry holds the blob back until all readers have long asked for it."""
        registry = self.fault_registry()
        registry.push("busy", "1", oci.image([Tar().dir("./").file("f", b"x" * 100_000).bytes()]))
        registry.gate = threading.Event()
        mounted = self.mount()
        path = mounted.path(registry.address, "busy", "1", "f")
        started = threading.Semaphore(0)

        def job():
            started.release()
            return content(path)

        def opener():
            for _ in range(READERS):
                started.acquire()
            harness.until(lambda: any("/blobs/" in path for _, path in registry.requests), "a blob is asked for")
            registry.gate.set()

        threading.Thread(target=opener).start()
        for result in at_once([job] * READERS):
            self.assertEqual(result, b"x" * 100_000)
        self.assert_each_once(registry.requests)

    def test_two_names_of_one_package(self):
        """Two tags of one digest, and two packages that share a layer, pull each blob once."""
        registry = self.registry()
        base = Tar().dir("./").file("base", fixtures.noise(2_000_000)).bytes()
        items = [oci.image([base, Tar().file("own", b"%d" % i).bytes()]) for i in range(4)]
        for i, item in enumerate(items):
            registry.push("shared", f"v{i}", item)
            registry.push("shared", f"also-v{i}", item)
        before = len(registry.requests())
        mounted = self.mount()
        jobs = [lambda tag=tag: content(mounted.path(registry.address, f"shared:{tag}", "base"))
                for i in range(4) for tag in (f"v{i}", f"also-v{i}")]
        for result in at_once(jobs):
            self.assertEqual(result, fixtures.noise(2_000_000))
        blobs = [(method, path) for method, path, _ in registry.requests()[before:] if "/blobs/" in path]
        self.assert_each_once(blobs)

    def test_a_waiter_that_leaves_stops_nobody(self):
        """One of two waiting readers is interrupted: it returns at once, the other gets its bytes."""
        registry = self.fault_registry()
        registry.push("slow", "1", oci.image([Tar().dir("./").file("f", b"patience").bytes()]))
        registry.gate = threading.Event()
        mounted = self.mount()
        path = mounted.path(registry.address, "slow:1", "f")
        leaver = harness.subprocess.Popen(["cat", path], stdout=harness.subprocess.PIPE,
                                          stderr=harness.subprocess.PIPE)
        harness.until(lambda: any("/blobs/" in path for _, path in registry.requests), "a blob is asked for")
        stayer = harness.subprocess.Popen(["cat", path], stdout=harness.subprocess.PIPE)
        leaver.send_signal(harness.signal.SIGINT)
        leaver.communicate(timeout=2)
        self.assertEqual(leaver.returncode, -harness.signal.SIGINT)
        self.assertIsNone(stayer.poll())
        registry.gate.set()
        self.assertEqual(stayer.communicate(timeout=20)[0], b"patience")
        self.assert_each_once(registry.requests)

    def test_cached_readers_do_not_wait_for_cold_ones(self):
        registry = self.fault_registry()
        for name in ("warm", "cold"):
            registry.push(name, "1", oci.image([Tar().dir("./").file("f", name.encode()).bytes()]))
        mounted = self.mount()
        warm = mounted.path(registry.address, "warm:1", "f")
        self.assertEqual(content(warm), b"warm")
        registry.gate = threading.Event()
        cold = [harness.subprocess.Popen(["cat", mounted.path(registry.address, "cold:1", "f")],
                                         stdout=harness.subprocess.PIPE) for _ in range(READERS)]
        harness.until(lambda: sum("/blobs/" in path for _, path in registry.requests) > 2, "cold is asked for")
        mounted_again = harness.subprocess.run(
            ["sh", "-c", 'echo 3 >/proc/sys/vm/drop_caches; exec timeout 2 cat "$0"', warm],
            capture_output=True)
        self.assertEqual((mounted_again.returncode, mounted_again.stdout), (0, b"warm"))
        registry.gate.set()
        for process in cold:
            self.assertEqual(process.communicate(timeout=30)[0], b"cold")


if __name__ == "__main__":
    harness.main()
