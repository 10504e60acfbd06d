"""What the crash tests stand on: packages whose content is known, a store under test, and the checks
that every store must pass, whatever was done to it.

Packages come from an OCI image layout on disk, so that no network is there to be missed, and what a
package holds is written down here and never asked of ocifs.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import oci  # noqa: E402
import tarfiles  # noqa: E402
from oci import Layer  # noqa: E402
from tarfiles import Tar  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("OCIFS_BIN", ROOT / "build" / "release" / "bin"))
CTL = BIN / "ocifs-ctl"
DUMP = BIN / "package-dump"
SKIP = 77  # ctest: not run
REGISTRY = "x.local"
RUN_SECONDS = 60  # a program that is not done by then hangs

# Files below a store that hold content; of each there is no more than the index names.
CONTENT = ("packs", "trees", "blobs")


class Loss(Exception):
    """A store that is not as it must be."""


def noise(size, seed):
    """Bytes that neither compress nor repeat."""
    return random.Random(seed).randbytes(size)


# ---------------------------------------------------------------------------------------- packages


class Content:
    """What the layers of one package make, in the form that package-dump prints."""

    def __init__(self):
        self.nodes = {}

    def directory(self, path):
        self.nodes[path] = f"d {path}"

    def file(self, path, data):
        self.nodes[path] = f"f {path} {len(data)} {hashlib.sha256(data).hexdigest()}"

    def link(self, path, target):
        self.nodes[path] = f"l {path} {target}"

    def lines(self):
        # By name in each directory, what is below a directory right behind it.
        return [self.nodes[path] for path in sorted(self.nodes, key=lambda path: path.split("/"))]


class Package:
    """An artifact with its reference and the lines that package-dump must print for it."""

    def __init__(self, name, item, content):
        self.name = name  # "repository:tag"
        self.reference = f"{REGISTRY}/{name}"
        self.item = item
        self.lines = content.lines()
        layers = item.document["layers"]
        self.blob_lines = [f"b {blob['digest']} {blob['size']}" for blob in [item.document["config"], *layers]]


def base():
    """An image of two layers: many small files, and what another package shares with it."""
    content, low, top = Content(), Tar().dir("./").dir("etc").dir("shared"), Tar().dir("./").dir("etc")
    for directory in ("etc", "shared"):
        content.directory(directory)
    for i in range(40):
        data = noise(50 * i, f"base{i}")
        low.file(f"etc/{i:02}", data)
        content.file(f"etc/{i:02}", data)
    for i in range(10):
        data = noise(9000 + i, f"shared{i}")
        low.file(f"shared/{i}", data)
        content.file(f"shared/{i}", data)
    top.file("etc/00", b"replaced\n").whiteout("etc/01").symlink("etc/link", "00")
    content.file("etc/00", b"replaced\n")
    del content.nodes["etc/01"]
    content.link("etc/link", "00")
    return Package("base:1", oci.image([low.bytes(), top.bytes()]), content)


def many():
    """An artifact of three layers: a gzipped archive with a file of several chunks, files shared with
    base(), a file that is no archive, and an archive small enough to lie in the index."""
    content, archive, small = Content(), Tar().dir("data"), Tar().dir("small")
    content.directory("data")
    content.directory("small")
    for name, data in [("large", noise((4 << 20) + 77, "large")), ("holes", bytes((4 << 20) + 5)),
                       *((f"shared{i}", noise(9000 + i, f"shared{i}")) for i in range(10)),
                       *((f"{i:03}", noise(700 + i, f"many{i}")) for i in range(100))]:
        archive.file(f"data/{name}", data)
        content.file(f"data/{name}", data)
    small.file("small/one", b"1\n")
    content.file("small/one", b"1\n")
    plain = noise(300_000, "plain")
    content.file("plain.bin", plain)
    return Package("many:1", oci.artifact(
        [Layer(tarfiles.gzipped(archive.bytes())), Layer(plain, "application/octet-stream", title="plain.bin"),
         Layer(small.bytes(), oci.TAR)]), content)


def image():
    """An image of three layers, two of which change what the first has."""
    content, layers = Content(), [Tar().dir("./").dir("usr"), Tar().dir("./"), Tar().dir("./")]
    content.directory("usr")
    for i in range(60):
        data = noise(3000 + i, f"image{i}")
        layers[0].file(f"usr/{i:02}", data)
        content.file(f"usr/{i:02}", data)
    for i, layer in enumerate(layers[1:]):
        data = noise(200_000, f"top{i}")
        layer.dir("usr").file(f"usr/{i:02}", data).whiteout(f"usr/{50 + i}")
        content.file(f"usr/{i:02}", data)
        del content.nodes[f"usr/{50 + i}"]
    return Package("image:1", oci.image([layer.bytes() for layer in layers]), content)


PACKAGES = {package.name: package for package in (base(), many(), image())}


# ------------------------------------------------------------------------------------------ stores


@dataclasses.dataclass
class Done:
    """A program that has ended."""
    code: int
    out: str
    err: str

    def __str__(self):
        return f"status {self.code}\n{self.out[-2000:]}{self.err[-2000:]}"


def execute(command, environment=None, prefix=()):
    """Runs a program to its end; one that hangs is a loss."""
    try:
        done = subprocess.run([*prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=RUN_SECONDS,
                              env={**os.environ, "HOME": "/nonexistent", **(environment or {})})
    except subprocess.TimeoutExpired as expired:
        raise Loss(f"{' '.join(map(str, command))} does not end within {RUN_SECONDS} s") from expired
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@functools.cache
def commands():
    """What ocifs-ctl can do."""
    return frozenset(re.findall(r"^  ([a-z]+)  ", execute([CTL, "--help"]).out, re.MULTILINE))


class Source:
    """A registry of all packages, as an image layout, and the configuration that names it."""

    def __init__(self, directory):
        self.layout = oci.write_layout(directory / "layout", {
            name: package.item for name, package in PACKAGES.items()})
        self.config = directory / "ocifs.toml"
        self.config.write_text(f'[registry."{REGISTRY}"]\nlayout = {json.dumps(str(self.layout))}\n')
        # The same names, and nothing behind them: what is read under it comes from the store.
        self.no_source = directory / "no-source.toml"
        self.no_source.write_text(f'offline = true\n[registry."{REGISTRY}"]\n'
                                  f'layout = {json.dumps(str(directory / "gone"))}\n')


class Store:
    """A store in `directory`, and the programs run on it."""

    def __init__(self, directory, source):
        self.directory = pathlib.Path(directory)
        self.source = source

    def ctl(self, command, *arguments, config=None, environment=None):
        return execute([CTL, command, "--store", self.directory, "--config", config or self.source.config,
                        *arguments], environment)

    def prefetch(self, names, environment=None):
        return self.ctl("prefetch", *(PACKAGES[name].reference for name in names), environment=environment)

    def dump(self, names, *options, config=None, environment=None):
        return execute([DUMP, "--store", self.directory, "--config", config or self.source.config, *options,
                        *(PACKAGES[name].reference for name in names)], environment)

    def restore(self, prepared):
        """Becomes a copy of `prepared`, a directory; empty if that is missing."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if pathlib.Path(prepared).exists():
            subprocess.run(["cp", "-a", "--reflink=auto", prepared, self.directory], check=True)

    def files(self):
        """Paths below the store of all files that hold content, and of leftovers anywhere."""
        found = set()
        for path in self.directory.rglob("*"):
            relative = path.relative_to(self.directory)
            if not path.is_dir() and (relative.parts[0] in CONTENT or path.name.startswith(".staged-")):
                found.add(str(relative))
        return found

    def disk_bytes(self):
        """What the files take on the disk, without LMDB's table of readers."""
        return sum(path.stat().st_blocks * 512 for path in self.directory.rglob("*")
                   if path.is_file() and path.name != "lock.mdb")


def split_dump(text):
    """What package-dump printed: {reference: lines or error text}, and the inventory."""
    packages, inventory, lines = {}, set(), None
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if line == "opened":
            continue
        if kind == "i":
            inventory.add(rest)
        elif kind == "package":
            lines = packages.setdefault(rest, [])
        elif kind == "error":
            reference, _, why = rest.partition(": ")
            packages[reference] = why
            lines = None
        else:
            lines.append(line)
    return packages, inventory


# ------------------------------------------------------------------------------------------ checks


def check_dump(done, whole, partial=()):
    """Packages `whole` were printed right; those of `partial` right or with an error. Returns the
    names that were printed right."""
    found, _ = split_dump(done.out)
    right = set()
    for name in [*whole, *partial]:
        package = PACKAGES[name]
        lines = found.get(package.reference)
        if isinstance(lines, list):
            if lines not in (package.lines, package.lines + package.blob_lines):
                wrong = sorted(set(lines).symmetric_difference(package.lines + package.blob_lines))
                raise Loss(f"{name} reads wrong, for example {wrong[:3]}\n{done.err[-2000:]}")
            right.add(name)
        elif name in whole:
            why = lines or f"not printed, {done}"
            raise Loss(f"{name} does not read: {why}\n{done.err[-2000:]}")
    return right


def check_leftovers(store, inventory):
    """An opener was alone: content files are those that the index names, and nothing is half made."""
    found = store.files()
    unknown, missing = found - inventory, inventory - found
    # A pack is entered in the index before its file is made.
    missing = {path for path in missing if not path.startswith("packs/")}
    if unknown:
        raise Loss(f"leftovers: {sorted(unknown)[:5]}")
    if missing:
        raise Loss(f"named by the index and not there: {sorted(missing)[:5]}")


def check_fsck(store):
    if "fsck" in commands():
        demand("fsck", store.ctl("fsck", config=store.source.no_source))


class Full:
    """A store that holds all packages and to which nothing happened. How many packs another has that
    holds the same is a matter of chance, as pulls at one time write to different ones; what they
    take is not."""

    SLACK = 1 << 20  # the most that a crash may leave behind

    def __init__(self, store):
        done = store.prefetch(PACKAGES)
        if done.code != 0:
            raise Loss(f"prefetch: {done}")
        check_dump(store.dump(PACKAGES, "--blobs", config=store.source.no_source), PACKAGES)
        self.files, self.bytes = self.named(store), store.disk_bytes()

    @staticmethod
    def named(store):
        return {path for path in store.files() if not path.startswith("packs/")}

    def check(self, store):
        """`store` holds all packages as well, and has no more than this one."""
        if not self.named(store) <= self.files:
            raise Loss(f"files that are in no other store: {sorted(self.named(store) - self.files)[:5]}")
        if store.disk_bytes() > self.bytes + self.SLACK:
            raise Loss(f"{store.disk_bytes()} bytes on the disk, {self.bytes} if nothing happens")


def demand(what, done, codes=(0,)):
    if done.code not in codes:
        raise Loss(f"{what}: {done}")


def check_store(store, acknowledged, full=None, *, blobs=True, damaged=False):
    """A store after whatever happened to it. Packages `acknowledged` must be read without a source,
    with their raw blobs unless `blobs` is false; with it, all must; and then the store takes no more
    than `full`, a Full. `damaged`: the disk has harmed it besides, so that it may want a repair.
    Raises Loss."""
    options = ["--blobs"] if blobs else []
    offline = store.source.no_source
    demand("ls", store.ctl("ls", config=offline))
    for name in acknowledged:
        demand(f"status of {name}", store.ctl("status", PACKAGES[name].reference, config=offline))
    done = store.dump(PACKAGES, *options, config=offline)
    check_dump(done, acknowledged, set(PACKAGES) - set(acknowledged))
    if not damaged:
        # By itself: what was read may have been unpacked from raw blobs, and so been added.
        check_leftovers(store, split_dump(store.dump([], "--inventory", config=offline).out)[1])
        check_fsck(store)
    elif "fsck" in commands():
        demand("fsck --repair afterwards", store.ctl("fsck", "--repair"), (0, 1))
    demand("prefetch afterwards", store.prefetch(PACKAGES))
    check_dump(store.dump(PACKAGES, config=offline), PACKAGES)
    check_fsck(store)
    if "gc" in commands():
        demand("gc afterwards", store.ctl("gc"))
        check_dump(store.dump(PACKAGES, config=offline), PACKAGES)
    if full is not None:
        full.check(store)


def work_directory(asked):
    """Where stores are made: memory if there is some, as nothing here depends on a real disk."""
    if asked:
        return pathlib.Path(asked)
    return pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")


def missing_requirements(*more):
    """What the machine lacks, in words."""
    missing = [str(path) for path in (CTL, DUMP) if not os.access(path, os.X_OK)]
    return missing + [what for what, there in more if not there]


def leave_if_missing(missing):
    """Ends the test if the machine lacks something: not run, or failed with OCIFS_TEST_NO_SKIP."""
    if missing:
        print(f"cannot run here, missing: {', '.join(missing)}", file=sys.stderr)
        sys.exit(1 if os.environ.get("OCIFS_TEST_NO_SKIP") else SKIP)
