#!/usr/bin/env python3
"""An ordinary user mounts for himself, through fusermount3."""

import os
import pwd
import shutil
import stat
import subprocess

import fixtures
import harness
import oci
from tarfiles import Tar


class UserMount(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.user = pwd.getpwnam("nobody")
        self.as_user = ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}",
                        "--clear-groups", "--inh-caps=-all"]
        # Debian gives /dev/fuse to everybody; a kernel without udev to root alone.
        mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        if mode & 0o006 != 0o006:
            os.chmod("/dev/fuse", 0o666)
            self.addCleanup(os.chmod, "/dev/fuse", mode)
        os.chmod(self.directory, 0o755)
        self.home = self.directory / "home"
        self.point = self.home / "oci"
        self.point.mkdir(parents=True)
        # The build tree may lie where others cannot look.
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        for program in (harness.OCIFS, harness.CTL):
            shutil.copy(program, self.bin)
        layout = self.layout("layout", {
            "mine:1": oci.image([Tar().dir("./").file("open", b"open", mode=0o644)
                                 .file("closed", b"closed", mode=0o600, uid=0).bytes()]),
            "app:1": oci.image(fixtures.plain_tars())})
        (self.home / "ocifs.toml").write_text(f'[registry."x.test"]\nlayout = {harness.toml_string(layout)}\n')
        for path in [self.home, *self.home.rglob("*")]:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        self.addCleanup(self.clear)

    def clear(self):
        while harness.mount_type(self.point):
            subprocess.run(["umount", "-l", self.point], check=True)

    def run_as_user(self, *command, check=True):
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "USER": "nobody"}
        done = subprocess.run([*self.as_user, *command], capture_output=True, text=True, timeout=60,
                              env=environment, cwd=self.home)
        if check:
            self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
        return done

    def test_mount_read_unmount(self):
        self.run_as_user(self.bin / "ocifs", "--config", "ocifs.toml", "oci")
        self.assertEqual(harness.mount_type(self.point), "fuse.ocifs")
        self.assertEqual(self.run_as_user("cat", "oci/x.test/mine/1/open").stdout, "open")
        # The default store is in the cache directory of the user, and his alone.
        store = self.home / ".cache" / "ocifs"
        self.assertTrue((store / "format").exists())
        self.assertEqual(os.stat(store).st_uid, self.user.pw_uid)
        self.assertEqual(stat.S_IMODE(os.stat(store).st_mode), 0o700)
        # Everything is his: what only root of the image may read, he may.
        self.assertEqual(self.run_as_user("cat", "oci/x.test/mine/1/closed").stdout, "closed")
        self.assertEqual(self.run_as_user("stat", "-c", "%u %g %a", "oci/x.test/mine/1/closed").stdout.split(),
                         [str(self.user.pw_uid), str(self.user.pw_gid), "600"])
        # Nobody else gets in, not even root.
        self.assert_errno("EACCES", os.listdir, self.point)
        listed = self.run_as_user(self.bin / "ocifs-ctl", "ls", "--config", "ocifs.toml").stdout
        self.assertIn("x.test/mine:1", listed)
        self.run_as_user("fusermount3", "-u", "oci")
        self.assertIsNone(harness.mount_type(self.point))

    def test_memory_of_the_daemon_is_nobody_s(self):
        """It holds logins: no other process of the user may look into it, and no core file gets it."""
        self.run_as_user(self.bin / "ocifs", "--config", "ocifs.toml", "--store", "store", "oci")
        listed = subprocess.run(["pgrep", "-f", f"^{self.bin / 'ocifs'} "], capture_output=True, text=True,
                                check=True).stdout.split()
        self.assertEqual(len(listed), 1)
        for name in ("environ", "mem"):
            self.assertNotEqual(self.run_as_user("cat", f"/proc/{listed[0]}/{name}", check=False).returncode, 0, name)
        self.assertEqual(self.run_as_user("cat", "oci/x.test/mine/1/open").stdout, "open")
        self.run_as_user("fusermount3", "-u", "oci")

    def test_same_tree_as_root_sees(self):
        self.run_as_user(self.bin / "ocifs", "--config", "ocifs.toml", "--store", "store", "oci")
        mine = self.run_as_user("sh", "-c", "cd oci/x.test/app/1 && find . -type f -exec sha256sum {} + | sort -k 2")
        reference = harness.umoci_unpack(oci.image(fixtures.plain_tars()), self.directory / "ref")
        theirs = subprocess.run(["sh", "-c", "find . -type f -exec sha256sum {} + | sort -k 2"], cwd=reference,
                                capture_output=True, text=True, check=True)
        self.assertEqual(mine.stdout, theirs.stdout)
        self.run_as_user("fusermount3", "-u", "oci")

    def test_foreign_mountpoint(self):
        """A directory of somebody else is refused with a reason."""
        os.chown(self.point, 0, 0)
        done = self.run_as_user(self.bin / "ocifs", "--config", "ocifs.toml", "oci", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.strip())
        self.assertIsNone(harness.mount_type(self.point))

    def test_foreign_store(self):
        store = self.directory / "roots-store"
        store.mkdir(mode=0o755)
        done = self.run_as_user(self.bin / "ocifs", "--config", "ocifs.toml", "--store", store, "oci", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("roots-store", done.stderr)

    def test_allow_other_needs_permission(self):
        """fusermount3 allows it only where /etc/fuse.conf says so; the reason reaches the user."""
        if "\nuser_allow_other" in "\n" + open("/etc/fuse.conf", encoding="utf-8").read():
            self.skipTest("/etc/fuse.conf of this machine has user_allow_other")
        done = self.run_as_user(self.bin / "ocifs", "--config", "ocifs.toml", "-o", "allow_other", "oci", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("user_allow_other", done.stderr)


if __name__ == "__main__":
    harness.main()
