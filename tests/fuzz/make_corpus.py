#!/usr/bin/env python3
"""Writes the seeds of decompress_fuzz and tar_fuzz below tests/fuzz/corpus.

Needs GNU tar and zstd. The seeds are committed; run this to change them.
"""

import gzip
import io
import os
import pathlib
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


if __name__ == "__main__":
    decompress_seeds()
    tar_seeds()
