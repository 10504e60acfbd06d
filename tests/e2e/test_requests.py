#!/usr/bin/env python3
"""What ocifs asks of a registry, counted in its log: a cold pull takes no request more than skopeo's,
and the check of a tag that did not move takes one."""

import mmap
import os
import pathlib
import struct

import fixtures
import harness
import oci
import registries
from tarfiles import Tar

CHECKS = 100
LATEST_SECONDS = 300  # how long `latest` is believed


def content(path):
    with open(path, "rb") as file:
        return file.read()


class Clock:
    """The wall clock of a program, moved at will (clock_shim.c)."""

    def __init__(self, directory):
        library, self.file = directory / "clock_shim.so", directory / "clock"
        harness.run("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library,
                    pathlib.Path(__file__).with_name("clock_shim.c"))
        self.file.write_bytes(bytes(mmap.PAGESIZE))
        with open(self.file, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "OCIFS_TEST_CLOCK": str(self.file)}

    def advance(self, seconds):
        now, = struct.unpack_from("=q", self.map)
        struct.pack_into("=q", self.map, 0, now + seconds)


class Requests(registries.TestCase):
    def setUp(self):
        super().setUp()
        self.source = self.registry()
        self.payload = fixtures.noise(200_000)
        self.item = oci.image([Tar().dir("./").file("f", self.payload).bytes()])

    def serving(self, **more):
        return self.registry(data=self.source.data, **more)

    def compare(self, registry, tokens=None):
        """The requests of `skopeo copy` and of reading through a mount, by either form of the name."""
        def counted(work):
            before, asked = len(registry.requests()), len(tokens.requests) if tokens else 0
            work()
            made = [f"{method} {path} {status}" for method, path, status in registry.requests()[before:]]
            return made + ["token"] * ((len(tokens.requests) if tokens else 0) - asked)

        skopeo = counted(lambda: harness.run(
            "skopeo", "copy", "--src-tls-verify=false", f"docker://{registry.address}/one:1",
            f"dir:{self.directory}/copy"))
        for name in ("one:1", "one/1"):
            mounted = self.mount(name.replace("/", "-"))

            def read(mounted=mounted, name=name):
                self.assertEqual(content(mounted.path(registry.address, name, "f")), self.payload)

            ours = counted(read)
            print(f"{self._testMethodName}: {name}: ocifs {len(ours)}, skopeo {len(skopeo)}")
            self.assertLessEqual(len(ours), len(skopeo), f"ocifs: {ours}\nskopeo: {skopeo}")

    def test_cold_pull(self):
        self.source.push("one", "1", self.item)
        self.compare(self.serving())

    def test_cold_pull_with_a_token(self):
        self.source.push("one", "1", self.item)
        tokens = self.token_server()
        self.compare(self.serving(settings=tokens.settings()), tokens)

    def test_checks_of_a_tag_that_does_not_move(self):
        """100 times `latest` is looked at anew: 100 conditional requests, no blob, no token but the first."""
        self.source.push("moving", "latest", self.item)
        tokens = self.token_server(lifetime=3600)
        registry = self.serving(settings=tokens.settings())
        clock = Clock(self.directory)
        mounted = self.mount(environment=clock.environment)
        path = mounted.path(registry.address, "moving", "latest", "f")
        self.assertEqual(content(path), self.payload)
        before = len(registry.requests())
        asked = len(tokens.requests)
        for _ in range(CHECKS):
            clock.advance(LATEST_SECONDS + 1)
            # The kernel remembers names, too.
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("2")
            os.stat(path)
        made = registry.requests()[before:]
        self.assertEqual({path for _, path, _ in made}, {"/v2/moving/manifests/latest"})
        self.assertEqual([status for _, _, status in made], [304] * CHECKS)
        self.assertEqual(len(tokens.requests), asked)
        self.assertEqual(asked, 1)
        # It would have been seen if it had moved.
        moved = oci.image([Tar().dir("./").file("f", b"moved").bytes()])
        self.source.push("moving", "latest", moved)
        clock.advance(LATEST_SECONDS + 1)
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("2")
        self.assertEqual(content(path), b"moved")
        self.assertEqual(len(tokens.requests), 1)


if __name__ == "__main__":
    harness.main("openssl", "cc")
