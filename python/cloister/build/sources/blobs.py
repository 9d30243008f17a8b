"""Where the files of a saved image are: in a folder, or in one archive."""

import os
import pathlib
import stat
from typing import Protocol

from cloister.build.content import Backing, Slice
from cloister.build.rootfs import shown
from cloister.build.sources.archive import Kind, clean, walk
from cloister.build.sources.limits import Budget
from cloister.errors import MalformedImage, MissingInput


class Blobs(Protocol):
    """Files by name, as slices."""

    name: str

    def has(self, path: str) -> bool:
        """Whether there is such a file."""

    def find(self, path: str) -> Slice:
        """A file.

        Raises:
            MalformedImage: There is none, or its name leads out.
        """


class FolderBlobs:
    """The files of a folder; links are not followed.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.name = str(folder)

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        try:
            return stat.S_ISREG(self._path(path).lstat().st_mode)
        except OSError:
            return False

    def find(self, path: str) -> Slice:
        """A file."""
        at = self._folder
        for part in self._path(path).relative_to(self._folder).parts:
            at = at / part
            if at.is_symlink():
                raise MalformedImage(f"`{self.name}`: `{at.name}` is a link, expected a file")
        try:
            return Backing.open(at).whole()
        except MissingInput:
            raise _missing(self.name, path) from None

    def _path(self, path: str) -> pathlib.Path:
        return self._folder / os.fsdecode(_cleaned(path, self.name))


class ArchiveBlobs:
    """The files of a tar archive, which is read once and not unpacked.

    Args:
        archive: The archive, not compressed.
        budget: What may still be read.

    Raises:
        MalformedImage: It is not a tar archive, or has more files than a saved image.
    """

    def __init__(self, archive: Slice, budget: Budget) -> None:
        self.name = archive.backing.name
        self._files: dict[bytes, Slice] = {}
        self._links: dict[bytes, bytes] = {}
        for count, member in enumerate(walk(archive, budget)):
            if count > MAX_FILES:
                raise MalformedImage(f"`{self.name}` has more than {MAX_FILES} entries")
            if member.kind is Kind.FILE:
                if not isinstance(member.content, Slice):
                    raise MalformedImage(f"`{self.name}`: `{shown(member.path)}` has holes")
                self._files[member.path] = member.content
            elif member.kind is Kind.SYMLINK:
                # Docker saved equal layers once, and a link beside them (moby, tarexport).
                folder = member.path.rpartition(b"/")[0]
                self._links[member.path] = _followed(folder, member.target)
            elif member.kind is Kind.LINK:
                self._links[member.path] = member.target

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return self._at(path) in self._files

    def find(self, path: str) -> Slice:
        """A file."""
        found = self._files.get(self._at(path))
        if found is None:
            raise _missing(self.name, path)
        return found

    def _at(self, path: str) -> bytes:
        cleaned = _cleaned(path, self.name)
        return self._links.get(cleaned, cleaned)


def _followed(folder: bytes, target: bytes) -> bytes:
    """Where a link leads, inside the archive; one that leads out leads to nothing."""
    parts = folder.split(b"/") if folder and not target.startswith(b"/") else []
    for part in target.split(b"/"):
        if part == b"..":
            if not parts:
                return b""
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _cleaned(path: str, name: str) -> bytes:
    found = clean(os.fsencode(path)) if "\0" not in path else None
    if not found:
        raise MalformedImage(
            f"`{name}` names the file `{shown(os.fsencode(path))}`, which leads out"
        )
    return found


def _missing(name: str, path: str) -> MalformedImage:
    return MalformedImage(
        f"`{name}` has no file `{shown(os.fsencode(path))}`, which it names",
        hint="save or copy the image again: it is not whole",
    )


MAX_FILES = 16_384
"""Files of a saved image: a few for each layer, and several images in one archive."""
