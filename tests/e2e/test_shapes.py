#!/usr/bin/env python3
"""Artifacts that are no images: charts, KCL packages, modules, plain files."""

import os
import stat

import fixtures
import harness
import oci
import tarfiles
from tarfiles import Tar


def implicit(tree, shape):
    """Directories of the reference that no tar of the shape describes, and files that no tar holds."""
    described = set()
    for data in shape.tars:
        listed = harness.run("tar", "-tf", "-", "-P", input=data)
        described |= {line.strip(b"/").removeprefix(b"./").rstrip(b".") for line in listed.splitlines()
                      if line.endswith(b"/")}
    return [path for path, node in harness.scan(tree).items()
            if stat.S_ISDIR(node.type) and path not in described
            or os.fsdecode(path) in shape.files]


class Shapes(harness.TestCase):
    def check(self, shown, name, make):
        shape = make()
        reference = harness.tar_unpack(shape.tars, shape.files, self.directory / f"ref-{name}")
        for path in shape.files:  # what a manifest does not say of a plain file: 0644, root
            os.chmod(reference / path, 0o644)
        loose = implicit(reference, shape)
        self.assert_same_tree(shown, reference, loose)
        self.assert_same_tar(shown, reference, loose)

    def test_from_a_registry(self):
        registry = self.registry()
        for name, make in fixtures.SHAPES.items():
            registry.push(f"shapes/{name}", "1", make().artifact)
        mounted = self.mount()
        for name, make in fixtures.SHAPES.items():
            with self.subTest(shape=name):
                self.check(mounted.path(registry.address, "shapes", name, "1"), name, make)

    def test_from_a_layout(self):
        layout = self.layout("layout", {f"shapes/{name}:1": make().artifact
                                        for name, make in fixtures.SHAPES.items()})
        mounted = self.mount(config=f'[registry."shapes.test"]\nlayout = {harness.toml_string(layout)}\n')
        for name, make in fixtures.SHAPES.items():
            with self.subTest(shape=name):
                self.check(mounted.path("shapes.test", "shapes", name, "1"), name, make)

    def test_zero_layers_is_an_empty_directory(self):
        layout = self.layout("layout", {"empty:1": fixtures.zero_layers().artifact})
        mounted = self.mount(config=f'[registry."x.test"]\nlayout = {harness.toml_string(layout)}\n')
        root = mounted.path("x.test", "empty", "1")
        self.assertEqual(os.listdir(root), [])
        with open(os.path.join(root, ".oci", "manifest.json"), "rb") as file:
            self.assertEqual(file.read(), fixtures.zero_layers().artifact.manifest)

    def test_devices_belong_to_images_only(self):
        """An artifact's tar may name a device or a pipe; they are left out."""
        data = (Tar().file("kept", b"k").add("null", type=tarfiles.CHAR, major=1, minor=3)
                .add("pipe", type=tarfiles.FIFO).add("sda", type=tarfiles.BLOCK_DEVICE, major=8).bytes())
        item = oci.artifact([oci.Layer(tarfiles.gzipped(data))], artifact_type="application/vnd.acme.x")
        layout = self.layout("layout", {"x:1": item})
        mounted = self.mount(config=f'[registry."x.test"]\nlayout = {harness.toml_string(layout)}\n')
        self.assertEqual(os.listdir(mounted.path("x.test", "x", "1")), ["kept"])

    def test_titles_that_are_no_names(self):
        """A title that would leave the package, or is no path, refuses the artifact or stays inside."""
        for i, title in enumerate(("../evil", "/etc/evil", "a/../../evil", "", "a\0b", "x" * 300)):
            with self.subTest(title=title):
                item = oci.artifact([oci.Layer(b"data", "text/plain", title=title)],
                                    artifact_type="application/vnd.acme.x")
                layout = self.layout(f"layout{i}", {"x:1": item})
                mounted = self.mount(f"mount{i}", config='[registry."x.test"]\n'
                                     f'layout = {harness.toml_string(layout)}\n')
                root = mounted.path("x.test", "x", "1")
                try:
                    nodes = harness.scan(harness.enter(root))
                except OSError as error:
                    self.assertIn(harness.errno_name(error), ("EBADMSG", "EFBIG"))
                else:
                    for path in nodes:
                        self.assertNotIn(b"..", path.split(b"/"))
                    self.assertIn(b"data", [open(os.path.join(os.fsencode(root), path), "rb").read()
                                            for path, node in nodes.items() if stat.S_ISREG(node.type)])
                mounted.stop()


if __name__ == "__main__":
    harness.main()
