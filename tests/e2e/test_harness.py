#!/usr/bin/env python3
"""The measuring instruments themselves: comparisons that notice, registries that serve, references
that agree with each other."""

import os
import shutil
import subprocess
import unittest

import fixtures
import harness
import oci
import tarfiles
from tarfiles import Tar


class Comparison(harness.TestCase):
    """Every kind of difference between two trees is found."""

    def setUp(self):
        super().setUp()
        tar = (Tar().dir("./").file("f", b"content", xattrs={"user.a": "1"}).file("g", b"other")
               .hardlink("h", "f").symlink("l", "f").dir("d").file("d/x", b"x")
               .add("c", type=tarfiles.CHAR, major=1, minor=3).bytes())
        self.a = str(harness.tar_unpack([tar], {}, self.directory / "a"))
        self.b = str(harness.tar_unpack([tar], {}, self.directory / "b"))

    def test_equal(self):
        self.assertEqual(harness.differences(self.a, self.b), [])
        self.assertEqual(harness.tar_digest(self.a), harness.tar_digest(self.b))

    def test_each_difference(self):
        def path(name):
            return os.path.join(self.a, name)

        def rewrite(data):
            status = os.stat(path("g"))
            with open(path("g"), "wb") as file:
                file.write(data)
            os.utime(path("g"), ns=(status.st_atime_ns, status.st_mtime_ns))

        def relink():
            os.unlink(path("h"))
            shutil.copy2(path("f"), path("h"))

        changes = {
            "content": lambda: rewrite(b"0ther"), "size": lambda: rewrite(b"others"),
            "mode": lambda: os.chmod(path("f"), 0o600), "setuid": lambda: os.chmod(path("f"), 0o4644),
            "owner": lambda: os.chown(path("l"), 5, -1, follow_symlinks=False),
            "group": lambda: os.chown(path("d"), -1, 5),
            "nanosecond": lambda: os.utime(path("f"), ns=(1, tarfiles.TIME * tarfiles.NS + 1)),
            "xattr": lambda: os.setxattr(path("f"), "user.a", b"2"),
            "more xattrs": lambda: os.setxattr(path("d"), "user.b", b"2"),
            "hard link": relink, "missing": lambda: os.unlink(path("d/x")),
            "too much": lambda: os.mkdir(path("d/y")),
            "target": lambda: (os.unlink(path("l")), os.symlink("g", path("l"))),
            "type": lambda: (os.unlink(path("g")), os.mkfifo(path("g"))),
            "device": lambda: (os.unlink(path("c")), os.mknod(path("c"), 0o20644, os.makedev(1, 5))),
        }
        pristine = str(self.directory / "pristine")
        subprocess.run(["cp", "-a", self.a, pristine], check=True)
        for what, change in changes.items():
            with self.subTest(change=what):
                shutil.rmtree(self.a)
                subprocess.run(["cp", "-a", pristine, self.a], check=True)
                self.assertEqual(harness.differences(self.a, self.b), [])
                change()
                self.assertNotEqual(harness.differences(self.a, self.b), [])


class References(harness.TestCase):
    """Two programs that share no code unpack the fixtures of one layer alike."""

    def test_umoci_and_gnu_tar(self):
        # GNU tar writes through a hard link when the name comes again; all else they read alike.
        compared = 0
        for name, make in fixtures.IMAGES.items():
            tars = make()
            if len(tars) > 1 or name in fixtures.ONLY_GNU_TAR or name == "duplicates":
                continue
            with self.subTest(image=name):
                umoci = harness.umoci_unpack(oci.image(tars), self.directory / f"u-{name}")
                gnu = harness.tar_unpack(tars, {}, self.directory / f"g-{name}")
                self.assert_same_tree(umoci, gnu)
                compared += 1
        self.assertGreater(compared, 5)


class Registries(harness.TestCase):
    def test_push_and_log(self):
        registry = self.registry()
        items = {"image": oci.image(fixtures.plain_tars()), "index": fixtures.platform_index(),
                 "docker": oci.image(fixtures.plain_tars(), docker=True),
                 **{name: make().artifact for name, make in fixtures.SHAPES.items()}}
        for name, item in items.items():
            registry.push(f"pushed/{name}", "1", item)
        before = len(registry.requests())
        for name, item in items.items():
            _, headers, data = registry.client().request(
                "GET", f"/v2/pushed/{name}/manifests/1", headers={"Accept": item.media_type})
            self.assertEqual(data, item.manifest)
            self.assertEqual(headers["Docker-Content-Digest"], item.digest)
        self.assertEqual(len(registry.requests()), before + len(items))
        harness.run("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false",
                    f"docker://{registry.address}/pushed/index:1", f"oci:{self.directory}/copied:1")

    def test_stop_and_start_again(self):
        registry = self.registry()
        item = oci.image(fixtures.plain_tars())
        registry.push("a", "1", item)
        address = registry.address
        registry.stop()
        self.assertRaises(ConnectionRefusedError, registry.client().request, "GET", "/v2/")
        registry.start()
        self.assertEqual(registry.address, address)
        registry.client().request("GET", f"/v2/a/manifests/{item.digest}", headers={"Accept": oci.MANIFEST})

    def test_faults(self):
        registry = self.fault_registry()
        item = oci.image(fixtures.plain_tars())
        registry.push("a", "1", item)
        digest = item.document["layers"][0]["digest"]
        client = oci.Client(registry.address)
        self.assertEqual(client.request("GET", "/v2/a/manifests/1")[2], item.manifest)
        self.assertEqual(client.request("GET", "/v2/a/manifests/2", expect=(404,))[0], 404)
        registry.fault = lambda path, data: registry.Fault(200, data, cut=10) if "/blobs/" in path else None
        with self.assertRaises(harness.http.client.IncompleteRead):
            client.request("GET", f"/v2/a/blobs/{digest}")
        self.assertEqual(registry.requests[-1], ("GET", f"/v2/a/blobs/{digest}"))


if __name__ == "__main__":
    harness.main()
