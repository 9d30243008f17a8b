"""A disk of a few megabytes: a tmpfs in a mount namespace of its own, so that no rights are needed.

Nothing outside the namespace sees what is on it; commands are run inside. It ends with the process
that holds the namespace.
"""

import pathlib
import subprocess
from types import TracebackType
from typing import Self

import pytest


class SmallDisk:
    """A full disk to be, mounted at a folder for the commands that :meth:`inside` makes.

    Args:
        folder: An empty folder.
        size: In bytes, a multiple of the page size.
    """

    def __init__(self, folder: pathlib.Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        script = 'mount -t tmpfs -o "size=$1,mode=0700" tmpfs "$2" && echo there && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", script, "sh", str(self._size), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "there\n":
            _, said = self._holder.communicate()
            pytest.skip(f"no tmpfs can be mounted here: {said.strip()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._holder is not None
        self._holder.communicate(timeout=30)  # the end of its input ends it

    def inside(self, *command: str) -> list[str]:
        """The command, to be run where the disk is."""
        assert self._holder is not None
        target = str(self._holder.pid)
        return ["nsenter", "--preserve-credentials", "-U", "-m", "-t", target, "--", *command]

    def path(self, inside: pathlib.Path) -> pathlib.Path:
        """A file of the disk, as it is reached from outside."""
        assert self._holder is not None
        return pathlib.Path(f"/proc/{self._holder.pid}/root") / inside.relative_to("/")
