"""Plain heads of tar archives (POSIX.1-1988 ``ustar``, and GNU's spelling of it), read fast.

It reads what is written in the plainest way and nothing else: whatever it does not know, it leaves
to ``tarfile``, and so decides nothing about what is right.
"""

import operator
import os
import struct
from typing import NamedTuple

from cloister.build.content import Slice


class Head(NamedTuple):
    """A plain head.

    Args:
        name: As it is written.
        kind: The type flag.
        mode: Permission bits.
        uid: Owner.
        gid: Group.
        mtime: Seconds since 1970.
        size: Bytes of content, for a file.
        link: Where a link leads, as it is written.
        offset: Where the content starts in the archive.
        next: Where the next head starts.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    offset: int
    next: int


class Heads:
    """The heads of an archive, read ahead: most files are small, and heads near each other."""

    def __init__(self, archive: Slice) -> None:
        self._archive = archive
        self._ahead = b""
        self._start = 0

    def read(self, at: int) -> Head | None:
        """The head at an offset, if it is a plain one and its entry lies in the archive."""
        first = at - self._start
        block = self._ahead[first : first + BLOCK_BYTES] if first >= 0 else b""
        if len(block) < BLOCK_BYTES:
            left = self._archive.size - at
            self._start = at
            self._ahead = os.pread(
                self._archive.backing.fd,
                max(0, min(AHEAD_BYTES, left)),
                self._archive.offset + at,
            )
            block = self._ahead[:BLOCK_BYTES]
        return _head(block, at, self._archive.size)


def _head(block: bytes, at: int, whole: int) -> Head | None:
    if len(block) != BLOCK_BYTES:
        return None
    name, *octal, kind, link, magic, prefix = _FIELDS.unpack(block)
    if kind not in _KINDS or magic[:5] != b"ustar":
        return None
    try:
        # Octal digits, then a space or a zero byte; anything else is somebody else's to read.
        mode, uid, gid, size, mtime, checksum = numbers = [int(digits, 8) for digits in octal]
    except ValueError:
        return None
    # Most bytes of a head are zeros, which a sum does not need.
    found = sum(block.translate(None, b"\0")) - sum(block[148:156]) + _CHECKSUM_AS_SPACES
    name = name.partition(b"\0")[0]
    prefix = prefix.partition(b"\0")[0]
    if prefix:
        name = prefix + b"/" + name
    is_odd = (
        found != checksum
        or min(numbers) < 0
        or b"_" in block[100:154]  # which Python's numbers may have
        or not name
        or (prefix and magic != b"ustar\x0000")  # GNU has other fields there
        or (kind in _FILES and name[-1:] == b"/")
        or block[329:345] not in _NO_DEVICES
        # A number without its end goes on in the byte that was passed over.
        or not _ENDS.issuperset(_ENDED(block))
    )
    if is_odd:
        return None
    start = at + BLOCK_BYTES
    if kind not in _FILES:
        size = 0
    following = start + size + -size % BLOCK_BYTES
    if following > whole:
        return None
    link = link.partition(b"\0")[0]
    return Head(name, kind, mode & 0o7777, uid, gid, mtime, size, link, start, following)


BLOCK_BYTES = 512
AHEAD_BYTES = 16 << 10
_FIELDS = struct.Struct("100s 7sx 7sx 7sx 11sx 11sx 6s2x c 100s 8s 80x 155s 12x")
"""Name, mode, owner, group, size, time, checksum, kind, link, magic with version, prefix."""
_ENDED = operator.itemgetter(107, 115, 123, 135, 147, 154)
_ENDS = frozenset(b"\0 ")
_NO_DEVICES = frozenset((bytes(16), b"0000000\0" * 2, b"000000 \0" * 2))
"""Device numbers of what is no device, as GNU, Go and BSD write them."""
_FILES = frozenset((b"0", b"\0"))
_KINDS = frozenset((b"0", b"\0", b"1", b"2", b"5"))
_CHECKSUM_AS_SPACES = 8 * 0x20
"""The checksum counts its own eight bytes as spaces."""
