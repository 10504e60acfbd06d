#!/usr/bin/env python3
"""Packages carried from one store to another without a network, through layouts that other tools read."""

import json
import os
import subprocess
import tarfile

import fixtures
import harness
import oci
from tarfiles import Tar


class Carry(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.local = self.registry()
        self.app = oci.image(fixtures.plain_tars())
        self.items = {
            "team/app:1.0": self.app,
            "multi/app:1": fixtures.platform_index(),
            "kcl/konf:1.2.3": fixtures.kcl_titled_tgz().artifact,
            "charts/web:1": fixtures.helm().artifact,
            "wasm/module:1": oci.artifact(
                [oci.Layer(b"\0asm\1\0\0\0", "application/wasm", title="m.wasm")],
                artifact_type="application/vnd.example.wasm"),
        }
        for name, item in self.items.items():
            self.local.push(*name.split(":"), item)
        self.names = [f"{self.local.address}/{name}" for name in self.items]
        self.config = self.directory / "ctl.toml"
        self.config.write_text("")
        self.control = harness.Ctl(self.directory / "store", self.config)
        self.other = harness.Ctl(self.directory / "other", self.config)

    def import_alone(self, layout, *arguments):
        """In a network namespace without any interface that is up."""
        done = harness.run("unshare", "-n", harness.CTL, "import", "--store", self.other.store,
                           "--config", self.config, layout, *arguments)
        return done

    def trees(self, mounted):
        return {name: harness.tar_digest(harness.enter(
            mounted.path(self.local.address, *name.rsplit(":", 1)))) for name in self.items}

    def test_trees_are_equal_in_another_store_without_a_network(self):
        layout = self.directory / "out"
        self.control.run("export", *self.names, layout)
        self.local.stop()
        self.import_alone(layout)
        here = self.mount("here", store=self.control.store)
        there = self.mount("there", store=self.other.store, command=["unshare", "-n"])
        self.assertEqual(self.trees(there), self.trees(here))
        app = there.path(self.local.address, "team/app/1.0")
        self.assert_same_tree(app, harness.umoci_unpack(self.app, self.directory / "reference"))
        # By digest, with its raw blobs, and in the lists.
        exact = there.path(self.local.address, "team/app", self.app.digest)
        self.assertEqual(harness.tar_digest(harness.enter(exact)),
                         harness.tar_digest(harness.enter(app)))
        blobs = os.path.join(app, ".oci", "blobs")
        found = set()
        for name in os.listdir(blobs):
            with open(os.path.join(blobs, name), "rb") as file:
                found.add(oci.digest_of(file.read()))
        self.assertEqual(found, {layer["digest"] for layer in self.app.document["layers"]})
        self.assertEqual(self.other.states(), self.control.states())

    def test_other_tools_read_an_export(self):
        layout = self.directory / "out"
        archive = self.directory / "out.tar"
        self.control.run("export", *self.names, layout)
        self.control.run("export", *self.names, archive)
        for name in ("team/app:1.0", "multi/app:1"):
            reference = f"{self.local.address}/{name}"
            for place in (f"oci:{layout}:{reference}", f"oci-archive:{archive}:{reference}"):
                raw = harness.run("skopeo", "inspect", "--raw", place)
                self.assertEqual(oci.digest_of(raw), self.items[name].digest)
                shown = json.loads(harness.run("skopeo", "inspect", place))
                self.assertEqual(shown["Os"], "linux")
            harness.run("skopeo", "copy", "--quiet", f"oci:{layout}:{reference}",
                        f"dir:{self.directory / name.replace('/', '-')}")
        harness.run("umoci", "unpack", "--image", f"{layout}:{self.local.address}/team/app:1.0",
                    self.directory / "bundle")
        self.assertEqual((self.directory / "bundle/rootfs/d/b").read_bytes(), b"text\n" * 1000)
        for name in ("kcl/konf:1.2.3", "charts/web:1", "wasm/module:1"):
            raw = harness.run("skopeo", "inspect", "--raw", f"oci:{layout}:{self.local.address}/{name}")
            self.assertEqual(oci.digest_of(raw), self.items[name].digest)
        # The tar is one for everybody, sorted.
        with tarfile.open(archive) as tar:
            names = tar.getnames()
        self.assertEqual(names, sorted(names))

    def test_what_skopeo_writes_is_taken_in(self):
        layout = self.directory / "theirs"
        archive = self.directory / "theirs.tar"
        source = f"docker://{self.local.address}/team/app:1.0"
        harness.run("skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{layout}:1.0")
        harness.run("skopeo", "copy", "--quiet", "--src-tls-verify=false", source,
                    f"oci-archive:{archive}:example.com/named/app:2")
        done = self.other.run("import", layout, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("give it", done.stderr)
        self.import_alone(layout, "example.com/other/app:1.0")
        self.import_alone(archive)
        old = self.directory / "old.tar"
        harness.run("skopeo", "copy", "--quiet", "--src-tls-verify=false", source,
                    f"docker-archive:{old}:example.com/x:1")
        done = self.other.run("import", old, check=False)
        self.assertIn("before Docker 25", done.stderr)
        mounted = self.mount("there", store=self.other.store, command=["unshare", "-n"])
        reference = harness.umoci_unpack(self.app, self.directory / "reference")
        for name in ("other/app/1.0", "named/app/2"):
            self.assert_same_tree(mounted.path("example.com", name), reference)

    def test_an_index_of_two_platforms(self):
        """The store has what this machine runs; the layout says so, and so does the command."""
        images = {name: oci.image([Tar().dir("./").file("p", name.encode()).bytes()],
                                  architecture=name) for name in ("amd64", "s390x")}
        item = oci.index([(image, {"platform": {"os": "linux", "architecture": name}})
                          for name, image in images.items()])
        self.local.push("two/platforms", "1", item)
        reference = f"{self.local.address}/two/platforms:1"
        layout = self.directory / "out"
        told = self.control.run("export", reference, layout).stdout
        self.assertIn("with linux/amd64", told)
        self.assertIn("without linux/s390x", told)
        blobs = layout / "blobs" / "sha256"
        self.assertTrue((blobs / images["amd64"].digest.partition(":")[2]).exists())
        self.assertFalse((blobs / images["s390x"].digest.partition(":")[2]).exists())
        self.assertEqual((blobs / item.digest.partition(":")[2]).read_bytes(), item.manifest)
        harness.run("skopeo", "copy", "--quiet", f"oci:{layout}:{reference}",
                    f"dir:{self.directory / 'dir'}")
        self.import_alone(layout)
        mounted = self.mount("there", store=self.other.store, command=["unshare", "-n"])
        with open(mounted.path(reference.replace(":1", "/1"), "p"), encoding="ascii") as file:
            self.assertEqual(file.read(), "amd64")

        # One that has both writes both.
        self.control.run("prefetch", f"{self.local.address}/two/platforms@{images['s390x'].digest}")
        answer = self.control.json("export", reference, layout)
        self.assertEqual(answer["packages"][0]["platforms"], ["linux/amd64", "linux/s390x"])
        self.assertEqual(answer["packages"][0]["absent_platforms"], [])
        harness.run("skopeo", "copy", "--quiet", "--all", f"oci:{layout}:{reference}",
                    f"dir:{self.directory / 'all'}")

    def test_export_adds_to_a_layout_and_fails_without_a_trace(self):
        layout = self.directory / "out"
        self.control.run("export", self.names[0], layout)
        self.control.run("export", self.names[3], layout)
        entries = json.loads((layout / "index.json").read_text())["manifests"]
        self.assertEqual([entry["digest"] for entry in entries],
                         [self.app.digest, self.items["charts/web:1"].digest])
        before = sorted(os.walk(layout))
        done = self.control.run("export", self.names[4], f"{self.local.address}/none:1", layout,
                                check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("none:1", done.stderr)
        self.assertEqual(sorted(os.walk(layout)), before)
        notes = self.directory / "notes"
        notes.mkdir()
        (notes / "a.txt").write_text("mine")
        done = self.control.run("export", self.names[0], notes, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(os.listdir(notes), ["a.txt"])
        done = self.control.run("export", self.names[0], check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("DIRECTORY", done.stderr)

    def test_permissions_follow_the_umask(self):
        layout = self.directory / "out"
        command = f"umask 027; exec {harness.CTL} export --store {self.control.store} " \
                  f"--config {self.config} {self.names[0]} {layout}"
        harness.run("sh", "-c", command)
        self.assertEqual(os.stat(layout).st_mode & 0o777, 0o750)
        self.assertEqual(os.stat(layout / "index.json").st_mode & 0o777, 0o640)

    def test_a_tag_that_moved_is_replaced_on_demand(self):
        first = self.directory / "first.tar"
        self.control.run("export", self.names[0], first)
        self.import_alone(first)
        newer = oci.image([Tar().dir("./").file("new", b"n").bytes()])
        self.local.push("team/app", "1.0", newer)
        second = self.directory / "second.tar"
        harness.Ctl(self.directory / "third", self.config).run("export", self.names[0], second)
        done = self.other.run("import", second, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.app.digest, done.stderr)
        self.assertIn(newer.digest, done.stderr)
        answer = self.other.json("import", "--replace", second)
        self.assertEqual(answer[0]["digest"], newer.digest)
        self.assertIn(newer.digest, self.other.run("resolve", "--offline", self.names[0]).stdout)

    def test_du(self):
        files = {f"f{i:02}": fixtures.noise(20_000, i) for i in range(40)}

        def version(changed):
            t = Tar().dir("./")
            for name, data in files.items():
                t.file(name, changed + data if name in ("f00", "f01") else data)
            return oci.image([t.bytes()])

        self.local.push("app", "1", version(b"1"))
        self.local.push("app", "2", version(b"2"))
        names = [f"{self.local.address}/app:{tag}" for tag in (1, 2)]
        self.control.run("prefetch", *names, self.names[0])
        answer = self.control.json("du")
        found = {item["references"][0]: item for item in answer["packages"]}
        self.assertEqual(set(found), {*names, self.names[0]})
        for name in names:
            self.assertEqual(found[name]["apparent_bytes"], 40 * 20_000 + 2)
            self.assertEqual(found[name]["shared_bytes"], 38 * 20_000)
            self.assertEqual(found[name]["reclaimable_bytes"],
                             found[name]["stored_bytes"] - 38 * 20_000)
        worth = [item["reclaimable_bytes"] for item in answer["packages"]]
        self.assertEqual(worth, sorted(worth, reverse=True))
        self.assertGreater(answer["total"]["on_disk_bytes"], answer["total"]["stored_bytes"] * 0.9)
        told = self.control.run("du", names[1]).stdout.splitlines()
        self.assertEqual(len(told), 3, told)
        self.assertIn(names[1], told[1])
        self.assertRegex(told[2], r"^total of 3 packages: .* on disk$")
        done = self.control.run("du", f"{self.local.address}/none:1", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("none:1", done.stderr)


if __name__ == "__main__":
    harness.main("unshare")
