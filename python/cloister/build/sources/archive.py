"""Walks a tar archive of somebody else's making: entries one after the other, contents as slices.

Plain heads are read by :mod:`~cloister.build.sources.ustar`, all others (GNU long names, pax,
sparse files, large numbers) by ``tarfile``; what that reads is bounded here, and what it passes
over in silence, a damaged head in the middle, is an error. Nothing is unpacked or followed:
:mod:`~cloister.build.sources.merge` decides what an entry means.
"""

import contextlib
import enum
import io
import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from cloister.build.content import Slice, Sparse
from cloister.build.rootfs import Content, shown
from cloister.build.sources import ustar
from cloister.build.sources.limits import Budget
from cloister.errors import MalformedImage


class Kind(enum.Enum):
    """What an entry is."""

    DEVICE = "device node"
    DIRECTORY = "folder"
    FIFO = "pipe"
    FILE = "file"
    LINK = "hard link"
    SYMLINK = "symbolic link"


class Member(NamedTuple):
    """An entry of an archive.

    Args:
        path: Relative, clean: no empty part, ``.`` or ``..``; empty: the root.
        kind: What it is.
        mode: Permission bits, set-id and sticky bits included.
        uid: Owner.
        gid: Group.
        mtime: Seconds since 1970.
        target: Where a link leads: as written for a symbolic one, clean for a hard one.
        content: Bytes of a file.
        attributes: Names of its extended attributes.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    target: bytes
    content: Content | None
    attributes: tuple[str, ...]

    @property
    def is_hard_link(self) -> bool:
        """Whether it is another name of a file."""
        return self.kind is Kind.LINK


def walk(archive: Slice, budget: Budget, *, name: str | None = None) -> Iterator[Member]:
    """The entries of an archive, in its order.

    Args:
        archive: The archive, not compressed.
        budget: What may still be read.
        name: How messages call it; default: its file.

    Raises:
        MalformedImage: With the name of the entry or its offset: no tar archive, damaged or cut
            short, a path that leads out, a kind that no image has, more than the limits.
    """
    called = name or f"`{archive.backing.name}`"
    reading = _Bounded(archive, budget.limits.header, called)
    with contextlib.closing(_opened(reading, called)) as tar:
        heads = ustar.Heads(archive)
        at = 0
        while True:
            # Nearly all heads are plain ones, and tarfile takes most of a merge's time for them. A
            # global header may say something about those that follow it.
            plain = None if tar.pax_headers else heads.read(at)
            if plain is not None:
                budget.take_entry(called)
                yield _plain_member(plain, archive, called)
                at = plain.next
                continue
            tar.offset = at
            reading.seek(at)
            found = _next(tar, reading, called)
            if found is None:
                break
            budget.take_entry(called)
            yield _member(found, archive, budget, called)
            # It keeps every entry for lookups that nobody does here.
            tar.members.clear()  # type: ignore[attr-defined]
            at = tar.offset
        _check_end(archive, at, called)


def _plain_member(head: ustar.Head, archive: Slice, called: str) -> Member:
    path = clean(head.name)
    if path is None:
        raise _leads_out(head.name, called)
    kind, content, target = _KINDS[head.kind], None, b""
    if kind is Kind.FILE:
        content = archive.part(head.offset, head.size)
    elif kind is Kind.SYMLINK:
        target = _symlink_target(head.link, head.name, called)
    elif kind is Kind.LINK:
        target = _hard_link_target(head.link, head.name, called)
    return Member(path, kind, head.mode, head.uid, head.gid, head.mtime, target, content, ())


def _opened(reading: "_Bounded", called: str) -> tarfile.TarFile:
    try:
        tar = tarfile.TarFile(fileobj=reading, mode="r", errorlevel=2, encoding="utf-8")
    except MalformedImage:
        raise
    except Exception as problem:  # noqa: BLE001 - as in _next
        raise MalformedImage(f"{called} is not a tar archive: {problem}") from None
    # The first entry was read to see what this is; the walk begins with it again.
    tar.firstmember = None  # type: ignore[attr-defined]
    return tar


def _next(tar: tarfile.TarFile, reading: "_Bounded", called: str) -> tarfile.TarInfo | None:
    reading.start_entry()
    try:
        return tar.next()
    except MalformedImage:
        raise
    except Exception as problem:  # noqa: BLE001 - hostile heads raise more than its own errors
        raise MalformedImage(f"{called} cannot be read at {tar.offset}: {problem}") from None


def _member(found: tarfile.TarInfo, archive: Slice, budget: Budget, called: str) -> Member:
    raw = _bytes(found.name)
    path = clean(raw)
    if path is None:
        raise _leads_out(raw, called)
    kind = _KINDS.get(found.type)
    if kind is None:
        raise MalformedImage(
            f"{called}: entry `{shown(raw)}` is of a kind that images do not have ({found.type!r})"
        )
    content: Content | None = None
    target = b""
    if kind is Kind.FILE:
        content = _content(found, archive, budget, called)
    elif kind is Kind.SYMLINK:
        target = _symlink_target(_bytes(found.linkname), raw, called)
    elif kind is Kind.LINK:
        target = _hard_link_target(_bytes(found.linkname), raw, called)
    for what, number in (("owner", found.uid), ("group", found.gid)):
        if not 0 <= number <= MAX_ID:
            raise MalformedImage(f"{called}: entry `{shown(raw)}` has the {what} {number}")
    return Member(
        path=path,
        kind=kind,
        mode=found.mode & 0o7777,
        uid=found.uid,
        gid=found.gid,
        mtime=int(found.mtime),
        target=target,
        content=content,
        attributes=tuple(
            key.removeprefix(_ATTRIBUTE) for key in found.pax_headers if key.startswith(_ATTRIBUTE)
        )
        if found.pax_headers
        else (),
    )


def clean(path: bytes) -> bytes | None:
    """A path without ``.``, doubled and outer slashes; ``None``: it has a ``..``.

    A slash in front is the root of the image: some builders write their entries so.
    """
    if b"//" not in path and b"/." not in path and path[:1] not in (b"/", b".", b""):
        return path.rstrip(b"/")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    return None if b".." in parts else b"/".join(parts)


def _leads_out(raw: bytes, called: str) -> MalformedImage:
    return MalformedImage(f"{called}: entry `{shown(raw)}` leads out of the image")


def _symlink_target(target: bytes, raw: bytes, called: str) -> bytes:
    """As it is written: it is followed inside the image only."""
    if not 0 < len(target) <= MAX_TARGET_BYTES or b"\0" in target:
        raise MalformedImage(f"{called}: link `{shown(raw)}` has no proper target")
    return target


def _hard_link_target(target: bytes, raw: bytes, called: str) -> bytes:
    linked = clean(target)
    if not linked:
        raise MalformedImage(
            f"{called}: hard link `{shown(raw)}` leads out of the image, to `{shown(target)}`"
        )
    return linked


def _content(found: tarfile.TarInfo, archive: Slice, budget: Budget, called: str) -> Content:
    sparse: list[tuple[int, int]] | None = getattr(found, "sparse", None)
    if sparse is None:
        return archive.part(found.offset_data, found.size)
    budget.take_bytes(found.size, called)
    pieces = []
    at, read = 0, found.offset_data
    for offset, size in sparse:
        if not size:
            continue  # The end of the list, and of the file, are said so.
        if offset < at or size < 0 or offset + size > found.size:
            raise MalformedImage(f"{called}: entry `{shown(_bytes(found.name))}` has wrong holes")
        pieces.append((offset, archive.part(read, size)))
        at, read = offset + size, read + size
    return Sparse(tuple(pieces), found.size)


def _check_end(archive: Slice, at: int, called: str) -> None:
    """An archive ends with zeros, or where its file ends; anything else was a damaged head."""
    if at > archive.size:
        raise MalformedImage(f"{called} ends inside its last entry")
    rest = archive.part(at, min(archive.size - at, tarfile.BLOCKSIZE)).read(tarfile.BLOCKSIZE, "")
    if any(rest) or 0 < len(rest) < tarfile.BLOCKSIZE:
        raise MalformedImage(f"{called} is damaged: no entry at offset {at}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Bounded(io.RawIOBase):
    """A slice as ``tarfile`` wants it, which reads no more than a few headers for an entry."""

    def __init__(self, archive: Slice, limit: int, called: str) -> None:
        self._archive = archive
        self._limit = limit
        self._called = called
        self._at = 0
        self._read = 0

    def start_entry(self) -> None:
        self._read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or self._read + size > self._limit:
            raise MalformedImage(
                f"{self._called} has headers of more than {self._limit} bytes at offset {self._at}"
            )
        left = max(0, self._archive.size - self._at)
        found = os.pread(self._archive.backing.fd, min(size, left), self._archive.offset + self._at)
        self._at += len(found)
        self._read += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset if whence == os.SEEK_SET else self._at + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.LNKTYPE: Kind.LINK,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.CHRTYPE: Kind.DEVICE,
    tarfile.BLKTYPE: Kind.DEVICE,
    tarfile.FIFOTYPE: Kind.FIFO,
}
_ATTRIBUTE = "SCHILY.xattr."
MAX_TARGET_BYTES = 4095
"""PATH_MAX without its final zero."""
MAX_ID = 0xFFFF_FFFE
"""The highest owner; the one above means "do not change" (chown(2))."""
