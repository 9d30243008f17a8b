"""An image that a program has built and keeps."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

from cloister.build.builders import child
from cloister.errors import BuildFailed, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A :class:`StoredImage`.

    Args:
        identity: See there.
        builder: See there.
        bases: See there.
        left_out: See there.
        saving: The command that saves it to a path.
    """

    identity: str
    builder: str
    bases: tuple[str, ...]
    left_out: tuple[str, ...]
    saving: Callable[[pathlib.Path], list[str]]

    def save(self, archive: pathlib.Path) -> None:
        """See :meth:`StoredImage.save`."""
        child.check(self.saving(archive), f"saving the image of {self.builder}")


def read_identity(file: pathlib.Path, builder: str) -> str:
    """The identity that a builder wrote to a file.

    Raises:
        BuildFailed: It wrote none, though it reported no failure.
    """
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        text = ""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise BuildFailed(f"{builder} ended well and names no image", status=70)
    return text


def with_digest(name: str, digests: list[str], identity: str) -> str:
    """A name with the digest by which its registry knows it, else with the store's own."""
    short = name.removeprefix("docker.io/").removeprefix("library/")
    for digest in digests:
        if "@" in digest:
            return f"{short}@{digest.partition('@')[2]}"
    return f"{short} (of this machine, {identity})"


def not_there(reference: str, store: str) -> MissingInput:
    """The error for an image that a store does not have."""
    shown = "".join(char if char.isprintable() else "�" for char in reference[:200])
    return MissingInput(
        f"{store} has no image `{shown}`", hint="`docker pull`, `buildah pull` bring one"
    )
