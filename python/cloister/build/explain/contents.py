"""The files of an image's ramdisks, as the kernel that boots it would see them.

A ramdisk is one ``newc`` archive or several, one after the other, whole or compressed with gzip, as
linuxkit and nitro-cli write them. A name that is there twice is there once, as the last one said.
"""

import contextlib
import dataclasses
import hashlib
import mmap
import pathlib
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

from cloister.build import cpio
from cloister.build.eif import Eif, Section
from cloister.build.eif.layout import SECTION_BYTES
from cloister.build.explain import packed
from cloister.build.explain.names import spelled
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One name in a ramdisk.

    Args:
        path: Where it is, relative to the root of the initial file system.
        mode: Kind and permission bits, as stat(2) has them.
        uid: Owner.
        gid: Group.
        mtime: Modification time, seconds since 1970.
        names: Names of the same file, itself included; several: they are hard links.
        data: Bytes of a file, or the target of a symbolic link.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    names: tuple[bytes, ...]
    data: memoryview

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return _KINDS.get(stat.S_IFMT(self.mode), "unknown")

    def described(self) -> dict[str, Any]:
        """One object with stable keys; ``sha256`` is there for files."""
        found: dict[str, Any] = {
            "path": spelled(self.path),
            "kind": self.kind,
            "mode": f"{stat.S_IMODE(self.mode):04o}",
            "uid": self.uid,
            "gid": self.gid,
            "mtime": self.mtime,
            "size": len(self.data) if self.kind == "file" else 0,
        }
        if self.kind == "file":
            found["sha256"] = hashlib.sha256(self.data).hexdigest()
        if self.kind == "link":
            found["target"] = spelled(bytes(self.data))
        if len(self.names) > 1:
            found["hard_links"] = [spelled(name) for name in self.names if name != self.path]
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The files of one ramdisk.

    Args:
        number: Which ramdisk, from 0: the boot ramdisk.
        compression: What it was compressed with; empty: nothing.
        archives: How many archives it is made of.
        items: By the bytes of their path.
    """

    number: int
    compression: str
    archives: int
    items: dict[bytes, Item]


@contextlib.contextmanager
def contents(image: Eif) -> Iterator[list[Contents]]:
    """The files of each ramdisk, readable inside the block.

    Raises:
        MalformedImage: A ramdisk cannot be read, at an offset of the file or of what is in it.
    """
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(_ramdisk(number, section))
            for number, section in enumerate(image.ramdisks)
        ]


@contextlib.contextmanager
def _ramdisk(number: int, section: Section) -> Iterator[Contents]:
    method = packed.compression(section.payload)
    at = section.offset + SECTION_BYTES
    if not method:
        yield _read(number, section.payload, at, compression="")
        return
    if method != "gzip":
        raise MalformedImage(
            f"ramdisk at offset {at}: it is packed with {method}, which is not read here"
        )
    with tempfile.TemporaryFile() as file:
        packed.unpack(section, file)
        file.flush()
        if not file.tell():
            raise MalformedImage(f"ramdisk at offset {at}: nothing is compressed in it")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        yield _read(number, memoryview(mapped), 0, compression="gzip")
        # Items may outlive the block; the mapping goes with the last of them.
        with contextlib.suppress(BufferError):
            mapped.close()


def _read(number: int, archive: memoryview, at: int, *, compression: str) -> Contents:
    entries, archives = cpio.read_any(archive, at=at)
    by_inode: dict[tuple[int, ...], list[cpio.Entry]] = {}
    for entry in entries:
        if entry.links > 1 and stat.S_ISREG(entry.mode):
            by_inode.setdefault((entry.archive, *entry.inode), []).append(entry)
    linked = {inode: _linked(same) for inode, same in by_inode.items()}
    items: dict[bytes, Item] = {}
    for entry in entries:
        names: tuple[bytes, ...] = (entry.path,)
        data = entry.data
        if entry.links > 1 and stat.S_ISREG(entry.mode):
            names, data = linked[entry.archive, *entry.inode]
        items[entry.path] = Item(
            path=entry.path,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=entry.mtime,
            names=names,
            data=data,
        )
    return Contents(
        number=number,
        compression=compression,
        archives=archives,
        items=dict(sorted(items.items())),
    )


def _linked(same: list[cpio.Entry]) -> tuple[tuple[bytes, ...], memoryview]:
    """Names and bytes of a hard-linked file: the kernel takes those of whichever name has some."""
    carrier = next((entry for entry in same if len(entry.data)), same[0])
    return tuple(dict.fromkeys(entry.path for entry in same)), carrier.data


def file_in(found: list[Contents], path: str) -> bytes | None:
    """A small file of the application's ramdisks, the last that has it; ``None``: none has."""
    for one in reversed(found):
        item = one.items.get(path.encode())
        if item is not None and item.kind == "file" and len(item.data) <= MAX_SHOWN_BYTES:
            return bytes(item.data)
    return None


def is_same(one: memoryview, other: memoryview) -> bool:
    """Whether the bytes are the same; by blocks, for memoryviews compare item by item."""
    return len(one) == len(other) and all(
        bytes(one[at : at + BLOCK_BYTES]) == bytes(other[at : at + BLOCK_BYTES])
        for at in range(0, len(one), BLOCK_BYTES)
    )


def on_disk(path: pathlib.Path) -> str:
    """A path for a message."""
    return spelled(str(path).encode("utf-8", "surrogateescape"))


BLOCK_BYTES = 1 << 20
MAX_SHOWN_BYTES = 1 << 20
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
