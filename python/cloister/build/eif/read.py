"""Reads an EIF, strictly, without believing a number in it.

Sections are slices of the mapped file: nothing is allocated from a size that the file names. The
offset table and the physical order must agree, nothing may lie before, between or after the
sections, and the checksum must be right. `rust/sandbox` reads by the same rules.
"""

import contextlib
import dataclasses
import mmap
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from cloister.build.eif.layout import (
    CRC_AT,
    FLAG_AARCH64,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAX_SECTIONS,
    ORDER,
    SECTION,
    SECTION_BYTES,
    VERSION,
    Kind,
)
from cloister.errors import MalformedImage, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section.

    Args:
        kind: What it holds.
        offset: Where its header starts, in bytes.
        size: Length of the payload, in bytes.
        payload: The payload, a slice of the file.
    """

    kind: Kind
    offset: int
    size: int
    payload: memoryview


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eif:
    """An image, as slices of the file.

    Args:
        flags: Bit 0: aarch64.
        default_memory: In bytes, as the header says; what runs it decides.
        default_cpus: As the header says.
        crc: Checksum of the file, checked.
        sections: In their order.
    """

    flags: int
    default_memory: int
    default_cpus: int
    crc: int
    sections: tuple[Section, ...]

    @property
    def architecture(self) -> str:
        """``aarch64`` or ``x86_64``."""
        return "aarch64" if self.flags & FLAG_AARCH64 else "x86_64"

    def one(self, kind: Kind) -> Section | None:
        """The section of a kind that is there once at most."""
        return next((section for section in self.sections if section.kind is kind), None)

    @property
    def signature(self) -> Section | None:
        """The signature section."""
        return self.one(Kind.SIGNATURE)

    @property
    def ramdisks(self) -> list[Section]:
        """Boot first, then the application's."""
        return [section for section in self.sections if section.kind is Kind.RAMDISK]


@contextlib.contextmanager
def open_eif(path: pathlib.Path) -> Iterator[Eif]:
    """Reads an image; its payloads are readable inside the block.

    Raises:
        MissingInput: There is no such file.
        MalformedImage: It is not an EIF; the message says at which offset, and why.
    """
    try:
        # Opening a pipe would wait for somebody who writes.
        if not path.is_file() and path.exists():
            raise MalformedImage(f"`{path}` is not an EIF: it is no file")
        with path.open("rb") as file:
            if file.seek(0, 2) < HEADER_BYTES:
                raise MalformedImage(
                    f"`{path}` is not an EIF: it is shorter than a header, {HEADER_BYTES} bytes"
                )
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise MissingInput(f"there is no image `{path}`", hint="run `cloister build`") from None
    except OSError as problem:
        raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from problem

    def passed(count: int) -> None:
        # The pages stay in the system's cache; this process counts those it uses.
        mapped.madvise(mmap.MADV_DONTNEED, 0, count)

    try:
        image = parse(memoryview(mapped), passed)
    except MalformedImage as problem:
        raise MalformedImage(
            f"`{path}`: {problem.message}", hint="`cloister build` makes it again"
        ) from None
    yield image
    for section in image.sections:
        section.payload.release()
    # Where a caller still holds a slice, the mapping goes with the last one.
    with contextlib.suppress(BufferError):
        mapped.close()


def parse(view: memoryview | bytes, passed: Callable[[int], object] = lambda _: None) -> Eif:
    """Reads an image from memory.

    Args:
        view: All of it.
        passed: Called with how many bytes from its start went into the checksum so far.

    Raises:
        MalformedImage: In the order: header, checksum, each section, what lies after the last,
            which sections there are.
    """
    view = memoryview(view)
    header = _header(view)
    found = zlib.crc32(view[:CRC_AT])
    for start in range(HEADER_BYTES, len(view), BLOCK_BYTES):
        block = view[start : start + BLOCK_BYTES]
        found = zlib.crc32(block, found)
        passed(start + len(block))
    if found != header.crc:
        _fail(CRC_AT, f"the checksum is {header.crc:08x}, the file's is {found:08x}: it is damaged")
    at = HEADER_BYTES
    sections = []
    for index, (offset, size) in enumerate(header.table):
        section = _section(view, index, at, offset, size)
        sections.append(section)
        at += SECTION_BYTES + section.size
    if at != len(view):
        _fail(at, f"{len(view) - at} bytes after the last section")
    _check_order(sections)
    return Eif(
        flags=header.flags,
        default_memory=header.memory,
        default_cpus=header.cpus,
        crc=header.crc,
        sections=tuple(sections),
    )


class _Header(NamedTuple):
    flags: int
    memory: int
    cpus: int
    crc: int
    table: list[tuple[int, int]]


def _header(view: memoryview) -> _Header:
    if len(view) < HEADER_BYTES:
        _fail(0, f"{len(view)} bytes, expected a header of {HEADER_BYTES}")
    magic, version, flags, memory, cpus, reserved, count, *rest = HEADER.unpack_from(view)
    table = list(zip(rest[:MAX_SECTIONS], rest[MAX_SECTIONS : 2 * MAX_SECTIONS], strict=True))
    reserved_2, crc = rest[-2:]
    if magic != MAGIC:
        _fail(0, f"the magic is {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        _fail(4, f"the version is {version}, expected {VERSION}")
    if flags & ~FLAG_AARCH64:
        _fail(6, f"the flags are {flags:#06x}, expected 0 or 1")
    if reserved or reserved_2:
        _fail(24 if reserved else 540, "a reserved field is not zero")
    if not 1 <= count <= MAX_SECTIONS:
        _fail(26, f"the section count is {count}, expected 1 to {MAX_SECTIONS}")
    for index in range(count, MAX_SECTIONS):
        if any(table[index]):
            _fail(28 + 8 * index, f"the table has an entry {index}, expected {count} entries")
    return _Header(flags, memory, cpus, crc, table[:count])


def _section(view: memoryview, index: int, at: int, offset: int, size: int) -> Section:
    if offset != at:
        _fail(28 + 8 * index, f"section {index} is said to be at {offset}, expected {at}")
    if len(view) - at < SECTION_BYTES:
        _fail(at, f"the file ends in the header of section {index}")
    kind, flags, length = SECTION.unpack_from(view, at)
    try:
        kind = Kind(kind)
    except ValueError:
        _fail(at, f"section {index} is of the unknown kind {kind}")
    if flags:
        _fail(at + 2, f"the flags of section {index} are {flags:#06x}, expected 0")
    if length != size:
        _fail(at + 4, f"section {index} has {length} bytes, its entry in the table says {size}")
    start = at + SECTION_BYTES
    if length > len(view) - start:
        _fail(at + 4, f"section {index} has {length} bytes, the file has {len(view) - start} left")
    return Section(kind=kind, offset=at, size=length, payload=view[start : start + length])


def _check_order(sections: list[Section]) -> None:
    seen: set[Kind] = set()
    rank = 0
    for index, section in enumerate(sections):
        if section.kind in seen and section.kind is not Kind.RAMDISK:
            _fail(section.offset, f"section {index} is a second {section.kind.name.lower()}")
        seen.add(section.kind)
        if section.kind is Kind.METADATA:
            continue
        if ORDER[section.kind] < rank:
            _fail(section.offset, "the order is not kernel, cmdline, ramdisks, signature")
        rank = ORDER[section.kind]
    if Kind.RAMDISK not in seen:
        _fail(26, "there is no ramdisk")


def _fail(at: int, problem: str) -> NoReturn:
    raise MalformedImage(f"not a proper EIF: offset {at}: {problem}")


BLOCK_BYTES = 16 << 20
