#!/usr/bin/env python3
"""Networks that fail: readers are told soon and truly, nothing false is kept, and all is well again soon
after the network is."""

import os
import random
import threading
import time

import fixtures
import harness
import oci
import registries
from registries import registry_table
from tarfiles import Tar

PORTAL = b"<!DOCTYPE html><html><title>Welcome</title><body>Please accept our terms.</body></html>"


class Network(registries.TestCase):
    """A registry with packages pkg:v0 to pkg:v7."""

    def setUp(self):
        super().setUp()
        self.source = self.registry()
        self.payload = fixtures.noise(300_000)
        for i in range(8):
            self.source.push("pkg", f"v{i}", oci.image([
                Tar().dir("./").file("data", self.payload).file("n", b"%d" % i).bytes()]))
        self.pushed = len(self.source.requests())

    def read(self, mounted, address, number):
        with open(mounted.path(address, f"pkg:v{number}", "n"), "rb") as file:
            return file.read()

    def assert_reads(self, mounted, address, number):
        self.assertEqual(self.read(mounted, address, number), b"%d" % number)

    def assert_heals(self, mounted, address, number, seconds):
        def healed():
            try:
                return self.read(mounted, address, number)
            except OSError:
                return None

        start = time.monotonic()
        self.assertEqual(harness.until(healed, "it is well again", seconds), b"%d" % number)
        print(f"{self._testMethodName}: healed after {time.monotonic() - start:.1f} s")


class Links(Network):
    def test_refused(self):
        link = self.link(self.source.address)
        mounted = self.mount()
        self.assert_reads(mounted, link.address, 0)
        link.refuse()
        for path in (f"{link.address}/pkg:v1", f"{link.address}/pkg/v2/n", f"{link.address}/pkg/sha256:{'0' * 64}"):
            _, seconds = self.assert_errno("EHOSTUNREACH", os.stat, mounted.path(path))
            self.assertLess(seconds, 3)
        self.assert_reads(mounted, link.address, 0)
        self.assertIn(link.address, mounted.log())
        # Not remembered as missing.
        link.heal()
        self.assert_heals(mounted, link.address, 1, 5)
        self.assert_heals(mounted, link.address, 2, 1)

    def test_resets(self):
        """Every connection is reset after 100 KB: nobody notices."""
        link = self.link(self.source.address, cut_every=100_000, reset=True)
        mounted = self.mount()
        with open(mounted.path(link.address, "pkg:v0", "data"), "rb") as file:
            self.assertEqual(file.read(), self.payload)
        self.assertGreaterEqual(link.connections, 3)

    def test_blackhole_under_a_transfer(self):
        """A transfer that stands still is given up and taken up again where it stood."""
        link = self.link(self.source.address, rate=200_000)
        mounted = self.mount(config='request_timeout = "4s"\n')
        result = {}

        def reader():
            try:
                with open(mounted.path(link.address, "pkg:v0", "data"), "rb") as file:
                    result["data"] = file.read()
            except OSError as error:
                result["error"] = harness.errno_name(error)

        thread = threading.Thread(target=reader)
        thread.start()
        harness.until(lambda: link.down > 100_000, "the transfer is under way")
        link.blackhole()
        thread.join(40)
        self.assertFalse(thread.is_alive(), "the reader still waits")
        self.assertEqual(result, {"error": "ETIMEDOUT"})
        link.heal()
        link.rate = None
        self.assert_heals(mounted, link.address, 0, 5)

    def portal(self, scope):
        front = self.front(self.source.address)
        mounted = self.mount()
        self.assert_reads(mounted, front.address, 0)
        front.rule = lambda method, path, headers: (
            registries.Answer(200, PORTAL, {"Content-Type": "text/html"}) if scope in path else None)
        _, seconds = self.assert_errno("EREMOTEIO", os.listdir, mounted.path(front.address, "pkg:v1"))
        self.assertLess(seconds, 20)
        if scope == "/":
            self.assert_errno("EREMOTEIO", os.stat, mounted.path(front.address, f"pkg@sha256:{'0' * 64}"))
        self.assert_reads(mounted, front.address, 0)
        self.assertIn("web page", mounted.log())
        stored = self.ctl(mounted).states()
        self.assertNotIn("complete", {state for name, state in stored.items() if not name.endswith("v0")})
        front.rule = lambda method, path, headers: None
        self.assert_heals(mounted, front.address, 1, 5)
        self.assert_heals(mounted, front.address, 2, 5)

    def test_captive_portal(self):
        """200 and a web page, whatever one asks for."""
        self.portal("/")

    def test_captive_portal_for_blobs(self):
        """It comes up between the manifest and the layers."""
        self.portal("/blobs/")


class Overloaded(Network):
    """A registry that has too much to do."""

    def test_one_answer_in_three_is_503(self):
        chance = random.Random(7)
        lock = threading.Lock()
        failed = []

        def sometimes(method, path, headers):
            with lock:
                if chance.random() < 0.3:
                    failed.append(path)
                    return registries.Answer(503, b"busy")
            return None

        front = self.front(self.source.address, sometimes)
        mounted = self.mount()
        for i in range(8):
            self.assert_reads(mounted, front.address, i)
        ideal = len(self.source.requests()) - self.pushed
        print(f"{self._testMethodName}: {len(front.requests)} requests for {ideal}")
        self.assertTrue(failed)
        self.assertLessEqual(len(front.requests), 3 * ideal)

    def too_many_requests(self, retry_after, times):
        left = [times]
        lock = threading.Lock()

        def rule(method, path, headers):
            with lock:
                left[0] -= 1
                return registries.Answer(429, headers={"Retry-After": retry_after}) if left[0] >= 0 else None

        return self.front(self.source.address, rule)

    def test_wait_that_is_short(self):
        front = self.too_many_requests("2", 1)
        mounted = self.mount()
        start = time.monotonic()
        self.assert_reads(mounted, front.address, 0)
        self.assertGreater(time.monotonic() - start, 1.9)

    def test_wait_that_is_long(self):
        """A day is not waited for, by anybody, and the registry is left alone."""
        front = self.too_many_requests("86400", 1000)
        mounted = self.mount()
        for _ in range(20):
            _, seconds = self.assert_errno("EREMOTEIO", os.listdir, mounted.path(front.address, "pkg:v0"))
            self.assertLess(seconds, 5)
        self.assertLessEqual(len(front.requests), 3)
        self.assertIn("429", mounted.log())


class Certificates(registries.TestCase):
    """A registry that cannot prove who it is: EACCES, the reason in the log, and nothing is sent to it."""

    def setUp(self):
        super().setUp()
        self.authority_ = self.authority()

    def check(self, pair, words, ca=None):
        registry = self.tls_registry(pair, registries.any_server())
        registry.push("pkg", "v", oci.image([Tar().dir("./").file("n", b"n").bytes()]))
        before = registry.requests()
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json",
                               {registry.address: registries.podman_entry("user", "secret")})
        mounted = self.mount(config=registry_table(registry.address, scheme="https", ca=ca or self.authority_.file))
        path = mounted.path(registry.address, "pkg:v")
        _, seconds = self.assert_errno("EACCES", os.listdir, path)
        self.assertLess(seconds, 5)
        for text in (mounted.log(), os.getxattr(mounted.path(registry.address), "user.oci.error").decode()):
            self.assertIn(registry.address, text)
            self.assertTrue(any(word in text.lower() for word in words), f"none of {words} in:\n{text}")
        self.assertEqual(registry.requests(), before)
        return registry, mounted, path

    def test_expired(self):
        self.check(self.authority_.issue("late", start="20200101000000Z", end="20210101000000Z"), ["expired"])

    def test_not_valid_yet(self):
        self.check(self.authority_.issue("early", start="20480101000000Z", end="20490101000000Z"), ["not yet valid"])

    def test_another_host(self):
        self.check(self.authority_.issue("other", hosts=("registry.example",)), ["127.0.0.1"])

    def test_unknown_authority(self):
        other = self.authority("other")
        self.check(other.issue("server"), ["issuer", "authority", "self-signed", "self signed"])

    def test_self_signed(self):
        other = self.authority("other")
        self.check((other.file, other.key), ["self-signed", "self signed", "issuer", "authority"])

    def test_renewed(self):
        """An expired certificate that is renewed counts from the next connection on."""
        registry, mounted, path = self.check(
            self.authority_.issue("late", start="20200101000000Z", end="20210101000000Z"), ["expired"])
        registry.stop()
        certificate, key = self.authority_.issue("renewed")
        registry.settings["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
        registry.start()

        def readable():
            try:
                return os.listdir(path)
            except OSError:
                return None

        self.assertEqual(harness.until(readable, "the renewed certificate counts", 12), ["n"])


if __name__ == "__main__":
    harness.main("openssl")
