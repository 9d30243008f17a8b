"""Images that were built before: hard links to them, by what they were made of.

An entry costs no bytes while its image is still where it was built; on another file system it is a
copy. Nothing of it is believed until
it is used: its checksum is then computed over all of it. The folder holds a few entries at most,
the oldest go first, and removing it loses nothing but time.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

from cloister import config
from cloister.build.whole_file import link_or_copy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is kept with an image.

    Args:
        offset: Where the records of its files start in the EIF.
        size: Their length in bytes.
        last_inode: The highest inode number in them.
        pcrs: The image's registers, in hexadecimal.
        warnings: What the user was told about its files.
    """

    offset: int
    size: int
    last_inode: int
    pcrs: dict[str, str]
    warnings: list[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An image that was built before.

    Args:
        path: The EIF.
        is_same: It is the one that would be built; otherwise only its files are the same.
        about: What was kept with it.
    """

    path: pathlib.Path
    is_same: bool
    about: About


class Cache:
    """Images by what they were made of.

    Args:
        folder: On the file system that images are written to; ``None``: nothing is kept.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._folder = folder

    def find(self, files: str, whole: str) -> Entry | None:
        """An image that has the same files, the same image if there is one.

        Args:
            files: Key of its files.
            whole: Key of everything in it.
        """
        if self._folder is None:
            return None
        exact = _entry(self._folder / f"{files}-{whole}.eif", is_same=True)
        if exact is not None:
            return exact
        for path in _by_age(self._folder):
            if path.name.startswith(f"{files}-"):
                return _entry(path, is_same=False)
        return None

    def keep(self, image: pathlib.Path, files: str, whole: str, about: About) -> None:
        """Keeps an image; what cannot be kept is not.

        Args:
            image: The EIF, which is never written to again where it is.
            files: Key of its files.
            whole: Key of everything in it.
            about: To be kept with it.
        """
        if self._folder is None:
            return
        path = self._folder / f"{files}-{whole}.eif"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.forget(path)
            path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(about)))
            link_or_copy(image, path)
            for old in _by_age(self._folder)[MAX_ENTRIES:]:
                self.forget(old)
        except OSError:
            # Half a copy is nothing.
            self.forget(path)

    def forget(self, image: pathlib.Path) -> None:
        """Takes an entry away."""
        with contextlib.suppress(OSError):
            image.unlink(missing_ok=True)
            image.with_suffix(".json").unlink(missing_ok=True)

    def keep_settings(self, identity: str, document: bytes) -> None:
        """Keeps the configuration of an image, under the digest that it has."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{identity.removeprefix('sha256:')}.config").write_bytes(document)
            kept = sorted(self._folder.glob("*.config"), key=lambda at: -at.stat().st_mtime_ns)
            for old in kept[MAX_SETTINGS:]:
                old.unlink(missing_ok=True)

    def settings(self, identity: str) -> bytes | None:
        """The configuration with this digest, if it was kept and is whole."""
        if self._folder is None or not re.fullmatch(r"sha256:[0-9a-f]{64}", identity):
            return None
        try:
            raw = (self._folder / f"{identity.removeprefix('sha256:')}.config").read_bytes()
        except OSError:
            return None
        return raw if f"sha256:{hashlib.sha256(raw).hexdigest()}" == identity else None


def key(parts: dict[str, Any]) -> str:
    """A key of what something was made of."""
    return hashlib.sha256(config.canonical_json(parts)).hexdigest()[:32]


def _entry(path: pathlib.Path, *, is_same: bool) -> Entry | None:
    try:
        about = About(**json.loads(path.with_suffix(".json").read_text()))
        is_there = path.is_file()
    except (OSError, ValueError, TypeError):
        return None
    return Entry(path=path, is_same=is_same, about=about) if is_there else None


def _by_age(folder: pathlib.Path) -> list[pathlib.Path]:
    """Images, the newest first."""
    found = []
    for path in folder.glob("*.eif"):
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


MAX_ENTRIES = 3
MAX_SETTINGS = 32
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.eif")
