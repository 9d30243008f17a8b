"""Contents of files that lie inside another file: a slice of a layer, whole or with holes.

Nothing is unpacked: the bytes stay where they are until the ramdisk is written.
"""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Self

from cloister.errors import MalformedImage, MissingInput


class Backing:
    """An open file that others are slices of; it is closed with its last slice.

    Args:
        fd: The file, regular, open for reading; owned from here on.
        name: How messages call it.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self.size = os.fstat(fd).st_size

    @classmethod
    def open(cls, path: pathlib.Path) -> Self:
        """A file by its path.

        Raises:
            MissingInput: It is not there, is no regular file, or cannot be read.
        """
        try:
            # Without O_NONBLOCK a pipe would be waited for.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MissingInput(f"there is no file `{path}`") from None
        except OSError as problem:
            raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from problem
        backing = cls(fd, str(path))
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise MissingInput(f"`{path}` is not a file")
        return backing

    def __del__(self) -> None:
        os.close(self.fd)

    def whole(self) -> "Slice":
        """All of it."""
        return Slice(self, 0, self.size)


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a file.

    Args:
        backing: The file.
        offset: Where they start.
        size: How many.
    """

    backing: Backing
    offset: int
    size: int

    def blocks(self, length: int = 1 << 20) -> Iterator[bytes]:
        """All of them.

        Args:
            length: Of a block, at most.

        Raises:
            MalformedImage: The file ends before them.
        """
        at, left = self.offset, self.size
        while left:
            block = os.pread(self.backing.fd, min(left, length), at)
            if not block:
                raise MalformedImage(f"`{self.backing.name}` ends at {at}, {left} bytes too early")
            yield block
            at += len(block)
            left -= len(block)

    def fill(self, buffer: memoryview, offset: int) -> int:
        """Reads bytes from an offset on into a buffer, which is used again and again.

        Returns:
            How many: 0 at the end, else at least one.

        Raises:
            MalformedImage: The file ends before them.
        """
        wanted = min(len(buffer), self.size - offset)
        if wanted <= 0:
            return 0
        found = os.preadv(self.backing.fd, [buffer[:wanted]], self.offset + offset)
        if not found:
            at = self.offset + offset
            raise MalformedImage(f"`{self.backing.name}` ends at {at}, {wanted} bytes too early")
        return found

    def read(self, limit: int, what: str) -> bytes:
        """All of them at once, where they are few.

        Raises:
            MalformedImage: There are more than ``limit``.
        """
        if self.size > limit:
            raise MalformedImage(
                f"{what} in `{self.backing.name}` is {self.size} bytes long, the limit is {limit}"
            )
        return b"".join(self.blocks())

    def part(self, offset: int, size: int) -> Self:
        """Bytes of these bytes.

        Raises:
            MalformedImage: They are not in it.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise MalformedImage(
                f"`{self.backing.name}` has {self.size} bytes where"
                f" {size} are said to be at {offset}"
            )
        return type(self)(self.backing, self.offset + offset, size)


@dataclasses.dataclass(frozen=True, slots=True)
class Sparse:
    """Bytes of a file with holes, which are zeros.

    Args:
        pieces: Offset in the file, and the bytes there; in order, not overlapping.
        size: Length of the file.
    """

    pieces: tuple[tuple[int, Slice], ...]
    size: int

    def blocks(self) -> Iterator[bytes]:
        """All of them, holes written out."""
        at = 0
        for offset, piece in self.pieces:
            yield from _zeros(offset - at)
            yield from piece.blocks()
            at = offset + piece.size
        yield from _zeros(self.size - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS)


BLOCK_BYTES = 1 << 20
_ZEROS = bytes(BLOCK_BYTES)
