"""What ``docker save`` writes with the image store of containerd: an index inside of the index.

The inner one has the image and, as a manifest of no platform, BuildKit's attestation of how it was
built (docs.docker.com, build/metadata/attestations/attestation-storage).
"""

import json
import pathlib
from typing import Any

import pytest
from tests.support import saved_images as si

from cloister.build.sources import SavedImage, Wanted
from cloister.errors import UsageError

INDEX = "application/vnd.oci.image.index.v1+json"
LAYERS = [si.layer(si.file("app", b"program", mode=0o755))]


def blob(files: dict[str, bytes], document: dict[str, Any], kind: str) -> dict[str, Any]:
    """Adds a document and returns what refers to it."""
    raw = json.dumps(document).encode()
    files["blobs/" + si.digest(raw).replace(":", "/")] = raw
    return si.descriptor(raw, kind)


def nested(path: pathlib.Path, platform: dict[str, str]) -> pathlib.Path:
    files = si.oci_files(LAYERS)
    (image,) = json.loads(files["index.json"])["manifests"]
    image = {key: image[key] for key in ("mediaType", "digest", "size")} | {"platform": platform}
    attestation = blob(files, {"schemaVersion": 2, "config": image, "layers": []}, si.MANIFEST) | {
        "platform": {"architecture": "unknown", "os": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    inner = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [attestation, image]}
    outer = blob(files, inner, INDEX) | {
        "annotations": {
            "io.containerd.image.name": "docker.io/library/app:latest",
            "org.opencontainers.image.ref.name": "latest",
        }
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [outer]}
    return si.archive(path, files | {"index.json": json.dumps(index).encode()})


def test_the_image_inside_is_taken_and_the_attestation_is_not(tmp_path: pathlib.Path) -> None:
    path = nested(tmp_path / "i.tar", {"architecture": "amd64", "os": "linux"})
    tree = SavedImage(path, tmp_path).load().tree
    assert [name for name, _ in tree] == [b"app"]


def test_an_image_of_another_architecture_is_not_taken_for_it(tmp_path: pathlib.Path) -> None:
    path = nested(tmp_path / "i.tar", {"architecture": "arm64", "os": "linux"})
    with pytest.raises(UsageError, match="linux/amd64"):
        SavedImage(path, tmp_path, Wanted())
