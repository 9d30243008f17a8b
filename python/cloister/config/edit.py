"""Changes settings of an ``enclave.toml`` in place.

The file goes through :mod:`tomlkit`, so comments, order, blank lines and tables that this program
does not know survive. It is replaced whole or not at all: temporary file beside it, fsync, rename.
"""

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AbstractTable

from cloister.errors import ConfigError, MissingInput, OutputError


class Editor:
    """The open file; made by :func:`edit`.

    Args:
        document: The file, as tomlkit holds it.
    """

    def __init__(self, document: tomlkit.TOMLDocument) -> None:
        self._document = document

    def set(self, *path: str, to: Any) -> None:  # noqa: ANN401 - any TOML value
        """Sets a key; the tables on the way are made when they are not there.

        Raises:
            ConfigError: Something on the way is there and is not a table.
        """
        *tables, key = path
        place: Any = self._document
        for depth, name in enumerate(tables, start=1):
            if name not in place:
                place[name] = tomlkit.table()
            place = place[name]
            # A table that is split in the file comes as a proxy, which is a mapping too.
            if not isinstance(place, AbstractTable) and not hasattr(place, "keys"):
                raise ConfigError(f"`{'.'.join(tables[:depth])}` is not a table")
        place[key] = to

    def remove(self, *path: str) -> None:
        """Removes a key; one that is not there is no error."""
        *tables, key = path
        place: Any = self._document
        for name in tables:
            if name not in place:
                return
            place = place[name]
        if key in place:
            del place[key]


@contextlib.contextmanager
def edit(path: str | pathlib.Path) -> Iterator[Editor]:
    """Opens a file for changes, which are written when the block ends without an error.

    Args:
        path: The file; a symbolic link stays one, its target is replaced.

    Raises:
        MissingInput: There is no such file.
        ConfigError: It is not TOML.
        OutputError: It cannot be written; it is as it was.
    """
    file = pathlib.Path(path)
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise MissingInput(f"`{file}` does not exist", hint="`cloister init` makes one") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"`{file}` cannot be read: {problem}") from problem
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as problem:
        raise ConfigError(f"`{file}`: {problem}") from problem
    yield Editor(document)
    changed = tomlkit.dumps(document)
    if changed != text:
        replace(file, changed.encode())


def replace(path: pathlib.Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replaces a file whole, or makes it: temporary file beside it, fsync, rename, fsync.

    Args:
        path: The file; its permissions and, where permitted, its owner are kept.
        content: All of it.
        mode: Permissions of a file that was not there.

    Raises:
        OutputError: It cannot be written; it is as it was.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        before = _status(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if before is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode) if before else mode)
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _status(path: pathlib.Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _sync(folder: pathlib.Path) -> None:
    """Makes the new name last too, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
