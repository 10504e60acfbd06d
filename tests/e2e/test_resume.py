#!/usr/bin/env python3
"""Transfers over links that break: readers get their bytes, and what has arrived is not fetched again."""

import os
import threading
import time

import harness
import oci
import registries
from tarfiles import Tar

MB = 1_000_000


class BigPackage(registries.TestCase):
    def big_package(self, size, layers=1):
        """A registry with a package of random bytes, not compressed, and the digests of its files."""
        source = self.registry()
        tars, digests = [], {}
        for i in range(layers):
            data = os.urandom(size // layers)
            digests[f"data{i}"] = registries.hashlib.sha256(data).hexdigest()
            tars.append((Tar().dir("./") if i == 0 else Tar()).file(f"data{i}", data).bytes())
        item = oci.image(tars, layers=[oci.Layer(tar, oci.TAR) for tar in tars])
        source.push("big", "1", item)
        self.blob_bytes = sum(len(tar) for tar in tars)
        return source, digests

    def assert_arrives(self, mounted, address, digests):
        root = mounted.path(address, "big", "1")
        for name, digest in digests.items():
            self.assertEqual(registries.digest_of_file(os.path.join(root, name)), digest)


class Resume(BigPackage):
    def pulled(self, registry):
        """(whole, partial) answers with blobs."""
        made = [status for method, path, status in registry.requests() if method == "GET" and "/blobs/" in path]
        return made.count(200), made.count(206)

    def cut(self, size, every, reset):
        source, digests = self.big_package(size)
        link = self.link(source.address, cut_every=every, reset=reset)
        mounted = self.mount()
        self.assert_arrives(mounted, link.address, digests)
        cuts = self.blob_bytes // every
        print(f"{self._testMethodName}: {link.down} bytes for {self.blob_bytes}, {link.connections} connections")
        self.assertGreaterEqual(link.connections, cuts)
        self.assertLessEqual(link.down, 1.1 * self.blob_bytes)
        whole, partial = self.pulled(source)
        self.assertLessEqual(whole, 2)  # the config and the begin of the layer
        self.assertGreaterEqual(partial, cuts - 1)

    def test_cut_every_10_mb(self):
        self.cut(200 * MB, 10 * MB, False)

    def test_reset_every_3_mb(self):
        self.cut(30 * MB, 3 * MB, True)

    def test_connection_that_stands_still(self):
        """It is left for another one, before the reader is told anything."""
        source, digests = self.big_package(20 * MB)
        link = self.link(source.address)
        link.stall_at = 7 * MB
        mounted = self.mount()
        start = time.monotonic()
        self.assert_arrives(mounted, link.address, digests)
        print(f"{self._testMethodName}: {time.monotonic() - start:.1f} s")
        self.assertIsNone(link.stall_at)
        self.assertLessEqual(link.down, 1.1 * self.blob_bytes)

    def test_signed_url_that_expires(self):
        """Each redirect to object storage is good for one request: the rest of a blob is asked for at the
        registry again."""
        source, digests = self.big_package(12 * MB)
        used = set()

        def once(method, path, headers):
            if path in used:
                return registries.Answer(403, b"<Error><Code>AccessDenied</Code></Error>",
                                         {"Content-Type": "application/xml"})
            used.add(path)
            return None

        nginx = self.stopped_at_end(registries.object_storage(self.place("storage"), source.data))
        storage = self.front(nginx.address, once)
        link = self.link(storage.address, cut_every=2 * MB)
        front = self.stopped_at_end(registries.Redirects(source.address, link.address))
        mounted = self.mount()
        self.assert_arrives(mounted, front.address, digests)
        self.assertLessEqual(link.down, 1.1 * self.blob_bytes)
        self.assertEqual([headers for _, _, headers in storage.requests if "Authorization" in headers], [])

    def test_registry_restarted_in_the_middle(self):
        """The reader waits out a registry that is restarted under its transfer."""
        source, digests = self.big_package(30 * MB)
        link = self.link(source.address, rate=15 * MB)
        mounted = self.mount()

        def restart():
            harness.until(lambda: link.down > 8 * MB, "the transfer is under way", 60)
            source.stop()
            source.start()

        restarter = threading.Thread(target=restart)
        restarter.start()
        self.assert_arrives(mounted, link.address, digests)
        restarter.join()
        self.assertLessEqual(link.down, 1.1 * self.blob_bytes)

    def test_registry_gone_in_the_middle(self):
        """One that stays away is an error, soon; what had arrived is not lost on the next reader."""
        source, digests = self.big_package(30 * MB)
        link = self.link(source.address, rate=15 * MB)
        mounted = self.mount(config='request_timeout = "5s"\n')

        def stop():
            harness.until(lambda: link.down > 20 * MB, "the transfer is under way", 60)
            link.refuse()

        stopper = threading.Thread(target=stop)
        stopper.start()
        path = mounted.path(link.address, "big", "1", "data0")
        _, seconds = self.assert_errno(("EHOSTUNREACH", "EREMOTEIO", "ETIMEDOUT"), registries.digest_of_file, path)
        stopper.join()
        self.assertLess(seconds, 60)
        self.assertIn(link.address, mounted.log())
        link.heal()

        def readable():
            try:
                return registries.digest_of_file(path)
            except OSError:
                return None

        self.assertEqual(harness.until(readable, "the registry that is back is believed", 30), digests["data0"])


if __name__ == "__main__":
    harness.main("nginx", "openssl")
