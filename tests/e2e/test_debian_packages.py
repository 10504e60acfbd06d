#!/usr/bin/env python3
"""An image of real Debian packages, one layer each: thousands of files, links, odd modes."""

import os
import subprocess

import corpus
import fixtures
import harness
import oci
from tarfiles import Tar


class DebianPackages(harness.TestCase):
    def test_same_as_umoci(self):
        tars = corpus.package_tars(corpus.SMALL)
        # One more layer on top, as an image build would make it: removals and replacements.
        tars.append(Tar().whiteout("usr/lib/python3/dist-packages/django/contrib/gis")
                    .opaque("usr/share/zoneinfo/America").file("usr/share/zoneinfo/America/Nowhere", b"TZif")
                    .symlink("etc/localtime", "/usr/share/zoneinfo/UTC").bytes())
        item = oci.image(tars)
        registry = self.registry()
        registry.push("debian/some", "12", item)
        reference = harness.umoci_unpack(item, self.directory / "ref")
        entries = sum(len(folders) + len(names) for _, folders, names in os.walk(reference))
        self.assertGreater(entries, 4000)

        mounted = self.mount()
        shown = mounted.path(registry.address, "debian/some", "12")
        # Directories that only the layer on top names.
        loose = [path for path in (b"", b"etc") if path in harness.scan(reference)]
        self.assert_same_tree(shown, reference, loose)
        self.assert_same_tar(shown, reference, loose)
        # And through the store of a second life, with cold caches.
        mounted.restart()
        subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], check=True)
        self.assert_same_tree(shown, reference, loose)
        self.assertLess(mounted.peak_memory(), 96 << 20)

    def test_grep_finds_the_same(self):
        tars = corpus.package_tars(["python3-django"])
        item = oci.image(tars)
        registry = self.registry()
        registry.push("django", "1", item)
        reference = harness.umoci_unpack(item, self.directory / "ref")
        shown = self.mount().path(registry.address, "django", "1")
        command = ["grep", "-rlE", "class [A-Z]\\w+Field", "."]
        found, expected = (sorted(subprocess.run(command, cwd=root, check=True, capture_output=True)
                                  .stdout.splitlines()) for root in (shown, reference))
        self.assertGreater(len(expected), 10)
        self.assertEqual(found, expected)

    def test_large_layer_in_bounded_memory(self):
        """A layer of 256 MiB is pulled with less than 96 MiB of memory."""
        t = Tar().dir("./")
        for i in range(16):
            t.file(f"part-{i}", fixtures.noise(16 << 20, i))
        tar = t.bytes()
        registry = self.registry()
        registry.push("large", "1", oci.image([tar], layers=[oci.Layer(tar, oci.TAR)]))
        mounted = self.mount()
        root = mounted.path(registry.address, "large", "1")
        self.assertEqual(len(os.listdir(root)), 16)
        for i in (0, 7, 15):
            with open(os.path.join(root, f"part-{i}"), "rb") as file:
                self.assertEqual(oci.digest_of(file.read()), oci.digest_of(fixtures.noise(16 << 20, i)))
        self.assertLess(mounted.peak_memory(), 96 << 20)


if __name__ == "__main__":
    harness.main()
