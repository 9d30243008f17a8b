"""Kernels made by hand: a setup header, a version text and nothing that would boot."""

import pathlib
import struct

from cloister.build.kernel.choose import OPTION_MODULE
from cloister.build.kernel.facts import BOOT, EGRESS, NITRO

VERSION = "6.12.117-enclave"
BANNER = f"{VERSION} (cloister@cloister) #1 SMP"
SECTORS = 2
SETUP_BYTES = (1 + SECTORS) * 512
BANNER_AT = 0x300


def bzimage(banner: bytes = BANNER.encode(), system: bytes = b"system" * 32) -> bytes:
    """A kernel with this version text; ``system`` is the code that would run."""
    system += bytes(-len(system) % 16)
    file = bytearray(SETUP_BYTES) + system
    file[0x1F1] = SECTORS
    struct.pack_into("<I", file, 0x1F4, len(system) // 16)
    struct.pack_into("<H", file, 0x1FE, 0xAA55)
    file[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", file, 0x206, 0x20F)
    struct.pack_into("<H", file, 0x20E, BANNER_AT - 0x200)
    file[0x211] = 1
    struct.pack_into("<I", file, 0x238, 2047)
    struct.pack_into("<I", file, 0x260, 1 << 24)
    file[BANNER_AT : BANNER_AT + len(banner) + 1] = banner + b"\0"
    return bytes(file)


def configuration(*, without: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> str:
    """A configuration with everything that an enclave needs, less some, and some as modules."""
    lines = [
        f"CONFIG_{name}={'m' if name in modules else 'y'}"
        for name in (*BOOT, *NITRO, *EGRESS)
        if name not in without
    ]
    lines += [f"# CONFIG_{name} is not set" for name in without]
    return "\n".join(lines) + "\n"


def write(folder: pathlib.Path, image: bytes | None = None, config: str | None = None) -> None:
    """``bzImage`` and ``bzImage.config`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bzImage").write_bytes(bzimage() if image is None else image)
    text = configuration() if config is None else config
    (folder / "bzImage.config").write_text(text)


MODULAR = tuple(OPTION_MODULE)
