#!/usr/bin/env python3
"""Starting, stopping, and what stays the same from one life to the next."""

import os
import pathlib
import shutil
import signal
import stat
import subprocess

import fixtures
import harness
import oci
from tarfiles import Tar

HELPER = harness.ROOT / "packaging" / "mount.ocifs"


def daemons(mountpoint):
    """Processes of ocifs that serve this mountpoint."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if os.fsencode(mountpoint) in words and words[0].endswith(b"ocifs") and state != "Z":
                found.append(int(folder.name))
    return found


class Lifecycle(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.layout_path = self.layout("layout", {
            "a/b:1": oci.image(fixtures.plain_tars()),
            "c:1": oci.image([Tar().dir("./").file("one", b"1").dir("d").file("d/two", b"2").bytes()]),
            "e:2": fixtures.helm().artifact})
        self.config_text = f'[registry."x.test"]\nlayout = {harness.toml_string(self.layout_path)}\n'
        self.config = self.directory / "ocifs.toml"
        self.config.write_text(self.config_text)
        self.store = self.directory / "store"
        self.point = self.directory / "point"
        self.point.mkdir()
        self.addCleanup(self.clear)

    def clear(self):
        while harness.mount_type(self.point):
            subprocess.run(["umount", "-l", self.point], check=True)
        for pid in daemons(self.point):
            os.kill(pid, signal.SIGKILL)

    def start(self, *more, **options):
        """Runs ocifs as a user would; it returns when the mount is ready, or not."""
        return subprocess.run([harness.OCIFS, "--store", self.store, "--config", self.config, *more,
                               self.point], capture_output=True, text=True, timeout=30, **options)

    def assert_serves(self):
        with open(self.point / "x.test" / "c" / "1" / "one", "rb") as file:
            self.assertEqual(file.read(), b"1")

    def assert_gone(self):
        harness.until(lambda: not daemons(self.point), "the daemon has ended")
        self.assertIsNone(harness.mount_type(self.point))

    def test_daemon(self):
        """Returns with the mount ready, holds on to no terminal, directory or pipe, and umount ends it."""
        done = self.start(cwd=self.layout_path)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(harness.mount_type(self.point), "fuse.ocifs")
        self.assert_serves()
        for pid in daemons(self.point):
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
            self.assertNotEqual(os.getsid(pid), os.getsid(0))
        subprocess.run(["umount", self.point], check=True)
        self.assert_gone()

    def test_relative_paths(self):
        """Paths are those of the caller, also after the daemon has left his directory."""
        done = subprocess.run([harness.OCIFS, "--store", "store", "--config", "ocifs.toml", "point"],
                              capture_output=True, text=True, timeout=30, cwd=self.directory)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_serves()
        self.assertTrue((self.store / "format").exists())
        subprocess.run(["umount", self.point], check=True)
        harness.until(lambda: harness.mount_type(self.point) is None, "unmounted")

    def test_fusermount(self):
        self.assertEqual(self.start().returncode, 0)
        self.assert_serves()
        subprocess.run(["fusermount3", "-u", self.point], check=True)
        self.assert_gone()

    def test_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number.name):
                mounted = self.mount(f"mount-{number.name}", config=self.config_text)
                os.listdir(mounted.path("x.test", "c", "1"))
                mounted.stop(with_signal=number)
                self.assertIsNone(harness.mount_type(mounted.mountpoint))

    def test_signal_to_the_daemon(self):
        self.assertEqual(self.start().returncode, 0)
        pids = daemons(self.point)
        self.assertTrue(pids)
        os.kill(min(pids), signal.SIGTERM)
        self.assert_gone()

    def assert_refused(self, words, *more):
        """Not ready: non-zero, the reason on stderr, nothing mounted, nobody left; -f or not."""
        for mode in ([], ["-f"]):
            with self.subTest(mode=mode, words=words):
                done = self.start(*mode, *more)
                self.assertNotEqual(done.returncode, 0)
                for word in words:
                    self.assertIn(word, done.stderr)
                self.assertIsNone(harness.mount_type(self.point))
                self.assertEqual(daemons(self.point), [])

    def test_mountpoint_missing(self):
        self.point.rmdir()
        self.assert_refused([str(self.point)])
        self.point.write_text("a file")
        self.assert_refused([str(self.point)])
        self.point.unlink()
        self.point.mkdir()

    def test_bad_configuration(self):
        for text, words in (("offline = maybe\n", []), ('[registry."x.test"]\nlayuot = "/x"\n', ["layuot"]),
                            ("[registry\n", []), ('request_timeout = "soon"\n', ["request_timeout"]),
                            ("offline = 7\n", ["offline"])):
            self.config.write_text(text)
            self.assert_refused(["ocifs.toml", *words])
        self.config.unlink()
        self.assert_refused(["ocifs.toml"])

    def test_bad_store(self):
        self.store.write_text("a file")
        self.assert_refused([str(self.store)])
        self.store.unlink()
        self.store.mkdir(mode=0o700)
        (self.store / "holiday.jpg").write_bytes(b"not yours to touch")
        self.assert_refused([str(self.store)])
        self.assertEqual((self.store / "holiday.jpg").read_bytes(), b"not yours to touch")

    def test_store_of_another_version(self):
        self.assertEqual(self.start().returncode, 0)
        self.assert_serves()
        subprocess.run(["umount", self.point], check=True)
        self.assert_gone()
        version = self.store / "format"
        version.write_text("ocifs store 9999\n")
        self.assert_refused([str(self.store)])
        self.assertEqual(version.read_text(), "ocifs store 9999\n")

    def test_store_open_to_others(self):
        """A store that others can enter may hold anything by now. An empty directory is just closed."""
        self.store.mkdir()
        os.chmod(self.store, 0o777)
        self.assertEqual(self.start().returncode, 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.store).st_mode), 0o700)
        subprocess.run(["umount", self.point], check=True)
        self.assert_gone()
        os.chmod(self.store, 0o750)
        self.assert_refused([str(self.store), "chmod"])

    def test_new_store_is_private(self):
        self.assertEqual(self.start().returncode, 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.store).st_mode), 0o700)

    def test_unknown_option(self):
        self.assert_refused(["no_such_option"], "-o", "no_such_option")
        self.assert_refused(["--no-such-flag"], "--no-such-flag")

    def test_inode_numbers_are_stable(self):
        """The same name has the same inode number in every life, whatever is visited first."""
        names = ("x.test", "x.test/a", "x.test/a/b", "x.test/a/b/1", "x.test/c/1", "x.test/e/2")

        def numbers():
            found = {name: os.lstat(self.point / name).st_ino for name in names}
            for package in ("x.test/a/b/1", "x.test/c/1", "x.test/e/2"):
                root = os.fsencode(harness.enter(self.point / package))
                for path in harness.scan(root):
                    found[package, path] = os.lstat(os.path.join(root, path)).st_ino
            return found

        self.assertEqual(self.start().returncode, 0)
        first = numbers()
        self.assertEqual(len(first.values()), len(set(first.values())) +
                         len(names) // 2)  # package roots were counted twice
        for order in (["x.test/e/2", "x.test/c/1"], ["x.test/c/1", "x.test/a/b/1"]):
            subprocess.run(["umount", self.point], check=True)
            self.assert_gone()
            self.assertEqual(self.start().returncode, 0)
            for package in order:
                os.listdir(self.point / package)
            self.assertEqual(numbers(), first)

    def test_a_second_mount_of_one_store_is_refused(self):
        """One line says which store, where it is mounted and what to do; the first mount goes on."""
        registry = self.registry()
        registry.push("app", "1", oci.image(fixtures.plain_tars()))
        one = self.mount("one")
        first = harness.tar_digest(harness.enter(one.path(registry.address, "app", "1")))
        point = self.directory / "second"
        point.mkdir()
        refused = subprocess.run([harness.OCIFS, "-f", "--store", one.store, "--config", one.config, point],
                                 env=one.environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(refused.returncode, 1)
        for words in (str(one.store), str(one.mountpoint), "--store"):
            self.assertIn(words, refused.stderr)
        self.assertEqual(harness.tar_digest(harness.enter(one.path(registry.address, "app", "1"))), first)
        one.stop()
        two = self.mount("two", store=one.store)
        self.assertEqual(harness.tar_digest(harness.enter(two.path(registry.address, "app", "1"))), first)

    def test_working_directory_and_open_files_keep_it_busy(self):
        self.assertEqual(self.start().returncode, 0)
        with open(self.point / "x.test" / "c" / "1" / "one", "rb") as file:
            self.assertNotEqual(subprocess.run(["umount", self.point], capture_output=True).returncode, 0)
            self.assertEqual(file.read(), b"1")
        subprocess.run(["umount", self.point], check=True)
        self.assert_gone()


class MountHelper(harness.TestCase):
    """mount(8) and fstab, in a mount namespace that has the helper where mount(8) looks for it."""

    def setUp(self):
        super().setUp()
        layout = self.layout("layout", {"c:1": oci.image([Tar().dir("./").file("one", b"1").bytes()])})
        (self.directory / "ocifs.toml").write_text(
            f'[registry."x.test"]\nlayout = {harness.toml_string(layout)}\n')
        sbin = self.directory / "sbin"
        sbin.mkdir()
        shutil.copy(HELPER, sbin / "mount.ocifs")
        shutil.copy(harness.OCIFS, sbin / "ocifs")
        (self.directory / "point").mkdir()

    def run_script(self, script):
        return subprocess.run(
            ["unshare", "-m", "sh", "-euc",
             'd=$1; mount -t overlay overlay -o "lowerdir=$d/sbin:$(readlink -f /sbin)" "$(readlink -f /sbin)"\n'
             + script, "sh", self.directory], capture_output=True, text=True, timeout=60)

    def check(self, script):
        done = self.run_script(script + '\ncat "$d/point/x.test/c/1/one"; stat -f -c %T "$d/point" >/dev/null\n'
                               'grep " $d/point " /proc/self/mounts >&2; umount "$d/point"')
        self.assertEqual((done.returncode, done.stdout), (0, "1"), done.stderr)
        self.assertIn("fuse.ocifs ro,nosuid,nodev", done.stderr)
        self.assertTrue((self.directory / "store" / "format").exists())
        return done.stderr

    def test_mount_t_ocifs(self):
        self.check('mount -t ocifs -o "store=$d/store,config=$d/ocifs.toml" none "$d/point"')

    def test_fstab(self):
        (self.directory / "fstab").write_text(
            f"ocifs {self.directory}/point ocifs store={self.directory}/store,config={self.directory}/ocifs.toml,"
            "_netdev,noauto,nofail,x-systemd.automount,allow_other 0 0\n")
        told = self.check('mount -T "$d/fstab" "$d/point"')
        self.assertIn("allow_other", told)

    def test_failure_is_passed_on(self):
        done = self.run_script('mount -t ocifs -o "store=$d/store,config=$d/none.toml" none "$d/point"')
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("none.toml", done.stderr)


if __name__ == "__main__":
    harness.main()
