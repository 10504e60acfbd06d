"""Writes tar archives entry by entry, also those that no tar program would write."""

import gzip
import subprocess

BLOCK = 512
TIME = 1_700_000_000  # seconds; the mtime of entries that do not say
NS = 1_000_000_000

FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


def octal(value, width):
    """A numeric header field: octal digits and NUL, or base 256 when these do not fit."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value + (1 << (8 * width - 1) if value >= 0 else 1 << (8 * width))).to_bytes(width, "big")


def header(name, *, type=FILE, size=0, mode=0o644, uid=0, gid=0, mtime=TIME, link=b"", major=0,
           minor=0, prefix=b"", magic=b"ustar\00000"):
    """One header block; names of any bytes, cut to their fields."""
    block = bytearray(BLOCK)

    def put(offset, data):
        block[offset:offset + len(data)] = data

    put(0, name[:100])
    put(100, octal(mode, 8))
    put(108, octal(uid, 8))
    put(116, octal(gid, 8))
    put(124, octal(size, 12))
    put(136, octal(mtime, 12))
    put(148, b" " * 8)
    put(156, type)
    put(157, link[:100])
    put(257, magic)
    put(265, b"root")
    put(297, b"root")
    put(329, octal(major, 8))
    put(337, octal(minor, 8))
    put(345, prefix[:155])
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def pax_record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def decimal_time(nanoseconds):
    """The PAX form of a time: seconds with a fraction, "-1.5" for a second and a half before 1970."""
    sign, seconds, rest = "-" if nanoseconds < 0 else "", *divmod(abs(nanoseconds), NS)
    return f"{sign}{seconds}.{rest:09}".rstrip("0").rstrip(".").encode()


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


class Tar:
    """An archive under construction. `style` says how what ustar cannot hold is written."""

    def __init__(self, style="pax"):
        self.style = style
        self.parts = []

    def raw(self, data):
        self.parts.append(data)
        return self

    def add(self, name, data=b"", *, type=FILE, mode=None, uid=0, gid=0, mtime_ns=TIME * NS,
            link=b"", xattrs=None, major=0, minor=0, pax=None, size=None):
        """Adds an entry. `pax` holds further records; `size` overrules the length of `data`."""
        name, link, data = as_bytes(name), as_bytes(link), as_bytes(data)
        if mode is None:
            mode = {DIRECTORY: 0o755, SYMLINK: 0o777}.get(type, 0o644)
        size = len(data) if size is None else size
        records = dict(pax or {})
        if self.style == "gnu":
            for flag, text in ((b"K", link), (b"L", name)):
                if len(text) > 100:
                    self.parts.append(header(b"././@LongLink", type=flag, size=len(text) + 1,
                                             mtime=0, magic=b"ustar  \0"))
                    self.parts.append(padded(text + b"\0"))
        else:
            if len(name) > 100:
                records.setdefault(b"path", name)
            if len(link) > 100:
                records.setdefault(b"linkpath", link)
            if mtime_ns % NS or mtime_ns < 0:
                records.setdefault(b"mtime", decimal_time(mtime_ns))
            for key, value in (xattrs or {}).items():
                records[b"SCHILY.xattr." + as_bytes(key)] = as_bytes(value)
        if records:
            body = b"".join(pax_record(as_bytes(k), as_bytes(v)) for k, v in records.items())
            self.parts.append(header(b"PaxHeaders/entry", type=b"x", size=len(body)))
            self.parts.append(padded(body))
        magic = b"ustar  \0" if self.style == "gnu" else b"ustar\00000"
        self.parts.append(header(name, type=type, size=size, mode=mode, uid=uid, gid=gid,
                                 mtime=max(mtime_ns // NS, 0), link=link, major=major, minor=minor,
                                 magic=magic))
        self.parts.append(padded(data))
        return self

    def file(self, name, data=b"", **more):
        return self.add(name, data, **more)

    def dir(self, name, **more):
        return self.add(as_bytes(name).rstrip(b"/") + b"/", type=DIRECTORY, **more)

    def symlink(self, name, target, **more):
        return self.add(name, type=SYMLINK, link=target, **more)

    def hardlink(self, name, target, **more):
        return self.add(name, type=LINK, link=target, **more)

    def whiteout(self, name):
        """Removes `name` of the layers below."""
        folder, _, last = as_bytes(name).rpartition(b"/")
        return self.add((folder + b"/" if folder else b"") + b".wh." + last)

    def opaque(self, name):
        """Hides what the layers below have in the directory `name`."""
        return self.add((as_bytes(name) + b"/" if name else b"") + b".wh..wh..opq")

    def bytes(self, end=True):
        return b"".join(self.parts) + (bytes(2 * BLOCK) if end else b"")


def from_directory(path, *options):
    """What GNU tar makes of a directory."""
    return subprocess.run(
        ["tar", "-C", path, "--sort=name", f"--mtime=@{TIME}", "--owner=0", "--group=0",
         "--numeric-owner", *options, "-cf", "-", "."], check=True, stdout=subprocess.PIPE).stdout


def gzipped(data, members=1):
    """gzip, cut into so many members."""
    step = -(-len(data) // members) or 1
    pieces = [data[i:i + step] for i in range(0, len(data), step)] or [b""]
    return b"".join(gzip.compress(piece, 6, mtime=0) for piece in pieces)


def zstd(data, frames=1, skippable=False):
    """zstd by its own program, cut into so many frames, with skippable frames around them."""
    step = -(-len(data) // frames) or 1
    pieces = [data[i:i + step] for i in range(0, len(data), step)] or [b""]
    packed = [subprocess.run(["zstd", "-q", "-c"], input=piece, check=True,
                             stdout=subprocess.PIPE).stdout for piece in pieces]
    if skippable:
        note = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
        return note + note.join(packed) + note
    return b"".join(packed)
