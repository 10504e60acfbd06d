#!/usr/bin/env python3
"""Packets that do not arrive, between ocifs in a network namespace of its own and a registry outside."""

import os
import threading
import time

import harness
import test_network
from registries import registry_table


class Wire(test_network.Network):
    def setUp(self):
        super().setUp()
        self.line = self.wire()
        self.front = self.link(self.source.address, host=self.line.host)
        self.mounted = self.mount(command=self.line.command, config=registry_table(self.front.address, scheme="http"))
        self.assert_reads(self.mounted, self.front.address, 0)

    def fails(self, number, errors, seconds):
        _, took = self.assert_errno(errors, os.listdir, self.mounted.path(self.front.address, f"pkg:v{number}"))
        print(f"{self._testMethodName}: v{number} fails after {took:.3f} s")
        self.assertLess(took, seconds)

    def test_packets_vanish(self):
        """Nothing is answered any more. The first waits for as long as it was said to, others do not wait
        behind a host that is known to be away, and what is in the store is read as ever."""
        self.line.swallow()
        self.fails(1, "ETIMEDOUT", 33)
        for i in (2, 3, 4, 1):
            self.fails(i, ("ETIMEDOUT", "EHOSTUNREACH"), 1)
        self.assert_reads(self.mounted, self.front.address, 0)
        self.assertIn(self.front.address, self.mounted.log())
        self.line.heal()
        self.assert_heals(self.mounted, self.front.address, 5, 5)
        self.assert_reads(self.mounted, self.front.address, 2)

    def test_no_route(self):
        """Where no connection is open the kernel knows at once."""
        self.mounted.restart()
        self.line.no_route()
        for i in (1, 2):
            self.fails(i, "EHOSTUNREACH", 1)
        self.assert_reads(self.mounted, self.front.address, 0)
        self.line.heal()
        self.assert_heals(self.mounted, self.front.address, 1, 5)

    def test_route_is_lost(self):
        """A connection that is open waits for its packets as if they had been lost on the way."""
        self.line.no_route()
        self.fails(1, ("EHOSTUNREACH", "ETIMEDOUT"), 33)
        for i in (2, 3):
            self.fails(i, ("EHOSTUNREACH", "ETIMEDOUT"), 1)
        self.assert_reads(self.mounted, self.front.address, 0)
        self.line.heal()
        self.assert_heals(self.mounted, self.front.address, 1, 5)

    def test_unplugged(self):
        self.line.unplug()
        self.fails(1, ("EHOSTUNREACH", "ETIMEDOUT"), 33)
        self.fails(2, ("EHOSTUNREACH", "ETIMEDOUT"), 1)
        self.assert_reads(self.mounted, self.front.address, 0)
        self.line.heal()
        self.assert_heals(self.mounted, self.front.address, 1, 5)

    def test_forgotten_connections(self):
        """The other side forgot the connections that ocifs keeps for later: nobody notices."""
        self.line.swallow()
        self.front.refuse()  # its farewell does not arrive
        self.front.heal()
        self.line.heal()
        for i in (1, 2, 3):
            start = time.monotonic()
            self.assert_reads(self.mounted, self.front.address, i)
            self.assertLess(time.monotonic() - start, 5)

    def test_flaps(self):
        """The wire comes and goes under a transfer that takes longer: the reader gets his bytes."""
        self.front.rate = 30_000
        result = {}

        def reader():
            try:
                with open(self.mounted.path(self.front.address, "pkg:v1", "data"), "rb") as file:
                    result["right"] = file.read() == self.payload
            except OSError as error:
                result["error"] = harness.errno_name(error)

        thread = threading.Thread(target=reader)
        thread.start()
        flaps = 0
        while thread.is_alive() and flaps < 5:
            down = self.front.down
            thread.join(1.5)
            self.line.unplug()
            thread.join(1.5)
            self.line.heal()
            harness.until(lambda down=down: self.front.down > down or not thread.is_alive(), "it goes on", 30)
            flaps += 1
        thread.join(60)
        self.assertEqual(result, {"right": True})
        self.assertGreaterEqual(flaps, 3)


if __name__ == "__main__":
    harness.main("ip", "nsenter", "openssl", "unshare")
