"""The artifacts that the tests look at through a mount.

IMAGES: name -> function giving the plain tars of a container image, lowest layer first; what they
unpack to is asked of umoci. SHAPES: name -> function giving a Shape, an artifact that is no image,
with what must be seen of it. HOSTILE: name -> Hostile, images that no one should make.
"""

import dataclasses
import hashlib
import json
import pathlib
import random
import subprocess
import tempfile

import oci
import tarfiles
from oci import Layer, artifact, image
from tarfiles import BLOCK, CHAR, FIFO, BLOCK_DEVICE, LINK, NS, SYMLINK, TIME, Tar


def noise(size, seed=1):
    """Bytes that neither compress nor repeat."""
    return random.Random(seed).randbytes(size)


# ------------------------------------------------------------------------------------------ images


def everything():
    """Each kind of node, attribute and size that a layer can hold."""
    t = Tar()
    t.dir("./", mode=0o751, uid=3, gid=4, mtime_ns=TIME * NS + 5)
    t.file("./empty").file("./one", b"1").file("./block", noise(BLOCK)).file("./odd", noise(70_001))
    t.file("./big.bin", noise(20 << 20), mtime_ns=TIME * NS + 123_456_789)
    t.file("./zeros", bytes(3 << 20))
    t.file("./exactly-4M", noise(4 << 20, 2)).file("./4M-and-1", noise((4 << 20) + 1, 3))
    t.file("same-a", noise(50_000, 4)).file("same-b", noise(50_000, 4))
    t.dir("modes", mode=0o700)
    for mode in (0o000, 0o111, 0o400, 0o644, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644,
                 0o7777):
        t.file(f"modes/{mode:04o}", b"x", mode=mode)
    t.dir("setgid", mode=0o2775, gid=50).dir("sticky", mode=0o1777).dir("closed", mode=0o000)
    t.file("setgid/inside", b"in").file("closed/inside", b"in")
    t.file("owner", b"o", uid=1000, gid=1001).file("big-owner", b"o", uid=3_000_000, gid=4_000_000_000)
    t.dir("times")
    for name, when in {"epoch": 0, "nanosecond": TIME * NS + 1, "last": TIME * NS + 999_999_999,
                       "y2038": (1 << 31) * NS, "y2106": ((1 << 32) + 7) * NS,
                       "before": -86_400 * NS}.items():
        t.file(f"times/{name}", b"t", mtime_ns=when)
    t.dir("links")
    t.symlink("links/relative", "../one").symlink("links/absolute", "/etc/passwd")
    t.symlink("links/dangling", "nothing/there").symlink("links/self", "self")
    t.symlink("links/up", "../../../../../..").symlink("links/odd", " a\nb ")
    t.symlink("links/long", "d/" * 400 + "end", uid=7, gid=8, mtime_ns=TIME * NS + 77)
    t.dir("hard").file("hard/1", b"linked", mode=0o640, uid=9)
    t.hardlink("hard/2", "hard/1").hardlink("hard/3", "./hard/2").hardlink("elsewhere", "hard/1")
    t.symlink("hard/link", "1").hardlink("hard/link2", "hard/link")
    t.add("pipe", type=FIFO, mode=0o620)
    t.add("tty", type=CHAR, mode=0o660, major=4, minor=64, gid=5)
    t.add("disk", type=BLOCK_DEVICE, mode=0o600, major=259, minor=300)
    t.hardlink("pipe2", "pipe")
    t.dir("xattrs", xattrs={"user.of.directory": "d"})
    t.file("xattrs/one", b"x", xattrs={"user.name": "value"})
    t.file("xattrs/many", b"x", xattrs={f"user.key{i:02}": f"value {i}" for i in range(40)})
    t.file("xattrs/binary", b"x", xattrs={"user.bin": bytes(range(256)), "user.eq": b"a=b\n1 c=d\n"})
    t.file("xattrs/long", b"x", xattrs={"user.long": noise(3000, 5), "user." + "n" * 250: b"v"})
    t.hardlink("xattrs/linked", "xattrs/one")
    t.dir("deep")
    path = "deep"
    for i in range(60):
        path += f"/level-{i:02}"
        t.dir(path, mtime_ns=(TIME + i) * NS)
    t.file(path + "/" + "f" * 255, b"bottom")
    return [t.bytes()]


def names():
    """Names as bytes: the kernel forbids only NUL and '/'."""
    t = Tar().dir("./")
    for name in (b"-rf", b" leading", b"trailing ", b"new\nline", b"tab\there", b"esc\x1b[31m",
                 b"del\x7f", b"back\\slash", b"quote'\"", b"star*?[]", b"...", b".hidden", b"%2e%2e",
                 b"latin1-\xe9t\xe9", b"\xff\xfe\xfd", b"\x80", b"cut\xe2\x82", b"con", b"a:b", b"a+b",
                 b"Case", b"case", "caf\u00e9".encode(), "cafe\u0301".encode(), "\U0001f4e6".encode(),
                 b"n" * 255, "\u00e9".encode() * 127, b".wh", b"x.wh.y", b"sha256:abc", b"#", b"~"):
        t.file(name, b"content of " + name, pax={b"path": name} if len(name) > 100 else None)
    t.dir(b"dir-\xe9").file(b"dir-\xe9/in", b"in")
    t.symlink(b"link-\xe9", b"dir-\xe9/\xff")
    t.dir("many")
    for i in range(3000):
        t.file(f"many/{hashlib.sha1(b'%d' % i).hexdigest()}", b"%d" % i)
    return [t.bytes()]


def gnu_names():
    """Long names and link targets in GNU tar's way."""
    t = Tar("gnu").dir("./")
    t.file("a" * 100, b"100").file("b" * 101, b"101").file("c" * 255, b"255")
    folder = ""
    for part in ("d" * 120, "e" * 120, "f" * 120):
        folder = f"{folder}{part}/"
        t.dir(folder)
    t.file(folder + "deep", b"deep")
    t.symlink("long-target", "t" * 300).symlink("g" * 150, "u" * 150)
    t.hardlink("h" * 150, folder + "deep").hardlink("i", "b" * 101)
    t.file(b"j-\xe9" * 60, b"not UTF-8")
    return [t.bytes()]


def sparse(*options):
    """Files with holes, by GNU tar."""
    def make():
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            for name, parts, size in (
                    ("only-hole", [], 5 << 20), ("head", [(0, 5000)], 3 << 20),
                    ("tail", [((6 << 20) - 4096, 4096)], 6 << 20),
                    ("middle", [(1 << 20, 70_000)], 9 << 20),
                    ("comb", [(i * 65536, 4096) for i in range(1, 200, 2)], 200 * 65536),
                    ("far", [(64 << 20, 9)], (64 << 20) + 9)):
                with open(root / name, "wb") as file:
                    for offset, length in parts:
                        file.seek(offset)
                        file.write(noise(length, offset))
                    file.truncate(size)
            (root / "dense").write_bytes(noise(10_000))
            return [tarfiles.from_directory(root, "--sparse", *options)]
    return make


def sparse_beyond_4_gib():
    """One file that is nearly all hole; (plain tar, size, its last bytes)."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "far"
        with open(path, "wb") as file:
            file.seek(1 << 32)
            file.write(b"far away\n")
        return tarfiles.from_directory(directory, "--sparse", "--format=gnu"), (1 << 32) + 9, b"far away\n"


def whiteouts():
    """Removal of files, directories and of nothing, wherever the whiteout stands in its layer."""
    low = Tar().dir("./").dir("a").file("a/keep", b"1").file("a/gone", b"2").dir("a/tree")
    for i in range(20):
        low.file(f"a/tree/{i}", b"%d" % i)
    low.dir("b").file("b/x", b"low x").file("b/y", b"low y").dir("c").dir("c/d").file("c/d/e", b"e")
    low.file("whole", b"w").symlink("link", "whole").file("again", b"first")
    low.dir("kept-dir", mode=0o700, uid=5).file("kept-dir/1", b"1").file("kept-dir/2", b"2")
    middle = Tar().whiteout("a/gone").whiteout("a/tree").whiteout("no/such/thing").whiteout("nothing")
    # The same name removed and made in one layer: what the layer makes is there.
    middle.whiteout("b/x").file("b/x", b"middle x")
    middle.file("b/y", b"middle y").whiteout("b/y")
    middle.whiteout("link").whiteout("again").whiteout("kept-dir/1")
    top = Tar().file("again", b"third").dir("a/tree").file("a/tree/new", b"n").whiteout("c")
    top.whiteout("whole")
    return [low.bytes(), middle.bytes(), top.bytes()]


def opaque():
    """Opaque directories before, between and behind their new content, and one inside another."""
    low = Tar().dir("./")
    for name in ("first", "last", "between", "outer", "attributes", "alone"):
        low.dir(name, mode=0o711, uid=6, mtime_ns=TIME * NS + 6)
        low.dir(f"{name}/sub").file(f"{name}/low", b"low").file(f"{name}/sub/low", b"low")
    top = Tar().opaque("first").file("first/top", b"top")
    top.file("last/top", b"top").opaque("last")
    top.file("between/1", b"1").opaque("between").file("between/2", b"2")
    top.dir("outer").opaque("outer").dir("outer/sub").opaque("outer/sub").file("outer/sub/t", b"t")
    top.dir("attributes", mode=0o755, uid=0, mtime_ns=TIME * NS).opaque("attributes")
    top.opaque("alone")
    third = Tar().file("first/sub/third", b"3").file("alone/third", b"3")
    return [low.bytes(), top.bytes(), third.bytes()]


def replaced():
    """One path that is something else in each layer."""
    layers = [Tar().dir("./").file("p", b"file").dir("q").file("q/child", b"c").file("r", b"r")
              .dir("s").file("s/1", b"1").symlink("t", "s")]
    layers.append(Tar().dir("p", mode=0o710).file("p/child", b"child").file("q", b"file now")
                  .symlink("r", "q").file("t", b"no link"))
    layers.append(Tar().file("p", b"file again", mode=0o600).dir("q").file("q/other", b"o")
                  .dir("r").file("r/in", b"in").add("s", type=FIFO))
    layers.append(Tar().symlink("p", "q").dir("s").file("s/2", b"2"))
    return [layer.bytes() for layer in layers]


def hard_links_across_layers():
    """Links to what lower layers hold, whose names then come and go."""
    low = Tar().dir("./").file("a", b"shared", mode=0o640, uid=11).file("b", b"other").dir("d")
    low.hardlink("d/a0", "a")
    second = Tar().hardlink("a1", "a").hardlink("d/a2", "a1").hardlink("b1", "b")
    third = Tar().file("a", b"replaced").whiteout("b").hardlink("a3", "d/a0")
    fourth = Tar().whiteout("d/a0").file("b1", b"own now").hardlink("new", "a")
    return [low.bytes(), second.bytes(), third.bytes(), fourth.bytes()]


def merged_directories():
    """A directory that several layers name: children stay, attributes are the last one's."""
    low = Tar().dir("./", mode=0o755).dir("d", mode=0o700, uid=1, xattrs={"user.low": "1"})
    low.file("d/low", b"l").dir("untouched", mode=0o750, uid=2).file("untouched/1", b"1")
    top = Tar().dir("d", mode=0o771, gid=3, mtime_ns=TIME * NS + 9, xattrs={"user.top": "2"})
    top.file("d/top", b"t").dir("./", mode=0o711, mtime_ns=TIME * NS + 10)
    return [low.bytes(), top.bytes()]


def symlinked_parents():
    """Entries below a symlink go where it leads inside the tree (usr-merge)."""
    low = Tar().dir("./").dir("usr").dir("usr/lib").file("usr/lib/a", b"a").symlink("lib", "usr/lib")
    low.symlink("abs", "/usr/lib").symlink("chain", "lib")
    top = Tar().file("lib/b", b"b").file("abs/c", b"c").file("chain/d", b"d").whiteout("lib/a")
    return [low.bytes(), top.bytes()]


def duplicates():
    """The same name several times in one layer: the last counts."""
    t = Tar().dir("./").file("x", b"first").file("x", b"second", mode=0o600).file("y", b"file")
    t.dir("z").file("z/in", b"in")
    t.symlink("y", "x").file("w", b"w").hardlink("w2", "w").file("w", b"new w")
    for i in range(500):
        t.file("often", b"%d" % i)
    return [t.bytes()]


def implicit_directories():
    """Files whose directories no entry names."""
    return [Tar().file("a/b/c/file", b"1").file("a/b/d", b"2").bytes(),
            Tar().file("a/b/c/second", b"3").file("e/f/g", b"4").bytes()]


def odd_names_of_entries():
    """One path can be written in many ways."""
    t = Tar().dir("./").file("./a", b"a").dir("d/").file(".//d//x", b"x").file("d/./y", b"y")
    t.hardlink("./d/z", "./a")
    return [t.bytes(), Tar().file("./d/x", b"x2").bytes()]


def no_end_of_archive():
    """Layers that stop after the last byte: no padding, no zero blocks (umoci insert)."""
    first = Tar().dir("./").file("a", b"a")
    second = Tar().file("b", noise(700))
    whole = second.bytes(end=False)
    return [first.bytes(end=False), whole[:-(-700 % BLOCK)]]


def empty_layers():
    """A layer without entries, and one that is nothing at all."""
    return [Tar().dir("./").file("a", b"a").bytes(), bytes(1024), b"", Tar().file("b", b"b").bytes()]


def global_comment():
    """git archive puts a comment into a global PAX header."""
    t = Tar()
    record = tarfiles.pax_record(b"comment", b"0123456789abcdef0123456789abcdef01234567")
    t.raw(tarfiles.header(b"pax_global_header", type=b"g", size=len(record)))
    t.raw(tarfiles.padded(record))
    return [t.dir("./").file("a", b"a").bytes()]


def old_tar():
    """Before POSIX: no magic, a directory is a name that ends in a slash."""
    t = Tar()
    t.raw(tarfiles.header(b"d/", type=b"\0", magic=b"", mode=0o755))
    t.raw(tarfiles.header(b"d/f", type=b"\0", magic=b"", size=3)).raw(tarfiles.padded(b"old"))
    t.raw(tarfiles.header(b"c", type=b"7", size=3)).raw(tarfiles.padded(b"con"))
    return [t.bytes()]


IMAGES = {
    "everything": everything,
    "names": names,
    "gnu-names": gnu_names,
    "sparse-gnu": sparse("--format=gnu"),
    "sparse-pax-0.0": sparse("--format=pax", "--sparse-version=0.0"),
    "sparse-pax-0.1": sparse("--format=pax", "--sparse-version=0.1"),
    "sparse-pax-1.0": sparse("--format=pax", "--sparse-version=1.0"),
    "whiteouts": whiteouts,
    "opaque": opaque,
    "replaced": replaced,
    "hard-links-across-layers": hard_links_across_layers,
    "merged-directories": merged_directories,
    "symlinked-parents": symlinked_parents,
    "duplicates": duplicates,
    "implicit-directories": implicit_directories,
    "odd-names-of-entries": odd_names_of_entries,
    "no-end-of-archive": no_end_of_archive,
    "empty-layers": empty_layers,
    "global-comment": global_comment,
    "old-tar": old_tar,
}


# umoci 0.4.7 refuses type flags S, g and 7; GNU tar unpacks these (they have one layer).
ONLY_GNU_TAR = {"sparse-gnu", "global-comment", "old-tar"}


def plain_tars():
    """A small image of two layers, for everything that is about blobs rather than trees."""
    low = Tar().dir("./").file("a", noise(300_000)).dir("d").file("d/b", b"text\n" * 1000)
    low.file("gone", b"g").symlink("l", "d/b")
    top = Tar().file("c", noise(5000, 2)).whiteout("gone")
    return [low.bytes(), top.bytes()]


def compressions():
    """Name -> the two layers of plain_tars() as blobs: every codec, every lie about it."""
    tars = plain_tars()

    def both(pack, media_type):
        return [Layer(pack(tar), media_type) for tar in tars]

    same, gz, zst = (lambda data: data), tarfiles.gzipped, tarfiles.zstd
    return {
        "plain": both(same, oci.TAR),
        "gzip": both(gz, oci.TAR_GZIP),
        "gzip-members": both(lambda data: gz(data, 7), oci.TAR_GZIP),
        "zstd": both(zst, oci.TAR_ZSTD),
        "zstd-frames": both(lambda data: zst(data, 5), oci.TAR_ZSTD),
        "zstd-skippable": both(lambda data: zst(data, 3, skippable=True), oci.TAR_ZSTD),
        "gzip-called-tar": both(gz, oci.TAR),
        "tar-called-gzip": both(same, oci.TAR_GZIP),
        "zstd-called-gzip": both(zst, oci.TAR_GZIP),
        "gzip-called-octet-stream": both(gz, "application/octet-stream"),
        "gzip-called-tar.gz": both(gz, "application/vnd.oci.image.layer.v1.tar.gz"),
        "nondistributable": both(gz, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    }


# ------------------------------------------------------------------------------------------ shapes


@dataclasses.dataclass
class Shape:
    """An artifact, and what must be seen: the union of plain tars and of files by name."""
    artifact: oci.Artifact
    tars: list = dataclasses.field(default_factory=list)
    files: dict = dataclasses.field(default_factory=dict)


def kcl_tar():
    t = Tar()
    t.file("kcl.mod", b'[package]\nname = "konf"\nversion = "1.2.3"\n')
    t.file("main.k", b"a = 1\n").dir("sub").file("sub/b.k", b"b = 2\n")
    return t.bytes()


KCL = {"org.kcllang.package.name": "konf", "org.kcllang.package.version": "1.2.3",
       "org.kcllang.package.sum": "7Vmi5kKeCHNcQ3FGFqVcFaQBZ0NAE3ttTQGcLZqQwYg="}


def kcl_layer_config():
    """The config is a layer by type, with the body {}."""
    data = kcl_tar()
    return Shape(artifact([Layer(data, oci.TAR)], config=b"{}", config_type=oci.TAR,
                          annotations=KCL), [data])


def kcl_titled_tar():
    data = kcl_tar()
    return Shape(artifact([Layer(data, oci.TAR, title="konf_1.2.3.tar")], inline_config=True,
                          artifact_type=oci.TAR, annotations=KCL), [data])


def kcl_titled_tgz():
    data = kcl_tar()
    return Shape(artifact([Layer(tarfiles.gzipped(data), oci.TAR, title="konf_1.2.3.tgz")],
                          inline_config=True, artifact_type=oci.TAR, annotations=KCL), [data])


HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_CHART = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
HELM_PROVENANCE = "application/vnd.cncf.helm.chart.provenance.v1.prov"


def chart_tar():
    return (Tar().file("web/Chart.yaml", b"apiVersion: v2\nname: web\nversion: 1.0.0\n")
            .file("web/values.yaml", b"replicas: 1\n").file("web/templates/x.yaml", b"kind: X\n")
            .file("web/charts/sub/Chart.yaml", b"apiVersion: v2\nname: sub\n").bytes())


def helm():
    data = chart_tar()
    return Shape(artifact([Layer(tarfiles.gzipped(data), HELM_CHART)],
                          config=b'{"name":"web","version":"1.0.0","apiVersion":"v2"}',
                          config_type=HELM_CONFIG), [data])


def helm_provenance_first():
    data, signature = chart_tar(), b"-----BEGIN PGP SIGNED MESSAGE-----\nname: web\n"
    layers = [Layer(signature, HELM_PROVENANCE), Layer(tarfiles.gzipped(data), HELM_CHART)]
    return Shape(artifact(layers, config=b'{"name":"web","version":"1.0.0","apiVersion":"v2"}',
                          config_type=HELM_CONFIG), [data],
                 {oci.digest_of(signature).replace(":", "-"): signature})


def flux():
    data = Tar().dir("./").file("./kustomization.yaml", b"resources: []\n").bytes()
    return Shape(artifact(
        [Layer(tarfiles.gzipped(data), "application/vnd.cncf.flux.content.v1.tar+gzip")],
        config_type="application/vnd.cncf.flux.config.v1+json"), [data])


def wasm():
    code = b"\0asm\1\0\0\0" + noise(5000)
    return Shape(artifact([Layer(code, "application/wasm", title="plugin.wasm")],
                          config_type="application/vnd.wasm.config.v0+json"),
                 files={"plugin.wasm": code})


def oras_files():
    """Plain files with titles, one of them in a directory."""
    files = {"notes.txt": b"notes\n", "data/table.csv": b"a,b\n1,2\n", "empty": b"",
             "z.bin": noise(100_000)}
    return Shape(artifact([Layer(data, "application/vnd.acme.file", title=title)
                           for title, data in files.items()],
                          config_type="application/vnd.acme.config.v1+json"), files=files)


def oras_directory():
    """A directory that oras packed: the tar's names already begin with the title."""
    t = Tar().dir("docs").file("docs/index.md", b"# hi\n").dir("docs/img")
    t.file("docs/img/a.png", noise(900)).symlink("docs/latest", "index.md")
    data = t.bytes()
    note = {oci.UNPACK: "true", "io.deis.oras.content.digest": oci.digest_of(data)}
    return Shape(artifact([Layer(tarfiles.gzipped(data), oci.TAR_GZIP, note, title="docs"),
                           Layer(b"top\n", "text/plain", title="README")],
                          artifact_type="application/vnd.acme.docs"), [data], {"README": b"top\n"})


def timoni():
    """A module and its vendored schemas, one layer each."""
    module = (Tar().file("timoni.cue", b"package main\n").dir("templates")
              .file("templates/c.cue", b"c").bytes())
    vendor = Tar().dir("cue.mod").file("cue.mod/module.cue", b'module: "x"\n').bytes()
    kind = "application/vnd.timoni.content.v1.tar+gzip"
    layers = [Layer(tarfiles.gzipped(data), kind, {"sh.timoni.content.type": what})
              for data, what in ((vendor, "vendor"), (module, "module"))]
    return Shape(artifact(layers, config_type="application/vnd.timoni.config.v1+json"), [vendor, module])


def opa_bundle():
    """The config is an image's by type only; names in the bundle begin with a slash."""
    data = Tar().file("/data.json", b"{}").file("/policy/main.rego", b"package main\n").bytes()
    return Shape(artifact([Layer(tarfiles.gzipped(data), oci.TAR_GZIP, title="bundle.tar.gz")],
                          config_type=oci.CONFIG), [data])


def unikraft():
    """A kernel and its root filesystem, as titled files."""
    kernel = b"\x7fELF" + noise(3000)
    return Shape(artifact([Layer(kernel, "application/vnd.unikraft.kernel.v1", title="kernel")],
                          config_type="application/vnd.unikraft.config.v1+json"),
                 files={"kernel": kernel})


def titled_file():
    return Shape(artifact([Layer(b"only me\n", "text/plain", title="only.txt")]),
                 files={"only.txt": b"only me\n"})


def untitled_file():
    data = b"nobody named me\n"
    return Shape(artifact([Layer(data, "text/plain")]),
                 files={"sha256-" + hashlib.sha256(data).hexdigest(): data})


def titled_archive():
    """An archive under the title of a file is unpacked: titles of archives are not names."""
    data = Tar().file("inside", b"i").bytes()
    return Shape(artifact([Layer(tarfiles.gzipped(data), "application/octet-stream", title="x.tgz")]),
                 [data])


def compressed_file():
    """gzip of something that is no tar is a file, as it is."""
    data = tarfiles.gzipped(b"just text, compressed\n" * 99)
    return Shape(artifact([Layer(data, "application/gzip", title="log.gz")]), files={"log.gz": data})


def zero_layers():
    return Shape(artifact([], artifact_type="application/vnd.acme.nothing"))


def inline_empty_config():
    return Shape(artifact([Layer(b"x", "text/plain", title="x")], inline_config=True,
                          artifact_type="application/vnd.acme.x"), files={"x": b"x"})


def whiteout_names_are_names():
    """What an image takes for a whiteout is an ordinary file in an artifact."""
    low, top = Tar().file("a", b"a").bytes(), Tar().file(".wh.a", b"w").bytes()
    return Shape(artifact([Layer(tarfiles.gzipped(low)), Layer(tarfiles.gzipped(top))],
                          artifact_type="application/vnd.acme.files"), [low, top])


SHAPES = {
    "kcl-layer-config": kcl_layer_config,
    "kcl-titled-tar": kcl_titled_tar,
    "kcl-titled-tgz": kcl_titled_tgz,
    "helm": helm,
    "helm-provenance-first": helm_provenance_first,
    "flux": flux,
    "wasm": wasm,
    "oras-files": oras_files,
    "oras-directory": oras_directory,
    "timoni": timoni,
    "opa-bundle": opa_bundle,
    "unikraft": unikraft,
    "titled-file": titled_file,
    "untitled-file": untitled_file,
    "titled-archive": titled_archive,
    "compressed-file": compressed_file,
    "zero-layers": zero_layers,
    "inline-empty-config": inline_empty_config,
    "whiteout-names-are-names": whiteout_names_are_names,
}


# ----------------------------------------------------------------------------------------- hostile


@dataclasses.dataclass
class Hostile:
    """An image whose fault its name tells. `refused`: the errno names that are right for the whole
    package; empty if it is shown, harmless: then `shown` is what is there, path -> content (None: a
    directory)."""
    tars: list
    refused: tuple = ()
    shown: dict = dataclasses.field(default_factory=dict)
    layers: list = None  # blobs as pulled, if they are more than the gzipped tars


BAD = ("EBADMSG",)


def hostile():
    def one(t, refused=BAD, shown=None):
        return Hostile([t.bytes()], () if shown is not None else refused, shown or {})

    link_out = Tar().symlink("out", "/").file("out/etc/owned", b"x")
    loop = Tar().symlink("a", "b").symlink("b", "a").file("a/x", b"x")
    chain = Tar().dir("target")
    for i in range(45):
        chain.symlink(f"l{i}", f"l{i + 1}" if i < 44 else "target")
    chain.file("l0/x", b"x")
    truncated = Tar().file("a", noise(5000)).bytes(end=False)[:3000]
    checksum = bytearray(Tar().file("a", b"a").file("b", b"b").bytes())
    checksum[2 * BLOCK + 5] ^= 0x55
    smuggled = Tar().file("hidden", b"h").bytes(end=False)
    after_end = Tar().file("a", b"a").bytes() + Tar().file("late", b"l").bytes()
    nul_in_path = Tar().add("x", b"x", pax={b"path": b"good\0/../../evil"})
    return {
        "absolute-names": one(Tar().file("/etc/passwd", b"not yours").dir("/x").file("//y", b"y"),
                              shown={"etc": None, "etc/passwd": b"not yours", "x": None, "y": b"y"}),
        "parent-components": one(Tar().file("../../escape", b"x")),
        "parent-components-inside": one(Tar().dir("a").file("a/../../b", b"x")),
        "symlink-out": one(link_out, shown={"etc": None, "etc/owned": b"x"}),
        "symlink-up": one(Tar().symlink("up", "../../..").file("up/x", b"x"), shown={"x": b"x"}),
        "symlink-loop": one(loop),
        "symlink-chain-45": one(chain),
        "root-is-a-symlink": one(Tar().symlink("./", "/etc").file("x", b"x")),
        "root-is-a-file": one(Tar().file("./", b"x")),
        "hard-link-to-nothing": one(Tar().hardlink("x", "nothing")),
        "hard-link-out": one(Tar().hardlink("x", "/etc/passwd")),
        "hard-link-up": one(Tar().hardlink("x", "../../etc/passwd")),
        "hard-link-to-directory": one(Tar().dir("d").hardlink("x", "d")),
        "hard-link-to-itself": one(Tar().hardlink("x", "x")),
        "name-of-256-bytes": one(Tar().file("n" * 256, b"x"), ("EBADMSG", "EFBIG")),
        "path-of-5000-bytes": one(Tar().file("d/" * 2500 + "x", b"x"), ("EBADMSG", "EFBIG")),
        "depth-1100": one(Tar().file("d/" * 1100 + "x", b"x"), ("EBADMSG", "EFBIG")),
        "link-target-of-5000-bytes": one(Tar().symlink("x", "t/" * 2500), ("EBADMSG", "EFBIG")),
        "empty-link-target": one(Tar().symlink("x", "")),
        "nul-in-pax-path": one(nul_in_path),
        "cut-archive": Hostile([truncated], BAD),
        "bad-checksum": Hostile([bytes(checksum)], BAD),
        "entries-after-the-end": Hostile([after_end], BAD),
        "body-of-a-symlink": one(Tar().add("l", smuggled, type=SYMLINK, link=b"t")),
        "body-of-a-hard-link": one(Tar().file("f", b"f").add("l", smuggled, type=LINK, link=b"f")),
        "negative-size": one(Tar().raw(tarfiles.header(b"x", size=-1))),
        "huge-size": one(Tar().raw(tarfiles.header(b"x", size=1 << 62)), ("EBADMSG", "EFBIG")),
        "uid-of-40-bits": one(Tar().file("x", b"x", uid=(1 << 40) - 1)),
        "unknown-type": one(Tar().add("x", b"x", type=b"Z")),
        "whiteout-of-nothing": one(Tar().file(".wh.", b"")),
        "whiteout-of-dot": one(Tar().file("d/.wh..", b"")),
        "whiteout-of-dot-dot": one(Tar().file("d/.wh...", b"")),
        "global-path": one(Tar().raw(tarfiles.header(b"g", type=b"g", size=13))
                           .raw(tarfiles.padded(b"13 path=evil\n")).file("x", b"x")),
        "xattr-too-long": one(Tar().file("x", b"x", xattrs={"user.big": noise(2 << 20)}), ("EFBIG", "EBADMSG")),
        "overlay-whiteout-device": one(Tar().dir("d").add("gone", type=CHAR).file("x", b"x"),
                                       shown={"d": None, "x": b"x"}),
        "overlay-xattrs": one(Tar().dir("d", xattrs={"user.overlay.opaque": "y", "trusted.overlay.opaque": "y"}),
                              shown={"d": None}),
    }


def bombs():
    """Images over the limits: each with the [limits] that it breaks, in configuration text."""
    zeros = Tar().file("zeros", bytes(80 << 20)).bytes()
    many = Tar()
    for i in range(3000):
        many.file(f"f{i}")
    large = Tar().file("a", noise(3 << 20)).file("b", noise(3 << 20, 2)).bytes()
    return {
        "gzip-bomb": (image([zeros]), "max_expansion = 10"),
        "zstd-bomb": (image([zeros], layers=[Layer(tarfiles.zstd(zeros), oci.TAR_ZSTD)]), "max_expansion = 10"),
        "too-many-entries": (image([many.bytes()]), "max_entries = 1000"),
        "too-much-content": (image([large]), 'max_unpacked = "4MiB"'),
        "blob-too-large": (image([large]), 'max_blob = "4MiB"'),
    }


# ----------------------------------------------------------------------------------------- indexes


def platform_images():
    """platform -> an image that says what it is for."""
    return {name: image([Tar().dir("./").file("platform", name.encode()).bytes()],
                        **dict(zip(("os", "architecture", "variant"), name.split("/"))))
            for name in ("linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "linux/s390x",
                         "windows/amd64", "linux/386")}


def platform_index(media_type=oci.INDEX):
    """An index as BuildKit makes them, with an attestation that is no image."""
    entries = []
    for name, item in platform_images().items():
        system, architecture, *variant = name.split("/")
        platform = {"os": system, "architecture": architecture}
        if variant:
            platform["variant"] = variant[0]
        entries.append((item, {"platform": platform}))
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1"}).encode()
    attestation = artifact([Layer(statement, "application/vnd.in-toto+json")],
                           config=b'{"architecture":"unknown","os":"unknown"}', config_type=oci.CONFIG)
    unknown = {"platform": {"os": "unknown", "architecture": "unknown"},
               "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                               "vnd.docker.reference.digest": entries[0][0].digest}}
    return oci.index([(attestation, unknown)] + entries, media_type)
