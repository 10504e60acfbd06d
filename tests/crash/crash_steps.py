#!/usr/bin/env python3
"""Stops ocifs at each call that changes the disk, or lets the call fail, and looks at what is left.

    crash_steps.py [--all] [--workload NAME] [--fault FAULT] [--step N] [--directory DIR] [--keep]

Each workload is run once to count its calls (step_shim.c); then again and again on a fresh copy of
its store, with a fault at another call each time. What must hold afterwards is world.check_store.
Without --all a sample of the calls is tried: some evenly spread and all of the last ones, where names
are given and the index is committed. A failure is printed with the options that repeat it alone; as
threads take turns as they like, the call of that number may then be a neighbour of the first.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import errno
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

import world
from world import Loss, PACKAGES

SHIM = pathlib.Path(os.environ.get("STEP_SHIM", world.BIN.parent / "tests" / "crash" / "libstep_shim.so"))
WRITES = ("write", "pwrite", "writev", "pwritev")

# What stops the program, and what makes calls fail: one, or it and all that follow.
STOPS = ("kill", "half")
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS")
FAULTS = STOPS + tuple(f"{how}-{name}" for name in ERRORS for how in ("once", "always"))


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is done to a store. `prepared` are the packages that it holds before, `pinned` those of
    them with a pin, `changed` those that need no longer be there after; `brings` are there once the
    program has succeeded."""
    arguments: tuple  # of ocifs-ctl; references by the names of packages
    prepared: tuple = ()
    pinned: tuple = ()
    changed: tuple = ()
    brings: tuple = ()
    reader: bool = False   # package-dump instead of ocifs-ctl: what a reader of a mount does
    damage: object = None  # makes the prepared store a damaged one
    blobs: bool = True     # whether raw blobs must survive as well
    settings: str = ""     # of ocifs.toml besides those of the source


def damage(directory):
    """One byte of every pack and every second blob file flips, and a tree is cut."""
    for i, path in enumerate(sorted((directory / "packs").iterdir())
                             + sorted((directory / "blobs" / "sha256").iterdir())[::2]):
        data = bytearray(path.read_bytes())
        data[random.Random(i).randrange(len(data) * 9 // 10, len(data))] ^= 0x10
        path.write_bytes(data)
    tree = sorted((directory / "trees").iterdir())[0]
    os.truncate(tree, tree.stat().st_size // 2)


ALL = tuple(PACKAGES)
UNPINNED = tuple(name for name in PACKAGES if name != "base:1")

# A workload whose commands ocifs-ctl does not know is reported and left out.
WORKLOADS = {
    "prefetch-into-empty": Workload(("prefetch", "many:1"), brings=("many:1",)),
    "prefetch-beside": Workload(("prefetch", "many:1", "image:1"), prepared=("base:1",),
                                brings=("many:1", "image:1")),
    "read": Workload(("many:1", "base:1"), prepared=("base:1",), reader=True),
    "pin": Workload(("pin", "many:1"), prepared=("base:1",), brings=("many:1",)),
    "unpin": Workload(("unpin", "base:1"), prepared=ALL, pinned=("base:1",)),
    "rm": Workload(("rm", "many:1"), prepared=ALL, changed=("many:1",), blobs=False),
    "gc": Workload(("gc",), prepared=ALL, pinned=("base:1",), changed=UNPINNED, blobs=False,
                   settings='[store]\nmax_size = "2MiB"\n'),
    # Pulls one package, for which others have to go.
    "prefetch-over-limit": Workload(("prefetch", "many:1"), prepared=("base:1", "image:1"),
                                    pinned=("base:1",), changed=("image:1",), blobs=False,
                                    settings='[store]\nmax_size = "10300KiB"\n'),
    "fsck-repair": Workload(("fsck", "--repair"), prepared=ALL, changed=ALL, damage=damage),
    "rebuild-index": Workload(("fsck", "--rebuild-index"), prepared=ALL),
}

# How many calls are tried, evenly spread and of the last ones.
SAMPLE = {"kill": (24, 12), "half": (6, 4)}
SAMPLE_OF_ERRORS = (1, 1)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a program may answer: its exit statuses and, of a reader that could open the store,
    whether it gets packages that the store has, and those that the store would have to keep."""
    statuses: tuple
    stored: bool = False
    new: bool = False


def expected(workload, fault):
    """What `workload` may answer to `fault`: the one place that says so. Anything else is a failure of
    the test, a signal above all; so is status 0 without what it promises (Workload.brings)."""
    if fault in STOPS:
        return Outcome(statuses=(0, -9))
    if workload.reader:
        # Nobody fails to read because the cache cannot be written. Opening may fail.
        # But for a disk that answers nothing but EIO, LMDB's own lock file among it: the index, whose
        # environment is dead after a failed write, cannot be opened again to read on.
        return Outcome(statuses=(0, 1), stored=fault != "always-EIO", new=fault != "always-EIO")
    if workload.arguments[0] == "fsck":
        # As fsck(8): repaired, left as they are, could not be done; added up.
        return Outcome(statuses=tuple(range(16)))
    return Outcome(statuses=(0, 1))


def is_known(workload):
    needed = {"gc"} if workload.settings else set()
    if workload.pinned:
        needed.add("pin")
    if not workload.reader:
        needed.add(workload.arguments[0])
    return needed <= world.commands()


class Bench:
    """One workload with its prepared store, its calls, and what a run without faults leaves."""

    def __init__(self, name, directory, source, full):
        self.name, self.workload = name, WORKLOADS[name]
        self.directory = directory / name
        self.directory.mkdir()
        self.source, self.full = source, full
        self.config = self.directory / "ocifs.toml"
        self.config.write_text(source.config.read_text() + self.workload.settings)
        self.prepared = self.directory / "prepared"
        prepared = world.Store(self.prepared, source)
        for command, names in (("prefetch", self.workload.prepared), ("pin", self.workload.pinned)):
            if names:
                world.demand(command, prepared.ctl(command, *(PACKAGES[word].reference for word in names)))
        if self.workload.damage:
            self.workload.damage(self.prepared)
        store = world.Store(self.directory / "clean", source)
        store.restore(self.prepared)
        log = self.directory / "clean.log"
        done = self.run(store, self.environment(store, "count", log))
        world.demand(f"{name} without a fault", done, (0, 1) if self.workload.damage else (0,))
        self.calls = [line.split(" ", 2) for line in log.read_text().splitlines()]
        self.check(store, done)
        shutil.rmtree(store.directory)

    def check(self, store, done, blobs=True):
        """What holds of the store after the run that ended as `done`. Raw blobs that could not be
        written are no loss where the content was (`blobs`)."""
        kept = [name for name in self.workload.prepared if name not in self.workload.changed]
        brought = self.workload.brings if done.code == 0 else ()
        world.check_store(store, [*kept, *brought], self.full, blobs=blobs and self.workload.blobs,
                          damaged=self.workload.damage is not None)

    @staticmethod
    def environment(store, mode, log, step=0, error=0):
        return {"LD_PRELOAD": str(SHIM), "OCIFS_TEST_STEP_ROOT": str(store.directory),
                "OCIFS_TEST_STEP_MODE": mode, "OCIFS_TEST_STEP_AT": str(step),
                "OCIFS_TEST_STEP_ERRNO": str(error), "OCIFS_TEST_STEP_LOG": str(log)}

    def run(self, store, environment):
        arguments = self.workload.arguments
        if self.workload.reader:
            return store.dump(arguments, config=self.config, environment=environment)
        command, *rest = (PACKAGES[word].reference if word in PACKAGES else word for word in arguments)
        return store.ctl(command, *rest, config=self.config, environment=environment)

    def steps(self, fault, everything, spread, last):
        """Numbers of the calls to try."""
        count = len(self.calls)
        if fault == "half":
            numbers = [i + 1 for i, call in enumerate(self.calls) if call[1] in WRITES]
        else:
            numbers = list(range(1, count + 1))
        if everything or len(numbers) <= spread + last:
            return numbers
        head = numbers[:-last]
        return [head[i * len(head) // spread] for i in range(spread)] + numbers[-last:]

    def attempt(self, fault, step, slot, keep):
        """Tries one fault at one call; the text of the failure, or None. `slot` is the thread's."""
        store = world.Store(self.directory / f"store-{slot}", self.source)
        log = self.directory / f"log-{slot}"
        log.unlink(missing_ok=True)
        store.restore(self.prepared)
        mode, _, error = fault.partition("-")
        environment = self.environment(store, mode, log, step, getattr(errno, error) if error else 0)
        try:
            done = self.run(store, environment)
            outcome = expected(self.workload, fault)
            if done.code not in outcome.statuses:
                raise Loss(f"ended with {done}")
            if self.workload.reader and done.code >= 0 and done.out.startswith("opened\n"):
                names = self.workload.arguments
                must = [name for name in names
                        if (outcome.stored if name in self.workload.prepared else outcome.new)]
                world.check_dump(done, must, set(names) - set(must))
            self.check(store, done, blobs=fault in STOPS)
        except Loss as loss:
            lines = log.read_text().splitlines() if log.exists() else []
            call = next((line for line in lines if line.startswith(f"{step} ")), "never reached")
            if keep:
                store.directory.rename(self.directory / f"failed-{fault}-{step}")
            return f"--workload {self.name} --fault {fault} --step {step}: at call {call}\n    {loss}"
        return None


def run_all(benches, plan, keep):
    """Tries all of `plan`, (bench, fault, step), on as many processors as there are."""
    slots, local = iter(range(1 << 20)), threading.local()
    lock = threading.Lock()

    def attempt(item):
        if not hasattr(local, "slot"):
            with lock:
                local.slot = next(slots)
        name, fault, step = item
        return name, fault, benches[name].attempt(fault, step, local.slot, keep)

    counts, failures = collections.Counter(), []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, fault, failure in pool.map(attempt, plan):
            counts[name, fault] += 1
            if failure:
                failures.append(failure)
                print(f"FAILED {failure}", flush=True)
    return counts, failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="every call, not a sample")
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--fault", choices=FAULTS, action="append")
    parser.add_argument("--step", type=int)
    parser.add_argument("--directory", help="where stores are made (default: in memory)")
    parser.add_argument("--keep", action="store_true", help="keep stores that failed")
    options = parser.parse_args()
    world.leave_if_missing(world.missing_requirements((str(SHIM), SHIM.exists())))

    start = time.monotonic()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-crash.", dir=world.work_directory(options.directory)))
    try:
        source = world.Source(directory)
        full = world.Full(world.Store(directory / "full", source))
        benches, plan = {}, []
        for name in options.workload or WORKLOADS:
            if not is_known(WORKLOADS[name]):
                print(f"{name}: left out, ocifs-ctl has no such command")
                continue
            benches[name] = Bench(name, directory, source, full)
            print(f"{name}: {len(benches[name].calls)} calls")
            for fault in options.fault or FAULTS:
                if options.step:
                    plan.append((name, fault, options.step))
                    continue
                spread, last = SAMPLE.get(fault, SAMPLE_OF_ERRORS)
                plan += [(name, fault, step)
                         for step in benches[name].steps(fault, options.all, spread, last)]
        counts, failures = run_all(benches, plan, options.keep)
        for name in benches:
            tried = ", ".join(f"{counts[name, fault]} {fault}" for fault in FAULTS if counts[name, fault])
            print(f"{name}: tried {tried}")
        print(f"{len(plan)} steps tried, {len(failures)} failures, {time.monotonic() - start:.0f} s")
        sys.exit(1 if failures else 0)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
