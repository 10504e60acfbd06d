#!/usr/bin/env python3
"""An OCI image layout on disk, shown as a registry: what the demo mounts."""

import os

import fixtures
import harness
import oci
from tarfiles import Tar

EXAMPLE = harness.ROOT / "packaging" / "example"


class Example(harness.TestCase):
    def setUp(self):
        super().setUp()
        config = f'[registry."example.local"]\nlayout = {harness.toml_string(EXAMPLE / "layout")}\n'
        self.mounted = self.mount(config=config)

    def test_browsing(self):
        def listed(*parts):
            return sorted(os.listdir(self.mounted.path(*parts)))

        self.assertEqual(listed(), ["example.local"])
        self.assertEqual(listed("example.local"), ["charts", "kcl"])
        self.assertEqual(listed("example.local", "kcl"), ["hello"])
        self.assertEqual(listed("example.local", "kcl", "hello"), ["0.1.0"])
        self.assertEqual(listed("example.local", "kcl", "hello", "0.1.0"),
                         ["README.md", "kcl.mod", "kcl.mod.lock", "main.k"])
        self.assertEqual(listed("example.local", "charts", "web", "0.1.0"), ["web"])

    def test_content_is_the_source(self):
        for shown, source in (("kcl/hello/0.1.0", "hello"), ("charts/web/0.1.0/web", "web")):
            root = EXAMPLE / "src" / source
            paths = [path for path in root.rglob("*") if path.is_file()]
            self.assertGreater(len(paths), 3)
            for path in paths:
                with open(self.mounted.path("example.local", shown, path.relative_to(root)), "rb") as file:
                    self.assertEqual(file.read(), path.read_bytes(), path)

    def test_names_that_are_not_there(self):
        for path in ("nowhere.invalid", "example.local/none", "example.local/kcl/hello/9.9.9",
                     "example.local/kcl/hello/0.1.0/none", "example.local/.git", "example.local/kcl/.Trash-0",
                     "example.local/kcl/hello/0.1.0/main.k/x"):
            with self.subTest(path=path):
                expected = "ENOTDIR" if path.endswith("main.k/x") else "ENOENT"
                self.assert_errno(expected, os.stat, self.mounted.path(path))
        self.assert_errno("ENAMETOOLONG", os.stat, self.mounted.path("n" * 256))


class Layouts(harness.TestCase):
    def config(self, layout):
        return f'[registry."x.test"]\nlayout = {harness.toml_string(layout)}\n'

    def test_damaged_blob(self):
        """A layout is no more trusted than a registry."""
        item = oci.image(fixtures.plain_tars())
        layout = self.layout("layout", {"x:1": item})
        victim = layout / "blobs" / "sha256" / item.document["layers"][0]["digest"].partition(":")[2]
        data = victim.read_bytes()
        victim.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        mounted = self.mount(config=self.config(layout))
        self.assert_errno("EBADMSG", os.listdir, mounted.path("x.test", "x", "1"))
        self.assertIn(item.document["layers"][0]["digest"], mounted.log())

    def test_missing_blob(self):
        item = oci.image(fixtures.plain_tars())
        layout = self.layout("layout", {"x:1": item})
        (layout / "blobs" / "sha256" / item.document["layers"][1]["digest"].partition(":")[2]).unlink()
        mounted = self.mount(config=self.config(layout))
        self.assert_errno("EREMOTEIO", os.listdir, mounted.path("x.test", "x", "1"))

    def test_layout_that_grows(self):
        """A tag that comes later is seen when it is asked for."""
        layout = self.layout("layout", {"x:1": oci.image([Tar().dir("./").file("one", b"1").bytes()])})
        mounted = self.mount(config=self.config(layout))
        self.assertEqual(os.listdir(mounted.path("x.test", "x", "1")), ["one"])
        second = self.layout("second", {"y:2": oci.image([Tar().dir("./").file("two", b"2").bytes()])})
        for path in (second / "blobs" / "sha256").iterdir():
            path.rename(layout / "blobs" / "sha256" / path.name)
        (second / "index.json").rename(layout / "index.json")
        self.assertEqual(os.listdir(mounted.path("x.test", "y", "2")), ["two"])

    def test_content_stays_when_the_layout_goes(self):
        """What was read once is served from the store when the layout is gone."""
        layout = self.layout("layout", {"x:1": oci.image([Tar().dir("./").file("a", b"kept").bytes()])})
        mounted = self.mount(config=self.config(layout))
        with open(mounted.path("x.test", "x", "1", "a"), "rb") as file:
            self.assertEqual(file.read(), b"kept")
        layout.rename(self.directory / "moved")
        mounted.restart()
        with open(mounted.path("x.test", "x", "1", "a"), "rb") as file:
            self.assertEqual(file.read(), b"kept")


if __name__ == "__main__":
    harness.main()
