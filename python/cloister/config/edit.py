"""Changes settings of an ``enclave.toml`` in place.

The file goes through :mod:`tomlkit`, so comments, order, blank lines and tables that this program
does not know survive. It is replaced whole or not at all (:mod:`cloister.replacing`).
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AbstractTable

from cloister.errors import ConfigError, MissingInput
from cloister.replacing import replace


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
