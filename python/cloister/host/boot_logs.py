"""Folders of log segments, one for each boot of an enclave.

Two boots of one enclave write at one time while one takes over from the other, and a segment is of
one boot. The oldest folders make room; one of a boot that goes on never does.
"""

import contextlib
import pathlib
import re
import shutil
import threading

from cloister.errors import OutputError

MAX_BOOTS = 16
MAX_BYTES = 4 << 30


class BootLogs:
    """The folders of one enclave. Its methods may be called from any thread.

    Args:
        root: Where they are; made when absent, mode 0700.
        max_boots: How many are kept, those of boots that go on included where there are fewer.
        max_bytes: How many bytes those may have together whose boots have ended.
    """

    def __init__(
        self, root: pathlib.Path, *, max_boots: int = MAX_BOOTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._root = root
        self._max_boots = max_boots
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._live: set[pathlib.Path] = set()

    def new(self) -> pathlib.Path:
        """Makes the folder of a boot, after the oldest ones made room.

        Raises:
            OutputError: It cannot be made.
        """
        with self._lock:
            try:
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._make_room()
                # A number, not a time: a clock may be set back.
                last = max(map(_number, self._folders()), default=0)
                path = self._root / f"boot-{last + 1:08}"
                path.mkdir(mode=0o700)
            except OSError as problem:
                raise OutputError(
                    f"cannot make a folder in `{self._root}`: {problem.strerror}"
                ) from None
            self._live.add(path)
            return path

    def release(self, path: pathlib.Path) -> None:
        """Says that a boot has ended; a folder in which nothing was logged is removed."""
        with self._lock:
            self._live.discard(path)
            with contextlib.suppress(OSError):
                path.rmdir()

    def _make_room(self) -> None:
        folders = self._folders()
        ended = [one for one in folders if one not in self._live]
        sizes = [_size(one) for one in ended]
        while ended and (len(folders) >= self._max_boots or sum(sizes) > self._max_bytes):
            sizes.pop(0)
            oldest = ended.pop(0)
            folders.remove(oldest)
            shutil.rmtree(oldest, ignore_errors=True)

    def _folders(self) -> list[pathlib.Path]:
        """The oldest first."""
        found = (one for one in self._root.iterdir() if _NAME.fullmatch(one.name))
        return sorted(found, key=_number)


def _number(path: pathlib.Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else 0


def _size(folder: pathlib.Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            with contextlib.suppress(OSError):
                total += file.stat().st_size
    return total


_NAME = re.compile(r"boot-([0-9]{8,})")
