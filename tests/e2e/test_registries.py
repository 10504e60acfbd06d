#!/usr/bin/env python3
"""The set-ups themselves, without ocifs: another client can use them, and they refuse and fail as they
should. What the other tests show rests on that."""

import http.client
import os
import shutil
import socket
import time
import unittest

import fixtures
import harness
import oci
import registries
from tarfiles import Tar


def get(address, path, headers=None, context=None, timeout=20):
    """(status, headers, body) of one request."""
    connection = (http.client.HTTPSConnection(address, timeout=timeout, context=context) if context
                  else http.client.HTTPConnection(address, timeout=timeout))
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


class Registries(registries.TestCase):
    def setUp(self):
        super().setUp()
        self.source = self.registry()
        self.item = oci.image([Tar().dir("./").file("f", fixtures.noise(100_000)).bytes()])
        self.source.push("team/app", "1", self.item)
        self.blob = "/v2/team/app/blobs/" + self.item.document["layers"][0]["digest"]

    def skopeo(self, address, *options, check=True):
        target = self.directory / "copy"
        shutil.rmtree(target, ignore_errors=True)
        done = harness.subprocess.run(["skopeo", "copy", *options, f"docker://{address}/team/app:1", f"dir:{target}"],
                                      capture_output=True, text=True)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
            layer = self.item.document["layers"][0]["digest"].partition(":")[2]
            self.assertEqual(registries.digest_of_file(target / layer), layer)
        return done.returncode == 0

    def test_password(self):
        registry = self.password_registry({"user": "a b:c"}, data=self.source.data)
        plain = "--src-tls-verify=false"
        self.assertFalse(self.skopeo(registry.address, plain, check=False))
        self.skopeo(registry.address, plain, "--src-creds=user:a b:c")
        registries.write_htpasswd(registry.htpasswd, {"user": "new"})
        self.assertFalse(self.skopeo(registry.address, plain, "--src-creds=user:a b:c", check=False))
        self.skopeo(registry.address, plain, "--src-creds=user:new")

    def test_tokens(self):
        tokens = self.token_server(logins={"user": "secret"}, anonymous=False)
        registry = self.registry(data=self.source.data, settings=tokens.settings())
        plain = "--src-tls-verify=false"
        self.assertFalse(self.skopeo(registry.address, plain, check=False))
        self.assertFalse(self.skopeo(registry.address, plain, "--src-creds=user:wrong", check=False))
        self.skopeo(registry.address, plain, "--src-creds=user:secret")
        tokens.anonymous = True
        self.skopeo(registry.address, plain)

    def test_tokens_expire(self):
        """At the moment they should, in spite of the registry's tolerance."""
        tokens = self.token_server(lifetime=3)
        registry = self.registry(data=self.source.data, settings=tokens.settings())
        scope = registries.urllib.parse.urlencode({"service": tokens.SERVICE, "scope": "repository:team/app:pull"})
        _, _, body = get(tokens.address, f"/token?{scope}")
        bearer = {"Authorization": "Bearer " + harness.json.loads(body)["token"]}
        start = time.monotonic()
        self.assertEqual(get(registry.address, self.blob, bearer)[0], 200)
        harness.until(lambda: get(registry.address, self.blob, bearer)[0] == 401, "the token expires", 10, every=0.1)
        self.assertGreater(time.monotonic() - start, 1)
        self.assertLess(time.monotonic() - start, 6)

    def test_certificates(self):
        authority = self.authority()
        registry = self.tls_registry(authority.issue("server"), authority.context(), data=self.source.data)
        self.assertFalse(self.skopeo(registry.address, check=False))
        certs = self.directory / "certs"
        certs.mkdir()
        shutil.copy(authority.file, certs / "ca.crt")
        self.skopeo(registry.address, f"--src-cert-dir={certs}")

    def test_client_certificates(self):
        authority = self.authority()
        nginx = self.stopped_at_end(registries.client_certificate_wall(
            self.place("nginx"), self.source.address, authority, authority.issue("server")))
        certs = self.directory / "certs"
        certs.mkdir()
        shutil.copy(authority.file, certs / "ca.crt")
        self.assertFalse(self.skopeo(nginx.address, f"--src-cert-dir={certs}", check=False))
        certificate, key = authority.issue("client", hosts=())
        shutil.copy(certificate, certs / "client.cert")
        shutil.copy(key, certs / "client.key")
        self.skopeo(nginx.address, f"--src-cert-dir={certs}")
        pair = self.authority("other").issue("client", hosts=())
        context = authority.context(pair)
        self.assertEqual(get(nginx.address, "/v2/", context=context)[0], 400)

    def test_blobs_elsewhere(self):
        storage = self.stopped_at_end(registries.object_storage(self.place("storage"), self.source.data))
        front = self.stopped_at_end(registries.Redirects(self.source.address, storage.address))
        self.skopeo(front.address, "--src-tls-verify=false")
        status, headers, _ = get(front.address, self.blob)
        self.assertEqual(status, 307)
        place = registries.urllib.parse.urlsplit(headers["Location"])
        path = f"{place.path}?{place.query}"
        self.assertEqual(get(storage.address, path)[2], self.item.blobs[self.blob.rpartition("/")[2]])
        self.assertEqual(get(storage.address, path, {"Range": "bytes=5-9"})[0], 206)
        self.assertEqual(get(storage.address, path, {"Authorization": "Bearer x"})[0], 400)
        self.assertEqual(get(storage.address, place.path)[0], 403)

    def test_pull_through(self):
        cache = self.pull_through_mirror(self.source.address)
        self.skopeo(cache.address, "--src-tls-verify=false")
        self.until_kept(cache, 2)
        self.source.stop()
        self.skopeo(cache.address, "--src-tls-verify=false")

    def test_front_lies(self):
        front = self.front(self.source.address, None, lambda path, data: data[::-1])
        self.assertEqual(get(front.address, self.blob)[2], self.item.blobs[self.blob.rpartition("/")[2]][::-1])
        front.rule = lambda method, path, headers: registries.Answer(418, b"teapot")
        self.assertEqual(get(front.address, self.blob)[::2], (418, b"teapot"))
        self.assertEqual([(method, path) for method, path, _ in front.asked("/blobs/")], [("GET", self.blob)] * 2)


class Links(unittest.TestCase):
    """Against a server that sends a megabyte to whoever connects, and the end of what it got."""

    DATA = os.urandom(1_000_000)

    def setUp(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, registries.contextlib.suppress(OSError):
                    client.sendall(self.DATA)

        registries.threading.Thread(target=serve, daemon=True).start()
        self.target = f"127.0.0.1:{listener.getsockname()[1]}"

    def link(self, **more):
        link = registries.Link(self.target, **more)
        self.addCleanup(link.stop)
        return link

    def read(self, link, timeout=20):
        """(what arrived, whether it ended with a reset)."""
        got = b""
        with socket.create_connection(("127.0.0.1", link.port), timeout) as client:
            while True:
                try:
                    piece = client.recv(1 << 20)
                except ConnectionResetError:
                    return got, True
                if not piece:
                    return got, False
                got += piece

    def test_passes(self):
        link = self.link()
        for _ in range(5):
            self.assertEqual(self.read(link), (self.DATA, False))
        self.assertEqual((link.down, link.connections), (5 * len(self.DATA), 5))

    def test_cuts(self):
        link = self.link(cut_every=123_456)
        self.assertEqual(self.read(link), (self.DATA[:123_456], False))
        self.assertEqual(link.down, 123_456)

    def test_resets(self):
        got, reset = self.read(self.link(cut_every=123_456, reset=True))
        self.assertTrue(reset)
        self.assertEqual(got, self.DATA[:len(got)])
        self.assertLessEqual(len(got), 123_456)

    def test_is_as_slow_as_told(self):
        start = time.monotonic()
        self.assertEqual(self.read(self.link(rate=2_000_000)), (self.DATA, False))
        self.assertGreater(time.monotonic() - start, 0.4)

    def test_refuses(self):
        link = self.link()
        link.refuse()
        with self.assertRaises(ConnectionRefusedError):
            self.read(link)
        link.heal()
        self.assertEqual(self.read(link), (self.DATA, False))

    def test_blackhole(self):
        link = self.link(rate=1_000_000)
        with socket.create_connection(("127.0.0.1", link.port), 20) as client:
            self.assertTrue(client.recv(10))
            link.blackhole()
            for _ in range(2):
                with self.assertRaises(TimeoutError):
                    socket.create_connection(("127.0.0.1", link.port), 0.3)
            link.rate = None
            link.heal()
            self.assertEqual(self.read(link), (self.DATA, False))
            while client.recv(1 << 20):
                pass


if __name__ == "__main__":
    harness.main("nginx", "openssl")
