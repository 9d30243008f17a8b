"""Unpacks a compressed ramdisk, as the kernel does.

The kernel takes one part after the other, packed or not, with zeros between them
(``init/initramfs.c``, ``unpack_to_rootfs``). What follows a packed part is therefore part of the
image too, and nothing of it is passed over. Only gzip is read, which linuxkit writes (nitro-cli's
own build of it can leave it away); other methods are named and refused.
"""

import zlib
from typing import IO

from cloister.build.cpio import MAGIC, WORD
from cloister.build.eif import Section
from cloister.build.eif.layout import SECTION_BYTES
from cloister.errors import MalformedImage


def compression(payload: memoryview) -> str:
    """What a ramdisk is packed with, by its first bytes; empty: nothing that is known."""
    start = bytes(payload[:8])
    return next((name for magic, name in _METHODS.items() if start.startswith(magic)), "")


def unpack(section: Section, file: IO[bytes]) -> None:
    """Writes what is in a ramdisk that is packed with gzip.

    Args:
        section: The ramdisk.
        file: An empty file.

    Raises:
        MalformedImage: At an offset: it is damaged, unpacks to far more than its size, or goes on
            with something that is no archive.
    """
    at = 0
    while at < section.size:
        if section.payload[at : at + len(GZIP)] == GZIP:
            at = _member(section, at, file)
            # The parts of what is written start at a multiple of four, as each does by itself.
            file.write(bytes(-file.tell() % WORD))
        elif section.payload[at : at + len(MAGIC)] == MAGIC:
            file.write(section.payload[at:])
            return
        else:
            raise _problem(section, at, "what follows its gzip stream is no archive")
        at = _past_zeros(section.payload, at)


def _member(section: Section, start: int, file: IO[bytes]) -> int:
    """Unpacks one gzip member and returns where it ends."""
    reader = zlib.decompressobj(31)  # a gzip header, the largest window (zlib.h, inflateInit2)
    at = start
    try:
        while at < section.size and not reader.eof:
            block = bytes(section.payload[at : at + BLOCK_BYTES])
            at += len(block)
            while block and not reader.eof:
                file.write(reader.decompress(block, BLOCK_BYTES))
                if file.tell() > max(RATIO_FROM, RATIO * at):
                    problem = f"unpacks to more than {RATIO} times its size: a decompression bomb"
                    raise _problem(section, 0, problem)
                block = reader.unconsumed_tail
    except zlib.error as problem:
        raise _problem(section, start, f"not gzip as it says: {problem}") from None
    if not reader.eof:
        raise _problem(section, start, "its gzip stream has no end")
    return at - len(reader.unused_data)


def _past_zeros(payload: memoryview, at: int) -> int:
    while at < len(payload):
        block = bytes(payload[at : at + BLOCK_BYTES])
        rest = block.lstrip(b"\0")
        at += len(block) - len(rest)
        if rest:
            break
    return at


def _problem(section: Section, at: int, problem: str) -> MalformedImage:
    return MalformedImage(f"ramdisk at offset {section.offset + SECTION_BYTES + at}: {problem}")


GZIP = b"\x1f\x8b"
_METHODS = {
    GZIP: "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "lzma",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x89LZO\x00": "lzo",
}
"""How each begins (``lib/decompress.c`` of the kernel)."""
BLOCK_BYTES = 1 << 20
RATIO = 200
RATIO_FROM = 256 << 20
