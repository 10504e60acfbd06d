#!/usr/bin/env python3
"""Archives that no one should make: refused with the errno of the table, or shown without harm."""

import os
import stat

import fixtures
import harness
import oci
import tarfiles


class Hostile(harness.TestCase):
    def test_archives(self):
        cases = fixtures.hostile()
        layout = self.layout("layout", {f"hostile/{name}:1": oci.image(case.tars)
                                        for name, case in cases.items()})
        mounted = self.mount(config=f'[registry."h.test"]\nlayout = {harness.toml_string(layout)}\n')
        for name, case in cases.items():
            root = mounted.path("h.test", "hostile", name, "1")
            with self.subTest(archive=name):
                if case.refused:
                    self.assert_errno(case.refused, os.listdir, root)
                    self.assertIn(f"hostile/{name}", mounted.log())  # the log says which
                else:
                    self.check_shown(root, case.shown)
        # The mount serves on, and nothing was made outside of it.
        self.assertEqual(os.listdir(mounted.path("h.test", "hostile", "symlink-out", "1", "etc")), ["owned"])
        for path in ("/etc/owned", "/escape", "/evil", self.directory / "escape", self.directory / "b"):
            self.assertFalse(os.path.lexists(path), path)

    def check_shown(self, root, shown):
        nodes = harness.scan(harness.enter(root))
        for path, content in shown.items():
            node = nodes[os.fsencode(path)]
            if content is None:
                self.assertTrue(stat.S_ISDIR(node.type), path)
                self.assertFalse([x for x in os.listxattr(os.path.join(root, path)) if "overlay" in x])
            else:
                with open(os.path.join(root, path), "rb") as file:
                    self.assertEqual(file.read(), content, path)
        for path, node in nodes.items():
            self.assertFalse(node.rdev == (0, 0), f"{path!r} is a whiteout to overlayfs")

    def test_refusal_leaves_nothing(self):
        """A refused package is neither in the store nor in the way of a good one."""
        registry = self.registry()
        bad = fixtures.hostile()["parent-components"]
        registry.push("p", "bad", oci.image(bad.tars))
        good = oci.image(fixtures.plain_tars())
        registry.push("p", "good", good)
        mounted = self.mount()
        self.assert_errno("EBADMSG", os.listdir, mounted.path(registry.address, "p", "bad"))
        reference = harness.umoci_unpack(good, self.directory / "ref")
        self.assert_same_tree(mounted.path(registry.address, "p", "good"), reference)
        # Its name is known, nothing else of it.
        states = self.ctl(mounted).states
        harness.until(lambda: states()[f"{registry.address}/p:good"] == "complete", "the good one is kept")
        self.assertEqual(states()[f"{registry.address}/p:bad"], "known")

    def test_reason_is_an_attribute(self):
        """user.oci.error says why, for those who cannot read the log."""
        registry = self.registry()
        registry.push("p", "bad", oci.image(fixtures.hostile()["parent-components"].tars))
        mounted = self.mount()
        root = mounted.path(registry.address, "p", "bad")
        self.assert_errno("EBADMSG", os.listdir, root)
        self.assertIn("..", os.getxattr(root, "user.oci.error").decode())


class Limits(harness.TestCase):
    def test_limits(self):
        registry = self.registry()
        for name, (item, limit) in fixtures.bombs().items():
            registry.push(f"bomb/{name}", "1", item)
            with self.subTest(bomb=name):
                limited = self.mount(f"limited-{name}", config=f"[limits]\n{limit}\n")
                self.assert_errno("EFBIG", os.listdir, limited.path(registry.address, "bomb", name, "1"))
                self.assertIn(limit.split()[0], limited.log())  # names the limit
                limited.stop()
                # The same within the defaults is no bomb.
                if name != "zstd-bomb":
                    free = self.mount(f"free-{name}")
                    self.assertTrue(os.listdir(free.path(registry.address, "bomb", name, "1")))
                    free.stop()

    def test_bomb_costs_no_memory(self):
        """A gigabyte of zeros in a megabyte of gzip is refused early."""
        tar = tarfiles.Tar().dir("./").add("zeros", b"", size=2 << 30).bytes(end=False)
        packed = tarfiles.gzipped(tar + bytes(512)) + 2048 * tarfiles.gzipped(bytes(1 << 20))
        item = oci.artifact([oci.Layer(packed)], artifact_type="application/vnd.acme.x")
        registry = self.registry()
        registry.push("bomb", "1", item)
        mounted = self.mount()
        self.assert_errno("EFBIG", os.listdir, mounted.path(registry.address, "bomb", "1"))
        self.assertLess(mounted.peak_memory(), 96 << 20)


if __name__ == "__main__":
    harness.main()
