"""Tells how much somebody else's program has written, while it writes.

Programs write to a file of another name first, so all files of a folder are looked at. The count
only grows; what disappears meanwhile stays counted.
"""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterator

from cloister.build.progress import Advance


@contextlib.contextmanager
def watched(folder: pathlib.Path, advanced: Advance) -> Iterator[None]:
    """Counts the bytes that come into a folder, for as long as the block lasts.

    Args:
        folder: The folder.
        advanced: Called with the bytes that came since the last call.
    """
    before = _bytes(folder)
    told = 0
    is_over = threading.Event()

    def look() -> None:
        nonlocal told
        while True:
            is_last = is_over.wait(SECONDS)
            came = _bytes(folder) - before - told
            if came > 0:
                told += came
                advanced(came)
            if is_last:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _bytes(folder: pathlib.Path) -> int:
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


SECONDS = 0.2
