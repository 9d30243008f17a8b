"""Files that appear whole or not at all, and folders to work in that go at the end."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from cloister.errors import OutputError


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[Any]:
    """A file that takes its place when the block ends well, and leaves nothing when it does not."""
    # Without fsync, which takes as long as all the rest: an image that a crash of the machine
    # damages is refused by its checksum, and made again from the same input.
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path whose file takes the place of another when the block ends well, and else goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def link_or_copy(source: pathlib.Path, to: pathlib.Path) -> None:
    """Gives a file a second name, or copies it where no link can lead: another file system.

    Raises:
        OSError: ``to`` is there already, or cannot be written.
    """
    try:
        os.link(source, to)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as old, to.open("xb") as new:
            shutil.copyfileobj(old, new, COPY_BYTES)


@contextlib.contextmanager
def scratch(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for what is needed while it builds; the context never sees it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix="scratch-", dir=folder, ignore_cleanup_errors=True
        ) as name:
            yield pathlib.Path(name).resolve()
    except PermissionError as problem:
        raise OutputError(f"cannot write into `{folder}`: {problem.strerror}") from problem


COPY_BYTES = 1 << 20
