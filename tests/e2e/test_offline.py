#!/usr/bin/env python3
"""What was read once needs no network again; what was not fails at once."""

import os
import subprocess

import fixtures
import harness
import oci
from tarfiles import Tar


def read_all(root):
    """Reads names, attributes and content of a whole tree."""
    return harness.tar_digest(harness.enter(root))


class SecondRead(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.local = self.registry()
        self.local.push("app", "1.0", oci.image(fixtures.plain_tars()))
        self.local.push("charts/web", "1", fixtures.helm().artifact)
        self.local.push("multi", "1", fixtures.platform_index())
        self.paths = [os.path.join(self.local.address, *name.split(":"))
                      for name in ("app:1.0", "charts/web:1", "multi:1")]

    def requests(self):
        return self.local.requests()

    def test_first_access_costs_what_it_must(self):
        """Manifest, config unless inline, layers: no ping, no HEAD, nothing twice."""
        before = len(self.requests())
        mounted = self.mount()
        self.assertEqual(len(self.requests()), before, "mounting talks to the registry")
        read_all(mounted.path(self.local.address, "app", "1.0"))
        made = self.requests()[before:]
        self.assertEqual({method for method, _, _ in made}, {"GET"})
        blobs = [path for _, path, _ in made if "/blobs/" in path]
        self.assertEqual(len(blobs), len(set(blobs)))
        self.assertEqual(len(blobs), 3)  # config and two layers
        manifests = [path for _, path, _ in made if "/manifests/" in path]
        self.assertEqual(len(manifests), len(set(manifests)))
        self.assertFalse([path for _, path, _ in made if path in ("/v2", "/v2/")])

    def test_one_layer_package_by_exact_name(self):
        """registry/repo:tag says all: three requests for an image of one layer, two with an inline
        config."""
        self.local.push("one", "1", oci.image([Tar().dir("./").file("a", b"a").bytes()]))
        self.local.push("two", "1", fixtures.kcl_titled_tgz().artifact)
        mounted = self.mount()
        for name, expected in (("one:1", 3), ("two:1", 2)):
            before = len(self.requests())
            read_all(mounted.path(self.local.address, name))
            made = self.requests()[before:]
            self.assertEqual(len(made), expected, made)

    def test_second_read_makes_no_request(self):
        mounted = self.mount()
        first = {path: read_all(mounted.path(path)) for path in self.paths}
        before = self.requests()
        for path in self.paths:
            self.assertEqual(read_all(mounted.path(path)), first[path])
        self.assertEqual(self.requests(), before)
        mounted.restart()
        for path in self.paths:
            self.assertEqual(read_all(mounted.path(path)), first[path])
        self.assertEqual(self.requests(), before)

    def test_registry_gone_and_restarted(self):
        mounted = self.mount()
        first = {path: read_all(mounted.path(path)) for path in self.paths}
        os.listdir(mounted.path(self.local.address, "app"))
        self.local.stop()
        mounted.restart()
        for path in self.paths:
            self.assertEqual(read_all(mounted.path(path)), first[path])
        self.assertEqual(os.listdir(mounted.path()), [self.local.address])
        self.assertIn("1.0", os.listdir(mounted.path(self.local.address, "app")))
        self.assertLessEqual({"app", "charts", "multi"}, set(os.listdir(mounted.path(self.local.address))))
        for path in (f"{self.local.address}/app/2.0", f"{self.local.address}/never/1",
                     f"{self.local.address}/never:1", f"{self.local.address}/app/sha256:{'0' * 64}",
                     "127.0.0.1:1/x/y", "registry.invalid/x/y"):
            with self.subTest(path=path):
                _, seconds = self.assert_errno(("ENOENT", "EHOSTUNREACH"), os.stat, mounted.path(path))
                self.assertLess(seconds, 2)
        # Names that cannot be names cost nothing and are simply not there.
        for path in (".git", "app/.Trash-0", "app/1.0/../.hg"):
            self.assert_errno("ENOENT", os.stat, mounted.path(self.local.address, path))
        # What was unreachable is not remembered as missing.
        self.local.start()
        self.local.push("never", "1", oci.image([Tar().dir("./").file("late", b"l").bytes()]))

        def late():
            try:
                return os.listdir(mounted.path(self.local.address, "never", "1"))
            except OSError:
                return None

        # A registry that was away is looked for every few seconds.
        self.assertEqual(harness.until(late, "the registry that is back is found", 6), ["late"])

    def test_offline_option(self):
        """offline = true forbids every request, with the registry up."""
        mounted = self.mount()
        first = {path: read_all(mounted.path(path)) for path in self.paths}
        mounted.stop()
        before = self.requests()
        offline = self.mount("offline", config="offline = true\n", store=mounted.store)
        for path in self.paths:
            self.assertEqual(read_all(offline.path(path)), first[path])
        self.local.push("app", "2.0", oci.image([Tar().dir("./").bytes()]))
        pushed = self.requests()
        self.assertGreater(len(pushed), len(before))
        _, seconds = self.assert_errno(("EHOSTUNREACH", "ENOENT"), os.stat,
                                       offline.path(self.local.address, "app", "2.0"))
        self.assertLess(seconds, 1)
        self.assertEqual(self.requests(), pushed)

    def test_no_network_at_all(self):
        """In an empty network namespace everything that was read is there."""
        mounted = self.mount()
        first = {path: read_all(mounted.path(path)) for path in self.paths}
        mounted.stop()
        alone = self.mount("alone", store=mounted.store, command=["unshare", "-n"])
        for path in self.paths:
            self.assertEqual(read_all(alone.path(path)), first[path])

    def test_climbing_tools(self):
        """Tools that look for kcl.mod, go.mod, .git on the way up ask the registry little and once."""
        mounted = self.mount()
        read_all(mounted.path(self.local.address, "app", "1.0"))

        def climb():
            for folder in (f"{self.local.address}/app/1.0", f"{self.local.address}/app", self.local.address, ""):
                for name in ("kcl.mod", "go.mod", "package.json", ".git", ".editorconfig", "Makefile"):
                    self.assert_errno(("ENOENT", "EHOSTUNREACH"), os.stat, mounted.path(folder, name))

        climb()
        before = self.requests()
        climb()
        self.assertEqual(self.requests(), before)

    def test_tags_are_listed_and_not_resolved(self):
        for i in range(30):
            self.local.push("tags", f"v{i}", oci.image([Tar().dir("./").file("n", b"%d" % i).bytes()]))
        mounted = self.mount()
        before = len(self.requests())
        self.assertEqual(sorted(os.listdir(mounted.path(self.local.address, "tags"))),
                         sorted(f"v{i}" for i in range(30)))
        listing = subprocess.run(["ls", mounted.path(self.local.address, "tags")], capture_output=True)
        self.assertEqual(len(listing.stdout.split()), 30)
        made = self.requests()[before:]
        self.assertFalse([path for _, path, _ in made if "/blobs/" in path])
        self.assertLessEqual(len(made), 3, made)


if __name__ == "__main__":
    harness.main()
