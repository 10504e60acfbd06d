#!/usr/bin/env python3
"""First access to a large image, and grep over it once it is there, against the usual ways.

    sudo tests/bench/first_access.py [--runs N] [--scratch DIR] [--json FILE] [--check]

One image of 46,000 entries and 490 MB in one tar+gzip layer (real Debian packages) in a
docker-registry on loopback. In turns, each time from nothing:

  curl+tar      curl the layer | tar -xz
  skopeo+umoci  skopeo copy to a layout, umoci unpack
  ocifs         mount with an empty store, then `ls` of the package

and then `grep -r` over the mounted package and over the unpacked one, caches warm. Medians, ratios,
and the peak memory of the daemon. --check fails if a target is missed: ls in 1/2 of curl+tar and in 1/6 of
skopeo+umoci, grep in 1.3 times what the disk needs.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import corpus  # noqa: E402
import harness  # noqa: E402
import oci  # noqa: E402

GREP = ["grep", "-r", "-c", "-F", "a string that is nowhere in there"]


def timed(call, *arguments):
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def settle():
    """What earlier runs left to be written shall not be charged to the next."""
    os.sync()


def shell(script, *arguments):
    subprocess.run(["sh", "-euc", script, "sh", *map(str, arguments)], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def grep(root):
    done = subprocess.run([*GREP, root], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode != 1:  # 1: nothing found, and no error
        raise SystemExit(f"grep over {root}: {done.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=pathlib.Path, default=harness.ROOT / "build" / "bench")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    missing = harness.missing_requirements()
    if missing:
        sys.exit(f"cannot run here, missing: {', '.join(missing)}")

    packed, plain = corpus.large_layer()
    data = packed.read_bytes()
    with open(plain, "rb") as file:
        diff_id = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    item = oci.artifact([oci.Layer(data, oci.TAR_GZIP)], config=json.dumps(config).encode(),
                        config_type=oci.CONFIG)
    shutil.rmtree(options.scratch, ignore_errors=True)
    options.scratch.mkdir(parents=True)
    registry = harness.Registry(options.scratch / "registry")
    mounted = None
    try:
        registry.push("bench/large", "1", item)
        blob = f"http://{registry.address}/v2/bench/large/blobs/{item.document['layers'][0]['digest']}"
        del data
        item.blobs.clear()
        seconds = {"curl+tar": [], "skopeo+umoci": [], "ocifs": []}
        peaks = []
        tree = options.scratch / "tree"
        for _ in range(options.runs):
            shutil.rmtree(tree, ignore_errors=True)
            tree.mkdir()
            settle()
            seconds["curl+tar"].append(timed(
                shell, 'curl -sSf "$1" | tar -xz -C "$2"', blob, tree)[0])

            work = options.scratch / "umoci"
            settle()
            seconds["skopeo+umoci"].append(timed(
                shell, 'mkdir "$2"; skopeo --insecure-policy copy -q --src-tls-verify=false "docker://$1" '
                '"oci:$2/layout:x"; umoci unpack --image "$2/layout:x" "$2/bundle"',
                f"{registry.address}/bench/large:1", work)[0])
            shutil.rmtree(work)

            if mounted:
                mounted.stop()
                shutil.rmtree(options.scratch / "ocifs")
            settle()
            mounted = harness.Mount(options.scratch / "ocifs")
            root = mounted.path(registry.address, "bench/large", "1")
            took, listing = timed(lambda: subprocess.run(["ls", root], check=True, stdout=subprocess.PIPE))
            if not listing.stdout.strip():
                raise SystemExit("ls of the mounted package shows nothing")
            seconds["ocifs"].append(took)
            peaks.append(mounted.peak_memory())

        entries = sum(len(folders) + len(names) for _, folders, names in os.walk(tree))
        cold = timed(grep, root)[0]
        greps = {"ext4": [], "ocifs": []}
        for where, path in (("ext4", tree), ("ocifs", root)) * (options.runs + 1):
            greps[where].append(timed(grep, path)[0])
        greps = {where: times[1:] for where, times in greps.items()}  # the first one warms
        peaks.append(mounted.peak_memory())
        mounted.stop()
        mounted = None
    finally:
        if mounted:
            mounted.kill()
        registry.stop()
        shutil.rmtree(options.scratch, ignore_errors=True)

    median = {name: statistics.median(times) for name, times in seconds.items()}
    warm = {name: statistics.median(times) for name, times in greps.items()}
    targets = {
        "first ls / curl+tar": (median["ocifs"] / median["curl+tar"], 1 / 2),
        "first ls / skopeo+umoci": (median["ocifs"] / median["skopeo+umoci"], 1 / 6),
        "warm grep / ext4": (warm["ocifs"] / warm["ext4"], 1.3),
    }
    print(f"{entries} entries, {plain.stat().st_size / 1e6:.0f} MB plain, "
          f"{packed.stat().st_size / 1e6:.0f} MB as pulled, {options.runs} runs")
    for name, times in seconds.items():
        print(f"  {name:14} {median[name]:7.2f} s   ({', '.join(f'{t:.2f}' for t in times)})")
    print(f"  grep -r, first  {cold:6.2f} s   (ocifs, content in the store)")
    for name, times in greps.items():
        print(f"  grep -r {name:6} {warm[name]:7.2f} s   ({', '.join(f'{t:.2f}' for t in times)})")
    print(f"  peak memory of the daemon: {max(peaks) / (1 << 20):.0f} MiB")
    missed = []
    for name, (ratio, target) in targets.items():
        print(f"  {name:24} {ratio:5.3f}  (target {target:.3f})  {'ok' if ratio <= target else 'MISSED'}")
        missed += [name] if ratio > target else []
    if options.json:
        options.json.write_text(json.dumps({
            "entries": entries, "seconds": seconds, "grep": greps, "grep_first": cold,
            "peak_bytes": max(peaks), "ratios": {name: ratio for name, (ratio, _) in targets.items()}}, indent=1))
    if missed and options.check:
        sys.exit(1)


if __name__ == "__main__":
    main()
