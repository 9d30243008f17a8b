"""Writes an EIF: sections pass once through the digests, the checksum and the file.

Nothing is held in memory but a few chunks. The signature needs PCR0, which is known when the last
ramdisk has passed; the header needs the size of the signature, so it is written last, over its own
place.
"""

import dataclasses
import io
import zlib
from collections.abc import Callable, Iterable, Sequence

from cloister.build.eif import crc
from cloister.build.eif.layout import (
    CRC_AT,
    FLAG_AARCH64,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAX_SECTIONS,
    SECTION,
    VERSION,
    Kind,
)
from cloister.build.eif.measure import Measuring, Pcrs
from cloister.build.eif.pipeline import Pipeline
from cloister.build.eif.signature import SigningPair


@dataclasses.dataclass(frozen=True, slots=True)
class Payload:
    """A section to be written.

    Args:
        kind: What it holds.
        size: Length of the payload, in bytes.
        blocks: The payload, in order.
    """

    kind: Kind
    size: int
    blocks: Iterable[bytes | bytearray | memoryview]

    @classmethod
    def of(cls, kind: Kind, data: bytes) -> "Payload":
        """A payload that is in memory."""
        return cls(kind, len(data), (data,))


def write(  # noqa: PLR0913 - the fields of the header, named at the call
    out: io.BufferedIOBase,
    sections: Sequence[Payload],
    *,
    memory: int,
    cpus: int,
    is_aarch64: bool = False,
    signing: SigningPair | None = None,
    advanced: Callable[[int], None] = lambda _: None,
) -> Pcrs:
    """Writes an image and returns its registers.

    Args:
        out: A new file, open for writing and seeking.
        sections: In the order of the format, without the signature.
        memory: Default memory of the enclave, in bytes.
        cpus: Default number of its processors.
        is_aarch64: For that architecture.
        signing: Signs the image.
        advanced: Called with the length of each block that was taken up, in bytes.

    Raises:
        ValueError: Sections in another order, too many, none that is a ramdisk, or a payload that
            is not of the size it says.
        OSError: The file cannot be written.
    """
    _check(sections, is_signed=signing is not None)
    writing = _Writing(out, advanced)
    out.write(bytes(HEADER_BYTES))
    for section in sections:
        writing.section(section)
    pcrs = writing.measuring.pcrs(None)
    if signing is not None:
        writing.section(Payload.of(Kind.SIGNATURE, signing.sign(pcrs.pcr0)))
        pcrs = writing.measuring.pcrs(signing.certificate_der)
    count = len(writing.sizes)
    unused = [0] * (MAX_SECTIONS - count)
    header = HEADER.pack(
        *(MAGIC, VERSION, FLAG_AARCH64 if is_aarch64 else 0, memory, cpus, 0, count),
        *(*writing.offsets, *unused, *writing.sizes, *unused),
        *(0, 0),
    )[:CRC_AT]
    total = crc.combine(zlib.crc32(header), writing.crc, writing.at - HEADER_BYTES)
    out.seek(0)
    out.write(header + total.to_bytes(4, "big"))
    return pcrs


class _Writing:
    def __init__(self, out: io.BufferedIOBase, advanced: Callable[[int], None]) -> None:
        self._out = out
        self._advanced = advanced
        self.measuring = Measuring()
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.crc = 0
        self.at = HEADER_BYTES

    def section(self, section: Payload) -> None:
        self.offsets.append(self.at)
        self.sizes.append(section.size)
        self._put(SECTION.pack(section.kind, 0, section.size))
        digests = self.measuring.start(section.kind)
        passed = 0
        with Pipeline([self._put, *(digest.update for digest in digests)]) as pipeline:
            for block in section.blocks:
                passed += len(block)
                # A source that goes on for ever is stopped where it should have ended.
                if passed > section.size:
                    break
                pipeline.put(block)
                self._advanced(len(block))
        if passed != section.size:
            raise ValueError(f"section {section.kind.name} is not {section.size} bytes long")

    def _put(self, block: bytes | bytearray | memoryview) -> None:
        self._out.write(block)
        self.crc = zlib.crc32(block, self.crc)
        self.at += len(block)


def _check(sections: Sequence[Payload], *, is_signed: bool) -> None:
    if len(sections) + is_signed > MAX_SECTIONS:
        raise ValueError(f"more than {MAX_SECTIONS} sections")
    order = {Kind.KERNEL: 0, Kind.CMDLINE: 1, Kind.METADATA: 2, Kind.RAMDISK: 3}
    ranks = [order[section.kind] for section in sections]
    if ranks != sorted(ranks):
        raise ValueError("sections are not in the order kernel, cmdline, metadata, ramdisks")
    if 3 not in ranks or any(ranks.count(rank) > 1 for rank in (0, 1, 2)):  # noqa: PLR2004
        raise ValueError("an image has a ramdisk, and one of everything else at most")
