#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets of store/ and fetch/ below tests/fuzz/corpus.

Needs GNU tar and zstd. The seeds are committed; run this to change them.
"""

import gzip
import io
import json
import os
import pathlib
import struct
import subprocess
import tarfile
import tempfile

CORPUS = pathlib.Path(__file__).parent / "corpus"


def write(target, name, prefix, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(prefix + data)


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE,
                          check=True).stdout


def decompress_seeds():
    text = b"".join(b"line %d of a text\n" % (i % 17) for i in range(60))
    one = gzip.compress(text, mtime=0)
    full = (b"\x1f\x8b\x08\x1c\0\0\0\0\0\xff" + b"\x03\0abc" + b"name\0" + b"comment\0" + one[10:])
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0skip!"
    frame = zstd(text)
    for name, blob in {
        "plain": text,
        "gzip_one_member": one,
        "gzip_header_parts": full,
        "gzip_stored": gzip.compress(bytes(range(256)), compresslevel=0, mtime=0),
        "gzip_members_and_zeros": one + gzip.compress(b"", mtime=0) + full + bytes(20),
        "gzip_cut": one[:-5],
        "gzip_garbage_after": one + b"x",
        "gzip_bomb": gzip.compress(bytes(300_000), mtime=0),
        "zstd_one_frame": frame,
        "zstd_no_checksum": zstd(text, "--no-check"),
        "zstd_frames": skippable + frame + skippable + zstd(b"") + frame,
        "zstd_bomb": zstd(bytes(300_000)),
        "zstd_cut": frame[:-3],
    }.items():
        write("decompress_fuzz", name, b"\xff\x11", blob)
    write("decompress_fuzz", "gzip_over_the_limit", b"\x00\x02", one)
    write("decompress_fuzz", "zstd_over_the_limit", b"\x00\x02", frame)


def python_tar(fmt):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for name, kind, extra in [
            ("./", tarfile.DIRTYPE, {}),
            ("dir/file", tarfile.REGTYPE, {"size": 5}),
            ("d" * 90 + "/" + "n" * 90, tarfile.REGTYPE, {"size": 600}),
            ("link", tarfile.SYMTYPE, {"linkname": "dir/file"}),
            ("hard", tarfile.LNKTYPE, {"linkname": "dir/file"}),
            ("tty", tarfile.CHRTYPE, {"devmajor": 4, "devminor": 1}),
            ("pipe", tarfile.FIFOTYPE, {}),
        ]:
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in extra.items():
                setattr(info, key, value)
            if fmt == tarfile.PAX_FORMAT:
                info.pax_headers = {"mtime": "12.5", "SCHILY.xattr.user.a": "value"}
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()


def gnu_tar(folder, *options):
    return subprocess.run(
        ["tar", "-C", folder, "--sort=name", "--mtime=@1", "--owner=0", "--group=0",
         "--numeric-owner", "--blocking-factor=1", *options, "-cf", "-", "sparse"],
        stdout=subprocess.PIPE, check=True).stdout


def tar_seeds():
    for name, fmt in {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items():
        bare = python_tar(fmt).rstrip(b"\0")
        write("tar_fuzz", name, b"\x20", bare + bytes(-len(bare) % 512 + 1024))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sparse")
        with open(path, "wb") as file:
            for i in range(3):
                file.seek(8192 * i)
                file.write(b"%d" % i * 300)
            file.truncate(30_000)
        pax = ("--format=pax", "--sparse",
               "--pax-option=exthdr.name=x,delete=atime,delete=ctime,delete=mtime")
        write("tar_fuzz", "sparse_old", b"\x20", gnu_tar(folder, "--format=gnu", "--sparse"))
        for version in ("0.0", "0.1", "1.0"):
            write("tar_fuzz", "sparse_" + version.replace(".", "_"), b"\x20",
                  gnu_tar(folder, *pax, "--sparse-version=" + version))
    comment = tarfile.TarInfo("pax_global_header")
    comment.type = b"g"
    body = b"52 comment=" + b"0" * 40 + b"\n"
    comment.size = len(body)
    write("tar_fuzz", "global_comment", b"\x20",
          comment.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0") + bytes(1024))
    write("tar_fuzz", "empty", b"\x20", b"")


HEX = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
OCI = "application/vnd.oci.image."


def reference_seeds():
    for name, text in {
        "hub": "alpine",
        "tag": "ghcr.io/kcl-lang/helloworld:0.1.4",
        "digest": "oci://ghcr.io/a/b@sha256:" + HEX,
        "tag_and_digest": "localhost:5000/a/b:1@sha256:" + HEX,
        "ipv6": "[::1]:5000/a__b/c---d.e",
        "digest_alone": "sha256:" + HEX,
    }.items():
        write("reference_fuzz", name, b"", text.encode())


def auth_file_seeds():
    pair = {"auth": "dTpw"}
    for name, document in {
        "hosts": {"auths": {"r.example": pair, "r.example:5000": pair, "r.example/team": pair}},
        "older_keys": {"auths": {"https://r.example/v1/": pair, "https://index.docker.io/v1/": {}}},
        "lookalikes": {"auths": {"user@r.example": pair, "r.example.evil": pair, "R.example": pair}},
        "helpers": {"credsStore": "desktop", "auths": {"r.example": {}},
                    "credHelpers": {"docker.io": "hub", "r.example:5000": ""}},
        "tokens": {"auths": {"r.example": {"identitytoken": "t"}, "docker.io": {"registrytoken": "t"}}},
        "dockercfg": {"https://r.example/v1/": {"auth": "dTpw", "email": "a@b"}},
        "other_settings": {"HttpHeaders": {"A": [1, 1.5, "\n"]}, "auths": None},
        "helper_answer": {"ServerURL": "r.example", "Username": "u", "Secret": "p"},
        "helper_token": {"ServerURL": "", "Username": "<token>", "Secret": "t"},
    }.items():
        write("auth_file_fuzz", name, b"", json.dumps(document).encode())
    write("auth_file_fuzz", "indented", b"", json.dumps({"auths": {"x": {}}}, indent="\t").encode())
    write("auth_file_fuzz", "not_found", b"", b"credentials not found in native keychain\n")


def manifest_seeds():
    def descriptor(kind, **more):
        return {"mediaType": kind, "digest": "sha256:" + HEX, "size": 3, **more}

    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "data": "e30=",
             "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    title = {"org.opencontainers.image.title": "a.txt"}
    linux = {"os": "linux", "architecture": "amd64", "variant": "v2", "os.features": []}
    for name, document in {
        "image": {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                  "config": descriptor(OCI + "config.v1+json"),
                  "layers": [descriptor(OCI + "layer.v1.tar+gzip")]},
        "artifact": {"schemaVersion": 2, "artifactType": "application/x", "config": empty,
                     "layers": [descriptor("text/plain", annotations=title)],
                     "subject": descriptor(OCI + "manifest.v1+json"), "annotations": {"a": "b"}},
        "index": {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [
            descriptor(OCI + "manifest.v1+json", platform=linux),
            descriptor(OCI + "manifest.v1+json", platform={"os": "unknown"}),
            descriptor(OCI + "manifest.v1+json", artifactType="application/x")]},
        "config": {"os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + HEX]}},
        "values": [None, True, -9223372036854775808, 1.5e-7, "\u00e9\U0001f600\n", {"": []}],
    }.items():
        write("manifest_fuzz", name, b"\0", json.dumps(document).encode())
    write("manifest_fuzz", "number_that_crashed_rapidjson", b"\0",
          b"1." + b"0" * 400 + b"e-100000")
    write("manifest_fuzz", "text_after_a_nul", b"\0", b"{}\0{}")


def tree_seed():
    """A directory with a file of one chunk, a link and an xattr, as store/FORMAT.md says."""
    heap = b"dflinkd/fuser.xv"
    nodes = [(2, 0, 3, 0, 0, 2), (2, 0, 2, 0, 2, 1), (3, 3, 1, 0, 6, 3), (1, 5, 1, 0, 0, 1)]
    body = b"".join(struct.pack("<BBHIIIqQIIIIIIII", kind, 0, 0o755, 0, 0, links, 1, size, 0,
                                parent, first, count, 0, 1 if kind == 1 else 0, 0, 0)
                    for kind, size, links, parent, first, count in nodes)
    body += struct.pack("<32sQQQQQII", b"c" * 32, 0, 5, 512, 0, 0, 0, 0)
    for name, length, node in ((0, 1, 1), (2, 4, 2), (1, 1, 3)):
        body += struct.pack("<IIHH", name, node, length, 0)
    body += struct.pack("<IIIHH", 9, 15, 1, 6, 0) + heap
    header = struct.pack("<8sIIQIIIIQQB7x64sII", b"OCIFSTRE", 1, 136, 136 + len(body), 4, 3, 1, 1,
                         len(heap), 5, 1, b"m" * 32, 0, 0)  # the target makes the checksums
    write("tree_fuzz", "small", header, body)


def layer_seeds():
    """Entries: layer, kind, then paths: absolute?, components from 16 on, end."""
    def entry(kind, *paths, layer=1):
        return bytes([layer, kind]) + b"".join(b"\1" + bytes(p) + b"\0" for p in paths)
    directory, symlink, hard_link, file = 6, 7, 8, 4
    a, b, c, opaque, hide_a = 16, 17, 18, 24, 22
    for name, entries in {
        "whiteout": entry(file, [a]) + entry(file, [b, a]) + entry(file, [hide_a], layer=0),
        "opaque": entry(directory, [a]) + entry(file, [a, b]) + entry(file, [a, opaque], layer=0),
        "links": entry(file, [a]) + entry(symlink, [b], [c]) + entry(hard_link, [c, a], [a])
                 + entry(file, [b, c], layer=0),
    }.items():
        write("layer_fuzz", name, b"\1", entries)


def record_seeds():
    write("record_codec_fuzz", "integers", b"\1\3\0\1\2", bytes(13))
    write("record_codec_fuzz", "digest", b"\1\2\4\3",
          b"\1" + struct.pack("<I", 32) + b"d" * 32 + struct.pack("<I", 3) + b"abc")


def hosts_toml_seeds():
    for name, text in {
        "mirrors": """server = "https://registry-1.docker.io"
[host."http://192.168.31.250:5000"]
  capabilities = ["pull", "resolve", "push"]
  skip_verify = true
[host."https://non-compliant.example/v2/upstream"]
  capabilities = ["pull", "referrers"]
  override_path = true
  dial_timeout = "1m2.5s"
""",
        "certificates": """ca = ["a.pem", "/etc/b.pem"]
client = [["c.cert", "c.key"], ["both.pem", ""], "d.pem"]
[host."m.example:5001/prefix"]
  ca = "ca.pem"
  client = "both.pem"
""",
        "headers_first": """[host."https://b.example".header]
  x-key = "v"
  x-list = ["1", "2"]
[host."https://a.example"]
[host."https://b.example"]
""",
        "user_information": """server = "https://user:secret@a.example/?q#f"\n""",
        "empty": "",
        "scheme_that_is_a_path": """[host."https:/sip_verify/b.e@s://a.eexskkk"]
""",
    }.items():
        write("hosts_toml_fuzz", name, b"", text.encode())


def registries_conf_seeds():
    for name, text in {
        "mirrors": """unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar"
insecure = true
blocked = false
[[registry.mirror]]
location = "mirror.local/foo"
insecure = true
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "mirror-2.local"
pull-from-mirror = "tag-only"
""",
        "wildcard": """[[registry]]
prefix = "*.example.com"
[[registry]]
prefix = "*.example.com/foo"
location = "one.example"
mirror-by-digest-only = true
mirror = [{ location = "localhost:5000" }]
""",
        "blocked": "[[registry]]\nlocation = \"a.example\"\nblocked = true\n",
        "version_1": "[registries.insecure]\nregistries = [\"a.example\"]\n",
    }.items():
        write("registries_conf_fuzz", name, b"", text.encode())


if __name__ == "__main__":
    decompress_seeds()
    tar_seeds()
    reference_seeds()
    auth_file_seeds()
    manifest_seeds()
    tree_seed()
    layer_seeds()
    record_seeds()
    hosts_toml_seeds()
    registries_conf_seeds()
