"""A strict reader of ramdisks: uncompressed ``newc`` cpio archives.

It takes what it is given apart and refuses what a kernel or our launcher would read differently; it
follows no path and writes nothing. :mod:`~cloister.build.ramdisk` writes.

The format is that of the kernel's ``Documentation/driver-api/early-userspace/buffer-format.rst``.
"""

import dataclasses
from collections.abc import Iterator
from typing import NoReturn

from cloister.build.rootfs import shown
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of an archive that was read.

    Args:
        path: Its path, relative.
        mode: Kind and permission bits.
        uid: Owner.
        gid: Group.
        mtime: Modification time, seconds since the Unix epoch.
        inode: Device major, device minor and inode number.
        links: Number of names.
        data: Its bytes, or the target of a symbolic link.
        archive: Which of several archives it is in, from 0.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    inode: tuple[int, int, int]
    links: int
    data: memoryview
    archive: int = 0


def read(archive: memoryview | bytes, *, at: int = 0) -> list[Entry]:
    """All entries of an archive.

    Args:
        archive: The archive; entries refer to it and copy nothing.
        at: Where it starts in its file, for messages.

    Raises:
        MalformedImage: At an offset, for a reason: not the format, an absolute path or ``..``, a
            name that is there twice or before its folder, a device node, pipe or socket.
    """
    return list(_Reader(memoryview(archive), at).entries())


def read_any(archive: memoryview | bytes, *, at: int = 0) -> tuple[list[Entry], int]:
    """All entries of a ramdisk of any maker, to be looked at: several archives, any kind of file.

    Args:
        archive: The archives, one after the other; entries refer to it and copy nothing.
        at: Where it starts in its file, for messages.

    Returns:
        The entries, ``.`` and slashes in front of their paths taken off, and how many archives
        there are.

    Raises:
        MalformedImage: At an offset, for a reason: not the format, or more than the limits.
    """
    return _Reader(memoryview(archive), at).anything()


class _Reader:
    def __init__(self, archive: memoryview, at: int) -> None:
        self._archive = archive
        self._base = at
        self._at = 0
        self._folders: dict[bytes, bool] = {b"": True}

    def entries(self) -> Iterator[Entry]:
        while True:
            start = self._at
            entry = self._record()
            if entry.path == TRAILER:
                break
            if len(self._folders) > MAX_ENTRIES:
                self._fail(start, f"more than {MAX_ENTRIES} entries")
            if entry.path == b"." and entry.mode & KIND == DIRECTORY:
                continue
            self._check(entry, start)
            yield entry
        rest = self._archive[self._at :]
        # Other writers leave a short rest; more than a block would be a second archive.
        if len(rest) >= BLOCK or any(rest):
            self._fail(self._at, "bytes after the trailer")

    def anything(self) -> tuple[list[Entry], int]:
        found: list[Entry] = []
        archives = 0
        while self._skip_zeros():
            while True:
                start = self._at
                entry = self._record()
                if entry.path == TRAILER:
                    break
                if len(found) >= MAX_ENTRIES:
                    self._fail(start, f"more than {MAX_ENTRIES} entries")
                path = entry.path
                while path[:1] == b"/" or path[:2] == b"./":
                    path = path[1:] if path[:1] == b"/" else path[2:]
                if path not in (b"", b"."):
                    found.append(dataclasses.replace(entry, path=path, archive=archives))
            archives += 1
        return found, archives

    def _skip_zeros(self) -> bool:
        """Passes over padding; whether something follows."""
        while self._at < len(self._archive):
            block = bytes(self._archive[self._at : self._at + ZEROS_AT_ONCE])
            rest = block.lstrip(b"\0")
            self._at += len(block) - len(rest)
            if rest:
                # Archives start at a multiple of four.
                self._at -= self._at % WORD
                return True
        return False

    def _record(self) -> Entry:
        start = self._at
        head = bytes(self._take(HEADER_BYTES, start))
        if head[:6] != MAGIC:
            self._fail(start, "not an uncompressed `newc` header")
        digits = head[6:]
        if not all(byte in b"0123456789abcdefABCDEF" for byte in digits):
            self._fail(start, "a header number is not hexadecimal")
        numbers = [int(digits[index : index + 8], 16) for index in range(0, len(digits), 8)]
        inode, mode, uid, gid, links, mtime, length, major, minor, _, _, name_length, _ = numbers
        if not 1 < name_length <= MAX_NAME:
            self._fail(start, f"a name of {name_length} bytes, expected 2 to {MAX_NAME}")
        name = bytes(self._take(name_length, start))
        if name[-1:] != b"\0" or b"\0" in name[:-1]:
            self._fail(start, "a name that does not end where its length says")
        self._align(start)
        data = self._take(length, start)
        self._align(start)
        return Entry(
            path=name[:-1],
            mode=mode,
            uid=uid,
            gid=gid,
            mtime=mtime,
            inode=(major, minor, inode),
            links=links,
            data=data,
        )

    def _check(self, entry: Entry, start: int) -> None:
        kind = entry.mode & KIND
        name = shown(entry.path)
        if entry.path.startswith(b"/"):
            self._fail(start, f"`{name}` is an absolute path")
        parts = entry.path.split(b"/")
        if any(part in (b"", b".", b"..") or len(part) > MAX_PART for part in parts):
            self._fail(start, f"`{name}` has an empty, too long, `.` or `..` part")
        if kind not in (DIRECTORY, FILE, SYMLINK):
            self._fail(start, f"`{name}` is a device node, pipe or socket")
        if not self._folders.get(entry.path.rpartition(b"/")[0], False):
            self._fail(start, f"`{name}` lies in no folder that came before it")
        if entry.path in self._folders:
            self._fail(start, f"`{name}` is there twice")
        if kind == DIRECTORY and len(entry.data):
            self._fail(start, f"`{name}` is a folder with contents")
        if kind == SYMLINK and not 0 < len(entry.data) <= MAX_NAME:
            self._fail(start, f"`{name}` is a link without a proper target")
        self._folders[entry.path] = kind == DIRECTORY

    def _take(self, count: int, start: int) -> memoryview:
        taken = self._archive[self._at : self._at + count]
        if len(taken) != count:
            self._fail(start, "the archive ends inside this entry")
        self._at += count
        return taken

    def _align(self, start: int) -> None:
        if any(self._take(-self._at % WORD, start)):
            self._fail(start, "padding that is not zero")

    def _fail(self, at: int, problem: str) -> NoReturn:
        raise MalformedImage(f"ramdisk at offset {self._base + at}: {problem}")


MAGIC = b"070701"
TRAILER = b"TRAILER!!!"
HEADER_BYTES = 110
WORD = 4
ZEROS_AT_ONCE = 1 << 16
BLOCK = 512
KIND, DIRECTORY, FILE, SYMLINK = 0o170_000, 0o040_000, 0o100_000, 0o120_000
MAX_NAME = 4096
MAX_PART = 255
MAX_ENTRIES = 1 << 20
