"""What a saved image names: its configuration and its layers, each with its digest.

Both formats that ``docker save`` has written, and the OCI image layout (image-layout.md,
image-index.md, manifest.md), give the same thing. Which image of several is meant is decided here.
"""

import dataclasses
import hashlib

from cloister.build.sources.blobs import Blobs
from cloister.build.sources.documents import Document, checked_digest, decoded
from cloister.build.sources.limits import Limits
from cloister.errors import MalformedImage, UsageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which image of several.

    Args:
        reference: Its name, as in ``debian:12``; ``None``: the only one.
        architecture: As Docker names it: ``amd64`` or ``arm64``.
    """

    reference: str | None = None
    architecture: str = "amd64"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerBlob:
    """A layer as it was saved.

    Args:
        path: Its file.
        digest: Of the file; ``None``: nothing says it, and the configuration's digest of what is
            in it decides.
        size: Length of the file in bytes; ``None``: nothing says it.
    """

    path: str
    digest: str | None = None
    size: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """An image as it was saved.

    Args:
        config: File of its configuration.
        identity: What the configuration must hash to, which names the image; ``None``: nothing
            says it.
        layers: From the lowest up.
        names: What it is called.
    """

    config: str
    identity: str | None
    layers: tuple[LayerBlob, ...]
    names: tuple[str, ...] = ()


def find(blobs: Blobs, wanted: Wanted, limits: Limits) -> Saved:
    """The image that is meant.

    Raises:
        MalformedImage: No format that is known, or a document that is damaged.
        UsageError: Several images, and nothing says which; or none for that architecture.
    """
    if blobs.has("index.json"):
        return _oci(blobs, wanted, limits)
    if blobs.has("manifest.json"):
        return _docker(blobs, wanted, limits)
    if blobs.has("repositories"):
        raise MalformedImage(
            f"`{blobs.name}` was saved by a Docker older than 1.10, without a manifest",
            hint="load it into a current Docker and save it again",
        )
    raise MalformedImage(
        f"`{blobs.name}` is not a saved image: it has neither `index.json` nor `manifest.json`",
        hint="`docker save`, `podman save` and `buildah push … oci-archive:FILE` write one;"
        " a plain folder of files is given with --rootfs",
    )


def _docker(blobs: Blobs, wanted: Wanted, limits: Limits) -> Saved:
    """``docker save``: manifest.json is a list of images (moby, image/tarexport)."""
    name = f"`{blobs.name}`: manifest.json"
    listed = decoded(blobs.find("manifest.json").read(limits.metadata, "manifest.json"), name)
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise MalformedImage(f"{name} is not a list of images")
    found = [_docker_image(Document(item, name), limits) for item in listed]
    return _chosen(found, wanted, blobs.name)


def _docker_image(item: Document, limits: Limits) -> Saved:
    config = item.text("Config")
    # Docker names the file after its digest, in either layout.
    stem = config.rpartition("/")[2].removesuffix(".json")
    try:
        identity: str | None = checked_digest(f"sha256:{stem}", "")
    except MalformedImage:
        identity = None
    layers = item.texts("Layers")
    _check_count(layers, item.name, limits)
    return Saved(
        config=config,
        identity=identity,
        layers=tuple(LayerBlob(path=path) for path in layers),
        names=tuple(item.texts("RepoTags")),
    )


def _oci(blobs: Blobs, wanted: Wanted, limits: Limits) -> Saved:
    name = f"`{blobs.name}`: index.json"
    index = Document.read(blobs.find("index.json").read(limits.metadata, "index.json"), name)
    manifests = list(_manifests(blobs, index, limits, depth=0))
    images = [item for item in manifests if item.matches(wanted)]
    if not images:
        there = ", ".join(sorted({item.platform or "unknown" for item in manifests})) or "none"
        raise UsageError(
            f"`{blobs.name}` has no image for linux/{wanted.architecture}; it has: {there}",
            hint="--platform says which one is wanted",
        )
    read = [_oci_image(blobs, item, limits) for item in images]
    distinct = {item.identity: item for item in read}
    return _chosen(read if len(distinct) > 1 else [read[0]], wanted, blobs.name)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    digest: str
    size: int
    platform: str
    names: tuple[str, ...]

    def matches(self, wanted: Wanted) -> bool:
        """Without a platform, the configuration decides."""
        return self.platform in ("", f"linux/{wanted.architecture}")


def _manifests(blobs: Blobs, index: Document, limits: Limits, *, depth: int) -> list[_Manifest]:
    """Manifests of an index, those of the indexes in it included."""
    if depth > MAX_DEPTH:
        raise MalformedImage(f"{index.name} has indexes in indexes, more than {MAX_DEPTH} deep")
    found: list[_Manifest] = []
    for item in index.each("manifests"):
        kind = item.text("mediaType")
        notes = item.pairs("annotations")
        names = [notes[key] for key in _NAMES if key in notes]
        if kind in _INDEXES:
            digest = item.digest("digest")
            raw = _blob(blobs, digest, item.whole("size"), limits)
            inner = Document.read(raw, f"`{blobs.name}`: index {digest}")
            nested = _manifests(blobs, inner, limits, depth=depth + 1)
            found += [dataclasses.replace(one, names=(*names, *one.names)) for one in nested]
        elif kind in _MANIFESTS:
            platform = item.inner("platform")
            found.append(
                _Manifest(
                    digest=item.digest("digest"),
                    size=item.whole("size"),
                    platform=""
                    if platform is None
                    else f"{platform.text('os')}/{platform.text('architecture')}",
                    names=tuple(names),
                )
            )
        if len(found) > MAX_IMAGES:
            raise MalformedImage(f"{index.name} lists more than {MAX_IMAGES} images")
    return found


def _oci_image(blobs: Blobs, item: _Manifest, limits: Limits) -> Saved:
    raw = _blob(blobs, item.digest, item.size, limits)
    manifest = Document.read(raw, f"`{blobs.name}`: manifest {item.digest}")
    config = manifest.inner("config")
    if config is None:
        raise manifest.error("config", "there")
    if config.text("mediaType") not in _CONFIGS:
        raise config.error("mediaType", f"one of an image, as in {_CONFIGS[0]}")
    layers = manifest.each("layers")
    _check_count(layers, manifest.name, limits)
    return Saved(
        config=_path(config.digest("digest")),
        identity=config.digest("digest"),
        layers=tuple(_layer(layer) for layer in layers),
        names=item.names,
    )


def _layer(layer: Document) -> LayerBlob:
    kind = layer.text("mediaType")
    if kind not in _LAYERS:
        raise layer.error("mediaType", f"one of a layer that can be read, as in {_LAYERS[0]}")
    digest = layer.digest("digest")
    return LayerBlob(path=_path(digest), digest=digest, size=layer.whole("size"))


def _blob(blobs: Blobs, digest: str, size: int, limits: Limits) -> bytes:
    """A document by its digest, checked."""
    found = blobs.find(_path(digest))
    if found.size != size:
        raise MalformedImage(
            f"`{blobs.name}`: {digest} is {found.size} bytes long, expected {size}"
        )
    raw = found.read(limits.metadata, digest)
    if f"sha256:{hashlib.sha256(raw).hexdigest()}" != digest:
        raise MalformedImage(f"`{blobs.name}`: {digest} is damaged: it has another digest")
    return raw


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _check_count(layers: list[str] | list[Document], name: str, limits: Limits) -> None:
    if len(layers) > limits.layers:
        raise MalformedImage(f"{name}: {len(layers)} layers, the limit is {limits.layers}")


def _chosen(found: list[Saved], wanted: Wanted, name: str) -> Saved:
    listed = ", ".join(sorted({tag for item in found for tag in item.names}))
    if wanted.reference is not None:
        same = [item for item in found if _is_called(item, wanted.reference)]
        if not same:
            raise UsageError(
                f"`{name}` has no image `{wanted.reference}`",
                hint=f"it has: {listed or 'no names'}",
            )
        found = same[:1]
    if not found:
        raise MalformedImage(f"`{name}` holds no image")
    if len(found) > 1:
        raise UsageError(
            f"`{name}` holds {len(found)} images and nothing says which",
            hint=f"name one behind the path, as in FILE:NAME; it has: {listed or 'no names'}",
        )
    return found[0]


def _is_called(item: Saved, reference: str) -> bool:
    """By its whole name, by the name without the registry, or by its tag alone."""
    return any(
        reference in (name, name.rpartition(":")[2]) or name.endswith(f"/{reference}")
        for name in item.names
    )


MAX_DEPTH = 4
MAX_IMAGES = 256
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
