"""What a kernel module says about itself: the section ``.modinfo`` of an ELF file, 64 bits.

Read without believing a number in it: every offset is held against the file. The layout is that of
elf(5); the texts are ``name=value``, each ended by a NUL (Linux, ``include/linux/moduleparam.h``).
"""

import struct
from collections.abc import Iterator

from cloister.errors import MalformedImage


def needs(module: bytes, name: str) -> list[str]:
    """The modules that have to be loaded before this one.

    Args:
        module: The file, not compressed.
        name: What it is called in messages.

    Raises:
        MalformedImage: It is not an ELF file of 64 bits with a section ``.modinfo``.
    """
    for text in _section(module, name).split(b"\0"):
        key, _, value = text.partition(b"=")
        if key == b"depends":
            said = value.decode("ascii", "replace")
            return [one.replace("-", "_") for one in said.split(",") if one]
    return []


def _section(module: bytes, name: str) -> bytes:
    if module[:6] != ELF64_LITTLE or len(module) < ELF_HEADER:
        raise MalformedImage(f"module `{name}` is not an ELF file of 64 bits")
    (at,) = struct.unpack_from("<Q", module, 0x28)
    size, count, names = struct.unpack_from("<HHH", module, 0x3A)
    headers = list(_headers(module, at, size, count))
    if names < len(headers):
        _, names_at, names_size = headers[names]
        texts = _part(module, names_at, names_size)
        for text, start, length in headers:
            if texts[text : text + len(MODINFO)] == MODINFO:
                return _part(module, start, length)
    raise MalformedImage(f"module `{name}` has no section .modinfo")


def _headers(module: bytes, at: int, size: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Name, offset and size of each section that lies in the file."""
    if size < SECTION_HEADER:
        return
    for index in range(count):
        header = _part(module, at + index * size, SECTION_HEADER)
        if len(header) < SECTION_HEADER:
            return
        (text,) = struct.unpack_from("<I", header, 0)
        start, length = struct.unpack_from("<QQ", header, 0x18)
        yield text, start, length


def _part(module: bytes, at: int, size: int) -> bytes:
    """Bytes of the file; fewer where it ends."""
    return module[at : at + size]


ELF64_LITTLE = b"\x7fELF\x02\x01"
ELF_HEADER, SECTION_HEADER = 64, 64
MODINFO = b".modinfo\0"
