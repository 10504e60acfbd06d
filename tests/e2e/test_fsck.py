#!/usr/bin/env python3
"""Damage on the disk: readers get right bytes or an error, and fsck finds and mends what is wrong."""

import json
import pathlib
import random
import subprocess

import fixtures
import harness
import oci
from tarfiles import Tar

CLEAN, CORRECTED, UNCORRECTED, FAILED, USAGE = 0, 1, 4, 8, 16

PACK_MAGIC, RECORD_MAGIC = b"OCIFSPAK", b"FCHK"  # store/FORMAT.md, section "Packs"
RECORD_BYTES = 48


def records(pack):
    """(offset of the content, length) of all records of a pack."""
    data = pathlib.Path(pack).read_bytes()
    assert data.startswith(PACK_MAGIC)
    at = 24
    while at + RECORD_BYTES <= len(data):
        length = int.from_bytes(data[at + 8:at + 16], "little")
        if data[at:at + 4] == RECORD_MAGIC:
            yield at + RECORD_BYTES, length
        at += RECORD_BYTES + (length + 7) // 8 * 8


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0] ^ 1
        file.seek(offset)
        file.write(bytes([byte]))


class Damage(harness.TestCase):
    """A store of ten packages, of which the originals are known, and that nobody has open."""

    COUNT = 10

    def setUp(self):
        super().setUp()
        self.local = self.registry()
        self.originals = {}  # path below the mount -> content
        self.layers = {}     # digest of a raw layer -> package
        shared = fixtures.noise(150_000, seed=1000)
        self.names = []
        for i in range(self.COUNT):
            files = {f"file{k}": fixtures.noise(20_000 + 1000 * k, seed=100 * i + k + 1) for k in range(4)}
            files["shared"] = shared
            tar = Tar().dir("./")
            for name, data in files.items():
                tar.file(name, data)
            item = oci.image([tar.bytes()])
            self.local.push(f"p{i}", "1", item)
            self.names.append(f"{self.local.address}/p{i}:1")
            for name, data in files.items():
                self.originals[f"p{i}/1/{name}"] = data
            self.layers[item.document["layers"][0]["digest"]] = f"p{i}"
        config = self.directory / "ctl.toml"
        config.write_text("")
        self.control = harness.Ctl(self.directory / "store", config)
        self.control.run("prefetch", *self.names)
        self.random = random.Random(20)

    def packs(self):
        return sorted(pathlib.Path(self.control.store, "packs").glob("*.pack"))

    def blobs(self):
        return sorted(pathlib.Path(self.control.store, "blobs", "sha256").iterdir())

    def damage(self):
        """Flips one byte of content in every pack and one in every blob file. Returns the paths of files
        that live in the flipped records."""
        damaged = set()
        contents = {pack: pack.read_bytes() for pack in self.packs()}
        self.assertTrue(contents)
        wanted = set(self.originals.values())
        for pack, data in contents.items():
            # Of what two pulls brought at once, one record is dead.
            live = [(at, length) for at, length in records(pack) if data[at:at + length] in wanted and
                    sum(other.count(data[at:at + length]) for other in contents.values()) == 1]
            self.assertTrue(live, f"{pack} has no file")
            at, length = self.random.choice(live)
            damaged.update(path for path, content in self.originals.items()
                           if content == data[at:at + length])
            flip(pack, at + self.random.randrange(length))
        self.assertEqual(len(self.blobs()), self.COUNT)
        for blob in self.blobs():
            flip(blob, self.random.randrange(blob.stat().st_size))
        return damaged

    def read(self, mounted):
        """path -> content, or the name of the error."""
        found = {}
        for path in self.originals:
            try:
                with open(mounted.path(self.local.address, path), "rb") as file:
                    found[path] = file.read()
            except OSError as error:
                found[path] = harness.errno_name(error)
        return found

    def assert_all_right(self, mounted):
        for path, content in self.read(mounted).items():
            self.assertTrue(content == self.originals[path], f"{path}: {content[:40]!r}")

    def fsck(self, *arguments, status):
        done = self.control.run("fsck", *arguments, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def fsck_json(self, *arguments, status):
        answer = json.loads(self.fsck("--json", *arguments, status=status).stdout)
        self.assertEqual(answer["status"], status)
        return answer


class Readers(Damage):
    def test_with_the_registry_up_everything_reads_right(self):
        self.assertTrue(self.damage())
        mounted = self.mount(store=self.control.store)
        self.assert_all_right(mounted)
        mounted.stop()
        # What was read is whole for good; raw blobs are looked at when somebody needs them.
        answer = self.fsck_json("--offline", status=UNCORRECTED)
        self.assertEqual(answer["found"]["damaged_chunks"], [])
        self.fsck("--repair", status=CORRECTED)
        self.fsck("--offline", status=CLEAN)

    def test_offline_exactly_the_damaged_files_fail(self):
        damaged = self.damage()
        self.local.stop()
        mounted = self.mount(config="offline = true\n", store=self.control.store)
        for _ in range(2):
            for path, content in self.read(mounted).items():
                if path in damaged:
                    self.assertEqual(content, "EBADMSG", path)
                else:
                    self.assertTrue(content == self.originals[path], path)
        mounted.stop()
        self.local.start()
        mounted = self.mount("again", store=self.control.store)
        self.assert_all_right(mounted)


class Fsck(Damage):
    def test_a_store_without_damage_is_clean(self):
        done = self.fsck(status=CLEAN)
        self.assertIn(f"{self.COUNT} packages", done.stdout)
        self.assertNotIn("\x1b", done.stdout + done.stderr)
        answer = self.fsck_json(status=CLEAN)
        self.assertEqual(answer["found"]["packages"], self.COUNT)
        self.assertEqual(answer["found"]["findings"], [])
        self.assertIsNone(answer["repaired"])

    def test_it_finds_exactly_what_is_damaged_and_mends_it(self):
        before = self.local.requests()
        damaged = self.damage()
        for _ in range(2):  # it only looks
            answer = self.fsck_json(status=UNCORRECTED)
            found = {f"{finding['references'][0].rpartition(':')[0].partition('/')[2]}/1/{name}"
                     for finding in answer["found"]["findings"] for name in finding["files"]}
            self.assertEqual(found, damaged)
            self.assertEqual({blob["digest"] for blob in answer["found"]["damaged_blobs"]}, set(self.layers))
        told = self.fsck(status=UNCORRECTED).stdout
        for path in damaged:
            self.assertIn("  " + path.rpartition("/")[2], told)
        self.assertIn("--repair", told)
        self.assertEqual(self.local.requests(), before)

        repaired = self.fsck_json("--repair", status=CORRECTED)["repaired"]
        self.assertEqual(repaired["lacking"], [])
        self.assertEqual(repaired["lacking_blobs"], [])
        self.assertEqual(repaired["uncorrected"], [])
        made = self.local.requests()[len(before):]
        self.assertEqual(len(made), self.COUNT, "each layer once")
        self.fsck("--offline", status=CLEAN)
        self.local.stop()
        mounted = self.mount(config="offline = true\n", store=self.control.store)
        self.assert_all_right(mounted)

    def test_offline_it_drops_and_the_network_brings_it_back(self):
        damaged = self.damage()
        self.local.stop()
        done = self.fsck("--repair", "--offline", status=CORRECTED)
        self.assertIn("to be fetched when it can be", done.stdout)
        answer = self.fsck_json("--offline", status=CLEAN)
        self.assertTrue(all(finding["absent_bytes"] > 0 for finding in answer["found"]["findings"]))
        self.assertEqual({path.partition("/")[0] for path in damaged},
                         {finding["references"][0].rpartition(":")[0].partition("/")[2]
                          for finding in answer["found"]["findings"]})
        # With nobody to ask, what had to be fetched is an error that is left.
        self.local.start()
        mounted = self.mount(store=self.control.store)
        self.assert_all_right(mounted)

    def test_a_registry_that_is_away_leaves_errors(self):
        self.damage()
        self.local.stop()
        self.fsck("--repair", status=UNCORRECTED)
        self.fsck(status=CLEAN)  # dropped, and no damage any more
        self.local.start()
        mounted = self.mount(store=self.control.store)
        self.assert_all_right(mounted)

    def test_raw_blobs_mend_content_without_a_request(self):
        for pack in self.packs():
            for at, length in records(pack):
                flip(pack, at + length // 2)
        self.local.stop()
        self.fsck("--repair", "--offline", status=CORRECTED)
        mounted = self.mount(config="offline = true\n", store=self.control.store)
        self.assert_all_right(mounted)

    def test_beside_a_mount(self):
        mounted = self.mount(store=self.control.store)
        self.assert_all_right(mounted)
        self.fsck(status=CLEAN)
        self.damage()
        self.fsck("--repair", status=CORRECTED)
        self.fsck(status=CLEAN)
        self.assert_all_right(mounted)
        # An index cannot be made anew while somebody uses it.
        done = self.fsck("--rebuild-index", status=FAILED)
        self.assertIn("other processes have it open", done.stderr)

    def test_a_new_index(self):
        self.control.run("pin", self.names[0])
        before = self.control.states()
        answer = self.fsck_json("--rebuild-index", status=CLEAN)
        self.assertTrue(answer["new_index"])
        self.assertEqual(self.control.states(), before)
        self.local.stop()
        mounted = self.mount(config="offline = true\n", store=self.control.store)
        self.assert_all_right(mounted)

    def test_what_it_cannot_do(self):
        self.fsck("--no-such-option", status=USAGE)
        self.fsck("argument", status=USAGE)
        bad = self.directory / "bad.toml"
        bad.write_text("not toml at all [")
        done = harness.Ctl(self.control.store, bad).run("fsck", check=False)
        self.assertEqual(done.returncode, FAILED)
        done = harness.Ctl(self.directory / "ctl.toml", self.control.config).run("fsck", check=False)
        self.assertEqual(done.returncode, FAILED, "a file is no store")
        help_text = subprocess.run([harness.CTL, "fsck", "--help"], capture_output=True, text=True)
        self.assertEqual(help_text.returncode, 0)
        self.assertIn("--rebuild-index", help_text.stdout)


if __name__ == "__main__":
    harness.main()
