"""Artifacts in memory, written as an OCI image layout or pushed to a registry."""

import base64
import hashlib
import http.client
import json
import pathlib
import urllib.parse

import tarfiles

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
TAR_GZIP = TAR + "+gzip"
TAR_ZSTD = TAR + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_TAR_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(data, media_type, annotations=None, **more):
    described = {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}
    if annotations:
        described["annotations"] = annotations
    return described


class Artifact:
    """A manifest or index with all it refers to. `documents` come in the order to push them."""

    def __init__(self, document, blobs, children=()):
        self.media_type = document.get("mediaType", MANIFEST)
        self.document = document
        self.manifest = json.dumps(document, indent=1).encode()
        self.digest = digest_of(self.manifest)
        self.blobs = {digest_of(data): data for data in blobs}
        self.children = list(children)

    def documents(self):
        """All manifests, children first."""
        for child in self.children:
            yield from child.documents()
        yield self

    def all_blobs(self):
        return {digest: data for document in self.documents()
                for digest, data in document.blobs.items()}

    def descriptor(self, **more):
        return descriptor(self.manifest, self.media_type, **more)


class Layer:
    """One blob of a manifest's layers."""

    def __init__(self, data, media_type=TAR_GZIP, annotations=None, title=None, **more):
        self.data = data
        annotations = dict(annotations or {})
        if title is not None:
            annotations[TITLE] = title
        self.described = descriptor(data, media_type, annotations, **more)


def artifact(layers, *, config=b"{}", config_type=EMPTY, inline_config=False, artifact_type=None,
             annotations=None, media_type=MANIFEST, subject=None):
    described = descriptor(config, config_type)
    if inline_config:
        described["data"] = base64.b64encode(config).decode()
    document = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        document["artifactType"] = artifact_type
    document["config"] = described
    document["layers"] = [layer.described for layer in layers]
    if subject:
        document["subject"] = subject
    if annotations:
        document["annotations"] = annotations
    return Artifact(document, [config] + [layer.data for layer in layers])


def image(tars, *, layers=None, docker=False, architecture="amd64", os="linux", variant=None,
          config_more=None):
    """A container image of plain tar layers, gzipped unless `layers` gives the blobs as pulled."""
    config = {"architecture": architecture, "os": os, "config": {},
              "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
              "history": [{"created_by": f"layer {i}"} for i in range(len(tars))]}
    if variant:
        config["variant"] = variant
    config.update(config_more or {})
    if layers is None:
        kind = DOCKER_TAR_GZIP if docker else TAR_GZIP
        layers = [Layer(tarfiles.gzipped(tar), kind) for tar in tars]
    return artifact(layers, config=json.dumps(config).encode(),
                    config_type=DOCKER_CONFIG if docker else CONFIG,
                    media_type=DOCKER_MANIFEST if docker else MANIFEST)


def index(entries, media_type=INDEX, annotations=None):
    """An index of (artifact, fields of its descriptor)."""
    document = {"schemaVersion": 2, "mediaType": media_type,
                "manifests": [child.descriptor(**fields) for child, fields in entries]}
    if annotations:
        document["annotations"] = annotations
    return Artifact(document, [], [child for child, _ in entries])


def write_layout(root, artifacts):
    """Writes {"repo:tag": Artifact} as an image layout."""
    root = pathlib.Path(root)
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifests = []
    for name, item in artifacts.items():
        for digest, data in item.all_blobs().items():
            (blobs / digest.partition(":")[2]).write_bytes(data)
        for document in item.documents():
            (blobs / document.digest.partition(":")[2]).write_bytes(document.manifest)
        manifests.append(item.descriptor(annotations={"org.opencontainers.image.ref.name": name}))
    (root / "index.json").write_text(json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return root


class RegistryError(Exception):
    pass


class Client:
    """As much of the distribution protocol as pushing takes. `address` is host:port, plain HTTP unless
    there is a context for TLS."""

    def __init__(self, address, context=None):
        self.address, self.context = address, context

    def request(self, method, path, body=None, headers=None, expect=(200, 201, 202)):
        if self.context:
            connection = http.client.HTTPSConnection(self.address, timeout=120, context=self.context)
        else:
            connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            if response.status not in expect:
                raise RegistryError(f"{method} {path}: {response.status} {data[:300]!r}")
            return response.status, response.headers, data
        finally:
            connection.close()

    def push_blob(self, repository, data):
        digest = digest_of(data)
        status, _, _ = self.request("HEAD", f"/v2/{repository}/blobs/{digest}", expect=(200, 404))
        if status == 200:
            return
        _, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        place = urllib.parse.urlsplit(headers["Location"])
        query = urllib.parse.urlencode(urllib.parse.parse_qsl(place.query) + [("digest", digest)])
        self.request("PUT", f"{place.path}?{query}", data,
                     {"Content-Type": "application/octet-stream"})

    def push(self, repository, tag, item):
        """Pushes an artifact and all it refers to; returns its digest."""
        for data in item.all_blobs().values():
            self.push_blob(repository, data)
        for document in item.documents():
            name = tag if document is item and tag else document.digest
            self.request("PUT", f"/v2/{repository}/manifests/{name}", document.manifest,
                         {"Content-Type": document.media_type})
        return item.digest
