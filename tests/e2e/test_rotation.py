#!/usr/bin/env python3
"""Logins that change while ocifs is mounted: the next pull uses the new one, and a login that is refused is
told as such and heals the moment that it is right."""

import os

import harness
import oci
import registries
from tarfiles import Tar


class Rotation(registries.TestCase):
    def setUp(self):
        super().setUp()
        self.source = self.registry()
        for i in range(6):
            self.source.push("team/app", f"v{i}", oci.image([Tar().dir("./").file("n", b"%d" % i).bytes()]))
        self.auth_file = self.directory / "mount" / "containers" / "auth.json"

    def write_login(self, registry, user, password):
        registries.write_auths(self.auth_file, {registry.address: registries.podman_entry(user, password)})

    def assert_reads(self, mounted, registry, number):
        with open(mounted.path(registry.address, f"team/app:v{number}", "n"), "rb") as file:
            self.assertEqual(file.read(), b"%d" % number)

    def assert_refused(self, mounted, registry, number, words):
        """EACCES, at once, with the reason where users look for it."""
        path = mounted.path(registry.address, f"team/app:v{number}")
        _, seconds = self.assert_errno("EACCES", os.listdir, path)
        self.assertLess(seconds, 5)
        reason = os.getxattr(mounted.path(registry.address, "team"), "user.oci.error").decode()
        for word in words:
            self.assertIn(word, reason)
            self.assertIn(word, mounted.log())
        self.assertNotIn("secret", mounted.log() + reason)

    def test_password(self):
        registry = self.password_registry({"user": "secret-1"}, data=self.source.data)
        self.log_in("mount", registry.address, "user", "secret-1")
        mounted = self.mount()
        self.assert_reads(mounted, registry, 0)
        # The administrator first: until the user follows, what is not there yet cannot be had.
        registries.write_htpasswd(registry.htpasswd, {"user": "secret-2"})
        self.assert_refused(mounted, registry, 1, ["login", registry.address])
        self.assert_reads(mounted, registry, 0)
        self.log_in("mount", registry.address, "user", "secret-2")
        self.assert_reads(mounted, registry, 1)
        self.assert_reads(mounted, registry, 2)

    def test_password_and_file_together(self):
        registry = self.password_registry({"user": "secret-1"}, data=self.source.data)
        self.write_login(registry, "user", "secret-1")
        mounted = self.mount()
        for i in range(5):
            self.assert_reads(mounted, registry, i)
            registries.write_htpasswd(registry.htpasswd, {"user": f"secret-{i + 2}"})
            self.write_login(registry, "user", f"secret-{i + 2}")
        self.assert_reads(mounted, registry, 5)
        self.assertNotIn("401", mounted.log())

    def test_login_that_comes_late(self):
        """No login at first; once there is one, the very next look succeeds."""
        registry = self.password_registry({"user": "secret-1"}, data=self.source.data)
        mounted = self.mount()
        self.assert_refused(mounted, registry, 0, ["log in", registry.address])
        self.log_in("mount", registry.address, "user", "secret-1")
        self.assert_reads(mounted, registry, 0)

    def test_login_that_is_taken_away(self):
        """`podman logout`: what is in the store stays, other things need a login."""
        registry = self.password_registry({"user": "secret-1"}, data=self.source.data)
        self.log_in("mount", registry.address, "user", "secret-1")
        mounted = self.mount()
        self.assert_reads(mounted, registry, 0)
        harness.run("skopeo", "logout", "--authfile", self.auth_file, registry.address)
        self.assert_refused(mounted, registry, 1, ["log in", registry.address])
        self.assert_reads(mounted, registry, 0)

    def test_password_at_a_token_server(self):
        tokens = self.token_server(logins={"user": "secret-1"}, anonymous=False, lifetime=5, expires_in=60)
        registry = self.registry(data=self.source.data, settings=tokens.settings())
        self.write_login(registry, "user", "secret-1")
        mounted = self.mount()
        self.assert_reads(mounted, registry, 0)
        tokens.logins["user"] = "secret-2"
        self.write_login(registry, "user", "secret-2")
        self.assert_reads(mounted, registry, 1)
        tokens.logins["user"] = "secret-3"
        self.write_login(registry, "user", "wrong")
        self.assert_refused(mounted, registry, 2, ["login was refused", registry.address])
        self.write_login(registry, "user", "secret-3")
        self.assert_reads(mounted, registry, 2)

    def test_revoked_identity_token(self):
        tokens = self.token_server(refresh_tokens={"secret-refresh-1": "user"}, anonymous=False)
        registry = self.registry(data=self.source.data, settings=tokens.settings())
        # As Docker keeps it, in its own file.
        self.auth_file = self.directory / "mount" / ".docker" / "config.json"
        tokens.refresh_tokens.clear()
        registries.write_auths(self.auth_file, {registry.address: registries.docker_identity_entry("secret-refresh-1")})
        mounted = self.mount()
        self.assert_refused(mounted, registry, 0, ["login was refused", registry.address])
        tokens.refresh_tokens["secret-refresh-2"] = "user"
        registries.write_auths(self.auth_file, {registry.address: registries.docker_identity_entry("secret-refresh-2")})
        self.assert_reads(mounted, registry, 0)

    def test_refusals_are_no_storm(self):
        """A hundred readers with a wrong password do not get an account locked: few ask the token server."""
        tokens = self.token_server(logins={"user": "secret-1"}, anonymous=False)
        registry = self.registry(data=self.source.data, settings=tokens.settings())
        self.write_login(registry, "user", "wrong")
        mounted = self.mount()
        for _ in range(100):
            self.assert_errno("EACCES", os.listdir, mounted.path(registry.address, "team/app:v0"))
        self.assertLessEqual(len(tokens.requests), 4)
        self.write_login(registry, "user", "secret-1")
        self.assert_reads(mounted, registry, 0)


if __name__ == "__main__":
    harness.main("openssl")
