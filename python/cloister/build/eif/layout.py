"""Numbers and names of the format, used by writer and reader alike.

All integers are big-endian. The source is aws-nitro-enclaves-image-format, ``src/defs/mod.rs``.
"""

import enum
import struct


class Kind(enum.IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


MAGIC = b".eif"
VERSION = 4
FLAG_AARCH64 = 1
MAX_SECTIONS = 32
HEADER = struct.Struct(">4sHHQQHH32Q32QII")
"""Magic, version, flags, default memory, default CPUs, reserved, section count, offsets, sizes,
reserved, CRC-32."""
HEADER_BYTES = 548
CRC_AT = 544
SECTION = struct.Struct(">HHQ")
"""Kind, flags, size of the payload."""
SECTION_BYTES = 12
ORDER = {Kind.KERNEL: 1, Kind.CMDLINE: 2, Kind.RAMDISK: 3, Kind.SIGNATURE: 4}
"""Where a kind stands; metadata is in no PCR and may stand anywhere before the signature."""
