"""Binary input and output of a command: a file or a pipe, and files that appear whole."""

import contextlib
import os
import pathlib
import stat
import sys
from collections.abc import Iterator
from typing import IO

import typer

from cloister.errors import InputError, MissingInput, OutputError, UsageError


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file, or standard input for ``-``.

    Raises:
        MissingInput: It is not there, or cannot be read.
    """
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as problem:
        raise MissingInput(f"cannot read `{path}`: {problem.strerror}") from None
    with file:
        yield file


def standard_input() -> bytes:
    """All of it, to its end.

    A pipe that another process made non-blocking is not waited for: what had come until then
    would look like all of it.

    Raises:
        InputError: It is non-blocking, and there is nothing yet.
    """
    whole = sys.stdin.buffer.read()
    # Behind what has come a pipe says `None`, or `b""` at its end. A terminal says its end once.
    is_whole = whole is not None and (sys.stdin.isatty() or sys.stdin.buffer.read(1) == b"")
    if not is_whole:
        raise InputError("standard input would block: it is non-blocking, and has nothing yet")
    return whole


@contextlib.contextmanager
def writing(path: pathlib.Path | None, *, mode: int) -> Iterator[IO[bytes]]:
    """A file that takes its place when the block ends well, or standard output.

    Args:
        path: The file; ``None`` or ``-`` is standard output, which is not a terminal then.
        mode: Permissions of the file, less what the umask takes.

    Raises:
        OutputError: It cannot be written; what was there is as it was.
        UsageError: Standard output is a terminal.
    """
    if path is None or str(path) == "-":
        if sys.stdout.isatty():
            raise UsageError("a file is not for a terminal", hint="give --output FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        # A device or a pipe keeps its name.
        with _said(path), path.open("wb") as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with _said(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def json_needs_a_file(*, as_json: bool, path: pathlib.Path | None) -> None:
    """``--json`` says where the file is; on standard output the file itself would be beside it.

    Raises:
        BadParameter: It was asked for, and the file goes to standard output.
    """
    if as_json and (path is None or str(path) == "-"):
        raise typer.BadParameter(
            "needs `--output FILE`: standard output is taken", param_hint="--json"
        )


@contextlib.contextmanager
def _said(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem


SECRET = 0o600
"""Mode of a file with clear text."""

PUBLIC = 0o666
"""Mode of any other file, before the umask."""
