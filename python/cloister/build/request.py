"""What to build, from what, to where."""

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Mapping

from cloister import config
from cloister.build.image_config import ImageConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FromDockerfile:
    """The Dockerfile that ``enclave.toml`` names.

    Args:
        context: Folder that it copies from.
        builder: What runs it: ``auto``, ``docker``, ``buildah``, ``podman`` or ``native``.
        build_args: Values for ARG.
        secrets: Secrets of the build, as ``--secret`` gives them; never part of an image.
        target: The stage that is wanted; ``None``: the last.
        no_cache: Every instruction is run again.
    """

    context: pathlib.Path
    builder: str = "auto"
    build_args: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    target: str | None = None
    no_cache: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FromImage:
    """A saved image, or one in the store of a builder.

    Args:
        path: Archive or folder; ``None``: ``reference`` is in a store.
        name: Which image of several in the archive.
        reference: Name or id of an image in a store.
        builder: Whose store: ``auto``, ``docker``, ``buildah`` or ``podman``.
    """

    path: pathlib.Path | None = None
    name: str | None = None
    reference: str = ""
    builder: str = "auto"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FromFolder:
    """A folder of files.

    Args:
        folder: The folder.
        config: What runs.
    """

    folder: pathlib.Path
    config: ImageConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build.

    Args:
        toml: The checked ``enclave.toml``.
        source: Where files and settings come from.
        output: Path of the EIF.
        record: Path of ``enclave.Dockerfile``.
        architecture: As Docker names it: ``amd64`` or ``arm64``.
        epoch: ``SOURCE_DATE_EPOCH``: latest time of a file, seconds since the Unix epoch.
        now: The time at which the signing certificate must be valid.
        tool_version: Version of this program, for the metadata.
        kernels: Folder of the kernels that ``[kernel] image`` may name.
        runtime: The enclave's init; ``None``: the one that came with this package.
        is_cached: Files and images that were seen before are taken from the cache.
    """

    toml: config.EnclaveToml
    source: FromDockerfile | FromImage | FromFolder
    output: pathlib.Path
    record: pathlib.Path
    architecture: str = "amd64"
    epoch: int = 0
    now: dt.datetime
    tool_version: str
    kernels: pathlib.Path
    runtime: bytes | None = None
    is_cached: bool = True

    @property
    def private(self) -> frozenset[pathlib.Path]:
        """What must never be in an image: what a build writes, and keys."""
        toml = self.toml
        paths = [self.output, self.record, toml.beside(".cloister")]
        if isinstance(self.source, FromDockerfile):
            paths.append(self.source.context / ".cloister")
        if toml.path is not None:
            paths.append(toml.path)
        if toml.signing.key_path is not None:
            paths.append(toml.beside(toml.signing.key_path))
        return frozenset(paths)

    @property
    def cache_folder(self) -> pathlib.Path | None:
        """Where images are kept between builds."""
        return self.toml.beside(".cloister/build") if self.is_cached else None
