#!/usr/bin/env python3
"""ocifs-ctl, as people use it: with and without a mount, in a terminal, a pipe, a script."""

import json
import os
import pty
import re

import fixtures
import harness
import oci
from tarfiles import Tar


class Control(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.local = self.registry()
        self.item = oci.image(fixtures.plain_tars())
        self.digest = self.local.push("team/app", "1.0", self.item)
        self.chart = fixtures.helm().artifact
        self.local.push("charts/web", "1", self.chart)
        self.app = f"{self.local.address}/team/app:1.0"
        self.web = f"{self.local.address}/charts/web:1"
        config = self.directory / "ctl.toml"
        config.write_text("")
        self.control = harness.Ctl(self.directory / "ctl-store", config)

    def test_prefetch_then_offline(self):
        self.control.run("prefetch", self.app, f"oci://{self.web}")
        before = self.local.requests()
        listed = self.control.run("ls").stdout
        self.assertIn(self.app, listed)
        self.assertIn(self.web, listed)
        self.control.run("prefetch", "--offline", self.app)
        self.control.run("prefetch", self.app)  # there already: asks nothing
        self.assertEqual(self.local.requests(), before)
        self.local.stop()
        mounted = self.mount(store=self.control.store)
        reference = harness.umoci_unpack(self.item, self.directory / "ref")
        self.assert_same_tree(mounted.path(self.local.address, "team/app/1.0"), reference)

    def test_prefetch_from_a_file(self):
        names = self.directory / "packages.txt"
        names.write_text(f"# what the job needs\n\n{self.app}\n  oci://{self.web}  # a chart\n")
        self.control.run("prefetch", "-f", str(names))
        listed = self.control.run("ls").stdout
        self.assertIn(self.app, listed)
        self.assertIn(self.web, listed)

    def test_prefetch_failure_is_told(self):
        done = self.control.run("prefetch", self.app, f"{self.local.address}/team/app:none", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("team/app:none", done.stderr)
        self.assertIn(self.app, self.control.run("ls").stdout)  # the other one came
        done = self.control.run("prefetch", "not a reference", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("not a reference", done.stderr)
        done = self.control.run("prefetch", "--offline", self.web, check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_output_of_prefetch(self):
        """Plain lines in a pipe; moving bars only on a terminal."""
        done = self.control.run("prefetch", self.app)
        self.assertNotRegex(done.stdout + done.stderr, r"[\r\x1b]")
        self.assertIn("team/app", done.stdout + done.stderr)
        ours, theirs = pty.openpty()
        process = harness.subprocess.Popen(
            [harness.CTL, "prefetch", "--store", self.directory / "other-store", "--config",
             self.control.config, self.app], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # EIO: the other side is closed
            pass
        os.close(ours)
        self.assertEqual(process.wait(), 0)
        self.assertIn(b"team/app", shown)

    def test_resolve(self):
        for reference in (self.app, f"oci://{self.app}"):
            self.assertEqual(self.control.run("resolve", reference).stdout.strip(),
                             f"{self.local.address}/team/app@{self.digest}")
        self.assertIn(self.digest, json.dumps(self.control.json("resolve", self.app)))
        done = self.control.run("resolve", f"{self.local.address}/team/app:none", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn("none", done.stderr)

    def test_path(self):
        mounted = self.mount()
        control = self.ctl(mounted)
        shown = control.run("path", f"oci://{self.local.address}/team/app//d:1.0").stdout.strip()
        self.assertTrue(shown.endswith("/d"), shown)
        self.assertIn("team/app", shown)
        path = shown if shown.startswith(str(mounted.mountpoint)) else None
        self.assertIsNotNone(path, f"{shown} is not below {mounted.mountpoint}, where this store is mounted")
        self.assertEqual(os.listdir(path), ["b"])
        self.assertIn("team/app", json.dumps(control.json("path", self.app)))

    def test_status(self):
        done = self.control.run("status", self.app, check=False)
        self.assertRegex((done.stdout + done.stderr).lower(), r"not (cached|in the store)|absent|missing")
        self.control.run("prefetch", self.app)
        told = self.control.run("status", self.app).stdout
        self.assertIn(self.digest, told)
        answer = self.control.json("status", self.app)
        self.assertIn(self.digest, json.dumps(answer))

    def test_ls_json(self):
        self.assertNotIn(self.digest, json.dumps(self.control.json("ls")))
        self.control.run("prefetch", self.app, self.web)
        text = json.dumps(self.control.json("ls"))
        for word in (self.app, self.web, self.digest, self.chart.digest):
            self.assertIn(word, text)

    def test_beside_a_mount(self):
        """ctl and a mount share a store: what one pulls the other has."""
        mounted = self.mount()
        control = self.ctl(mounted)
        control.run("prefetch", self.app)

        def pulled():
            return [path for method, path, _ in self.local.requests() if method == "GET" and "/blobs/" in path]

        before = pulled()
        self.assertEqual(sorted(os.listdir(mounted.path(self.local.address, "team/app/1.0"))), ["a", "c", "d", "l"])
        os.listdir(mounted.path(self.local.address, "charts/web/1"))
        self.assertIn(self.web, control.run("ls").stdout)
        control.run("prefetch", self.web)
        after = pulled()
        self.assertEqual(len(after), len(set(after)))
        self.assertGreater(len(after), len(before))

    def test_hostile_text_is_escaped(self):
        """A registry's words do not move the cursor of a terminal."""
        remote = self.fault_registry()
        remote.fault = lambda path, data: remote.Fault(
            403, b'{"errors":[{"code":"DENIED","message":"\\u001b[2Jgone\\nfaked line"}]}',
            headers={"Content-Type": "application/json"})
        done = self.control.run("resolve", f"{remote.address}/x:1", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("\x1b", done.stdout + done.stderr)

    def test_usage(self):
        done = harness.subprocess.run([harness.CTL, "--help"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        for command in ("prefetch", "resolve", "path", "ls", "status"):
            self.assertTrue(re.search(rf"^\s+{command}\b", done.stdout, re.MULTILINE), command)
        for wrong in ([], ["unknown"], ["resolve"], ["prefetch"], ["ls", "--no-such-option"]):
            done = harness.subprocess.run([harness.CTL, *wrong], capture_output=True, text=True)
            self.assertNotEqual(done.returncode, 0, wrong)
            self.assertTrue(done.stderr or done.stdout, wrong)

    def test_version(self):
        for program in (harness.OCIFS, harness.CTL):
            done = harness.subprocess.run([program, "--version"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0)
            self.assertRegex(done.stdout, r"\d+\.\d+\.\d+")


if __name__ == "__main__":
    harness.main()
