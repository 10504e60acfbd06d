#!/usr/bin/env python3
"""Blobs of a registry that is far away: in one request, in ranges, and by the usual ways.

    tests/bench/far_registry.py [--runs N] [--parts far,cuts,near] [--json FILE] [OPTION VALUE]...

A docker-registry on loopback behind link-proxy, which makes of loopback a link with a round trip, a
rate, and a window for each connection: what TCP lets be under way at a time. fetch-blob gets a
manifest and one blob, as ocifs does; curl and skopeo copy get the same in the same run. In turns,
each over connections of its own. Medians (least to most), times by "1", the whole blob in one
request, and the requests that the registry saw.

  far    over the link, for each window, size and shape; "4x1024": 4 ranges of 1024 KiB at a time
  cuts   the link ends a connection after every 10 MB: time against the uncut link, and bytes that
         came over the link by the size of the blob
  near   no link: what ranges would cost where they gain nothing, and what the defaults do there

A window is a property of both kernels: 64 KiB to 256 KiB where they are old or were told so, up to
some MiB where they tune themselves, less whenever packets are lost. The link models no loss and no
slow start, which both make one connection slower than here. Its handshake is invisible to
connect(2), so that ranges are asked for explicitly (--far-ms 0). Needs docker-registry, skopeo and
curl, no root; OCIFS_BIN as in tests/e2e/harness.py. An hour with the defaults, as narrow windows take
their time; the windows may be measured beside each other by several of these.
"""

import argparse
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import harness  # noqa: E402
import oci  # noqa: E402

MB = 10 ** 6
FETCH_BLOB = harness.BIN / "fetch-blob"
LINK_PROXY = harness.BIN / "link-proxy"
CUT_EVERY = 10 * MB


def numbers(text):
    return [int(word) for word in text.split(",")]


def words(text):
    return text.split(",")


class Link:
    """A running link-proxy."""

    def __init__(self, target, **options):
        arguments = [f"--{name.replace('_', '-')}={value}".split("=") for name, value in options.items()]
        self.process = subprocess.Popen([LINK_PROXY, "--connect", target, *sum(arguments, [])], text=True,
                                        bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.address = self.process.stdout.readline().split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()

    def command(self, line):
        self.process.stdin.write(line + "\n")
        return self.process.stdout.readline().strip()

    def set(self, name, value):
        answer = self.command(f"{name} {value}")
        if answer != "ok":
            raise SystemExit(f"link-proxy: {name} {value}: {answer}")

    def bytes_to_client(self):
        return json.loads(self.command("counters"))["bytes_to_client"]


def run(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.returncode}\n{done.stderr}")
    return done.stdout


class Package:
    """A package of one blob, in the registry. Methods get it at `address`; nothing is kept."""

    def __init__(self, registry, size, scratch):
        self.repository, self.size, self.scratch = f"bench/{size}", size, scratch
        data = random.Random(size).randbytes(size)
        item = oci.artifact([oci.Layer(data, "application/octet-stream")], artifact_type="application/x-bench")
        registry.push(self.repository, "1", item)
        self.digest = item.document["layers"][0]["digest"]

    def curl(self, address):
        url = f"http://{address}/v2/{self.repository}"
        run("curl", "-sSf", "-H", f"Accept: {oci.MANIFEST}", f"{url}/manifests/1", "-o", "/dev/null", "--next",
            "-sSf", f"{url}/blobs/{self.digest}", "-o", "/dev/null")

    def skopeo(self, address):
        place = self.scratch / "copy"
        shutil.rmtree(place, ignore_errors=True)
        run("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false",
            f"docker://{address}/{self.repository}:1", f"dir:{place}")

    def fetch_blob(self, address, *options):
        answer = json.loads(run(FETCH_BLOB, f"{address}/{self.repository}:1", *options))
        if (answer["bytes"], answer["digest"]) != (self.size, self.digest):
            raise SystemExit(f"fetch-blob got something else: {answer}")

    def shape(self, text):
        """How to get it in that shape."""
        count, _, kib = text.partition("x")
        options = ["--far-ms", 0, "--ranges", count, *(["--range-kib", kib] if kib else [])]
        return lambda address: self.fetch_blob(address, *options)

    def ways(self, shapes):
        return {"curl": self.curl, "skopeo": self.skopeo, **{shape: self.shape(shape) for shape in shapes}}


class Row:
    """What was measured of one way to get one package."""

    def __init__(self):
        self.seconds, self.requests, self.transferred = [], [], []

    def median(self):
        return statistics.median(self.seconds)

    def record(self):
        return vars(self)


def measure(registry, package, ways, runs, link=None):
    """{name: Row}, over the link if there is one. The order is turned from run to run: a machine that is
    busy for a while is so for different ones."""
    rows = {name: Row() for name in ways}
    names = list(ways)
    for turn in range(runs):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            asked = len(registry.requests())
            before = link.bytes_to_client() if link else 0
            start = time.perf_counter()
            ways[name]((link or registry).address)
            rows[name].seconds.append(time.perf_counter() - start)
            if link:
                rows[name].transferred.append((link.bytes_to_client() - before) / package.size)
            rows[name].requests.append(len(registry.requests()) - asked)
    return rows


def show(title, size, rows, against):
    print(f"{title}, {size // MB} MB")
    base = rows[against].median()
    for name, row in rows.items():
        least, most = min(row.seconds), max(row.seconds)
        spread = (most - least) / row.median()
        print(f"  {name:10} {row.median():7.2f} s  ({least:.2f} to {most:.2f}, {spread:4.0%})"
              f"  {size / MB / row.median():6.1f} MB/s  {row.median() / base:5.2f}"
              f"  {statistics.median(row.requests):3.0f} requests"
              + (f"  {statistics.median(row.transferred):.3f} of its size" if row.transferred else ""), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--parts", type=words, default=["far", "cuts", "near"])
    parser.add_argument("--round-trip-ms", type=int, default=80)
    parser.add_argument("--rate-mbit", type=int, default=100)
    parser.add_argument("--windows", type=numbers, default=[256, 1024, 0], help="in KiB; 0: no limit")
    parser.add_argument("--sizes", type=numbers, default=[2, 20, 200], help="in MB")
    parser.add_argument("--shapes", type=words, default=["1", "2x4096", "4x4096", "8x4096", "4x1024", "4x512"])
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    missing = [name for name in ("docker-registry", "skopeo", "curl", FETCH_BLOB, LINK_PROXY) if not shutil.which(name)]
    if missing:
        sys.exit(f"cannot run here, missing: {', '.join(map(str, missing))}")

    records = []

    def keep(part, window, size, rows):
        records.append({"part": part, "window_kib": window, "bytes": size,
                        "ways": {name: row.record() for name, row in rows.items()}})

    scratch = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-bench."))
    registry = harness.Registry(scratch / "registry")
    try:
        packages = [Package(registry, size * MB, scratch) for size in options.sizes]
        link_options = {"delay_ms": options.round_trip_ms // 2, "rate_mbit": options.rate_mbit}
        way = f"{options.round_trip_ms} ms, {options.rate_mbit} Mbit/s"
        for window in options.windows if {"far", "cuts"} & set(options.parts) else []:
            name = f"{way}, window " + (f"{window} KiB" if window else "unlimited")
            with Link(registry.address, window_kib=window, **link_options) as link:
                for package in packages if "far" in options.parts else packages[-1:]:
                    rows = measure(registry, package, package.ways(options.shapes), options.runs, link)
                    show(name, package.size, rows, "1")
                    keep("far", window, package.size, rows)
                if "cuts" in options.parts:
                    # Neither curl nor skopeo 1.9.3 gets a blob over such a link.
                    ways = {shape: package.shape(shape) for shape in options.shapes}
                    link.set("cut-bytes", CUT_EVERY)
                    cut = measure(registry, package, ways, options.runs, link)
                    show(f"{name}, cut every {CUT_EVERY // MB} MB", package.size, cut, "1")
                    for shape in ways:
                        print(f"  {shape:10} cut / uncut  {cut[shape].median() / rows[shape].median():.2f}", flush=True)
                    keep("cuts", window, package.size, cut)
        if "near" in options.parts:
            for package in packages:
                ways = {**package.ways(options.shapes), "defaults": package.fetch_blob}
                rows = measure(registry, package, ways, 3 * options.runs)
                show("loopback", package.size, rows, "1")
                keep("near", None, package.size, rows)
    finally:
        registry.stop()
        shutil.rmtree(scratch, ignore_errors=True)
        if options.json:
            options.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
