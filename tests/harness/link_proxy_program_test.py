#!/usr/bin/env python3
"""The program link-proxy: what it prints, what it obeys, and that bytes pass. LINK_PROXY names it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import unittest


def serve_echo(listener):
    """Sends back what each connection sends, one after the other."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(ConnectionError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)


class LinkProxyProgram(unittest.TestCase):
    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        echo = threading.Thread(target=serve_echo, args=(self.listener,))
        echo.start()
        self.addCleanup(echo.join)
        self.addCleanup(self.listener.close)
        self.addCleanup(self.listener.shutdown, socket.SHUT_RDWR)

    def start(self, *options):
        program = subprocess.Popen(
            [os.environ["LINK_PROXY"], "--connect", str(self.listener.getsockname()[1]), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.addCleanup(program.stdout.close)
        self.addCleanup(program.stdin.close)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        words = program.stdout.readline().split()
        self.assertEqual(words[:2], ["listening", "on"])
        host, port = words[2].split(":")
        return program, (host, int(port))

    def command(self, program, line):
        program.stdin.write(line + "\n")
        return program.stdout.readline().strip()

    def test_carries_bytes_and_counts_them(self):
        program, address = self.start("--delay-ms", "1", "--rate-mbit", "800", "--window-kib", "64")
        with socket.create_connection(address) as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"hello")
            self.assertEqual(json.loads(self.command(program, "counters")),
                             {"connections": 1, "open": 1, "bytes_to_server": 5,
                              "bytes_to_client": 5})
        program.send_signal(signal.SIGTERM)
        self.assertEqual(json.loads(program.stdout.readline())["bytes_to_client"], 5)
        self.assertEqual(program.wait(), 0)

    def test_obeys_commands(self):
        program, address = self.start()
        with socket.create_connection(address) as client:
            self.assertEqual(self.command(program, "stall"), "ok")
            client.sendall(b"x")
            for _ in range(10):
                self.assertEqual(json.loads(self.command(program, "counters"))["bytes_to_server"], 0)
            self.assertEqual(self.command(program, "resume"), "ok")
            self.assertEqual(client.recv(1), b"x")
            self.assertEqual(self.command(program, "reset"), "ok")
            with self.assertRaises(ConnectionResetError):
                client.recv(1)
        self.assertEqual(self.command(program, "cut-bytes 3"), "ok")
        with socket.create_connection(address) as client:
            client.sendall(b"abcdef")
            self.assertEqual(client.makefile("rb").read(), b"abc")
        self.assertEqual(self.command(program, "blackhole"), "ok")
        for line in ("nonsense", "cut-bytes many", "cut-kind gently", ""):
            self.assertEqual(self.command(program, line), "unknown")

    def test_stays_when_there_are_no_more_commands(self):
        program, address = self.start()
        program.stdin.close()
        with socket.create_connection(address) as client:
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")

    def test_refuses_options_that_it_does_not_know(self):
        for options in ([], ["--connect"], ["--connect", "x"], ["--connect", "1", "--speed", "9"]):
            done = subprocess.run([os.environ["LINK_PROXY"], *options], stdin=subprocess.DEVNULL,
                                  capture_output=True, check=False)
            self.assertEqual(done.returncode, 2, options)
            self.assertTrue(done.stderr)


if __name__ == "__main__":
    unittest.main()
