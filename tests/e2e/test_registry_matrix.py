#!/usr/bin/env python3
"""One package and one image, read through every set-up of a registry: the bytes are always the same."""

import json
import os
import pathlib
import shutil
import tempfile

import fixtures
import harness
import oci
import registries
from registries import registry_table, toml
from tarfiles import Tar

LOGIN = {"user": "pass:word with ü"}


def package_tar():
    tar = Tar().dir("./").file("kcl.mod", b"[package]\n").dir("src", mtime_ns=1_600_000_000 * 10**9)
    return tar.file("src/main.k", b"a = 1\n" * 1000).file("big", fixtures.noise(3_000_000, 11)).bytes()


class Content:
    """What all set-ups serve: a storage directory, and the trees that must be seen."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ocifs-e2e."))
        registry = harness.Registry(self.directory / "source")
        try:
            tar = package_tar()
            package = oci.artifact([oci.Layer(fixtures.tarfiles.gzipped(tar))])
            image = oci.image(fixtures.plain_tars())
            registry.push("team/package", "1", package)
            registry.push("team/image", "1", image)
        finally:
            registry.stop()
        self.data = registry.data
        self.trees = {"team/package": harness.tar_unpack([tar], {}, self.directory / "package"),
                      "team/image": harness.umoci_unpack(image, self.directory / "image")}
        self.layers = [layer["digest"] for item in (package, image) for layer in item.document["layers"]]

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


class Matrix(registries.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.content = Content()
        cls.addClassCleanup(cls.content.remove)

    def registry(self, **more):
        """Serves the content, unless it is a mirror, which fetches it."""
        if "proxy" not in more.get("settings", {}):
            more.setdefault("data", self.content.data)
        return super().registry(**more)

    def check(self, address, config="", name="mount", **more):
        """Mounts and compares both trees, now and from the store of a second mount."""
        mounted = self.mount(name, config=config, **more)
        for repository, tree in self.content.trees.items():
            self.assert_same_tree(mounted.path(address, repository, "1"), tree)
        mounted.restart()
        for repository, tree in self.content.trees.items():
            self.assert_same_tar(mounted.path(address, repository, "1"), tree)
        return mounted

    def refused(self, address, config="", name="stranger", errors="EACCES", **more):
        """Somebody without what it takes; the log says why."""
        mounted = self.mount(name, config=config, **more)
        for repository in self.content.trees:
            self.assert_errno(errors, os.listdir, mounted.path(address, f"{repository}:1"))
        return mounted.log()

    # ------------------------------------------------------------------------------------- logins

    def test_anonymous(self):
        self.check(self.registry().address)

    def test_password(self):
        registry = self.password_registry(LOGIN)
        self.assertIn("login", self.refused(registry.address))
        self.log_in("mount", registry.address, *next(iter(LOGIN.items())))
        self.check(registry.address)

    def test_password_in_the_file_of_docker(self):
        registry = self.password_registry(LOGIN)
        registries.write_auths(self.directory / "mount" / ".docker" / "config.json",
                               {f"https://{registry.address}/v1/": registries.podman_entry(*next(iter(LOGIN.items())))})
        self.check(registry.address)

    def test_password_of_one_repository(self):
        """The containers tools keep logins for parts of a registry."""
        registry = self.password_registry(LOGIN)
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json",
                               {f"{registry.address}/team": registries.podman_entry(*next(iter(LOGIN.items()))),
                                registry.address: registries.podman_entry("user", "of another")})
        self.check(registry.address)

    def test_token_for_anybody(self):
        tokens = self.token_server()
        registry = self.registry(settings=tokens.settings())
        self.check(registry.address)
        self.assertEqual(set(tokens.identities), {""})
        self.assertEqual(len(tokens.identities), 2, "one token for each repository")

    def test_token_for_a_login(self):
        tokens = self.token_server(logins=LOGIN, anonymous=False)
        registry = self.registry(settings=tokens.settings())
        self.refused(registry.address)
        tokens.identities.clear()
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json",
                               {registry.address: registries.podman_entry(*next(iter(LOGIN.items())))})
        self.check(registry.address)
        self.assertEqual(tokens.identities, ["user", "user"])

    def test_token_for_an_identity_token(self):
        """What `docker login` stores of a token server that speaks OAuth2."""
        tokens = self.token_server(refresh_tokens={"refresh-me": "user"}, anonymous=False)
        registry = self.registry(settings=tokens.settings())
        registries.write_auths(self.directory / "mount" / ".docker" / "config.json",
                               {registry.address: registries.docker_identity_entry("refresh-me")})
        self.check(registry.address)
        self.assertEqual(tokens.identities, ["user", "user"])
        self.assertEqual({method for method, _, _ in tokens.requests}, {"POST"})
        self.assertFalse([path for _, path, _ in tokens.requests if "refresh-me" in path])

    # ------------------------------------------------------------------------------- certificates

    def own_authority(self):
        authority = self.authority()
        registry = self.tls_registry(authority.issue("server"), authority.context())
        return authority, registry

    def test_own_authority(self):
        authority, registry = self.own_authority()
        self.refused(registry.address, registry_table(registry.address, scheme="https"))
        self.check(registry.address, registry_table(registry.address, scheme="https", ca=authority.file))

    def test_own_authority_of_the_mirror_directories(self):
        """certs.d/HOST:PORT/*.crt, as Docker and podman read it."""
        authority, registry = self.own_authority()
        certs = self.directory / "certs.d" / registry.address
        certs.mkdir(parents=True)
        shutil.copy(authority.file, certs / "ca.crt")
        self.check(registry.address, toml("", certs_dir=certs.parent) + registry_table(registry.address, scheme="https"))

    def test_own_authority_of_hosts_toml(self):
        """containerd's hosts.toml, with a path that is relative to it."""
        authority, registry = self.own_authority()
        hosts = self.directory / "hosts" / registry.address
        hosts.mkdir(parents=True)
        shutil.copy(authority.file, hosts / "own.pem")
        (hosts / "hosts.toml").write_text(f'server = "https://{registry.address}"\nca = "own.pem"\n')
        self.check(registry.address, toml("", hosts_dir=hosts.parent))

    def test_login_over_own_authority(self):
        """Token server without TLS beside a registry with it: refused, whoever asks. With a password: fine."""
        authority = self.authority()
        pair = authority.issue("server")
        tls = {"http": {"tls": {"certificate": str(pair[0]), "key": str(pair[1])}}}
        tokens = self.token_server()
        registry = self.registry(settings={**tokens.settings(), **tls}, context=authority.context())
        config = registry_table(registry.address, scheme="https", ca=authority.file)
        self.assertIn("not https", self.refused(registry.address, config))
        self.assertEqual(tokens.requests, [])
        htpasswd = self.directory / "htpasswd"
        registries.write_htpasswd(htpasswd, LOGIN)
        registry = self.registry(settings={"auth": {"htpasswd": {"realm": "r", "path": str(htpasswd)}}, **tls},
                                 context=authority.context())
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json",
                               {registry.address: registries.podman_entry(*next(iter(LOGIN.items())))})
        self.check(registry.address, registry_table(registry.address, scheme="https", ca=authority.file))

    # ------------------------------------------------------------------------ client certificates

    def wall(self):
        authority = self.authority()
        registry = self.registry()
        nginx = self.stopped_at_end(registries.client_certificate_wall(
            self.place("nginx"), registry.address, authority, authority.issue("server")))
        return authority, nginx, authority.issue("client", hosts=())

    def test_client_certificate(self):
        authority, nginx, (certificate, key) = self.wall()
        without = registry_table(nginx.address, scheme="https", ca=authority.file)
        self.refused(nginx.address, without, errors=("EACCES", "EREMOTEIO"))
        self.check(nginx.address, without + toml("", client_certificate=certificate, client_key=key))

    def test_client_certificate_of_another_authority(self):
        authority, nginx, _ = self.wall()
        certificate, key = self.authority("other").issue("client", hosts=())
        self.refused(nginx.address, registry_table(nginx.address, scheme="https", ca=authority.file,
                                                   client_certificate=certificate, client_key=key),
                     errors=("EACCES", "EREMOTEIO"))

    def test_client_certificate_of_certs_d(self):
        """certs.d/HOST:PORT/x.cert with x.key, as Docker and podman read it."""
        authority, nginx, (certificate, key) = self.wall()
        certs = self.directory / "certs.d" / nginx.address
        certs.mkdir(parents=True)
        shutil.copy(authority.file, certs / "ca.crt")
        shutil.copy(certificate, certs / "client.cert")
        shutil.copy(key, certs / "client.key")
        self.check(nginx.address, toml("", certs_dir=certs.parent) + registry_table(nginx.address, scheme="https"))

    def test_client_certificate_of_hosts_toml(self):
        authority, nginx, (certificate, key) = self.wall()
        hosts = self.directory / "hosts" / nginx.address
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'server = "https://{nginx.address}"\nca = {json.dumps(str(authority.file))}\n'
            f"client = [[{json.dumps(str(certificate))}, {json.dumps(str(key))}]]\n")
        self.check(nginx.address, toml("", hosts_dir=hosts.parent))

    # ------------------------------------------------------------------------ redirects, mirrors

    def redirecting(self, **more):
        registry = self.registry(**more)
        storage = self.stopped_at_end(registries.object_storage(self.place("storage"), self.content.data))
        front = self.stopped_at_end(registries.Redirects(registry.address, storage.address))
        return front, storage

    def check_storage(self, storage):
        """Each layer came from there, once, and nobody showed a login."""
        lines = storage.lines()
        for layer in self.content.layers:
            self.assertEqual(len([line for line in lines if layer.partition(":")[2] in line]), 1, lines)
        self.assertEqual([line for line in lines if 'auth="-"' not in line], [])
        self.assertEqual([line for line in lines if " 200 " not in line], [])

    def test_blobs_elsewhere(self):
        front, storage = self.redirecting()
        self.check(front.address)
        self.check_storage(storage)

    def test_blobs_elsewhere_behind_a_password(self):
        htpasswd = self.directory / "htpasswd"
        registries.write_htpasswd(htpasswd, LOGIN)
        front, storage = self.redirecting(settings={"auth": {"htpasswd": {"realm": "r", "path": str(htpasswd)}}})
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json",
                               {front.address: registries.podman_entry(*next(iter(LOGIN.items())))})
        self.check(front.address)
        self.check_storage(storage)

    def test_blobs_elsewhere_behind_tokens(self):
        tokens = self.token_server(logins=LOGIN, anonymous=False)
        front, storage = self.redirecting(settings=tokens.settings())
        registries.write_auths(self.directory / "mount" / "containers" / "auth.json",
                               {front.address: registries.podman_entry(*next(iter(LOGIN.items())))})
        self.check(front.address)
        self.check_storage(storage)

    def test_pull_through_registry(self):
        """docker-registry as a cache of another one, by its own name."""
        upstream = self.registry()
        self.check(self.pull_through_mirror(upstream.address).address)

    # ---------------------------------------------------------------------------------- tag lists

    def test_tag_lists(self):
        tokens = self.token_server(logins=LOGIN, anonymous=False)
        for name, registry in (("plain", self.registry()), ("tokens", self.registry(settings=tokens.settings()))):
            with self.subTest(registry=name):
                registries.write_auths(self.directory / name / "containers" / "auth.json",
                                       {registry.address: registries.podman_entry(*next(iter(LOGIN.items())))})
                mounted = self.mount(name)
                self.assertEqual(os.listdir(mounted.path(registry.address, "team", "image")), ["1"])

    def test_catalog(self):
        """More repositories than a page has, by the registry's own Links, where its catalog may be asked for."""
        source = super().registry()
        source.push("r-0000", "1", oci.image([Tar().dir("./").file("n", b"n").bytes()]))
        repositories = source.data / "docker" / "registry" / "v2" / "repositories"
        names = [f"r-{i:04}" for i in range(1100)]
        for name in names[1:-1]:
            (repositories / name / "_layers").mkdir(parents=True)  # what makes a repository
        shutil.copytree(repositories / names[0], repositories / names[-1])
        registry = self.registry(data=source.data)
        mounted = self.mount(config=registry_table(registry.address, catalog=True))
        self.assertEqual(sorted(os.listdir(mounted.path(registry.address))), names)
        self.assertEqual(len([path for _, path, _ in registry.requests() if "/_catalog" in path]), 2)
        with open(mounted.path(registry.address, names[-1], "1", "n"), "rb") as file:
            self.assertEqual(file.read(), b"n")


if __name__ == "__main__":
    harness.main("nginx", "openssl")
