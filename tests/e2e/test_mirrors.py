#!/usr/bin/env python3
"""Mirrors: what they have is taken from them, whatever they do wrong costs no reader anything but time, and
the log says which one it was and why."""

import json
import os
import time

import fixtures
import harness
import oci
import registries
from registries import Answer, registry_table, toml
from tarfiles import Tar


class TestCase(registries.TestCase):
    """`origin` has the package team/app:1, and so has whatever stands on `source`."""

    def setUp(self):
        super().setUp()
        self.source = self.registry()
        self.payload = fixtures.noise(400_000)
        self.item = oci.image([Tar().dir("./").file("data", self.payload).bytes()])
        self.layer = self.item.document["layers"][0]["digest"]
        self.source.push("team/app", "1", self.item)
        self.origin = self.serving()

    def serving(self, **more):
        return self.registry(data=self.source.data, **more)

    def mirror(self, rule=None, edit=None):
        return self.front(self.source.address, rule, edit)

    def with_mirrors(self, *addresses, name="mount", more=""):
        return self.mount(name, config=more + registry_table(
            self.origin.address, mirrors=[f"http://{address}" for address in addresses]))

    def read(self, mounted):
        """Reads the package under the name of the origin; returns how long it took."""
        start = time.monotonic()
        with open(mounted.path(self.origin.address, "team/app:1", "data"), "rb") as file:
            self.assertEqual(file.read(), self.payload)
        return time.monotonic() - start

    def blobs(self, registry):
        return [path for _, path, _ in registry.requests() if "/blobs/" in path]

    def assert_told(self, mounted, mirror, *words):
        """A line of the log names the mirror and one of the words."""
        lines = [line.lower() for line in mounted.log().splitlines() if mirror in line]
        self.assertTrue(any(word in line for word in words for line in lines),
                        f"no line with {mirror} and one of {words} in:\n{mounted.log()}")


class Healthy(TestCase):
    def test_mirror_has_it(self):
        mirror = self.mirror()
        self.read(self.with_mirrors(mirror.address))
        self.assertEqual(len(mirror.asked("/blobs/" + self.layer)), 1)
        self.assertEqual(self.origin.requests(), [])

    def test_pull_through_registry(self):
        """docker-registry as a cache before the origin; what it has it gives when the origin is gone."""
        cache = self.pull_through_mirror(self.origin.address)
        self.read(self.with_mirrors(cache.address))
        self.assertEqual(len(self.blobs(cache)), 2)
        # It fetches what it was asked for, and nobody else asks the origin.
        agents = self.origin.log.read_text()
        self.assertNotIn("ocifs", agents)
        self.until_kept(cache, 2)
        self.origin.stop()
        self.read(self.with_mirrors(cache.address, name="later"))

    def test_first_that_has_it(self):
        first, second = self.mirror(lambda method, path, headers: Answer(404)), self.mirror()
        self.read(self.with_mirrors(first.address, second.address))
        self.assertEqual(len(second.asked("/blobs/" + self.layer)), 1)
        self.assertEqual(self.origin.requests(), [])


class Logins(TestCase):
    LOGIN = {"user": "secret"}

    def log_in_by_file(self, **logins):
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json", {
            address: registries.podman_entry(*login) for address, login in logins.items()})

    def test_login_of_the_origin_stays_there(self):
        self.origin = self.password_registry(self.LOGIN, data=self.source.data)
        mirror = self.mirror()
        self.log_in("mount", self.origin.address, "user", "secret")
        self.read(self.with_mirrors(mirror.address))
        self.assertTrue(mirror.requests)
        self.assertEqual([headers for _, _, headers in mirror.requests if "Authorization" in headers], [])

    def test_mirror_with_a_login(self):
        """Its own, found under its own name."""
        mirror = self.password_registry(self.LOGIN, data=self.source.data)
        self.log_in("mount", mirror.address, "user", "secret")
        self.read(self.with_mirrors(mirror.address))
        self.assertEqual(self.origin.requests(), [])

    def test_mirror_with_tokens(self):
        tokens = self.token_server(logins=self.LOGIN, anonymous=False)
        mirror = self.serving(settings=tokens.settings())
        self.log_in_by_file(**{mirror.address: ("user", "secret")})
        self.read(self.with_mirrors(mirror.address))
        self.assertEqual(self.origin.requests(), [])
        self.assertEqual(tokens.identities, ["user"])

    def test_mirror_that_wants_a_login_we_lack(self):
        mirror = self.password_registry(self.LOGIN, data=self.source.data)
        mounted = self.with_mirrors(mirror.address)
        self.read(mounted)
        self.assert_told(mounted, mirror.address, "log in", "401", "login")


class Faulty(TestCase):
    """Each reader gets the bytes of the origin."""

    def check(self, mirror, words, *, seconds=20, more=""):
        mounted = self.with_mirrors(mirror, more=more)
        took = self.read(mounted)
        print(f"{self._testMethodName}: {took:.1f} s")
        self.assertLess(took, seconds)
        self.assert_told(mounted, mirror, *words)
        self.assertIn(f"/v2/team/app/blobs/{self.layer}", self.blobs(self.origin))
        return mounted

    def for_blobs(self, answer):
        return lambda method, path, headers: answer if "/blobs/" + self.layer in path else None

    def test_down(self):
        self.check(f"127.0.0.1:{harness.free_port()}", ["refused", "connect"])

    def test_not_there(self):
        """It has nothing: no fault, and none in the log of those who want to sleep."""
        mirror = self.mirror(lambda method, path, headers: Answer(404))
        mounted = self.with_mirrors(mirror.address)
        self.read(mounted)
        self.assertIn(f"/v2/team/app/blobs/{self.layer}", self.blobs(self.origin))

    def test_blob_not_there(self):
        mirror = self.mirror(self.for_blobs(Answer(404)))
        self.read(self.with_mirrors(mirror.address))
        self.assertEqual(self.blobs(self.origin), [f"/v2/team/app/blobs/{self.layer}"])

    def test_server_error(self):
        self.check(self.mirror(lambda method, path, headers: Answer(500)).address, ["500"])

    def test_server_error_for_blobs(self):
        self.check(self.mirror(self.for_blobs(Answer(500))).address, ["500"])

    def test_overloaded(self):
        """429 with an hour to wait is not waited for where there is somebody else to ask."""
        self.check(self.mirror(lambda method, path, headers: Answer(429, headers={"Retry-After": "3600"})).address,
                   ["429"], seconds=10)

    def test_wrong_bytes(self):
        def flip(path, data):
            return data[:200_000] + bytes([data[200_000] ^ 1]) + data[200_001:] if self.layer in path else data

        mirror = self.mirror(edit=flip)
        self.check(mirror.address, ["digest", "wrong bytes"])
        self.assertEqual(len(mirror.asked("/blobs/" + self.layer)), 1, "it is asked again for what it got wrong")

    def test_wrong_manifest(self):
        """By digest; what a tag is, is the word of whom one asks."""
        mirror = self.mirror(edit=lambda path, data: data.replace(b'"layers"', b'"Layers"'))
        mounted = self.with_mirrors(mirror.address)
        path = mounted.path(self.origin.address, f"team/app@{self.item.digest}", "data")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.payload)
        self.assert_told(mounted, mirror.address, "digest", "wrong bytes")

    def test_short_blob(self):
        mirror = self.mirror(self.for_blobs(Answer(200, b"short")))
        self.check(mirror.address, ["short", "size"])

    def test_web_page(self):
        mirror = self.mirror(lambda method, path, headers: Answer(200, b"<html>", {"Content-Type": "text/html"}))
        self.check(mirror.address, ["web page"])

    def test_blob_stalls(self):
        blob = self.item.blobs[self.layer]
        mirror = self.mirror(self.for_blobs(Answer(200, blob[:1000], {"Content-Length": str(len(blob))}, stall=True)))
        self.check(mirror.address, ["timed out", "slow", "nothing", "no data", "stalled"], seconds=29)

    def test_blackhole(self):
        """It does not even answer the first packet. Who comes later does not wait for it as well."""
        for i in range(4):
            self.source.push("more", f"v{i}", oci.image([Tar().dir("./").file("n", b"%d" % i).bytes()]))
        link = self.link(self.source.address)
        link.blackhole()
        mounted = self.check(link.address, ["timed out", "connect"], seconds=29)
        start = time.monotonic()
        for i in range(4):
            with open(mounted.path(self.origin.address, f"more:v{i}", "n"), "rb") as file:
                self.assertEqual(file.read(), b"%d" % i)
        print(f"{self._testMethodName}: {time.monotonic() - start:.1f} s for four more")
        self.assertLess(time.monotonic() - start, 15)

    def test_resets(self):
        link = self.link(self.source.address, cut_every=50_000, reset=True)
        mounted = self.with_mirrors(link.address)
        self.read(mounted)

    def test_all_are_gone(self):
        mirror = f"127.0.0.1:{harness.free_port()}"
        mounted = self.with_mirrors(mirror)
        self.origin.stop()
        _, seconds = self.assert_errno("EHOSTUNREACH", os.listdir, mounted.path(self.origin.address, "team/app:1"))
        self.assertLess(seconds, 5)
        for address in (mirror, self.origin.address):
            self.assert_told(mounted, address, "refused", "connect")
        self.origin.start()

        def readable():
            try:
                return self.read(mounted) or True
            except OSError:
                return None

        harness.until(readable, "the origin is believed again", 10)

    def test_fault_that_passes(self):
        """A mirror that failed is asked again after a while; what comes meanwhile does not wait for it."""
        link = self.link(self.source.address)
        link.refuse()
        mounted = self.with_mirrors(link.address)
        self.read(mounted)
        link.heal()
        for i in range(200):
            self.source.push("more", f"v{i}", oci.image([Tar().dir("./").file("n", b"%d" % i).bytes()]))
        tags = iter(range(200))

        def used():
            i = next(tags)
            with open(mounted.path(self.origin.address, f"more:v{i}", "n"), "rb") as file:
                self.assertEqual(file.read(), b"%d" % i)
            return link.connections > 0

        # Each try asks for something new, and there are 200.
        harness.until(used, "the mirror that is back is used", 70, every=0.4)


class Files(TestCase):
    """Mirrors from the files of other tools."""

    def hosts_toml(self, folder, text):
        path = self.directory / "hosts" / folder / "hosts.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return toml("", hosts_dir=self.directory / "hosts")

    def test_hosts_toml(self):
        """In the order of the file, which is not that of the alphabet; each is told whom it stands for."""
        mirrors = [self.mirror(lambda method, path, headers: Answer(404)), self.mirror()]
        mirrors.sort(key=lambda mirror: mirror.address, reverse=True)
        mirrors[0].rule, mirrors[1].rule = (lambda method, path, headers: Answer(404)), (lambda *_: None)
        config = self.hosts_toml(self.origin.address, f'server = "http://{self.origin.address}"\n' + "".join(
            f'[host."http://{mirror.address}"]\ncapabilities = ["pull", "resolve"]\n' for mirror in mirrors))
        self.read(self.mount(config=config))
        self.assertEqual(self.origin.requests(), [])
        for mirror in mirrors:
            self.assertTrue(mirror.requests)
            for _, path, _ in mirror.requests:
                query = registries.urllib.parse.parse_qs(registries.urllib.parse.urlsplit(path).query)
                self.assertEqual(query.get("ns"), [self.origin.address], path)

    def test_hosts_toml_for_all(self):
        """A mirror on this node for whatever comes: _default."""
        mirror = self.mirror()
        config = self.hosts_toml("_default", f'[host."http://{mirror.address}"]\ncapabilities = ["pull", "resolve"]\n')
        self.read(self.mount(config=config))
        self.assertEqual(len(mirror.asked("/blobs/" + self.layer)), 1)
        self.assertEqual(self.origin.requests(), [])

    def test_hosts_toml_pull_only(self):
        """A mirror that may give content by digest is not asked what a tag is."""
        mirror = self.mirror()
        config = self.hosts_toml(self.origin.address,
                                 f'[host."http://{mirror.address}"]\ncapabilities = ["pull"]\n'
                                 f'[host."http://{mirror.address}".header]\nX-Team = "a"\n')
        self.read(self.mount(config=config))
        self.assertEqual(mirror.asked("/manifests/1"), [])
        self.assertEqual(len(mirror.asked("/blobs/" + self.layer)), 1)
        self.assertEqual(len([path for _, path, _ in self.origin.requests() if path.endswith("/manifests/1")]), 1)
        self.assertEqual({headers.get("X-Team") for _, _, headers in mirror.requests}, {"a"})

    def test_hosts_toml_with_a_path(self):
        """override_path: the URL is the root of the API, wherever that is."""
        mirror = self.mirror()
        hand_on = mirror.hand_on

        def below_a_path(handler):
            handler.path = handler.path.replace("/api/oci/", "/v2/", 1)
            hand_on(handler)

        mirror.hand_on = below_a_path
        config = self.hosts_toml(self.origin.address, f'[host."http://{mirror.address}/api/oci"]\noverride_path = true\n')
        self.read(self.mount(config=config))
        self.assertEqual({path.startswith("/api/oci/team/app/") for _, path, _ in mirror.requests}, {True})
        self.assertEqual(self.origin.requests(), [])

    def test_hosts_toml_changes(self):
        """A file that changes counts without a remount."""
        first, second = self.mirror(), self.mirror()
        for i in range(40):
            self.source.push("more", f"v{i}", oci.image([Tar().dir("./").file("n", b"%d" % i).bytes()]))
        config = self.hosts_toml(self.origin.address, f'[host."http://{first.address}"]\n')
        mounted = self.mount(config=config)
        self.read(mounted)
        self.assertTrue(first.requests)
        path = self.directory / "hosts" / self.origin.address / "hosts.toml"
        path.with_suffix(".new").write_text(f'[host."http://{second.address}"]\n')
        path.with_suffix(".new").rename(path)
        tags = iter(range(40))

        def used():
            with open(mounted.path(self.origin.address, f"more:v{next(tags)}", "n"), "rb") as file:
                file.read()
            return second.requests

        # Each try asks for something new, and there are 40.
        harness.until(used, "the new file counts", 10, every=0.3)

    def test_hosts_toml_that_does_not_parse(self):
        config = self.hosts_toml(self.origin.address, 'server = "http://\n')
        mounted = self.mount(config=config)
        with self.assertRaises(OSError) as refused:
            os.listdir(mounted.path(self.origin.address, "team/app:1"))
        self.assertIn("hosts.toml:1", mounted.log(), refused.exception)

    def registries_conf(self, text):
        path = self.directory / "registries.conf"
        path.write_text(text)
        return toml("", registries_conf=path)

    def test_registries_conf(self):
        """The mirror has it under another path; no ns there."""
        mirror = self.mirror()
        self.source.push("mirrored/app", "1", self.item)
        config = self.registries_conf(
            f'[[registry]]\nprefix = {json.dumps(self.origin.address + "/team")}\n'
            f'location = {json.dumps(self.origin.address + "/team")}\n'
            f'[[registry.mirror]]\nlocation = {json.dumps(mirror.address + "/mirrored")}\ninsecure = true\n')
        self.read(self.mount(config=config))
        self.assertEqual(len(mirror.asked(f"/v2/mirrored/app/blobs/{self.layer}")), 1)
        self.assertEqual(self.origin.requests(), [])
        self.assertEqual(mirror.asked("ns="), [])

    def test_registries_conf_by_digest_only(self):
        mirror = self.mirror()
        config = self.registries_conf(
            f'[[registry]]\nlocation = {json.dumps(self.origin.address)}\ninsecure = true\n'
            "mirror-by-digest-only = true\n"
            f'[[registry.mirror]]\nlocation = {json.dumps(mirror.address)}\ninsecure = true\n')
        mounted = self.mount(config=config)
        self.read(mounted)
        self.assertEqual(mirror.asked("/manifests/1"), [])
        with open(mounted.path(self.origin.address, f"team/app@{self.item.digest}", "data"), "rb") as file:
            self.assertEqual(file.read(), self.payload)

    def test_registries_conf_rewrites(self):
        """Another location without mirrors: the name is only a name."""
        self.source.push("elsewhere/app", "1", self.item)
        config = self.registries_conf(
            '[[registry]]\nprefix = "registry.example/team"\ninsecure = true\n'
            f'location = {json.dumps(self.source.address + "/elsewhere")}\n')
        mounted = self.mount(config=config)
        with open(mounted.path("registry.example", "team/app:1", "data"), "rb") as file:
            self.assertEqual(file.read(), self.payload)

    def test_registries_conf_blocks(self):
        config = self.registries_conf(f'[[registry]]\nlocation = {json.dumps(self.origin.address)}\nblocked = true\n')
        mounted = self.mount(config=config)
        self.assert_errno("EACCES", os.listdir, mounted.path(self.origin.address, "team/app:1"))
        self.assertIn("registries.conf", mounted.log())
        self.assertEqual(self.origin.requests(), [])


if __name__ == "__main__":
    harness.main("openssl")
