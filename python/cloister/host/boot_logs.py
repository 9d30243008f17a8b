"""Folders of log segments, one for each boot of an enclave.

Two boots of one enclave write at one time while one takes over from the other, and a segment is of
one boot. The oldest folders make room; those of the last boots stay, as they may still be written.
"""

import datetime as dt
import pathlib
import secrets
import shutil

from cloister.errors import OutputError

MAX_BOOTS = 16
MAX_BYTES = 4 << 30
KEPT_BOOTS = 3


def new_folder(
    root: pathlib.Path, *, now: dt.datetime, max_boots: int = MAX_BOOTS, max_bytes: int = MAX_BYTES
) -> pathlib.Path:
    """Makes the folder of a boot, after the oldest ones made room.

    Args:
        root: Folder of the logs of one enclave; made when absent, mode 0700.
        now: The time, with a zone; folders are in its order.
        max_boots: How many boots are kept, the new one included.
        max_bytes: How many bytes the others may have together; the last three may have more.

    Raises:
        OutputError: It cannot be made.
    """
    path = root / f"{now.astimezone(dt.UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(root, max_boots, max_bytes)
        path.mkdir(mode=0o700)
    except OSError as problem:
        raise OutputError(f"cannot make `{path}`: {problem.strerror}") from None
    return path


def _make_room(root: pathlib.Path, max_boots: int, max_bytes: int) -> None:
    folders = sorted(one for one in root.iterdir() if one.is_dir())
    sizes = [sum(file.stat().st_size for file in one.iterdir()) for one in folders]
    while len(folders) > KEPT_BOOTS and (len(folders) >= max_boots or sum(sizes) > max_bytes):
        shutil.rmtree(folders.pop(0), ignore_errors=True)
        sizes.pop(0)
