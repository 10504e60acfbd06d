#!/usr/bin/env python3
"""Kills ocifs-ctl prefetch at random moments: kill_prefetch.py [--kills N] [--seed N] [--kill K]

Each time a prefetch of all packages into a new store is killed after a random part of the time that
it takes; and in every third store it is killed again and again, until it has had enough time. What
must hold afterwards is world.check_store; and then the store takes no more than 1 MiB above one that
nobody killed. Seed and number of a kill repeat it, as far as time can be repeated.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import world
from world import Loss, PACKAGES


class Prefetch:
    """A prefetch of all packages that may be killed on the way."""

    def __init__(self, store):
        self.process = subprocess.Popen(
            [world.CTL, "prefetch", "--store", store.directory, "--config", store.source.config,
             *(package.reference for package in PACKAGES.values())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def end(self, seconds=None):
        """Whether it was killed, after so many seconds; its failure is a loss."""
        try:
            _, messages = self.process.communicate(timeout=seconds or world.RUN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            if seconds is None:
                raise Loss(f"prefetch does not end within {world.RUN_SECONDS} s") from None
            return True
        if self.process.returncode != 0:
            raise Loss(f"prefetch ends with {self.process.returncode}: {messages}")
        return False


def attempt(number, seed, directory, source, full, seconds):
    """One store: the times it was killed, and the text of the failure or None."""
    rng = random.Random(f"{seed}.{number}")
    store = world.Store(directory, source)
    shutil.rmtree(directory, ignore_errors=True)
    kills = 0
    try:
        killed = True
        # The second and third time a part of the work is done already.
        for _ in range(4 if number % 3 == 0 else 1):
            killed = Prefetch(store).end(rng.uniform(0.001, 1.6) * seconds)
            kills += killed
            if not killed:
                break
        world.check_store(store, () if killed else tuple(PACKAGES), full)
    except Loss as loss:
        return kills, f"--seed {seed} --kill {number}: {loss}"
    return kills, None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--kill", type=int, help="only the store of this number")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--directory", help="where stores are made (default: in memory)")
    options = parser.parse_args()
    world.leave_if_missing(world.missing_requirements())

    start = time.monotonic()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-kill.", dir=world.work_directory(options.directory)))
    try:
        source = world.Source(directory)
        store = world.Store(directory / "full", source)
        begin = time.monotonic()
        Prefetch(store).end()
        seconds = time.monotonic() - begin
        full = world.Full(store)

        numbers = [options.kill] if options.kill is not None else range(1 << 30)
        failures, kills, lock, taken = [], 0, threading.Lock(), iter(numbers)

        def work(slot):
            nonlocal kills
            while True:
                with lock:
                    number = None if kills >= options.kills else next(taken, None)
                if number is None:
                    return
                killed, failure = attempt(number, options.seed, directory / f"store-{slot}", source, full, seconds)
                with lock:
                    kills += killed
                    if failure:
                        failures.append(failure)
                        print(f"FAILED {failure}", flush=True)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for future in [pool.submit(work, slot) for slot in range(os.cpu_count() or 1)]:
                future.result()
        print(f"{kills} kills of seed {options.seed} within {seconds:.3f} s each, {len(failures)} failures, "
              f"{time.monotonic() - start:.0f} s")
        sys.exit(1 if failures else 0)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
