"""Ramdisks to be written: uncompressed ``newc`` cpio archives, in one spelling.

The same entries give the same bytes: they come by the bytes of their path, inode numbers are
counted, the device is 0, times are clamped, the archive is padded to 512. Contents are read while
the archive is written, so only heads are in memory. :mod:`~cloister.build.cpio` reads.

The format is that of the kernel's ``Documentation/driver-api/early-userspace/buffer-format.rst``.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from cloister.build.rootfs import Content, File, Node, Symlink, Tree, shown
from cloister.errors import MalformedImage


class Fragment(Protocol):
    """Whole records of an archive, in order."""

    @property
    def size(self) -> int:
        """Their length in bytes, a multiple of four."""

    def blocks(self) -> Iterator[bytes | bytearray]:
        """Their bytes; exactly :attr:`size`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Records:
    """Records made from a tree: a head each, and the content that follows it.

    Args:
        pieces: Head, content if there is one, and its length in bytes.
        size: Length of all of it.
        last_inode: The highest inode number in it.
    """

    pieces: list[tuple[bytes, Content | None, int]]
    size: int
    last_inode: int

    @classmethod
    def of(
        cls, entries: Iterable[tuple[bytes, Node]], *, epoch: int = 0, first_inode: int = 1
    ) -> "Records":
        """Records of entries.

        Args:
            entries: By the bytes of their path, a folder before what is in it.
            epoch: Latest time of an entry, and the time of one that has none: seconds since 1970.
            first_inode: Where the inode numbers start.

        Raises:
            MalformedImage: An entry is larger than the format can say, or has the name that ends
                an archive.
        """
        listed = list(entries)
        names: dict[int, int] = {}
        for _, node in listed:
            if type(node) is File:
                names[id(node)] = names.get(id(node), 0) + 1
        inodes: dict[int, int] = {}
        pieces: list[tuple[bytes, Content | None, int]] = []
        total, last = 0, first_inode - 1
        for path, node in listed:
            inode = inodes.get(id(node))
            is_first = inode is None
            if inode is None:
                last += 1
                inode = inodes[id(node)] = last
            head, content, length = _record(
                path, node, inode, links=names.get(id(node), 1), epoch=epoch, has_content=is_first
            )
            pieces.append((head, content, length))
            total += len(head) + length + -length % WORD
        return cls(pieces, total, last)

    def blocks(self) -> Iterator[bytes | bytearray]:
        """The bytes, content read as it is needed.

        Raises:
            MalformedImage: A file changed since it was found, or cannot be read.
        """
        joined = bytearray()
        for head, content, length in self.pieces:
            joined += head
            if content is not None:
                for block in content.blocks():
                    if len(block) < JOINED_BYTES:
                        joined += block
                        continue
                    yield joined
                    yield block
                    joined = bytearray()
            joined += _PADDING[length % WORD]
            if len(joined) >= JOINED_BYTES:
                yield joined
                joined = bytearray()
        yield joined


class Ramdisk:
    """An archive of fragments, with its end."""

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        self._fragments = tuple(fragments)
        records = sum(fragment.size for fragment in self._fragments)
        whole = records + len(_TRAILER_RECORD)
        self._end = _TRAILER_RECORD + bytes(-whole % BLOCK)
        self.size = records + len(self._end)

    def blocks(self) -> Iterator[bytes | bytearray]:
        """The archive."""
        for fragment in self._fragments:
            yield from fragment.blocks()
        yield self._end

    @classmethod
    def of(cls, tree: Tree, *, epoch: int = 0) -> "Ramdisk":
        """The archive of one tree."""
        return cls([Records.of(tree, epoch=epoch)])


def _record(  # noqa: PLR0913 - what a record says
    path: bytes, node: Node, inode: int, *, links: int, epoch: int, has_content: bool
) -> tuple[bytes, Content | None, int]:
    content: Content | None = None
    data = b""
    if type(node) is File:
        kind = FILE
        if has_content:
            content = node.content
        length = 0 if content is None else content.size
    elif type(node) is Symlink:
        kind, data, links, length = SYMLINK, node.target, 1, len(node.target)
    else:
        kind, links, length = DIRECTORY, 2, 0
    if path == TRAILER or max(length, node.uid, node.gid) > MAX_NUMBER:
        raise _unwritable(path, node, length)
    mtime = epoch if node.mtime is None else max(0, min(node.mtime, epoch))
    head = _HEAD % (
        inode,
        kind | (node.mode & 0o7777),
        node.uid,
        node.gid,
        links,
        mtime,
        length,
        len(path) + 1,
        path,
    )
    head += _ZEROS[: -len(head) % WORD]
    if type(node) is Symlink:
        return head + data + _ZEROS[: -length % WORD], None, 0
    return head, content, length


def _unwritable(path: bytes, node: Node, length: int) -> MalformedImage:
    if path == TRAILER:
        return MalformedImage(f"image entry `{shown(path)}` has the name that ends an archive")
    sizes = (("size", length), ("owner", node.uid), ("group", node.gid))
    what, number = next(pair for pair in sizes if pair[1] > MAX_NUMBER)
    return MalformedImage(
        f"image entry `{shown(path)}` has a {what} of {number}: the format ends at 4 GiB"
    )


TRAILER = b"TRAILER!!!"
WORD = 4
JOINED_BYTES = 1 << 20
"""Records are given out in blocks of about this length: there are many, and most are small."""
BLOCK = 512
DIRECTORY, FILE, SYMLINK = 0o040_000, 0o100_000, 0o120_000
MAX_NUMBER = 0xFFFF_FFFF
_ZEROS = bytes(WORD)
_PADDING = [_ZEROS[: -length % WORD] for length in range(WORD)]
# Magic, inode, mode, owner, group, names, time, size, four device numbers of 0, length of the name,
# checksum 0, name.
_HEAD = b"070701" + b"%08X" * 7 + b"0" * 32 + b"%08X" + b"0" * 8 + b"%b\0"
_trailer = _HEAD % (0, 0, 0, 0, 1, 0, 0, len(TRAILER) + 1, TRAILER)
_TRAILER_RECORD = _trailer + _ZEROS[: -len(_trailer) % WORD]
