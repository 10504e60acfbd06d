"""Content from real Debian packages, downloaded once into a cache.

OCIFS_E2E_CACHE names the cache (build/e2e-cache unless set).
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

import harness
import oci
import tarfiles

CACHE = pathlib.Path(os.environ.get("OCIFS_E2E_CACHE", harness.ROOT / "build" / "e2e-cache"))

# Thousands of small files, hard and symbolic links, set-uid programs, deep paths.
SMALL = ["python3-django", "tzdata", "passwd", "sudo", "git-man", "perl-base", "ncurses-term"]

# 46,000 entries, 490 MB: the image of the first-access benchmark.
LARGE = ["golang-1.19-src", "libboost1.74-dev", "libllvm14", "linux-headers-*-common", "python3-django"]


def newest(pattern):
    """The name of an available package; a * stands for the newest version in it."""
    if "*" not in pattern:
        return pattern
    head, tail = pattern.split("*")
    names = subprocess.run(["apt-cache", "pkgnames", head], check=True, text=True,
                           stdout=subprocess.PIPE).stdout.split()
    fitting = [name for name in names if name.endswith(tail) and name[len(head):len(head) + 1].isdigit()
               and "rt-" not in name and "cloud" not in name]
    if not fitting:
        raise AssertionError(f"no package is called {pattern}")
    return max(fitting, key=lambda name: [int(part) if part.isdigit() else -1
                                          for part in name.replace("-", ".").split(".")])


def download(names):
    """Paths of the .deb files, in the order of the names."""
    CACHE.mkdir(parents=True, exist_ok=True)

    def cached(name):
        return next(iter(sorted(CACHE.glob(f"{name}_*.deb"))), None)

    for attempt in range(2):
        try:
            exact = [newest(name) for name in names]
            missing = [name for name in exact if cached(name) is None]
            if missing:
                # The cache belongs to root; apt's own sandbox user could not write there.
                subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *missing],
                               cwd=CACHE, check=True, capture_output=True)
            return [cached(name) for name in exact]
        except (subprocess.CalledProcessError, AssertionError):
            if attempt:
                raise
            subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
    return None


def package_tars(names):
    """What each package installs, as the tar inside it."""
    return [subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, stdout=subprocess.PIPE).stdout
            for path in download(names)]


def large_layer():
    """The path of one tar+gzip layer of the LARGE packages, cached; and that of the plain tar."""
    packages = download(LARGE)
    name = CACHE / ("large-" + oci.digest_of("\n".join(path.name for path in packages).encode())[7:23])
    plain, packed = name.with_suffix(".tar"), name.with_suffix(".tar.gz")
    if not packed.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            for path in packages:
                subprocess.run(["dpkg-deb", "-x", path, directory], check=True)
            os.chmod(directory, 0o755)
            with open(plain, "wb") as file:
                subprocess.run(["tar", "-C", directory, "--sort=name", f"--mtime=@{tarfiles.TIME}",
                                "--numeric-owner", "-cf", "-", "."], check=True, stdout=file)
            partial = packed.with_suffix(".partial")
            with open(plain, "rb") as source, open(partial, "wb") as file:
                subprocess.run(["gzip", "-6", "-n"], check=True, stdin=source, stdout=file)
            shutil.move(partial, packed)
    return packed, plain
