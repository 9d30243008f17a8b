"""Saved images, written by hand: what a builder would write, and what it never would.

Layers are tar archives of entries; around them goes ``docker save`` in either layout, or an OCI
layout in a folder or an archive.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import pathlib
import tarfile
from collections.abc import Sequence
from typing import Any

import zstandard


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of a layer.

    Args:
        name: As it is written.
        kind: Type flag of tar.
        data: Contents.
        link: Where a link leads.
        mode: Permission bits.
        uid: Owner.
        gid: Group.
        mtime: Seconds since 1970.
        pax: Extended headers.
    """

    name: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_600_000_000
    pax: dict[str, str] = dataclasses.field(default_factory=dict)


def file(name: str, data: bytes = b"x", **more: Any) -> Entry:
    return Entry(name=name, data=data, **more)


def folder(name: str, **more: Any) -> Entry:
    return Entry(name=name, kind=tarfile.DIRTYPE, **({"mode": 0o755} | more))


def symlink(name: str, to: str) -> Entry:
    return Entry(name=name, kind=tarfile.SYMTYPE, link=to, mode=0o777)


def hard_link(name: str, to: str) -> Entry:
    return Entry(name=name, kind=tarfile.LNKTYPE, link=to)


def layer(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer, not compressed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode = entry.kind, entry.link, entry.mode
            info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
            info.size = len(entry.data) if entry.kind == tarfile.REGTYPE else 0
            info.pax_headers = dict(entry.pax)
            tar.addfile(info, io.BytesIO(entry.data))
    return raw.getvalue()


def digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def configuration(layers: Sequence[bytes], config: dict[str, Any] | None = None) -> dict[str, Any]:
    """The configuration of an image with these layers."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/app"]} if config is None else config,
        "rootfs": {"type": "layers", "diff_ids": [digest(raw) for raw in layers]},
    }


def docker_save(
    path: pathlib.Path,
    layers: Sequence[bytes],
    config: dict[str, Any] | None = None,
    *,
    name: str = "app:latest",
) -> pathlib.Path:
    """``docker save``, the layout before Docker 25."""
    raw = json.dumps(configuration(layers, config)).encode()
    stem = digest(raw).removeprefix("sha256:")
    files = {f"{stem}.json": raw}
    names = []
    for index, inner in enumerate(layers):
        names.append(f"{index:064x}/layer.tar")
        files[names[-1]] = inner
    manifest = [{"Config": f"{stem}.json", "RepoTags": [name], "Layers": names}]
    files["manifest.json"] = json.dumps(manifest).encode()
    return archive(path, files)


def oci_files(
    layers: Sequence[bytes],
    config: dict[str, Any] | None = None,
    *,
    compression: str = "",
    name: str = "app:latest",
    architecture: str = "amd64",
) -> dict[str, bytes]:
    """The files of an OCI layout with one image."""
    document = configuration(layers, config) | {"architecture": architecture}
    blobs = [json.dumps(document).encode()]
    kind = "application/vnd.oci.image.layer.v1.tar" + (f"+{compression}" if compression else "")
    packed = [compressed(raw, compression) for raw in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(blobs[0], "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(raw, kind) for raw in packed],
    }
    blobs += [*packed, json.dumps(manifest).encode()]
    entry = descriptor(blobs[-1], MANIFEST) | {
        "platform": {"os": "linux", "architecture": architecture},
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
    } | {f"blobs/{digest(blob).replace(':', '/')}": blob for blob in blobs}


def descriptor(raw: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(raw), "size": len(raw)}


def compressed(raw: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(raw, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(raw)
    return raw


def archive(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    """A tar archive of files."""
    with tarfile.open(path, "w") as tar:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def written(folder_path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    """A folder of files."""
    for name, raw in files.items():
        at = folder_path / name
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(raw)
    return folder_path


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
