"""What a builder is asked, and what it answers."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

PROBE_SECONDS = 10.0
"""How long a builder may take to say that it works. On a machine that is busy, buildah and podman
take two seconds and more; one that would have worked must not be passed over for that."""
Tell = Callable[[str], None]
"""Called with one line of progress, without control characters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unusable:
    """Why a builder does not work here.

    Args:
        reason: What was found.
        fix: What to do about it.
    """

    reason: str
    fix: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build.

    Args:
        dockerfile: The Dockerfile; it may be outside of the context.
        context: Folder that it copies from.
        build_args: Values for ARG.
        secrets: As ``--secret`` takes them: ``id=NAME,src=FILE``.
        no_cache: Run every line again.
        architecture: As Docker names it: ``amd64`` or ``arm64``.
        epoch: ``SOURCE_DATE_EPOCH``: seconds since the Unix epoch.
        private: Files and folders that never reach the builder: absolute paths.
        target: The stage to build; ``None``: the last one.
        scratch: Folder for what is needed while it builds, best on the same file system as the
            context; ``None``: the system's.
    """

    dockerfile: pathlib.Path
    context: pathlib.Path
    build_args: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    no_cache: bool = False
    architecture: str = "amd64"
    epoch: int = 0
    private: frozenset[pathlib.Path] = frozenset()
    target: str | None = None
    scratch: pathlib.Path | None = None


class StoredImage(Protocol):
    """An image in the store of the program that built it."""

    @property
    def identity(self) -> str:
        """``sha256:…``, as the store knows it: files and settings are named by it."""

    @property
    def builder(self) -> str:
        """What built it: ``docker (BuildKit)``."""

    @property
    def bases(self) -> tuple[str, ...]:
        """Base images, each with its digest: ``debian:12@sha256:…``."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Private files of the context that did not reach the builder, by their relative path."""

    def save(self, archive: pathlib.Path) -> None:
        """Writes it as a ``docker save`` archive.

        Raises:
            BuildFailed: The program failed; with its last lines.
        """


@runtime_checkable
class Builder(Protocol):
    """Something that may be chosen."""

    @property
    def name(self) -> str:
        """``docker``, ``buildah``, ``podman`` or ``native``."""

    def unusable(self) -> Unusable | None:
        """Why it does not work here; ``None``: it works. Quick where it does; changes nothing."""


@runtime_checkable
class ContainerBuilder(Builder, Protocol):
    """A builder that runs Dockerfiles in containers."""

    def build(
        self, request: BuildRequest, tell: Tell
    ) -> contextlib.AbstractContextManager[StoredImage]:
        """Builds; the image may be saved inside the block.

        The image stays in the program's store, without a name, where the program's own command for
        unused images removes it. Nothing else stays: no container, no file.

        Args:
            request: What to build.
            tell: Told about each line the program prints.

        Raises:
            MissingInput: There is no such Dockerfile or context.
            UsageError: This builder cannot do something that is asked for.
            BuildFailed: The program failed: its last lines, its status.
        """

    def find(self, reference: str) -> StoredImage:
        """An image that is in the program's store already, by its name or identity.

        Nothing is fetched from a registry.

        Raises:
            MissingInput: It is not there, or the store cannot be used.
        """
