"""Ramdisks written by hand, as linuxkit writes them, and as nobody should."""

import dataclasses
import stat

FILE, FOLDER, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One record.

    Args:
        name: Its path, as it is written.
        kind: ``S_IF…``.
        data: Contents, or where a link leads.
        mode: Permission bits.
        inode: Its number; 0: the next one.
        links: Number of names.
        owner: User and group.
        mtime: Seconds since 1970.
    """

    name: str
    kind: int = FILE
    data: bytes = b""
    mode: int = 0o644
    inode: int = 0
    links: int = 1
    owner: int = 0
    mtime: int = 0


def archive(*records: Record, padding: int = 512) -> bytes:
    """An archive of records, with its end."""
    out = bytearray()
    for number, record in enumerate((*records, Record(name="TRAILER!!!", kind=0, mode=0)), start=1):
        name = record.name.encode("utf-8", "surrogateescape") + b"\0"
        inode = record.inode or number
        numbers = (
            *(inode, record.kind | record.mode, record.owner, record.owner, record.links),
            *(record.mtime, len(record.data), 0, 0, 0, 0, len(name), 0),
        )
        out += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        out += bytes(-len(out) % 4) + record.data
        out += bytes(-len(out) % 4)
    return bytes(out + bytes(-len(out) % padding))
