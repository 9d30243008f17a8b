"""Any bytes as an image: read, measured, described, and its ramdisks taken apart.

The checksum is put right first, or nothing behind it is ever reached. Whatever happens, a reader
returns or refuses with :class:`~cloister.errors.CloisterError`; what our strict reader of ramdisks
takes, the reader of any maker's takes too, with the same entries.
"""

import contextlib
import struct
import sys
import zlib

import atheris

with atheris.instrument_imports(include=["cloister"]):
    from cloister.build import cpio
    from cloister.build.eif import Eif, measure, signature
    from cloister.build.eif.layout import CRC_AT, HEADER_BYTES, SECTION_BYTES
    from cloister.build.eif.read import parse
    from cloister.build.explain import contents, difference
    from cloister.errors import MalformedImage


def one(data: bytes) -> None:
    """One input."""
    ramdisk(data)
    with contextlib.suppress(MalformedImage):
        signature.verify(data, bytes(48))
    if len(data) < HEADER_BYTES:
        return
    crc = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[:CRC_AT]))
    data = data[:CRC_AT] + struct.pack(">I", crc) + data[HEADER_BYTES:]
    try:
        image = parse(data)
    except MalformedImage:
        return
    inner = sum(SECTION_BYTES + section.size for section in image.sections)
    assert len(data) == HEADER_BYTES + inner, "bytes that belong to no section"
    described(image)
    for section in image.ramdisks:
        ramdisk(bytes(section.payload))


def described(image: Eif) -> None:
    """What `describe` does with it."""
    with contextlib.suppress(MalformedImage):
        measure(image)
    with contextlib.suppress(MalformedImage), contents(image) as found:
        for part in found:
            for item in part.items.values():
                item.described()
    with contextlib.suppress(MalformedImage):
        assert not difference(image, image).changes, "an image differs from itself"


def ramdisk(data: bytes) -> None:
    """As a ramdisk of ours, and of anybody."""
    try:
        strict = cpio.read(data)
    except MalformedImage:
        with contextlib.suppress(MalformedImage):
            cpio.read_any(data)
        return
    folders = {b""}
    for entry in strict:
        assert entry.path.rpartition(b"/")[0] in folders, "an entry before its folder"
        assert not {b"", b".", b".."} & set(entry.path.split(b"/")), "a path that leads elsewhere"
        if entry.mode & cpio.KIND == cpio.DIRECTORY:
            folders.add(entry.path)
    entries, archives = cpio.read_any(data)
    assert archives == 1, "the strict reader takes one archive"
    assert [entry.path for entry in entries] == [entry.path for entry in strict]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
