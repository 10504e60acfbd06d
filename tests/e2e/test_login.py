#!/usr/bin/env python3
"""ocifs-ctl login and logout, with a registry that wants a login and with skopeo, which reads the same
files."""

import base64
import json
import os
import pty
import stat
import subprocess

import fixtures
import harness
import oci

USER, PASSWORD = "alice", "correct:horse"
# bcrypt of PASSWORD, as htpasswd -B makes it.
HTPASSWD = "alice:$2b$05$A3FaKU0vEzHTVEVMKiglmu3FSVaCL077HHvp0fJsXowEW31oaNQ/u\n"


class SignedIn(oci.Client):
    """A client that says who it is with every request."""

    def request(self, method, path, body=None, headers=None, expect=(200, 201, 202)):
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return super().request(method, path, body, {**(headers or {}), "Authorization": f"Basic {pair}"},
                               expect)


class Logins(harness.TestCase):
    def setUp(self):
        super().setUp()
        (self.directory / "htpasswd").write_text(HTPASSWD)
        self.private = self.registry(settings={"auth": {"htpasswd": {
            "realm": "tests", "path": str(self.directory / "htpasswd")}}})
        self.item = oci.image(fixtures.plain_tars())
        SignedIn(self.private.address).push("team/app", "1", self.item)
        self.home = self.directory / "home"
        self.runtime = self.directory / "run"
        for folder in (self.home, self.runtime):
            folder.mkdir()
        self.environment = {
            name: value for name, value in os.environ.items()
            if name not in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "XDG_CONFIG_HOME")}
        self.environment.update(HOME=str(self.home), XDG_RUNTIME_DIR=str(self.runtime))
        self.file = self.home / ".config" / "containers" / "auth.json"

    def ctl(self, *words, text_input=None):
        return subprocess.run([harness.CTL, *words], input=text_input, capture_output=True, text=True,
                              timeout=60, env=self.environment)

    def mount_here(self, name="mount"):
        """A mount that looks for logins where the commands of the test do."""
        return self.mount(name, command=["env", "-i", *(f"{key}={value}" for key, value in
                                                        self.environment.items())])

    def login(self, password=PASSWORD, *words):
        return self.ctl("login", self.private.address, "--user", USER, "--password-stdin", *words,
                        text_input=password + "\n")

    def skopeo(self):
        return subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false",
                               f"docker://{self.private.address}/team/app:1"], capture_output=True, text=True,
                              timeout=60, env=self.environment)

    def test_login_read_logout(self):
        mounted = self.mount_here()
        package = mounted.path(self.private.address, "team/app/1")
        with self.assertRaises(OSError):
            os.listdir(package)
        self.assertNotEqual(self.skopeo().returncode, 0)

        done = self.login()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(str(self.file), done.stdout)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.file.parent.stat().st_mode), 0o700)

        # The mount that is there, and skopeo, find it.
        harness.until(lambda: self.readable(package), "the package can be read")
        self.assert_same_tree(package, harness.umoci_unpack(self.item, self.directory / "ref"))
        inspected = self.skopeo()
        self.assertEqual(inspected.returncode, 0, inspected.stderr)
        self.assertEqual(inspected.stdout.encode(), self.item.manifest)

        done = self.ctl("logout", self.private.address)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(str(self.file), done.stdout)
        self.assertEqual(json.loads(self.file.read_text()), {"auths": {}})
        self.assertNotEqual(self.skopeo().returncode, 0)
        other = self.mount_here("other")
        with self.assertRaises(OSError):
            os.listdir(other.path(self.private.address, "team/app/1"))
        done = self.ctl("logout", self.private.address)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no login", done.stderr)
        self.assertNotIn(PASSWORD, mounted.log() + other.log())

    def readable(self, package):
        try:
            return os.listdir(package)
        except OSError:
            return None

    def test_wrong_password_is_not_stored(self):
        done = self.login("wrong-horse")
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.private.address, done.stderr)
        self.assertIn("nothing was stored", done.stderr)
        self.assertNotIn("wrong-horse", done.stderr + done.stdout)
        self.assertFalse(self.file.exists())
        self.assertEqual(self.login("wrong-horse", "--no-verify").returncode, 0)
        self.assertTrue(self.file.exists())

    def test_login_of_skopeo_is_replaced_and_removed(self):
        done = subprocess.run(["skopeo", "login", "--tls-verify=false", "--username", USER,
                               "--password-stdin", self.private.address], input=PASSWORD, text=True,
                              capture_output=True, timeout=60, env=self.environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        theirs = self.runtime / "containers" / "auth.json"
        mounted = self.mount_here()
        os.listdir(mounted.path(self.private.address, "team/app/1"))
        self.assertEqual(self.login().returncode, 0)
        for file in (theirs, self.file):
            self.assertIn(self.private.address, json.loads(file.read_text())["auths"])
        self.assertEqual(self.ctl("logout", self.private.address).returncode, 0)
        for file in (theirs, self.file):
            self.assertEqual(json.loads(file.read_text())["auths"], {})

    def test_files_that_are_named(self):
        file = self.directory / "mine.json"
        file.write_text('{"auths": {"other.example": {"auth": "dTpw"}}, "kept": [1, 2]}')
        done = self.login(PASSWORD, "--authfile", str(file))
        self.assertEqual(done.returncode, 0, done.stderr)
        content = json.loads(file.read_text())
        self.assertEqual(content["kept"], [1, 2])
        self.assertEqual(set(content["auths"]), {"other.example", self.private.address})
        self.assertFalse(self.file.exists())
        self.environment["REGISTRY_AUTH_FILE"] = str(file)
        self.assertEqual(self.skopeo().returncode, 0)
        self.assertEqual(self.ctl("logout", self.private.address).returncode, 0)
        self.assertEqual(set(json.loads(file.read_text())["auths"]), {"other.example"})
        file.write_text("{broken")
        self.assertEqual(self.login().returncode, 1)
        self.assertEqual(file.read_text(), "{broken")

    def test_at_a_terminal(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(harness.CTL, ["ocifs-ctl", "login", self.private.address], self.environment)
        shown = b""

        def read_until(text):
            nonlocal shown
            while text not in shown:
                shown += os.read(terminal, 1000)

        read_until(b"User name")
        os.write(terminal, f"{USER}\n".encode())
        read_until(b"Password")
        os.write(terminal, f"{PASSWORD}\n".encode())
        try:
            while piece := os.read(terminal, 1000):
                shown += piece
        except OSError:  # the other end is closed
            pass
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, shown)
        self.assertNotIn(PASSWORD.encode(), shown)
        self.assertEqual(self.skopeo().returncode, 0)

    def test_nobody_to_ask(self):
        done = self.ctl("login", self.private.address, "--user", USER, text_input=PASSWORD)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--password-stdin", done.stderr)
        self.assertNotIn(PASSWORD, done.stderr)
        done = self.ctl("login", self.private.address, "--password-stdin", text_input=PASSWORD)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--user", done.stderr)

    def test_credential_helper(self):
        programs = self.directory / "programs"
        programs.mkdir()
        kept = self.directory / "kept"
        helper = programs / "docker-credential-tests"
        helper.write_text(f"""#!/bin/sh
case $1 in
  get) cat '{kept}' 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;
  store) cat >'{kept}' ;;
  erase) rm '{kept}' ;;
esac
""")
        helper.chmod(0o755)
        self.environment["PATH"] = f"{programs}:{self.environment['PATH']}"
        config = self.home / ".docker" / "config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"credHelpers": {self.private.address: "tests"}}))
        done = self.login()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(kept.read_text()), {
            "ServerURL": self.private.address, "Username": USER, "Secret": PASSWORD})
        self.assertNotIn("auth\"", config.read_text())
        mounted = self.mount_here()
        os.listdir(mounted.path(self.private.address, "team/app/1"))
        self.assertEqual(self.skopeo().returncode, 0)
        self.assertEqual(self.ctl("logout", self.private.address).returncode, 0)
        self.assertFalse(kept.exists())


if __name__ == "__main__":
    harness.main()
