#!/usr/bin/env python3
"""Container images: layers merge to the tree that umoci unpacks, however they are packed."""

import os
import unittest

import fixtures
import harness
import oci
from tarfiles import NS, Tar

# Directories that no entry of a fixture describes.
IMPLICIT = {
    "implicit-directories": [b"", b"a", b"a/b", b"a/b/c", b"e", b"e/f"],
    "old-tar": [b""],
    "opaque": [b"first", b"first/sub"],  # umoci makes the second late and so touches the first
}


class Images(harness.TestCase):
    """All fixtures from one layout, read through one mount."""

    def setUp(self):
        super().setUp()
        self.tars = {name: make() for name, make in fixtures.IMAGES.items()}
        layout = self.layout("layout", {f"images/{name}:1": oci.image(tars)
                                        for name, tars in self.tars.items()})
        self.mounted = self.mount(config=f'[registry."images.test"]\nlayout = {harness.toml_string(layout)}\n')

    def test_trees(self):
        for name, tars in self.tars.items():
            with self.subTest(image=name):
                reference = self.directory / f"ref-{name}"
                if name in fixtures.ONLY_GNU_TAR:
                    reference = harness.tar_unpack(tars, {}, reference)
                else:
                    reference = harness.umoci_unpack(oci.image(tars), reference)
                shown = self.mounted.path("images.test", "images", name, "1")
                implicit = IMPLICIT.get(name, [])
                self.assert_same_tree(shown, reference, implicit)
                self.assert_same_tar(shown, reference, implicit)

    def test_tar_is_the_first_to_come(self):
        """What tar writes does not depend on whether somebody else has looked at the package before."""
        for name in ("everything", "merged-directories"):
            with self.subTest(image=name):
                shown = self.mounted.path("images.test", "images", name, "1")
                first = harness.tar_digest(shown)
                self.assertEqual(harness.tar_digest(shown), first)

    def test_attributes_of_a_root_are_true_once_it_was_listed(self):
        for name in self.tars:
            with self.subTest(image=name):
                root = self.mounted.path("images.test", "images", name, "1")
                os.lstat(root)
                os.listdir(root)
                self.assertGreaterEqual(os.lstat(root).st_nlink, 2)

    def test_listing_is_complete(self):
        self.assertEqual(sorted(os.listdir(self.mounted.path("images.test", "images"))),
                         sorted(fixtures.IMAGES))
        self.assertEqual(os.listdir(self.mounted.path("images.test", "images", "names")), ["1"])


class Compressions(harness.TestCase):
    def test_every_codec_and_every_lie(self):
        """The same layers in every packing give the same tree."""
        registry = self.registry()
        tars = fixtures.plain_tars()
        reference = harness.umoci_unpack(oci.image(tars), self.directory / "ref")
        packed = fixtures.compressions()
        for name, layers in packed.items():
            registry.push("codec/" + name.replace(".", "-"), "1", oci.image(tars, layers=layers))
        mounted = self.mount()
        for name in packed:
            with self.subTest(packing=name):
                shown = mounted.path(registry.address, "codec", name.replace(".", "-"), "1")
                self.assert_same_tree(shown, reference)
                self.assert_same_tar(shown, reference)


class Documents(harness.TestCase):
    """Docker's manifests, indexes, platforms."""

    def setUp(self):
        super().setUp()
        self.local = self.registry()

    def shown(self, mounted, repository, tag="1"):
        return mounted.path(self.local.address, repository, tag)

    def test_docker_schema_2(self):
        tars = fixtures.whiteouts()
        self.local.push("docker", "1", oci.image(tars, docker=True))
        reference = harness.umoci_unpack(oci.image(tars), self.directory / "ref")
        mounted = self.mount()
        self.assert_same_tree(self.shown(mounted, "docker"), reference)
        self.assert_same_tar(self.shown(mounted, "docker"), reference)

    def test_manifest_without_media_type(self):
        """umoci 0.4.7 writes none."""
        item = oci.image([Tar().dir("./").file("a", b"a").bytes()])
        document = dict(item.document)
        del document["mediaType"]
        untyped = oci.Artifact(document, item.blobs.values())
        self.local.push("untyped", "1", untyped)
        mounted = self.mount()
        with open(self.shown(mounted, "untyped") + "/a", "rb") as file:
            self.assertEqual(file.read(), b"a")

    def test_platforms(self):
        for kind, media_type in (("oci", oci.INDEX), ("list", oci.DOCKER_LIST)):
            self.local.push(f"multi/{kind}", "1", fixtures.platform_index(media_type))
        default = self.mount("default")
        for kind in ("oci", "list"):
            with open(self.shown(default, f"multi/{kind}") + "/platform", "rb") as file:
                self.assertEqual(file.read(), b"linux/amd64")
        arm = self.mount("arm", config='platform = "linux/arm/v8"\n')
        with open(self.shown(arm, "multi/oci") + "/platform", "rb") as file:
            self.assertEqual(file.read(), b"linux/arm/v7")  # the best that a v8 runs
        riscv = self.mount("riscv", config='platform = "linux/riscv64"\n')
        self.assert_errno(("ENOENT", "EOPNOTSUPP"), os.listdir, self.shown(riscv, "multi/oci"))
        self.assertIn("linux/amd64", riscv.log())  # says what there is

    def test_by_digest_and_exact_forms(self):
        item = oci.image([Tar().dir("./").file("a", b"exact").bytes()])
        self.local.push("some/repo", "v1", item)
        mounted = self.mount()
        host = self.local.address
        plus = item.digest.replace(":", "+")
        for path in (f"{host}/some/repo/v1", f"{host}/some/repo:v1", f"{host}/some/repo+v1",
                     f"{host}/some/repo/{item.digest}", f"{host}/some/repo@{item.digest}",
                     f"{host}/some/repo/{plus}", f"{host}/some/repo@{plus}",
                     f"{host.replace(':', '+')}/some/repo/v1"):
            with self.subTest(path=path), open(mounted.path(path, "a"), "rb") as file:
                self.assertEqual(file.read(), b"exact")

    def test_oci_view(self):
        layer = oci.Layer(b"text\n", "text/plain", title="note.txt")
        item = oci.artifact([layer], config=b'{"a":1}', config_type="application/vnd.acme+json",
                            annotations={"org.example.key": "value", "b/c": "slash"})
        self.local.push("viewed", "1", item)
        mounted = self.mount()
        root = self.shown(mounted, "viewed")
        self.assertEqual(os.listdir(root), ["note.txt"])  # .oci is there and not listed

        def read(*parts):
            with open(os.path.join(root, ".oci", *parts), "rb") as file:
                return file.read()

        self.assertEqual(read("manifest.json"), item.manifest)
        self.assertEqual(read("config.json"), b'{"a":1}')
        self.assertEqual(read("annotations", "org.example.key"), b"value")
        self.assertIn("org.example.key", os.listdir(os.path.join(root, ".oci", "annotations")))
        self.assertEqual(read("blobs", "note.txt"), b"text\n")
        self.assertLessEqual({"manifest.json", "config.json", "annotations", "blobs"},
                             set(os.listdir(os.path.join(root, ".oci"))))

    def test_attributes_of_a_package(self):
        item = oci.image([Tar().dir("./").file("a", b"a").bytes()])
        self.local.push("attributes", "1", item)
        mounted = self.mount()
        root = self.shown(mounted, "attributes")
        os.listdir(root)
        listed = [name for name in os.listxattr(root) if name.startswith("user.oci.")]
        for name in ("reference", "digest", "media_type", "fetched_at", "cached", "source"):
            self.assertIn("user.oci." + name, listed)
        values = {name: os.getxattr(root, name).decode() for name in listed}
        self.assertEqual(values["user.oci.digest"], item.digest)
        self.assertEqual(values["user.oci.reference"], f"{self.local.address}/attributes:1")
        self.assertEqual(values["user.oci.media_type"], oci.MANIFEST)
        self.assertIn(values["user.oci.source"], ("registry", "cache"))
        self.assert_errno("ENODATA", os.getxattr, root, "user.oci.nothing")

    def test_real_tools_push(self):
        """What skopeo copies from a layout into the registry is the same tree, zstd too."""
        tars = fixtures.plain_tars()
        layout = self.layout("source", {"image": oci.image(tars)})
        reference = harness.umoci_unpack(oci.image(tars), self.directory / "ref")
        for codec in ("gzip", "zstd"):
            # skopeo remembers where it saw a layer and would reuse the gzipped one.
            harness.run("unshare", "-m", "sh", "-c",
                        "mkdir -p /var/lib/containers && mount -t tmpfs tmpfs /var/lib/containers && "
                        'exec skopeo --insecure-policy copy --dest-tls-verify=false --format oci '
                        '--dest-compress-format "$0" "oci:$1:image" "docker://$2"',
                        codec, str(layout), f"{self.local.address}/skopeo-{codec}:1")
        mounted = self.mount()
        for codec in ("gzip", "zstd"):
            with self.subTest(codec=codec):
                self.assert_same_tree(self.shown(mounted, f"skopeo-{codec}"), reference)


class Details(harness.TestCase):
    def open_image(self, *tars):
        layout = self.layout("layout", {"image:1": oci.image(list(tars))})
        mounted = self.mount(config=f'[registry."x.test"]\nlayout = {harness.toml_string(layout)}\n')
        return mounted.path("x.test", "image", "1")

    def test_sparse_beyond_4_gib(self):
        tar, size, tail = fixtures.sparse_beyond_4_gib()
        path = os.path.join(self.open_image(tar), "far")
        self.assertEqual(os.stat(path).st_size, size)
        descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        for offset in (0, (1 << 31) - 7, 1 << 31, (1 << 32) - 4096):
            self.assertEqual(os.pread(descriptor, 4096, offset), bytes(4096))
        self.assertEqual(os.pread(descriptor, 100, (1 << 32) - 3), bytes(3) + tail)
        self.assertEqual(os.pread(descriptor, 100, size), b"")

    def test_times_before_1970_with_a_fraction(self):
        """PAX: mtime=-1.5 is a second and a half before 1970."""
        root = self.open_image(Tar().dir("./").file("x", b"x", mtime_ns=-3 * NS // 2).bytes())
        self.assertEqual(os.stat(os.path.join(root, "x")).st_mtime_ns, -3 * NS // 2)

    def test_capabilities_are_not_shown(self):
        capability = bytes.fromhex("0100000200200000000000000000000000000000")
        root = self.open_image(Tar().dir("./").file(
            "ping", b"x", mode=0o755, xattrs={"security.capability": capability, "user.kept": "1"}).bytes())
        self.assertEqual(os.listxattr(os.path.join(root, "ping")), ["user.kept"])

    def test_read_only(self):
        root = self.open_image(Tar().dir("./").file("x", b"x", mode=0o777).dir("d").bytes())
        path = os.path.join(root, "x")
        self.assert_errno("EROFS", os.open, path, os.O_WRONLY)
        self.assert_errno("EROFS", os.open, os.path.join(root, "new"), os.O_CREAT | os.O_WRONLY)
        self.assert_errno("EROFS", os.unlink, path)
        self.assert_errno("EROFS", os.rename, path, path + "2")
        self.assert_errno("EROFS", os.mkdir, os.path.join(root, "e"))
        self.assert_errno("EROFS", os.rmdir, os.path.join(root, "d"))
        self.assert_errno("EROFS", os.chmod, path, 0o600)
        self.assert_errno("EROFS", os.chown, path, 1, 1)
        self.assert_errno("EROFS", os.utime, path)
        self.assert_errno("EROFS", os.truncate, path, 0)
        self.assert_errno("EROFS", os.symlink, "t", os.path.join(root, "s"))
        self.assert_errno("EROFS", os.link, path, os.path.join(root, "h"))
        self.assert_errno("EROFS", os.setxattr, path, "user.a", b"b")
        self.assert_errno("EROFS", os.removexattr, path, "user.a")

    def test_mount_flags(self):
        root = self.open_image(Tar().dir("./").file("suid", b"x", mode=0o4755).bytes())
        flags = os.statvfs(root).f_flag
        for name in ("ST_RDONLY", "ST_NOSUID", "ST_NODEV", "ST_NOATIME"):
            self.assertTrue(flags & getattr(os, name), name)


if __name__ == "__main__":
    harness.main()
