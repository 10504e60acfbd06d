#!/usr/bin/env python3
"""Registries that fail or lie: the errno of the table, the reason in the log, nothing kept, and all is
well once the registry is."""

import os
import threading

import fixtures
import harness
import oci
from tarfiles import Tar


class FaultyRegistry(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.remote = self.fault_registry()
        self.payload = fixtures.noise(400_000)
        self.item = oci.image([Tar().dir("./").file("data", self.payload).bytes()])
        self.remote.push("pkg", "1", self.item)
        self.layer = self.item.document["layers"][0]["digest"]

    def blob_fault(self, make):
        """A fault for the layer alone."""
        self.remote.fault = lambda path, data: make(data) if path.endswith(self.layer) else None

    def readable(self, path):
        try:
            with open(path, "rb") as file:
                return file.read() == self.payload
        except OSError:
            return False

    def stored(self, mounted):
        """Whether any file of the store holds a piece of the payload, compressed or plain."""
        blob = self.item.blobs[self.layer]
        needles = [self.payload[1000:1200], blob[1000:1200]]
        for folder, _, names in os.walk(mounted.store):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    data = file.read()
                if any(needle in data for needle in needles):
                    return os.path.join(folder, name)
        return None

    def check(self, expected, words, *, path=("pkg", "1")):
        """The reader gets the errno, the log has one of the words, the store nothing; then it heals."""
        mounted = self.mount()
        root = mounted.path(self.remote.address, *path)
        name, seconds = self.assert_errno(expected, os.listdir, root)
        self.assertLess(seconds, 45)
        log = mounted.log().lower()
        self.assertTrue(any(word.lower() in log for word in words), f"none of {words} in:\n{mounted.log()}")
        self.assertLessEqual(set(self.ctl(mounted).states().values()), {"known"})
        self.remote.fault = lambda path, data: None

        # A refusal may be believed for a few seconds.
        def healed():
            try:
                return os.listdir(root)
            except OSError:
                return None

        self.assertEqual(harness.until(healed, "the healthy registry is believed", 30), ["data"])
        with open(os.path.join(root, "data"), "rb") as file:
            self.assertEqual(file.read(), self.payload)
        mounted.restart()
        with open(os.path.join(root, "data"), "rb") as file:
            self.assertEqual(file.read(), self.payload)
        return name

    def test_truncated_blob(self):
        """The connection ends in the middle, again and again."""
        self.blob_fault(lambda data: self.remote.Fault(200, data, cut=len(data) // 2))
        self.check(("EREMOTEIO", "EBADMSG"), ("transfer", "truncat", "short", "closed", "ended", "partial"))

    def test_short_blob(self):
        """A complete answer with fewer bytes than the manifest says."""
        self.blob_fault(lambda data: self.remote.Fault(200, data[:len(data) // 2]))
        self.check(("EBADMSG", "EREMOTEIO"), ("size", "bytes"))

    def test_long_blob(self):
        self.blob_fault(lambda data: self.remote.Fault(200, data + b"more"))
        self.check(("EBADMSG", "EREMOTEIO"), ("size", "bytes"))

    def test_wrong_bytes(self):
        """One bit."""
        self.blob_fault(lambda data: self.remote.Fault(
            200, data[:200_000] + bytes([data[200_000] ^ 1]) + data[200_001:]))
        self.assertEqual(self.check("EBADMSG", (self.layer,)), "EBADMSG")

    def test_other_blob(self):
        """A sound layer, but another one of the same size."""
        other = Tar().dir("./").file("data", fixtures.noise(400_000, 9)).bytes()
        packed = fixtures.tarfiles.gzipped(other)
        size = len(self.item.blobs[self.layer])
        self.blob_fault(lambda data: self.remote.Fault(200, (packed + bytes(size))[:size]))
        self.check("EBADMSG", (self.layer,))

    def test_nothing_of_a_refused_blob_is_kept(self):
        self.blob_fault(lambda data: self.remote.Fault(
            200, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]))
        mounted = self.mount()
        self.assert_errno("EBADMSG", os.listdir, mounted.path(self.remote.address, "pkg", "1"))
        mounted.stop()
        # What was appended to a pack before the digest was known must not be named by anything;
        # a new daemon removes it.
        mounted.start()
        self.assertLessEqual(set(self.ctl(mounted).states().values()), {"known"})
        mounted.stop()
        self.assertIsNone(self.stored(mounted))
        # The same search finds it once it was pulled for good.
        self.remote.fault = lambda path, data: None
        mounted.start()
        harness.until(lambda: self.readable(mounted.path(self.remote.address, "pkg", "1", "data")),
                      "the healthy registry is believed", 30)
        mounted.stop()
        self.assertIsNotNone(self.stored(mounted))

    def test_missing_blob(self):
        self.blob_fault(lambda data: self.remote.Fault(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}',
                                                       headers={"Content-Type": "application/json"}))
        self.check("EREMOTEIO", ("404", "not found", "missing", "unknown"))

    def test_server_errors(self):
        self.blob_fault(lambda data: self.remote.Fault(500, b"oops"))
        self.check("EREMOTEIO", ("500",))

    def test_wrong_manifest_by_digest(self):
        """Asked by digest, other content served."""
        other = oci.image([Tar().dir("./").file("evil", b"e").bytes()])
        self.remote.push("other", "1", other)
        self.remote.fault = lambda path, data: self.remote.Fault(
            200, other.manifest, headers={"Content-Type": oci.MANIFEST}) if "/manifests/" in path else None
        self.check("EBADMSG", (self.item.digest,), path=("pkg", self.item.digest))

    def test_manifest_that_is_no_manifest(self):
        for body in (b"", b"<html>sign in</html>", b"{", b"[]", b'{"schemaVersion":2}', b"[" * 200_000):
            with self.subTest(body=body[:20]):
                self.remote.fault = lambda path, data, body=body: self.remote.Fault(
                    200, body, headers={"Content-Type": oci.MANIFEST}) if "/manifests/" in path else None
                mounted = self.mount(f"mount-{len(self.mounts)}")
                self.assert_errno(("EBADMSG", "EREMOTEIO"), os.listdir,
                                  mounted.path(self.remote.address, "pkg:1"))
                mounted.stop()

    def test_size_in_the_manifest_is_a_lie(self):
        """The manifest names more or fewer bytes than the blob has: its digest cannot fit."""
        for off in (-1, 1, 1 << 30):
            with self.subTest(off=off):
                document = harness.json.loads(self.item.manifest)
                document["layers"][0]["size"] += off
                liar = oci.Artifact(document, self.item.blobs.values())
                self.remote.push("liar", f"v{off}", liar)
                mounted = self.mount(f"mount{off}")
                self.assert_errno(("EBADMSG", "EREMOTEIO"), os.listdir,
                                  mounted.path(self.remote.address, "liar", f"v{off}"))
                mounted.stop()

    def test_diff_id_is_a_lie(self):
        tar = Tar().dir("./").file("data", b"d").bytes()
        config = {"architecture": "amd64", "os": "linux",
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
        liar = oci.artifact([oci.Layer(fixtures.tarfiles.gzipped(tar))],
                            config=harness.json.dumps(config).encode(), config_type=oci.CONFIG)
        self.remote.push("liar", "1", liar)
        mounted = self.mount()
        self.assert_errno("EBADMSG", os.listdir, mounted.path(self.remote.address, "liar", "1"))

    def test_denied(self):
        for status in (401, 403):
            with self.subTest(status=status):
                self.remote.fault = lambda path, data, status=status: self.remote.Fault(
                    status, b'{"errors":[{"code":"DENIED","message":"no"}]}',
                    headers={"Content-Type": "application/json"})
                mounted = self.mount(f"mount{status}")
                self.assert_errno("EACCES", os.listdir, mounted.path(self.remote.address, "pkg:1"))
                mounted.stop()

    def test_unknown_names(self):
        mounted = self.mount()
        for path in ("pkg/2", "pkg:2", "none/1", f"pkg/sha256:{'1' * 64}"):
            with self.subTest(path=path):
                self.assert_errno("ENOENT", os.stat, mounted.path(self.remote.address, path))

    def test_damaged_config(self):
        config = self.item.document["config"]["digest"]
        self.remote.fault = lambda path, data: self.remote.Fault(
            200, data[:-1] + b" ") if path.endswith(config) else None
        self.check("EBADMSG", (config,))

    def test_stall(self):
        """A registry that stops in the middle: the reader waits no longer than it was told to."""
        self.blob_fault(lambda data: self.remote.Fault(200, data))
        self.remote.gate = threading.Event()
        mounted = self.mount(config='request_timeout = "2s"\n')
        _, seconds = self.assert_errno(("ETIMEDOUT", "EREMOTEIO", "EHOSTUNREACH"), os.listdir,
                                       mounted.path(self.remote.address, "pkg", "1"))
        self.assertLess(seconds, 12)
        self.assertGreater(seconds, 1)
        self.remote.gate.set()

    def test_schema_1(self):
        body = b'{"schemaVersion":1,"name":"pkg","tag":"1","fsLayers":[],"history":[]}'
        self.remote.fault = lambda path, data: self.remote.Fault(
            200, body, headers={"Content-Type": "application/vnd.docker.distribution.manifest.v1+json"}
        ) if "/manifests/" in path else None
        mounted = self.mount()
        self.assert_errno("EOPNOTSUPP", os.listdir, mounted.path(self.remote.address, "pkg:1"))
        self.assertIn("schema", mounted.log().lower())

    def test_unsupported_layers(self):
        for name, media_type in (("encrypted", oci.TAR_GZIP + "+encrypted"),):
            layer = oci.Layer(fixtures.noise(3000), media_type)
            self.remote.push(name, "1", oci.image([b"x"], layers=[layer]))
            mounted = self.mount(name)
            self.assert_errno("EOPNOTSUPP", os.listdir, mounted.path(self.remote.address, name, "1"))
            mounted.stop()


if __name__ == "__main__":
    harness.main()
