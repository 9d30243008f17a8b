"""The run directory: a short, private folder for the sockets of one run, gone afterwards."""

import os
import pathlib
import shutil
import tempfile

from cloister.errors import OutputError

PREFIX = "cloister-run-"
LONGEST_SOCKET = "v/enclave-7777.sock"
MAX_SOCKET_PATH = 107  # bytes: sun_path without its final zero (unix(7))


def make(*folders: pathlib.Path) -> pathlib.Path:
    """Makes a fresh run directory, mode 0700.

    Args:
        folders: Where it may be made: the first that can be written and has a path that is short
            enough for sockets below it.

    Raises:
        OutputError: None of them can be written and is short enough.
    """
    tried = []
    for base in dict.fromkeys(folders):
        if _length_below(base) > MAX_SOCKET_PATH:
            tried.append(f"`{base}` is too long a path for a socket")
            continue
        try:
            return pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        except OSError as problem:
            tried.append(f"`{base}`: {problem.strerror}")
    raise OutputError(
        f"no folder for the sockets of a run: {'; '.join(tried)}",
        hint="set XDG_RUNTIME_DIR to a folder of yours with a short path",
    )


def remove(path: pathlib.Path) -> None:
    """Removes a run directory; one that is gone is no error."""
    shutil.rmtree(path, ignore_errors=True)


def _length_below(base: pathlib.Path) -> int:
    random_part = 8  # tempfile.mkdtemp
    return len(os.fsencode(base / (PREFIX + "x" * random_part) / LONGEST_SOCKET))
